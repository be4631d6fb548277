/* SPDX-License-Identifier: Apache-2.0 */
/* See vhost_user.h. Called by the thread that changes the device's state: main at its creation, the vCPU's, the control
 * thread when a new back end comes; the device thread asks whether it is over. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/cleanup.h"
#include "vmm/devices/vhost_user.h"

enum { PAYLOAD_MAX = 64, SURPLUS_FDS = 28 };
#define PROTOCOL_FEATURES (UINT64_C(1) << 30)
#define PROTOCOL_MQ       (UINT64_C(1) << 0)
#define PROTOCOL_REPLY    (UINT64_C(1) << 3)
#define VRING_NO_FD       (UINT64_C(1) << 8)
/* Guest memory starts here in the addresses the back end is told: ours are none of its business. */
#define ADDRESS_BASE (UINT64_C(1) << 40)

struct message {
    struct vhost_user_header header;
    uint8_t payload[PAYLOAD_MAX];
};

struct vring_state {
    uint32_t index, value;
};

struct vring_address {
    uint32_t index, flags;
    uint64_t descriptors, used, available, log;
};

struct memory_table {
    uint32_t regions, padding;
    uint64_t guest_address, bytes, user_address, offset;
};

_Static_assert(sizeof(struct vhost_user_header) == 12, "protocol");
_Static_assert(sizeof(struct vring_address) == 40 && sizeof(struct memory_table) == 40, "protocol");

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int breaks(struct vhost_user *u, const char *why)
{
    if (!u->broken)
        u->broken = why;
    return -EPROTO;
}

/* Until something can be read or written, or the deadline. */
static int wait_for(struct vhost_user *u, short events)
{
    uint64_t now = now_ns();
    struct pollfd p = {.fd = u->fd, .events = events};
    int left = now < u->deadline_ns ? (int)((u->deadline_ns - now) / 1000000) + 1 : 0;

    if (left == 0 || poll(&p, 1, left) == 0)
        return breaks(u, "it does not answer"), -ETIMEDOUT;
    return 0;
}

static int send_message(struct vhost_user *u, const struct message *m, int fd)
{
    const size_t size = sizeof(m->header) + m->header.size;
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = (void *)(uintptr_t)m, .iov_len = size};
    struct msghdr h = {.msg_iov = &part, .msg_iovlen = 1};

    if (fd >= 0) {
        h.msg_control = &control;
        h.msg_controllen = sizeof(control);
        struct cmsghdr *c = CMSG_FIRSTHDR(&h);
        *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    }
    while (part.iov_len > 0) {
        ssize_t n = sendmsg(u->fd, &h, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return breaks(u, "it is gone");
        if (n < 0) {
            int r = wait_for(u, POLLOUT);
            if (r < 0)
                return r;
            continue;
        }
        part.iov_base = (uint8_t *)part.iov_base + n;
        part.iov_len -= (size_t)n;
        h.msg_control = NULL; /* it went with the first byte */
        h.msg_controllen = 0;
    }
    return 0;
}

/* Closes what came beside bytes; returns how many there were. */
static unsigned close_descriptors(struct msghdr *h)
{
    unsigned closed = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++, closed++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            close_fd(fd);
        }
    }
    return closed;
}

static int receive_bytes(struct vhost_user *u, void *to, size_t size)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(SURPLUS_FDS * sizeof(int))];
    } control;

    for (size_t done = 0; done < size;) {
        struct iovec part = {.iov_base = (uint8_t *)to + done, .iov_len = size - done};
        struct msghdr h = {
            .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
        ssize_t n = recvmsg(u->fd, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            int r = wait_for(u, POLLIN);
            if (r < 0)
                return r;
            continue;
        }
        if (n <= 0)
            return breaks(u, "it is gone");
        if (close_descriptors(&h) > 0 || (h.msg_flags & MSG_CTRUNC))
            return breaks(u, "it sent descriptors where none belong");
        done += (size_t)n;
    }
    return 0;
}

