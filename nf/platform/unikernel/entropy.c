/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-rng (virtio 1.2, 5.4): stirs the seed at the start where the monitor gave none that is sure to be fresh. */
#include "unikernel.h"

enum { PATIENCE_NS = 1000000000 }; /* a busy host, which emulates: it is seldom waited for at all */

bool entropy_stir(void)
{
    static struct virtio device;
    static struct virtq queue;
    static uint8_t bytes[32]; /* not on the stack: a device that answers late writes there */
    const struct virtq_segment segment = {bytes, sizeof(bytes), true};
    uint64_t end = cpu_ns() + PATIENCE_NS;
    uint32_t length = 0;

    if (!virtio_find(&device, VIRTIO_ENTROPY, 0) || !virtio_queue(&device, &queue, 0) ||
        !virtq_add(&queue, &segment, 1, bytes))
        return false;
    virtio_ready(&device);
    virtq_publish(&queue);
    while (!virtq_take(&queue, &length) && cpu_ns() < end)
        __asm__ volatile("pause");
    cpu_stir(bytes);
    return length >= sizeof(bytes);
}
