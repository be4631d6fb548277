/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the monitors of virtual machines live: one set of namespaces that hold nothing, shared by all of them.
 *
 * Why shared: a monitor needs no network, no file and no name of its own, only that there are none; a network namespace
 * each would cost 0.5 ms and 219 KiB. Each gets a uid and a pid namespace of its own instead (machine.c). Built once by
 * a short-lived thread of runtime_open(), kept alive by descriptors.
 *
 *   void      /: an empty read-only tmpfs. For coracle-vmm, which opens nothing.
 *   emulator  /: the host's programs and libraries, read-only (/usr and what of /bin /lib /lib64 is not a link into
 *             it), /dev with null, zero, full, random, urandom and kvm, empty /tmp and /proc for the child to fill. For
 *             coracle-qemu and QEMU, which load libraries and firmware.
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
#include <unistd.h>

#include "base/cleanup.h"
#include "runtime/internal.h"

struct void_job {
    struct runtime *runtime;
    struct error *err;
    int result;
};

static const char *const namespace_files[VOID_NAMESPACES] = {
    [VOID_NET] = "/proc/thread-self/ns/net",
    [VOID_IPC] = "/proc/thread-self/ns/ipc",
    [VOID_UTS] = "/proc/thread-self/ns/uts",
};

/* This thread's mount namespace becomes an empty one. The host's is untouched: this is a copy. */
static int enter_empty_root(void)
{
    if (mount("coracle", "/tmp", "tmpfs", MS_NODEV | MS_NOSUID | MS_NOEXEC, "size=64k,mode=0755") || chdir("/tmp"))
        return -errno;
    if (syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
        return -errno;
    if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV | MS_NOSUID | MS_NOEXEC, NULL))
        return -errno;
    return 0;
}

static int own_mounts(void)
{
    if (unshare(CLONE_FS | CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        return -errno;
    return 0;
}

static int build_void(struct runtime *runtime)
{
    int result = own_mounts();

    /* before /proc is out of sight */
    if (!result && unshare(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS))
        result = -errno;
    if (!result && sethostname("machine", strlen("machine")))
        result = -errno;
    for (int i = 0; i < VOID_NAMESPACES && !result; i++) {
        runtime->void_fds[i] = open(namespace_files[i], O_RDONLY | O_CLOEXEC);
        if (runtime->void_fds[i] < 0)
            result = -errno;
    }
    if (result)
        return result;
    runtime->void_mounts_fd = open("/proc/thread-self/ns/mnt", O_RDONLY | O_CLOEXEC);
    return runtime->void_mounts_fd < 0 ? -errno : enter_empty_root();
}

/* ---- the emulator's root ---- */

/* Binds the host's path to the same one below the new root, read-only; a link is copied, what is not there left out. */
static int bind_path(const char *path)
{
    char target[80], link[256];
    struct stat st;
    ssize_t n;

    if (lstat(path, &st))
        return 0;
    snprintf(target, sizeof(target), "/tmp%s", path);
    if (S_ISLNK(st.st_mode)) {
        n = readlink(path, link, sizeof(link) - 1);
        if (n < 0)
            return -errno;
        link[n] = '\0';
        return symlink(link, target) ? -errno : 0;
    }
    if (mkdir(target, 0755) || mount(path, target, NULL, MS_BIND | MS_REC, NULL))
        return -errno;
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
    return syscall(SYS_mount_setattr, AT_FDCWD, target, AT_RECURSIVE, &attr, sizeof(attr)) ? -errno : 0;
}

/* /dev/kvm keeps the host's owner and mode: the child gets its group. */
static int copy_kvm(void)
{
    struct stat st;

    if (stat("/dev/kvm", &st) || !S_ISCHR(st.st_mode))
        return 0;
    if (mknod("/tmp/dev/kvm", S_IFCHR | (st.st_mode & 0777), st.st_rdev) ||
        chown("/tmp/dev/kvm", st.st_uid, st.st_gid) || chmod("/tmp/dev/kvm", st.st_mode & 0777))
        return -errno;
    return 0;
}

static int make_emulator_devices(void)
{
    static const struct {
        const char *path;
        unsigned minor;
    } devices[] = {{"/tmp/dev/null", 3},
                   {"/tmp/dev/zero", 5},
                   {"/tmp/dev/full", 7},
                   {"/tmp/dev/random", 8},
                   {"/tmp/dev/urandom", 9}};

    if (mkdir("/tmp/dev", 0755) || mount("coracle", "/tmp/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "size=64k,mode=0755"))
        return -errno;
    for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]); i++)
        if (mknod(devices[i].path, S_IFCHR | 0666, makedev(1, devices[i].minor)) || chmod(devices[i].path, 0666))
            return -errno;
    int result = copy_kvm();
    if (result)
        return result;
    return mount(NULL, "/tmp/dev", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC, NULL) ? -errno : 0;
}

static int build_emulator(struct runtime *runtime)
{
    static const char *const paths[] = {"/usr", "/bin", "/lib", "/lib64", "/lib32"};
    int result = own_mounts();

    if (!result && mount("coracle", "/tmp", "tmpfs", MS_NODEV | MS_NOSUID, "size=64k,mode=0755"))
        result = -errno;
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]) && !result; i++)
        result = bind_path(paths[i]);
    if (!result)
        result = make_emulator_devices();
    if (!result && (mkdir("/tmp/tmp", 0755) || mkdir("/tmp/proc", 0555) || mkdir("/tmp/etc", 0755)))
        result = -errno;
    if (result)
        return result;
    runtime->emulator_mounts_fd = open("/proc/thread-self/ns/mnt", O_RDONLY | O_CLOEXEC);
    if (runtime->emulator_mounts_fd < 0 || chdir("/tmp") || syscall(SYS_pivot_root, ".", ".") ||
        umount2(".", MNT_DETACH) || chdir("/"))
        return -errno;
    return mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV | MS_NOSUID, NULL) ? -errno : 0;
}

static void *void_thread(void *argument)
{
    struct void_job *job = argument;
    const char *what = "the empty namespaces of monitors";

    job->result = build_void(job->runtime);
    if (job->result) {
        error_set_errno(&job->err, -job->result, "INTERNAL", "%s cannot be made", what);
        error_hint(&job->err, "the launcher needs CAP_SYS_ADMIN and a kernel with network, IPC and UTS namespaces");
    }
    return NULL;
}

static void *emulator_thread(void *argument)
{
    struct void_job *job = argument;

    job->result = build_emulator(job->runtime);
    if (job->result)
        error_set_errno(&job->err, -job->result, "INTERNAL", "the emulators' view of the host cannot be made");
    return NULL;
}

static int run_thread(struct runtime *runtime, void *(*run)(void *), struct error **err)
{
    struct void_job job = {.runtime = runtime};
    pthread_t thread;
    int result = pthread_create(&thread, NULL, run, &job);

    if (result)
        return error_set_errno(err, result, "INTERNAL", "no thread to make namespaces in");
    pthread_join(thread, NULL);
    if (err)
        *err = job.err;
    else
        error_free(job.err);
    return job.result;
}

int void_make(struct runtime *runtime, struct error **err)
{
    int result = run_thread(runtime, void_thread, err);

    return result ? result : run_thread(runtime, emulator_thread, err);
}

void void_close(struct runtime *runtime)
{
    for (int i = 0; i < VOID_NAMESPACES; i++)
        close_fd(runtime->void_fds[i]);
    close_fd(runtime->void_mounts_fd);
    close_fd(runtime->emulator_mounts_fd);
}
