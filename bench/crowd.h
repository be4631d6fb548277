/* SPDX-License-Identifier: Apache-2.0 */
/* Many instances of one subject: grown, removed and counted per second, by a few clients at once. */
#ifndef CORACLE_BENCH_CROWD_H
#define CORACLE_BENCH_CROWD_H

#include "bench/subject.h"

struct crowd {
    struct subject *subject;
    struct subject_instance *list;
    size_t count;
};

/* Adds instances until there are n. On failure those already made stay in the crowd. */
int crowd_grow(struct crowd *crowd, size_t n, struct error **err);

/* Connects to each of them; *ret_answered: how many took the connection. Returns the first failure, after having tried
 * all. */
int crowd_knock(const struct crowd *crowd, size_t *ret_answered, struct error **err);

/* Removes all and frees the list; returns the first failure, after having tried every one. */
int crowd_clear(struct crowd *crowd, struct error **err);

/* Creates n instances, each removed as soon as it runs, and measures how long that took in all. */
int crowd_cycle(struct subject *subject, size_t n, double *ret_seconds, struct error **err);

#endif
