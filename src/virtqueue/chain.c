/* SPDX-License-Identifier: Apache-2.0 */
/* A chain's bytes without regard to how the driver cut them into descriptors (virtio 1.2, 2.7.4: a device makes no
 * assumption about framing). The segments were checked when the chain was taken. Called by devices, on their thread. */
#include <string.h>

#include "virtqueue/queue.h"

unsigned virtqueue_chain_slice(const struct virtqueue_chain *chain, bool writable, uint64_t offset, uint64_t length,
                               struct iovec *ret)
{
    const struct iovec *segments = chain->segments + (writable ? chain->readable : 0);
    unsigned count = writable ? chain->writable : chain->readable, used = 0;

    for (unsigned i = 0; i < count && length > 0; i++) {
        uint64_t have = segments[i].iov_len;
        if (offset >= have) {
            offset -= have;
            continue;
        }
        uint64_t part = have - offset < length ? have - offset : length;
        ret[used++] = (struct iovec){.iov_base = (uint8_t *)segments[i].iov_base + offset, .iov_len = part};
        length -= part;
        offset = 0;
    }
    return used;
}

size_t virtqueue_chain_read(const struct virtqueue_chain *chain, uint64_t offset, void *to, size_t size)
{
    struct iovec parts[VIRTQUEUE_SEGMENT_MAX];
    unsigned count = virtqueue_chain_slice(chain, false, offset, size, parts);
    size_t copied = 0;

    for (unsigned i = 0; i < count; i++) {
        memcpy((uint8_t *)to + copied, parts[i].iov_base, parts[i].iov_len);
        copied += parts[i].iov_len;
    }
    __asm__ volatile("" ::: "memory"); /* not read from the guest again */
    return copied;
}

size_t virtqueue_chain_write(const struct virtqueue_chain *chain, uint64_t offset, const void *from, size_t size)
{
    struct iovec parts[VIRTQUEUE_SEGMENT_MAX];
    unsigned count = virtqueue_chain_slice(chain, true, offset, size, parts);
    size_t copied = 0;

    for (unsigned i = 0; i < count; i++) {
        memcpy(parts[i].iov_base, (const uint8_t *)from + copied, parts[i].iov_len);
        copied += parts[i].iov_len;
    }
    return copied;
}