/* The answer to `request`, exactly `size` bytes of it. */
static int receive_reply(struct vhost_user *u, uint32_t request, void *ret, size_t size)
{
    struct message m;
    int r = receive_bytes(u, &m.header, sizeof(m.header));

    if (r < 0)
        return r;
    if (m.header.request != request)
        return breaks(u, "it answered what was not asked");
    if ((m.header.flags & 3) != VHOST_USER_VERSION || !(m.header.flags & VHOST_USER_REPLY))
        return breaks(u, "its answer is none of this protocol's version");
    if (m.header.size != size)
        return breaks(u, "its answer has a wrong size");
    r = receive_bytes(u, m.payload, size);
    if (r == 0)
        memcpy(ret, m.payload, size);
    return r;
}

static void begin_call(struct vhost_user *u)
{
    u->deadline_ns = now_ns() + (uint64_t)u->timeout_ms * 1000000;
}

static int tell(struct vhost_user *u, uint32_t request, const void *payload, size_t size, int fd)
{
    struct message m = {.header = {.request = request, .flags = VHOST_USER_VERSION, .size = (uint32_t)size}};
    const bool acknowledged = (u->protocol & PROTOCOL_REPLY) != 0;
    uint64_t result = 0;

    if (u->broken || u->fd < 0)
        return -ENOTCONN;
    begin_call(u);
    if (size > 0)
        memcpy(m.payload, payload, size);
    if (acknowledged)
        m.header.flags |= VHOST_USER_NEED_REPLY;
    int r = send_message(u, &m, fd);
    if (r == 0 && acknowledged)
        r = receive_reply(u, request, &result, sizeof(result));
    if (r == 0 && result != 0)
        return breaks(u, "it refused a request");
    return r;
}

static int ask(struct vhost_user *u, uint32_t request, const void *payload, size_t size, void *ret, size_t ret_size)
{
    struct message m = {.header = {.request = request, .flags = VHOST_USER_VERSION, .size = (uint32_t)size}};

    if (u->broken || u->fd < 0)
        return -ENOTCONN;
    begin_call(u);
    if (size > 0)
        memcpy(m.payload, payload, size);
    int r = send_message(u, &m, -1);
    return r < 0 ? r : receive_reply(u, request, ret, ret_size);
}

/* ---- the calls ---- */

static int negotiate_protocol(struct vhost_user *u, unsigned pairs)
{
    uint64_t offered = 0, count = 0;
    int r = ask(u, VHOST_USER_GET_PROTOCOL_FEATURES, NULL, 0, &offered, sizeof(offered));

    if (r < 0)
        return r;
    uint64_t wanted = offered & (PROTOCOL_REPLY | PROTOCOL_MQ);
    r = tell(u, VHOST_USER_SET_PROTOCOL_FEATURES, &wanted, sizeof(wanted), -1);
    u->protocol = wanted;
    if (r == 0 && pairs > 1 && (wanted & PROTOCOL_MQ)) {
        r = ask(u, VHOST_USER_GET_QUEUE_NUM, NULL, 0, &count, sizeof(count));
        if (r == 0 && count < pairs)
            return breaks(u, "it has fewer queues than the device");
    } else if (r == 0 && pairs > 1) {
        return breaks(u, "it has one queue pair only");
    }
    return r;
}

static int handshake(struct vhost_user *u, unsigned pairs)
{
    int r = ask(u, VHOST_USER_GET_FEATURES, NULL, 0, &u->features, sizeof(u->features));

    u->has_protocol = r == 0 && (u->features & PROTOCOL_FEATURES);
    if (u->has_protocol)
        r = negotiate_protocol(u, pairs);
    else if (r == 0 && pairs > 1)
        r = breaks(u, "it has one queue pair only");
    if (r == 0 && !(u->features & (UINT64_C(1) << 32)))
        r = breaks(u, "it knows no virtio 1");
    return r < 0 ? r : tell(u, VHOST_USER_SET_OWNER, NULL, 0, -1);
}

