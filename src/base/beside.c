/* SPDX-License-Identifier: Apache-2.0 */
/* A queue of work and one of descriptors under one lock. Work goes first: somebody waits for it. */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "base/beside.h"
#include "base/cleanup.h"

enum { THREAD_MAX = 8, STACK_BYTES = 256 * 1024, CLOSE_MAX = 256 };

struct beside {
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    struct beside_work *first, *last;
    int closing[CLOSE_MAX];
    unsigned close_count;
    bool stopping;
    unsigned thread_count;
    pthread_t threads[THREAD_MAX];
};

static struct beside_work *take_first(struct beside *b)
{
    struct beside_work *work = b->first;

    b->first = work->next;
    if (!b->first)
        b->last = NULL;
    work->state = BESIDE_BEGUN;
    return work;
}

/* Under the lock, let go meanwhile. */
static void run_one(struct beside *b, struct beside_work *work)
{
    pthread_mutex_unlock(&b->lock);
    work->run(work->context);
    pthread_mutex_lock(&b->lock);
    work->state = BESIDE_DONE;
    pthread_cond_broadcast(&b->done);
}

static void close_one(struct beside *b)
{
    int fd = b->closing[--b->close_count];

    pthread_mutex_unlock(&b->lock);
    close_fd(fd);
    pthread_mutex_lock(&b->lock);
}

static void *serve(void *context)
{
    struct beside *b = context;

    sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0}); /* a comfort: failing is no error */
    pthread_mutex_lock(&b->lock);
    for (;;) {
        if (b->first)
            run_one(b, take_first(b));
        else if (b->close_count)
            close_one(b);
        else if (b->stopping)
            break;
        else
            pthread_cond_wait(&b->wake, &b->lock);
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

struct beside *beside_open(unsigned threads)
{
    struct beside *b = calloc(1, sizeof(*b));
    pthread_attr_t attributes;

    if (!b)
        return NULL;
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->wake, NULL);
    pthread_cond_init(&b->done, NULL);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    while (b->thread_count < threads && b->thread_count < THREAD_MAX &&
           pthread_create(&b->threads[b->thread_count], &attributes, serve, b) == 0)
        b->thread_count++;
    pthread_attr_destroy(&attributes);
    if (b->thread_count)
        return b;
    free(b);
    return NULL;
}

void beside_close(struct beside *b)
{
    if (!b)
        return;
    pthread_mutex_lock(&b->lock);
    b->stopping = true;
    pthread_cond_broadcast(&b->wake);
    pthread_mutex_unlock(&b->lock);
    while (b->thread_count)
        pthread_join(b->threads[--b->thread_count], NULL);
    pthread_cond_destroy(&b->done);
    pthread_cond_destroy(&b->wake);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

void beside_begin(struct beside *b, struct beside_work *work, void (*run)(void *), void *context)
{
    *work = (struct beside_work){.run = run, .context = context, .state = BESIDE_QUEUED};
    if (!b)
        return;
    pthread_mutex_lock(&b->lock);
    if (b->last)
        b->last->next = work;
    else
        b->first = work;
    b->last = work;
    pthread_mutex_unlock(&b->lock);
    pthread_cond_signal(&b->wake);
}

static void unlink_work(struct beside *b, const struct beside_work *work)
{
    struct beside_work *before = NULL;

    for (struct beside_work *w = b->first; w != work; w = w->next)
        before = w;
    if (before)
        before->next = work->next;
    else
        b->first = work->next;
    if (b->last == work)
        b->last = before;
}

/* Returns when no other thread is at it; true: none was, and none will be. */
static bool take_back(struct beside *b, struct beside_work *work)
{
    bool back;

    if (!b)
        return work->state == BESIDE_QUEUED;
    pthread_mutex_lock(&b->lock);
    back = work->state == BESIDE_QUEUED;
    if (back)
        unlink_work(b, work);
    while (work->state == BESIDE_BEGUN)
        pthread_cond_wait(&b->done, &b->lock);
    pthread_mutex_unlock(&b->lock);
    return back;
}

void beside_end(struct beside *b, struct beside_work *work)
{
    if (take_back(b, work))
        work->run(work->context);
    work->state = BESIDE_NONE;
}

bool beside_ready(struct beside *b, const struct beside_work *work)
{
    bool ready;

    if (!b)
        return false;
    pthread_mutex_lock(&b->lock);
    ready = work->state == BESIDE_DONE;
    pthread_mutex_unlock(&b->lock);
    return ready;
}

bool beside_drop(struct beside *b, struct beside_work *work)
{
    bool ran = !take_back(b, work) && work->state == BESIDE_DONE;

    work->state = BESIDE_NONE;
    return ran;
}

void beside_close_fd(struct beside *b, int fd)
{
    bool queued = false;

    if (fd < 0)
        return;
    if (b) {
        pthread_mutex_lock(&b->lock);
        queued = b->close_count < CLOSE_MAX;
        if (queued) {
            b->closing[b->close_count++] = fd;
            pthread_cond_signal(&b->wake);
        }
        pthread_mutex_unlock(&b->lock);
    }
    if (!queued)
        close_fd(fd);
}
