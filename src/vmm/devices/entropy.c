/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-rng (virtio 1.2, 5.4): each buffer is filled with random bytes, at most ENTROPY_MAX of them, for a driver that
 * wants more asks again. Runs on the device thread, except creation.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/syscall.h>

#include "vmm/devices/entropy.h"

enum { ENTROPY_MAX = 256, BATCH = 16 }; /* getrandom() of 256 bytes is never cut short */

static const uint32_t calls[] = {SYS_getrandom, 0};

static bool notified(struct device *d, unsigned queue)
{
    struct virtqueue *q = &d->queues[queue].ring;
    struct virtqueue_chain chain;
    uint8_t bytes[ENTROPY_MAX];
    int r = 0;

    for (unsigned i = 0; i < BATCH && (r = virtqueue_pop(q, &chain)) > 0; i++) {
        ssize_t got = chain.writable_bytes > 0 ? getrandom(bytes, sizeof(bytes), GRND_NONBLOCK) : 0;
        virtqueue_push(q, chain.head, (uint32_t)virtqueue_chain_write(&chain, 0, bytes, got > 0 ? (size_t)got : 0));
    }
    device_publish(d, queue);
    if (r < 0)
        device_fail(d, q->broken);
    return true;
}

static void destroy(struct device *d)
{
    free(d);
}

static const struct device_ops entropy_ops = {
    .name = "rng", .type = VIRTIO_ENTROPY, .queue_count = 1, .patient = true, .notified = notified, .destroy = destroy};

int entropy_create(const struct guest_memory *memory, struct device **ret, struct error **err)
{
    struct device *d = calloc(1, sizeof(*d));

    if (!d)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for an entropy device");
    int r = device_init(d, &entropy_ops, memory, VIRTIO_F_INDIRECT | VIRTIO_F_EVENT, err);
    if (r < 0) {
        free(d);
        return r;
    }
    d->calls = calls;
    *ret = d;
    return 0;
}

int entropy_attach(struct device *d, struct loop *loop, struct error **err)
{
    return loop_add(loop, d, -1, NULL, err);
}
