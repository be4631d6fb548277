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

enum { DEVICE_QUEUE_MAX = 17, DEVICE_QUEUE_SIZE = 256, DEVICE_PAGE = 4096 };

/* Device types (virtio 1.2, section 5). */
enum virtio_type {
    VIRTIO_NET = 1,
    VIRTIO_BLOCK = 2,
    VIRTIO_CONSOLE = 3,
    VIRTIO_ENTROPY = 4,
    VIRTIO_BALLOON = 5,
    VIRTIO_VSOCK = 19
};

/* Registers (virtio 1.2, table 4.1). */
enum virtio_register {
    REG_MAGIC = 0x000,
    REG_VERSION = 0x004,
    REG_DEVICE_ID = 0x008,
    REG_VENDOR_ID = 0x00c,
    REG_DEVICE_FEATURES = 0x010,
    REG_DEVICE_FEATURES_SELECT = 0x014,
    REG_DRIVER_FEATURES = 0x020,
    REG_DRIVER_FEATURES_SELECT = 0x024,
    REG_QUEUE_SELECT = 0x030,
    REG_QUEUE_SIZE_MAX = 0x034,
    REG_QUEUE_SIZE = 0x038,
    REG_QUEUE_READY = 0x044,
    REG_QUEUE_NOTIFY = 0x050,
    REG_INTERRUPT_STATUS = 0x060,
    REG_INTERRUPT_ACK = 0x064,
    REG_STATUS = 0x070,
    REG_QUEUE_DESCRIPTORS = 0x080,
    REG_QUEUE_AVAILABLE = 0x090,
    REG_QUEUE_USED = 0x0a0,
    REG_CONFIG_GENERATION = 0x0fc,
    REG_CONFIG = 0x100,
};

#define VIRTIO_FEATURE(bit) (UINT64_C(1) << (bit))
#define VIRTIO_F_INDIRECT   VIRTIO_FEATURE(28)
#define VIRTIO_F_EVENT      VIRTIO_FEATURE(29)
#define VIRTIO_F_VERSION    VIRTIO_FEATURE(32)

struct device;

struct device_ops {
    const char *name;
    enum virtio_type type;
    unsigned queue_count; /* at least so many: device.queue_count */
    /* Its work can wait some tens of microseconds: while the device thread polls for packets it is looked at seldom. */
    bool patient;
    /* The driver is ready (DRIVER_OK), queues are enabled; called with the lock held. NULL: nothing to do. */
    int (*activate)(struct device *);
    /* Back to the state after creation; data stops. NULL: nothing to do. */
    void (*reset)(struct device *);
    /* There are chains in queue. On the device thread, with the lock held. False: they are no work, as receive buffers
     * that wait for a packet. */
    bool (*notified)(struct device *, unsigned queue);
    /* The device thread is about to sleep: what was held back for company goes out. Lock held. NULL: nothing is. */
    void (*settle)(struct device *);
    /* Device-specific configuration, copied out; bytes beyond it read as 0. */
    void (*config)(struct device *, void *to, unsigned offset, unsigned length);
    /* The driver wrote length (1, 2, 4, 8) bytes there; any offset. Lock held. NULL: there is nothing to write. */
    void (*config_written)(struct device *, const void *from, unsigned offset, unsigned length);
    /* Why this device cannot be in a snapshot just now; NULL, as a result or as the callback: it can. */
    const char *(*unsaveable)(struct device *);
    /* For snapshots: the state that is this device's own, as fixed-width fields in at most DEVICE_STATE_MAX bytes;
     * returns how many. Called with data stopped and the lock held. NULL: it has none. */
    size_t (*save)(struct device *, void *to);
    /* The same on a device just made; size and bytes come from a file and are checked. */
    int (*restore)(struct device *, const void *from, size_t size);
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
    unsigned queue_count;
    bool outside; /* its data is moved by the kernel or another process, which also raises its interrupt */
    uint64_t interrupts, notifications; /* counted for statistics */
    uint64_t failures;                  /* protocol errors of the guest */
    const uint32_t *calls; /* system calls of its data path beyond those every VM makes, 0 at the end; NULL: none */
};

/* ---- snapshots: fixed-width, without padding; state.c ---- */

enum { DEVICE_STATE_MAX = 256 };

struct device_queue_state {
    uint64_t descriptors, available, used;
    uint16_t size;
    uint16_t next_available, next_used, signalled_used;
    uint16_t signalled_valid, stalled, stalled_at;
    uint16_t ready;
};

struct device_state {
    uint32_t type, queue_count;
    uint64_t accepted;
    uint32_t feature_select, driver_feature_select, queue_select, status;
    uint32_t interrupt_status, config_generation;
    struct device_queue_state queues[DEVICE_QUEUE_MAX];
    uint32_t own_size, reserved;
    uint8_t own[DEVICE_STATE_MAX]; /* device_ops.save */
};

/* Data is stopped (loop_pause) for both. */
int device_save(struct device *device, struct device_state *ret, struct error **err);

/* On a device just made, wired and not yet used, of the same kind; memory is there already. Everything in *from is
 * checked as if a guest had written it. An interrupt is raised, so that no wake-up of the saved guest is lost. */
int device_restore(struct device *device, const struct device_state *from, struct error **err);

/* Common part of every constructor. Makes irq_fd and notify_fds. */
int device_init(struct device *device, const struct device_ops *ops, const struct guest_memory *memory,
                uint64_t features, struct error **err);
/* More queues than its kind has at least; before it is wired. */
int device_add_queues(struct device *device, unsigned count, struct error **err);
void device_end(struct device *device); /* the common part's end, without ops->destroy: a constructor that failed */
void device_destroy(struct device *device); /* accepts NULL; calls ops->destroy, which frees */

/* Register access of the guest at offset (0..4095) of the device's page; length 1, 2, 4 or 8: what the transport does
 * not define reads as 0 and is ignored when written. */
uint64_t virtio_mmio_read(struct device *device, uint64_t offset, unsigned length);
void virtio_mmio_write(struct device *device, uint64_t offset, unsigned length, uint64_t value);

/* Each queue is looked at as if the driver had notified it. Any thread. */
void device_kick(struct device *device);

/* The driver is told of cause (1: used buffers, 2: configuration). Lock held. */
void device_interrupt(struct device *device, uint32_t cause);

/* Publishes what was pushed, interrupts the driver if it wants that. Device thread, lock held. */
void device_publish(struct device *device, unsigned queue);

/* The device-specific configuration is another one: says so to the driver. Lock held. */
void device_config_changed(struct device *device);

/* Gives the device up: DEVICE_NEEDS_RESET, a configuration interrupt, a line in the log. */
void device_fail(struct device *device, const char *why);

#endif
