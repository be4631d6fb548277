/* SPDX-License-Identifier: Apache-2.0 */
/* A bitmap under a lock; worker threads take and free, the main thread claims before any of them runs. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "launcher/slots.h"

void slots_init(struct slots *slots)
{
    uint32_t seed = 0;

    memset(slots, 0, sizeof(*slots));
    pthread_mutex_init(&slots->lock, NULL);
    if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != sizeof(seed))
        seed = 0; /* any start is correct, a random one only spreads them better */
    slots->next = seed % SLOT_COUNT;
}

int slots_take(struct slots *slots, uint32_t *ret_slot)
{
    int r = -ENOSPC;

    pthread_mutex_lock(&slots->lock);
    for (uint32_t i = 0; slots->used < SLOT_COUNT && i < SLOT_COUNT; i++) {
        uint32_t slot = (slots->next + i) % SLOT_COUNT;
        if (slots->taken[slot / 64] & 1ull << slot % 64)
            continue;
        slots->taken[slot / 64] |= 1ull << slot % 64;
        slots->used++;
        slots->next = (slot + 1) % SLOT_COUNT;
        *ret_slot = slot;
        r = 0;
        break;
    }
    pthread_mutex_unlock(&slots->lock);
    return r;
}

int slots_claim(struct slots *slots, uint32_t slot)
{
    int r = -EEXIST;

    pthread_mutex_lock(&slots->lock);
    if (slot < SLOT_COUNT && !(slots->taken[slot / 64] & 1ull << slot % 64)) {
        slots->taken[slot / 64] |= 1ull << slot % 64;
        slots->used++;
        r = 0;
    }
    pthread_mutex_unlock(&slots->lock);
    return r;
}

void slots_free(struct slots *slots, uint32_t slot)
{
    pthread_mutex_lock(&slots->lock);
    if (slot < SLOT_COUNT && slots->taken[slot / 64] & 1ull << slot % 64) {
        slots->taken[slot / 64] &= ~(1ull << slot % 64);
        slots->used--;
    }
    pthread_mutex_unlock(&slots->lock);
}
