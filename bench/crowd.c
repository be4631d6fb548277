/* SPDX-License-Identifier: Apache-2.0 */
/* A handful of client threads, each with its own connection, working off one counter. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "bench/crowd.h"
#include "bench/probe/connects.h"

enum { CLIENTS = 4, ANSWER_MS = 5000 };

enum work { WORK_CREATE, WORK_KNOCK, WORK_DESTROY, WORK_CYCLE };

struct shift {
    enum work work;
    struct subject *subject;
    struct subject_instance *list;
    size_t end;
    atomic_size_t next, done;
    atomic_bool stop;
};

struct client {
    struct shift *shift;
    pthread_t thread;
    struct error *err;
    int result;
};

static int create_one(struct subject *s, struct subject_instance *instance, struct error **err)
{
    int r = s->ops->prepare(s, SUBJECT_START_DEFAULT, false, err);

    if (r == 0)
        r = s->ops->create(s, instance, err);
    if (r == 0 && s->ops->wait) {
        r = s->ops->wait(s, instance, err);
        if (r < 0)
            s->ops->destroy(s, instance, NULL);
    }
    return r;
}

static int knock(struct subject *s, struct subject_instance *instance, struct error **err)
{
    struct target target = s->target;
    int r = s->ops->inspect(s, instance, err);

    target.address = instance->address;
    return r < 0 ? r : connects_knock(&target, ANSWER_MS, err);
}

static int do_one(struct shift *shift, struct subject *s, size_t i, struct error **err)
{
    struct subject_instance instance = {0};
    int r;

    if (shift->work == WORK_DESTROY)
        return *shift->list[i].id ? s->ops->destroy(s, &shift->list[i], err) : 0;
    if (shift->work == WORK_KNOCK)
        return knock(s, &shift->list[i], err);
    r = create_one(s, &instance, err);
    if (r == 0 && shift->work == WORK_CYCLE)
        return s->ops->destroy(s, &instance, err);
    if (r == 0)
        shift->list[i] = instance;
    return r;
}

static void *client_main(void *argument)
{
    struct client *c = argument;
    struct shift *shift = c->shift;
    struct subject own;

    c->result = shift->subject->ops->clone(shift->subject, &own, &c->err);
    if (c->result < 0)
        return NULL;
    while (!atomic_load(&shift->stop)) {
        size_t i = atomic_fetch_add(&shift->next, 1);
        int r;

        if (i >= shift->end)
            break;
        r = do_one(shift, &own, i, c->err ? NULL : &c->err);
        if (r < 0 && c->result == 0)
            c->result = r;
        if (r == 0)
            atomic_fetch_add(&shift->done, 1);
        if (r < 0 && (shift->work == WORK_CREATE || shift->work == WORK_CYCLE))
            atomic_store(&shift->stop, true); /* removal goes on: one that stays is no reason to keep the others */
    }
    own.ops->close(&own);
    return NULL;
}

static int work_off(struct shift *shift, struct error **err)
{
    struct client clients[CLIENTS] = {0};
    int result = 0;
    size_t started = 0;

    for (; started < CLIENTS; started++) {
        clients[started].shift = shift;
        if (pthread_create(&clients[started].thread, NULL, client_main, &clients[started]) != 0)
            break;
    }
    if (started == 0)
        return error_set(err, EAGAIN, "INTERNAL", "no thread for a client");
    for (size_t i = 0; i < started; i++) {
        pthread_join(clients[i].thread, NULL);
        if (clients[i].result < 0 && result == 0) {
            result = clients[i].result;
            if (err && !*err) {
                *err = clients[i].err;
                clients[i].err = NULL;
            }
        }
        error_free(clients[i].err);
    }
    return result;
}

int crowd_grow(struct crowd *crowd, size_t n, struct error **err)
{
    struct shift shift = {.work = WORK_CREATE, .subject = crowd->subject, .end = n};
    struct subject_instance *list;

    if (n <= crowd->count)
        return 0;
    list = realloc(crowd->list, n * sizeof(*list));
    if (!list)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for %zu instances", n);
    for (size_t i = crowd->count; i < n; i++)
        list[i] = (struct subject_instance){0};
    shift.list = crowd->list = list;
    shift.next = crowd->count;
    crowd->count = n;
    return work_off(&shift, err);
}

int crowd_knock(const struct crowd *crowd, size_t *ret_answered, struct error **err)
{
    struct shift shift = {.work = WORK_KNOCK, .subject = crowd->subject, .list = crowd->list, .end = crowd->count};
    int r = crowd->count ? work_off(&shift, err) : 0;

    *ret_answered = atomic_load(&shift.done);
    return r;
}

int crowd_clear(struct crowd *crowd, struct error **err)
{
    struct shift shift = {.work = WORK_DESTROY, .subject = crowd->subject, .list = crowd->list, .end = crowd->count};
    int r = crowd->count ? work_off(&shift, err) : 0;

    free(crowd->list);
    crowd->list = NULL;
    crowd->count = 0;
    return r;
}

int crowd_cycle(struct subject *subject, size_t n, double *ret_seconds, struct error **err)
{
    struct shift shift = {.work = WORK_CYCLE, .subject = subject, .end = n};
    int64_t since = monotonic_ns();
    int r = work_off(&shift, err);

    if (r == 0)
        *ret_seconds = (double)(monotonic_ns() - since) / 1e9;
    return r;
}
