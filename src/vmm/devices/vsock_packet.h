/* SPDX-License-Identifier: Apache-2.0 */
/* The header of a vsock packet (virtio 1.2, 5.10.6) and what is checked of a guest's before anything believes it. */
#ifndef CORACLE_VMM_VSOCK_PACKET_H
#define CORACLE_VMM_VSOCK_PACKET_H

#include <stdint.h>

#include "virtqueue/queue.h"

enum vsock_operation {
    VSOCK_INVALID,
    VSOCK_REQUEST,
    VSOCK_RESPONSE,
    VSOCK_RESET,
    VSOCK_SHUTDOWN,
    VSOCK_DATA,
    VSOCK_CREDIT_UPDATE,
    VSOCK_CREDIT_REQUEST,
};

enum { VSOCK_TYPE_STREAM = 1, VSOCK_NO_MORE_RECEIVE = 1, VSOCK_NO_MORE_SEND = 2 };

struct vsock_header {
    uint64_t source_cid, target_cid;
    uint32_t source_port, target_port;
    uint32_t length;
    uint16_t type, operation;
    uint32_t flags;
    uint32_t buffer, forwarded; /* the sender's room for bytes, and how many of ours it has passed on */
} __attribute__((packed));

enum { VSOCK_HEADER_BYTES = 44 };
_Static_assert(sizeof(struct vsock_header) == VSOCK_HEADER_BYTES, "as the specification has it");

enum vsock_verdict {
    VSOCK_GOOD,
    VSOCK_DROP,   /* not from this guest, not to this host: nobody is answered */
    VSOCK_REFUSE, /* a reset is the answer */
    VSOCK_BROKEN, /* no driver sends this: the device stops */
};

/* Copies the header out of a chain the guest sent, once, and judges it. Good: length bytes of data lie in the chain
 * behind the header, and only data has a length. */
enum vsock_verdict vsock_parse(const struct virtqueue_chain *chain, uint64_t guest_cid, struct vsock_header *ret);

#endif
