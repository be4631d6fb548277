/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The container's root file system, as one detached mount: layers, idmapped to its uid range, and the writable layer.
 *
 * Always an overlay of idmapped layers, of one read-only layer too: an idmapped clone alone would do for that (and save
 * some 60 us and 20 KiB), but its inodes are those of every other instance of the image, and with them file locks and
 * what inotify tells. An overlay has inodes of its own; the pages of the files stay shared. Its options take
 * descriptors since Linux 6.13; on older kernels the layers are attached in a temporary copy of the stem namespace,
 * whose paths overlayfs then resolves: nothing appears in the host's mount namespace. The writable layer is a tmpfs of
 * bounded size that outlives the shell: the launcher keeps it mounted at instances/ID/writable. Nothing here follows a
 * symlink of an image: layers are opened by digest below the store's descriptor, and mount points are only looked at by
 * name, one component, without following.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "runtime/internal.h"

static int sys_open_tree(int dirfd, const char *path, unsigned flags)
{
    return (int)syscall(SYS_open_tree, dirfd, path, flags | OPEN_TREE_CLOEXEC);
}

static int sys_fsconfig(int fd, unsigned command, const char *key, const void *value, int aux)
{
    return (int)syscall(SYS_fsconfig, fd, command, key, value, aux);
}

static int sys_move_mount(int mount, int target)
{
    return (int)syscall(SYS_move_mount, mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

/* ---- layers ---- */

/* The user namespace that maps the image range to a container's, from the cache when that range was used before. The
 * descriptor is the caller's. */
static int idmap_namespace(struct runtime *runtime, uint32_t uid_base)
{
    int fd = -1;

    pthread_mutex_lock(&runtime->lock);
    for (unsigned i = 0; i < IDMAP_CACHE && fd < 0; i++)
        if (runtime->idmap_cache[i].uid_base == uid_base)
            fd = fcntl(runtime->idmap_cache[i].fd, F_DUPFD_CLOEXEC, 3);
    pthread_mutex_unlock(&runtime->lock);
    if (fd >= 0)
        return fd;
    fd = spawn_idmap_namespace(runtime, runtime->image_uid_base, uid_base);
    if (fd < 0)
        return fd;
    pthread_mutex_lock(&runtime->lock);
    struct idmap_entry *entry = &runtime->idmap_cache[runtime->idmap_next++ % IDMAP_CACHE];
    int kept = fcntl(fd, F_DUPFD_CLOEXEC, 3);

    if (kept >= 0) {
        if (entry->uid_base)
            close(entry->fd);
        *entry = (struct idmap_entry){uid_base, kept};
    }
    pthread_mutex_unlock(&runtime->lock);
    return fd;
}

static int open_layer(const struct runtime *runtime, const char *digest, struct error **err)
{
    struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    int fd;

    if (strspn(digest, "0123456789abcdef") != DIGEST_HEX_SIZE - 1 || digest[DIGEST_HEX_SIZE - 1])
        return error_set(err, EINVAL, "INVALID_VALUE", "layer \"%.70s\" is not a SHA-256 in hex", digest);
    fd = (int)syscall(SYS_openat2, runtime->layers_fd, digest, &how, sizeof(how));
    if (fd < 0) {
        error_set_errno(err, errno, "START_FAILED", "image layer %.12s...: cannot be opened", digest);
        error_hint(err, "import the image again: its layer is gone from the store");
        return -errno;
    }
    return fd;
}

/* A detached, read-only, idmapped clone of a layer. */
static int clone_layer(int layer_fd, int userns_fd)
{
    struct mount_attr attr = {
        .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_IDMAP,
        .propagation = MS_PRIVATE, /* a clone stays in its source's peer group, and pivot_root refuses shared mounts */
        .userns_fd = (uint64_t)userns_fd,
    };
    auto_fd int fd = sys_open_tree(layer_fd, "", OPEN_TREE_CLONE | AT_EMPTY_PATH);

    if (fd < 0 || syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)))
        return -errno;
    return take_fd(&fd);
}

/* 1: proc, sys and dev are there; 0: one is missing; a file or symlink in their place refuses the image. */
static int has_mount_points(int layer_fd, struct error **err)
{
    static const char *const names[] = {"proc", "sys", "dev"};
    struct stat st;
    int found = 0;

    for (int i = 0; i < 3; i++) {
        if (fstatat(layer_fd, names[i], &st, AT_SYMLINK_NOFOLLOW))
            continue;
        if (!S_ISDIR(st.st_mode)) {
            error_set(err, ENOTDIR, "IMAGE_MALFORMED", "the image's /%s is a %s, not a directory", names[i],
                      S_ISLNK(st.st_mode) ? "symbolic link" : "file");
            error_hint(err, "a container mounts its own /%s there: rebuild the image with a directory, or without it",
                       names[i]);
            return -ENOTDIR;
        }
        found++;
    }
    return found == 3;
}

