/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the directory an entry belongs in, without ever leaving the layer. Used by tree.c; see tree.h for the idea.
 */
#ifndef CORACLE_UNPACK_WALK_H
#define CORACLE_UNPACK_WALK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "image/path.h"

struct walker {
    int root;                     /* the layer's directory, borrowed */
    uint64_t made, made_max;      /* directories made because no entry made them */
    char cached[IMAGE_PATH_SIZE]; /* parent that `cached_fd` was opened for */
    int cached_fd;                /* -1: nothing cached */
};

enum walk_flags {
    WALK_MAKE = 1,     /* missing directories are made, 0755, owner 0 */
    WALK_NO_LINKS = 2, /* a symbolic link on the way is IMAGE_PATH_ESCAPE */
};

/*
 * Opens the parent directory of path (clean, not ""), yields the last component in *ret_leaf (points into path). The
 * descriptor is the walker's and stays good until the next call. -ENOENT without *err when it is missing and WALK_MAKE
 * is not given.
 */
int walk_parent(struct walker *w, const char *path, unsigned int flags, int *ret_fd, const char **ret_leaf,
                struct error **err);

/* Opens a directory for good: path "" is the root. */
int walk_directory(struct walker *w, const char *path, unsigned int flags, int *ret_fd, struct error **err);

/* To be called before another layer begins. (Within one, what an entry removes is never the remembered directory: an
 * entry that could remove it has another parent and replaces what is remembered first.) */
void walk_forget(struct walker *w);

/* openat2 below root that follows no link at all and crosses no mount. Returns a descriptor or -errno. */
int open_beneath(int root, const char *path, uint64_t flags, uint64_t mode);

#endif
