/* SPDX-License-Identifier: Apache-2.0 */
/* The careful walk through a layer's own directories. See walk.h and tree.h. Runs inside coracle-unpack's sandbox. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "base/cleanup.h"
#include "unpack/walk.h"

enum { LINK_HOPS_MAX = 40 };

struct walk {
    struct walker *walker;
    const char *path; /* as the entry named it, for messages */
    unsigned int flags, hops;
    char done[IMAGE_PATH_SIZE];     /* walked so far: holds no links, "" is the root */
    char todo[2 * IMAGE_PATH_SIZE]; /* still to walk */
};

int open_beneath(int root, const char *path, uint64_t flags, uint64_t mode)
{
    struct open_how how = {
        .flags = flags | O_CLOEXEC, .mode = mode, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};
    int fd = (int)syscall(SYS_openat2, root, *path ? path : ".", &how, sizeof(how));

    return fd < 0 ? -errno : fd;
}

static int refuse(const struct walk *k, const char *code, const char *why, struct error **err)
{
    char shown[IMAGE_PRINTABLE_SIZE];

    error_set(err, EINVAL, code, "entry \"%s\": %s", image_printable(k->path, shown), why);
    error_hint(err, "an honest image has no such entry; do not use it");
    return -EINVAL;
}

static int fail(const struct walk *k, int r, struct error **err)
{
    char shown[IMAGE_PRINTABLE_SIZE];

    return error_set_errno(err, -r, r == -ENOSPC || r == -EDQUOT ? "NO_SPACE" : "STORE_FAILED",
                           "entry \"%s\": cannot reach its directory", image_printable(k->path, shown));
}

/* Makes the missing directory `name` in k->done. What was a whiteout there becomes an opaque directory. */
static int make_directory(struct walk *k, const char *name, bool opaque, struct error **err)
{
    struct walker *w = k->walker;
    auto_fd int parent = open_beneath(w->root, k->done, O_RDONLY | O_DIRECTORY, 0);
    auto_fd int made = -1;

    if (parent < 0)
        return fail(k, parent, err);
    if (w->made >= w->made_max)
        return error_set(err, EFBIG, "IMAGE_TOO_LARGE", "the image makes more than the %llu files allowed",
                         (unsigned long long)w->made_max);
    w->made++;
    if (opaque && unlinkat(parent, name, 0) < 0)
        return fail(k, -errno, err);
    if (mkdirat(parent, name, 0755) < 0)
        return fail(k, -errno, err);
    if (!opaque)
        return 0;
    made = open_beneath(parent, name, O_RDONLY | O_DIRECTORY, 0);
    if (made < 0 || fsetxattr(made, "user.overlay.opaque", "y", 1, 0) < 0)
        return fail(k, made < 0 ? made : -errno, err);
    return 0;
}

/* Puts the link's target in front of what is left to walk. */
static int follow(struct walk *k, int link_fd, struct error **err)
{
    char target[IMAGE_PATH_SIZE], rest[sizeof(k->todo)];
    ssize_t n;

    if (k->flags & WALK_NO_LINKS)
        return refuse(k, "IMAGE_PATH_ESCAPE", "is a whiteout behind a symbolic link", err);
    if (++k->hops > LINK_HOPS_MAX)
        return refuse(k, "IMAGE_PATH_ESCAPE", "lies behind a loop of symbolic links", err);
    n = readlinkat(link_fd, "", target, sizeof(target) - 1);
    if (n < 0)
        return fail(k, -errno, err);
    target[n] = '\0';
    memcpy(rest, k->todo, strlen(k->todo) + 1);
    if (snprintf(k->todo, sizeof(k->todo), "%s/%s", target, rest) >= (int)sizeof(k->todo))
        return refuse(k, "IMAGE_PATH_ESCAPE", "lies behind links that are too long together", err);
    if (target[0] == '/')
        k->done[0] = '\0';
    return 0;
}