/* ---- the writable layer ---- */

/* A tmpfs with upper/ and work/, owned by the container's root. */
enum { WRITABLE_INODES_MIN = 1024 };

static int make_writable(uint32_t uid_base, uint64_t bytes, struct error **err)
{
    auto_fd int context = (int)syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC), fd = -1;
    char size[32], inodes[32];

    snprintf(size, sizeof(size), "%llu", (unsigned long long)bytes);
    /* An inode is about 1 KiB of the kernel's memory and counts as nothing in size: one for each 4 KiB, and some. */
    snprintf(inodes, sizeof(inodes), "%llu", (unsigned long long)bytes / 4096 + WRITABLE_INODES_MIN);
    if (context >= 0 && !sys_fsconfig(context, FSCONFIG_SET_STRING, "size", size, 0) &&
        !sys_fsconfig(context, FSCONFIG_SET_STRING, "nr_inodes", inodes, 0) &&
        !sys_fsconfig(context, FSCONFIG_SET_STRING, "mode", "0755", 0) &&
        !sys_fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
        fd = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    if (fd < 0 || mkdirat(fd, "upper", 0755) || mkdirat(fd, "work", 0755) ||
        fchownat(fd, "upper", uid_base, uid_base, 0) || fchownat(fd, "work", uid_base, uid_base, 0))
        return error_set_errno(err, errno, "START_FAILED", "the writable layer cannot be made");
    return take_fd(&fd);
}

/* A mount point at instances/ID/writable, kept from an earlier run: a detached clone of it, or -ENOENT. */
static int find_writable(int instance_dirfd)
{
    struct stat parent, st;

    if (instance_dirfd < 0 || fstat(instance_dirfd, &parent) ||
        fstatat(instance_dirfd, "writable", &st, AT_SYMLINK_NOFOLLOW) || st.st_dev == parent.st_dev)
        return -ENOENT;
    struct mount_attr attr = {.propagation = MS_PRIVATE};
    auto_fd int fd = sys_open_tree(instance_dirfd, "writable", OPEN_TREE_CLONE | AT_SYMLINK_NOFOLLOW);

    if (fd < 0 || syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)))
        return -errno;
    return take_fd(&fd);
}

int root_keep_writable(int writable_fd, int instance_dirfd, struct error **err)
{
    auto_fd int target = -1;

    if (mkdirat(instance_dirfd, "writable", 0700) && errno != EEXIST)
        return error_set_errno(err, errno, "START_FAILED", "instances/ID/writable cannot be made");
    target = openat(instance_dirfd, "writable", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (target < 0 || sys_move_mount(writable_fd, target))
        return error_set_errno(err, errno, "START_FAILED", "the writable layer cannot be mounted");
    return 0;
}

int root_resize_writable(int instance_dirfd, uint64_t bytes, struct error **err)
{
    struct stat parent, st;
    char size[32];

    if (fstat(instance_dirfd, &parent) || fstatat(instance_dirfd, "writable", &st, AT_SYMLINK_NOFOLLOW) ||
        st.st_dev == parent.st_dev) {
        error_set(err, EOPNOTSUPP, "LIMIT_NOT_ENFORCEABLE", "storage: this instance has no writable layer");
        error_hint(err, "leave storage out, or create the instance without read_only");
        return -EOPNOTSUPP;
    }
    auto_fd int context =
        (int)syscall(SYS_fspick, instance_dirfd, "writable", FSPICK_CLOEXEC | FSPICK_SYMLINK_NOFOLLOW);

    snprintf(size, sizeof(size), "%llu", (unsigned long long)bytes);
    if (context < 0 || sys_fsconfig(context, FSCONFIG_SET_STRING, "size", size, 0) ||
        sys_fsconfig(context, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0)) {
        error_set_errno(err, errno, "INVALID_VALUE", "storage: the writable layer cannot be resized to %s bytes", size);
        error_hint(err, "it may hold more than that already: delete files first");
        return -errno;
    }
    return 0;
}

int runtime_writable_release(int instance_dirfd, struct error **err)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/fd/%d/writable", instance_dirfd);
    if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) && errno != EINVAL && errno != ENOENT)
        return error_set_errno(err, errno, "INTERNAL", "the writable layer cannot be unmounted");
    if (unlinkat(instance_dirfd, "writable", AT_REMOVEDIR) && errno != ENOENT)
        return error_set_errno(err, errno, "INTERNAL", "instances/ID/writable cannot be removed");
    return 0;
}

