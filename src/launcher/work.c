/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs: the main thread queues them on their instance, workers take the instances that are ready. An instance has at
 * most one job under way, so what is asked of it happens in the order it was asked; different instances run in
 * parallel.
 *
 * A worker whose wait becomes a long one (an image that makes its init hang, a virtual machine that boots) is replaced
 * by another for that time: worker_waits(). So one tenant's hanging starts hold up nobody; beyond WAITING_MAX of them
 * at one time, further starts are refused (TOO_MANY_REQUESTS) until some are over, everything else goes on.
 *
 * Nor does a monitor that its guest took over hold up its own end: SIGKILL and RELEASE, when they are queued, break off
 * what waits for its answer, and what is queued before them does not begin to wait.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "launcher/instance.h"

enum { WORKER_MAX = 8, WORKER_STACK = 512 * 1024, WAITING_MAX = 256 };

/* Under the launcher's lock. */
static struct {
    struct launcher *l;
    unsigned wanted;  /* that do not wait */
    unsigned threads; /* all */
    unsigned waiting;
    pthread_cond_t gone;
} crew = {.gone = PTHREAD_COND_INITIALIZER};

static _Thread_local bool is_worker;

static void push_ready(struct launcher *l, struct instance *i)
{
    i->ready_next = NULL;
    if (l->ready_last)
        l->ready_last->ready_next = i;
    else
        l->ready_first = i;
    l->ready_last = i;
    pthread_cond_signal(&l->work);
}

static bool is_end(const struct job *job)
{
    const struct message_signal *m = job->message.body;

    return job->message.type == MESSAGE_RELEASE || (job->message.type == MESSAGE_SIGNAL && m->signal == SIGKILL);
}

static void append(struct launcher *l, struct instance *i, struct job *job)
{
    bool was_empty = !i->first;

    if (i->last)
        i->last->next = job;
    else
        i->first = job;
    i->last = job;
    l->jobs++;
    if (i->asked_fd && is_end(job))
        shutdown(i->asked_fd, SHUT_RDWR);
    if (was_empty && !i->current)
        push_ready(l, i);
}

static void end_job(struct job *job)
{
    proto_message_end(&job->message);
    free(job);
}

int job_queue(struct launcher *l, const char *id, struct proto_message *message, uint64_t connection,
              struct error **err)
{
    struct job *job = calloc(1, sizeof(*job));
    int r = 0;

    if (!job)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a request");
    pthread_mutex_lock(&l->lock);
    if (l->jobs >= JOBS_MAX)
        r = error_set(err, EAGAIN, "TOO_MANY_REQUESTS", "%d requests are waiting already", JOBS_MAX);
    else if (message->type == MESSAGE_START && crew.waiting >= WAITING_MAX)
        r = error_set(err, EAGAIN, "TOO_MANY_REQUESTS", "%d starts do not get on", WAITING_MAX);
    else if (!(job->instance = instance_find_or_add(l, id)))
        r = error_set(err, ENOMEM, "NO_MEMORY", "no memory for an instance");
    if (r == 0) {
        job->message = *message;
        job->connection = connection;
        *message = (struct proto_message){0};
        append(l, job->instance, job);
    }
    pthread_mutex_unlock(&l->lock);
    if (r < 0)
        free(job);
    return r;
}

void job_queue_ended(struct launcher *l, uint64_t serial, uint32_t exec)
{
    struct job *job = calloc(1, sizeof(*job));
    bool queued;

    if (!job) {
        log_line(LOG_LEVEL_ERROR, NULL, "no memory to note that an instance ended");
        return;
    }
    job->exec = exec;
    pthread_mutex_lock(&l->lock);
    job->instance = instance_find_serial(l, serial);
    queued = job->instance != NULL;
    if (queued)
        append(l, job->instance, job);
    pthread_mutex_unlock(&l->lock);
    if (!queued) /* a queued one is a worker's from the unlock on, and may be freed already */
        free(job);
}

struct search {
    uint64_t connection;
    uint32_t request;
    bool found;
};

static bool cancel_if_same(void *context, struct instance *i)
{
    struct search *s = context;

    for (struct job *j = i->current ? i->current : i->first; j; j = j == i->current ? i->first : j->next) {
        if (j->message.type != MESSAGE_START || j->connection != s->connection || j->message.request != s->request)
            continue;
        atomic_store(&j->cancelled, true);
        s->found = true;
        return false;
    }
    return true;
}

bool job_cancel(struct launcher *l, uint64_t connection, uint32_t request)
{
    struct search s = {connection, request, false};

    pthread_mutex_lock(&l->lock);
    instance_each(l, cancel_if_same, &s);
    pthread_mutex_unlock(&l->lock);
    return s.found;
}

