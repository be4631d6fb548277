/* SPDX-License-Identifier: Apache-2.0 */
/* PORT_DEVICE of abi/boot.h: a whole virtio set-up in one exit. */
#ifndef CORACLE_VMM_DEVICE_SETUP_H
#define CORACLE_VMM_DEVICE_SETUP_H

#include "vmm/vm.h"

/* address: the guest's word. vCPU thread. */
void device_setup(struct vm *vm, uint64_t address);

#endif
