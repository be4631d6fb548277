/* SPDX-License-Identifier: Apache-2.0 */
/* Split virtqueue, device side; called by the monitor's device thread (and by a switch process for its ports). */
#include <errno.h>
#include <string.h>

#include "virtqueue/queue.h"

enum {
    DESCRIPTOR_BYTES = 16,
    DESCRIPTOR_NEXT = 1,     /* VIRTQ_DESC_F_NEXT */
    DESCRIPTOR_WRITE = 2,    /* VIRTQ_DESC_F_WRITE */
    DESCRIPTOR_INDIRECT = 4, /* VIRTQ_DESC_F_INDIRECT */
    AVAILABLE_NO_INTERRUPT = 1,
    USED_NO_NOTIFY = 1,
    RING = 2, /* both rings: u16 flags, u16 index, then the entries */
};

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
};

static int broken(struct virtqueue *q, const char *why)
{
    q->broken = why;
    return -EPROTO;
}

static volatile uint16_t *used_event(const struct virtqueue *q)
{
    return q->available + RING + q->address.size;
}

static volatile uint16_t *available_event(const struct virtqueue *q)
{
    return q->used + RING + 4 * q->address.size;
}

int virtqueue_enable(struct virtqueue *q, const struct guest_memory *memory, const struct virtqueue_address *a,
                     bool event_index)
{
    /* Nothing is used yet, so what the driver wishes holds for the first element already: an interrupt that it does not
     * want costs a guest under PVM 0.1 ms. */
    struct virtqueue fresh = {.memory = memory, .address = *a, .event_index = event_index, .signalled_valid = true};

    if (a->size == 0 || a->size > VIRTQUEUE_SIZE_MAX || (a->size & (a->size - 1)) != 0)
        return -EINVAL;
    if (a->descriptors % 16 || a->available % 2 || a->used % 4)
        return -EINVAL;
    fresh.descriptors = guest_memory_at(memory, a->descriptors, (uint64_t)a->size * DESCRIPTOR_BYTES);
    fresh.available = guest_memory_at(memory, a->available, 6 + 2 * (uint64_t)a->size);
    fresh.used = guest_memory_at(memory, a->used, 6 + 8 * (uint64_t)a->size);
    if (!fresh.descriptors || !fresh.available || !fresh.used)
        return -EINVAL;
    *q = fresh;
    return 0;
}

static uint16_t available_index(const struct virtqueue *q)
{
    return __atomic_load_n(&q->available[1], __ATOMIC_ACQUIRE);
}

unsigned virtqueue_left(const struct virtqueue *q)
{
    uint16_t left = q->available && !q->broken ? (uint16_t)(available_index(q) - q->next_available) : 0;

    return left <= q->address.size ? left : 0;
}

bool virtqueue_has_work(const struct virtqueue *q)
{
    return q->available && !q->broken && available_index(q) != (q->stalled ? q->stalled_at : q->next_available);
}

void virtqueue_stall(struct virtqueue *q)
{
    q->stalled = true;
    q->stalled_at = q->next_available;
}

void virtqueue_unstall(struct virtqueue *q)
{
    q->stalled = false;
}

/* One read of guest memory per descriptor: what is checked is what is used. */
static struct descriptor read_descriptor(const uint8_t *table, uint16_t i)
{
    struct descriptor d;

    memcpy(&d, table + (size_t)i * DESCRIPTOR_BYTES, sizeof(d));
    __asm__ volatile("" : "+m"(d));
    return d;
}

static int add_segment(struct virtqueue *q, struct virtqueue_chain *chain, const struct descriptor *d)
{
    unsigned count = chain->readable + chain->writable;
    void *at = guest_memory_at(q->memory, d->address, d->length);

    if (d->length == 0)
        return broken(q, "a descriptor of length 0");
    if (!at)
        return broken(q, "a descriptor outside memory");
    if (count == VIRTQUEUE_SEGMENT_MAX)
        return broken(q, "a chain of too many descriptors");
    chain->segments[count] = (struct iovec){.iov_base = at, .iov_len = d->length};
    if (d->flags & DESCRIPTOR_WRITE) {
        chain->writable++;
        chain->writable_bytes += d->length;
    } else if (chain->writable) {
        return broken(q, "a readable descriptor behind a writable one");
    } else {
        chain->readable++;
        chain->readable_bytes += d->length;
    }
    return 0;
}

