/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes a tree as an EROFS image, uncompressed: the kernel's own read-only file system (linux/fs/erofs/erofs_fs.h is
 * the specification; Documentation/filesystems/erofs.rst). The same tree gives the same bytes. Used by coracle-pack.
 *
 * Blocks of 4096 bytes. The superblock at 1024, then the inodes, each with its attributes and, where there is room in
 * its block, the last part of its content; behind them the whole blocks of content.
 */
#ifndef CORACLE_PACK_EROFS_H
#define CORACLE_PACK_EROFS_H

#include "pack/tree.h"

/* file: empty, writable. bytes_max: of the image. The content of regular files is read again from root_fd.
 * IMAGE_TOO_LARGE, NO_SPACE, STORE_FAILED. */
int erofs_write(struct node *root, int root_fd, int file, uint64_t bytes_max, struct error **err);

#endif
