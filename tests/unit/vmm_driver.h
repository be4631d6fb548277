/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A driver in the tests' place of a guest: negotiates with a device through its registers, offers chains in memory it
 * shares with it, and runs the device's data as its thread would. Used by the unit tests of the monitor's devices.
 */
#ifndef TESTS_VMM_DRIVER_H
#define TESTS_VMM_DRIVER_H

#include <string.h>
#include <sys/mman.h>

#include "vmm/devices/device.h"

enum { DRIVER_MEMORY = 1 << 20, DRIVER_RINGS = 0x10000, DRIVER_RING_BYTES = 0x4000, DRIVER_DATA = 0x80000 };
enum { DRIVER_QUEUE_SIZE = 64 };
enum { SEGMENT_WRITE = 2, SEGMENT_NEXT = 1, SEGMENT_INDIRECT = 4 };
enum { DRIVER_STATUS_NEEDS_RESET = 64 };

struct driver_segment {
    uint64_t address;
    uint32_t length;
    bool device_writes;
};

struct driver {
    struct guest_memory memory;
    struct device *device;
    uint16_t next_descriptor[DEVICE_QUEUE_MAX], available[DEVICE_QUEUE_MAX], used[DEVICE_QUEUE_MAX];
};

struct driver_descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

static inline uint64_t driver_table(unsigned q)
{
    return DRIVER_RINGS + (uint64_t)q * DRIVER_RING_BYTES;
}

static inline struct driver_descriptor *driver_descriptors(struct driver *v, unsigned q)
{
    return (struct driver_descriptor *)(void *)(v->memory.base + driver_table(q));
}

static inline uint16_t *driver_available(struct driver *v, unsigned q)
{
    return (uint16_t *)(void *)(v->memory.base + driver_table(q) + 0x1000);
}

static inline uint16_t *driver_used_ring(struct driver *v, unsigned q)
{
    return (uint16_t *)(void *)(v->memory.base + driver_table(q) + 0x2000);
}

static inline void driver_set(struct driver *v, uint64_t offset, uint32_t value)
{
    virtio_mmio_write(v->device, offset, 4, value);
}

static inline uint32_t driver_get(struct driver *v, uint64_t offset)
{
    return (uint32_t)virtio_mmio_read(v->device, offset, 4);
}

static inline bool driver_stopped(struct driver *v)
{
    return driver_get(v, 0x70) & DRIVER_STATUS_NEEDS_RESET;
}

static inline void driver_memory(struct driver *v)
{
    void *base = mmap(NULL, DRIVER_MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    *v = (struct driver){.memory = {.base = base, .bytes = DRIVER_MEMORY}};
}

static inline void driver_end(struct driver *v)
{
    device_destroy(v->device);
    munmap(v->memory.base, DRIVER_MEMORY);
}

static inline void driver_ring(struct driver *v, unsigned q)
{
    uint64_t table = driver_table(q);

    memset(v->memory.base + table, 0, DRIVER_RING_BYTES);
    v->next_descriptor[q] = v->available[q] = v->used[q] = 0;
    driver_set(v, 0x30, q);
    driver_set(v, 0x38, DRIVER_QUEUE_SIZE);
    driver_set(v, 0x80, (uint32_t)table);
    driver_set(v, 0x90, (uint32_t)table + 0x1000);
    driver_set(v, 0xa0, (uint32_t)table + 0x2000);
    driver_set(v, 0x44, 1);
}

static inline void driver_begin(struct driver *v, uint64_t features)
{
    features |= VIRTIO_F_VERSION;
    driver_set(v, 0x70, 0);
    driver_set(v, 0x70, 3);
    for (uint32_t half = 0; half < 2; half++) {
        driver_set(v, 0x24, half);
        driver_set(v, 0x20, (uint32_t)(features >> (32 * half)));
    }
    driver_set(v, 0x70, 11);
    for (unsigned q = 0; q < v->device->queue_count; q++)
        driver_ring(v, q);
    driver_set(v, 0x70, 15);
}

/* Makes a chain available; returns its head. */
static inline uint16_t driver_offer(struct driver *v, unsigned q, const struct driver_segment *s, unsigned count)
{
    struct driver_descriptor *table = driver_descriptors(v, q);
    uint16_t head = v->next_descriptor[q] % DRIVER_QUEUE_SIZE;

    for (unsigned i = 0; i < count; i++) {
        uint16_t at = (uint16_t)(v->next_descriptor[q]++ % DRIVER_QUEUE_SIZE);
        table[at] = (struct driver_descriptor){
            .address = s[i].address,
            .length = s[i].length,
            .flags = (uint16_t)((s[i].device_writes ? SEGMENT_WRITE : 0) | (i + 1 < count ? SEGMENT_NEXT : 0)),
            .next = (uint16_t)((at + 1) % DRIVER_QUEUE_SIZE),
        };
    }
    driver_available(v, q)[2 + v->available[q] % DRIVER_QUEUE_SIZE] = head;
    driver_available(v, q)[1] = ++v->available[q];
    return head;
}

/* What the device thread does when it was notified; ends when there is nothing to do. */
static inline void driver_run(struct driver *v)
{
    bool worked = true;

    for (unsigned round = 0; worked && round < 1000; round++) {
        worked = false;
        for (unsigned q = 0; q < v->device->queue_count; q++) {
            pthread_mutex_lock(&v->device->lock);
            if (virtqueue_has_work(&v->device->queues[q].ring))
                worked |= v->device->ops->notified(v->device, q);
            pthread_mutex_unlock(&v->device->lock);
        }
    }
}

/* The next chain the device gave back: true, with what it says it wrote. */
static inline bool driver_take(struct driver *v, unsigned q, uint16_t *ret_head, uint32_t *ret_written)
{
    uint16_t *ring = driver_used_ring(v, q);
    uint32_t entry[2];

    if (ring[1] == v->used[q])
        return false;
    memcpy(entry, ring + 2 + 4 * (v->used[q]++ % DRIVER_QUEUE_SIZE), sizeof(entry));
    *ret_head = (uint16_t)entry[0];
    *ret_written = entry[1];
    return true;
}

#endif
