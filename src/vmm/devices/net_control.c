/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net's control queue (virtio 1.2, 5.1.6.5): the number of queue pairs in use, and receive offloads switched at
 * run time. A command is copied before it is looked at; what is not known, too short or not negotiated is answered with
 * an error, which costs the driver nothing. Device thread.
 */
#include <string.h>

#include "vmm/devices/net_internal.h"

enum { COMMAND_MAX = 16, COMMANDS_A_ROUND = 16 };

struct command {
    uint8_t class, command;
    uint8_t data[COMMAND_MAX];
    size_t data_bytes;
};

static const uint64_t guest_offloads = NET_F(GUEST_CSUM) | NET_F(GUEST_TSO4) | NET_F(GUEST_TSO6) | NET_F(GUEST_ECN) |
                                       NET_F(GUEST_UFO) | NET_F_GUEST_USO4 | NET_F_GUEST_USO6;

unsigned net_control_queue(const struct net *n)
{
    return n->device.accepted & NET_F(MQ) ? 2 * n->pairs : 2;
}

static bool set_pairs(struct net *n, const struct command *c)
{
    uint16_t wanted;

    if (!(n->device.accepted & NET_F(MQ)) || c->command != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET ||
        c->data_bytes < sizeof(wanted))
        return false;
    memcpy(&wanted, c->data, sizeof(wanted));
    if (wanted < 1 || wanted > n->pairs)
        return false;
    unsigned before = n->active;
    n->active = wanted;
    if (n->back_end->set_pairs(n) == 0)
        return true;
    n->active = before;
    return false;
}

/* Only what was negotiated can be switched (5.1.6.5.6.2). */
static bool set_offloads(struct net *n, const struct command *c)
{
    uint64_t wanted, before = n->offloads;

    if (!(n->device.accepted & NET_F(CTRL_GUEST_OFFLOADS)) || c->command != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET ||
        c->data_bytes < sizeof(wanted))
        return false;
    memcpy(&wanted, c->data, sizeof(wanted));
    if (wanted & ~(n->device.accepted & guest_offloads))
        return false;
    n->offloads = wanted;
    if (n->back_end->set_offloads(n) == 0)
        return true;
    n->offloads = before;
    return false;
}

static bool carry_out(struct net *n, const struct command *c)
{
    switch (c->class) {
    case VIRTIO_NET_CTRL_MQ:
        return set_pairs(n, c);
    case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
        return set_offloads(n, c);
    default:
        return false;
    }
}

void net_control(struct net *n, unsigned queue)
{
    struct virtqueue *q = &n->device.queues[queue].ring;
    struct virtqueue_chain chain;
    int r = 0;

    for (unsigned i = 0; i < COMMANDS_A_ROUND && (r = virtqueue_pop(q, &chain)) > 0; i++) {
        struct command c = {0};
        size_t got = virtqueue_chain_read(&chain, 0, &c, offsetof(struct command, data_bytes));
        bool whole = got >= offsetof(struct command, data);

        c.data_bytes = whole ? got - offsetof(struct command, data) : 0;
        uint8_t ack = whole && chain.writable_bytes > 0 && carry_out(n, &c) ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
        virtqueue_push(q, chain.head, (uint32_t)virtqueue_chain_write(&chain, 0, &ack, sizeof(ack)));
    }
    device_publish(&n->device, queue);
    if (r < 0)
        device_fail(&n->device, q->broken);
}
