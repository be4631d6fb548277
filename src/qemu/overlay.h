/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private disks: an empty qcow2 image (QEMU's docs/interop/qcow2.txt, version 3) that takes a machine's writes, over a
 * file that is never written; and what may be believed of a qcow2 image that somebody brings.
 */
#ifndef CORACLE_QEMU_OVERLAY_H
#define CORACLE_QEMU_OVERLAY_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { QCOW2_HEADER_BYTES = 104 };

/* An empty image of that size in memory; the file names no backing file. Returns the descriptor or -errno. */
int overlay_create(uint64_t virtual_bytes, struct error **err);

/* Pure: the first bytes of a qcow2 image and the size of its file. Refuses images that name other files (a backing file
 * or external data would be read from the host), encrypted and damaged ones. */
int qcow2_check(const uint8_t *header, size_t size, uint64_t file_bytes, uint64_t *ret_virtual_bytes,
                struct error **err);

#endif