static int climb(struct walk *k, struct error **err)
{
    char *slash = strrchr(k->done, '/');

    if (!k->done[0])
        return refuse(k, "IMAGE_PATH_ESCAPE", "lies behind a symbolic link that leads out of the layer", err);
    *(slash ? slash : k->done) = '\0';
    return 0;
}

/* One component that is neither "." nor "..". */
static int enter(struct walk *k, const char *name, struct error **err)
{
    size_t used = strlen(k->done);
    char next[IMAGE_PATH_SIZE];
    auto_fd int fd = -1;
    struct stat st = {0};
    bool whiteout;
    int r;

    if (snprintf(next, sizeof(next), "%s%s%s", k->done, used ? "/" : "", name) >= (int)sizeof(next))
        return refuse(k, "IMAGE_MALFORMED", "its directory's name is too long", err);
    fd = open_beneath(k->walker->root, next, O_PATH | O_NOFOLLOW, 0);
    if (fd < 0 && fd != -ENOENT)
        return fail(k, fd, err);
    if (fd >= 0 && fstat(fd, &st) < 0)
        return fail(k, -errno, err);
    if (fd >= 0 && S_ISLNK(st.st_mode))
        return follow(k, fd, err);
    whiteout = fd >= 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0);
    if (fd < 0 || whiteout) {
        if (!(k->flags & WALK_MAKE))
            return -ENOENT;
        r = make_directory(k, name, whiteout, err);
        if (r < 0)
            return r;
    } else if (!S_ISDIR(st.st_mode)) {
        return refuse(k, "IMAGE_MALFORMED", "lies below something that is no directory", err);
    }
    memcpy(k->done, next, strlen(next) + 1);
    return 0;
}

static int step(struct walk *k, struct error **err)
{
    char name[IMAGE_NAME_MAX + 1];
    size_t length = strcspn(k->todo, "/");
    size_t skip = length + (k->todo[length] == '/');

    if (length > IMAGE_NAME_MAX)
        return refuse(k, "IMAGE_MALFORMED", "lies behind a link with an over-long component", err);
    memcpy(name, k->todo, length);
    name[length] = '\0';
    memmove(k->todo, k->todo + skip, strlen(k->todo + skip) + 1);
    if (length == 0 || strcmp(name, ".") == 0)
        return 0;
    return strcmp(name, "..") == 0 ? climb(k, err) : enter(k, name, err);
}

static int walk(struct walker *w, const char *shown, const char *directory, unsigned int flags, int *ret_fd,
                struct error **err)
{
    auto_free struct walk *k = calloc(1, sizeof(*k));
    int r = 0, fd;

    if (!k)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory to unpack");
    k->walker = w;
    k->path = shown;
    k->flags = flags;
    memcpy(k->todo, directory, strlen(directory) + 1);
    while (k->todo[0] && r == 0)
        r = step(k, err);
    if (r < 0)
        return r;
    fd = open_beneath(w->root, k->done, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fail(k, fd, err);
    *ret_fd = fd;
    return 0;
}

int walk_directory(struct walker *w, const char *path, unsigned int flags, int *ret_fd, struct error **err)
{
    return walk(w, path, path, flags, ret_fd, err);
}

int walk_parent(struct walker *w, const char *path, unsigned int flags, int *ret_fd, const char **ret_leaf,
                struct error **err)
{
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    char parent[IMAGE_PATH_SIZE];
    int r, fd;

    memcpy(parent, path, length);
    parent[length] = '\0';
    /* What was remembered may have been reached through links, which a whiteout must not. */
    if (w->cached_fd < 0 || (flags & WALK_NO_LINKS) || strcmp(parent, w->cached) != 0) {
        r = walk(w, path, parent, flags, &fd, err);
        if (r < 0)
            return r;
        walk_forget(w);
        w->cached_fd = fd;
        memcpy(w->cached, parent, length + 1);
    }
    *ret_fd = w->cached_fd;
    *ret_leaf = slash ? slash + 1 : path;
    return 0;
}

void walk_forget(struct walker *w)
{
    w->cached_fd = close_fd(w->cached_fd);
}
