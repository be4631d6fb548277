/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between the runtime library and a container's coracle-init: sending, receiving, connecting. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/strv.h"
#include "runtime/internal.h"

int channel_send(int socket, const void *message, size_t size, const int *fds, size_t fd_count)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int) * INIT_FD_MAX)];
    } control = {0};
    struct iovec part = {(void *)(uintptr_t)message, size};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};

    if (fd_count) {
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        struct cmsghdr *c = CMSG_FIRSTHDR(&header);

        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * fd_count);
    }
    return sendmsg(socket, &header, MSG_NOSIGNAL) == (ssize_t)size ? 0 : -errno;
}

/* Keeps the first fd_max descriptors of a message, closes the others. */
static void take_fds(struct msghdr *message, int *ret_fds, size_t fd_max)
{
    size_t taken = 0;

    for (size_t i = 0; i < fd_max; i++)
        ret_fds[i] = -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        int fds[INIT_FD_MAX];
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || count > INIT_FD_MAX)
            continue;
        memcpy(fds, CMSG_DATA(c), count * sizeof(int));
        for (size_t i = 0; i < count; i++)
            if (taken < fd_max)
                ret_fds[taken++] = fds[i];
            else
                close(fds[i]);
    }
}

int channel_receive(int socket, int timeout_ms, struct init_reply *ret_reply, int *ret_fds, size_t fd_max)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int) * INIT_FD_MAX)];
    } control;
    struct init_reply reply;
    struct iovec part = {&reply, sizeof(reply)};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    int ready = wait_readable(socket, timeout_ms);
    ssize_t got;

    if (ready <= 0)
        return ready ? ready : -ETIMEDOUT;
    got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    /* An init that ended with a request unread makes that the socket's first, one-time error: its last words, why it
     * ended, are behind it. */
    if (got < 0 && errno == ECONNRESET)
        got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (got < 0)
        return errno == EAGAIN ? -EAGAIN : -ECONNRESET;
    if (got == 0)
        return -ECONNRESET;
    take_fds(&message, ret_fds, fd_max);
    if (got != sizeof(reply) || reply.header.protocol != INIT_PROTOCOL || reply.header.size != sizeof(reply)) {
        for (size_t i = 0; i < fd_max; i++)
            ret_fds[i] = close_fd(ret_fds[i]);
        return -EPROTO;
    }
    reply.detail[sizeof(reply.detail) - 1] = 0;
    *ret_reply = reply;
    return 0;
}

void channel_add_process(struct buffer *buffer, size_t process_offset, const struct plan_process *process)
{
    size_t begin = buffer->length;
    struct init_process *header;
    const char *user = process->user ? process->user : "", *cwd = process->cwd ? process->cwd : "/";

    buffer_add(buffer, user, strlen(user) + 1);
    buffer_add(buffer, cwd, strlen(cwd) + 1);
    for (char **string = process->argv; string && *string; string++)
        buffer_add(buffer, *string, strlen(*string) + 1);
    for (char **string = process->env; string && *string; string++)
        buffer_add(buffer, *string, strlen(*string) + 1);
    if (buffer->failed)
        return;
    header = (struct init_process *)(void *)(buffer->data + process_offset);
    header->flags = (process->tty ? INIT_PROCESS_TTY : 0) | (process->open_stdin ? INIT_PROCESS_STDIN : 0);
    header->argc = (uint32_t)strv_count(process->argv);
    header->envc = (uint32_t)strv_count(process->env);
    header->strings_size = (uint32_t)(buffer->length - begin);
}

int channel_connect(int instance_dirfd, struct error **err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    /* Without waiting: an init that hangs in a start of something accepts nobody, and its queue is full after a while. */
    auto_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/init.sock", instance_dirfd);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)))
        return error_set_errno(err, errno, "CONFLICTING_STATE", "the instance's init cannot be reached");
    return take_fd(&fd);
}
