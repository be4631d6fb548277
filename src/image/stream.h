/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pulled stream of bytes: the spool file, a member of an archive, what a decompressor makes of another stream.
 *
 * Theory of operation: a layer is read through a chain of three, spool or member -> decompressed -> tar entries. Each
 * link may carry a hash and a bound, so that blob digest, diff id and bomb checks see exactly the bytes that the next
 * link sees. A link that fails keeps its error; whoever drives the chain's end takes the innermost one.
 */
#ifndef CORACLE_IMAGE_STREAM_H
#define CORACLE_IMAGE_STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "image/digest.h"

struct archive;

/* What one import may cost, and what it has cost so far. */
struct image_budget {
    uint64_t bytes_max, files_max; /* of all layers together, as uncompressed tar and as unpacked files */
    uint64_t deadline_ns;          /* CLOCK_MONOTONIC */
    uint64_t stream_bytes;         /* decompressed so far */
    uint64_t file_bytes, files;    /* unpacked so far */
    uint32_t documents;            /* JSON documents read so far */
};

struct stream {
    /* Yields the next block, borrowed until the next call. 0 at the end, -errno with *err. */
    ssize_t (*read)(struct stream *, const void **ret_block, struct error **err);
    /* Skips at most request bytes; NULL: cannot. */
    int64_t (*skip)(struct stream *, int64_t request);
    void (*close)(struct stream *); /* frees the stream, not the one below */
    struct digest *tap;             /* owned by the maker of the chain; hashes what is read, may be NULL */
    struct error *failed;           /* owned: why a read from inside libarchive failed */
    uint64_t count;                 /* bytes yielded */
};

/* fd is borrowed and is read with pread from offset. */
int stream_of_fd(int fd, uint64_t offset, struct stream **ret, struct error **err);

/* The data of a's present entry. a is owned from now on, with the stream `below` it reads from (may be NULL). */
int stream_of_member(struct archive *a, struct stream *below, struct stream **ret, struct error **err);

/*
 * What below holds, decompressed (gzip, bzip2, xz, lzma, zstd, lz4 or nothing at all, by content; one level of it).
 * below is borrowed. Counts against budget and refuses a ratio no honest image has.
 */
int stream_decompress(struct stream *below, struct image_budget *budget, struct stream **ret, bool *ret_compressed,
                      struct error **err);

/* Reads one block, hashing and counting it. */
ssize_t stream_read(struct stream *s, const void **ret_block, struct error **err);

/* Reads what is left, for the sake of hash and count. */
int stream_drain(struct stream *s, struct error **err);

/* Accepts NULL. */
void stream_close(struct stream *s);

static inline void cleanup_stream(struct stream **s)
{
    stream_close(*s);
}
#define auto_stream __attribute__((cleanup(cleanup_stream)))

/* Opens a tar reader on s (borrowed). -errno with *err when it is no tar. */
int stream_open_tar(struct stream *s, struct archive **ret, struct error **err);

/* Turns a failure of a, which reads from s, into *err: s's own reason when it has one. Returns -errno. */
int stream_archive_error(struct archive *a, struct stream *s, const char *what, struct error **err);

static inline void cleanup_archive(struct archive **a);
#define auto_archive __attribute__((cleanup(cleanup_archive)))

#include <archive.h>
static inline void cleanup_archive(struct archive **a)
{
    if (*a)
        archive_read_free(*a);
}

#endif
