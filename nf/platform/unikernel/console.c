/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-console (virtio 1.2, 5.3), output only: one notification for what was gathered, where the early console takes
 * an exit a byte (PVH monitors) or a text (coracle-vmm). Text is copied into slots, for the device reads it later.
 */
#include "unikernel.h"

enum { SLOT_BYTES = 1024, SLOTS = 8, ALL_SLOTS = (1 << SLOTS) - 1, PATIENCE_NS = 100000000 };

static struct {
    struct virtio device;
    struct virtq queues[2]; /* receive, which is given no buffer; transmit */
    uint8_t *slots;
    uint32_t busy; /* bits */
    bool there;
} console;

bool console_init(void)
{
    if (!virtio_find(&console.device, VIRTIO_CONSOLE, 0))
        return false;
    console.slots = heap_pages(SLOTS * SLOT_BYTES / 4096);
    if (!console.slots || !virtio_queue(&console.device, &console.queues[0], 0) ||
        !virtio_queue(&console.device, &console.queues[1], 1))
        return false;
    virtq_interrupts(&console.queues[1], false);
    virtio_ready(&console.device);
    console.there = true;
    return true;
}

static void take_back(void)
{
    uint32_t length;
    uint8_t *slot;

    while ((slot = virtq_take(&console.queues[1], &length)))
        console.busy &= ~(1u << ((slot - console.slots) / SLOT_BYTES));
}

/* A device that does not read for that long loses text: the guest goes on. */
static void wait_while(uint32_t busy)
{
    uint64_t end = cpu_ns() + PATIENCE_NS;

    for (take_back(); busy && (console.busy & busy) == busy && cpu_ns() < end; take_back())
        __asm__ volatile("pause");
}

void console_settle(void)
{
    for (unsigned i = 0; console.there && i < SLOTS; i++)
        wait_while(console.busy & 1u << i);
}

bool console_send(const char *text, size_t size)
{
    if (!console.there)
        return false;
    while (size) {
        wait_while(ALL_SLOTS);
        if (console.busy == ALL_SLOTS)
            break;
        unsigned slot = (unsigned)__builtin_ctz(~console.busy);
        size_t part = size < SLOT_BYTES ? size : SLOT_BYTES;
        uint8_t *at = console.slots + slot * SLOT_BYTES;
        const struct virtq_segment segment = {at, (uint32_t)part, false};

        __builtin_memcpy(at, text, part);
        if (!virtq_add(&console.queues[1], &segment, 1, at))
            break;
        console.busy |= 1u << slot;
        text += part;
        size -= part;
    }
    virtq_publish(&console.queues[1]);
    return true;
}
