/* SPDX-License-Identifier: Apache-2.0 */
/* A vsock packet of any bytes, cut anywhere: what is called good has its data within the chain. Two first bytes: cuts.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/devices/vsock_packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct virtqueue_chain chain;
    struct vsock_header h;
    uint8_t *copy;
    size_t cuts[3];

    if (size < 2)
        return 0;
    size -= 2;
    copy = malloc(size + 1);
    memcpy(copy, data + 2, size);
    cuts[0] = data[0] < size ? data[0] : size;
    cuts[1] = data[1] < size - cuts[0] ? data[1] : size - cuts[0];
    cuts[2] = size - cuts[0] - cuts[1];
    chain = (struct virtqueue_chain){.readable_bytes = size};
    for (size_t i = 0, at = 0; i < 3; at += cuts[i++])
        if (cuts[i])
            chain.segments[chain.readable++] = (struct iovec){copy + at, cuts[i]};
    enum vsock_verdict verdict = vsock_parse(&chain, 3, &h);
    if (verdict == VSOCK_GOOD) {
        struct iovec parts[VIRTQUEUE_SEGMENT_MAX];
        uint64_t sum = 0;
        unsigned count = virtqueue_chain_slice(&chain, false, sizeof(h), h.length, parts);

        for (unsigned i = 0; i < count; i++)
            sum += parts[i].iov_len;
        if (sum != h.length || h.source_cid != 3 || h.target_cid != 2 || h.operation == 0 || h.operation > 7)
            abort();
    }
    if ((verdict == VSOCK_BROKEN) != (size < sizeof(h)))
        abort();
    free(copy);
    return 0;
}
