/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a kernel or disk can be what it is given as, so that a user reads what is wrong instead of a silent machine.
 * Pure: bytes of a tenant's file. QEMU parses them again; this decides nothing about its safety.
 */
#ifndef CORACLE_QEMU_IMAGE_H
#define CORACLE_QEMU_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "monitor/protocol.h"

/* A kernel for that kind of boot in that much memory. */
int image_check_kernel(const uint8_t *bytes, size_t size, enum monitor_boot boot, uint64_t memory_bytes,
                       struct error **err);

/* The first sector of a raw disk that a machine shall boot from. */
int image_check_boot_sector(const uint8_t *bytes, size_t size, struct error **err);

#endif
