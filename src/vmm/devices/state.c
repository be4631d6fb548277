/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device in a snapshot. What a file says is no better than what a guest says: rings are enabled through the same
 * checks, values that no run of the transport could have left are refused. Called by the thread that saves or restores.
 */
#include <errno.h>
#include <string.h>

#include "vmm/devices/device.h"

enum {
    STATUS_FEATURES_OK = 8,
    STATUS_DRIVER_OK = 4,
    STATUS_NEEDS_RESET = 64,
    INTERRUPT_USED = 1,
    INTERRUPT_CONFIG = 2
};

static void save_queue(const struct device_queue *q, struct device_queue_state *s)
{
    *s = (struct device_queue_state){
        .descriptors = q->address.descriptors,
        .available = q->address.available,
        .used = q->address.used,
        .size = q->address.size,
        .ready = q->ready,
        .next_available = q->ring.next_available,
        .next_used = q->ring.next_used,
        .signalled_used = q->ring.signalled_used,
        .signalled_valid = q->ring.signalled_valid,
        .stalled = q->ring.stalled,
        .stalled_at = q->ring.stalled_at,
    };
}

int device_save(struct device *d, struct device_state *ret, struct error **err)
{
    memset(ret, 0, sizeof(*ret));
    pthread_mutex_lock(&d->lock);
    const char *why = d->ops->unsaveable ? d->ops->unsaveable(d) : NULL;
    if (why) {
        pthread_mutex_unlock(&d->lock);
        return error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "%s: %s", d->ops->name, why);
    }
    ret->type = d->ops->type;
    ret->queue_count = d->queue_count;
    ret->accepted = d->accepted;
    ret->feature_select = d->feature_select;
    ret->driver_feature_select = d->driver_feature_select;
    ret->queue_select = d->queue_select;
    ret->status = d->status;
    ret->interrupt_status = __atomic_load_n(&d->interrupt_status, __ATOMIC_SEQ_CST);
    ret->config_generation = d->config_generation;
    for (unsigned i = 0; i < d->queue_count; i++)
        save_queue(&d->queues[i], &ret->queues[i]);
    if (d->ops->save)
        ret->own_size = (uint32_t)d->ops->save(d, ret->own);
    pthread_mutex_unlock(&d->lock);
    return 0;
}

static int restore_queue(struct device *d, struct device_queue *q, const struct device_queue_state *s)
{
    q->address = (struct virtqueue_address){s->descriptors, s->available, s->used, s->size};
    if (!s->ready)
        return 0;
    int r = virtqueue_enable(&q->ring, d->memory, &q->address, (d->accepted & VIRTIO_F_EVENT) != 0);
    if (r < 0)
        return r;
    q->ready = true;
    q->ring.next_available = s->next_available;
    q->ring.next_used = s->next_used;
    q->ring.signalled_used = s->signalled_used;
    q->ring.signalled_valid = s->signalled_valid;
    q->ring.stalled = s->stalled;
    q->ring.stalled_at = s->stalled_at;
    return 0;
}

static int restore_registers(struct device *d, const struct device_state *from)
{
    if (from->accepted & ~d->features || from->own_size > DEVICE_STATE_MAX)
        return -EINVAL;
    if ((from->status & STATUS_FEATURES_OK) && !(from->accepted & VIRTIO_F_VERSION))
        return -EINVAL;
    d->accepted = from->accepted;
    d->feature_select = from->feature_select;
    d->driver_feature_select = from->driver_feature_select;
    d->queue_select = from->queue_select;
    d->status = from->status;
    d->config_generation = from->config_generation;
    __atomic_store_n(&d->interrupt_status, from->interrupt_status, __ATOMIC_SEQ_CST);
    return 0;
}

int device_restore(struct device *d, const struct device_state *from, struct error **err)
{
    if (from->type != d->ops->type || from->queue_count != d->queue_count)
        return error_set(err, EINVAL, "IMAGE_MALFORMED", "snapshot: device of type %u with %u queues where a %s is",
                         from->type, from->queue_count, d->ops->name);
    pthread_mutex_lock(&d->lock);
    int r = restore_registers(d, from);
    for (unsigned i = 0; r == 0 && i < d->queue_count; i++)
        r = restore_queue(d, &d->queues[i], &from->queues[i]);
    if (r == 0 && d->ops->restore)
        r = d->ops->restore(d, from->own, from->own_size);
    if (r == 0 && (d->status & STATUS_DRIVER_OK) && !(d->status & STATUS_NEEDS_RESET)) {
        if (d->ops->activate)
            r = d->ops->activate(d);
        device_interrupt(d, INTERRUPT_USED | INTERRUPT_CONFIG);
    }
    pthread_mutex_unlock(&d->lock);
    return r < 0 ? error_set(err, -r, "IMAGE_MALFORMED", "snapshot: the %s device's state makes no sense", d->ops->name)
                 : 0;
}
