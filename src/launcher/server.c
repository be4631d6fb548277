/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main thread: the listening socket, the one connection, the end of instances (pidfds), signals, the watchdog. It
 * answers what needs no work itself and queues the rest. Only root and the daemon's account are let in.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "launcher/host.h"
#include "launcher/instance.h"
#include "launcher/pool.h"
#include "launcher/snapshots.h"
#include "launcher/templates.h"
#include "launcher/uplink.h"
#include "model/units.h"

enum {
    TAG_LISTEN = 1, /* epoll: serial 0 and one of these; any other is (serial, exec) */
    TAG_CONNECTION,
    TAG_STOP,
    EVENTS_AT_ONCE = 32,
    MESSAGES_AT_ONCE = 64,  /* then others have their turn */
    SEND_TIMEOUT_MS = 5000, /* a daemon that reads nothing for so long is cut off */
    SEND_BUFFER = 4 << 20,
    OLD_STARTS_TIMEOUT_MS = 10000,
    MTU_MIN = 1280, /* RFC 8200 section 5 */
};

static int stop_fd = -1; /* eventfd: written by the signal handler */

/* ---- watching ---- */

static uint64_t tag(uint64_t serial, uint32_t exec)
{
    return serial << 32 | exec;
}

int watch(struct launcher *l, int fd, uint64_t serial, uint32_t exec, bool again)
{
    struct epoll_event e = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = tag(serial, exec)};

    return epoll_ctl(l->epoll_fd, again ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &e);
}

void unwatch(struct launcher *l, int fd)
{
    if (fd >= 0)
        epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

static int watch_always(struct launcher *l, int fd, uint32_t which)
{
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = tag(0, which)};

    return epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &e);
}

/* ---- sending ---- */

/* Under connection_lock. A peer that does not read is shut off; the main thread then sees the end. */
static void send_locked(struct launcher *l, enum message_type type, uint32_t request, const void *message,
                        const int *fds, size_t fd_count)
{
    auto_error struct error *err = NULL;
    struct pollfd p = {.fd = l->connection_fd, .events = POLLOUT};
    int r;

    while ((r = proto_send(l->connection_fd, type, request, message, fds, fd_count, &err)) == -EAGAIN)
        if (poll(&p, 1, SEND_TIMEOUT_MS) <= 0)
            break;
    if (r == 0)
        return;
    if (err)
        log_error(NULL, err, "answering the daemon");
    else
        log_line(LOG_LEVEL_ERROR, NULL, "the daemon has read nothing for %d ms: cut off", SEND_TIMEOUT_MS);
    shutdown(l->connection_fd, SHUT_RDWR);
}

static void send_to(struct launcher *l, uint64_t connection, enum message_type type, uint32_t request,
                    const void *message, const int *fds, size_t fd_count)
{
    pthread_mutex_lock(&l->connection_lock);
    if (l->connection_fd >= 0 && l->connection == connection)
        send_locked(l, type, request, message, fds, fd_count);
    pthread_mutex_unlock(&l->connection_lock);
}

void reply(struct launcher *l, const struct job *job, enum message_type type, const void *message, const int *fds,
           size_t fd_count)
{
    send_to(l, job->connection, type, job->message.request, message, fds, fd_count);
}

void reply_error(struct launcher *l, const struct job *job, const struct error *err)
{
    static const struct error unknown = {.code = "INTERNAL", .message = (char *)"no reason was given"};

    send_to(l, job->connection, MESSAGE_FAILED, job->message.request, err ? err : &unknown, NULL, 0);
}

void send_event(struct launcher *l, enum message_type type, const void *message)
{
    pthread_mutex_lock(&l->connection_lock);
    if (l->connection_fd >= 0)
        send_locked(l, type, 0, message, NULL, 0);
    pthread_mutex_unlock(&l->connection_lock);
}

/* ---- requests the main thread answers ---- */

