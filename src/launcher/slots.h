/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers handed out to instances: uid ranges, and the numbers host interfaces are named by. Handed out in a circle
 * from a random start, so that what died a moment ago (an interface the kernel still takes down) is not met again.
 */
#ifndef CORACLE_LAUNCHER_SLOTS_H
#define CORACLE_LAUNCHER_SLOTS_H

#include <pthread.h>
#include <stdint.h>

enum { SLOT_COUNT = 16384 };

struct slots {
    pthread_mutex_t lock;
    uint32_t next, used;
    uint64_t taken[SLOT_COUNT / 64];
};

void slots_init(struct slots *slots);

/* The next free number, or -ENOSPC when all are in use. */
int slots_take(struct slots *slots, uint32_t *ret_slot);

/* Marks one that a record names. -EEXIST when it is taken already. */
int slots_claim(struct slots *slots, uint32_t slot);

void slots_free(struct slots *slots, uint32_t slot);

#endif
