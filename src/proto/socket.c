/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages over a SOCK_SEQPACKET socket: encode and send, receive and decode, descriptors with SCM_RIGHTS. Whatever
 * goes wrong, no descriptor of a peer stays open here. Runs in daemon and launcher.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "proto/codec.h"
#include "proto/proto.h"

void proto_message_end(struct proto_message *message)
{
    proto_message_clear(message->type, message->body);
    free(message->body);
    message->body = NULL;
    for (size_t i = 0; i < message->fd_count; i++)
        message->fds[i] = close_fd(message->fds[i]);
    message->fd_count = 0;
}

int proto_send(int fd, enum message_type type, uint32_t request, const void *message, const int *fds, size_t fd_count,
               struct error **err)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * PROTO_FD_MAX)] = {0};
    auto_free uint8_t *data = NULL;
    size_t size;
    ssize_t n;
    int r;

    if (!proto_fds_allowed(type, fd_count))
        return error_set(err, EINVAL, "INTERNAL", "message %s cannot carry %zu descriptors", proto_type_name(type),
                         fd_count);
    r = proto_encode(type, request, message, &data, &size, err);
    if (r < 0)
        return r;
    struct iovec iov = {.iov_base = data, .iov_len = size};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd_count) {
        header.msg_control = control;
        header.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        struct cmsghdr *c = CMSG_FIRSTHDR(&header);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * fd_count);
    }
    do {
        n = sendmsg(fd, &header, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n >= 0)
        return 0;
    if (errno == EAGAIN)
        return -EAGAIN;
    return error_set_errno(err, errno, "PROTOCOL_ERROR", "sending message %s", proto_type_name(type));
}

/* Gathers the descriptors beside a packet; closes those that find no place. Returns how many there were. */
static size_t take_descriptors(struct msghdr *header, int fds[PROTO_FD_MAX])
{
    size_t found = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int one;
            memcpy(&one, CMSG_DATA(c) + i * sizeof(int), sizeof(one));
            if (found < PROTO_FD_MAX)
                fds[found] = one;
            else
                close_fd(one);
            found++;
        }
    }
    return found;
}

/* One whole packet into data; fds belong to the caller even when this fails. */
static int receive_packet(int fd, uint8_t *data, size_t size, int fds[PROTO_FD_MAX], size_t *ret_fds,
                          struct error **err)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * PROTO_FD_MAX)];
    struct iovec iov = {.iov_base = data, .iov_len = size};
    struct msghdr header = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    ssize_t n;

    do {
        n = recvmsg(fd, &header, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? -EAGAIN : error_set_errno(err, errno, "PROTOCOL_ERROR", "receiving a message");
    *ret_fds = take_descriptors(&header, fds);
    if (header.msg_flags & MSG_CTRUNC)
        return error_set(err, EPROTO, "PROTOCOL_ERROR", "a message came with more than %d descriptors", PROTO_FD_MAX);
    if (header.msg_flags & MSG_TRUNC || (size_t)n != size)
        return error_set(err, EPROTO, "PROTOCOL_ERROR", "a packet changed its size while it was read");
    return 0;
}

int proto_receive(int fd, struct proto_message *ret, struct error **err)
{
    struct proto_message m = {.fds = {-1, -1, -1, -1}};
    int fds[PROTO_FD_MAX] = {-1, -1, -1, -1};
    auto_free uint8_t *data = NULL;
    size_t fd_count = 0;
    ssize_t size;
    int r;

    do {
        size = recv(fd, NULL, 0, MSG_PEEK | MSG_TRUNC);
    } while (size < 0 && errno == EINTR);
    if (size < 0 && (errno == EAGAIN || errno == ECONNRESET))
        return errno == EAGAIN ? -EAGAIN : 0;
    if (size < 0)
        return error_set_errno(err, errno, "PROTOCOL_ERROR", "receiving a message");
    if (size == 0)
        return 0;
    if (size > PROTO_MESSAGE_MAX)
        return error_set(err, EPROTO, "PROTOCOL_ERROR", "a packet of %zd bytes is larger than any message", size);
    data = malloc((size_t)size);
    if (!data)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a packet of %zd bytes", size);
    r = receive_packet(fd, data, (size_t)size, fds, &fd_count, err);
    if (r == 0)
        r = proto_decode(data, (size_t)size, &m, err);
    if (r == 0 && !proto_fds_allowed(m.type, fd_count))
        r = error_set(err, EPROTO, "PROTOCOL_ERROR", "message %s came with %zu descriptors", proto_type_name(m.type),
                      fd_count);
    m.fd_count = fd_count < PROTO_FD_MAX ? fd_count : PROTO_FD_MAX;
    memcpy(m.fds, fds, sizeof(fds));
    if (r < 0) {
        proto_message_end(&m);
        return r;
    }
    *ret = m;
    return 1;
}
