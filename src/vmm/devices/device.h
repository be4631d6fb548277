/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio device behind the virtio-mmio transport (virtio 1.2, 4.2, version 2): what the transport knows of every
 * device, and what a device gives the transport.
 *
 * Two threads: the vCPU's calls virtio_mmio_read/write for configuration; the device thread (loop.h) does all data,
 * woken by ioeventfds. device->lock is held by whichever works on the device; a queue is touched by the device thread
 * only.
 */
#ifndef CORACLE_VMM_DEVICE_H
#define CORACLE_VMM_DEVICE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "virtqueue/queue.h"

enum { DEVICE_QUEUE_MAX = 4, DEVICE_QUEUE_SIZE = 256, DEVICE_PAGE = 4096 };

/* Device types (virtio 1.2, section 5). */
enum virtio_type {
    VIRTIO_NET = 1,
    VIRTIO_BLOCK = 2,
    VIRTIO_CONSOLE = 3,
    VIRTIO_ENTROPY = 4,
    VIRTIO_BALLOON = 5,
    VIRTIO_VSOCK = 19
};

#define VIRTIO_FEATURE(bit) (UINT64_C(1) << (bit))
#define VIRTIO_F_INDIRECT   VIRTIO_FEATURE(28)
#define VIRTIO_F_EVENT      VIRTIO_FEATURE(29)
#define VIRTIO_F_VERSION    VIRTIO_FEATURE(32)

struct device;

struct device_ops {
    const char *name;
    enum virtio_type type;
    unsigned queue_count;
    /* The driver is ready (DRIVER_OK), queues are enabled; called with the lock held. NULL: nothing to do. */
    int (*activate)(struct device *);
    /* Back to the state after creation; data stops. NULL: nothing to do. */
    void (*reset)(struct device *);
    /* There are chains in queue. On the device thread, with the lock held. False: they are no work, as receive buffers
     * that wait for a packet. */
    bool (*notified)(struct device *, unsigned queue);
    /* Device-specific configuration, copied out; bytes beyond it read as 0. */
    void (*config)(struct device *, void *to, unsigned offset, unsigned length);
    void (*destroy)(struct device *);
};

struct device_queue {
    struct virtqueue_address address; /* as written so far */
    bool ready;
    struct virtqueue ring;
    int notify_fd; /* ioeventfd: readable when the driver notified */
};

/* First member of every device. */
struct device {
    const struct device_ops *ops;
    const struct guest_memory *memory;
    pthread_mutex_t lock;
    uint64_t features; /* offered */
    uint64_t accepted;
    uint32_t feature_select, driver_feature_select, queue_select, status;
    uint32_t interrupt_status; /* atomic */
    uint32_t config_generation;
    int irq_fd; /* irqfd: one write raises the device's vector */
    struct device_queue queues[DEVICE_QUEUE_MAX];
    uint64_t interrupts, notifications; /* counted for statistics */
};

/* Common part of every constructor. Makes irq_fd and notify_fds. */
int device_init(struct device *device, const struct device_ops *ops, const struct guest_memory *memory,
                uint64_t features, struct error **err);
void device_destroy(struct device *device); /* accepts NULL; calls ops->destroy, which frees */

/* Register access of the guest at offset (0..4095) of the device's page; length 1, 2, 4 or 8: what the transport does
 * not define reads as 0 and is ignored when written. */
uint64_t virtio_mmio_read(struct device *device, uint64_t offset, unsigned length);
void virtio_mmio_write(struct device *device, uint64_t offset, unsigned length, uint64_t value);

/* Publishes what was pushed, interrupts the driver if it wants that. Device thread, lock held. */
void device_publish(struct device *device, unsigned queue);

/* Gives the device up: DEVICE_NEEDS_RESET, a configuration interrupt, a line in the log. */
void device_fail(struct device *device, const char *why);

#endif
