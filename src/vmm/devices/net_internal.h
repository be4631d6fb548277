/* SPDX-License-Identifier: Apache-2.0 */
/* What net.c (the device: registers, features, control queue) and its back ends (net_*.c) share. */
#ifndef CORACLE_VMM_NET_INTERNAL_H
#define CORACLE_VMM_NET_INTERNAL_H

#include <linux/virtio_net.h>

#include "vmm/devices/net.h"
#include "vmm/devices/vhost_user.h"

/* Newer than Debian 12's headers. */
#define NET_F_GUEST_USO4 VIRTIO_FEATURE(54)
#define NET_F_GUEST_USO6 VIRTIO_FEATURE(55)
#define NET_F_HOST_USO   VIRTIO_FEATURE(56)
#define NET_F(name)      VIRTIO_FEATURE(VIRTIO_NET_F_##name)

enum { NET_HEADER_BYTES = sizeof(struct virtio_net_hdr_mrg_rxbuf) };

struct net;

/* All are called with the device's lock held. */
struct net_back_end {
    const char *name;
    bool moves_data; /* its packets pass through this process: ready and notified exist */
    /* The driver is ready: features and rings are what the device says. */
    int (*start)(struct net *);
    void (*stop)(struct net *);
    /* net->offloads changed. NULL: they are fixed once the driver is ready, and the device does not offer more. */
    int (*set_offloads)(struct net *);
    /* net->active changed. */
    int (*set_pairs)(struct net *);
    void (*transmit)(struct net *, unsigned pair);
    bool (*receive)(struct net *, unsigned pair);
    void (*settle)(struct net *); /* the device thread is about to sleep; NULL: nothing was held back */
    void (*destroy)(struct net *);
};

extern const struct net_back_end net_tap, net_vhost, net_user;

struct net {
    struct device device;
    const struct net_back_end *back_end;
    uint8_t mac[6];
    uint16_t mtu;
    unsigned pairs, active; /* active: those the driver uses */
    bool link_up, started;
    bool cut; /* of a guest that is nobody yet: nothing passes */
    uint64_t offloads; /* GUEST_ feature bits in force */
    int tap_fds[NET_PAIR_MAX], vhost_fds[NET_PAIR_MAX];
    bool rx_starved[NET_PAIR_MAX];
    struct {
        unsigned packets, chains; /* published, the driver not told yet */
        uint64_t since_ns;
    } held[NET_PAIR_MAX];
    uint64_t ring_features; /* of the transport, that the back end knows */
    struct loop *loop;
    struct vhost_user user;
    int memory_fd; /* borrowed */
    struct net_counters counters;
};

static inline struct net *net_of(struct device *d)
{
    return (struct net *)d;
}

static inline struct virtqueue *net_rx(struct net *n, unsigned pair)
{
    return &n->device.queues[2 * pair].ring;
}

static inline struct virtqueue *net_tx(struct net *n, unsigned pair)
{
    return &n->device.queues[2 * pair + 1].ring;
}

/* Feature bits of the offloads a tap has; tap_fd -1: those that every tap has, without the cost of asking. */
uint64_t net_tap_features(int tap_fd);

/* What a back end outside needs before the sandbox closes; features it has not are no longer offered. */
int net_vhost_begin(struct net *n, const struct net_options *o, struct error **err);
int net_user_begin(struct net *n, const struct net_options *o, struct error **err);
int net_user_watch(struct net *n, struct error **err);

void net_change_link(struct net *n, bool up); /* lock held */

/* net_control.c: the driver's commands. */
void net_control(struct net *n, unsigned queue);
/* The queue the driver sends commands through: behind the pairs it knows of. */
unsigned net_control_queue(const struct net *n);

#endif
