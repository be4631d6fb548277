/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A driver that writes any value to any register of a network device in any state, and changes its memory meanwhile.
 * One step, 8 bytes: what (1), length (1), register or address (2), value (4). The device's data runs as its thread
 * would run it; what it sends and receives goes to a socket in the tap's place.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "vmm/devices/device.h"
#include "vmm/devices/net.h"

enum { MEMORY = 65536, STEP = 8, STEP_MAX = 400 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run_queues(struct device *d)
{
    pthread_mutex_lock(&d->lock);
    for (unsigned i = 0; i < d->queue_count; i++)
        if (virtqueue_has_work(&d->queues[i].ring))
            d->ops->notified(d, i);
    pthread_mutex_unlock(&d->lock);
}

static void step(struct device *d, struct guest_memory *m, int peer, const uint8_t *s)
{
    static const uint8_t packet[1526];
    uint16_t where;
    uint32_t value;

    memcpy(&where, s + 2, sizeof(where));
    memcpy(&value, s + 4, sizeof(value));
    switch (s[0] % 6) {
    case 0:
    case 1: /* a register at its place, with its width */
        virtio_mmio_write(d, where & 0xfc, 4, value);
        break;
    case 2:
        virtio_mmio_write(d, where & 4095, s[1] & 15, value);
        break;
    case 3:
        virtio_mmio_read(d, where & 4095, s[1] & 15);
        break;
    case 4:
        memcpy(m->base + (where & (MEMORY - 4)), &value, sizeof(value));
        break;
    case 5:
        if (send(peer, packet, 12 + value % (sizeof(packet) - 12), MSG_DONTWAIT) < 0) {
            /* full: as a tap's queue */
        }
        run_queues(d);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct net_options options = net_options_none();
    struct guest_memory memory = {.base = calloc(1, MEMORY), .bytes = MEMORY};
    struct device *d;
    int ends[2];

    log_open("fuzz", LOG_LEVEL_ERROR);
    if (!memory.base || socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
        abort();
    options.pairs = 2;
    options.control = true;
    options.tap_fds[0] = ends[0];
    options.tap_fds[1] = dup(ends[0]);
    if (net_create(&memory, &options, &d, NULL) < 0)
        abort();
    for (size_t i = 0; i + STEP <= size && i < STEP_MAX * STEP; i += STEP)
        step(d, &memory, ends[1], data + i);
    run_queues(d);
    device_destroy(d);
    close(ends[1]);
    free(memory.base);
    return 0;
}
