/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One virtual machine on /dev/kvm: the order of calls that is fast on every flavour of KVM, one vCPU, devices wired to
 * it by ioeventfd and irqfd so that data needs no exit.
 */
#ifndef CORACLE_VMM_VM_H
#define CORACLE_VMM_VM_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/error.h"
#include "vmm/devices/device.h"
#include "vmm/memory.h"

#define VM_DEVICE_ADDRESS UINT64_C(0xd0000000) /* device i: one page at + i * 4096, global interrupt i */

enum { VM_DEVICE_MAX = 8 };

/* When a sleeping guest wants to be woken. */
struct vm_deadline {
    timer_t timer;
    uint64_t tsc_khz;
    bool armed;
};

struct vm {
    int kvm_fd, vm_fd, vcpu_fd;
    struct kvm_run *run;
    size_t run_bytes;
    struct guest_ram ram;
    struct device *devices[VM_DEVICE_MAX];
    unsigned device_count;
    struct vm_deadline deadline; /* vcpu.c's */
    bool ready;                  /* vcpu.c's: the guest said so */
};

/* Makes VM, split irqchip, memory slot, vCPU with the host's CPUID. ram is taken over on success. kvm_fd is taken over.
 */
int vm_create(int kvm_fd, struct guest_ram *ram, struct vm **ret, struct error **err);

/* Wires a device: its page, its queues' ioeventfds, its irqfd. The vector is BOOT_VECTOR_DEVICE + index.
 * The device is the VM's from now on, on failure too. */
int vm_add_device(struct vm *vm, struct device *device, struct error **err);

/* After the last device: interrupt routes. */
int vm_route_interrupts(struct vm *vm, struct error **err);

void vm_destroy(struct vm *vm); /* accepts NULL; destroys its devices */

#endif
