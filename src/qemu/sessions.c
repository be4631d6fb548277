/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions of a guest (sessions.h). One thread; nothing here waits. A client that does not read fills its own window,
 * and the guest stops sending for it; a port that does not take frames stops the reading of clients' input.
 */
#include "qemu/sessions.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "qemu/supervisor.h"

/* ---- to the guest ---- */

static void flush_port(struct sessions *x)
{
    ssize_t n = x->queued && x->port >= 0 ? send(x->port, x->queue, x->queued, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;

    if (n <= 0)
        return;
    x->queued -= (size_t)n;
    memmove(x->queue, x->queue + n, x->queued);
}

/* False: there is no room; nobody sends so much but a guest that was taken over asks for. */
static bool send_frame(struct sessions *x, enum session_type type, unsigned number, const void *payload, size_t size)
{
    const struct session_frame f = {(uint16_t)type, (uint16_t)number, (uint32_t)size};

    if (x->port < 0 || x->queued + sizeof(f) + size > sizeof(x->queue))
        return false;
    memcpy(x->queue + x->queued, &f, sizeof(f));
    if (size)
        memcpy(x->queue + x->queued + sizeof(f), payload, size);
    x->queued += sizeof(f) + size;
    flush_port(x);
    return true;
}

/* ---- one session ---- */

static struct session *get(struct sessions *x, unsigned number)
{
    return number >= 1 && number <= SESSION_MAX ? x->list[number - 1] : NULL;
}

static void close_stream(struct session *n, int which)
{
    n->fds[which] = close_fd(n->fds[which]);
    if (which > 0)
        n->output[which - 1].used = n->output[which - 1].from = 0;
}

static void release(struct supervisor *s, unsigned number)
{
    struct session *n = get(&s->sessions, number);

    for (int i = 0; i < 3; i++)
        close_stream(n, i);
    if (n->connection >= 0)
        for (unsigned i = 0; i < CONNECTION_MAX; i++)
            if (s->connections[i] == n->connection)
                s->connections[i] = -1;
    close_fd(n->connection);
    free(n);
    s->sessions.list[number - 1] = NULL;
}

static void tell_end(struct session *n)
{
    struct monitor_ended m = {.header.type = MONITOR_ENDED, .wait_status = n->wait_status};

    if (n->connection >= 0)
        monitor_send(n->connection, &m.header, sizeof(m), NULL, 0, NULL);
}

/* When its output found its readers, or they went. */
static void finish(struct supervisor *s, unsigned number)
{
    struct session *n = get(&s->sessions, number);

    if (!n->ended || n->output[0].used || n->output[1].used)
        return;
    for (int i = 0; i < 3; i++) /* before the word: who hears it finds the end of the output */
        close_stream(n, i);
    tell_end(n);
    release(s, number);
}

/* ---- output ---- */

/* What a reader who went would have read is gone, too; the guest is told that it was taken. */
static void flush_output(struct supervisor *s, unsigned number, int which)
{
    struct session *n = get(&s->sessions, number);
    struct session_pending *p = &n->output[which];
    struct session_taken taken = {.stream = which ? SESSION_ERRORS : SESSION_OUTPUT};
    int *fd = &n->fds[which + 1];

    while (p->used) {
        ssize_t done = *fd < 0 ? (ssize_t)p->used : write(*fd, p->bytes + p->from, p->used);
        if (done < 0 && errno == EAGAIN)
            break;
        if (done < 0) {
            done = (ssize_t)p->used;
            *fd = close_fd(*fd);
        }
        p->from = p->used == (size_t)done ? 0 : p->from + (size_t)done;
        p->used -= (size_t)done;
        taken.bytes += (uint32_t)done;
    }
    if (taken.bytes)
        send_frame(&s->sessions, SESSION_TAKEN, number, &taken, sizeof(taken));
    finish(s, number);
}

/* More than the window is more than it may send: it loses what is beyond. */
static void take_output(struct supervisor *s, unsigned number, int which, const char *bytes, size_t size)
{
    struct session_pending *p = &get(&s->sessions, number)->output[which];

    if (size > sizeof(p->bytes) - p->used)
        size = sizeof(p->bytes) - p->used;
    if (p->from + p->used + size > sizeof(p->bytes)) {
        memmove(p->bytes, p->bytes + p->from, p->used);
        p->from = 0;
    }
    memcpy(p->bytes + p->from + p->used, bytes, size);
    p->used += size;
    flush_output(s, number, which);
}

/* ---- from the guest ---- */

static void answer_opened(struct session *n)
{
    n->running = true;
    if (n->connection >= 0)
        monitor_send_done(n->connection, NULL, -1);
}

static void answer_failed(struct supervisor *s, unsigned number, const char *payload)
{
    struct session *n = get(&s->sessions, number);
    auto_error struct error *err = NULL;

    error_set(&err, ENOEXEC, "EXEC_FAILED", "%.240s", payload);
    if (payload[strlen(payload) + 1])
        error_hint(&err, "%.240s", payload + strlen(payload) + 1);
    if (n->connection >= 0)
        monitor_send_failed(n->connection, MONITOR_STAGE_EXEC, err);
    /* the connection is not its any more; the peer closes it */
    n->connection = -1;
    release(s, number);
}

static void take_taken(struct session *n, const struct session_taken *t)
{
    if (t->stream == SESSION_INPUT)
        n->given = t->bytes > n->given ? 0 : n->given - t->bytes;
}

static void take_session_frame(struct supervisor *s, struct session *n, const struct session_frame *f,
                               const char *payload)
{
    switch (f->type) {
    case SESSION_OPENED:
        if (!n->running)
            answer_opened(n);
        return;
    case SESSION_FAILED:
        if (!n->running)
            answer_failed(s, f->session, payload);
        return;
    case SESSION_OUTPUT:
    case SESSION_ERRORS:
        take_output(s, f->session, f->type == SESSION_ERRORS, payload, f->size);
        return;
    case SESSION_TAKEN:
        take_taken(n, (const void *)payload);
        return;
    case SESSION_ENDED:
        if (!n->running) /* it never said that it began */
            return;
        memcpy(&n->wait_status, payload, sizeof(n->wait_status));
        n->ended = true;
        finish(s, f->session);
        return;
    default: /* the host's own types */
        return;
    }
}

static void take_frame(void *context, const struct session_frame *f, const char *payload)
{
    struct supervisor *s = context;
    struct session *n = get(&s->sessions, f->session);

    if (f->session == SESSION_APPLICATION && (f->type == SESSION_OUTPUT || f->type == SESSION_ERRORS))
        log_file_write(&s->log, f->type == SESSION_ERRORS ? LOG_STREAM_ERR : LOG_STREAM_OUT, payload, f->size);
    else if (n && !n->ended)
        take_session_frame(s, n, f, payload);
}

/* Commands that ran are lost to their callers: as when a container ends before it can tell. */
void sessions_close(struct supervisor *s)
{
    s->sessions.port = close_fd(s->sessions.port);
    s->sessions.queued = 0;
    for (unsigned number = 1; number <= SESSION_MAX; number++)
        if (get(&s->sessions, number))
            release(s, number);
}

static void read_port(struct supervisor *s)
{
    struct sessions *x = &s->sessions;
    char *at;
    size_t room = session_room(&x->reader, &at);
    ssize_t n = recv(x->port, at, room, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0 && session_feed(&x->reader, (size_t)n, take_frame, s) == 0)
        return;
    if (n > 0)
        console_note(s, "the guest does not keep to the protocol of sessions: no command can be executed any more");
    sessions_close(s);
}

/* ---- input ---- */

static void end_input(struct supervisor *s, unsigned number)
{
    struct session *n = get(&s->sessions, number);

    if (!send_frame(&s->sessions, SESSION_INPUT_END, number, NULL, 0))
        return; /* it is asked again */
    n->input_over = true;
    n->fds[0] = close_fd(n->fds[0]);
}

static void read_input(struct supervisor *s, unsigned number)
{
    struct sessions *x = &s->sessions;
    struct session *n = get(x, number);
    size_t room = SESSION_WINDOW - n->given;
    char bytes[SESSION_DATA_MAX];
    ssize_t got;

    /* what others read in this turn waits for the port: what is read here must fit behind it */
    if (room == 0 || sizeof(x->queue) - x->queued < sizeof(struct session_frame) + sizeof(bytes))
        return;
    got = read(n->fds[0], bytes, room < sizeof(bytes) ? room : sizeof(bytes));
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        end_input(s, number);
        return;
    }
    n->given += (size_t)got;
    send_frame(x, SESSION_INPUT, number, bytes, (size_t)got);
}

