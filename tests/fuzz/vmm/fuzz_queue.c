/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A driver's memory: the input is the whole of it. Each chain the device takes lies within memory, and its walk ends.
 * First byte: ring size and event index; then, every 4 KiB, descriptors, available ring, used ring, the rest.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "virtqueue/queue.h"

enum { MEMORY = 20480 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct guest_memory *m, const struct virtqueue_chain *c)
{
    uint64_t sum = 0;

    if (c->readable + c->writable > VIRTQUEUE_SEGMENT_MAX)
        abort();
    for (unsigned i = 0; i < c->readable + c->writable; i++) {
        const uint8_t *at = c->segments[i].iov_base;
        if (at < m->base || c->segments[i].iov_len > m->bytes ||
            (uint64_t)(at - m->base) > m->bytes - c->segments[i].iov_len)
            abort();
        sum += c->segments[i].iov_len;
    }
    if (sum != c->readable_bytes + c->writable_bytes)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct guest_memory memory = {.base = calloc(1, MEMORY), .bytes = MEMORY};
    struct virtqueue queue;
    static struct virtqueue_chain chain;
    unsigned taken = 0;
    int r = 0;

    if (size > 1) {
        struct virtqueue_address a = {.available = 4096, .used = 8192, .size = (uint16_t)(1u << (data[0] % 9))};
        memcpy(memory.base, data + 1, size - 1 < MEMORY ? size - 1 : MEMORY);
        if (virtqueue_enable(&queue, &memory, &a, data[0] & 128) < 0)
            abort();
        while ((r = virtqueue_pop(&queue, &chain)) > 0) {
            if (++taken > a.size)
                abort(); /* never more than the ring holds, for the index stands still */
            check(&memory, &chain);
            if (taken == 3) {
                virtqueue_unpop(&queue);
                taken--;
                if (virtqueue_pop(&queue, &chain) != 1)
                    abort();
                taken++;
            }
            virtqueue_push(&queue, chain.head, (uint32_t)chain.writable_bytes);
            virtqueue_publish(&queue);
            virtqueue_wants_interrupt(&queue);
        }
        if (r < 0 && (r != -EPROTO || !queue.broken))
            abort();
    }
    free(memory.base);
    return 0;
}
