/* SPDX-License-Identifier: Apache-2.0 */
/* The sink of coracle-unpack: entries become files beneath one directory. The theory of operation is in tree.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "base/cleanup.h"
#include "unpack/tree.h"
#include "unpack/walk.h"

/* Directory times are set last: every file made inside would change them. */
struct directory_time {
    char *path;
    struct timespec mtime;
};

struct tree {
    int base_fd, layer_fd, file_fd;
    struct walker walker;
    struct image_entry file; /* what file_fd will be given at its end; its strings are the reader's */
    bool lowest;
    struct directory_time *times;
    size_t time_count, time_room;
    struct tree_dropped dropped;
};

static const char partial[] = ".partial";

static int fail(const struct image_entry *e, const char *what, struct error **err)
{
    int errnum = errno;
    bool full = errnum == ENOSPC || errnum == EDQUOT;
    char shown[IMAGE_PRINTABLE_SIZE];

    error_set_errno(err, errnum, full ? "NO_SPACE" : "STORE_FAILED", "entry \"%s\": cannot %s",
                    image_printable(e->path, shown), what);
    if (full)
        error_hint(err, "free space where the image store lies, or remove images that are not needed");
    return -errnum;
}

static int refuse(const struct image_entry *e, const char *code, const char *why, struct error **err)
{
    char shown[IMAGE_PRINTABLE_SIZE];

    error_set(err, EINVAL, code, "entry \"%s\": %s", image_printable(e->path, shown), why);
    error_hint(err, "an honest image has no such entry; do not use it");
    return -EINVAL;
}

int tree_open(int base_fd, uint64_t files_max, struct tree **ret, struct error **err)
{
    struct tree *t = calloc(1, sizeof(*t));

    if (!t)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory to unpack");
    t->base_fd = base_fd;
    t->layer_fd = t->file_fd = t->walker.cached_fd = -1;
    t->walker.made_max = files_max;
    *ret = t;
    return 0;
}

static void drop_times(struct tree *t)
{
    for (size_t i = 0; i < t->time_count; i++)
        free(t->times[i].path);
    free(t->times);
    t->times = NULL;
    t->time_count = t->time_room = 0;
}

void tree_close(struct tree *t)
{
    if (!t)
        return;
    drop_times(t);
    walk_forget(&t->walker);
    close_fd(t->file_fd);
    close_fd(t->layer_fd);
    free(t);
}

struct tree_dropped tree_get_dropped(const struct tree *t)
{
    return t->dropped;
}

/* ---- pieces ---- */

static int set_xattrs(struct tree *t, int fd, const struct image_entry *e, struct error **err)
{
    for (size_t i = 0; i < e->xattr_count; i++) {
        const struct image_xattr *x = &e->xattrs[i];

        if (fsetxattr(fd, x->name, x->value, x->size, 0) == 0)
            continue;
        if (errno == ENOSPC || errno == EDQUOT)
            return fail(e, "set an extended attribute", err);
        t->dropped.xattrs++;
    }
    return 0;
}

/* Owner first: changing it clears the set-user-id bits and file capabilities. */
static int set_metadata(struct tree *t, int fd, const struct image_entry *e, struct error **err)
{
    if (fchown(fd, e->uid, e->gid) < 0)
        return fail(e, "set its owner", err);
    if (fchmod(fd, e->mode) < 0)
        return fail(e, "set its mode", err);
    return set_xattrs(t, fd, e, err);
}

static bool is_whiteout(const struct stat *st)
{
    return S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0);
}

