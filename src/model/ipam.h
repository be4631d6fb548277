/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses of one network: which are taken, which is next. Pure: the daemon persists what it hands out.
 *
 * The lowest free address is given (so a test knows it); the same number serves IPv4 and IPv6 where both are free.
 */
#ifndef CORACLE_MODEL_IPAM_H
#define CORACLE_MODEL_IPAM_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct ipam;

struct subnet {
    struct in_addr ipv4, gateway4;   /* network address and the platform's own */
    uint8_t prefix4;                 /* 0: no IPv4; else 8 to 30 */
    struct in6_addr ipv6, gateway6;
    uint8_t prefix6;                 /* 0: no IPv6; else 48 to 120 */
};

/* "198.18.0.0/16" and "fd00::/64" (either may be NULL) to a checked subnet; the gateway is the first address.
 * INVALID_VALUE for bits beyond the prefix, prefixes out of bounds, addresses that are not unicast. */
int subnet_parse(const char *ipv4_cidr, const char *ipv6_cidr, struct subnet *ret, struct error **err);

/* True when the two share an address. */
bool subnet_overlaps(const struct subnet *a, const struct subnet *b);

int ipam_new(const struct subnet *, struct ipam **ret, struct error **err);
void ipam_free(struct ipam *); /* accepts NULL */

/* Takes addresses: those asked for (not zero), else the lowest free. ADDRESS_TAKEN, ADDRESS_POOL_EXHAUSTED,
 * INVALID_VALUE (outside the network). Nothing is taken on failure. */
int ipam_take(struct ipam *, struct in_addr asked4, const struct in6_addr *asked6, struct in_addr *ret4,
              struct in6_addr *ret6, struct error **err);

/* Gives back what ipam_take() gave. */
void ipam_give(struct ipam *, struct in_addr ipv4, const struct in6_addr *ipv6);

/* Locally administered, the same for the same network and address, different within a network. */
void ipam_mac(const char *network, struct in_addr ipv4, const struct in6_addr *ipv6, uint8_t ret_mac[6]);

#endif
