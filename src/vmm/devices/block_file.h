/* SPDX-License-Identifier: Apache-2.0 */
/* What lies behind a virtio block device: a raw image, and for a private disk the sectors written since. */
#ifndef CORACLE_VMM_BLOCK_FILE_H
#define CORACLE_VMM_BLOCK_FILE_H

#include <sys/uio.h>

#include "vmm/devices/block.h"

enum { SECTOR = 512 };

/* An image with its overlay: a sparse memfd of the same size, and a bit for each sector that lies there. */
struct block_file {
    enum block_mode mode;
    int fd, overlay_fd;
    uint64_t sectors;
    uint64_t *written; /* bits; private disks only */
    bool changed;      /* a private disk that is not what its file is */
};

/* fd is taken over on success. */
int block_file_open(int fd, enum block_mode mode, struct block_file *ret, struct error **err);
void block_file_close(struct block_file *file);

/*
 * Device thread. [sector, sector + bytes / SECTOR) lies within the disk and segments hold exactly bytes, a multiple of
 * SECTOR; segments are used up. 0 or -errno.
 */
int block_file_read(struct block_file *file, uint64_t sector, struct iovec *segments, unsigned count, uint64_t bytes);
int block_file_write(struct block_file *file, uint64_t sector, struct iovec *segments, unsigned count, uint64_t bytes);
int block_file_flush(struct block_file *file);
int block_file_zero(struct block_file *file, uint64_t sector, uint64_t sectors);    /* reads as zeroes afterwards */
int block_file_discard(struct block_file *file, uint64_t sector, uint64_t sectors); /* nobody needs it any more */

/* The system calls of this mode, 0 at the end. */
const uint32_t *block_file_calls(enum block_mode mode);

#endif