/* Removes what an entry replaces. *ret_whiteout tells what it was. */
static int make_room(int parent, const char *leaf, const struct image_entry *e, bool *ret_whiteout, struct error **err)
{
    struct stat st;

    *ret_whiteout = false;
    if (fstatat(parent, leaf, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : fail(e, "look at what it replaces", err);
    *ret_whiteout = is_whiteout(&st);
    if (unlinkat(parent, leaf, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) < 0) {
        if (errno == ENOTEMPTY || errno == EEXIST)
            return refuse(e, "IMAGE_MALFORMED", "replaces a directory of the same layer that is not empty", err);
        return fail(e, "remove what it replaces", err);
    }
    return 0;
}

static int mark_opaque(int fd, const struct image_entry *e, struct error **err)
{
    int r = fsetxattr(fd, "user.overlay.opaque", "y", 1, 0) < 0 ? fail(e, "mark a directory opaque", err) : 0;

    if (r < 0)
        error_hint(err,
                   "the image store needs a file system with user extended attributes, such as ext4, xfs or btrfs");
    return r;
}

/* ---- one function for each kind of entry ---- */

static int put_file(struct tree *t, int parent, const char *leaf, const struct image_entry *e, struct error **err)
{
    t->file_fd = open_beneath(parent, leaf, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (t->file_fd < 0)
        return fail(e, "make the file", err);
    t->file = *e;
    return 0;
}

static int remember_time(struct tree *t, const struct image_entry *e, struct error **err)
{
    struct directory_time *list;

    if (t->time_count == t->time_room) {
        size_t room = t->time_room ? t->time_room * 2 : 256;

        list = reallocarray(t->times, room, sizeof(*list));
        if (!list)
            return error_set(err, ENOMEM, "NO_MEMORY", "no memory to unpack");
        t->times = list;
        t->time_room = room;
    }
    list = &t->times[t->time_count];
    list->path = strdup(e->path);
    if (!list->path)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory to unpack");
    list->mtime = (struct timespec){.tv_sec = e->mtime, .tv_nsec = e->mtime_ns};
    t->time_count++;
    return 0;
}

static int put_directory(struct tree *t, int parent, const char *leaf, const struct image_entry *e, struct error **err)
{
    auto_fd int fd = -1;
    bool opaque = false;
    struct stat st;
    int r;

    if (fstatat(parent, leaf, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode)) {
        r = make_room(parent, leaf, e, &opaque, err);
        if (r < 0)
            return r;
        if (mkdirat(parent, leaf, 0700) < 0)
            return fail(e, "make the directory", err);
    }
    fd = open_beneath(parent, leaf, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fail(e, "open the directory", err);
    r = set_metadata(t, fd, e, err);
    if (r == 0 && opaque)
        r = mark_opaque(fd, e, err);
    return r < 0 ? r : remember_time(t, e, err);
}

static int put_symlink(int parent, const char *leaf, const struct image_entry *e, struct error **err)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = e->mtime, .tv_nsec = e->mtime_ns}};

    if (symlinkat(e->target, parent, leaf) < 0)
        return fail(e, "make the symbolic link", err);
    if (fchownat(parent, leaf, e->uid, e->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(e, "set its owner", err);
    utimensat(parent, leaf, times, AT_SYMLINK_NOFOLLOW);
    return 0;
}

static int put_fifo(int parent, const char *leaf, const struct image_entry *e, struct error **err)
{
    if (mkfifoat(parent, leaf, 0600) < 0)
        return fail(e, "make the FIFO", err);
    if (fchownat(parent, leaf, e->uid, e->gid, AT_SYMLINK_NOFOLLOW) < 0 || fchmodat(parent, leaf, e->mode, 0) < 0)
        return fail(e, "set its owner and mode", err);
    return 0;
}

/* A hard link may only name what this layer brought: linking to a lower layer would change a file others share. */
static int put_hardlink(struct tree *t, const struct image_entry *e, struct error **err)
{
    static const char outside[] = "is a hard link to something that is not in this layer";
    const char *slash = strrchr(e->target, '/'), *from = slash ? slash + 1 : e->target, *leaf;
    char directory[IMAGE_PATH_SIZE];
    struct stat source, there;
    auto_fd int source_fd = -1;
    bool whiteout;
    int parent, r;

    memcpy(directory, e->target, strlen(e->target) + 1);
    directory[slash ? slash - e->target : 0] = '\0';
    r = walk_directory(&t->walker, directory, 0, &source_fd, err);
    if (r == -ENOENT)
        return refuse(e, "IMAGE_PATH_ESCAPE", outside, err);
    if (r == 0)
        r = walk_parent(&t->walker, e->path, WALK_MAKE, &parent, &leaf, err);
    if (r < 0)
        return r;
    if (fstatat(source_fd, from, &source, AT_SYMLINK_NOFOLLOW) < 0 || S_ISDIR(source.st_mode) || is_whiteout(&source))
        return refuse(e, "IMAGE_PATH_ESCAPE", outside, err);
    if (fstatat(parent, leaf, &there, AT_SYMLINK_NOFOLLOW) == 0 && there.st_ino == source.st_ino)
        return 0;
    r = make_room(parent, leaf, e, &whiteout, err);
    if (r == 0 && linkat(source_fd, from, parent, leaf, 0) < 0)
        r = fail(e, "make the hard link", err);
    return r;
}

/* Hides a name of the lower layers. What this layer brings under that name stays: a directory then starts empty. */
static int put_whiteout(struct tree *t, const struct image_entry *e, struct error **err)
{
    auto_fd int directory = -1;
    const char *leaf;
    struct stat st;
    int parent, r = walk_parent(&t->walker, e->path, WALK_MAKE | WALK_NO_LINKS, &parent, &leaf, err);

    if (r < 0)
        return r;
    if (fstatat(parent, leaf, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return mknodat(parent, leaf, S_IFCHR, makedev(0, 0)) < 0 ? fail(e, "make the whiteout", err) : 0;
    if (!S_ISDIR(st.st_mode))
        return 0;
    directory = open_beneath(parent, leaf, O_RDONLY | O_DIRECTORY, 0);
    return directory < 0 ? fail(e, "open the directory", err) : mark_opaque(directory, e, err);
}

static int put_opaque(struct tree *t, const struct image_entry *e, struct error **err)
{
    auto_fd int fd = -1;
    int r = walk_directory(&t->walker, e->path, WALK_MAKE | WALK_NO_LINKS, &fd, err);

    return r < 0 ? r : mark_opaque(fd, e, err);
}

/* ---- the sink ---- */

static int tree_layer_begin(void *sink, bool lowest, struct error **err)
{
    struct tree *t = sink;

    if (mkdirat(t->base_fd, partial, 0755) < 0)
        return error_set_errno(err, errno, errno == ENOSPC ? "NO_SPACE" : "STORE_FAILED",
                               "cannot make a layer's directory");
    t->layer_fd = open_beneath(t->base_fd, partial, O_RDONLY | O_DIRECTORY, 0);
    if (t->layer_fd < 0)
        return error_set_errno(err, -t->layer_fd, "STORE_FAILED", "cannot open a layer's directory");
    t->walker.root = t->layer_fd;
    t->lowest = lowest;
    return 0;
}

static int put_root(struct tree *t, const struct image_entry *e, struct error **err)
{
    int r = set_metadata(t, t->layer_fd, e, err);

    return r < 0 ? r : remember_time(t, e, err);
}

static int put_plain(struct tree *t, const struct image_entry *e, struct error **err)
{
    const char *leaf;
    bool whiteout;
    int parent, r = walk_parent(&t->walker, e->path, WALK_MAKE, &parent, &leaf, err);

    if (r < 0)
        return r;
    if (e->kind == ENTRY_DIRECTORY)
        return put_directory(t, parent, leaf, e, err);
    r = make_room(parent, leaf, e, &whiteout, err);
    if (r < 0)
        return r;
    if (e->kind == ENTRY_FILE)
        return put_file(t, parent, leaf, e, err);
    return e->kind == ENTRY_SYMLINK ? put_symlink(parent, leaf, e, err) : put_fifo(parent, leaf, e, err);
}

static int tree_entry(void *sink, const struct image_entry *e, struct error **err)
{
    struct tree *t = sink;

    switch (e->kind) {
    case ENTRY_DEVICE:
        t->dropped.devices++;
        return 0;
    case ENTRY_HARDLINK:
        return put_hardlink(t, e, err);
    case ENTRY_WHITEOUT:
        return put_whiteout(t, e, err);
    case ENTRY_OPAQUE:
        return put_opaque(t, e, err);
    default:
        return e->path[0] ? put_plain(t, e, err) : put_root(t, e, err);
    }
}

static int tree_data(void *sink, const void *bytes, size_t size, uint64_t offset, struct error **err)
{
    struct tree *t = sink;

    for (const char *p = bytes; size > 0;) {
        ssize_t n = pwrite(t->file_fd, p, size, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail(&t->file, "write the file", err);
        p += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

static int tree_file_end(void *sink, struct error **err)
{
    struct tree *t = sink;
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = t->file.mtime, .tv_nsec = t->file.mtime_ns}};
    int r = 0;

    if (ftruncate(t->file_fd, (off_t)t->file.size) < 0)
        r = fail(&t->file, "set the file's length", err);
    if (r == 0)
        r = set_metadata(t, t->file_fd, &t->file, err);
    if (r == 0)
        futimens(t->file_fd, times);
    t->file_fd = close_fd(t->file_fd);
    return r;
}

/* The runtime mounts there; a root that is read-only from a single layer has no other place for a mount point. */
static void make_mount_points(struct tree *t)
{
    static const char *const names[] = {"dev", "proc", "sys", "etc"};

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        mkdirat(t->layer_fd, names[i], 0755); /* whatever is there already stays */
}

static void set_times(struct tree *t)
{
    for (size_t i = t->time_count; i-- > 0;) {
        struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, t->times[i].mtime};
        auto_fd int fd = -1;

        if (walk_directory(&t->walker, t->times[i].path, 0, &fd, NULL) == 0)
            futimens(fd, times);
    }
    drop_times(t);
}

static int tree_layer_end(void *sink, const char *diff_id, struct error **err)
{
    struct tree *t = sink;

    if (t->lowest)
        make_mount_points(t);
    set_times(t);
    walk_forget(&t->walker);
    t->layer_fd = close_fd(t->layer_fd);
    if (renameat(t->base_fd, partial, t->base_fd, diff_id) < 0)
        return error_set_errno(err, errno, "STORE_FAILED", "cannot name a layer's directory");
    return 0;
}

static int tree_scratch(void *sink, struct error **err)
{
    const struct tree *t = sink;
    int fd = open_beneath(t->base_fd, ".", O_TMPFILE | O_RDWR, 0600);

    return fd < 0 ? error_set_errno(err, -fd, "STORE_FAILED", "cannot make a scratch file to decompress the archive")
                  : fd;
}

const struct image_sink_ops tree_ops = {
    .layer_begin = tree_layer_begin,
    .entry = tree_entry,
    .data = tree_data,
    .file_end = tree_file_end,
    .layer_end = tree_layer_end,
    .scratch = tree_scratch,
};
