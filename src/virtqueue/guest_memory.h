/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory as the host side sees it: one region from guest physical 0, and the one accessor.
 *
 * Every address that came from a guest goes through guest_memory_at() with its length, exactly once; what is then read
 * through the pointer may change under the reader's hands and is copied before it is checked.
 */
#ifndef CORACLE_VIRTQUEUE_GUEST_MEMORY_H
#define CORACLE_VIRTQUEUE_GUEST_MEMORY_H

#include <stddef.h>
#include <stdint.h>

struct guest_memory {
    uint8_t *base; /* host address of guest physical 0 */
    uint64_t bytes;
};

/* Host address of [address, address + length), or NULL when any byte of it lies outside; no sum can overflow. */
static inline void *guest_memory_at(const struct guest_memory *memory, uint64_t address, uint64_t length)
{
    if (address > memory->bytes || length > memory->bytes - address)
        return NULL;
    return memory->base + address;
}

#endif
