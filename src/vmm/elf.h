/* SPDX-License-Identifier: Apache-2.0 */
/* Reads an untrusted ELF64 executable for x86-64 (System V ABI, gABI chapter 5) without trusting one offset of it. */
#ifndef CORACLE_VMM_ELF_H
#define CORACLE_VMM_ELF_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { ELF_SEGMENT_MAX = 16 };

struct elf_segment {
    uint64_t address;     /* guest physical */
    uint64_t file_offset; /* within the file: file_offset + file_bytes <= file size */
    uint64_t file_bytes;  /* <= memory_bytes */
    uint64_t memory_bytes;
    uint32_t flags; /* PF_R | PF_W | PF_X */
};

struct elf_image {
    uint64_t entry;     /* e_entry */
    uint64_t pvh_entry; /* XEN_ELFNOTE_PHYS32_ENTRY (18), 0 when there is none */
    uint64_t low, high; /* span of all segments, high exclusive */
    uint32_t segment_count;
    struct elf_segment segments[ELF_SEGMENT_MAX];
};

/*
 * Checks and describes file (size bytes, borrowed). Segments lie within [0, memory_bytes), do not overlap, and are
 * never writable and executable at once unless allow_wx. IMAGE_MALFORMED or IMAGE_WRONG_ARCHITECTURE says which field.
 */
int elf_read(const uint8_t *file, size_t size, uint64_t memory_bytes, int allow_wx, struct elf_image *ret,
             struct error **err);

#endif
