/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-mmio and split queues, driver side (virtio 1.2, 4.2 and 2.7). The host is trusted here, the wire is not. */
#include "unikernel.h"

struct virtq_descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

enum {
    REG_MAGIC = 0,
    REG_VERSION = 1,
    REG_DEVICE_ID = 2,
    REG_DEVICE_FEATURES = 4,
    REG_DEVICE_FEATURES_SELECT = 5,
    REG_DRIVER_FEATURES = 8,
    REG_DRIVER_FEATURES_SELECT = 9,
    REG_LEGACY_PAGE_SIZE = 10,
    REG_QUEUE_SELECT = 12,
    REG_QUEUE_SIZE_MAX = 13,
    REG_QUEUE_SIZE = 14,
    REG_LEGACY_QUEUE_ALIGN = 15,
    REG_LEGACY_QUEUE_PAGE = 16,
    REG_QUEUE_READY = 17,
    REG_QUEUE_NOTIFY = 20,
    REG_INTERRUPT_STATUS = 24,
    REG_INTERRUPT_ACK = 25,
    REG_STATUS = 28,
    REG_QUEUE_DESCRIPTORS = 32,
    REG_QUEUE_AVAILABLE = 36,
    REG_QUEUE_USED = 40,
};
enum { STATUS_ACKNOWLEDGE = 1, STATUS_DRIVER = 2, STATUS_DRIVER_OK = 4, STATUS_FEATURES_OK = 8 };
enum { FLAG_NEXT = 1, FLAG_WRITE = 2, RING = 2, PAGE = 4096, USED_OFFSET = 1024 };
#define FEATURE_EVENT_INDEX (UINT64_C(1) << 29)
#define FEATURE_VERSION_1   (UINT64_C(1) << 32)

static uint64_t read_features(volatile uint32_t *r)
{
    uint64_t low;

    r[REG_DEVICE_FEATURES_SELECT] = 0;
    low = r[REG_DEVICE_FEATURES];
    r[REG_DEVICE_FEATURES_SELECT] = 1;
    return low | (uint64_t)r[REG_DEVICE_FEATURES] << 32;
}

/* What the monitor has told of the device there; NULL: nothing. */
static const struct boot_facts *facts_of(uint64_t address, uint32_t *ret_index)
{
    for (uint32_t i = 0; boot.flags & BOOT_FACTS && i < boot.device_count && i < BOOT_DEVICE_MAX; i++) {
        if (boot.devices[i].address == address) {
            *ret_index = i;
            return &boot.facts[i];
        }
    }
    return NULL;
}

uint64_t virtio_offers(uint64_t address, uint32_t kind)
{
    volatile uint32_t *r = (volatile uint32_t *)address;
    uint32_t index;
    const struct boot_facts *facts = facts_of(address, &index);

    if (facts)
        return boot.devices[index].kind == kind ? facts->features : 0;

    if (r[REG_MAGIC] != 0x74726976 || (r[REG_VERSION] != 2 && r[REG_VERSION] != 1) || r[REG_DEVICE_ID] != kind)
        return 0;
    return read_features(r);
}

/* Version 1 is the legacy interface (virtio 1.2, 4.2.4), which QEMU has unless told otherwise. */
bool virtio_begin(struct virtio *device, uint64_t address, uint32_t kind, uint64_t wanted)
{
    volatile uint32_t *r = (volatile uint32_t *)address;
    uint64_t needed = FEATURE_EVENT_INDEX;

    device->features = virtio_offers(address, kind) & (wanted | FEATURE_VERSION_1 | FEATURE_EVENT_INDEX);
    if (!device->features)
        return false;
    device->registers = r;
    device->facts = facts_of(address, &device->setup.device);
    if (device->facts) {
        device->setup.features = device->features;
        needed |= FEATURE_VERSION_1;
        return (device->features & needed) == needed;
    }
    device->legacy = r[REG_VERSION] == 1;
    if (device->legacy)
        device->features &= ~FEATURE_VERSION_1;
    else
        needed |= FEATURE_VERSION_1;
    r[REG_STATUS] = 0;
    r[REG_STATUS] = STATUS_ACKNOWLEDGE | STATUS_DRIVER;
    if ((device->features & needed) != needed)
        return false;
    r[REG_DRIVER_FEATURES_SELECT] = 0;
    r[REG_DRIVER_FEATURES] = (uint32_t)device->features;
    if (device->legacy) {
        r[REG_LEGACY_PAGE_SIZE] = PAGE;
        return true;
    }
    r[REG_DRIVER_FEATURES_SELECT] = 1;
    r[REG_DRIVER_FEATURES] = (uint32_t)(device->features >> 32);
    r[REG_STATUS] = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;
    return (r[REG_STATUS] & STATUS_FEATURES_OK) != 0;
}