static bool wants_input(const struct sessions *x, const struct session *n)
{
    return n->running && !n->input_over && !n->ended && !x->queued && n->given < SESSION_WINDOW;
}

void sessions_look_at_sizes(struct supervisor *s)
{
    for (unsigned number = 1; number <= SESSION_MAX; number++) {
        struct session *n = get(&s->sessions, number);
        struct winsize w;

        if (!n || !n->terminal || !n->running || n->fds[0] < 0 || ioctl(n->fds[0], TIOCGWINSZ, &w) < 0 ||
            (w.ws_col == n->size.columns && w.ws_row == n->size.rows))
            continue;
        struct session_size size = {w.ws_col, w.ws_row};
        if (send_frame(&s->sessions, SESSION_RESIZE, number, &size, sizeof(size)))
            n->size = size;
    }
}

/* ---- the loop ---- */

void sessions_collect(struct supervisor *s, sessions_add *add, void *context)
{
    struct sessions *x = &s->sessions;

    add(context, &x->port, POLLIN | (x->queued ? POLLOUT : 0));
    for (unsigned i = 0; i < SESSION_MAX; i++) {
        struct session *n = x->list[i];
        if (!n)
            continue;
        if (wants_input(x, n))
            add(context, &n->fds[0], POLLIN);
        for (int which = 0; which < 2; which++)
            if (n->output[which].used)
                add(context, &n->fds[which + 1], POLLOUT);
    }
}