/* Follows a chain through one table of `size` descriptors. A loop ends when more were seen than there are. */
static int walk(struct virtqueue *q, struct virtqueue_chain *chain, const uint8_t *table, uint32_t size, uint16_t at,
                bool indirect)
{
    for (uint32_t seen = 0; seen < size; seen++) {
        struct descriptor d = read_descriptor(table, at);
        int r;

        if (d.flags & DESCRIPTOR_INDIRECT) {
            uint32_t count = d.length / DESCRIPTOR_BYTES;
            const uint8_t *inner = guest_memory_at(q->memory, d.address, d.length);

            if (indirect || (d.flags & DESCRIPTOR_NEXT))
                return broken(q, "an indirect descriptor inside a table or with a successor");
            if (count == 0 || d.length % DESCRIPTOR_BYTES || count > VIRTQUEUE_SIZE_MAX || !inner)
                return broken(q, "an indirect table of impossible size or place");
            return walk(q, chain, inner, count, 0, true);
        }
        r = add_segment(q, chain, &d);
        if (r < 0)
            return r;
        if (!(d.flags & DESCRIPTOR_NEXT))
            return 0;
        if (d.next >= size)
            return broken(q, "a descriptor's successor outside the table");
        at = d.next;
    }
    return broken(q, "a loop of descriptors");
}

int virtqueue_pop(struct virtqueue *q, struct virtqueue_chain *chain)
{
    uint16_t index, head;
    int r;

    if (q->broken)
        return -EPROTO;
    if (!q->available)
        return 0;
    index = available_index(q);
    if (index == q->next_available)
        return 0;
    if ((uint16_t)(index - q->next_available) > q->address.size)
        return broken(q, "the available index jumped beyond the ring");
    head = q->available[RING + q->next_available % q->address.size];
    if (head >= q->address.size)
        return broken(q, "an available entry outside the table");
    chain->head = head;
    chain->readable = chain->writable = 0;
    chain->readable_bytes = chain->writable_bytes = 0;
    r = walk(q, chain, q->descriptors, q->address.size, head, false);
    if (r < 0)
        return r;
    q->next_available++;
    return 1;
}

void virtqueue_unpop(struct virtqueue *q)
{
    q->next_available--;
}

void virtqueue_push(struct virtqueue *q, uint16_t head, uint32_t written)
{
    volatile uint16_t *entry = q->used + RING + 4 * (size_t)(q->next_used % q->address.size);
    uint64_t value = (uint64_t)head | (uint64_t)written << 32;

    memcpy((void *)entry, &value, sizeof(value));
    q->next_used++;
}

void virtqueue_publish(struct virtqueue *q)
{
    __atomic_store_n(&q->used[1], q->next_used, __ATOMIC_RELEASE);
}

bool virtqueue_wants_interrupt(struct virtqueue *q)
{
    uint16_t before = q->signalled_used, now = q->next_used;
    bool valid = q->signalled_valid;

    if (before == now && valid)
        return false;
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* the index is out before the wish is read */
    q->signalled_used = now;
    q->signalled_valid = true;
    if (!q->event_index)
        return !(q->available[0] & AVAILABLE_NO_INTERRUPT);
    return !valid || (uint16_t)(now - *used_event(q) - 1) < (uint16_t)(now - before);
}

void virtqueue_notify_enable(struct virtqueue *q)
{
    if (q->event_index)
        __atomic_store_n(available_event(q), q->stalled ? q->stalled_at : q->next_available, __ATOMIC_RELAXED);
    else
        __atomic_store_n(&q->used[0], 0, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void virtqueue_notify_disable(struct virtqueue *q)
{
    /* With event indices a stale avail_event is already far behind: nothing to write. */
    if (!q->event_index)
        __atomic_store_n(&q->used[0], USED_NO_NOTIFY, __ATOMIC_RELAXED);
}
