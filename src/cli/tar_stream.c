/* SPDX-License-Identifier: Apache-2.0 */
/* libarchive writes a pax tar into a pipe on a thread of its own; the main thread sends the other end. */
#include <stddef.h>

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/tar_stream.h"
#include "cli/text.h"

struct tar_stream {
    pthread_t thread;
    tar_writer write;
    void (*release)(void *context);
    void *context;
    int fd; /* write end */
    struct error *err;
};

/* ---- a directory */

struct tree {
    char *path;
    struct archive *out, *disk;
    struct error **err;
};

static int copy_content(struct archive *out, const char *path, int64_t size, struct error **err)
{
    static char buf[65536]; /* one writer at a time */
    auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0)
        return error_set_errno(err, errno, "INVALID_VALUE", "%s cannot be read", path);
    while (size > 0) {
        ssize_t n = read(fd, buf, sizeof(buf) < (uint64_t)size ? sizeof(buf) : (size_t)size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set(err, EIO, "INVALID_VALUE", "%s became shorter while it was being read", path);
        if (archive_write_data(out, buf, (size_t)n) < 0)
            return -EPIPE;
        size -= n;
    }
    return 0;
}

static int add_entry(struct tree *t, struct archive_entry *entry)
{
    size_t base = strlen(t->path);
    const char *path = archive_entry_pathname(entry);
    auto_free char *full = text_dup(path), *name = NULL;

    archive_read_disk_descend(t->disk);
    while (path[base] == '/')
        base++;
    if (!path[base])
        return 0;
    name = text_dup(path + base);
    archive_entry_set_pathname(entry, name);
    if (archive_write_header(t->out, entry) < ARCHIVE_WARN)
        return -EPIPE;
    if (archive_entry_filetype(entry) == AE_IFREG)
        return copy_content(t->out, full, archive_entry_size(entry), t->err);
    return 0;
}

static int unreadable(const struct tree *t)
{
    return error_set(t->err, EIO, "INVALID_VALUE", "%s cannot be read: %s", t->path, archive_error_string(t->disk));
}

static int write_tree(void *context, struct archive *out, struct error **err)
{
    struct tree t = {.path = context, .out = out, .disk = archive_read_disk_new(), .err = err};
    struct archive_entry *entry = archive_entry_new();
    int r = 0, next = ARCHIVE_OK;

    archive_read_disk_set_symlink_physical(t.disk);
    if (!entry || archive_read_disk_open(t.disk, t.path) != ARCHIVE_OK)
        r = unreadable(&t);
    while (r == 0 && (next = archive_read_next_header2(t.disk, entry)) != ARCHIVE_EOF) {
        r = next < ARCHIVE_WARN ? unreadable(&t) : add_entry(&t, entry);
        archive_entry_clear(entry);
    }
    archive_entry_free(entry);
    archive_read_free(t.disk);
    return r;
}

int tar_stream_open(const char *path, struct tar_stream **ret, int *ret_fd, struct error **err)
{
    char *copy = text_dup(path);

    for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
        copy[n - 1] = 0;
    return tar_stream_start(write_tree, free, copy, ret, ret_fd, err);
}

/* ---- the stream */

/* A reader that went away shows as EPIPE, which is no error of this side. */
static void *writer(void *context)
{
    struct tar_stream *s = context;
    struct archive *out = archive_write_new();

    archive_write_set_format_pax_restricted(out);
    archive_write_set_bytes_in_last_block(out, 1);
    if (archive_write_open_fd(out, s->fd) == ARCHIVE_OK && s->write(s->context, out, &s->err) < 0)
        archive_write_fail(out);
    archive_write_free(out);
    s->fd = close_fd(s->fd);
    return NULL;
}

static void stream_free(struct tar_stream *s)
{
    s->release(s->context);
    free(s);
}

int tar_stream_start(tar_writer write, void (*release)(void *context), void *context, struct tar_stream **ret,
                     int *ret_fd, struct error **err)
{
    struct tar_stream *s = text_alloc(1, sizeof(*s));
    int fds[2];

    s->write = write;
    s->release = release;
    s->context = context;
    if (pipe2(fds, O_CLOEXEC) < 0) {
        stream_free(s);
        return error_set_errno(err, errno, "INTERNAL", "pipe");
    }
    s->fd = fds[1];
    if (pthread_create(&s->thread, NULL, writer, s) != 0) {
        close(fds[0]);
        close(fds[1]);
        stream_free(s);
        return error_set(err, EAGAIN, "INTERNAL", "no thread can be started");
    }
    *ret = s;
    *ret_fd = fds[0];
    return 0;
}

int tar_stream_close(struct tar_stream *s, struct error **err)
{
    int r = 0;

    pthread_join(s->thread, NULL);
    if (s->err) {
        r = -s->err->errnum;
        if (err) {
            error_free(*err);
            *err = s->err;
        } else {
            error_free(s->err);
        }
    }
    stream_free(s);
    return r;
}
