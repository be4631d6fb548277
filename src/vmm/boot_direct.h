/* SPDX-License-Identifier: Apache-2.0 */
/* Makes the environment of include/abi/boot.h in guest memory and in a vCPU: the direct entry at CPL 3. */
#ifndef CORACLE_VMM_BOOT_DIRECT_H
#define CORACLE_VMM_BOOT_DIRECT_H

#include <linux/kvm.h>

#include "abi/boot.h"
#include "base/error.h"
#include "virtqueue/guest_memory.h"
#include "vmm/elf.h"

struct direct_boot {
    const struct elf_image *image;
    const uint8_t *file;    /* what image describes */
    const char *parameters; /* boot parameters; at most BOOT_PARAMETERS_SIZE - 1 bytes */
    struct boot_info info;  /* magic, version, memory and free_start are filled here; the rest by the caller */
};

/* Loads the image and writes tables and boot pages. vCPU registers are set by direct_boot_registers(). */
int direct_boot_memory(const struct guest_memory *ram, const struct direct_boot *boot, struct error **err);

/* Makes present what a guest touches before it answers: part of direct_boot_memory(), and for a restored guest. */
void direct_boot_hot_pages(const struct guest_memory *ram, uint64_t free_start);

/* Special registers and local APIC of the boot processor; what they are depends on no guest. vcpu: KVM vCPU descriptor. */
int direct_boot_processor(int vcpu, struct error **err);

/*
 * A parked machine's processor has run once, two instructions in pages of its own that are gone afterwards: what KVM
 * makes at the first entry is made then, not when a guest waits. Failure means no more than a slower start.
 */
void direct_boot_warm_up(int vcpu, struct kvm_run *run, const struct guest_memory *ram);

/* Its general registers: the entry of the image that direct_boot_memory() loaded. */
int direct_boot_registers(int vcpu, const struct guest_memory *ram, struct error **err);

/* Of the segment in TR, for this host's processor. */
uint8_t direct_tss_type(void);

#endif