/* ---- overlay ---- */

struct overlay {
    int lower[LAYER_MAX]; /* detached mounts, uppermost first */
    size_t lower_count;
    bool skeleton;   /* below them: the mount points of the stem */
    int writable_fd; /* -1: read-only */
    bool userxattr;  /* opaque directories are marked user.overlay.opaque */
};

static int finish_overlay(int context, const struct overlay *overlay)
{
    unsigned attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (overlay->writable_fd < 0 ? MOUNT_ATTR_RDONLY : 0);
    int fd;

    if (overlay->userxattr && sys_fsconfig(context, FSCONFIG_SET_FLAG, "userxattr", NULL, 0))
        return -errno;
    if (sys_fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
        return -errno;
    fd = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes);
    return fd < 0 ? -errno : fd;
}

static int overlay_by_fd(const struct runtime *runtime, const struct overlay *overlay)
{
    auto_fd int context = (int)syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC);

    if (context < 0)
        return -errno;
    for (size_t i = 0; i < overlay->lower_count; i++)
        if (sys_fsconfig(context, FSCONFIG_SET_FD, "lowerdir+", NULL, overlay->lower[i]))
            return -errno;
    if (overlay->skeleton && sys_fsconfig(context, FSCONFIG_SET_FD, "lowerdir+", NULL, runtime->skeleton_fd))
        return -errno;
    if (overlay->writable_fd >= 0) {
        auto_fd int upper = openat(overlay->writable_fd, "upper", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        auto_fd int work = openat(overlay->writable_fd, "work", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

        if (upper < 0 || work < 0 || sys_fsconfig(context, FSCONFIG_SET_FD, "upperdir", NULL, upper) ||
            sys_fsconfig(context, FSCONFIG_SET_FD, "workdir", NULL, work))
            return -errno;
    }
    return finish_overlay(context, overlay);
}

/* Within a private copy of the stem: the working directory /lower keeps the option string within its 256 bytes. */
static int overlay_by_path(const struct overlay *overlay)
{
    auto_fd int context = -1;
    char layers[256] = "", path[32];
    size_t length = 0;

    if (chdir("/lower"))
        return -errno;
    for (size_t i = 0; i < overlay->lower_count; i++) {
        snprintf(path, sizeof(path), "/lower/%zu", i % LAYER_MAX);
        auto_fd int target = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

        if (target < 0 || sys_move_mount(overlay->lower[i], target))
            return -errno;
        length += (size_t)snprintf(layers + length, sizeof(layers) - length, "%s%zu", i ? ":" : "", i);
    }
    if (overlay->skeleton)
        length += (size_t)snprintf(layers + length, sizeof(layers) - length, ":/skeleton");
    context = (int)syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC);
    if (context < 0 || length >= sizeof(layers) || sys_fsconfig(context, FSCONFIG_SET_STRING, "lowerdir", layers, 0))
        return -errno;
    if (overlay->writable_fd >= 0) {
        auto_fd int target = open("/upper", O_PATH | O_DIRECTORY | O_CLOEXEC);

        if (target < 0 || sys_move_mount(overlay->writable_fd, target) ||
            sys_fsconfig(context, FSCONFIG_SET_STRING, "upperdir", "/upper/upper", 0) ||
            sys_fsconfig(context, FSCONFIG_SET_STRING, "workdir", "/upper/work", 0))
            return -errno;
    }
    return finish_overlay(context, overlay);
}

/* For kernels before 6.13. The writable layer is attached there for a moment, so a detached clone replaces it. */
static int overlay_in_stem(struct runtime *runtime, struct overlay *overlay)
{
    int fd, clone = -1, result = spawn_prepare_thread();

    if (result)
        return result;
    if (setns(runtime->stem_fd, CLONE_NEWNS))
        return -errno;
    if (unshare(CLONE_NEWNS)) {
        fd = -errno;
    } else {
        fd = overlay_by_path(overlay);
        if (fd >= 0 && overlay->writable_fd >= 0) {
            clone = sys_open_tree(overlay->writable_fd, "", OPEN_TREE_CLONE | AT_EMPTY_PATH);
            if (clone < 0) {
                result = -errno;
                close(fd);
                fd = result;
            }
        }
    }
    if (setns(runtime->home_mounts_fd, CLONE_NEWNS))
        abort(); /* as in spawn.c */
    if (clone >= 0) {
        close(overlay->writable_fd);
        overlay->writable_fd = clone;
    }
    return fd;
}

