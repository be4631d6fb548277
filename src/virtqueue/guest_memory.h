/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory as the host side sees it: a region from guest physical 0, another from 4 GiB, and the one accessor.
 *
 * Every address that came from a guest goes through guest_memory_at() with its length, exactly once; what is then read
 * through the pointer may change under the reader's hands and is copied before it is checked.
 */
#ifndef CORACLE_VIRTQUEUE_GUEST_MEMORY_H
#define CORACLE_VIRTQUEUE_GUEST_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* What is more than 3 GiB is the guest's from 4 GiB on: between them lie device registers. On the host it is one piece.
 */
#define GUEST_MEMORY_HOLE UINT64_C(0xc0000000)
#define GUEST_MEMORY_HIGH UINT64_C(0x100000000)

struct guest_memory {
    uint8_t *base; /* host address of guest physical 0 */
    uint64_t bytes;
};

/* Bytes below the hole. */
static inline uint64_t guest_memory_low(const struct guest_memory *memory)
{
    return memory->bytes < GUEST_MEMORY_HOLE ? memory->bytes : GUEST_MEMORY_HOLE;
}

/* Host address of [address, address + length), or NULL when any byte of it lies outside; no sum can overflow. */
static inline void *guest_memory_at(const struct guest_memory *memory, uint64_t address, uint64_t length)
{
    uint64_t from = 0, bytes = guest_memory_low(memory);

    if (address >= GUEST_MEMORY_HIGH) {
        address -= GUEST_MEMORY_HIGH;
        from = bytes;
        bytes = memory->bytes - bytes;
    }
    if (address > bytes || length > bytes - address)
        return NULL;
    return memory->base + from + address;
}

#endif
