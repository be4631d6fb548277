/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stem: a mount namespace with nothing in it but what every container starts from.
 *
 * Why: clone3(CLONE_NEWNS) copies every mount of the caller's namespace. The host's has one or two per running
 * instance, so starting would become slower with each; the stem's has always the same five. It also is the trusted
 * source of the container's devices and masks, so nothing of the image takes part in making those. Built once, by a
 * short-lived thread of runtime_open(); kept alive by one descriptor.
 *
 *   /           tmpfs, read-only in use: root/, private/, upper/, lower/0.., mask/, dev/, proc/, sys/, skeleton/
 *   /dev        tmpfs with the device nodes; one superblock for all containers, attached read-only to each
 *   /proc /sys  complete instances: the kernel lets a user namespace mount new ones only where it can see such
 *   /skeleton   directories dev proc sys etc for an image that brings none (lowest layer of an overlay)
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "runtime/init/masks.h"
#include "runtime/internal.h"

struct stem_job {
    struct runtime *runtime;
    struct error *err;
    int result;
};

static const struct {
    const char *name;
    unsigned major, minor;
} devices[] = {{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};

static const char *const links[][2] = {{"/proc/self/fd", "fd"},
                                       {"/proc/self/fd/0", "stdin"},
                                       {"/proc/self/fd/1", "stdout"},
                                       {"/proc/self/fd/2", "stderr"},
                                       {"pts/ptmx", "ptmx"}};

static int make_devices(void)
{
    char path[32];

    for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]); i++) {
        snprintf(path, sizeof(path), "dev/%s", devices[i].name);
        if (mknod(path, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)) || chmod(path, 0666))
            return -errno;
    }
    for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
        snprintf(path, sizeof(path), "dev/%s", links[i][1]);
        if (symlink(links[i][0], path))
            return -errno;
    }
    if (mkdir("dev/pts", 0755) || mkdir("dev/shm", 01777))
        return -errno;
    return 0;
}

static int make_directories(void)
{
    static const char *const names[] = {"root", "private", "upper",    "lower",          "mask",          "dev",
                                        "proc", "sys",     "skeleton", "mask/directory", "lower/skeleton"};
    char path[32];
    int fd;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (mkdir(names[i], 0755))
            return -errno;
    for (int i = 0; i < LAYER_MAX; i++) {
        snprintf(path, sizeof(path), "lower/%d", i);
        if (mkdir(path, 0755))
            return -errno;
    }
    fd = open("mask/file", O_WRONLY | O_CREAT | O_CLOEXEC, 0444);
    if (fd < 0)
        return -errno;
    close(fd);
    return 0;
}

static int make_skeleton(struct runtime *runtime)
{
    static const char *const names[] = {"dev", "proc", "sys", "etc"};
    static const char *const files[] = {"hosts", "hostname", "resolv.conf"};
    char path[48];

    if (mount("tmpfs", "skeleton", "tmpfs", MS_NODEV | MS_NOSUID, "size=64k,mode=0755"))
        return -errno;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(path, sizeof(path), "skeleton/%s", names[i]);
        if (mkdir(path, 0755))
            return -errno;
    }
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        snprintf(path, sizeof(path), "skeleton/etc/%s", files[i]);
        close_fd(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    }
    runtime->skeleton_fd = (int)syscall(SYS_open_tree, AT_FDCWD, "skeleton", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    return runtime->skeleton_fd < 0 ? -errno : 0;
}

/* umount of everything but the new root: this namespace is a copy, the host's stays as it is. */
static int enter_empty_root(void)
{
    if (unshare(CLONE_FS | CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        return -errno;
    if (mount("coracle", "/tmp", "tmpfs", MS_NODEV | MS_NOSUID, "size=1m,mode=0755") || chdir("/tmp"))
        return -errno;
    if (syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
        return -errno;
    return 0;
}

static int build(struct runtime *runtime, const char **ret_what)
{
    int result;

    *ret_what = "an empty mount namespace";
    result = enter_empty_root();
    if (result)
        return result;
    *ret_what = "the stem's directories";
    result = make_directories();
    if (result)
        return result;
    *ret_what = "devices";
    if (mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "size=64k,mode=0755"))
        return -errno;
    result = make_devices();
    if (result)
        return result;
    *ret_what = "/proc and /sys";
    if (mount("proc", "proc", "proc", 0, NULL) || mount("sysfs", "sys", "sysfs", 0, NULL))
        return -errno;
    runtime->stem_proc_fd = open("proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    runtime->stem_sys_fd = open("sys", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (runtime->stem_proc_fd < 0 || runtime->stem_sys_fd < 0)
        return -errno;
    *ret_what = "the skeleton";
    result = make_skeleton(runtime);
    if (result)
        return result;
    *ret_what = "read-only mounts";
    if (mount(NULL, "dev", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC, NULL) ||
        mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV | MS_NOSUID, NULL))
        return -errno;
    runtime->stem_fd = open("/proc/thread-self/ns/mnt", O_RDONLY | O_CLOEXEC);
    return runtime->stem_fd < 0 ? -errno : 0;
}

static void *stem_thread(void *argument)
{
    struct stem_job *job = argument;
    const char *what = "";

    job->result = build(job->runtime, &what);
    if (job->result) {
        error_set_errno(&job->err, -job->result, "INTERNAL", "%s cannot be made", what);
        error_hint(&job->err, "the launcher needs CAP_SYS_ADMIN, CAP_MKNOD and a kernel with tmpfs, proc and sysfs");
    }
    return NULL;
}

int stem_make(struct runtime *runtime, struct error **err)
{
    struct stem_job job = {.runtime = runtime};
    pthread_t thread;
    int result = pthread_create(&thread, NULL, stem_thread, &job);

    if (result)
        return error_set_errno(err, result, "INTERNAL", "no thread for the stem mount namespace");
    pthread_join(thread, NULL);
    if (err)
        *err = job.err;
    else
        error_free(job.err);
    return job.result;
}

static uint32_t look(int dirfd, const char *const *names, size_t count, unsigned first_bit)
{
    uint32_t present = 0;

    for (size_t i = 0; i < count; i++)
        if (!faccessat(dirfd, names[i], F_OK, AT_SYMLINK_NOFOLLOW) || errno != ENOENT)
            present |= 1u << (first_bit + i);
    return present;
}

uint32_t stem_masks_present(const struct runtime *runtime)
{
    return look(runtime->stem_proc_fd, proc_masked, MASK_COUNT(proc_masked), MASK_PROC_FIRST) |
           look(runtime->stem_proc_fd, proc_read_only, MASK_COUNT(proc_read_only), MASK_READ_ONLY_FIRST) |
           look(runtime->stem_sys_fd, sys_masked, MASK_COUNT(sys_masked), MASK_SYS_FIRST);
}
