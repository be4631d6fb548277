/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands in the container, over the port to the host (sessions.h). The host always takes what is written to the port,
 * so writing may wait; what a command does not read and what nobody reads of it is bounded by the streams' windows.
 */
#include "images/tinyx/container/sessions.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "guest/session.h"
#include "images/tinyx/init/guest.h"

struct command {
    struct runtime_exec exec;
    bool terminal, ended, input_over;
    int fds[3];      /* its input to write, its output and errors to read; of a terminal the first two are one */
    size_t given[2]; /* bytes of output and errors that the host has not taken */
    int32_t wait_status;
    size_t typed; /* input that it has not read */
    char typing[SESSION_WINDOW];
};

static int port = -1;
static struct container *container;
static struct command *commands[SESSION_MAX]; /* NULL: free. Number i + 1 */
static struct session_reader reader;

/* ---- to the host ---- */

static void send_bytes(const void *bytes, size_t size)
{
    for (size_t done = 0; done < size && port >= 0;) {
        ssize_t n = write(port, (const char *)bytes + done, size - done);

        if (n > 0)
            done += (size_t)n;
        else if (n == 0 || (errno != EINTR && errno != EAGAIN))
            port = close_fd(port);
    }
}

static void send_frame(enum session_type type, unsigned number, const void *payload, size_t size)
{
    const struct session_frame f = {(uint16_t)type, (uint16_t)number, (uint32_t)size};
    char frame[sizeof(f) + SESSION_DATA_MAX];

    memcpy(frame, &f, sizeof(f));
    if (size)
        memcpy(frame + sizeof(f), payload, size);
    send_bytes(frame, sizeof(f) + size); /* in one: a wait of the port costs a turn of the host */
}

void sessions_application_wrote(bool error, const char *bytes, size_t size)
{
    while (size && port >= 0) {
        size_t part = size < SESSION_DATA_MAX ? size : SESSION_DATA_MAX;
        send_frame(error ? SESSION_ERRORS : SESSION_OUTPUT, SESSION_APPLICATION, bytes, part);
        bytes += part;
        size -= part;
    }
    if (size)
        (void)!write(error ? STDERR_FILENO : STDOUT_FILENO, bytes, size);
}

/* ---- commands ---- */

static struct command *get(unsigned number)
{
    return number >= 1 && number <= SESSION_MAX ? commands[number - 1] : NULL;
}

static void release(unsigned number)
{
    struct command *c = get(number);

    for (int i = 0; i < 3; i++)
        close_fd(c->fds[i]);
    c->exec.terminal = -1; /* it was fds[0] */
    runtime_exec_close(&c->exec);
    free(c);
    commands[number - 1] = NULL;
}

/* Ended, and all that it wrote is with the host. */
static void finish(unsigned number)
{
    struct command *c = get(number);

    if (!c->ended || c->fds[1] >= 0 || c->fds[2] >= 0)
        return;
    send_frame(SESSION_ENDED, number, &c->wait_status, sizeof(c->wait_status));
    release(number);
}

static void say_failed(unsigned number, const struct error *err)
{
    char text[1024], message[480];
    int n;

    error_text(err, message, sizeof(message));
    n = snprintf(text, sizeof(text), "%s%c%.400s", message, 0, err && err->hint ? err->hint : "");
    send_frame(SESSION_FAILED, number, text, (size_t)n + 1);
}

/* ends[i] is the command's, c->fds[i] ours. */
static int make_pipes(struct command *c, int ends[3])
{
    for (int i = 0; i < 3; i++) {
        int pair[2];

        if (pipe2(pair, O_CLOEXEC) < 0)
            return -errno;
        ends[i] = pair[i == 0 ? 0 : 1];
        c->fds[i] = pair[i == 0 ? 1 : 0];
        fcntl(c->fds[i], F_SETFL, O_NONBLOCK);
    }
    return 0;
}

