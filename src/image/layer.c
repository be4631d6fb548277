/* SPDX-License-Identifier: Apache-2.0 */
/* From libarchive's view of a tar entry to struct image_entry, with every check that needs no file system. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include <archive_entry.h>

#include "base/cleanup.h"
#include "image/layer.h"

struct reader {
    struct archive *archive;
    struct stream *tar;
    struct image_budget *budget;
    struct image_boot *boot;
    const struct image_sink_ops *ops;
    void *sink;
    char path[IMAGE_PATH_SIZE], target[IMAGE_PATH_SIZE];
    struct image_entry entry;
};

static int refuse(struct error **err, const char *code, const char *path, const char *why)
{
    char shown[IMAGE_PRINTABLE_SIZE];

    return error_set(err, EINVAL, code, "entry \"%s\": %s", image_printable(path, shown), why);
}

static int count_file(struct reader *r, struct error **err)
{
    struct image_budget *b = r->budget;
    uint64_t size = r->entry.kind == ENTRY_FILE ? r->entry.size : 0;

    if (++b->files > b->files_max) {
        error_set(err, EFBIG, "IMAGE_TOO_LARGE", "the image holds more than the %llu files allowed",
                  (unsigned long long)b->files_max);
        error_hint(err, "make the image smaller, or squash its layers");
        return -EFBIG;
    }
    if (size > b->bytes_max - b->file_bytes) {
        error_set(err, EFBIG, "IMAGE_TOO_LARGE", "the image's files are larger than the %llu bytes allowed",
                  (unsigned long long)b->bytes_max);
        error_hint(err, "make the image smaller; holes of sparse files count with their length");
        return -EFBIG;
    }
    b->file_bytes += size;
    return 0;
}

/* Only file capabilities and a program's own attributes; the rest means something to this host, not to the image. */
static void take_xattrs(struct archive_entry *e, struct image_entry *out)
{
    const char *name;
    const void *value;
    size_t size;

    archive_entry_xattr_reset(e);
    while (out->xattr_count < IMAGE_XATTR_MAX && archive_entry_xattr_next(e, &name, &value, &size) == ARCHIVE_OK) {
        if (!name || size > 65536)
            continue;
        if (strcmp(name, "security.capability") != 0 &&
            (strncmp(name, "user.", 5) != 0 || strncmp(name, "user.overlay.", 13) == 0))
            continue;
        out->xattrs[out->xattr_count++] = (struct image_xattr){name, value, size};
    }
}

static int set_kind(struct archive_entry *e, enum path_kind path_kind, struct image_entry *out, struct error **err)
{
    mode_t type = archive_entry_filetype(e);
    bool hard = archive_entry_hardlink(e) != NULL;

    if (path_kind != PATH_PLAIN) {
        if (!hard && type != AE_IFREG)
            return refuse(err, "IMAGE_MALFORMED", out->path, "a whiteout that is no plain file");
        out->kind = path_kind == PATH_WHITEOUT ? ENTRY_WHITEOUT : ENTRY_OPAQUE;
        return 0;
    }
    if (hard)
        out->kind = ENTRY_HARDLINK;
    else if (type == AE_IFREG)
        out->kind = ENTRY_FILE;
    else if (type == AE_IFDIR)
        out->kind = ENTRY_DIRECTORY;
    else if (type == AE_IFLNK)
        out->kind = ENTRY_SYMLINK;
    else if (type == AE_IFIFO)
        out->kind = ENTRY_FIFO;
    else if (type == AE_IFCHR || type == AE_IFBLK || type == AE_IFSOCK)
        out->kind = ENTRY_DEVICE;
    else
        return refuse(err, "IMAGE_MALFORMED", out->path, "is of a kind that no image holds");
    if (!out->path[0] && out->kind != ENTRY_DIRECTORY)
        return refuse(err, "IMAGE_PATH_ESCAPE", "/", "replaces the root of the layer with something else");
    return 0;
}

static int set_target(struct reader *r, struct archive_entry *e, struct error **err)
{
    struct image_entry *out = &r->entry;
    const char *target;
    int result;

    if (out->kind == ENTRY_HARDLINK) {
        result = image_path_clean(archive_entry_hardlink(e), r->target, err);
        if (result < 0)
            return result;
        if (!r->target[0])
            return refuse(err, "IMAGE_PATH_ESCAPE", out->path, "is a hard link to the root of the layer");
        out->target = r->target;
    } else if (out->kind == ENTRY_SYMLINK) {
        target = archive_entry_symlink(e);
        if (!target || !target[0] || strlen(target) >= IMAGE_PATH_SIZE)
            return refuse(err, "IMAGE_MALFORMED", out->path, "is a symbolic link without a valid target");
        out->target = target;
    }
    return 0;
}

