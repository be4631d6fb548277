/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory tree with everything but the content of its regular files: names sorted, hard links found, attributes
 * kept. Nothing outside the directory is ever looked at: no link is followed, no mount is crossed. Used by
 * coracle-pack.
 */
#ifndef CORACLE_PACK_TREE_H
#define CORACLE_PACK_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/error.h"

struct attribute {
    char *name; /* "security.capability", "user.x" */
    void *value;
    size_t size;
};

struct node {
    char *name;             /* "" of the root */
    struct node *parent;    /* of the root itself */
    struct node *same;      /* the first name of this file; NULL: this is it */
    struct node **children; /* a directory's, sorted by the bytes of their names */
    size_t child_count;
    char *target;                 /* of a symbolic link */
    struct attribute *attributes; /* sorted as their names */
    size_t attribute_count;
    struct stat info; /* size, mode, owner, time */
    uint32_t links;
    /* the writer's (erofs.c) */
    uint64_t at, size; /* of the inode in the image; of the content */
    uint64_t block;    /* first whole block of content */
    uint32_t number, attribute_bytes;
    bool inlined; /* the last part stands behind the inode */
};

enum { TREE_DEPTH_MAX = 512 };

/* files_max: names in all. IMAGE_TOO_LARGE (files, depth), STORE_FAILED, NO_MEMORY. Whiteouts and devices are left out.
 */
int tree_read(int root_fd, uint64_t files_max, struct node **ret, struct error **err);
void tree_free(struct node *); /* accepts NULL */

/* Opens the regular file or directory name in directory; -errno. */
int tree_open(int directory, const char *name, bool is_directory);

#endif
