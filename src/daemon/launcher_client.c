/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The launcher as an executor: one SOCK_SEQPACKET connection, requests matched to answers by number.
 *
 * Theory of operation: connect, HELLO, HELLO back, then requests. When the connection is lost every pending request
 * ends with LAUNCHER_UNAVAILABLE, and the socket is tried again with a growing delay for ever; whoever listens adopts
 * after each HELLO. A full socket queues encoded packets in order. Daemon's thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/internal.h"
#include "proto/proto.h"

enum { BUCKETS = 256, DELAY_FIRST_MS = 10, DELAY_MAX_MS = 1000, BATCH = 64 };

struct pending {
    struct pending *next;
    uint32_t request;
    executor_done done;
    void *context;
};

/* A packet the socket had no room for. */
struct queued {
    struct queued *next;
    uint32_t request;
    enum message_type type;
    uint8_t *data;
    size_t size;
    int fds[PROTO_FD_MAX];
    size_t fd_count;
};

struct launcher_client {
    struct executor base;
    sd_event *loop;
    struct sockaddr_un address;
    int fd;
    bool greeted;
    int32_t pid;
    sd_event_source *io, *retry;
    uint32_t delay_ms;
    bool said_missing;
    uint32_t last_request;
    struct pending *pending[BUCKETS];
    struct queued *queue, **queue_tail;
    launcher_changed changed;
    void *changed_context;
    executor_event event;
    void *event_context;
};

static int on_retry(sd_event_source *source, uint64_t usec, void *context);

static void schedule(struct launcher_client *c)
{
    uint64_t usec = (uint64_t)c->delay_ms * 1000;

    c->delay_ms = c->delay_ms * 2 < DELAY_MAX_MS ? c->delay_ms * 2 : DELAY_MAX_MS;
    if (!c->retry) {
        sd_event_add_time_relative(c->loop, &c->retry, CLOCK_MONOTONIC, usec, 1000, on_retry, c);
        return;
    }
    sd_event_source_set_time_relative(c->retry, usec);
    sd_event_source_set_enabled(c->retry, SD_EVENT_ONESHOT);
}

static void queued_free(struct queued *q)
{
    for (size_t i = 0; i < q->fd_count; i++)
        close_fd(q->fds[i]);
    free(q->data);
    free(q);
}

static struct pending *take_pending(struct launcher_client *c, uint32_t request)
{
    struct pending **p = &c->pending[request % BUCKETS];

    while (*p && (*p)->request != request)
        p = &(*p)->next;
    struct pending *found = *p;
    if (found)
        *p = found->next;
    return found;
}

/* Every request in flight ends: whether it was carried out is found out by adoption. */
static void fail_pending(struct launcher_client *c)
{
    auto_error struct error *err = NULL;

    error_set(&err, ENOTCONN, "LAUNCHER_UNAVAILABLE", "the connection to the launcher was lost");
    error_hint(&err, "instances run on; look at the launcher: systemctl status coracle-launcher");
    for (size_t i = 0; i < BUCKETS; i++) {
        while (c->pending[i]) {
            struct pending *p = c->pending[i];
            c->pending[i] = p->next;
            p->done(p->context, MESSAGE_FAILED, NULL, NULL, 0, err);
            free(p);
        }
    }
}

static void disconnect(struct launcher_client *c)
{
    bool was_greeted = c->greeted;

    c->io = sd_event_source_disable_unref(c->io);
    c->fd = close_fd(c->fd);
    c->greeted = false;
    c->pid = 0;
    while (c->queue) {
        struct queued *q = c->queue;
        c->queue = q->next;
        queued_free(q);
    }
    c->queue_tail = &c->queue;
    if (was_greeted)
        c->changed(c->changed_context, NULL);
    fail_pending(c);
    schedule(c);
}

/* ---- sending */