bool sessions_happened(struct supervisor *s, int *place, short events)
{
    struct sessions *x = &s->sessions;

    if (place == &x->port) {
        if (events & POLLOUT)
            flush_port(x);
        read_port(s);
        return true;
    }
    for (unsigned number = 1; number <= SESSION_MAX; number++) {
        struct session *n = get(x, number);
        if (!n || place < n->fds || place > n->fds + 2)
            continue;
        if (place == n->fds)
            read_input(s, number);
        else
            flush_output(s, number, (int)(place - n->fds) - 1);
        return true;
    }
    return false;
}

/* ---- requests ---- */

static int unsupported(struct error **err)
{
    error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY",
              "this guest carries no container: nothing can be executed in it");
    error_hint(err, "log in over ssh, where its image has a server");
    return -ENOTSUP;
}

static unsigned free_number(const struct sessions *x)
{
    unsigned number = 1;

    while (number <= SESSION_MAX && x->list[number - 1])
        number++;
    return number;
}

static void take_fds(struct session *n, struct monitor_message *m)
{
    for (unsigned i = 0; i < (n->terminal ? 1u : 3u); i++) {
        n->fds[i] = take_fd(&m->fds[i]);
        fcntl(n->fds[i], F_SETFL, O_NONBLOCK | (n->terminal ? O_RDWR : i ? O_WRONLY : O_RDONLY));
    }
    if (n->terminal)
        n->fds[1] = fcntl(n->fds[0], F_DUPFD_CLOEXEC, 0);
}

int sessions_exec(struct supervisor *s, int connection, struct monitor_message *m, struct error **err)
{
    const struct monitor_exec *e = &m->exec;
    struct sessions *x = &s->sessions;
    const unsigned number = free_number(x);
    struct {
        struct session_open open;
        char strings[SESSION_PAYLOAD_MAX - sizeof(struct session_open)];
    } payload = {.open = {e->terminal, e->argc, e->envc}};
    struct session *n;

    if (x->port < 0)
        return unsupported(err);
    if (number > SESSION_MAX)
        return error_set(err, EBUSY, "CONFLICTING_STATE", "%d commands run in this instance already", SESSION_MAX);
    if (e->strings_size > sizeof(payload.strings))
        return error_set(err, E2BIG, "EXEC_FAILED", "arguments and environment are too large");
    memcpy(payload.strings, e + 1, e->strings_size);
    n = calloc(1, sizeof(*n));
    if (!n)
        return error_set(err, ENOMEM, "NO_MEMORY", "a command in the guest");
    if (!send_frame(x, SESSION_OPEN, number, &payload, sizeof(payload.open) + e->strings_size)) {
        free(n);
        return error_set(err, EAGAIN, "CONFLICTING_STATE", "the guest does not answer: it may still be starting");
    }
    *n = (struct session){.open = true, .terminal = e->terminal, .connection = connection, .fds = x->fds[number - 1]};
    memset(n->fds, 0xff, sizeof(x->fds[0])); /* -1 */
    take_fds(n, m);
    x->list[number - 1] = n;
    return 0;
}

static unsigned number_of(const struct supervisor *s, int connection)
{
    for (unsigned i = 0; i < SESSION_MAX; i++)
        if (s->sessions.list[i] && s->sessions.list[i]->connection == connection)
            return i + 1;
    return 0;
}

int sessions_signal(struct supervisor *s, int connection, int signal, struct error **err)
{
    const int32_t payload = signal;

    if (s->sessions.port < 0)
        return unsupported(err);
    if (signal < 1 || signal > 64)
        return error_set(err, EINVAL, "INVALID_VALUE", "signal %d does not exist", signal);
    /* of no command: number 0, the application */
    if (!send_frame(&s->sessions, SESSION_SIGNAL, number_of(s, connection), &payload, sizeof(payload)))
        return error_set(err, EAGAIN, "CONFLICTING_STATE", "the guest does not answer: it may still be starting");
    return 0;
}

bool sessions_own(const struct supervisor *s, int connection)
{
    return number_of(s, connection) != 0;
}

void sessions_forget(struct supervisor *s, int connection)
{
    const unsigned number = number_of(s, connection);

    if (number)
        get(&s->sessions, number)->connection = -1;
}