static int make_overlay(struct runtime *runtime, struct overlay *overlay, struct error **err)
{
    int fd = runtime->overlay_by_fd ? overlay_by_fd(runtime, overlay) : overlay_in_stem(runtime, overlay);

    if (fd < 0) {
        error_set_errno(err, -fd, "START_FAILED", "the overlay of %zu layers cannot be mounted", overlay->lower_count);
        error_hint(err, "the kernel needs overlayfs with idmapped layers (Linux 5.19)");
    }
    return fd;
}

/* ---- all together ---- */

static int add_layers(struct runtime *runtime, uint32_t uid_base, const struct plan_root *root, struct overlay *overlay,
                      bool *ret_complete, struct error **err)
{
    auto_fd int userns = idmap_namespace(runtime, uid_base);

    if (userns < 0)
        return error_set_errno(err, -userns, "START_FAILED", "no user namespace for the layers' idmap");
    for (size_t i = 0; i < root->layer_count; i++) {
        auto_fd int layer = open_layer(runtime, root->layers[i], err);
        int result;

        if (layer < 0)
            return layer;
        /* Of several layers only the merged root counts: the init checks that (and this one again). */
        result = root->layer_count == 1 ? has_mount_points(layer, err) : 0;
        if (result < 0)
            return result;
        *ret_complete = result == 1;
        overlay->lower[i] = clone_layer(layer, userns);
        if (overlay->lower[i] < 0)
            return error_set_errno(err, -overlay->lower[i], "START_FAILED", "image layer %.12s... cannot be idmapped",
                                   root->layers[i]);
        overlay->lower_count++;
    }
    return 0;
}

/* The overlay has clones of its own. That of a detached mount's last close waits for an RCU grace period, which nothing
 * here needs to. */
static void drop_layers(struct runtime *runtime, struct overlay *overlay)
{
    while (overlay->lower_count)
        beside_close_fd(runtime->beside, overlay->lower[--overlay->lower_count]);
}

/* A tmpfs that cannot hold user.overlay.* (before Linux 6.6) needs an overlay marked trusted.overlay.*, and the layers
 * are marked user.overlay.*: so they are merged by a read-only overlay of their own first. */
static int merge_layers(struct runtime *runtime, struct overlay *overlay, struct error **err)
{
    struct overlay lower = *overlay;
    int fd;

    lower.writable_fd = -1;
    lower.userxattr = true;
    fd = make_overlay(runtime, &lower, err);
    if (fd < 0)
        return fd;
    drop_layers(runtime, overlay);
    overlay->lower[overlay->lower_count++] = fd;
    return 0;
}

static int build_overlay(struct runtime *runtime, uint32_t uid_base, const struct plan_root *root, int instance_dirfd,
                         struct overlay *overlay, bool *ret_fresh, struct error **err)
{
    *ret_fresh = false;
    if (!root->read_only) {
        overlay->writable_fd = find_writable(instance_dirfd);
        if (overlay->writable_fd < 0) {
            overlay->writable_fd = make_writable(uid_base, root->writable_bytes, err);
            *ret_fresh = true;
        }
        if (overlay->writable_fd < 0)
            return overlay->writable_fd;
    }
    if (!root->read_only && root->layer_count > 1 && !runtime->tmpfs_user_xattr) {
        int result = merge_layers(runtime, overlay, err);

        if (result)
            return result;
    } else {
        overlay->userxattr = root->layer_count > 1;
    }
    return make_overlay(runtime, overlay, err);
}

int root_build(struct runtime *runtime, uint32_t uid_base, const struct plan_root *root, int instance_dirfd,
               struct root_mounts *ret_mounts, struct steps *steps, struct error **err)
{
    struct overlay overlay = {.writable_fd = -1};
    uint64_t begun = monotonic_ns(), cloned;
    bool complete = false, fresh = false;
    int result, root_fd = -1;

