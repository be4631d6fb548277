/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP of the Linux platform: listeners and connections as epoll sources with callbacks.
 *
 * Theory of operation: level-triggered epoll. EPOLLIN is watched until the peer has ended or receiving is limited to
 * zero, EPOLLOUT while the program wants to write. A callback may close the object it is called for: after every
 * callback the descriptor is looked at again (source_close() sets it to -1; the memory lives until the round ends).
 */
#include "internal.h"
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 960, MAX_LISTENERS = 4, ACCEPTS_PER_ROUND = 16, READS_PER_ROUND = 8, BACKLOG = 1024 };

#define ACCEPT_PAUSE_NS 10000000ull

struct nf_tcp {
    struct source source;
    const struct nf_tcp_ops *ops;
    void *context;
    size_t limit;
    int error; /* of a send that failed; `failed` is called for it from the loop */
    bool connecting, want_write, ended, shut;
};

struct nf_listener {
    struct source source;
    nf_accept_fn accept;
    void *context;
    struct nf_timer resume; /* accepting stopped for want of descriptors */
};

static struct nf_tcp connections[MAX_CONNECTIONS];
static struct nf_listener listeners[MAX_LISTENERS];
static struct source *free_connections, *free_listeners;
static size_t used_connections, used_listeners;

static void update(struct nf_tcp *tcp)
{
    uint32_t events = 0;
    if (!tcp->ended && tcp->limit && !tcp->connecting)
        events |= EPOLLIN;
    if (tcp->connecting || tcp->want_write || tcp->error)
        events |= EPOLLOUT;
    /* Loss is reported whatever is watched, but a source must be; only where both directions have ended nothing more
     * can come, and EPOLLHUP would spin. */
    if (!events && !(tcp->ended && tcp->shut))
        events = EPOLLPRI;
    if (source_watch(&tcp->source, events) < 0)
        tcp->error = NF_NO_MEMORY;
}

static void fail(struct nf_tcp *tcp, int error)
{
    const struct nf_tcp_ops *ops = tcp->ops;
    void *context = tcp->context;
    source_close(&tcp->source, &free_connections);
    ops->failed(tcp, context, error ? error : NF_RESET);
}

static int pending_error(struct nf_tcp *tcp)
{
    int errnum = 0;
    socklen_t length = sizeof errnum;
    if (tcp->error)
        return tcp->error;
    getsockopt(tcp->source.fd, SOL_SOCKET, SO_ERROR, &errnum, &length);
    return errnum ? error_from_errno(errnum) : 0;
}

static void on_connected(struct nf_tcp *tcp)
{
    int error = pending_error(tcp);
    if (error) {
        fail(tcp, error);
        return;
    }
    tcp->connecting = false;
    update(tcp);
    if (tcp->ops->connected)
        tcp->ops->connected(tcp, tcp->context);
}

static void on_readable(struct nf_tcp *tcp)
{
    for (int i = 0; i < READS_PER_ROUND && tcp->limit; i++) {
        size_t size = tcp->limit < RECEIVE_BUFFER ? tcp->limit : RECEIVE_BUFFER;
        ssize_t n = recv(tcp->source.fd, receive_buffer, size, 0);
        if (n < 0) {
            if (errno != EAGAIN && errno != EINTR)
                fail(tcp, error_from_errno(errno));
            return;
        }
        if (n == 0) {
            tcp->ended = true;
            update(tcp);
            if (tcp->ops->end)
                tcp->ops->end(tcp, tcp->context);
            return;
        }
        if (tcp->ops->receive)
            tcp->ops->receive(tcp, tcp->context, receive_buffer, (size_t)n);
        if (tcp->source.fd < 0 || (size_t)n < size)
            return;
    }
}

static void on_tcp_ready(struct source *source, uint32_t events)
{
    struct nf_tcp *tcp = (struct nf_tcp *)source;
    if (tcp->connecting) {
        on_connected(tcp);
        return;
    }
    if (tcp->error) {
        fail(tcp, tcp->error);
        return;
    }
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !tcp->ended && tcp->limit)
        on_readable(tcp);
    else if (events & EPOLLERR || (events & EPOLLHUP && !(tcp->ended && tcp->shut))) {
        fail(tcp, pending_error(tcp));
        return;
    }
    if (tcp->source.fd >= 0 && (events & EPOLLOUT) && tcp->want_write && tcp->ops->writable)
        tcp->ops->writable(tcp, tcp->context);
}

static struct nf_tcp *new_connection(int fd)
{
    struct nf_tcp *tcp = (struct nf_tcp *)source_take(&free_connections, connections, sizeof *connections,
                                                      MAX_CONNECTIONS, &used_connections);
    if (!tcp)
        return NULL;
    tcp->source.fd = fd;
    tcp->source.ready = on_tcp_ready;
    tcp->limit = RECEIVE_BUFFER;
    return tcp;
}

static void reset_fd(int fd)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

static void resume_accepting(struct nf_timer *timer)
{
    source_watch(timer->context, EPOLLIN);
}

