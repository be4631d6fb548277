/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio-mmio transport: a register file of 0x100 bytes and the device's configuration behind it.
 *
 * Everything a guest can do here is a write of some value to some offset in some state; the state machine is `status`,
 * and a value that does not fit its state is ignored, as the specification lets a device do. Runs on the vCPU thread.
 */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "vmm/devices/device.h"

enum {
    STATUS_DRIVER_OK = 4,
    STATUS_FEATURES_OK = 8,
    STATUS_NEEDS_RESET = 64,
    INTERRUPT_USED = 1,
    INTERRUPT_CONFIG = 2,
    MAGIC_VALUE = 0x74726976, /* "virt" */
    VENDOR_VALUE = 0x43524f43,
    FAILURES_TOLD = 8,
};

int device_add_queues(struct device *d, unsigned count, struct error **err)
{
    for (unsigned i = d->queue_count; i < count && i < DEVICE_QUEUE_MAX; i++) {
        d->queues[i].notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (d->queues[i].notify_fd < 0)
            return error_set_errno(err, errno, "INTERNAL", "%s: cannot make its event descriptors", d->ops->name);
        d->queue_count = i + 1;
    }
    return 0;
}

void device_end(struct device *d)
{
    close_fd(d->irq_fd);
    for (unsigned i = 0; i < DEVICE_QUEUE_MAX; i++)
        close_fd(d->queues[i].notify_fd);
    pthread_mutex_destroy(&d->lock);
}

int device_init(struct device *d, const struct device_ops *ops, const struct guest_memory *memory, uint64_t features,
                struct error **err)
{
    *d = (struct device){.ops = ops, .memory = memory, .features = features | VIRTIO_F_VERSION, .irq_fd = -1};
    pthread_mutex_init(&d->lock, NULL);
    for (unsigned i = 0; i < DEVICE_QUEUE_MAX; i++)
        d->queues[i].notify_fd = -1;
    d->irq_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (d->irq_fd < 0)
        return error_set_errno(err, errno, "INTERNAL", "%s: cannot make its event descriptors", ops->name);
    int r = device_add_queues(d, ops->queue_count, err);
    if (r < 0)
        device_end(d);
    return r;
}

void device_destroy(struct device *d)
{
    if (!d)
        return;
    device_end(d);
    d->ops->destroy(d);
}

