/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A paused unikernel as a file: a header of one version, then the guest's memory, page for page, zero pages as holes.
 * docs/decisions/0009-snapshots.md says what is in it and what is made new instead.
 */
#ifndef CORACLE_VMM_SNAPSHOT_H
#define CORACLE_VMM_SNAPSHOT_H

#include <linux/kvm.h>
#include <stdint.h>

#include "abi/boot.h"
#include "base/error.h"
#include "vmm/vm.h"

#define SNAPSHOT_MAGIC UINT64_C(0x70616e5361726f43) /* "CoraSnap" */
#define SNAPSHOT_MEMORY_OFFSET UINT64_C(65536)

enum { SNAPSHOT_VERSION = 1 };

/* What the guest's code may have looked at in its processor. */
struct snapshot_cpu {
    char vendor[12];
    uint32_t signature;   /* CPUID 1, EAX: family, model, stepping */
    uint32_t features[6]; /* CPUID 1 ECX EDX, 7 EBX ECX EDX, 80000001 EDX */
};

struct snapshot_header {
    uint64_t magic;
    uint32_t version, header_bytes;
    uint64_t checksum;  /* of the header with 0 here */
    char monitor[32];   /* CORACLE_VERSION of the monitor that wrote it */
    struct snapshot_cpu cpu;
    uint64_t memory_bytes, free_start;
    uint32_t vcpu_count, device_count;
    struct kvm_regs regs;
    struct kvm_fpu fpu;
    struct device_state devices[VM_DEVICE_MAX];
};

_Static_assert(sizeof(struct snapshot_header) <= SNAPSHOT_MEMORY_OFFSET, "memory starts behind the header");

/* The vCPU and the devices stand still. file: empty and writable; borrowed. SNAPSHOT_UNUSABLE or NO_SPACE. */
int snapshot_write(struct vm *vm, int file, struct error **err);

/* Fills what describes the file itself: magic to processor, and the checksum over all of it. */
void snapshot_seal(struct snapshot_header *header);

/* Checks bytes of a file of file_bytes in all; nothing of them is trusted afterwards either (device_restore). */
int snapshot_check(const struct snapshot_header *header, uint64_t file_bytes, struct error **err);

/* Reads and checks the header of file. */
int snapshot_read(int file, struct snapshot_header *ret, struct error **err);

/* Puts the file's memory where the guest's is: copy-on-write over anonymous memory, copied into shared memory. */
int snapshot_map(int file, const struct snapshot_header *header, struct guest_ram *ram, struct error **err);

/* General registers and vector state of the boot processor; the rest as direct_boot_processor() made it. */
int snapshot_processor(int vcpu, const struct snapshot_header *header, struct error **err);

#endif
