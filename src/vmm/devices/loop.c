/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device thread. Theory of operation:
 *
 * Sleeping costs the other side a wake-up (5 us on the same core, over 30 us across cores); spinning costs a core, and
 * on a small host it is the core the other side needs. So after each piece of work the thread polls for a short window,
 * giving the core away between looks. Two things end a window early: a sched_yield() that took long, which means that
 * somebody else wants this core, and windows that found nothing, each of which halves the next one. While it polls, the
 * driver's notifications are off, so a busy guest makes no exits at all.
 */
#include <errno.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

#include "base/cleanup.h"
#include "vmm/devices/loop.h"

enum {
    WINDOW_MAX_NS = 60000,
    WINDOW_MIN_NS = 4000,
    YIELD_LONG_NS = 8000, /* an undisturbed sched_yield() takes well under 1 us */
    SETTLE_LOOKS = 64,
    PATIENT_LOOKS = 32, /* looks between two at a patient device */
};

struct source {
    struct device *device;
    int fd;         /* back end, or the notify_fd of `queue` */
    int queue;      /* -1: back end */
    unsigned index; /* of a back end among several */
    bool woken;     /* its descriptor said so: it is looked at next */
    loop_ready ready;
};

struct loop {
    pthread_t thread;
    sem_t started;
    bool running, stop;
    int epoll_fd, wake_fd;
    pthread_mutex_t gate; /* held while devices are worked on; loop_pause() takes it */
    struct source sources[LOOP_SOURCE_MAX];
    unsigned count;
    uint64_t window_ns;
    unsigned looks;
    struct place place;
};

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int watch(struct loop *l, int fd, uint64_t index)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = index};

    return epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int loop_create(struct loop **ret, struct error **err)
{
    struct loop *l = calloc(1, sizeof(*l));

    if (!l)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the device thread");
    pthread_mutex_init(&l->gate, NULL);
    sem_init(&l->started, 0, 0);
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->epoll_fd < 0 || l->wake_fd < 0 || watch(l, l->wake_fd, LOOP_SOURCE_MAX) < 0) {
        int errnum = errno;
        loop_destroy(l);
        return error_set_errno(err, errnum, "INTERNAL", "cannot make the device thread's descriptors");
    }
    *ret = l;
    return 0;
}

static int add_source(struct loop *l, const struct source *s, struct error **err)
{
    const char *name = s->device->ops->name;
    int r = -ENOSPC;

    pthread_mutex_lock(&l->gate); /* the thread may wait already */
    if (l->count < LOOP_SOURCE_MAX) {
        l->sources[l->count] = *s;
        r = watch(l, s->fd, l->count);
    }
    l->count += r == 0;
    pthread_mutex_unlock(&l->gate);
    if (r == -ENOSPC)
        return error_set(err, ENOSPC, "INVALID_VALUE", "%s: more devices than a VM can have", name);
    return r < 0 ? error_set_errno(err, -r, "INTERNAL", "%s: cannot watch its descriptor", name) : 0;
}

int loop_add_queue(struct loop *l, struct device *d, unsigned queue, struct error **err)
{
    const struct source s = {.device = d, .fd = d->queues[queue].notify_fd, .queue = (int)queue};

    return add_source(l, &s, err);
}

int loop_add_back_end(struct loop *l, struct device *d, int fd, unsigned index, loop_ready ready, struct error **err)
{
    const struct source s = {.device = d, .fd = fd, .queue = -1, .index = index, .ready = ready};

    return add_source(l, &s, err);
}

int loop_add(struct loop *l, struct device *d, int fd, loop_ready ready, struct error **err)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < d->queue_count; i++)
        r = loop_add_queue(l, d, i, err);
    return r == 0 && fd >= 0 ? loop_add_back_end(l, d, fd, 0, ready, err) : r;
}

int loop_replace(struct loop *l, struct device *d, int fd)
{
    for (unsigned i = 0; i < l->count; i++) {
        struct source *s = &l->sources[i];
        if (s->device != d || s->queue >= 0)
            continue;
        s->fd = fd;
        return watch(l, fd, i);
    }
    return -ENOENT;
}

/* Looks at one source without sleeping. Returns true when there was work. */
static bool look(struct source *s)
{
    struct device *d = s->device;
    bool worked = false;

    pthread_mutex_lock(&d->lock);
    if (s->queue < 0) {
        worked = s->ready(d, s->index);
    } else if (virtqueue_has_work(&d->queues[s->queue].ring)) {
        worked = d->ops->notified(d, (unsigned)s->queue);
    }
    pthread_mutex_unlock(&d->lock);
    return worked;
}

/* all: patient devices too, woken or not. */
static bool look_at_all(struct loop *l, bool all)
{
    bool worked = false;

    all |= ++l->looks % PATIENT_LOOKS == 0;
    for (unsigned i = 0; i < l->count; i++) {
        struct source *s = &l->sources[i];
        if (!all && s->device->ops->patient && !s->woken)
            continue;
        s->woken = false;
        worked |= look(s);
    }
    return worked;
}

