/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's struct boot_setup, carried out as the register writes it stands for: the same state machine checks the
 * same values, so there is no second way into a device. The guest's memory is read once.
 */
#include <stddef.h>
#include <string.h>

#include "abi/boot.h"
#include "vmm/device_setup.h"

enum { STATUS_ACKNOWLEDGE = 1, STATUS_DRIVER = 2, STATUS_DRIVER_OK = 4, STATUS_FEATURES_OK = 8 };

static void put(struct device *d, uint64_t reg, uint64_t value)
{
    virtio_mmio_write(d, reg, 4, (uint32_t)value);
}

static void put_address(struct device *d, uint64_t reg, uint64_t address)
{
    put(d, reg, address);
    put(d, reg + 4, address >> 32);
}

static void set_queue(struct device *d, unsigned index, uint32_t size, const struct boot_queue *q)
{
    put(d, REG_QUEUE_SELECT, index);
    put(d, REG_QUEUE_SIZE, size);
    put_address(d, REG_QUEUE_DESCRIPTORS, q->descriptors);
    put_address(d, REG_QUEUE_AVAILABLE, q->available);
    put_address(d, REG_QUEUE_USED, q->used);
    put(d, REG_QUEUE_READY, 1);
}

static uint32_t set_up(struct device *d, const struct boot_setup *s)
{
    const uint32_t negotiated = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;
    unsigned count = s->queue_count < BOOT_QUEUE_MAX ? s->queue_count : BOOT_QUEUE_MAX;

    put(d, REG_STATUS, 0);
    put(d, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    for (unsigned half = 0; half < 2; half++) {
        put(d, REG_DRIVER_FEATURES_SELECT, half);
        put(d, REG_DRIVER_FEATURES, s->features >> (32 * half));
    }
    put(d, REG_STATUS, negotiated);
    if (!(virtio_mmio_read(d, REG_STATUS, 4) & STATUS_FEATURES_OK))
        return (uint32_t)virtio_mmio_read(d, REG_STATUS, 4);
    for (unsigned i = 0; i < count; i++)
        set_queue(d, i, s->queue_size, &s->queues[i]);
    put(d, REG_STATUS, negotiated | STATUS_DRIVER_OK);
    for (unsigned i = 0; i < count; i++)
        put(d, REG_QUEUE_NOTIFY, i);
    return (uint32_t)virtio_mmio_read(d, REG_STATUS, 4);
}

void device_setup(struct vm *vm, uint64_t address)
{
    uint8_t *at = guest_memory_at(&vm->ram.memory, address, sizeof(struct boot_setup)); /* of any alignment */
    struct boot_setup setup;

    if (!at)
        return;
    memcpy(&setup, at, sizeof(setup));
    if (setup.device < vm->device_count)
        setup.status = set_up(vm->devices[setup.device], &setup);
    memcpy(at + offsetof(struct boot_setup, status), &setup.status, sizeof(setup.status));
}
