/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The container's file system view, built inside its own user and mount namespace by coracle-init.
 *
 * Theory of operation. The image's files are hostile and may be anything: a symlink called proc, a file called dev.
 * So nothing here resolves a path through the image more than once: a mount point is opened with openat2() and
 * RESOLVE_NO_SYMLINKS | NO_XDEV | BENEATH as an O_PATH descriptor, and a mount is attached to that descriptor
 * (move_mount with both ends empty paths). A path swapped afterwards changes nothing. Sources never come from the
 * image either: /dev and the masks are clones of mounts in the launcher's stem namespace (src/runtime/stem.c), of
 * which this namespace began as a copy; proc, sysfs, devpts and tmpfs are new instances held by descriptor, and masks
 * are attached below those descriptors. No process of the image runs before the root is complete and pivoted.
 *
 * Stem layout at this point: /root (empty directory), /dev (shared device tmpfs), /mask/{directory,file}, /proc, /sys.
 */
#include "init.h"

#include <errno.h>
#include <sys/stat.h>

#include "masks.h"
#include "sys.h"

enum { RESOLVE_STRICT = RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV | RESOLVE_BENEATH };

struct root_state root_state = {-1, -1, -1, -1, -1};

/* An O_PATH descriptor of a real directory of the root. A writable root gets a missing one made. */
static int open_mount_point(int root, const char *name, bool may_make)
{
    int fd = sys_openat2(root, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, RESOLVE_STRICT);

    if (fd < 0 && errno == ENOENT && may_make) {
        if (mkdirat(root, name, 0755) && errno != EEXIST)
            return fail(STAGE_MOUNT_POINT, errno, name);
        fd = sys_openat2(root, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, RESOLVE_STRICT);
    }
    return fd < 0 ? fail(STAGE_MOUNT_POINT, errno, name) : fd;
}

/* A new instance of a file system: options are pairs, ended by NULL. Returns a detached mount. */
static int make_mount(const char *type, const char *const *options, unsigned attributes)
{
    int mount = -1, context = sys_fsopen(type);

    if (context < 0)
        return -1;
    for (; options && *options; options += 2)
        if (sys_fsconfig(context, FSCONFIG_SET_STRING, options[0], options[1]))
            goto out;
    if (!sys_fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL))
        mount = sys_fsmount(context, attributes);
out:
    close(context);
    return mount;
}

/* ---- what needs no root ---- */

/* Each is made while the launcher still builds the root and the network; what failed then is tried again when needed.
 */
enum own_mount { OWN_PROC, OWN_SYS, OWN_PRIVATE, OWN_PTS, OWN_COUNT };

/* Members of group 0 see every process (as root does elsewhere), others their own. */
static const char *const proc_options[] = {"hidepid", "2", "gid", "0", NULL};
static const char *const private_options[] = {"size", "64m", "mode", "0755", "nr_inodes", "65536", NULL};
/* Every devpts mount is its own instance since Linux 4.7; ptys are the host's: 4,096 for all. */
static const char *const pts_options[] = {"mode", "0620", "ptmxmode", "0666", "gid", "5", "max", "64", NULL};

static const struct {
    const char *type;
    const char *const *options;
    unsigned attributes;
} own_mounts[OWN_COUNT] = {
    [OWN_PROC] = {"proc", proc_options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC},
    /* the kernel compares it with that of every other network namespace: 0.6 ms beside 500 */
    [OWN_SYS] = {"sysfs", NULL, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC},
    [OWN_PRIVATE] = {"tmpfs", private_options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC},
    [OWN_PTS] = {"devpts", pts_options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC},
};
static int ahead[OWN_COUNT] = {-1, -1, -1, -1};

static int make_own(enum own_mount which)
{
    return make_mount(own_mounts[which].type, own_mounts[which].options, own_mounts[which].attributes);
}

static int take_own(enum own_mount which)
{
    int fd = ahead[which];

    ahead[which] = -1;
    return fd >= 0 ? fd : make_own(which);
}

void mounts_ahead(void)
{
    for (enum own_mount which = 0; which < OWN_COUNT; which++)
        ahead[which] = make_own(which);
}

/* ---- the root ---- */

/* Attaches a clone of a stem mount (or a directory or file of one) to target. */
static int attach_clone(const char *stem_path, int target)
{
    int result, clone = sys_open_tree(AT_FDCWD, stem_path, OPEN_TREE_CLONE);

    if (clone < 0)
        return -1;
    result = sys_move_mount(clone, target);
    close(clone);
    return result;
}

