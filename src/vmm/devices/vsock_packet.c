/* SPDX-License-Identifier: Apache-2.0 */
/* See vsock_packet.h. Pure; called by vsock.c on the device thread, and by a fuzz target. */
#include "vmm/devices/vsock_packet.h"

#include "vmm/devices/vsock.h"

enum vsock_verdict vsock_parse(const struct virtqueue_chain *chain, uint64_t guest_cid, struct vsock_header *ret)
{
    struct vsock_header h;

    if (virtqueue_chain_read(chain, 0, &h, sizeof(h)) != sizeof(h))
        return VSOCK_BROKEN;
    *ret = h;
    if (h.source_cid != guest_cid || h.target_cid != VSOCK_CID_HOST)
        return VSOCK_DROP;
    if (h.operation == VSOCK_RESET)
        return h.length == 0 ? VSOCK_GOOD : VSOCK_DROP; /* a reset is never answered by one */
    if (h.type != VSOCK_TYPE_STREAM || h.operation == VSOCK_INVALID || h.operation > VSOCK_CREDIT_REQUEST)
        return VSOCK_REFUSE;
    if (h.length > chain->readable_bytes - sizeof(h) || (h.length > 0 && h.operation != VSOCK_DATA))
        return VSOCK_REFUSE; /* CVE-2019-18960: more announced than there is */
    return VSOCK_GOOD;
}
