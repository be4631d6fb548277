/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Linux platform's core: program start, event loop, timers, clocks, output, memory.
 *
 * Why so bare: from exec to a listening socket must take less than 150 us, and an idle server may dirty only a few
 * pages; so there is no stdio, no allocation at start, and nothing is opened before the program asks for it.
 */
#include "internal.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NS 1000000000ull

/* epoll_pwait2 (Linux 5.11) waits in nanoseconds, which pacing needs; musl has no wrapper for it. */
#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

enum { EVENTS_PER_ROUND = 32, STUCK_READER_MS = 100 };

uint8_t receive_buffer[RECEIVE_BUFFER];

static int epoll_fd = -1;
static struct nf_timer *timers; /* sorted by due */

static struct source *dead; /* closed in this round */

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
}

uint64_t nf_now(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t nf_wall_clock(void)
{
    return clock_ns(CLOCK_REALTIME);
}

void nf_timer_stop(struct nf_timer *timer)
{
    if (!timer->link)
        return;
    *timer->link = timer->next;
    if (timer->next)
        timer->next->link = timer->link;
    timer->link = NULL;
}

void nf_timer_start(struct nf_timer *timer, uint64_t due)
{
    nf_timer_stop(timer);
    timer->due = due;
    struct nf_timer **at = &timers;
    while (*at && (*at)->due <= due)
        at = &(*at)->next;
    timer->next = *at;
    timer->link = at;
    if (timer->next)
        timer->next->link = &timer->next;
    *at = timer;
}

/* Those due now are taken off first: one that a callback starts for now or earlier lets I/O go before it. */
static void fire_timers(void)
{
    static struct nf_timer *due;
    if (!timers)
        return;
    uint64_t now = nf_now();
    struct nf_timer **end = &timers;
    while (*end && (*end)->due <= now)
        end = &(*end)->next;
    if (end == &timers)
        return;
    due = timers;
    timers = *end;
    *end = NULL;
    due->link = &due;
    if (timers)
        timers->link = &timers;
    while (due) {
        struct nf_timer *timer = due;
        nf_timer_stop(timer);
        timer->fire(timer);
    }
}

int source_watch(struct source *source, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = source};
    if (epoll_fd < 0 && (epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0)
        return error_from_errno(errno);
    if (events == source->events)
        return 0;
    int op = !source->events ? EPOLL_CTL_ADD : events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;
    if (epoll_ctl(epoll_fd, op, source->fd, &e) < 0)
        return error_from_errno(errno);
    source->events = events;
    return 0;
}

void source_close(struct source *source, struct source **pool)
{
    close(source->fd); /* leaves the epoll set by itself: the descriptor is never duplicated */
    source->fd = -1;
    source->events = 0;
    source->pool = pool;
    source->next = dead;
    dead = source;
}

static void bury(void)
{
    while (dead) {
        struct source *source = dead;
        dead = source->next;
        source->next = *source->pool;
        *source->pool = source;
    }
}

struct source *source_take(struct source **pool, void *array, size_t member_size, size_t count, size_t *used)
{
    struct source *source = *pool;
    if (source)
        *pool = source->next;
    else if (*used < count)
        source = (struct source *)((char *)array + member_size * (*used)++);
    else
        return NULL;
    memset(source, 0, member_size);
    source->fd = -1;
    return source;
}

/* Waits until the next timer is due, to the nanosecond where the kernel (and a seccomp filter) allows that. */
static int wait_for_events(struct epoll_event *events)
{
    static bool coarse;
    uint64_t now = timers ? nf_now() : 0;
    uint64_t left = timers && timers->due > now ? timers->due - now : 0;
    if (timers && !left)
        return epoll_wait(epoll_fd, events, EVENTS_PER_ROUND, 0);
    if (timers && !coarse) {
        struct timespec t = {.tv_sec = (time_t)(left / NS), .tv_nsec = (long)(left % NS)};
        long n = syscall(SYS_epoll_pwait2, epoll_fd, events, EVENTS_PER_ROUND, &t, NULL, 0);
        if (n >= 0 || errno == EINTR)
            return (int)n;
        coarse = true;
    }
    uint64_t ms = left / 1000000 + 1;
    return epoll_wait(epoll_fd, events, EVENTS_PER_ROUND, !timers ? -1 : ms > 60000 ? 60000 : (int)ms);
}

static void run(void)
{
    struct epoll_event events[EVENTS_PER_ROUND];
    if (epoll_fd < 0 && (epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0)
        nf_exit(1);
    for (;;) {
        int n = wait_for_events(events);
        for (int i = 0; i < n; i++) {
            struct source *source = events[i].data.ptr;
            if (source->fd >= 0)
                source->ready(source, events[i].events);
        }
        fire_timers();
        bury();
    }
}

void nf_write(enum nf_stream stream, const char *text, size_t size)
{
    int fd = stream == NF_LOG ? STDERR_FILENO : STDOUT_FILENO;
    while (size) {
        ssize_t n = write(fd, text, size);
        if (n > 0) {
            text += n;
            size -= (size_t)n;
            continue;
        }
        if (n < 0 && errno == EINTR)
            continue;
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        if (n == 0 || errno != EAGAIN || poll(&p, 1, STUCK_READER_MS) <= 0)
            return;
    }
}

void *nf_alloc(size_t size)
{
    return calloc(1, size);
}

void nf_free(void *memory)
{
    free(memory);
}

void nf_exit(int status)
{
    _exit(status);
}

static struct {
    void (*hook)(void *context);
    void *context;
    volatile sig_atomic_t signal; /* that asked, while the hook has not run */
    int wake[2];
} stopping = {.wake = {-1, -1}};

/* As PID 1 of a container a process has no default action for these: it must take them itself. The second ends it. */
static void on_signal(int number)
{
    if (!stopping.hook || stopping.signal)
        _exit(128 + number);
    stopping.signal = number;
    if (write(stopping.wake[1], "", 1) < 0)
        _exit(128 + number);
}

static void on_stop(struct source *source, uint32_t events)
{
    (void)source;
    (void)events;
    if (!stopping.signal)
        return;
    if (stopping.hook)
        stopping.hook(stopping.context);
    _exit(128 + stopping.signal);
}

void nf_on_stop(void (*hook)(void *context), void *context)
{
    static struct source source = {.fd = -1, .ready = on_stop};

    if (hook && source.fd < 0 && pipe2(stopping.wake, O_CLOEXEC | O_NONBLOCK) == 0) {
        source.fd = stopping.wake[0];
        if (source_watch(&source, EPOLLIN) < 0)
            return; /* without a hook, then */
    }
    stopping.context = context;
    stopping.hook = source.fd >= 0 ? hook : NULL;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    int status = nf_main(argc, argv);
    if (status == NF_RUN)
        run();
    return status;
}
