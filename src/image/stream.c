/* SPDX-License-Identifier: Apache-2.0 */
/* The links of the chain a layer is read through; the theory of operation is in stream.h. Runs in coracle-unpack. */
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "image/path.h"
#include "image/stream.h"

enum { BLOCK_SIZE = 128 * 1024 };

/* Honest layers compress 2 to 20 times; deflate's own bound is 1032. Below the floor the ratio does no harm. */
static const uint64_t ratio_max = 200, ratio_floor = 256ull << 20;

ssize_t stream_read(struct stream *s, const void **ret_block, struct error **err)
{
    ssize_t n = s->read(s, ret_block, err);

    if (n > 0) {
        digest_update(s->tap, *ret_block, (size_t)n);
        s->count += (uint64_t)n;
    }
    return n;
}

int stream_drain(struct stream *s, struct error **err)
{
    const void *block;
    ssize_t n;

    do
        n = stream_read(s, &block, err);
    while (n > 0);
    return (int)n;
}

void stream_close(struct stream *s)
{
    if (!s)
        return;
    error_free(s->failed);
    s->close(s);
}

/* ---- the spool file ---- */

struct fd_stream {
    struct stream stream;
    int fd;
    uint64_t offset, size;
    char block[BLOCK_SIZE];
};

static ssize_t fd_read(struct stream *s, const void **ret_block, struct error **err)
{
    struct fd_stream *f = (struct fd_stream *)s;
    ssize_t n;

    do
        n = pread(f->fd, f->block, sizeof(f->block), (off_t)f->offset);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return error_set_errno(err, errno, "STORE_FAILED", "cannot read the uploaded archive");
    f->offset += (uint64_t)n;
    *ret_block = f->block;
    return n;
}

static int64_t fd_skip(struct stream *s, int64_t request)
{
    struct fd_stream *f = (struct fd_stream *)s;
    uint64_t left = f->size > f->offset ? f->size - f->offset : 0;
    uint64_t n = request < 0 ? 0 : (uint64_t)request < left ? (uint64_t)request : left;

    f->offset += n;
    s->count += n;
    return (int64_t)n;
}

static void fd_close(struct stream *s)
{
    free(s);
}

int stream_of_fd(int fd, uint64_t offset, struct stream **ret, struct error **err)
{
    struct fd_stream *f;
    struct stat st;

    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return error_set(err, EINVAL, "INTERNAL", "the archive is not a regular file");
    f = calloc(1, sizeof(*f));
    if (!f)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory to read the archive");
    f->stream = (struct stream){.read = fd_read, .skip = fd_skip, .close = fd_close};
    f->fd = fd;
    f->offset = offset;
    f->size = (uint64_t)st.st_size;
    *ret = &f->stream;
    return 0;
}

/* ---- libarchive on top of a stream ---- */

static ssize_t archive_pull(struct archive *a, void *context, const void **ret_block)
{
    struct stream *s = context;
    ssize_t n = stream_read(s, ret_block, &s->failed);

    if (n < 0) {
        archive_set_error(a, (int)-n, "read failed");
        return ARCHIVE_FATAL;
    }
    return n;
}

static la_int64_t archive_pass_over(struct archive *a, void *context, la_int64_t request)
{
    struct stream *s = context;

    (void)a;
    return s->skip && !s->tap ? s->skip(s, request) : 0;
}

int stream_archive_error(struct archive *a, struct stream *s, const char *what, struct error **err)
{
    char shown[IMAGE_PRINTABLE_SIZE];
    int errnum;

    if (s && s->failed) {
        errnum = s->failed->errnum;
        if (err && !*err)
            *err = take_ptr(s->failed);
        return -(errnum ? errnum : EINVAL);
    }
    if (archive_errno(a) == ENOMEM)
        return error_set(err, ENOMEM, "NO_MEMORY", "%s: no memory for the decompressor", what);
    error_set(err, EINVAL, "IMAGE_MALFORMED", "%s: %s", what,
              image_printable(archive_error_string(a) ? archive_error_string(a) : "unreadable", shown));
    error_hint(err, "give an OCI archive, a docker save archive or a root file system tar, whole and uncorrupted");
    return -EINVAL;
}

static int open_on(struct archive *a, struct stream *s, const char *what, struct error **err)
{
    if (archive_read_open2(a, s, NULL, archive_pull, archive_pass_over, NULL) != ARCHIVE_OK)
        return stream_archive_error(a, s, what, err);
    return 0;
}

int stream_open_tar(struct stream *s, struct archive **ret, struct error **err)
{
    auto_archive struct archive *a = archive_read_new();
    int r;

    if (!a)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a tar reader");
    archive_read_support_format_tar(a);
    archive_read_support_format_empty(a);
    r = open_on(a, s, "not a tar archive", err);
    if (r < 0)
        return r;
    *ret = take_ptr(a);
    return 0;
}

/* ---- a member of an archive ---- */

struct member_stream {
    struct stream stream;
    struct archive *archive;
    struct stream *below;
    char block[BLOCK_SIZE];
};

