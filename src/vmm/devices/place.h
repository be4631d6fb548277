/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who runs where: keeps a polling device thread and a polling vCPU off each other's core.
 *
 * Two threads that poll each other on one core wait for the end of each other's windows: an echo takes 97 us where it
 * takes 10 on two cores. The scheduler does not know: it wakes the device thread beside whoever sent the packet, which
 * is right, and the vCPU may be there. So the device thread looks where the vCPU is (the C library's rseq area of that
 * thread, which the kernel keeps) and pushes it off its own core while packets flow; when they cease, the vCPU may run
 * anywhere again. With several vCPUs, or with one core, the scheduler decides alone.
 */
#ifndef CORACLE_VMM_PLACE_H
#define CORACLE_VMM_PLACE_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct place {
    unsigned vcpus;
    pid_t tid;                         /* of the vCPU's thread */
    const volatile uint32_t *vcpu_cpu; /* where it ran last */
    cpu_set_t allowed;                 /* of the process at its start */
    bool narrowed;                     /* the vCPU is kept off a core */
    uint64_t moved_at;
};

/* On a vCPU's thread, before the sandbox closes. */
void place_vcpu(struct place *place);
/* On the device thread, while it polls; now: monotonic nanoseconds. */
void place_apart(struct place *place, uint64_t now);
/* On the device thread, before it sleeps. */
void place_free(struct place *place);

#endif
