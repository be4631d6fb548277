/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of contents of an uncompressed archive: where each member begins, so that blobs are read in any order.
 *
 * Theory of operation: the first pass walks the headers and skips the data (lseek, no reads) and decides what kind of
 * archive this is; it stops at once when a member shows that it is a root file system. A member is read later by
 * opening a new tar reader at the offset of its header. Used by image.c in coracle-unpack.
 */
#ifndef CORACLE_IMAGE_MEMBERS_H
#define CORACLE_IMAGE_MEMBERS_H

#include "image/stream.h"

struct member {
    char *name;       /* clean, owned */
    char *link;       /* clean target of a link inside the archive, owned; NULL for a plain file */
    int64_t position; /* of its header */
    uint64_t size;
};

struct members {
    int fd; /* borrowed */
    struct member *list;
    size_t count, room;
    bool rootfs; /* a member was met that no image archive has: the table is not complete */
};

/* Walks s. The positions are offsets in what s yields; members_open() needs them to be offsets in fd. */
int members_scan(struct stream *s, int fd, struct members *ret, struct error **err);
void members_clear(struct members *);

/* The plain file behind name, links followed; NULL when there is none. */
const struct member *members_find(const struct members *, const char *name);

/* A stream of a member's data. IMAGE_MALFORMED when it is missing. */
int members_open(const struct members *, const char *name, struct stream **ret, uint64_t *ret_size, struct error **err);

/* A whole member of at most max bytes. */
int members_load(const struct members *, const char *name, size_t max, char **ret, size_t *ret_size,
                 struct error **err);

static inline void cleanup_members(struct members *m)
{
    members_clear(m);
}
#define auto_members __attribute__((cleanup(cleanup_members)))

#endif