static int execute(struct command *c, const struct session_process *p, struct error **err)
{
    const struct plan_process process = {.argv = p->arguments,
                                         .env = p->env,
                                         .cwd = (char *)(uintptr_t)p->directory,
                                         .user = *p->user ? (char *)(uintptr_t)p->user : NULL,
                                         .tty = c->terminal};
    int ends[3] = {-1, -1, -1};
    int r = c->terminal ? 0 : make_pipes(c, ends);

    if (r < 0)
        error_set_errno(err, -r, "EXEC_FAILED", "pipes for the command");
    else
        r = container_exec(container, &process, ends, &c->exec, err);
    for (int i = 0; i < 3; i++)
        close_fd(ends[i]);
    if (r == 0 && c->terminal) {
        c->fds[0] = c->exec.terminal;
        c->fds[1] = fcntl(c->exec.terminal, F_DUPFD_CLOEXEC, 0);
        fcntl(c->fds[0], F_SETFL, O_RDWR | O_NONBLOCK);
    }
    return r;
}

static void open_command(unsigned number, const char *payload, size_t size)
{
    char *vector[SESSION_STRINGS_MAX + 4];
    struct session_process process;
    auto_error struct error *err = NULL;
    struct command *c = calloc(1, sizeof(*c));
    struct session_open open;

    if (!c || session_parse_open(payload, size, vector, &process) < 0) {
        error_set(&err, EPROTO, "EXEC_FAILED", c ? "the command came damaged" : "out of memory in the guest");
        say_failed(number, err);
        free(c);
        return;
    }
    memcpy(&open, payload, sizeof(open));
    *c = (struct command){
        .terminal = open.terminal, .fds = {-1, -1, -1}, .exec = {.connection = -1, .pidfd = -1, .terminal = -1}};
    commands[number - 1] = c;
    if (execute(c, &process, &err) < 0) {
        say_failed(number, err);
        release(number);
        return;
    }
    send_frame(SESSION_OPENED, number, NULL, 0);
}

/* ---- input ---- */

static void flush_input(unsigned number)
{
    struct command *c = get(number);
    struct session_taken taken = {.stream = SESSION_INPUT};

    while (c->typed) {
        ssize_t n = c->fds[0] < 0 ? (ssize_t)c->typed : write(c->fds[0], c->typing, c->typed);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) { /* it closed its input */
            n = (ssize_t)c->typed;
            c->fds[0] = close_fd(c->fds[0]);
        }
        c->typed -= (size_t)n;
        memmove(c->typing, c->typing + n, c->typed);
        taken.bytes += (uint32_t)n;
    }
    if (taken.bytes)
        send_frame(SESSION_TAKEN, number, &taken, sizeof(taken));
    if (c->typed || !c->input_over)
        return;
    c->fds[0] = close_fd(c->fds[0]);
    if (c->terminal) /* the other number of the same terminal: only without both it hangs up */
        c->fds[1] = close_fd(c->fds[1]);
}

static void take_input(unsigned number, const char *bytes, size_t size)
{
    struct command *c = get(number);

    if (c->input_over || size > sizeof(c->typing) - c->typed)
        return;
    memcpy(c->typing + c->typed, bytes, size);
    c->typed += size;
    flush_input(number);
}

/* ---- from the host ---- */

static void take_command_frame(struct command *c, const struct session_frame *f, const char *payload)
{
    const struct session_taken *taken = (const void *)payload;
    const struct session_size *size = (const void *)payload;
    int32_t signal;

    switch (f->type) {
    case SESSION_INPUT:
        take_input(f->session, payload, f->size);
        return;
    case SESSION_INPUT_END:
        c->input_over = true;
        flush_input(f->session);
        return;
    case SESSION_SIGNAL:
        memcpy(&signal, payload, sizeof(signal));
        runtime_exec_signal(&c->exec, signal, NULL);
        return;
    case SESSION_RESIZE:
        if (c->terminal && c->fds[0] >= 0)
            ioctl(c->fds[0], TIOCSWINSZ, &(struct winsize){.ws_col = size->columns, .ws_row = size->rows});
        return;
    case SESSION_TAKEN:
        if (taken->stream == SESSION_OUTPUT || taken->stream == SESSION_ERRORS) {
            size_t *given = &c->given[taken->stream == SESSION_ERRORS];
            *given -= taken->bytes < *given ? taken->bytes : *given;
        }
        return;
    default:
        return;
    }
}

static void take_frame(void *context, const struct session_frame *f, const char *payload)
{
    struct command *c = get(f->session);
    int32_t signal;

    (void)context;
    if (f->session == SESSION_APPLICATION && f->type == SESSION_SIGNAL) {
        memcpy(&signal, payload, sizeof(signal));
        container_signal(container, signal, NULL);
    } else if (f->session != SESSION_APPLICATION && f->type == SESSION_OPEN && !c) {
        open_command(f->session, payload, f->size);
    } else if (c) {
        take_command_frame(c, f, payload);
    }
}