/* Hides base/name behind an empty file or directory. What does not exist needs no hiding. */
static int mask(int base, const char *name)
{
    struct stat st;
    int result = 0, target = sys_openat2(base, name, O_PATH | O_NOFOLLOW, RESOLVE_STRICT);

    if (target < 0)
        return errno == ENOENT ? 0 : fail(STAGE_MASK, errno, name);
    if (fstat(target, &st) || attach_clone(S_ISDIR(st.st_mode) ? "/mask/directory" : "/mask/file", target))
        result = fail(STAGE_MASK, errno, name);
    close(target);
    return result;
}

/* Mounts base/name over itself, read-only. */
static int protect(int base, const char *name)
{
    int result = -1, clone = -1, target = sys_openat2(base, name, O_PATH | O_NOFOLLOW, RESOLVE_STRICT);

    if (target < 0)
        return errno == ENOENT ? 0 : fail(STAGE_MASK, errno, name);
    clone = sys_open_tree(target, "", OPEN_TREE_CLONE | AT_EMPTY_PATH);
    if (clone >= 0 &&
        !sys_mount_setattr(clone, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC))
        result = sys_move_mount(clone, target);
    if (result)
        fail(STAGE_MASK, errno, name);
    if (clone >= 0)
        close(clone);
    close(target);
    return result;
}

static int mount_proc(int point)
{
    int proc = take_own(OWN_PROC);

    if (proc < 0 || sys_move_mount(proc, point))
        return fail(STAGE_PROC, errno, NULL);
    root_state.proc_fd = proc;
    return 0;
}

/* Settings of the new network namespace; must be written before /proc/sys is read-only. A kernel without IPv4 has
 * none of them, and the container works without them. */
static void write_sysctls(void)
{
    static const char all_groups[] = "0 65535", any_port[] = "0";

    /* Addresses and routes come from the platform: nobody on the network may add to them. The interfaces may be there
     * already, or come later. */
    char interface[] = "sys/net/ipv6/conf/eth0/accept_ra";

    write_file_at(root_state.proc_fd, "sys/net/ipv6/conf/default/accept_ra", "0", 1);
    while (!write_file_at(root_state.proc_fd, interface, "0", 1))
        interface[sizeof("sys/net/ipv6/conf/eth") - 1]++;
    write_file_at(root_state.proc_fd, "sys/net/ipv4/ping_group_range", all_groups, sizeof(all_groups) - 1);
    write_file_at(root_state.proc_fd, "sys/net/ipv4/ip_unprivileged_port_start", any_port, sizeof(any_port) - 1);
}

/* A read-only root goes with a read-only /proc: nothing in it is to be written, by whatever path. */
static int protect_proc(uint32_t present, bool read_only)
{
    for (unsigned i = 0; i < MASK_COUNT(proc_masked); i++)
        if ((present & (1u << (MASK_PROC_FIRST + i))) && mask(root_state.proc_fd, proc_masked[i]))
            return -1;
    if (read_only)
        return sys_mount_setattr(root_state.proc_fd, MOUNT_ATTR_RDONLY) ? fail(STAGE_PROC, errno, "read-only") : 0;
    for (unsigned i = 0; i < MASK_COUNT(proc_read_only); i++)
        if ((present & (1u << (MASK_READ_ONLY_FIRST + i))) && protect(root_state.proc_fd, proc_read_only[i]))
            return -1;
    return 0;
}

static int mount_sys(int point, uint32_t present)
{
    int result = 0, sys = take_own(OWN_SYS);

    if (sys < 0 || sys_move_mount(sys, point))
        return fail(STAGE_SYS, errno, NULL);
    for (unsigned i = 0; i < MASK_COUNT(sys_masked) && !result; i++)
        if (present & (1u << (MASK_SYS_FIRST + i)))
            result = mask(sys, sys_masked[i]);
    close(sys);
    return result;
}

