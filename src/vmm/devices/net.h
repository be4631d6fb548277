/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-net over a tap with IFF_VNET_HDR: segmentation and checksums go through unchanged in both directions. */
#ifndef CORACLE_VMM_NET_H
#define CORACLE_VMM_NET_H

#include "vmm/devices/device.h"
#include "vmm/devices/loop.h"

struct net_counters {
    uint64_t tx_packets, tx_bytes, tx_dropped, rx_packets, rx_bytes, rx_waits; /* rx_waits: a packet found no buffer */
};

/* tap_fd: opened with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, header size 12 (TUNSETVNETHDRSZ), non-blocking; taken over. -1: no
 * wire, as in the template of a snapshot: what is sent is gone.
 */
int net_create(const struct guest_memory *memory, int tap_fd, const uint8_t mac[6], struct device **ret,
               struct error **err);
int net_attach(struct device *net, struct loop *loop, struct error **err);
struct net_counters net_counters(struct device *net);

#endif
