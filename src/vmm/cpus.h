/* SPDX-License-Identifier: Apache-2.0 */
/* The vCPUs behind the first, for machines with ring 0: a thread each. The first is vcpu.h's, on the main thread. */
#ifndef CORACLE_VMM_CPUS_H
#define CORACLE_VMM_CPUS_H

#include "vmm/vcpu.h"

/* Starts the threads; no guest code runs before the first vCPU wakes theirs (INIT and SIPI, KVM's local APIC). Main
 * thread, before the sandbox closes. callbacks: borrowed for ever. */
int cpus_start(struct vm *vm, const struct vcpu_callbacks *callbacks, struct error **err);

/* Whether one of them ended the guest; *ret says how. The main thread is signalled when that happens. */
bool cpus_ended(struct vcpu_result *ret);

/* As vcpu_pause() and vcpu_resume(), which call them. */
void cpus_pause(void);
void cpus_resume(void);

#endif
