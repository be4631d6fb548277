/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-vsock (virtio 1.2, 5.10), as much as an agent needs (abi/agent.h): one stream at a time to its port, which is
 * greeted and told that the program serves; a line that asks for the end is taken, other lines are ignored. The host is
 * trusted to speak virtio, yet a packet of any content does no harm. Begun a moment after the program's start, so that
 * it costs no boot anything.
 */
#include "unikernel.h"

#include "abi/agent.h"

enum { REQUEST = 1, RESPONSE, RESET, SHUTDOWN, DATA, CREDIT_UPDATE, CREDIT_REQUEST };
enum { NO_MATCH = ~0u };
enum { QUEUE_RX, QUEUE_TX, TYPE_STREAM = 1, SLOT_BYTES = 128, RX_SLOTS = 8, TX_SLOTS = 8 };

struct packet {
    uint64_t source_cid, target_cid;
    uint32_t source_port, target_port;
    uint32_t length;
    uint16_t type, operation;
    uint32_t flags;
    uint32_t buffer, forwarded;
    uint8_t data[SLOT_BYTES - 44];
} __attribute__((packed));
_Static_assert(sizeof(struct packet) == SLOT_BYTES, "one a slot");

static struct {
    struct virtio device;
    struct virtq queues[2];
    struct packet *slots; /* of RX, then of TX */
    uint32_t free_tx;     /* bits */
    bool there, open, stop;
    uint32_t host_port, received;
    uint32_t matched; /* bytes of the line so far that are AGENT_POWEROFF's; NO_MATCH: it is another line */
} vsock;

static void offer(struct packet *p)
{
    const struct virtq_segment segment = {p, SLOT_BYTES, true};

    virtq_add(&vsock.queues[QUEUE_RX], &segment, 1, p);
}

void vsock_init(void)
{
    if (!virtio_find(&vsock.device, VIRTIO_VSOCK, 0))
        return;
    vsock.slots = heap_page();
    if (!vsock.slots || !virtio_queue(&vsock.device, &vsock.queues[QUEUE_RX], QUEUE_RX) ||
        !virtio_queue(&vsock.device, &vsock.queues[QUEUE_TX], QUEUE_TX))
        return;
    vsock.free_tx = (1u << TX_SLOTS) - 1;
    for (unsigned i = 0; i < RX_SLOTS; i++)
        offer(&vsock.slots[i]);
    virtq_interrupts(&vsock.queues[QUEUE_TX], false);
    virtq_interrupts(&vsock.queues[QUEUE_RX], true);
    virtq_publish(&vsock.queues[QUEUE_RX]);
    virtio_ready(&vsock.device);
    vsock.there = true;
}

/* The guest's own address: another one after a restore. */
static uint64_t own_cid(void)
{
    uint64_t cid = 0;

    for (unsigned i = 0; i < 8; i++)
        cid |= (uint64_t)virtio_config(&vsock.device, i) << (8 * i);
    return cid;
}

static bool room_for_answers(void)
{
    struct packet *p;
    uint32_t unused;

    while ((p = virtq_take(&vsock.queues[QUEUE_TX], &unused)))
        vsock.free_tx |= 1u << (p - vsock.slots - RX_SLOTS);
    return (vsock.free_tx & (vsock.free_tx - 1)) != 0; /* two: no packet has more answers */
}

/* to: the packet that is answered. There is a slot: no packet is taken without room for its answers. */
static void answer(const struct packet *to, uint16_t operation, const void *data, uint32_t length)
{
    unsigned slot = (unsigned)__builtin_ctz(vsock.free_tx);
    struct packet *p = &vsock.slots[RX_SLOTS + slot];
    *p = (struct packet){
        .source_cid = own_cid(),
        .target_cid = to->source_cid,
        .source_port = to->target_port,
        .target_port = to->source_port,
        .length = length,
        .type = TYPE_STREAM,
        .operation = operation,
        .buffer = RX_SLOTS * sizeof(p->data),
        .forwarded = vsock.received,
    };
    __builtin_memcpy(p->data, data, length);
    const struct virtq_segment segment = {p, 44 + length, false};
    if (virtq_add(&vsock.queues[QUEUE_TX], &segment, 1, p))
        vsock.free_tx &= ~(1u << slot);
    virtq_publish(&vsock.queues[QUEUE_TX]);
}

static void give_up(const struct packet *p)
{
    answer(p, RESET, NULL, 0);
    vsock.open = false;
}

static void take_data(const struct packet *p)
{
    uint32_t length = p->length < sizeof(p->data) ? p->length : sizeof(p->data);

    vsock.received += length;
    for (uint32_t i = 0; i < length; i++) {
        if (vsock.matched != NO_MATCH && p->data[i] == AGENT_POWEROFF[vsock.matched])
            vsock.matched++;
        else
            vsock.matched = NO_MATCH;
        vsock.stop |= vsock.matched == sizeof(AGENT_POWEROFF) - 1;
        if (p->data[i] == '\n')
            vsock.matched = 0;
    }
    answer(p, CREDIT_UPDATE, NULL, 0);
}

static void take_packet(const struct packet *p)
{
    bool ours = vsock.open && p->target_port == AGENT_VSOCK_PORT && p->source_port == vsock.host_port;

    if (p->operation == RESET) {
        if (ours)
            vsock.open = false;
    } else if (p->operation == REQUEST && p->target_port == AGENT_VSOCK_PORT && !vsock.open) {
        vsock.open = true;
        vsock.host_port = p->source_port;
        vsock.received = vsock.matched = 0;
        answer(p, RESPONSE, NULL, 0);
        answer(p, DATA, AGENT_HELLO AGENT_READY, sizeof(AGENT_HELLO AGENT_READY) - 1);
    } else if (!ours) {
        answer(p, RESET, NULL, 0);
    } else if (p->operation == DATA) {
        take_data(p);
    } else if (p->operation == CREDIT_REQUEST) {
        answer(p, CREDIT_UPDATE, NULL, 0);
    } else if (p->operation != CREDIT_UPDATE) {
        give_up(p);
    }
}

/* False: answers wait for the device, whose interrupt brings the guest back here. */
static bool may_take(void)
{
    if (room_for_answers())
        return true;
    virtq_interrupts(&vsock.queues[QUEUE_TX], true);
    return room_for_answers();
}

bool vsock_poll(void)
{
    struct packet *p;
    uint32_t length;
    bool any = false;

    if (!vsock.there)
        return false;
    while (may_take() && (p = virtq_take(&vsock.queues[QUEUE_RX], &length))) {
        take_packet(p);
        offer(p);
        any = true;
    }
    if (any) {
        virtq_publish(&vsock.queues[QUEUE_RX]);
        virtq_interrupts(&vsock.queues[QUEUE_RX], true);
        virtio_acknowledge(&vsock.device);
    }
    return any;
}

/* The host's streams are gone with the machine it ran on. */
void vsock_restored(void)
{
    vsock.open = false;
}

bool vsock_stop_wanted(void)
{
    return vsock.stop;
}