int vhost_user_begin(int fd, unsigned pairs, int timeout_ms, struct vhost_user *ret, struct error **err)
{
    struct vhost_user u = {.fd = fd, .timeout_ms = timeout_ms};
    int r = handshake(&u, pairs);

    if (r < 0)
        return error_set(err, -r, "START_FAILED", "vhost-user back end: %s", u.broken ? u.broken : "not connected");
    *ret = u;
    return 0;
}

int vhost_user_set_features(struct vhost_user *u, uint64_t features)
{
    if (u->has_protocol)
        features |= PROTOCOL_FEATURES;
    return tell(u, VHOST_USER_SET_FEATURES, &features, sizeof(features), -1);
}

int vhost_user_set_memory(struct vhost_user *u, uint64_t bytes, int memory_fd)
{
    const struct memory_table t = {.regions = 1, .bytes = bytes, .user_address = ADDRESS_BASE};

    return tell(u, VHOST_USER_SET_MEM_TABLE, &t, sizeof(t), memory_fd);
}

static int set_state(struct vhost_user *u, uint32_t request, unsigned queue, uint32_t value)
{
    const struct vring_state s = {queue, value};

    return tell(u, request, &s, sizeof(s), -1);
}

static int set_event(struct vhost_user *u, uint32_t request, unsigned queue, int fd)
{
    const uint64_t index = queue | (fd < 0 ? VRING_NO_FD : 0);

    return tell(u, request, &index, sizeof(index), fd);
}

int vhost_user_start_ring(struct vhost_user *u, unsigned queue, const struct virtqueue_address *a, uint16_t base,
                          int kick_fd, int call_fd)
{
    const struct vring_address where = {
        .index = queue,
        .descriptors = ADDRESS_BASE + a->descriptors,
        .used = ADDRESS_BASE + a->used,
        .available = ADDRESS_BASE + a->available,
    };
    int r = set_state(u, VHOST_USER_SET_VRING_NUM, queue, a->size);

    if (r == 0)
        r = set_state(u, VHOST_USER_SET_VRING_BASE, queue, base);
    if (r == 0)
        r = tell(u, VHOST_USER_SET_VRING_ADDR, &where, sizeof(where), -1);
    if (r == 0)
        r = set_event(u, VHOST_USER_SET_VRING_CALL, queue, call_fd);
    return r < 0 ? r : set_event(u, VHOST_USER_SET_VRING_KICK, queue, kick_fd);
}

int vhost_user_enable_ring(struct vhost_user *u, unsigned queue, bool on)
{
    return u->has_protocol ? set_state(u, VHOST_USER_SET_VRING_ENABLE, queue, on) : 0;
}

int vhost_user_stop_ring(struct vhost_user *u, unsigned queue, uint16_t *ret_base)
{
    const struct vring_state asked = {queue, 0};
    struct vring_state reply = {0};
    int r = ask(u, VHOST_USER_GET_VRING_BASE, &asked, sizeof(asked), &reply, sizeof(reply));

    if (r < 0)
        return r;
    if (reply.index != queue || reply.value > UINT16_MAX)
        return breaks(u, "it answered for a ring that was not asked about");
    *ret_base = (uint16_t)reply.value;
    return 0;
}

bool vhost_user_is_over(struct vhost_user *u)
{
    struct pollfd p = {.fd = u->fd, .events = POLLIN};

    if (u->fd < 0 || u->broken)
        return u->broken != NULL;
    if (poll(&p, 1, 0) <= 0)
        return false;
    breaks(u, p.revents & POLLHUP ? "it is gone" : "it spoke without being asked");
    return true;
}

void vhost_user_end(struct vhost_user *u)
{
    u->fd = close_fd(u->fd);
}
