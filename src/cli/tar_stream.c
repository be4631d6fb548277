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
    char *path;
    int fd; /* write end */
    struct error *err;
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

static int add_entry(struct tar_stream *s, struct archive *out, struct archive *disk, struct archive_entry *entry)
{
    size_t base = strlen(s->path);
    const char *path = archive_entry_pathname(entry);
    auto_free char *full = text_dup(path), *name = NULL;

    archive_read_disk_descend(disk);
    while (path[base] == '/')
        base++;
    if (!path[base])
        return 0;
    name = text_dup(path + base);
    archive_entry_set_pathname(entry, name);
    if (archive_write_header(out, entry) < ARCHIVE_WARN)
        return -EPIPE;
    if (archive_entry_filetype(entry) == AE_IFREG)
        return copy_content(out, full, archive_entry_size(entry), &s->err);
    return 0;
}

static int write_tree(struct tar_stream *s, struct archive *out, struct archive *disk)
{
    struct archive_entry *entry = archive_entry_new();
    int r = 0, next = ARCHIVE_OK;

    if (!entry || archive_read_disk_open(disk, s->path) != ARCHIVE_OK)
        r = error_set(&s->err, EIO, "INVALID_VALUE", "%s cannot be read: %s", s->path, archive_error_string(disk));
    while (r == 0 && (next = archive_read_next_header2(disk, entry)) != ARCHIVE_EOF) {
        if (next < ARCHIVE_WARN)
            r = error_set(&s->err, EIO, "INVALID_VALUE", "%s cannot be read: %s", s->path, archive_error_string(disk));
        else
            r = add_entry(s, out, disk, entry);
        archive_entry_clear(entry);
    }
    archive_entry_free(entry);
    return r;
}

/* A reader that went away shows as EPIPE, which is no error of this side. */
static void *writer(void *context)
{
    struct tar_stream *s = context;
    struct archive *out = archive_write_new(), *disk = archive_read_disk_new();

    archive_write_set_format_pax_restricted(out);
    archive_write_set_bytes_in_last_block(out, 1);
    archive_read_disk_set_symlink_physical(disk);
    if (archive_write_open_fd(out, s->fd) == ARCHIVE_OK && write_tree(s, out, disk) < 0)
        archive_write_fail(out);
    archive_write_free(out);
    archive_read_free(disk);
    s->fd = close_fd(s->fd);
    return NULL;
}

int tar_stream_open(const char *path, struct tar_stream **ret, int *ret_fd, struct error **err)
{
    struct tar_stream *s = text_alloc(1, sizeof(*s));
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0) {
        free(s);
        return error_set_errno(err, errno, "INTERNAL", "pipe");
    }
    s->path = text_dup(path);
    s->fd = fds[1];
    for (size_t n = strlen(s->path); n > 1 && s->path[n - 1] == '/'; n--)
        s->path[n - 1] = 0;
    if (pthread_create(&s->thread, NULL, writer, s) != 0) {
        close(fds[0]);
        close(fds[1]);
        free(s->path);
        free(s);
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
    free(s->path);
    free(s);
    return r;
}
