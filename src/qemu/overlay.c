/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The qcow2 that QEMU finds under a private disk: header, one block of reference counts, an empty L1 table. QEMU fills
 * in the rest as the guest writes. Called at LOAD.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "qemu/overlay.h"

enum {
    CLUSTER_BITS = 16,
    CLUSTER = 1 << CLUSTER_BITS,
    L2_COVERS_BITS = CLUSTER_BITS + CLUSTER_BITS - 3, /* one L1 entry: a cluster of 8-byte entries */
    REFCOUNT_ORDER = 4,                               /* 16 bits each */
    FIRST_CLUSTERS = 3,                               /* header, table of reference counts, their first block */
    DIRTY = 1,
    CORRUPT = 2,
    DATA_FILE = 4, /* incompatible features */
    KNOWN_FEATURES = 31,
};
#define QCOW2_MAGIC 0x514649fbu
#define VIRTUAL_MAX (UINT64_C(1) << 44)

struct header { /* big-endian */
    uint32_t magic, version;
    uint64_t backing_offset;
    uint32_t backing_size, cluster_bits;
    uint64_t size;
    uint32_t crypt, l1_entries;
    uint64_t l1_offset, refcount_offset;
    uint32_t refcount_clusters, snapshots;
    uint64_t snapshots_offset, incompatible, compatible, autoclear;
    uint32_t refcount_order, header_bytes;
};
_Static_assert(sizeof(struct header) == QCOW2_HEADER_BYTES, "as the format has it");

static int put(int fd, const void *bytes, size_t size, uint64_t at, struct error **err)
{
    ssize_t n = pwrite(fd, bytes, size, (off_t)at);

    return n == (ssize_t)size ? 0 : error_set_errno(err, n < 0 ? errno : ENOSPC, "NO_MEMORY", "a private disk");
}

int overlay_create(uint64_t bytes, struct error **err)
{
    const uint64_t size = (bytes + 511) & ~UINT64_C(511);
    const uint64_t entries = (size + (UINT64_C(1) << L2_COVERS_BITS) - 1) >> L2_COVERS_BITS;
    const uint64_t clusters = (entries * 8 + CLUSTER - 1) >> CLUSTER_BITS;
    const struct header h = {.magic = htobe32(QCOW2_MAGIC),
                             .version = htobe32(3),
                             .cluster_bits = htobe32(CLUSTER_BITS),
                             .size = htobe64(size),
                             .l1_entries = htobe32((uint32_t)entries),
                             .l1_offset = htobe64((uint64_t)FIRST_CLUSTERS * CLUSTER),
                             .refcount_offset = htobe64(CLUSTER),
                             .refcount_clusters = htobe32(1),
                             .refcount_order = htobe32(REFCOUNT_ORDER),
                             .header_bytes = htobe32(sizeof(h))};
    const uint64_t block = htobe64(UINT64_C(2) * CLUSTER);
    auto_fd int fd = -1;
    int r = 0;

    if (bytes == 0 || bytes > VIRTUAL_MAX)
        return error_set(err, EINVAL, "IMAGE_MALFORMED", "a disk of %llu bytes", (unsigned long long)bytes);
    fd = memfd_create("coracle-overlay", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)((FIRST_CLUSTERS + clusters) << CLUSTER_BITS)) < 0)
        return error_set_errno(err, errno, "NO_MEMORY", "a private disk");
    r = put(fd, &h, sizeof(h), 0, err);
    if (r == 0)
        r = put(fd, &block, sizeof(block), CLUSTER, err);
    for (uint64_t i = 0; i < FIRST_CLUSTERS + clusters && r == 0; i++) {
        const uint16_t one = htobe16(1);
        r = put(fd, &one, sizeof(one), UINT64_C(2) * CLUSTER + i * sizeof(one), err);
    }
    return r < 0 ? r : take_fd(&fd);
}

static int refuse(struct error **err, const char *what)
{
    return error_set(err, EINVAL, "IMAGE_MALFORMED", "disk: the qcow2 image %s", what);
}

int qcow2_check(const uint8_t *bytes, size_t size, uint64_t file_bytes, uint64_t *ret_bytes, struct error **err)
{
    struct header h = {0};

    if (size < 72)
        return refuse(err, "is truncated");
    memcpy(&h, bytes, size < sizeof(h) ? size : sizeof(h));
    uint32_t version = be32toh(h.version), cluster_bits = be32toh(h.cluster_bits), l1 = be32toh(h.l1_entries);
    uint64_t l1_at = be64toh(h.l1_offset), virtual = be64toh(h.size), features = 0;

    if (be32toh(h.magic) != QCOW2_MAGIC)
        return refuse(err, "does not begin as one (is it raw?)");
    if (version != 2 && version != 3)
        return refuse(err, "has an unknown version");
    if (version == 3) {
        if (size < sizeof(h))
            return refuse(err, "is truncated");
        features = be64toh(h.incompatible);
    }
    if (h.backing_offset || h.backing_size) {
        refuse(err, "has a backing file");
        error_hint(err, "flatten it: qemu-img convert -O qcow2 IN OUT");
        return -EINVAL;
    }
    if (features & DATA_FILE)
        return refuse(err, "keeps its data in another file");
    if ((features & CORRUPT) || (features & ~(uint64_t)KNOWN_FEATURES))
        return refuse(err, "is marked as damaged, or uses features that are not known here");
    if (h.crypt)
        return refuse(err, "is encrypted");
    if (cluster_bits < 9 || cluster_bits > 21 || virtual == 0 || virtual > VIRTUAL_MAX)
        return refuse(err, "has an impossible size");
    if (l1_at > file_bytes || (uint64_t)l1 * 8 > file_bytes - l1_at)
        return refuse(err, "is truncated: its tables lie behind its end");
    *ret_bytes = virtual;
    return 0;
}