    if (!root->layer_count || root->layer_count > LAYER_MAX)
        return error_set(err, EINVAL, "INVALID_VALUE", "a root needs 1 to %d layers", LAYER_MAX);
    result = add_layers(runtime, uid_base, root, &overlay, &complete, err);
    cloned = monotonic_ns();
    steps_add(steps, "layers", begun, cloned);
    if (!result) {
        /* a read-only overlay is of two layers at least */
        overlay.skeleton = root->read_only && (!complete || root->layer_count == 1);
        root_fd = build_overlay(runtime, uid_base, root, instance_dirfd, &overlay, &fresh, err);
        result = root_fd < 0 ? root_fd : 0;
    }
    drop_layers(runtime, &overlay);
    if (!result)
        steps_add(steps, "overlay", cloned, monotonic_ns());
    if (result || !fresh)
        overlay.writable_fd = close_fd(overlay.writable_fd);
    if (result)
        return result;
    *ret_mounts = (struct root_mounts){.root_fd = root_fd,
                                       .writable_fd = overlay.writable_fd,
                                       .read_only = root->read_only,
                                       .masks_present = stem_masks_present(runtime)};
    return 0;
}

/* ---- beside the making of a shell ---- */

#define NO_MOUNTS ((struct root_mounts){.root_fd = -1, .writable_fd = -1})

struct root_work {
    struct runtime *runtime;
    struct beside_work work;
    uint32_t uid_base;
    const struct plan_root *root; /* borrowed */
    int instance_dirfd;           /* borrowed */
    struct root_mounts mounts;
    struct steps steps;
    struct error *err;
    int result;
};

static void run_root_work(void *context)
{
    struct root_work *w = context;

    w->result = root_build(w->runtime, w->uid_base, w->root, w->instance_dirfd, &w->mounts, &w->steps, &w->err);
}

struct root_work *root_begin(struct runtime *runtime, uint32_t uid_base, const struct plan_root *root,
                             int instance_dirfd)
{
    struct root_work *w = calloc(1, sizeof(*w));

    if (!w)
        return NULL;
    *w = (struct root_work){
        .runtime = runtime, .uid_base = uid_base, .root = root, .instance_dirfd = instance_dirfd, .mounts = NO_MOUNTS};
    beside_begin(runtime->beside, &w->work, run_root_work, w);
    return w;
}

bool root_ready(const struct root_work *w)
{
    return beside_ready(w->runtime->beside, &w->work);
}

static void root_work_free(struct root_work *w)
{
    beside_close_fd(w->runtime->beside, w->mounts.root_fd);
    beside_close_fd(w->runtime->beside, w->mounts.writable_fd);
    error_free(w->err);
    free(w);
}

int root_end(struct root_work *w, struct root_mounts *ret_mounts, struct steps *steps, struct error **err)
{
    int result;

    beside_end(w->runtime->beside, &w->work);
    for (size_t i = 0; i < w->steps.count; i++)
        steps_add(steps, w->steps.list[i].name, w->steps.list[i].start_ns,
                  w->steps.list[i].start_ns + w->steps.list[i].duration_ns);
    result = w->result;
    if (result && err)
        *err = take_ptr(w->err);
    if (!result) {
        *ret_mounts = w->mounts;
        w->mounts = NO_MOUNTS;
    }
    root_work_free(w);
    return result;
}

void root_drop(struct root_work *w)
{
    if (!w)
        return;
    beside_drop(w->runtime->beside, &w->work);
    root_work_free(w);
}

int runtime_merge(struct runtime *runtime, const struct plan_root *root, int *ret_fd, struct error **err)
{
    struct overlay overlay = {.writable_fd = -1, .userxattr = true};
    int result = 0;

    if (!root->layer_count || root->layer_count > LAYER_MAX)
        return error_set(err, EINVAL, "INVALID_VALUE", "a root needs 1 to %d layers", LAYER_MAX);
    for (size_t i = 0; i < root->layer_count && result == 0; i++) {
        auto_fd int layer = open_layer(runtime, root->layers[i], err);

        if (layer < 0)
            result = layer;
        else if (root->layer_count == 1)
            return *ret_fd = take_fd(&layer), 0;
        else if ((overlay.lower[i] = sys_open_tree(layer, "", OPEN_TREE_CLONE | AT_EMPTY_PATH)) < 0)
            result = error_set_errno(err, errno, "START_FAILED", "image layer %.12s...", root->layers[i]);
        else
            overlay.lower_count++;
    }
    if (result == 0)
        result = make_overlay(runtime, &overlay, err);
    while (overlay.lower_count)
        close(overlay.lower[--overlay.lower_count]);
    if (result < 0)
        return result;
    *ret_fd = result;
    return 0;
}
