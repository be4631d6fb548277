/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzz targets of the monitor's devices share: a driver that has negotiated and set its rings up, and then
 * does anything. First byte: features it takes, and whether it starts at all. Then steps of 8 bytes: what (1), length
 * or part of the address (1), register or address (2), value (4).
 */
#ifndef FUZZ_DEVICE_H
#define FUZZ_DEVICE_H

#include <stdint.h>
#include <stdlib.h>

#include "../../unit/vmm_driver.h"
#include "base/log.h"

enum { FUZZ_STEP = 8, FUZZ_STEP_MAX = 300 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* outside: what the world does at a step of that kind; NULL: nothing. */
static inline void fuzz_step(struct driver *v, const uint8_t *s, void (*outside)(void *context, uint32_t value),
                             void *context)
{
    uint32_t value, address;
    uint16_t where;

    memcpy(&where, s + 2, sizeof(where));
    memcpy(&value, s + 4, sizeof(value));
    address = (uint32_t)where * 16 + (s[1] & 12);
    switch (s[0] % 8) {
    case 0:
        virtio_mmio_write(v->device, where & 0x1fc, 4, value);
        break;
    case 1:
        virtio_mmio_write(v->device, where & 4095, s[1] & 15, value);
        break;
    case 2:
        virtio_mmio_read(v->device, where & 4095, s[1] & 15);
        break;
    case 3:
    case 4:
        memcpy(v->memory.base + address, &value, sizeof(value));
        break;
    case 5: { /* one descriptor made available; flags and next are in the address */
        unsigned q = s[1] % v->device->queue_count, at = where % DRIVER_QUEUE_SIZE;
        driver_descriptors(v, q)[at] = (struct driver_descriptor){DRIVER_DATA + (value & 0xffff), value >> 16,
                                                                  (uint16_t)(where >> 8 & 7), (uint16_t)(where >> 11)};
        driver_available(v, q)[2 + v->available[q] % DRIVER_QUEUE_SIZE] = (uint16_t)at;
        driver_available(v, q)[1] = ++v->available[q];
        break;
    }
    case 6:
        if (outside)
            outside(context, value);
        break;
    default:
        driver_run(v);
        break;
    }
}

static inline void fuzz_run(struct driver *v, const uint8_t *data, size_t size,
                            void (*outside)(void *context, uint32_t value), void *context)
{
    log_open("fuzz", LOG_LEVEL_ERROR);
    if (size > 0 && !(data[0] & 1))
        driver_begin(v, data[0] & 2 ? v->device->features : 0);
    for (size_t i = 1; i + FUZZ_STEP <= size && i < FUZZ_STEP_MAX * FUZZ_STEP; i += FUZZ_STEP)
        fuzz_step(v, data + i, outside, context);
    driver_run(v);
}

#endif
