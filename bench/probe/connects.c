/* SPDX-License-Identifier: Apache-2.0 */
/* The connection flood for the connections metric (connects.h); one thread, inside the fabric's namespace. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bench/probe/connects.h"
#include "bench/probe/netns.h"

enum { OUTSTANDING_MAX = 256, ATTEMPT_TIMEOUT_MS = 1000 };

struct run {
    const struct target *target;
    unsigned outstanding;
    int64_t end_ns;
    int epoll;
    unsigned open;
    int fds[OUTSTANDING_MAX]; /* under way; -1: free */
    struct connects result;
};

/* A reset instead of an orderly end: nothing of the connection stays behind. */
static void break_off(struct run *r, int fd)
{
    const struct linger now = {.l_onoff = 1};

    for (unsigned i = 0; i < r->outstanding; i++)
        if (r->fds[i] == fd)
            r->fds[i] = -1;
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(fd);
    r->open--;
}

static int begin(struct run *r, struct error **err)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(r->target->port), .sin_addr = r->target->address};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct epoll_event e = {.events = EPOLLOUT, .data.fd = fd};

    if (fd < 0)
        return error_set_errno(err, errno, "INTERNAL", "a socket for a connection");
    for (unsigned i = 0; i < r->outstanding; i++)
        if (r->fds[i] < 0) {
            r->fds[i] = fd;
            break;
        }
    r->open++;
    if ((connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS) ||
        epoll_ctl(r->epoll, EPOLL_CTL_ADD, fd, &e) < 0) {
        int e2 = errno;
        break_off(r, fd);
        return error_set_errno(err, e2, "INTERNAL", "a connection to the instance");
    }
    return 0;
}

static void settle(struct run *r, int fd)
{
    int error = 0;
    socklen_t size = sizeof(error);

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0)
        r->result.accepted++;
    else
        r->result.refused++;
    break_off(r, fd);
}

static int flood(struct run *r, struct error **err)
{
    struct epoll_event events[OUTSTANDING_MAX];
    int result = 0;

    while (result == 0 && monotonic_ns() < r->end_ns) {
        while (result == 0 && r->open < r->outstanding)
            result = begin(r, err);
        int n = result < 0 ? 0 : epoll_wait(r->epoll, events, OUTSTANDING_MAX, ATTEMPT_TIMEOUT_MS);
        if (n == 0 && result == 0)
            result =
                error_set(err, ETIMEDOUT, "TIMEOUT", "no connection was answered within %d ms", ATTEMPT_TIMEOUT_MS);
        for (int i = 0; i < n; i++)
            settle(r, events[i].data.fd);
    }
    return result;
}

static int run(void *context, struct error **err)
{
    struct run *r = context;
    auto_fd int epoll = epoll_create1(EPOLL_CLOEXEC);
    int64_t begun = monotonic_ns();
    int result;

    if (epoll < 0)
        return error_set_errno(err, errno, "INTERNAL", "epoll");
    r->epoll = epoll;
    r->end_ns += begun;
    result = flood(r, err);
    r->result.seconds = (double)(monotonic_ns() - begun) / 1e9;
    for (unsigned i = 0; i < r->outstanding; i++) /* under way still: counted nowhere */
        if (r->fds[i] >= 0)
            break_off(r, r->fds[i]);
    return result;
}

int connects_run(const struct target *target, unsigned outstanding, unsigned ms, struct connects *ret,
                 struct error **err)
{
    struct run r = {.target = target,
                    .outstanding = outstanding < OUTSTANDING_MAX ? outstanding : OUTSTANDING_MAX,
                    .end_ns = (int64_t)ms * 1000000};
    int result;

    memset(r.fds, -1, sizeof(r.fds));
    result = netns_run(target->netns, run, &r, err);

    if (result == 0)
        *ret = r.result;
    return result;
}

int connects_knock(const struct target *target, int timeout_ms, struct error **err)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(target->port), .sin_addr = target->address};
    const struct linger now = {.l_onoff = 1};
    auto_fd int fd = -1;
    int error = 0, r = netns_socket(target->netns, AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0, &fd, err);
    socklen_t size = sizeof(error);

    if (r < 0)
        return r;
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
        error = errno;
    if (error == EINPROGRESS && poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, timeout_ms) == 1)
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    if (error == 0)
        return 0;
    error = error == EINPROGRESS ? ETIMEDOUT : error;
    return error_set_errno(err, error, "TIMEOUT", "a connection to %s, port %d", inet_ntoa(target->address),
                           target->port);
}
