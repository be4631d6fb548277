/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes the entries of layers as files beneath one directory and nowhere else: the sink of coracle-unpack.
 *
 * Theory of operation: a layer is filled in the directory ".partial" and renamed to its diff id when that is known to
 * be right. Each entry's parent is walked by hand, one component at a time, from the layer's own descriptor, with
 * openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV): a symbolic link met on the way is read and its
 * target walked as text, so that "lib -> usr/lib" or "var/run -> /run" stay inside the layer, and a link that climbs
 * above the layer's root is IMAGE_PATH_ESCAPE. The last component is never followed: what is there is removed and made
 * anew with O_EXCL. Nobody else writes here, so what was looked at is what is used.
 */
#ifndef CORACLE_UNPACK_TREE_H
#define CORACLE_UNPACK_TREE_H

#include "image/image.h"

struct tree;

/* base_fd: the directory to fill, borrowed. limits: implicit directories count as files, too. */
int tree_open(int base_fd, uint64_t files_max, struct tree **ret, struct error **err);
void tree_close(struct tree *); /* accepts NULL */

/* To be given to image_read() with the tree as sink. */
extern const struct image_sink_ops tree_ops;

/* What images ask for and do not get. */
struct tree_dropped {
    uint64_t devices; /* an instance's /dev is made by the runtime */
    uint64_t xattrs;  /* the file system refused them */
};
struct tree_dropped tree_get_dropped(const struct tree *);

#endif