static int set_owner(struct archive_entry *e, struct image_entry *out, struct error **err)
{
    int64_t uid = archive_entry_uid(e), gid = archive_entry_gid(e), size = archive_entry_size(e);

    if (uid < 0 || uid >= IMAGE_ID_MAX || gid < 0 || gid >= IMAGE_ID_MAX) {
        refuse(err, "IMAGE_MALFORMED", out->path, "its owner is outside 0 to 65535, the ids an instance has");
        error_hint(err, "change the owner when building the image (chown, COPY --chown)");
        return -EINVAL;
    }
    if (size < 0)
        return refuse(err, "IMAGE_MALFORMED", out->path, "has a negative size");
    out->uid = (uint32_t)uid;
    out->gid = (uint32_t)gid;
    out->size = (uint64_t)size;
    out->mode = archive_entry_perm(e) & 07777;
    out->mtime = archive_entry_mtime(e);
    out->mtime_ns = (uint32_t)archive_entry_mtime_nsec(e);
    if (out->mtime_ns > 999999999)
        out->mtime_ns = 0;
    return 0;
}

static int fill_entry(struct reader *r, struct archive_entry *e, struct error **err)
{
    const char *raw = archive_entry_pathname(e);
    enum path_kind path_kind;
    int result;

    r->entry = (struct image_entry){.path = r->path};
    if (!raw)
        return error_set(err, EINVAL, "IMAGE_MALFORMED", "an entry has no readable name");
    result = image_path_clean(raw, r->path, err);
    if (result == 0)
        result = image_path_kind(r->path, &path_kind, err);
    if (result == 0)
        result = set_kind(e, path_kind, &r->entry, err);
    if (result == 0)
        result = set_target(r, e, err);
    if (result == 0)
        result = set_owner(e, &r->entry, err);
    if (result < 0)
        return result;
    take_xattrs(e, &r->entry);
    return 0;
}

static int copy_data(struct reader *r, struct error **err)
{
    const void *block;
    int64_t offset;
    size_t size;
    int result;

    for (;;) {
        result = archive_read_data_block(r->archive, &block, &size, &offset);
        if (result == ARCHIVE_EOF)
            break;
        if (result != ARCHIVE_OK)
            return stream_archive_error(r->archive, r->tar, "a layer is damaged", err);
        if (offset < 0 || (uint64_t)offset > r->entry.size || size > r->entry.size - (uint64_t)offset)
            return refuse(err, "IMAGE_MALFORMED", r->path, "has more data than it says");
        if (r->ops && size > 0) {
            result = r->ops->data(r->sink, block, size, (uint64_t)offset, err);
            if (result < 0)
                return result;
        }
    }
    return r->ops ? r->ops->file_end(r->sink, err) : 0;
}

static int read_entries(struct reader *r, struct error **err)
{
    struct archive_entry *e;
    int result;

    for (;;) {
        result = archive_read_next_header(r->archive, &e);
        if (result == ARCHIVE_EOF)
            return 0;
        /* A warning is about text in another character set: the entry itself is whole. */
        if (result != ARCHIVE_OK && result != ARCHIVE_WARN)
            return stream_archive_error(r->archive, r->tar, "a layer is damaged", err);
        result = fill_entry(r, e, err);
        if (result == 0)
            result = count_file(r, err);
        if (result == 0)
            image_boot_note(r->boot, &r->entry);
        if (result == 0 && r->ops)
            result = r->ops->entry(r->sink, &r->entry, err);
        if (result == 0 && r->entry.kind == ENTRY_FILE)
            result = copy_data(r, err);
        if (result < 0)
            return result;
    }
}

int layer_read(struct stream *tar, struct image_budget *budget, struct image_boot *boot,
               const struct image_sink_ops *ops, void *sink, struct error **err)
{
    auto_free struct reader *r = calloc(1, sizeof(*r));
    auto_archive struct archive *a = NULL;
    int result;

    if (!r)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory to read a layer");
    result = stream_open_tar(tar, &a, err);
    if (result < 0)
        return result;
    r->archive = a;
    r->tar = tar;
    r->budget = budget;
    r->boot = boot;
    r->ops = ops;
    r->sink = sink;
    result = read_entries(r, err);
    return result < 0 ? result : stream_drain(tar, err);
}