static void say_hello(struct launcher *l, uint32_t request)
{
    struct message_hello hello = {.version = PROTO_VERSION};
    struct host_facts *f = &hello.facts;
    struct runtime_facts r;

    runtime_facts(l->runtime, &r);
    snprintf(hello.software, sizeof(hello.software), "%s", CORACLE_VERSION);
    f->cgroup_v2 = r.cgroup_v2;
    f->controllers = r.controllers;
    f->landlock = r.landlock;
    f->seccomp = r.seccomp;
    f->apparmor = r.apparmor;
    f->selinux = r.selinux;
    f->user_namespaces = r.user_namespaces;
    f->idmapped_mounts = r.idmapped_mounts;
    f->overlay = r.overlay;
    f->cap_sys_resource = r.cap_sys_resource;
    host_facts_fill(l, f);
    snprintf(f->kernel, sizeof(f->kernel), "%s", r.kernel);
    snprintf(f->fabric_netns, sizeof(f->fabric_netns), "%.119s/fabric", l->options.run_dir);
    snprintf(f->cgroup_parent, sizeof(f->cgroup_parent), "%s", l->options.cgroup);
    snprintf(f->uplink, sizeof(f->uplink), "%s", l->options.uplink);
    f->publish = l->options.publish || l->options.publish6;
    f->pool_depth = l->options.pool_depth;
    f->instance_max = SLOT_COUNT;
    f->cpus = r.cpus;
    f->memory_bytes = r.memory_bytes;
    send_to(l, l->connection, MESSAGE_HELLO, request, &hello, NULL, 0);
}

struct listing {
    struct launcher *l;
    struct message_instance *list;
    size_t count, room;
};

static bool list_one(void *context, struct instance *i)
{
    struct listing *c = context;
    struct message_instance *m;

    if (i->state != INSTANCE_RUNNING && i->state != INSTANCE_ENDED)
        return true;
    if (c->count == c->room) {
        size_t room = c->room ? 2 * c->room : 64;
        m = reallocarray(c->list, room, sizeof(*m));
        if (!m)
            return false;
        c->list = m;
        c->room = room;
    }
    m = &c->list[c->count++];
    *m = (struct message_instance){.pid = i->record.pid,
                                   .uid_base = i->record.uid_base,
                                   .running = i->state == INSTANCE_RUNNING,
                                   .paused = i->paused};
    memcpy(m->id, i->id, sizeof(m->id));
    memcpy(m->name, i->name, sizeof(m->name));
    if (!m->running) {
        m->wait_status = i->exit.wait_status;
        m->oom = i->exit.oom;
        m->status_known = i->exit.status_known;
        m->exited_at_ns = i->exit.exited_at_ns;
    }
    return true;
}

static bool note_old_start(void *context, struct instance *i)
{
    struct listing *c = context;

    for (struct job *j = i->current ? i->current : i->first; j; j = j == i->current ? i->first : j->next)
        c->count += j->message.type == MESSAGE_START && j->connection != c->l->connection;
    return c->count == 0;
}

/* Starts of a connection that is gone were cancelled; their end decides what a list shows, so it is awaited. */
static void wait_for_old_starts(struct launcher *l)
{
    struct timespec pause = {.tv_nsec = 1000000};

    for (int waited = 0; waited < OLD_STARTS_TIMEOUT_MS; waited++) {
        struct listing c = {.l = l};
        pthread_mutex_lock(&l->lock);
        instance_each(l, note_old_start, &c);
        pthread_mutex_unlock(&l->lock);
        if (!c.count)
            return;
        nanosleep(&pause, NULL);
    }
}

static void answer_list(struct launcher *l, uint32_t request)
{
    struct listing c = {.l = l};

    wait_for_old_starts(l);
    pthread_mutex_lock(&l->lock);
    instance_each(l, list_one, &c);
    pthread_mutex_unlock(&l->lock);
    for (size_t n = 0; n < c.count; n++)
        send_to(l, l->connection, MESSAGE_INSTANCE, request, &c.list[n], NULL, 0);
    send_to(l, l->connection, MESSAGE_DONE, request, NULL, NULL, 0);
    free(c.list);
}

static int change_link(struct launcher *l, const struct proto_message *m, struct error **err)
{
    const struct message_link_remove *gone = m->body;
    const struct link *link = m->body;
    struct link old = {0};
    int r;

    if (!units_is_name(link->name)) /* the first member of both */
        return error_set(err, EINVAL, "INVALID_VALUE", "a network's name is malformed");
    fabric_link_get(l->fabric, link->name, &old);
    if (m->type == MESSAGE_LINK_REMOVE) {
        pool_drop(l, NULL, gone->name);
        r = fabric_link_remove(l->fabric, gone->name, err);
    } else if (link->prefix4 > 32 || link->prefix6 > 128 || (link->mtu && link->mtu < MTU_MIN)) {
        return error_set(err, EINVAL, "INVALID_VALUE", "network %s: prefix or mtu out of range", link->name);
    } else if (link->uplink && !l->uplink) {
        error_set(err, EINVAL, "UNSUPPORTED_BY_TECHNOLOGY", "network %s: this host has no uplink", link->name);
        error_hint(err, "set uplink in host.conf and restart the launcher");
        return -EINVAL;
    } else {
        r = fabric_link_add(l->fabric, link, err);
    }
    return r == 0 && l->uplink ? uplink_refresh(l->uplink, &old, err) : r;
}

