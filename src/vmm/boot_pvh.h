/* SPDX-License-Identifier: Apache-2.0 */
/* Boots a kernel that wants ring 0: an ELF with a PVH note, or a Linux bzImage through its 64-bit entry. */
#ifndef CORACLE_VMM_BOOT_PVH_H
#define CORACLE_VMM_BOOT_PVH_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "virtqueue/guest_memory.h"

enum kernel_kind {
    KERNEL_UNIKERNEL, /* an ELF with the header of abi/boot.h: boot_direct.h can have it */
    KERNEL_PVH,
    KERNEL_BZIMAGE,
};

/* What file is, by its first bytes and notes. IMAGE_MALFORMED: none of them. */
int kernel_kind(const uint8_t *file, size_t size, enum kernel_kind *ret, struct error **err);

struct pvh_boot {
    const uint8_t *file, *initrd; /* initrd: NULL when there is none */
    size_t file_bytes, initrd_bytes;
    const char *parameters; /* the kernel's command line; devices and the way to reset are added */
    unsigned vcpus, devices;
};

/* How the first processor begins. */
struct pvh_start {
    uint64_t entry;
    uint64_t argument; /* RBX and RSI: address of struct hvm_start_info, or of the zero page */
    int long_mode;     /* with the first 4 GiB mapped to themselves */
};

/* Writes kernel, initrd, command line, memory map and firmware tables. */
int pvh_boot_memory(const struct guest_memory *ram, const struct pvh_boot *boot, struct pvh_start *ret,
                    struct error **err);

/* SREGS and REGS of the first processor; the others wait for it. vcpu: KVM vCPU descriptor. */
int pvh_boot_registers(int vcpu, const struct pvh_start *start, struct error **err);

#endif
