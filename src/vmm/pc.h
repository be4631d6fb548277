/* SPDX-License-Identifier: Apache-2.0 */
/* The few ports of a PC that a kernel in ring 0 wants: serial line, reset, power. All vCPU threads call this. */
#ifndef CORACLE_VMM_PC_H
#define CORACLE_VMM_PC_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/vcpu.h"

/* KVM_EXIT_IO of a machine with ring 0. False: the guest ended, *ret says how. */
bool pc_port(struct vm *vm, struct kvm_run *run, const struct vcpu_callbacks *callbacks, struct vcpu_result *ret);

#endif
