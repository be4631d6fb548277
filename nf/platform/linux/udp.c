/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UDP of the Linux platform: sockets as epoll sources, arrival times from the kernel.
 *
 * Kernel time stamps are switched on by the first datagram, not at start: the first such socket of a host makes the
 * kernel patch its receive path, which an idle server has no use for.
 */
#include "internal.h"
#include <errno.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { MAX_SOCKETS = 128, READS_PER_ROUND = 32 };

struct nf_udp {
    struct source source;
    const struct nf_udp_ops *ops;
    void *context;
    struct nf_addr peer; /* family 0: everyone */
    uint16_t port;       /* local; 0: the kernel's choice */
    bool mapped, stamped, full;
};

static struct nf_udp sockets[MAX_SOCKETS];
static struct source *free_sockets;
static size_t used_sockets;

static uint64_t arrival(struct msghdr *m)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPNS) {
            struct timespec t;
            memcpy(&t, CMSG_DATA(c), sizeof t);
            return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
        }
    }
    return nf_wall_clock();
}

static void stamp(struct nf_udp *udp)
{
    static const int on = 1;
    if (udp->stamped)
        return;
    udp->stamped = true;
    setsockopt(udp->source.fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
}

/* A datagram of another peer that came between bind and connect belongs to the object that takes everyone's. */
static bool pass_on(const struct nf_udp *udp, const struct nf_addr *from, size_t size, uint64_t received)
{
    for (size_t i = 0; i < used_sockets; i++) {
        struct nf_udp *other = &sockets[i];
        if (other->source.fd >= 0 && !other->peer.family && other->port == udp->port) {
            other->ops->receive(other, other->context, from, receive_buffer, size, received);
            break;
        }
    }
    return true;
}

/* Returns false when nothing (more) is to be read now. */
static bool receive_one(struct nf_udp *udp)
{
    union address address;
    char control[CMSG_SPACE(sizeof(struct timespec))];
    struct iovec iov = {receive_buffer, sizeof receive_buffer};
    struct msghdr m = {.msg_name = &address,
                       .msg_namelen = sizeof address,
                       .msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control,
                       .msg_controllen = sizeof control};
    struct nf_addr from;
    ssize_t n = recvmsg(udp->source.fd, &m, 0);
    if (n < 0) {
        if (errno == EAGAIN || errno == EINTR)
            return false;
        if (udp->peer.family && udp->ops->failed)
            udp->ops->failed(udp, udp->context, error_from_errno(errno));
        return false;
    }
    stamp(udp);
    address_from_socket(&address, &from);
    if (udp->peer.family && !nf_addr_equal(&from, &udp->peer))
        return pass_on(udp, &from, (size_t)n, arrival(&m));
    udp->ops->receive(udp, udp->context, &from, receive_buffer, (size_t)n, arrival(&m));
    return true;
}

static void on_udp_ready(struct source *source, uint32_t events)
{
    struct nf_udp *udp = (struct nf_udp *)source;
    if (events & (EPOLLIN | EPOLLERR)) {
        for (int i = 0; i < READS_PER_ROUND && source->fd >= 0 && receive_one(udp); i++)
            ;
    }
    if (source->fd >= 0 && (events & EPOLLOUT) && udp->full) {
        udp->full = false;
        source_watch(source, EPOLLIN);
        if (udp->ops->writable)
            udp->ops->writable(udp, udp->context);
    }
}

static int set_peer(int fd, const struct nf_addr *peer, bool mapped)
{
    union address address;
    socklen_t length = address_to_socket(peer, mapped, &address);
    return connect(fd, &address.any, length) < 0 ? error_from_errno(errno) : 0;
}

int nf_udp_open(const struct nf_addr *local, const struct nf_addr *peer, const struct nf_udp_ops *ops, void *context,
                struct nf_udp **ret_udp)
{
    bool mapped = false;
    int fd = socket_open(SOCK_DGRAM, local, peer ? peer->family : local ? local->family : 0, &mapped);
    if (fd < 0)
        return fd;
    int error = peer ? set_peer(fd, peer, mapped) : 0;
    struct nf_udp *udp =
        error ? NULL
              : (struct nf_udp *)source_take(&free_sockets, sockets, sizeof *sockets, MAX_SOCKETS, &used_sockets);
    if (!udp) {
        close(fd);
        return error ? error : NF_NO_MEMORY;
    }
    udp->source.fd = fd;
    udp->source.ready = on_udp_ready;
    udp->ops = ops;
    udp->context = context;
    udp->mapped = mapped;
    udp->port = local ? local->port : 0;
    if (peer)
        udp->peer = *peer;
    error = source_watch(&udp->source, EPOLLIN);
    if (error) {
        nf_udp_close(udp);
        return error;
    }
    *ret_udp = udp;
    return 0;
}

int nf_udp_send(struct nf_udp *udp, const struct nf_addr *to, const void *header, size_t header_size, const void *body,
                size_t body_size)
{
    union address address;
    struct iovec iov[2] = {{(void *)header, header_size}, {(void *)body, body_size}};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = body_size ? 2 : 1};
    if (to) {
        m.msg_namelen = address_to_socket(to, udp->mapped, &address);
        m.msg_name = &address;
    }
    if (sendmsg(udp->source.fd, &m, MSG_NOSIGNAL) >= 0)
        return 0;
    int error = error_from_errno(errno);
    if (error == NF_AGAIN && !udp->full) {
        udp->full = true;
        source_watch(&udp->source, EPOLLIN | EPOLLOUT);
    }
    return error;
}

void nf_udp_address(const struct nf_udp *udp, struct nf_addr *ret_local)
{
    union address address = {.any.sa_family = AF_UNSPEC};
    socklen_t length = sizeof address;
    getsockname(udp->source.fd, &address.any, &length);
    address_from_socket(&address, ret_local);
}

void nf_udp_close(struct nf_udp *udp)
{
    if (udp)
        source_close(&udp->source, &free_sockets);
}