static int cancel(struct launcher *l, const struct proto_message *m)
{
    const struct message_cancel *c = m->body;

    job_cancel(l, l->connection, c->request); /* one that has ended already needs no cancelling */
    return 0;
}

/* A request of the daemon's. Returns whether the connection may go on. */
static bool dispatch(struct launcher *l, struct proto_message *m)
{
    auto_error struct error *err = NULL;
    struct job answer = {.connection = l->connection, .message = {.request = m->request}};
    struct message_pool_reply figures;
    int r = 0;

    switch (m->type) {
    case MESSAGE_LIST:
        answer_list(l, m->request);
        return true;
    case MESSAGE_POOL:
        pool_figures(l, &figures);
        figures.snapshots = template_count(l);
        reply(l, &answer, MESSAGE_POOL_REPLY, &figures, NULL, 0);
        return true;
    case MESSAGE_UNPACK:
        layers_unpack(l, m, l->connection);
        return true;
    case MESSAGE_LAYER_REMOVE:
        layers_remove(l, m, l->connection);
        return true;
    case MESSAGE_LINK_ADD:
    case MESSAGE_LINK_REMOVE:
        r = change_link(l, m, &err);
        break;
    case MESSAGE_CANCEL:
        r = cancel(l, m);
        break;
    case MESSAGE_SNAPSHOT_REMOVE:
        r = snapshot_remove(l, ((const struct message_snapshot_remove *)m->body)->snapshot, &err);
        break;
    case MESSAGE_START:
    case MESSAGE_SIGNAL:
    case MESSAGE_PAUSE:
    case MESSAGE_RESUME:
    case MESSAGE_UPDATE:
    case MESSAGE_STATS:
    case MESSAGE_RELEASE:
    case MESSAGE_EXEC:
    case MESSAGE_EXEC_SIGNAL:
    case MESSAGE_LOGS:
    case MESSAGE_CONSOLE:
    case MESSAGE_SNAPSHOT:
        /* the id is the first member of each of these structs */
        if (!instance_id_valid(m->body))
            r = error_set(&err, EINVAL, "INVALID_VALUE", "an instance's id is no UUID");
        else
            r = job_queue(l, m->body, m, l->connection, &err);
        if (r == 0)
            return true; /* a worker answers */
        break;
    default:
        log_line(LOG_LEVEL_ERROR, NULL, "the daemon sent %s, which is no request", proto_type_name(m->type));
        return false;
    }
    if (r < 0)
        reply_error(l, &answer, err);
    else
        reply(l, &answer, MESSAGE_DONE, NULL, NULL, 0);
    return true;
}

/* ---- the connection ---- */

static bool cancel_all(void *context, struct instance *i)
{
    for (struct job *j = i->current ? i->current : i->first; j; j = j == i->current ? i->first : j->next)
        atomic_store(&j->cancelled, true); /* only a START looks at it */
    return true;
}

static void disconnect(struct launcher *l, const char *why)
{
    if (l->connection_fd < 0)
        return;
    log_line(LOG_LEVEL_NOTICE, NULL, "daemon disconnected: %s", why);
    pthread_mutex_lock(&l->connection_lock);
    unwatch(l, l->connection_fd);
    l->connection_fd = close_fd(l->connection_fd);
    l->connection++;
    pthread_mutex_unlock(&l->connection_lock);
    pthread_mutex_lock(&l->lock);
    instance_each(l, cancel_all, NULL);
    pthread_mutex_unlock(&l->lock);
}

static bool greeted; /* the present connection has said HELLO */

static bool greet(struct launcher *l, const struct proto_message *m)
{
    struct job answer = {.connection = l->connection, .message = {.request = m->request}};
    const struct message_hello *hello = m->body;
    auto_error struct error *err = NULL;

    if (m->type != MESSAGE_HELLO)
        error_set(&err, EPROTO, "PROTOCOL_ERROR", "the first message must be HELLO, not %s", proto_type_name(m->type));
    else if (hello->version != PROTO_VERSION)
        error_set(&err, EPROTO, "PROTOCOL_ERROR", "the daemon speaks version %u, the launcher %d", hello->version,
                  PROTO_VERSION);
    if (err) {
        error_hint(&err, "restart both with the same release");
        log_error(NULL, err, "connection refused");
        reply_error(l, &answer, err);
        return false;
    }
    greeted = true;
    log_line(LOG_LEVEL_INFO, NULL, "daemon connected, release %s", hello->software);
    say_hello(l, m->request);
    return true;
}

