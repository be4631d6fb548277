/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device side of a split virtqueue (virtio 1.2, section 2.7), with event indices, without packed rings.
 *
 * The guest is the attacker: each index and descriptor is read once and checked; what breaks a rule breaks the queue
 * (-EPROTO from then on, the device goes to DEVICE_NEEDS_RESET), never the monitor. One thread per queue; no locks.
 */
#ifndef CORACLE_VIRTQUEUE_QUEUE_H
#define CORACLE_VIRTQUEUE_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "virtqueue/guest_memory.h"

enum { VIRTQUEUE_SIZE_MAX = 1024, VIRTQUEUE_SEGMENT_MAX = 128 };

struct virtqueue_address { /* guest physical, as the driver wrote them */
    uint64_t descriptors, available, used;
    uint16_t size; /* a power of two, at most VIRTQUEUE_SIZE_MAX */
};

struct virtqueue {
    const struct guest_memory *memory;
    struct virtqueue_address address;
    volatile uint16_t *available; /* flags, index, ring[size], used_event */
    volatile uint16_t *used;      /* flags, index, ring[size] of 8 bytes, avail_event */
    const uint8_t *descriptors;
    uint16_t next_available; /* next entry of the available ring to take */
    uint16_t next_used;      /* next entry of the used ring to fill */
    uint16_t signalled_used; /* next_used when the driver was last interrupted */
    bool signalled_valid;
    bool stalled; /* what was available when next_available was stalled_at is not enough */
    uint16_t stalled_at;
    bool event_index;   /* VIRTIO_F_EVENT_IDX was negotiated */
    const char *broken; /* why the queue was given up; NULL: it works */
};

struct virtqueue_chain {
    struct iovec segments[VIRTQUEUE_SEGMENT_MAX]; /* readable ones first */
    uint16_t head;                                /* to be given back with virtqueue_push() */
    uint16_t readable, writable;                  /* number of segments of each kind */
    uint64_t readable_bytes, writable_bytes;
};

/* Checks and takes the driver's addresses; -EINVAL when any part of a ring lies outside memory or is misaligned. */
int virtqueue_enable(struct virtqueue *queue, const struct guest_memory *memory,
                     const struct virtqueue_address *address, bool event_index);

/* Takes the next chain: 1; none there: 0; -EPROTO: broken. */
int virtqueue_pop(struct virtqueue *queue, struct virtqueue_chain *ret_chain);

/* The bytes of a chain as one run, wherever its segments begin and end. Both return how many there were to copy. The
 * readable part is copied out once: what is checked is what is used. */
size_t virtqueue_chain_read(const struct virtqueue_chain *chain, uint64_t offset, void *to, size_t size);
size_t virtqueue_chain_write(const struct virtqueue_chain *chain, uint64_t offset, const void *from, size_t size);

/* [offset, offset + length) of the readable or the writable part as segments for readv() and writev(); returns their
 * number. ret: VIRTQUEUE_SEGMENT_MAX of them. */
unsigned virtqueue_chain_slice(const struct virtqueue_chain *chain, bool writable, uint64_t offset, uint64_t length,
                               struct iovec *ret);

/* Puts the chain popped last back, as if it had not been taken. */
void virtqueue_unpop(struct virtqueue *queue);

/* Everything available was popped and is not enough: there is no work, and no wish to be notified, until more comes.
 * Called before what was popped is put back. Ends with virtqueue_unstall(). */
void virtqueue_stall(struct virtqueue *queue);
void virtqueue_unstall(struct virtqueue *queue);

/* Gives a chain back with the bytes written into it; the driver sees it after virtqueue_publish(). */
void virtqueue_push(struct virtqueue *queue, uint16_t head, uint32_t written);
void virtqueue_publish(struct virtqueue *queue);

/* Whether the driver wants an interrupt for what was published since the last time (virtio 1.2, 2.7.7 and 2.7.10). */
bool virtqueue_wants_interrupt(struct virtqueue *queue);

/* Tells the driver whether to notify when it adds chains. After enabling, ask virtqueue_has_work() once more. */
void virtqueue_notify_enable(struct virtqueue *queue);
void virtqueue_notify_disable(struct virtqueue *queue);

/* Chains the driver has made available and nobody has popped yet; 0 too when its index makes no sense. */
unsigned virtqueue_left(const struct virtqueue *queue);
bool virtqueue_has_work(const struct virtqueue *queue);

#endif