static void on_incoming(struct source *source, uint32_t events)
{
    struct nf_listener *listener = (struct nf_listener *)source;
    (void)events;
    for (int i = 0; i < ACCEPTS_PER_ROUND && source->fd >= 0; i++) {
        union address address;
        struct nf_addr peer;
        socklen_t length = sizeof address;
        int fd = accept4(source->fd, &address.any, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
            source_watch(source, 0);
            nf_timer_start(&listener->resume, nf_now() + ACCEPT_PAUSE_NS);
            return;
        }
        if (fd < 0 && errno == ECONNABORTED)
            continue;
        if (fd < 0)
            return;
        struct nf_tcp *tcp = new_connection(fd);
        if (!tcp) {
            reset_fd(fd);
            close(fd);
            continue;
        }
        address_from_socket(&address, &peer);
        if (!listener->accept(tcp, &peer, listener->context))
            nf_tcp_abort(tcp);
        else if (tcp->source.fd >= 0)
            update(tcp);
    }
}

int nf_tcp_listen(const struct nf_addr *local, nf_accept_fn accept, void *context, struct nf_listener **ret_listener)
{
    struct nf_listener *listener = (struct nf_listener *)source_take(&free_listeners, listeners, sizeof *listeners,
                                                                     MAX_LISTENERS, &used_listeners);
    bool mapped;
    if (!listener)
        return NF_NO_MEMORY;
    int fd = socket_open(SOCK_STREAM, local, local->family, &mapped);
    if (fd < 0) {
        listener->source.next = free_listeners;
        free_listeners = &listener->source;
        return fd;
    }
    listener->source.fd = fd;
    listener->source.ready = on_incoming;
    listener->accept = accept;
    listener->context = context;
    listener->resume.fire = resume_accepting;
    listener->resume.context = listener;
    int error = listen(fd, BACKLOG) < 0 ? error_from_errno(errno) : source_watch(&listener->source, EPOLLIN);
    if (error) {
        nf_listener_close(listener);
        return error;
    }
    *ret_listener = listener;
    return 0;
}

void nf_listener_close(struct nf_listener *listener)
{
    if (!listener)
        return;
    nf_timer_stop(&listener->resume);
    source_close(&listener->source, &free_listeners);
}

int nf_tcp_connect(const struct nf_addr *peer, const struct nf_addr *local, const struct nf_tcp_ops *ops, void *context,
                   struct nf_tcp **ret_tcp)
{
    bool mapped;
    union address address;
    int fd = socket_open(SOCK_STREAM, local, peer->family, &mapped);
    if (fd < 0)
        return fd;
    socklen_t length = address_to_socket(peer, mapped, &address);
    if (connect(fd, &address.any, length) < 0 && errno != EINPROGRESS) {
        int error = error_from_errno(errno);
        close(fd);
        return error;
    }
    struct nf_tcp *tcp = new_connection(fd);
    if (!tcp) {
        close(fd);
        return NF_NO_MEMORY;
    }
    tcp->connecting = true;
    nf_tcp_attach(tcp, ops, context);
    update(tcp);
    *ret_tcp = tcp;
    return 0;
}

void nf_tcp_attach(struct nf_tcp *tcp, const struct nf_tcp_ops *ops, void *context)
{
    tcp->ops = ops;
    tcp->context = context;
}

long nf_tcp_send(struct nf_tcp *tcp, const void *data, size_t size, enum nf_lifetime lifetime)
{
    (void)lifetime; /* the kernel copies; MSG_ZEROCOPY costs more than it saves below 10 KB and on veth always */
    ssize_t n = send(tcp->source.fd, data, size, MSG_NOSIGNAL);
    if (n >= 0)
        return n;
    if (errno == EAGAIN || errno == EINTR)
        return NF_AGAIN;
    tcp->error = error_from_errno(errno);
    update(tcp);
    return tcp->error;
}

void nf_tcp_want_write(struct nf_tcp *tcp, bool on)
{
    tcp->want_write = on;
    update(tcp);
}

void nf_tcp_limit_receive(struct nf_tcp *tcp, size_t max)
{
    tcp->limit = max;
    update(tcp);
}

void nf_tcp_shutdown(struct nf_tcp *tcp)
{
    tcp->shut = true;
    tcp->want_write = false;
    shutdown(tcp->source.fd, SHUT_WR);
    update(tcp);
}

void nf_tcp_close(struct nf_tcp *tcp)
{
    source_close(&tcp->source, &free_connections);
}

void nf_tcp_abort(struct nf_tcp *tcp)
{
    reset_fd(tcp->source.fd);
    source_close(&tcp->source, &free_connections);
}

void nf_tcp_addresses(const struct nf_tcp *tcp, struct nf_addr *ret_local, struct nf_addr *ret_peer)
{
    union address address = {.any.sa_family = AF_UNSPEC};
    socklen_t length = sizeof address;
    getsockname(tcp->source.fd, &address.any, &length);
    address_from_socket(&address, ret_local);
    address.any.sa_family = AF_UNSPEC;
    length = sizeof address;
    getpeername(tcp->source.fd, &address.any, &length);
    address_from_socket(&address, ret_peer);
}