bool virtio_find(struct virtio *device, uint32_t kind, uint64_t wanted)
{
    for (uint32_t i = 0; i < boot.device_count && i < BOOT_DEVICE_MAX; i++) {
        if (boot.devices[i].kind != kind && boot.devices[i].kind != 0)
            continue;
        if (virtio_begin(device, boot.devices[i].address, kind, wanted)) {
            device->acknowledge = !(boot.flags & BOOT_DIRECT);
            return true;
        }
    }
    return false;
}

uint8_t virtio_config(const struct virtio *device, unsigned offset)
{
    volatile uint8_t *config = (volatile uint8_t *)device->registers + 0x100;

    return device->facts && offset < sizeof(device->facts->config) ? device->facts->config[offset] : config[offset];
}

static void set_address(volatile uint32_t *r, unsigned reg, const volatile void *address)
{
    r[reg] = (uint32_t)(uint64_t)address;
    r[reg + 1] = (uint32_t)((uint64_t)address >> 32);
}

static uint32_t queue_size_max(const struct virtio *device, uint16_t index)
{
    if (device->facts)
        return device->facts->queue_size;
    device->registers[REG_QUEUE_SELECT] = index;
    return device->registers[REG_QUEUE_SIZE_MAX];
}

static void tell_queue(struct virtio *device, struct virtq *q)
{
    volatile uint32_t *r = device->registers;

    if (device->facts) {
        device->setup.queue_size = VQ_SIZE;
        device->setup.queue_count = q->index + 1u;
        device->setup.queues[q->index] =
            (struct boot_queue){(uint64_t)q->descriptors, (uint64_t)q->available, (uint64_t)q->used};
        return;
    }
    r[REG_QUEUE_SIZE] = VQ_SIZE;
    if (device->legacy) {
        r[REG_LEGACY_QUEUE_ALIGN] = USED_OFFSET;
        r[REG_LEGACY_QUEUE_PAGE] = (uint32_t)((uint64_t)q->descriptors / PAGE);
        return;
    }
    set_address(r, REG_QUEUE_DESCRIPTORS, q->descriptors);
    set_address(r, REG_QUEUE_AVAILABLE, q->available);
    set_address(r, REG_QUEUE_USED, q->used);
    r[REG_QUEUE_READY] = 1;
}

/* One page holds the descriptors, the next both rings: the legacy layout for an alignment of USED_OFFSET. */
bool virtio_queue(struct virtio *device, struct virtq *q, uint16_t index)
{
    uint8_t *rings;

    if (index >= BOOT_QUEUE_MAX || queue_size_max(device, index) < VQ_SIZE)
        return false;
    __builtin_memset(q, 0, sizeof(*q));
    q->device = device;
    q->index = index;
    q->size = VQ_SIZE;
    rings = heap_page(); /* pages of a heap that none was given back to yet come downwards, side by side */
    q->descriptors = heap_page();
    if (!q->descriptors || !rings || (device->legacy && (uint8_t *)q->descriptors + PAGE != rings))
        return false;
    __builtin_memset(rings, 0, PAGE);
    q->available = (volatile uint16_t *)rings;
    q->used = (volatile uint16_t *)(rings + USED_OFFSET);
    for (uint16_t i = 0; i < VQ_SIZE; i++)
        q->descriptors[i].next = (uint16_t)(i + 1);
    q->free_count = VQ_SIZE;
    tell_queue(device, q);
    device->queues[device->queue_count++] = q;
    return true;
}

