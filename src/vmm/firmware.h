/* SPDX-License-Identifier: Apache-2.0 */
/* What firmware tells a kernel of a machine with ring 0: processors, interrupt controllers, devices, how to switch off.
 */
#ifndef CORACLE_VMM_FIRMWARE_H
#define CORACLE_VMM_FIRMWARE_H

#include <stdint.h>

#include "base/error.h"
#include "virtqueue/guest_memory.h"

/* Where the tables are: not RAM in the memory map. */
#define FIRMWARE_ADDRESS UINT64_C(0xe0000)
#define FIRMWARE_END     UINT64_C(0x100000)

/* Ports of the machine that the tables name (pc.c serves them). */
enum {
    PC_PORT_POWER_EVENT = 0x500,   /* 4 bytes: status, enable */
    PC_PORT_POWER_CONTROL = 0x504, /* 2 bytes */
    PC_PORT_RESET = 0xcf9,
    PC_POWER_OFF = 5, /* SLP_TYP of the state S5 */
    PC_RESET_VALUE = 6,
};

/* ACPI (RSDP, XSDT, FADT, FACS, MADT, DSDT with the virtio-mmio devices), and Intel's MP table for kernels without
 * ACPI. ret_rsdp: guest address of the root pointer. */
int firmware_write(const struct guest_memory *ram, unsigned vcpus, unsigned devices, uint64_t *ret_rsdp,
                   struct error **err);

#endif
