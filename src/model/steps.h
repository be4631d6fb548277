/* SPDX-License-Identifier: Apache-2.0 */
/* How long each step of an operation took: filled where the work is done, shown to the user as it is. */
#ifndef CORACLE_MODEL_STEPS_H
#define CORACLE_MODEL_STEPS_H

#include <stdint.h>

enum { STEP_MAX = 24, STEP_NAME_SIZE = 24 };

struct step {
    char name[STEP_NAME_SIZE]; /* e.g. "namespaces", "veth", "root", "exec" */
    uint64_t start_ns;         /* CLOCK_MONOTONIC, same clock in every process of a host */
    uint64_t duration_ns;
};

struct steps {
    struct step list[STEP_MAX];
    uint32_t count;
};

/* Appends; a full list drops the step. name is copied and cut to STEP_NAME_SIZE - 1. */
void steps_add(struct steps *steps, const char *name, uint64_t start_ns, uint64_t end_ns);

/* CLOCK_MONOTONIC now, in ns. */
uint64_t monotonic_ns(void);

#endif