static int send_packet(struct launcher_client *c, const struct queued *q)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(PROTO_FD_MAX * sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = q->data, .iov_len = q->size};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};

    if (q->fd_count) {
        m.msg_control = &control;
        m.msg_controllen = CMSG_SPACE(q->fd_count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&m);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(q->fd_count * sizeof(int));
        memcpy(CMSG_DATA(header), q->fds, q->fd_count * sizeof(int));
    }
    return sendmsg(c->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static int enqueue(struct launcher_client *c, enum message_type type, uint32_t request, const void *message,
                   const int *fds, size_t fd_count, struct error **err)
{
    struct queued *q = calloc(1, sizeof(*q));
    int r;

    if (!q)
        return error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
    q->request = request;
    q->type = type;
    r = proto_encode(type, request, message, &q->data, &q->size, err);
    for (size_t i = 0; r == 0 && i < fd_count && i < PROTO_FD_MAX; i++) {
        q->fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
        if (q->fds[i] < 0)
            r = error_set_errno(err, errno, "INTERNAL", "descriptors for the launcher");
        else
            q->fd_count = i + 1;
    }
    if (r < 0) {
        queued_free(q);
        return r;
    }
    *c->queue_tail = q;
    c->queue_tail = &q->next;
    sd_event_source_set_io_events(c->io, EPOLLIN | EPOLLOUT);
    return 0;
}

/* Straight to the socket when nothing waits before it, else behind what waits. */
static int transmit(struct launcher_client *c, enum message_type type, uint32_t request, const void *message,
                    const int *fds, size_t fd_count, struct error **err)
{
    int r = c->queue ? -EAGAIN : proto_send(c->fd, type, request, message, fds, fd_count, err);

    return r == -EAGAIN ? enqueue(c, type, request, message, fds, fd_count, err) : r;
}

static void drain(struct launcher_client *c)
{
    while (c->queue) {
        struct queued *q = c->queue;
        int r = send_packet(c, q);
        if (r == -EAGAIN)
            return;
        if (r < 0) {
            log_line(LOG_LEVEL_WARNING, NULL, "sending to the launcher: %s", strerror(-r));
            return; /* the end of the connection is seen by receiving */
        }
        c->queue = q->next;
        if (!c->queue)
            c->queue_tail = &c->queue;
        queued_free(q);
    }
    sd_event_source_set_io_events(c->io, EPOLLIN);
}

static int client_request(struct executor *base, enum message_type type, const void *message, const int *fds,
                          size_t fd_count, executor_done done, void *context, uint32_t *ret_request, struct error **err)
{
    struct launcher_client *c = (struct launcher_client *)base;
    struct pending *p;
    int r;

    if (!c->greeted) {
        error_set(err, ENOTCONN, "LAUNCHER_UNAVAILABLE", "the launcher is not connected");
        error_hint(err, "start coracle-launcher (systemctl start coracle-launcher, or coracle up)");
        return -ENOTCONN;
    }
    p = calloc(1, sizeof(*p));
    if (!p)
        return error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
    if (++c->last_request == 0) /* 0 is the number of events */
        c->last_request = 1;
    *p = (struct pending){.request = c->last_request, .done = done, .context = context};
    r = transmit(c, type, p->request, message, fds, fd_count, err);
    if (r < 0) {
        free(p);
        if (r == -EPIPE || r == -ECONNRESET || r == -ENOTCONN) {
            error_wrap(err, "LAUNCHER_UNAVAILABLE", "the connection to the launcher was lost");
            error_hint(err, "ask again in a moment; it is looked for");
        }
        return r;
    }
    if (ret_request)
        *ret_request = p->request;
    p->next = c->pending[p->request % BUCKETS];
    c->pending[p->request % BUCKETS] = p;
    return 0;
}

/* ---- receiving */

static int on_hello(struct launcher_client *c, const struct message_hello *hello)
{
    if (hello->version != PROTO_VERSION) {
        log_line(LOG_LEVEL_ERROR, NULL,
                 "the launcher (%s) speaks version %u of the protocol, this daemon %d; install one "
                 "release of both",
                 hello->software, hello->version, PROTO_VERSION);
        c->delay_ms = DELAY_MAX_MS;
        return -EPROTO;
    }
    c->greeted = true;
    c->said_missing = false;
    c->delay_ms = DELAY_FIRST_MS;
    c->changed(c->changed_context, &hello->facts);
    return 0;
}

static int dispatch(struct launcher_client *c, struct proto_message *m)
{
    if (!c->greeted)
        return m->type == MESSAGE_HELLO ? on_hello(c, m->body) : -EPROTO;
    if (m->request == 0 || m->type == MESSAGE_INSTANCE) {
        if (c->event)
            c->event(c->event_context, m->type, m->body);
        return 0;
    }
    struct pending *p = take_pending(c, m->request);
    if (!p)
        return -EPROTO;
    if (m->type == MESSAGE_FAILED)
        p->done(p->context, m->type, NULL, m->fds, m->fd_count, m->body);
    else
        p->done(p->context, m->type, m->body, m->fds, m->fd_count, NULL);
    free(p);
    return 0;
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *context)
{
    struct launcher_client *c = context;

    if (revents & EPOLLOUT)
        drain(c);
    for (int i = 0; i < BATCH && c->fd == fd; i++) {
        auto_error struct error *err = NULL;
        struct proto_message m = {0};
        int r = proto_receive(c->fd, &m, &err);

        if (r == -EAGAIN)
            return 0;
        if (r == 1) {
            r = dispatch(c, &m) < 0 ? -EPROTO : 1;
            proto_message_end(&m);
        }
        if (r != 1) {
            if (r < 0)
                log_error(NULL, err, "the launcher's connection is closed (%s)", strerror(-r));
            disconnect(c);
            return 0;
        }
    }
    return 0;
}

/* ---- connecting */

static int say_hello(struct launcher_client *c)
{
    struct message_hello hello = {.version = PROTO_VERSION, .software = "coracled " CORACLE_VERSION};
    auto_error struct error *err = NULL;
    struct ucred peer;
    socklen_t size = sizeof(peer);

    if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0)
        c->pid = peer.pid;
    int r = proto_send(c->fd, MESSAGE_HELLO, ++c->last_request, &hello, NULL, 0, &err);
    if (r < 0 && r != -EAGAIN)
        log_error(NULL, err, "greeting the launcher");
    return r;
}