/* One tmpfs serves /dev/shm (its directory "shm") and the files bound over /etc's, so that a container costs one. */
static int make_private(void)
{
    int fd = take_own(OWN_PRIVATE);

    if (fd >= 0 && (mkdirat(fd, "shm", 0700) || fchmodat(fd, "shm", 01777, 0))) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Attaches directory or file name of the detached mount fd to target. Detached mounts cannot be cloned before Linux
 * 6.15, so the mount is attached to the stem's /private first and cloned from there. */
static int attach_part(int private_fd, const char *name, int target)
{
    int result, clone = sys_open_tree(private_fd, name, OPEN_TREE_CLONE);

    if (clone < 0)
        return -1;
    result = sys_move_mount(clone, target);
    close(clone);
    return result;
}

static int mount_dev(int point, int private_fd)
{
    int pts, at, dev = sys_open_tree(AT_FDCWD, "/dev", OPEN_TREE_CLONE);

    if (dev < 0 || sys_move_mount(dev, point))
        return fail(STAGE_DEV, errno, "dev");
    pts = take_own(OWN_PTS);
    at = sys_openat2(dev, "pts", O_PATH | O_DIRECTORY, RESOLVE_STRICT);
    if (pts < 0 || at < 0 || sys_move_mount(pts, at))
        return fail(STAGE_DEV, errno, "pts");
    close(pts);
    close(at);
    at = sys_openat2(dev, "shm", O_PATH | O_DIRECTORY, RESOLVE_STRICT);
    if (at < 0 || attach_part(private_fd, "shm", at))
        return fail(STAGE_DEV, errno, "shm");
    close(at);
    root_state.dev_fd = dev;
    return 0;
}

/* Binds an own, still empty file over etc/name. An image without that file keeps doing without when its root is
 * read-only; a symlink there is the image's own choice and is left alone. */
static int bind_etc(int root, int private_fd, const char *name, bool may_make, int *ret_fd)
{
    struct stat st;
    int fd, target, etc = sys_openat2(root, "etc", O_PATH | O_DIRECTORY | O_NOFOLLOW, RESOLVE_STRICT);

    if (etc < 0)
        return 0;
    target = sys_openat2(etc, name, O_PATH | O_NOFOLLOW, RESOLVE_STRICT);
    if (target < 0 && errno == ENOENT && may_make) {
        fd = openat(etc, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
        if (fd >= 0)
            close(fd);
        target = sys_openat2(etc, name, O_PATH | O_NOFOLLOW, RESOLVE_STRICT);
    }
    close(etc);
    if (target < 0)
        return 0;
    if (fstat(target, &st) || !S_ISREG(st.st_mode)) {
        close(target);
        return 0;
    }
    fd = openat(private_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0 || attach_part(private_fd, name, target))
        return fail(STAGE_ETC, errno, name);
    close(target);
    *ret_fd = fd;
    return 0;
}

static int attach_private(int private_fd)
{
    int result, at = sys_openat2(AT_FDCWD, "/private", O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS);

    if (at < 0)
        return fail(STAGE_DEV, errno, "private");
    result = sys_move_mount(private_fd, at);
    close(at);
    return result ? fail(STAGE_DEV, errno, "private") : 0;
}

static int fill_root(int root, uint32_t flags, uint32_t present)
{
    bool writable = !(flags & INIT_ROOT_READ_ONLY);
    int proc = open_mount_point(root, "proc", writable);
    int sys = proc < 0 ? -1 : open_mount_point(root, "sys", writable);
    int dev = sys < 0 ? -1 : open_mount_point(root, "dev", writable);
    int private_fd = dev < 0 ? -1 : make_private();

    if (dev < 0)
        return -1;
    if (private_fd < 0)
        return fail(STAGE_DEV, errno, "tmpfs");
    if (attach_private(private_fd) || mount_proc(proc))
        return -1;
    write_sysctls();
    if (protect_proc(present, !writable) || mount_sys(sys, present) || mount_dev(dev, private_fd))
        return -1;
    if (bind_etc(root, private_fd, "hosts", writable, &root_state.hosts_fd) ||
        bind_etc(root, private_fd, "hostname", writable, &root_state.hostname_fd))
        return -1;
    if ((flags & INIT_ROOT_RESOLV) && bind_etc(root, private_fd, "resolv.conf", writable, &root_state.resolv_fd))
        return -1;
    close(private_fd);
    close(proc);
    close(sys);
    close(dev);
    return 0;
}

int set_root(int root_fd, const struct init_root *root, uint64_t *ret_mounted_ns)
{
    int at = sys_openat2(AT_FDCWD, "/root", O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS);

    if (at < 0 || sys_move_mount(root_fd, at))
        return fail(STAGE_ATTACH_ROOT, errno, NULL);
    close(at);
    if (fill_root(root_fd, root->flags, root->present))
        return -1;
    *ret_mounted_ns = now_ns();
    return fchdir(root_fd) ? fail(STAGE_PIVOT, errno, NULL) : 0; /* helper.c makes it the root */
}