static void set_notify(struct loop *l, bool on)
{
    for (unsigned i = 0; i < l->count; i++) {
        struct source *s = &l->sources[i];
        if (s->queue < 0)
            continue;
        pthread_mutex_lock(&s->device->lock);
        struct virtqueue *q = &s->device->queues[s->queue].ring;
        if (q->available && on)
            virtqueue_notify_enable(q);
        else if (q->available)
            virtqueue_notify_disable(q);
        pthread_mutex_unlock(&s->device->lock);
    }
}

/* What devices held back while the thread was awake. */
static void settle(struct loop *l)
{
    for (unsigned i = 0; i < l->count; i++) {
        struct device *d = l->sources[i].device;
        if (l->sources[i].queue >= 0 || !d->ops->settle)
            continue;
        pthread_mutex_lock(&d->lock);
        d->ops->settle(d);
        pthread_mutex_unlock(&d->lock);
    }
}

/* Works until a window passes without work, then leaves with notifications on and nothing left to do. */
static void poll_window(struct loop *l)
{
    uint64_t last_work = now_ns();
    bool paid = false;

    place_apart(&l->place, last_work);
    set_notify(l, false);
    while (!__atomic_load_n(&l->stop, __ATOMIC_RELAXED)) {
        if (look_at_all(l, false)) {
            paid = true;
            last_work = now_ns();
            continue;
        }
        uint64_t before = now_ns();
        if (before - last_work >= l->window_ns)
            break;
        place_apart(&l->place, before);
        sched_yield();
        if (now_ns() - before > YIELD_LONG_NS)
            break;
    }
    if (!paid)
        place_free(&l->place);
    l->window_ns = paid ? WINDOW_MAX_NS : l->window_ns / 2;
    if (l->window_ns < WINDOW_MIN_NS)
        l->window_ns = WINDOW_MIN_NS;
    /* What came between the last look and the wish to be notified is looked for after the wish, and then the wish is
     * old. All of it: the back ends are edge-triggered, so that a packet without a receive buffer does not wake the
     * thread again and again. */
    do
        set_notify(l, true);
    while (!__atomic_load_n(&l->stop, __ATOMIC_RELAXED) && look_at_all(l, true));
    settle(l);
}

static void drain(int fd)
{
    uint64_t value;

    if (read(fd, &value, sizeof(value)) < 0 && errno != EAGAIN)
        return;
}

static void *loop_thread(void *argument)
{
    struct loop *l = argument;
    struct epoll_event events[LOOP_SOURCE_MAX + 1];

    sem_post(&l->started);
    while (!__atomic_load_n(&l->stop, __ATOMIC_RELAXED)) {
        int n = epoll_pwait(l->epoll_fd, events, LOOP_SOURCE_MAX + 1, -1, NULL);

        pthread_mutex_lock(&l->gate);
        for (int i = 0; i < n; i++) {
            uint64_t index = events[i].data.u64;
            if (index == LOOP_SOURCE_MAX) {
                drain(l->wake_fd);
                continue;
            }
            l->sources[index].woken = true;
            if (l->sources[index].queue >= 0)
                drain(l->sources[index].fd);
        }
        if (n > 0)
            poll_window(l);
        pthread_mutex_unlock(&l->gate);
    }
    return NULL;
}

int loop_start(struct loop *l, struct error **err)
{
    sigset_t all, before;

    l->window_ns = WINDOW_MAX_NS;
    sigfillset(&all); /* signals are the vCPU thread's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = pthread_create(&l->thread, NULL, loop_thread, l);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r != 0)
        return error_set_errno(err, r, "INTERNAL", "cannot start the device thread");
    l->running = true;
    return 0;
}

void loop_await_start(struct loop *l)
{
    while (sem_wait(&l->started) < 0)
        ;
}

static void wake(struct loop *l)
{
    const uint64_t one = 1;

    if (write(l->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
        abort(); /* an eventfd of our own cannot fail otherwise */
}

struct place *loop_place(struct loop *l)
{
    return &l->place;
}

void loop_pause(struct loop *l)
{
    pthread_mutex_lock(&l->gate);
}

void loop_resume(struct loop *l)
{
    pthread_mutex_unlock(&l->gate);
    wake(l);
}

void loop_settle(struct loop *l)
{
    struct timespec end;

    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec++;
    if (pthread_mutex_timedlock(&l->gate, &end) != 0)
        return; /* the thread is stuck, as in a console that nobody reads */
    for (unsigned i = 0; i < SETTLE_LOOKS && look_at_all(l, true); i++)
        ;
    settle(l);
    pthread_mutex_unlock(&l->gate);
}

void loop_destroy(struct loop *l)
{
    if (!l)
        return;
    __atomic_store_n(&l->stop, true, __ATOMIC_RELAXED);
    if (l->running) {
        wake(l);
        pthread_join(l->thread, NULL);
    }
    close_fd(l->epoll_fd);
    close_fd(l->wake_fd);
    pthread_mutex_destroy(&l->gate);
    free(l);
}
