/* SPDX-License-Identifier: Apache-2.0 */
/* What a bare kernel or disk is, from its first bytes: how it boots. The user's own files; used by image import. */
#ifndef CORACLE_CLI_GUEST_FILE_H
#define CORACLE_CLI_GUEST_FILE_H

#include "base/error.h"
#include "model/guest.h"

enum guest_file {
    FILE_UNKNOWN,
    FILE_CORACLE,   /* an image of include/abi/boot.h */
    FILE_PVH,       /* an ELF file with the note that names a PVH entry */
    FILE_ELF,       /* any other */
    FILE_MULTIBOOT, /* a multiboot header in its first 8 KiB */
    FILE_BZIMAGE,
    FILE_QCOW2,
    FILE_DISK,    /* a boot sector */
    FILE_ARCHIVE, /* a tar, or something compressed */
};

/* fd: a regular file, read with pread. */
enum guest_file guest_file_kind(int fd);

/* The way to boot such a file as this guest, or NULL when it cannot be seen from the file. */
const char *guest_file_boot(enum guest_file, enum image_variant);

#endif
