/* SPDX-License-Identifier: Apache-2.0 */
/* Reads an untrusted Linux bzImage (Linux, Documentation/arch/x86/boot.rst) without trusting one offset of it. */
#ifndef CORACLE_VMM_BZIMAGE_H
#define CORACLE_VMM_BZIMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { BZIMAGE_HEADER_AT = 0x1f1, BZIMAGE_ENTRY64 = 0x200 };

struct bzimage {
    uint64_t kernel_offset, kernel_bytes; /* the part for memory, within the file */
    uint64_t load_address;                /* where it prefers to be; at least 1 MiB */
    uint64_t init_bytes;                  /* memory it needs from there on before it reads the memory map */
    uint64_t initrd_end_max;              /* first byte behind the highest an initial file system may have */
    uint32_t parameters_max;              /* of the command line, without terminator */
    uint32_t header_bytes;                /* from BZIMAGE_HEADER_AT on, to be copied into the zero page */
};

/* Whether it is one at all: the magic is there. */
bool bzimage_is(const uint8_t *file, size_t size);

/* IMAGE_MALFORMED says which field; IMAGE_WRONG_ARCHITECTURE: no 64-bit entry. */
int bzimage_read(const uint8_t *file, size_t size, struct bzimage *ret, struct error **err);

#endif