static void read_port(void)
{
    char *at;
    size_t room = session_room(&reader, &at);
    ssize_t n = read(port, at, room);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || session_feed(&reader, (size_t)n, take_frame, NULL) < 0) {
        port = close_fd(port);
        say("no commands can be executed any more: the host ended the conversation");
    }
}

/* ---- output ---- */

/* 0: it may write more later; -1: there will be nothing more. */
static int forward(unsigned number, int which)
{
    struct command *c = get(number);
    size_t room = SESSION_WINDOW - c->given[which];
    char bytes[SESSION_DATA_MAX];
    ssize_t n;

    if (room == 0) /* polled before what was done since filled the window: nothing can be told of its end yet */
        return 0;
    n = read(c->fds[which + 1], bytes, room < sizeof(bytes) ? room : sizeof(bytes));
    if (n < 0 && errno == EINTR)
        return 0;
    if (n < 0 && errno == EAGAIN)
        return c->ended ? -1 : 0; /* who of its children holds it open is not waited for */
    if (n <= 0)
        return -1;
    c->given[which] += (size_t)n;
    send_frame(which ? SESSION_ERRORS : SESSION_OUTPUT, number, bytes, (size_t)n);
    return 0;
}

static void serve_output(unsigned number, int which)
{
    struct command *c = get(number);

    if (forward(number, which) < 0)
        c->fds[which + 1] = close_fd(c->fds[which + 1]);
    finish(number);
}

static void serve_end(unsigned number)
{
    struct command *c = get(number);
    int status = SIGKILL;

    if (runtime_exec_wait(&c->exec, &status) == -EAGAIN)
        return;
    c->wait_status = status;
    c->ended = true;
    c->exec.connection = close_fd(c->exec.connection);
    for (int which = 0; which < 2; which++)
        while (c->fds[which + 1] >= 0 && c->given[which] < SESSION_WINDOW)
            if (forward(number, which) < 0)
                c->fds[which + 1] = close_fd(c->fds[which + 1]);
    finish(number);
}

/* ---- the loop ---- */

static void add(struct pollfd *set, int *count, int fd, short events)
{
    if (fd >= 0)
        set[(*count)++] = (struct pollfd){fd, events, 0};
}

int sessions_poll_set(struct pollfd set[SESSIONS_POLL_MAX])
{
    int count = 0;

    add(set, &count, port, POLLIN);
    for (int i = 0; i < SESSION_MAX; i++) {
        const struct command *c = commands[i];
        if (!c)
            continue;
        add(set, &count, c->exec.connection, POLLIN);
        if (c->typed)
            add(set, &count, c->fds[0], POLLOUT);
        for (int which = 0; which < 2; which++)
            if (c->given[which] < SESSION_WINDOW)
                add(set, &count, c->fds[which + 1], POLLIN);
    }
    return count;
}

/* What one does may close what another was polled for: each is looked up anew. */
static void serve_one(int fd, short events)
{
    if (fd == port) {
        read_port();
        return;
    }
    for (unsigned number = 1; number <= SESSION_MAX; number++) {
        struct command *c = get(number);
        if (!c)
            continue;
        if (fd == c->exec.connection)
            serve_end(number);
        else if (fd == c->fds[0] && (events & POLLOUT))
            flush_input(number);
        else if (fd == c->fds[1] || fd == c->fds[2])
            serve_output(number, fd == c->fds[2]);
        else
            continue;
        return;
    }
}

void sessions_serve(const struct pollfd *set, int count)
{
    for (int i = 0; i < count; i++)
        if (set[i].revents)
            serve_one(set[i].fd, set[i].revents);
}

/* Its name is the host's word for it; there is no other port in such a guest. */
void sessions_open(struct container *of)
{
    auto_dir DIR *devices = opendir("/dev");
    struct dirent *entry;
    char path[280];

    container = of;
    while (devices && port < 0 && (entry = readdir(devices)))
        if (strncmp(entry->d_name, "vport", 5) == 0) {
            snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
            port = open(path, O_RDWR | O_CLOEXEC);
        }
}