/* The monitor looks at the queues itself (PORT_DEVICE); a device set up by registers is notified. */
void virtio_ready(struct virtio *device)
{
    device->ready = true;
    if (device->facts) {
        for (unsigned i = 0; i < device->queue_count; i++)
            device->queues[i]->notified = device->queues[i]->next_available;
        port_out(PORT_DEVICE, (uint32_t)(uint64_t)&device->setup);
        if (!(device->setup.status & STATUS_DRIVER_OK))
            unikernel_panic("the monitor refused a device");
        return;
    }
    device->registers[REG_STATUS] =
        STATUS_ACKNOWLEDGE | STATUS_DRIVER | (device->legacy ? 0u : (unsigned)STATUS_FEATURES_OK) | STATUS_DRIVER_OK;
    for (unsigned i = 0; i < device->queue_count; i++)
        virtq_publish(device->queues[i]);
}

void virtio_acknowledge(struct virtio *device)
{
    if (device->acknowledge)
        device->registers[REG_INTERRUPT_ACK] = device->registers[REG_INTERRUPT_STATUS];
}

bool virtq_add(struct virtq *q, const struct virtq_segment *segments, unsigned count, void *token)
{
    uint16_t head = q->free_head, at = head;

    if (count == 0 || count > q->free_count)
        return false;
    for (unsigned i = 0; i < count; i++) {
        struct virtq_descriptor *d = &q->descriptors[at];
        d->address = (uint64_t)segments[i].address;
        d->length = segments[i].length;
        d->flags = (uint16_t)((segments[i].device_writes ? FLAG_WRITE : 0) | (i + 1 < count ? FLAG_NEXT : 0));
        at = d->next;
    }
    q->free_head = at;
    q->free_count = (uint16_t)(q->free_count - count);
    q->tokens[head] = token;
    q->available[RING + q->next_available % q->size] = head;
    q->next_available++;
    return true;
}

/* Notifies when the device's avail_event lies among what was added since the last time (virtio 1.2, 2.7.10). */
void virtq_publish(struct virtq *q)
{
    uint16_t before = q->notified, now = q->next_available;

    if (before == now)
        return;
    __atomic_store_n(&q->available[1], now, __ATOMIC_RELEASE);
    if (!q->device->ready)
        return;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    uint16_t event = q->used[RING + 4 * q->size];
    q->notified = now;
    if ((uint16_t)(now - event - 1) < (uint16_t)(now - before))
        q->device->registers[REG_QUEUE_NOTIFY] = q->index;
}

void virtq_notify(struct virtq *q)
{
    q->device->registers[REG_QUEUE_NOTIFY] = q->index;
}

void *virtq_take(struct virtq *q, uint32_t *ret_length)
{
    volatile uint32_t *entry;
    uint16_t head, last;
    unsigned count = 1;

    if (__atomic_load_n(&q->used[1], __ATOMIC_ACQUIRE) == q->last_used)
        return NULL;
    entry = (volatile uint32_t *)(q->used + RING) + 2 * (q->last_used % q->size);
    head = (uint16_t)entry[0];
    *ret_length = entry[1];
    q->last_used++;
    for (last = head; q->descriptors[last].flags & FLAG_NEXT; last = q->descriptors[last].next)
        count++;
    q->descriptors[last].next = q->free_head;
    q->free_head = head;
    q->free_count = (uint16_t)(q->free_count + count);
    return q->tokens[head];
}

void virtq_interrupts(struct virtq *q, bool on)
{
    /* used_event: interrupt when the used index passes it; half a ring behind means not for a long time. */
    q->available[RING + q->size] = on ? q->last_used : (uint16_t)(q->last_used - 1);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
