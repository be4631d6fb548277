/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An element: one packet function, compiled unchanged into every technology.
 *
 * An element is const data and functions over one block of memory that the platform gives it. It calls nothing of an
 * operating system, allocates nothing, blocks never and keeps nothing outside its block, so that several may run in one
 * process. The platform (nf_element_run() in nf/platform/platform.h) brings batches of packets and takes them away:
 * over AF_PACKET in a Linux process, over virtio-net in a unikernel, later over rings in a switch.
 *
 * Order of calls: init() once; then process() for each batch, on one thread; read() at any time between batches.
 */
#ifndef CORACLE_NFV_ELEMENT_H
#define CORACLE_NFV_ELEMENT_H

#include <stddef.h>
#include <stdint.h>

#define NFV_ELEMENT_VERSION 1

enum {
    NFV_PORT_MAX = 8,
    NFV_BATCH_MAX = 64,
    NFV_HEADERS = 256, /* of a longer packet at least so many bytes lie at data */
    NFV_DROP = 0xff,   /* struct nfv_packet.out */
};

/* One packet of a batch. The element may change the bytes at data and `out`, and no byte beyond `length`. */
struct nfv_packet {
    uint8_t *data;     /* from the Ethernet header on, without checksum behind it; any alignment */
    uint32_t length;   /* bytes at data */
    uint32_t total;    /* of the packet; what is beyond length follows unseen */
    uint16_t segment;  /* payload bytes of each segment it will be cut into behind this element; 0: it is not */
    uint8_t in;        /* port it came from */
    uint8_t out;       /* NFV_DROP at first; process() sets the port it leaves by */
    /* The checksum of its TCP or UDP is not there yet, who sends it will fill it in: neither check it nor change it. */
    uint8_t unfinished;
};

struct nfv_port {
    uint8_t mac[6];
    uint16_t mtu; /* of IP packets; larger ones with segment set are cut to it */
};

struct nfv_element {
    uint32_t version; /* NFV_ELEMENT_VERSION */
    uint32_t ports;   /* how many it needs, 1 to NFV_PORT_MAX */
    const char *name, *usage;
    size_t state_size; /* the block, zeroed, aligned to 64 bytes */

    /* argv[0] is a name. 0; or the index of the argument that is wrong (0 < n <= argc: argc for one that is missing),
     * and *ret_problem is a static text that says what is wrong with it. */
    int (*init)(void *state, const struct nfv_port *ports, int argc, char *const *argv, const char **ret_problem);

    /* Decides on each of 1 to NFV_BATCH_MAX packets and changes it as it must be. */
    void (*process)(void *state, struct nfv_packet *packets, unsigned count);

    /* What it has counted: counter_count names, and a value for each. Every packet that process() saw is counted in
     * exactly one of the counters from first_outcome on. */
    unsigned counter_count, first_outcome;
    const char *const *counter_names;
    const uint64_t *(*read)(const void *state);
};

#endif
