/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net (virtio 1.2, 5.1): one device, several ways for its packets. Over taps the device thread moves them; over
 * /dev/vhost-net the kernel does, over vhost-user another process, and this one sees none of them.
 * Segmentation and checksums go through unchanged in both directions.
 */
#ifndef CORACLE_VMM_NET_H
#define CORACLE_VMM_NET_H

#include "vmm/devices/device.h"
#include "vmm/devices/loop.h"

enum { NET_PAIR_MAX = 8 };

struct net_counters {
    uint64_t tx_packets, tx_bytes, tx_dropped, rx_packets, rx_bytes, rx_dropped;
    uint64_t rx_waits; /* a packet found no buffer */
};

struct net_options {
    uint8_t mac[6];
    uint16_t mtu;   /* told to the driver; 0: it is not */
    bool cut;       /* nothing passes until net_identify(), and the driver does not know: what it sends is dropped */
    bool control;   /* a control queue: offloads at run time, and needed for more than one pair */
    unsigned pairs; /* 1 to NET_PAIR_MAX queue pairs */
    /* Each: opened with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR (and IFF_MULTI_QUEUE for several), header of 12 bytes
     * (TUNSETVNETHDRSZ), non-blocking. All -1: a device without a wire. */
    int tap_fds[NET_PAIR_MAX];
    int vhost_fds[NET_PAIR_MAX]; /* /dev/vhost-net, one a pair; all -1: none */
    int user_fd;                 /* a connected stream socket to a vhost-user back end; -1: none. Then no taps. */
    int memory_fd;               /* borrowed: guest memory, sealed; for user_fd */
};

/* Options without any descriptor. */
struct net_options net_options_none(void);
/* The descriptors are taken over on success. */
int net_create(const struct guest_memory *memory, const struct net_options *options, struct device **ret,
               struct error **err);
int net_attach(struct device *net, struct loop *loop, struct error **err);
struct net_counters net_counters(struct device *net);
/* Tells the driver that the link went down or came up. Any thread. */
void net_set_link(struct device *net, bool up);
/* The wire of a cut device is joined, and the driver finds this address when it looks. What waits in the tap is looked
 * for when the driver notifies, or something else comes. Any thread. */
void net_identify(struct device *net, const uint8_t mac[6]);
/* A new socket to a vhost-user back end in place of one that went; socket is taken over in any case. Any thread. */
int net_reconnect(struct device *net, int socket, struct error **err);

#endif