static int on_retry(sd_event_source *source, uint64_t usec, void *context)
{
    struct launcher_client *c = context;
    int r = 0;

    c->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&c->address, sizeof(c->address)) < 0) {
        r = -errno;
        if (!c->said_missing)
            log_line(LOG_LEVEL_WARNING, NULL, "no launcher at %s: %s; trying on", c->address.sun_path, strerror(-r));
        c->said_missing = true;
    } else {
        r = sd_event_add_io(c->loop, &c->io, c->fd, EPOLLIN, on_io, c);
        if (r >= 0)
            r = say_hello(c);
    }
    if (r < 0) {
        c->io = sd_event_source_disable_unref(c->io);
        c->fd = close_fd(c->fd);
        schedule(c);
    }
    return 0;
}

static void client_listen(struct executor *base, executor_event event, void *context)
{
    struct launcher_client *c = (struct launcher_client *)base;

    c->event = event;
    c->event_context = context;
}

static void client_destroy(struct executor *base)
{
    struct launcher_client *c = (struct launcher_client *)base;

    sd_event_source_disable_unref(c->io);
    sd_event_source_disable_unref(c->retry);
    close_fd(c->fd);
    for (size_t i = 0; i < BUCKETS; i++) {
        while (c->pending[i]) {
            struct pending *p = c->pending[i];
            c->pending[i] = p->next;
            free(p);
        }
    }
    while (c->queue) {
        struct queued *q = c->queue;
        c->queue = q->next;
        queued_free(q);
    }
    sd_event_unref(c->loop);
    free(c);
}

static const struct executor_ops client_ops = {
    .request = client_request, .listen = client_listen, .destroy = client_destroy};

int32_t launcher_client_pid(const struct executor *base)
{
    const struct launcher_client *c = (const struct launcher_client *)base;
    return c->greeted ? c->pid : 0;
}

int launcher_client_new(sd_event *loop, const char *path, launcher_changed changed, void *context,
                        struct executor **ret, struct error **err)
{
    struct launcher_client *c = calloc(1, sizeof(*c));

    if (!c)
        return error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
    if (strlen(path) >= sizeof(c->address.sun_path)) {
        free(c);
        return error_set(err, ENAMETOOLONG, "INVALID_VALUE", "--run-dir is too long for a socket's name: %s", path);
    }
    c->base.ops = &client_ops;
    c->loop = sd_event_ref(loop);
    c->fd = -1;
    c->delay_ms = DELAY_FIRST_MS;
    c->queue_tail = &c->queue;
    c->changed = changed;
    c->changed_context = context;
    c->address.sun_family = AF_UNIX;
    memcpy(c->address.sun_path, path, strlen(path) + 1);
    int r = sd_event_add_time_relative(loop, &c->retry, CLOCK_MONOTONIC, 0, 1000, on_retry, c);
    if (r < 0) {
        client_destroy(&c->base);
        return error_set_errno(err, -r, "INTERNAL", "launcher client");
    }
    *ret = &c->base;
    return 0;
}
