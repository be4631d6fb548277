/* SPDX-License-Identifier: Apache-2.0 */
/* ICMP echo (RFC 792) round trips from the fabric's namespace, for the RTT metric; runs on the caller's thread. */
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bench/probe/echo.h"
#include "bench/probe/netns.h"

enum { PAYLOAD_BYTES = 56, REPLY_TIMEOUT_MS = 1000, LOST_MAX = 5 };

struct echo {
    struct icmphdr header;
    uint8_t payload[PAYLOAD_BYTES];
};

static uint16_t checksum(const void *data, size_t n)
{
    const uint8_t *p = data;
    uint32_t sum = 0;

    for (size_t i = 0; i + 1 < n; i += 2)
        sum += (uint32_t)p[i] << 8 | p[i + 1];
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return htons((uint16_t)~sum);
}

static int64_t receive(int fd, struct in_addr from, uint16_t id, uint16_t sequence)
{
    uint8_t bytes[256];
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(struct timespec)) + 64];
    } control;
    struct iovec iov = {bytes, sizeof(bytes)};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT);
    struct iphdr ip;
    struct icmphdr icmp;
    struct timespec t;

    if (n < (ssize_t)(sizeof(ip) + sizeof(icmp)))
        return n < 0 ? -errno : 0;
    memcpy(&ip, bytes, sizeof(ip));
    memcpy(&icmp, bytes + sizeof(ip), sizeof(icmp));
    if (ip.ihl != 5 || ip.saddr != from.s_addr || icmp.type != ICMP_ECHOREPLY || icmp.un.echo.id != htons(id) ||
        icmp.un.echo.sequence != htons(sequence))
        return 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPNS) {
            memcpy(&t, CMSG_DATA(c), sizeof(t));
            return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
        }
    }
    return 0;
}

/* One echo and its reply; -ETIMEDOUT when there is none. */
static int round_trip(int fd, const struct target *t, uint16_t id, uint16_t sequence, double *ret_ms)
{
    struct echo e = {.header = {.type = ICMP_ECHO, .un.echo = {htons(id), htons(sequence)}}};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = t->address};
    int64_t sent, deadline = monotonic_ns() + (int64_t)REPLY_TIMEOUT_MS * 1000000;

    e.header.checksum = checksum(&e, sizeof(e));
    sent = realtime_ns();
    if (sendto(fd, &e, sizeof(e), 0, (struct sockaddr *)&to, sizeof(to)) < 0)
        return -errno;
    while (monotonic_ns() < deadline) {
        int64_t stamp = receive(fd, t->address, id, sequence);

        if (stamp > 0) {
            *ret_ms = (double)(stamp - sent) / 1e6;
            return 0;
        }
        if (stamp == -EAGAIN)
            poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, REPLY_TIMEOUT_MS);
        else if (stamp < 0)
            return (int)stamp;
    }
    return -ETIMEDOUT;
}

int echo_flood(const struct target *target, size_t count, double *times, size_t *ret_n, struct error **err)
{
    auto_fd int fd = -1;
    int on = 1, lost = 0, r = netns_socket(target->netns, AF_INET, SOCK_RAW, IPPROTO_ICMP, &fd, err);
    uint16_t id = (uint16_t)getpid();
    size_t n = 0;

    if (r < 0)
        return r;
    if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)) < 0)
        return error_set_errno(err, errno, "INTERNAL", "kernel time stamps on the echo socket");
    for (size_t i = 0; i < count && lost < LOST_MAX; i++) {
        r = round_trip(fd, target, id, (uint16_t)i, &times[n]);
        n += r == 0;
        lost += r != 0;
    }
    if (n == 0)
        return error_set_errno(err, r < 0 ? -r : ETIMEDOUT, "TIMEOUT", "no echo was answered");
    *ret_n = n;
    return 0;
}
