/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network interfaces, addresses, routes and neighbours over rtnetlink: several requests gathered, one send, one answer
 * for all, the first failure named. Used by coracle-launcher (any thread; a batch and a socket by one thread at a
 * time).
 *
 * A socket belongs to the network namespace it was opened in, whatever the thread does later. The kernel carries out
 * every request of a batch even when an earlier one failed: after an error, delete what the batch was to make.
 */
#ifndef CORACLE_NETLINK_NETLINK_H
#define CORACLE_NETLINK_NETLINK_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    NETLINK_BATCH_BYTES = 8192,
    NETLINK_BATCH_MAX = 64, /* requests in one batch */
    NETLINK_NAME_SIZE = 16, /* IFNAMSIZ: an interface's name and its terminator */
};

/* An IPv4 or IPv6 address. */
struct netlink_address {
    uint8_t family; /* AF_INET or AF_INET6 */
    union {
        struct in_addr v4;
        struct in6_addr v6;
    };
};

/* Requests waiting to be sent. Large: on the stack of one function only. */
struct netlink_batch {
    _Alignas(8) uint8_t data[NETLINK_BATCH_BYTES];
    size_t used;
    unsigned count;
    uint32_t first_sequence;
    bool overflow;
};

/* Opens a socket in the network namespace of netns_fd, -1: in the caller's. The calling thread is back in its own
 * namespace afterwards. */
int netlink_open(int netns_fd, int *ret_fd, struct error **err);

/* The same for netfilter's messages, which the caller makes himself. */
int netlink_open_netfilter(int netns_fd, int *ret_fd, struct error **err);
/* Sets the hardware address of an interface in fd's namespace. By ioctl: a request of a batch would have the change
 * told to everybody twice. */
int netlink_set_mac(int fd, const char *name, const uint8_t mac[6], struct error **err);

/* fe80::/64 with the interface identifier of a hardware address (RFC 4291 appendix A). */
void netlink_link_local(const uint8_t mac[6], struct in6_addr *ret_address);

void netlink_begin(struct netlink_batch *batch);

/* Sends the batch and reads every answer. -errno of the first failed request, named in *err; -E2BIG when the batch
 * was too large, and then nothing was sent. An empty batch is no error. */
int netlink_commit(int fd, struct netlink_batch *batch, struct error **err);

/* A bridge without spanning tree and multicast snooping, still down. index: chosen by the caller; mtu 0: the kernel's
 * default. */
void netlink_bridge(struct netlink_batch *batch, const char *name, uint32_t index, const uint8_t mac[6], uint16_t mtu);

struct netlink_veth {
    const char *name;   /* of the end in the socket's namespace */
    uint32_t index;     /* its interface index; chosen by the caller, so that nothing need be asked */
    const uint8_t *mac; /* of that end; NULL: random */
    uint32_t master;    /* bridge it joins, 0: none */
    bool up;            /* raise this end */
    const char *peer_name;
    uint32_t peer_index;
    const uint8_t *peer_mac; /* NULL: random */
    int peer_netns_fd;       /* the peer is born there (moving it afterwards would cost 36 ms) */
    uint16_t mtu;
};
void netlink_veth(struct netlink_batch *batch, const struct netlink_veth *veth);

/* Raises an interface; automatic IPv6 addresses are switched off before, so that nothing is sent or answered. mac NULL:
 * unchanged. */
void netlink_up(struct netlink_batch *batch, uint32_t index, const uint8_t *mac);

/* Gives an interface that exists a hardware address, puts it on a bridge and raises it, silent as netlink_up(). mtu 0:
 * unchanged. */
void netlink_enslave(struct netlink_batch *batch, uint32_t index, uint32_t master, const uint8_t mac[6], uint16_t mtu);

/* Bridge port: no learning of source addresses (they are set by netlink_fdb(), so nobody can take another's). */
void netlink_port_static(struct netlink_batch *batch, uint32_t index);
/* Whether frames for all (broadcast, multicast) leave by this bridge port. */
void netlink_port_flood(struct netlink_batch *batch, uint32_t index, bool on);

/* Adds or replaces. Duplicate address detection is never done: addresses come from our own allocator. */
void netlink_address(struct netlink_batch *batch, uint32_t index, const struct netlink_address *address,
                     uint8_t prefix);

/* Default route; the gateway need not lie in a prefix of the interface. */
void netlink_default_route(struct netlink_batch *batch, uint32_t index, const struct netlink_address *gateway);

/* A route to a prefix by way of a gateway; remove: the reverse. */
void netlink_route(struct netlink_batch *batch, uint32_t index, const struct netlink_address *prefix, uint8_t length,
                   const struct netlink_address *gateway);
void netlink_route_remove(struct netlink_batch *batch, uint32_t index, const struct netlink_address *prefix,
                          uint8_t length);

/* A permanent neighbour entry, so that the first packet needs no question. */
void netlink_neighbour(struct netlink_batch *batch, uint32_t index, const struct netlink_address *address,
                       const uint8_t mac[6]);
void netlink_neighbour_remove(struct netlink_batch *batch, uint32_t index, const struct netlink_address *address);

/* A forwarding entry, one that does not age, of the bridge that the port index belongs to. */
void netlink_fdb(struct netlink_batch *batch, uint32_t index, const uint8_t mac[6]);

/* Slow (15 ms): only for what no dying namespace takes along. */
void netlink_delete(struct netlink_batch *batch, uint32_t index);

/* Index of an interface. -ENODEV with *err when there is none. */
int netlink_find(int fd, const char *name, uint32_t *ret_index, struct error **err);

struct netlink_stats {
    uint64_t rx_packets, rx_bytes, rx_dropped, tx_packets, tx_bytes, tx_dropped;
};
int netlink_stats(int fd, uint32_t index, struct netlink_stats *ret_stats, struct error **err);

/* Calls each(context, index, name, kind) for every interface; kind is "" for hardware and loopback. */
typedef void (*netlink_each)(void *context, uint32_t index, const char *name, const char *kind);
int netlink_list(int fd, netlink_each each, void *context, struct error **err);

#endif