static void receive(struct launcher *l)
{
    for (int n = 0; n < MESSAGES_AT_ONCE && l->connection_fd >= 0; n++) {
        auto_error struct error *err = NULL;
        struct proto_message m = {0};
        int r = proto_receive(l->connection_fd, &m, &err);

        if (r == -EAGAIN)
            return;
        if (r <= 0) {
            if (err)
                log_error(NULL, err, "the daemon's message is refused");
            disconnect(l, r == 0 ? "closed" : "protocol error");
            return;
        }
        bool go_on = greeted ? dispatch(l, &m) : greet(l, &m);
        proto_message_end(&m);
        if (!go_on)
            disconnect(l, "protocol error");
    }
}

static void accept_one(struct launcher *l, int listen_fd)
{
    auto_fd int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t size = sizeof(peer);
    int buffer = SEND_BUFFER;

    if (fd < 0)
        return;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || (peer.uid != 0 && peer.uid != l->options.uid)) {
        log_line(LOG_LEVEL_WARNING, NULL, "connection of uid %u refused", peer.uid);
        return;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof(buffer)) < 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
    disconnect(l, "another connection came");
    greeted = false;
    if (watch_always(l, fd, TAG_CONNECTION) < 0)
        return;
    pthread_mutex_lock(&l->connection_lock);
    l->connection_fd = take_fd(&fd);
    pthread_mutex_unlock(&l->connection_lock);
}

int server_listen(struct launcher *l, int *ret_fd, struct error **err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    auto_fd int fd = service_listen_fd();

    if (fd < 0) {
        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/launcher.sock", l->run_fd);
        if (unlinkat(l->run_fd, "launcher.sock", 0) < 0 && errno != ENOENT)
            return error_set_errno(err, errno, "START_FAILED", "removing the old launcher.sock");
        if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 8) < 0)
            return error_set_errno(err, errno, "START_FAILED", "listening on %s/launcher.sock", l->options.run_dir);
        if (fchownat(l->run_fd, "launcher.sock", 0, l->options.gid, 0) < 0 ||
            fchmodat(l->run_fd, "launcher.sock", 0660, 0) < 0)
            return error_set_errno(err, errno, "START_FAILED", "setting the owner of launcher.sock");
    }
    *ret_fd = take_fd(&fd);
    return 0;
}

/* ---- the loop ---- */

static void ask_to_stop(int signal)
{
    int saved = errno;

    eventfd_write(stop_fd, 1);
    errno = saved;
}

/* Handlers, not a blocked mask: what instances inherit over exec must be the defaults. */
static int catch_signals(struct launcher *l, struct error **err)
{
    struct sigaction action = {.sa_handler = ask_to_stop, .sa_flags = SA_RESTART};

    stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (stop_fd < 0 || watch_always(l, stop_fd, TAG_STOP) < 0)
        return error_set_errno(err, errno, "START_FAILED", "making the stop event");
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    return 0;
}

static void handle(struct launcher *l, const struct epoll_event *e, int listen_fd, bool *ret_stop)
{
    if (e->data.u64 >> 32) {
        job_queue_ended(l, e->data.u64 >> 32, (uint32_t)e->data.u64);
        return;
    }
    if (e->data.u64 == TAG_LISTEN)
        accept_one(l, listen_fd);
    else if (e->data.u64 == TAG_CONNECTION)
        receive(l);
    else
        *ret_stop = true;
}

int server_run(struct launcher *l, int listen_fd, struct error **err)
{
    uint64_t watchdog_us = service_watchdog_us();
    int timeout = watchdog_us ? (int)(watchdog_us / 2000) : -1;
    struct epoll_event events[EVENTS_AT_ONCE];
    bool stop = false;
    int r;

    r = catch_signals(l, err);
    if (r == 0 && watch_always(l, listen_fd, TAG_LISTEN) < 0)
        r = error_set_errno(err, errno, "START_FAILED", "watching the listening socket");
    if (r < 0)
        return r;
    service_notify("READY=1");
    while (!stop) {
        int n = epoll_wait(l->epoll_fd, events, EVENTS_AT_ONCE, timeout);
        if (watchdog_us)
            service_notify("WATCHDOG=1");
        for (int i = 0; i < n; i++)
            handle(l, &events[i], listen_fd, &stop);
    }
    service_notify("STOPPING=1");
    disconnect(l, "the launcher stops");
    return 0;
}
