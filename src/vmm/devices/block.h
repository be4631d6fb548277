/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-blk over a raw image: read-only, writable, or private (the file is only read, writes stay in memory). */
#ifndef CORACLE_VMM_BLOCK_H
#define CORACLE_VMM_BLOCK_H

#include "vmm/devices/device.h"
#include "vmm/devices/loop.h"

enum block_mode {
    BLOCK_READ_ONLY,
    BLOCK_WRITABLE, /* file_fd is open for writing */
    BLOCK_PRIVATE,  /* what this guest writes is gone with it; the file is never written */
};

struct block_counters {
    uint64_t reads, read_bytes, writes, written_bytes, flushes, discards, errors;
};

/* file_fd: a raw image or a block device of at least one sector; taken over on success. serial: at most 20 bytes are
 * shown to the guest. */
int block_create(const struct guest_memory *memory, int file_fd, enum block_mode mode, const char *serial,
                 struct device **ret, struct error **err);
int block_attach(struct device *block, struct loop *loop, struct error **err);
struct block_counters block_counters(struct device *block);

#endif
