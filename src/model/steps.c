/* SPDX-License-Identifier: Apache-2.0 */
/* Step times: used by the launcher while it starts an instance and by the daemon around it. */
#include <stdio.h>
#include <time.h>

#include "model/steps.h"

void steps_add(struct steps *steps, const char *name, uint64_t start_ns, uint64_t end_ns)
{
    if (steps->count >= STEP_MAX)
        return;
    struct step *s = &steps->list[steps->count++];
    snprintf(s->name, sizeof(s->name), "%s", name);
    s->start_ns = start_ns;
    s->duration_ns = end_ns - start_ns;
}

uint64_t monotonic_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
