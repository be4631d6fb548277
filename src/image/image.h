/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads an untrusted image archive: OCI layout, docker save or a plain root file system tar, and hands the entries of
 * its layers, lowest first, to a sink that writes them (or, in the fuzzer, does not).
 *
 * Called by coracle-unpack inside its sandbox. The caller has set an UTF-8 LC_CTYPE (names of pax headers are UTF-8)
 * and called digest_prepare(). What is checked before a sink sees it: every blob's digest and size, every diff id, the
 * platform, names (path.h), owners, kinds, and the bounds of struct image_limits.
 */
#ifndef CORACLE_IMAGE_IMAGE_H
#define CORACLE_IMAGE_IMAGE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "image/digest.h"
#include "image/guest.h"
#include "image/path.h"

enum {
    IMAGE_LAYER_MAX = 64,
    IMAGE_ID_MAX = 65536, /* owners are 0 to 65535: the width of an instance's id range */
    IMAGE_TEXT_SIZE = 256,
    IMAGE_XATTR_MAX = 32,
};

enum image_format { IMAGE_OCI, IMAGE_DOCKER, IMAGE_ROOTFS };

enum image_entry_kind {
    ENTRY_FILE,
    ENTRY_DIRECTORY,
    ENTRY_SYMLINK,
    ENTRY_HARDLINK,
    ENTRY_FIFO,
    ENTRY_DEVICE,
    ENTRY_WHITEOUT, /* path is what is hidden */
    ENTRY_OPAQUE,   /* path is the directory whose lower content is hidden */
};

struct image_xattr {
    const char *name;
    const void *value;
    size_t size;
};

struct image_entry {
    enum image_entry_kind kind;
    const char *path;   /* clean: no "..", no leading "/", "" for the root */
    const char *target; /* of a symbolic link as it is; of a hard link clean */
    mode_t mode;        /* permission bits, 07777 */
    uint32_t uid, gid;  /* below IMAGE_ID_MAX */
    int64_t mtime;
    uint32_t mtime_ns;
    uint64_t size; /* of a file, holes included */
    struct image_xattr xattrs[IMAGE_XATTR_MAX];
    size_t xattr_count;
};

/* Where layers go. Every callback returns 0 or -errno with *err. */
struct image_sink_ops {
    int (*layer_begin)(void *sink, bool lowest, struct error **err);
    int (*entry)(void *sink, const struct image_entry *, struct error **err);
    /* After ENTRY_FILE only; offset grows, gaps are holes. */
    int (*data)(void *sink, const void *bytes, size_t size, uint64_t offset, struct error **err);
    int (*file_end)(void *sink, struct error **err);
    int (*layer_end)(void *sink, const char *diff_id, struct error **err);
    /* An unlinked file to decompress an archive into; returns a descriptor the caller closes. */
    int (*scratch)(void *sink, struct error **err);
};

struct image_limits {
    uint64_t bytes_max; /* of all layers, uncompressed; of the unpacked files as well */
    uint64_t files_max;
    uint32_t seconds_max;
};

struct image_run {                      /* how to run it: the config object of the OCI image configuration */
    json_t *entrypoint, *command, *env; /* arrays of strings, or NULL */
    json_t *labels;                     /* object of strings, or NULL */
    json_t *exposed_ports;              /* array of "80/tcp", or NULL */
    char *user, *workdir;               /* NULL: none */
    int stop_signal;                    /* 0: none */
    struct image_guest guest;
};

struct image {
    enum image_format format;
    char
        digest[IMAGE_DIGEST_SIZE]; /* OCI: of the manifest; docker: of the configuration; rootfs: the layer's diff id */
    char name[IMAGE_TEXT_SIZE];    /* the archive's own reference, "" for none */
    char layers[IMAGE_LAYER_MAX][IMAGE_DIGEST_SIZE]; /* diff ids, lowest first, each once */
    size_t layer_count;
    uint64_t shipped_bytes, unpacked_bytes, files;
    struct image_run run;
    struct image_boot boot; /* meaningful for a machine only */
};

/* fd: the archive, a regular file. *ret is zeroed by the caller and freed with image_clear() after success. */
int image_read(int fd, const struct image_limits *, const struct image_sink_ops *, void *sink, struct image *ret,
               struct error **err);

void image_clear(struct image *);

/* The name of the format as the API says it. */
const char *image_format_name(enum image_format);

#endif