void device_interrupt(struct device *d, uint32_t cause)
{
    const uint64_t one = 1;

    __atomic_fetch_or(&d->interrupt_status, cause, __ATOMIC_SEQ_CST);
    d->interrupts++;
    if (write(d->irq_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
        log_line(LOG_LEVEL_WARNING, NULL, "%s: interrupt lost: %s", d->ops->name, strerror(errno));
}

void device_kick(struct device *d)
{
    const uint64_t one = 1;

    for (unsigned i = 0; i < d->queue_count; i++)
        if (write(d->queues[i].notify_fd, &one, sizeof(one)) < 0)
            continue; /* it is readable already */
}

void device_publish(struct device *d, unsigned queue)
{
    struct virtqueue *q = &d->queues[queue].ring;

    virtqueue_publish(q);
    if (virtqueue_wants_interrupt(q))
        device_interrupt(d, INTERRUPT_USED);
}

void device_config_changed(struct device *d)
{
    d->config_generation++;
    if (d->status & STATUS_DRIVER_OK)
        device_interrupt(d, INTERRUPT_CONFIG);
}

void device_fail(struct device *d, const char *why)
{
    if (d->status & STATUS_NEEDS_RESET)
        return;
    if (d->failures++ < FAILURES_TOLD) /* a guest that resets and fails again and again fills no log */
        log_line(LOG_LEVEL_WARNING, NULL, "%s: the guest broke the protocol: %s; the device stops until it is reset",
                 d->ops->name, why);
    d->status |= STATUS_NEEDS_RESET;
    device_interrupt(d, INTERRUPT_CONFIG);
}

static void reset(struct device *d)
{
    if (d->ops->reset)
        d->ops->reset(d);
    for (unsigned i = 0; i < d->queue_count; i++) {
        d->queues[i].ready = false;
        d->queues[i].address = (struct virtqueue_address){0};
        d->queues[i].ring = (struct virtqueue){0};
    }
    d->accepted = 0;
    d->status = 0;
    d->feature_select = d->driver_feature_select = d->queue_select = 0;
    __atomic_store_n(&d->interrupt_status, 0, __ATOMIC_SEQ_CST);
}

static struct device_queue *selected(struct device *d)
{
    return d->queue_select < d->queue_count ? &d->queues[d->queue_select] : NULL;
}

static uint32_t read_register(struct device *d, uint64_t offset)
{
    struct device_queue *q = selected(d);

    switch (offset) {
    case REG_MAGIC:
        return MAGIC_VALUE;
    case REG_VERSION:
        return 2;
    case REG_DEVICE_ID:
        return d->ops->type;
    case REG_VENDOR_ID:
        return VENDOR_VALUE;
    case REG_DEVICE_FEATURES:
        return d->feature_select < 2 ? (uint32_t)(d->features >> (32 * d->feature_select)) : 0;
    case REG_QUEUE_SIZE_MAX:
        return q ? DEVICE_QUEUE_SIZE : 0;
    case REG_QUEUE_READY:
        return q ? q->ready : 0;
    case REG_INTERRUPT_STATUS:
        return __atomic_load_n(&d->interrupt_status, __ATOMIC_SEQ_CST) | (d->outside ? INTERRUPT_USED : 0);
    case REG_STATUS:
        return d->status;
    case REG_CONFIG_GENERATION:
        return d->config_generation;
    default:
        return 0;
    }
}

uint64_t virtio_mmio_read(struct device *d, uint64_t offset, unsigned length)
{
    uint64_t value = 0;

    pthread_mutex_lock(&d->lock);
    if (offset >= REG_CONFIG && offset + length <= DEVICE_PAGE && length <= sizeof(value)) {
        if (d->ops->config)
            d->ops->config(d, &value, (unsigned)(offset - REG_CONFIG), length);
    } else if (length == 4 && offset % 4 == 0) {
        value = read_register(d, offset);
    }
    pthread_mutex_unlock(&d->lock);
    return value;
}

static void set_queue_ready(struct device *d, struct device_queue *q, uint32_t value)
{
    if (!value) {
        q->ready = false;
        q->ring = (struct virtqueue){0};
    }
    if (!value || q->ready)
        return;
    if (virtqueue_enable(&q->ring, d->memory, &q->address, (d->accepted & VIRTIO_F_EVENT) != 0) < 0)
        device_fail(d, "a ring outside memory, misaligned or of impossible size");
    else
        q->ready = true;
}

static void set_status(struct device *d, uint32_t value)
{
    if (value == 0) {
        reset(d);
        return;
    }
    if ((value & STATUS_FEATURES_OK) && !(d->status & STATUS_FEATURES_OK) &&
        ((d->accepted & ~d->features) || !(d->accepted & VIRTIO_F_VERSION)))
        value &= ~(uint32_t)STATUS_FEATURES_OK; /* the driver reads it back and gives up */
    uint32_t raised = value & ~d->status;
    d->status = value | (d->status & STATUS_NEEDS_RESET);
    if ((raised & STATUS_DRIVER_OK) && (d->status & STATUS_FEATURES_OK) && d->ops->activate && d->ops->activate(d) < 0)
        device_fail(d, "it could not be started");
}

static void set_half(uint64_t *address, uint64_t offset, uint32_t value)
{
    *address =
        offset % 8 ? (*address & UINT32_MAX) | (uint64_t)value << 32 : (*address & ~(uint64_t)UINT32_MAX) | value;
}

static void write_register(struct device *d, uint64_t offset, uint32_t value)
{
    struct device_queue *q = selected(d);

    switch (offset) {
    case REG_DEVICE_FEATURES_SELECT:
        d->feature_select = value;
        return;
    case REG_DRIVER_FEATURES_SELECT:
        d->driver_feature_select = value;
        return;
    case REG_DRIVER_FEATURES:
        if (d->driver_feature_select < 2 && !(d->status & STATUS_FEATURES_OK))
            set_half(&d->accepted, d->driver_feature_select * 4, value);
        return;
    case REG_QUEUE_SELECT:
        d->queue_select = value;
        return;
    case REG_INTERRUPT_ACK:
        __atomic_fetch_and(&d->interrupt_status, ~value, __ATOMIC_SEQ_CST);
        return;
    case REG_STATUS:
        set_status(d, value);
        return;
    default:
        break;
    }
    if (!q || (d->status & STATUS_NEEDS_RESET))
        return;
    if (offset == REG_QUEUE_READY)
        set_queue_ready(d, q, value);
    else if (q->ready)
        return; /* a ring in use does not move */
    else if (offset == REG_QUEUE_SIZE)
        q->address.size = value <= UINT16_MAX ? (uint16_t)value : 0;
    else if ((offset & ~UINT64_C(4)) == REG_QUEUE_DESCRIPTORS)
        set_half(&q->address.descriptors, offset, value);
    else if ((offset & ~UINT64_C(4)) == REG_QUEUE_AVAILABLE)
        set_half(&q->address.available, offset, value);
    else if ((offset & ~UINT64_C(4)) == REG_QUEUE_USED)
        set_half(&q->address.used, offset, value);
}

void virtio_mmio_write(struct device *d, uint64_t offset, unsigned length, uint64_t value)
{
    const uint64_t one = 1;

    if (offset >= REG_CONFIG) {
        if (offset + length <= DEVICE_PAGE && length <= sizeof(value) && d->ops->config_written) {
            pthread_mutex_lock(&d->lock);
            d->ops->config_written(d, &value, (unsigned)(offset - REG_CONFIG), length);
            pthread_mutex_unlock(&d->lock);
        }
        return;
    }
    if (length != 4 || offset % 4 != 0)
        return;
    if (offset == REG_QUEUE_NOTIFY) {
        /* Reached only when KVM has no ioeventfd for this queue; the device thread takes it from here either way. */
        if (value < d->queue_count && write(d->queues[value].notify_fd, &one, sizeof(one)) < 0)
            return;
        return;
    }
    pthread_mutex_lock(&d->lock);
    write_register(d, offset, (uint32_t)value);
    pthread_mutex_unlock(&d->lock);
}
