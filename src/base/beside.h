/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work beside: a few threads that take a part of what another thread is about, so that it is done when that one needs
 * it. Nothing waits for a thread to be free: work that nobody has begun when its result is needed is done by whoever
 * needs it. Any thread may call any function; a struct beside_work belongs to the one that began it.
 *
 * Also closes descriptors beside: the last close of a mount that is not attached waits for an RCU grace period (a
 * quarter of a millisecond on an idle host, several on a busy one).
 */
#ifndef CORACLE_BASE_BESIDE_H
#define CORACLE_BASE_BESIDE_H

#include <stdbool.h>

enum beside_state { BESIDE_NONE, BESIDE_QUEUED, BESIDE_BEGUN, BESIDE_DONE };

struct beside_work { /* {0}: nothing begun */
    void (*run)(void *context);
    void *context;
    enum beside_state state;
    struct beside_work *next;
};

struct beside;

/* Threads begin with the capabilities, filters and nice value of the caller, and do not preempt others (SCHED_BATCH):
 * on a busy host, what comes next for the one that began the work goes before the work.
 * NULL: no memory, or no thread to be had. */
struct beside *beside_open(unsigned threads);
/* Everything begun must have been ended. Closes what is still to be closed. Accepts NULL. */
void beside_close(struct beside *beside);

/* run(context) will be called once, on another thread or in beside_end(). beside NULL: in beside_end(). */
void beside_begin(struct beside *beside, struct beside_work *work, void (*run)(void *), void *context);
/* Returns when it is done; nothing happens when nothing was begun. Leaves BESIDE_NONE. */
void beside_end(struct beside *beside, struct beside_work *work);
/* Whether beside_end() would return at once, the work done by another thread. */
bool beside_ready(struct beside *beside, const struct beside_work *work);
/* The same for a result nobody wants any more: what was not begun is not run. Returns whether it was. */
bool beside_drop(struct beside *beside, struct beside_work *work);

/* Takes over fd and closes it soon; at once when beside is NULL or too many wait already. Accepts -1. */
void beside_close_fd(struct beside *beside, int fd);

#endif