static ssize_t member_read(struct stream *s, const void **ret_block, struct error **err)
{
    struct member_stream *m = (struct member_stream *)s;
    ssize_t n = archive_read_data(m->archive, m->block, sizeof(m->block));

    if (n < 0)
        return stream_archive_error(m->archive, m->below, "the archive is damaged", err);
    *ret_block = m->block;
    return n;
}

static void member_close(struct stream *s)
{
    struct member_stream *m = (struct member_stream *)s;

    archive_read_free(m->archive);
    stream_close(m->below);
    free(m);
}

int stream_of_member(struct archive *a, struct stream *below, struct stream **ret, struct error **err)
{
    struct member_stream *m = calloc(1, sizeof(*m));

    if (!m) {
        archive_read_free(a);
        stream_close(below);
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory to read a member of the archive");
    }
    m->stream = (struct stream){.read = member_read, .close = member_close};
    m->archive = a;
    m->below = below;
    *ret = &m->stream;
    return 0;
}

/* ---- decompression ---- */

struct inflated_stream {
    struct stream stream;
    struct archive *archive;
    struct stream *below;
    struct image_budget *budget;
    bool empty;
    int64_t offset; /* the raw reader's; must have no holes */
};

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int check_budget(struct inflated_stream *f, size_t more, struct error **err)
{
    struct image_budget *b = f->budget;
    uint64_t made = f->stream.count + more;
    int r = 0;

    b->stream_bytes += more;
    if (b->stream_bytes > b->bytes_max)
        r = error_set(err, EFBIG, "IMAGE_TOO_LARGE", "the image unpacks to more than the %llu bytes allowed",
                      (unsigned long long)b->bytes_max);
    else if (made > ratio_floor && made / ratio_max > f->below->count)
        r = error_set(err, EFBIG, "IMAGE_TOO_LARGE", "a layer expands more than %llu times: a decompression bomb",
                      (unsigned long long)ratio_max);
    else if (now_ns() > b->deadline_ns)
        r = error_set(err, ETIME, "IMAGE_TOO_LARGE", "unpacking the image takes longer than allowed");
    if (r < 0)
        error_hint(err, "make the image smaller, or squash it and drop what it does not need");
    return r;
}

static ssize_t inflated_read(struct stream *s, const void **ret_block, struct error **err)
{
    struct inflated_stream *f = (struct inflated_stream *)s;
    int64_t offset = 0;
    size_t size = 0;
    int r;

    if (f->empty)
        return 0;
    do
        r = archive_read_data_block(f->archive, ret_block, &size, &offset);
    while (r == ARCHIVE_OK && size == 0);
    if (r == ARCHIVE_EOF)
        return 0;
    if (r != ARCHIVE_OK)
        return stream_archive_error(f->archive, f->below, "a compressed stream is damaged", err);
    if (offset != f->offset)
        return error_set(err, EINVAL, "IMAGE_MALFORMED", "a compressed stream has a hole");
    f->offset += (int64_t)size;
    r = check_budget(f, size, err);
    return r < 0 ? r : (ssize_t)size;
}

static void inflated_close(struct stream *s)
{
    struct inflated_stream *f = (struct inflated_stream *)s;

    if (f->archive)
        archive_read_free(f->archive);
    free(f);
}

/* Only what the library does itself: libarchive's other filters would start programs. */
static void support_filters(struct archive *a)
{
    archive_read_support_filter_gzip(a);
    archive_read_support_filter_bzip2(a);
    archive_read_support_filter_xz(a);
    archive_read_support_filter_lzma(a);
    archive_read_support_filter_zstd(a);
    archive_read_support_filter_lz4(a);
    archive_read_support_format_raw(a);
    archive_read_support_format_empty(a);
}

int stream_decompress(struct stream *below, struct image_budget *budget, struct stream **ret, bool *ret_compressed,
                      struct error **err)
{
    struct inflated_stream *f = calloc(1, sizeof(*f));
    auto_stream struct stream *owner = NULL;
    struct archive_entry *entry;
    int r;

    if (!f)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a decompressor");
    f->stream = (struct stream){.read = inflated_read, .close = inflated_close};
    f->below = below;
    f->budget = budget;
    owner = &f->stream;
    f->archive = archive_read_new();
    if (!f->archive)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a decompressor");
    support_filters(f->archive);
    r = open_on(f->archive, below, "unreadable", err);
    if (r < 0)
        return r;
    if (archive_filter_count(f->archive) > 2)
        return error_set(err, EINVAL, "IMAGE_MALFORMED", "an archive is compressed more than once");
    r = archive_read_next_header(f->archive, &entry);
    if (r == ARCHIVE_EOF)
        f->empty = true;
    else if (r != ARCHIVE_OK)
        return stream_archive_error(f->archive, below, "unreadable", err);
    if (ret_compressed)
        *ret_compressed = archive_filter_count(f->archive) > 1;
    *ret = take_ptr(owner);
    return 0;
}
