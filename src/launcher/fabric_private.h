/* SPDX-License-Identifier: Apache-2.0 */
/* What fabric.c (namespace, links) and wire.c (interfaces of instances) share; nobody else includes it. */
#ifndef CORACLE_LAUNCHER_FABRIC_PRIVATE_H
#define CORACLE_LAUNCHER_FABRIC_PRIVATE_H

#include <pthread.h>

#include "launcher/fabric.h"
#include "launcher/guard.h"

enum {
    FABRIC_FIRST_INDEX = 65536, /* interface index of v0.0; bridges lie below */
    PEER_FIRST_INDEX = 64,      /* of eth0 in an instance: above what a kernel puts into every namespace (sit0 ...) */
};

struct fabric_link {
    struct link link;
    uint32_t index;    /* of the bridge */
    uint32_t attached; /* interfaces of instances and of the pool */
    uint8_t mac[6];
};

struct fabric {
    int run_fd;
    int netns_fd;
    struct guard *guard;
    pthread_key_t socket_key;
    pthread_rwlock_t lock; /* guards what follows */
    struct fabric_link *links;
    size_t link_count;
    uint32_t next_index;
};

/* Under the lock; valid until it is released. */
struct fabric_link *fabric_find(struct fabric *fabric, const char *name);

/* Copies it. NETWORK_NOT_FOUND. */
int fabric_copy_link(struct fabric *fabric, const char *name, struct fabric_link *ret_link, struct error **err);
/* Interfaces of the fabric are made without IPv6; this one, which is no port, gets it. */
int fabric_allow_ipv6(const struct fabric *fabric, const char *device, struct error **err);
/* Index of the host end of interface i. */
uint32_t fabric_host_index(const struct fabric_ports *ports, uint32_t i);
struct guard_port fabric_guard_port(const struct fabric_ports *ports, uint32_t i, const struct fabric_link *link);

int fabric_links_save(struct fabric *fabric, struct error **err);
int fabric_links_load(struct fabric *fabric, struct error **err);

#endif
