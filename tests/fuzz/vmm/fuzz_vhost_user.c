/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vhost-user back end that says anything. First byte: bit 0, descriptors come along; bit 1, the front end asks for
 * two pairs; the rest is all it ever answers, then its side of the socket ends.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/devices/vhost_user.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void say(int fd, const uint8_t *data, size_t size, bool descriptors)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(2 * sizeof(int))];
    } control = {.align = {.cmsg_len = CMSG_LEN(2 * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec part = {(void *)(uintptr_t)data, size};
    struct msghdr h = {.msg_iov = &part, .msg_iovlen = 1};

    for (unsigned i = 0; i < 2; i++)
        memcpy(CMSG_DATA(&control.align) + i * sizeof(int), &fd, sizeof(fd));
    if (descriptors) {
        h.msg_control = &control;
        h.msg_controllen = sizeof(control);
    }
    if (size > 0 && sendmsg(fd, &h, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
        /* more than a socket holds */
    }
    shutdown(fd, SHUT_WR);
}

static void ask_everything(int fd, unsigned pairs)
{
    const struct virtqueue_address a = {.descriptors = 0x1000, .available = 0x2000, .used = 0x3000, .size = 64};
    struct vhost_user u;
    uint16_t base = 0;

    if (vhost_user_begin(fd, pairs, 1, &u, NULL) < 0)
        return;
    if (!(u.features >> 32 & 1))
        abort();
    int r = vhost_user_set_memory(&u, 1 << 20, fd);
    if (r == 0)
        r = vhost_user_set_features(&u, 1ull << 32);
    for (unsigned q = 0; r == 0 && q < 2 * pairs; q++) {
        r = vhost_user_start_ring(&u, q, &a, 0, fd, fd);
        if (r == 0)
            r = vhost_user_enable_ring(&u, q, true);
        if (r == 0)
            r = vhost_user_stop_ring(&u, q, &base);
    }
    if (r < 0 && !u.broken)
        abort();
    if (r < 0 && vhost_user_set_features(&u, 0) == 0)
        abort(); /* over is over */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int ends[2];

    if (size == 0)
        return 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        abort();
    say(ends[1], data + 1, size - 1, data[0] & 1);
    ask_everything(ends[0], data[0] & 2 ? 2 : 1);
    close(ends[0]);
    close(ends[1]);
    return 0;
}
