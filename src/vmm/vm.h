/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One virtual machine on /dev/kvm: the order of calls that is fast on every flavour of KVM, its vCPUs, devices wired to
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

#define VM_DEVICE_ADDRESS UINT64_C(0xd0000000) /* device i: one page at + i * 4096 */

/* Interrupts: device i is global interrupt i, a message; with ring 0 it is line VM_LINE_FIRST + i of the I/O APIC. */
enum { VM_DEVICE_MAX = 8, VM_VCPU_MAX = 64, VM_LINE_FIRST = 16, VM_LINE_SERIAL = 4 };

/* What kind of machine. The unikernel's: { .vcpus = 1 }. */
struct vm_shape {
    unsigned vcpus;
    bool ring0; /* for kernels: all interrupt controllers and the timer of a PC, in KVM */
};

/* When a sleeping guest wants to be woken. */
struct vm_deadline {
    timer_t timer;
    uint64_t tsc_khz;
    bool armed;
};

struct vm_vcpu {
    int fd;
    struct kvm_run *run;
};

struct vm {
    int kvm_fd, vm_fd, vcpu_fd; /* vcpu_fd, run: of the first vCPU */
    struct kvm_run *run;
    size_t run_bytes;
    struct vm_shape shape;
    struct vm_vcpu *others; /* shape.vcpus - 1 */
    int serial_fd;          /* irqfd of the serial line, with ring 0 */
    struct guest_ram ram;
    struct device *devices[VM_DEVICE_MAX];
    unsigned device_count;
    struct vm_deadline deadline; /* vcpu.c's */
    bool ready;                  /* vcpu.c's: the guest said so */
};

/* Makes VM, interrupt controllers, memory slots, vCPUs with the host's CPUID. ram and kvm_fd are taken over on success.
 */
int vm_create(int kvm_fd, struct guest_ram *ram, const struct vm_shape *shape, struct vm **ret, struct error **err);

/* Wires a device: its page, its queues' ioeventfds, its irqfd. The vector is BOOT_VECTOR_DEVICE + index.
 * The device is the VM's from now on, on failure too. */
int vm_add_device(struct vm *vm, struct device *device, struct error **err);

/* Interrupt routes of all devices there can be: before the first interrupt, on any thread. The kernel waits in it until
 * no processor uses the routes there were (SRCU): 50 us on an idle host, milliseconds on a busy one. */
int vm_route_interrupts(struct vm *vm, struct error **err);

void vm_destroy(struct vm *vm); /* accepts NULL; destroys its devices */

#endif