bool workers_idle(struct launcher *l)
{
    bool idle;

    pthread_mutex_lock(&l->lock);
    idle = l->jobs == 0 && l->busy_workers == 0;
    pthread_mutex_unlock(&l->lock);
    return idle;
}

/* More than are wanted, since one that waited is back: this one goes. */
static bool surplus(void)
{
    return crew.threads - crew.waiting > crew.wanted;
}

/* Waits for a ready instance and takes its next job; NULL when the launcher stops. */
static struct job *take_job(struct launcher *l)
{
    struct instance *i;
    struct job *job;

    while (!l->ready_first && !l->stopping && !surplus())
        pthread_cond_wait(&l->work, &l->lock);
    if (l->stopping || surplus())
        return NULL;
    i = l->ready_first;
    l->ready_first = i->ready_next;
    if (!l->ready_first)
        l->ready_last = NULL;
    job = i->first;
    i->first = job->next;
    if (!i->first)
        i->last = NULL;
    job->next = NULL;
    i->current = job;
    l->jobs--;
    l->busy_workers++;
    return job;
}

static void finish_job(struct launcher *l, struct job *job)
{
    struct instance *i = job->instance;

    l->busy_workers--;
    i->current = NULL;
    if (i->first)
        push_ready(l, i);
    else if (i->state == INSTANCE_NONE)
        instance_forget(l, i);
}

static void *work(void *context)
{
    struct launcher *l = context;
    struct job *job;

    is_worker = true;
    pthread_mutex_lock(&l->lock);
    while ((job = take_job(l))) {
        pthread_mutex_unlock(&l->lock);
        if (job->message.type == 0)
            job_ended(l, job);
        else if (job->message.type == MESSAGE_START)
            job_start(l, job);
        else
            job_operate(l, job);
        pthread_mutex_lock(&l->lock);
        finish_job(l, job);
        end_job(job);
    }
    crew.threads--;
    if (l->ready_first)
        pthread_cond_signal(&l->work); /* it may have been this one that was woken for it */
    pthread_cond_broadcast(&crew.gone);
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* One more worker; under the lock. */
static int hire(struct launcher *l)
{
    pthread_attr_t attributes;
    pthread_t thread;
    int e;

    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, WORKER_STACK);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    e = pthread_create(&thread, &attributes, work, l);
    pthread_attr_destroy(&attributes);
    crew.threads += e == 0;
    return e;
}

void worker_waits(bool begins)
{
    if (!is_worker)
        return;
    pthread_mutex_lock(&crew.l->lock);
    crew.waiting += begins ? 1 : -1u;
    if (begins && crew.threads - crew.waiting < crew.wanted && !crew.l->stopping)
        hire(crew.l); /* no thread to be had: as it would be without this */
    pthread_mutex_unlock(&crew.l->lock);
}

/* Whether its end waits in the queue; under the lock. */
static bool ends(const struct instance *i)
{
    const struct job *job = i->first;

    while (job && !is_end(job))
        job = job->next;
    return job != NULL;
}

static int say_ends(const struct instance *i, struct error **err)
{
    return error_set(err, EBUSY, "CONFLICTING_STATE", "%s is being ended", i->name);
}

int instance_asks(struct instance *i, int monitor, struct error **err)
{
    pthread_mutex_lock(&crew.l->lock);
    const bool refused = ends(i);
    if (!refused)
        i->asked_fd = monitor;
    pthread_mutex_unlock(&crew.l->lock);
    if (refused)
        return say_ends(i, err);
    worker_waits(true);
    return 0;
}

int instance_asked(struct instance *i, int result, struct error **err)
{
    worker_waits(false);
    pthread_mutex_lock(&crew.l->lock);
    i->asked_fd = 0;
    const bool broken_off = result < 0 && ends(i);
    pthread_mutex_unlock(&crew.l->lock);
    if (!broken_off)
        return result;
    if (err) {
        error_free(*err);
        *err = NULL;
    }
    return say_ends(i, err);
}

int workers_start(struct launcher *l, struct error **err)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    int e = 0;

    pthread_mutex_lock(&l->lock);
    crew.l = l;
    crew.wanted = cpus + 1 < WORKER_MAX ? (unsigned)cpus + 1 : WORKER_MAX;
    while (crew.threads < crew.wanted && e == 0)
        e = hire(l);
    crew.wanted = crew.threads;
    pthread_mutex_unlock(&l->lock);
    runtime_on_waiting(worker_waits);
    return crew.wanted ? 0 : error_set_errno(err, e, "START_FAILED", "starting worker threads");
}

void workers_stop(struct launcher *l)
{
    pthread_mutex_lock(&l->lock);
    l->stopping = true;
    pthread_cond_broadcast(&l->work);
    while (crew.threads)
        pthread_cond_wait(&crew.gone, &l->lock);
    pthread_mutex_unlock(&l->lock);
}
