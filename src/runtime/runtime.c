/* SPDX-License-Identifier: Apache-2.0 */
/* Opening the runtime: what this host can do, and what all containers share. Called once by each process using it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "runtime/internal.h"
#include "sandbox/container_filter.h"

/* Executable by everyone, readable by nobody below host root: the kernel then makes the process not dumpable, and not
 * even CAP_SYS_PTRACE inside the container reaches it (CVE-2019-5736). Sealed: nobody writes it either. */
int program_load(const char *path, const char *name, int *ret_fd, struct error **err)
{
    auto_fd int file = open(path, O_RDONLY | O_CLOEXEC), memory = -1;
    char buffer[65536];
    ssize_t n;

    if (file < 0) {
        error_set_errno(err, errno, "INTERNAL", "%s: cannot be opened", path);
        error_hint(err, "it is installed beside the launcher: install Coracle again, or name it with --init");
        return -errno;
    }
    memory = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (memory < 0)
        return error_set_errno(err, errno, "INTERNAL", "no memory file for %s", path);
    while ((n = read(file, buffer, sizeof(buffer))) > 0)
        if (write(memory, buffer, (size_t)n) != n)
            return error_set_errno(err, errno, "INTERNAL", "%s: cannot be copied to memory", path);
    if (n < 0 || fchmod(memory, 0111) ||
        fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL))
        return error_set_errno(err, errno, "INTERNAL", "%s: cannot be sealed in memory", path);
    /* A descriptor open for writing would make exec fail with ETXTBSY. */
    char own[32];

    snprintf(own, sizeof(own), "/proc/self/fd/%d", memory);
    int fd = open(own, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return error_set_errno(err, errno, "INTERNAL", "%s: cannot be opened again", path);
    *ret_fd = fd;
    return 0;
}

static bool has_capability(unsigned capability)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    return !syscall(SYS_capget, &header, data) && (data[capability / 32].effective & (1u << capability % 32));
}

static bool kernel_at_least(const char *release, unsigned major, unsigned minor)
{
    unsigned a = 0, b = 0;

    sscanf(release, "%u.%u", &a, &b);
    return a > major || (a == major && b >= minor);
}

/* Whether overlayfs takes a layer as a descriptor; a kernel without overlayfs says ENODEV. */
static void probe_overlay(struct runtime *runtime)
{
    auto_fd int context = (int)syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC);

    runtime->facts.overlay = context >= 0;
    runtime->overlay_by_fd =
        context >= 0 && !syscall(SYS_fsconfig, context, FSCONFIG_SET_FD, "lowerdir+", NULL, runtime->skeleton_fd);
}

/* Idmapped mounts are tried for real, with a layer store's own file system. */
static bool probe_idmap(const struct runtime *runtime)
{
    auto_fd int userns = spawn_idmap_namespace(runtime, runtime->image_uid_base, 1u << 30);
    auto_fd int tree =
        (int)syscall(SYS_open_tree, runtime->layers_fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)userns};

    return userns >= 0 && tree >= 0 && !syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attr, sizeof(attr));
}

static void probe(struct runtime *runtime)
{
    struct runtime_facts *facts = &runtime->facts;
    struct utsname name;
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, 1 /* LANDLOCK_CREATE_RULESET_VERSION */);
    int userns = spawn_idmap_namespace(runtime, 0, 1u << 30);

    uname(&name);
    snprintf(facts->kernel, sizeof(facts->kernel), "%.63s", name.release);
    facts->landlock_abi = abi > 0 ? (int)abi : 0;
    facts->landlock = abi > 0;
    facts->seccomp = prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0 && runtime->filter_count;
    facts->apparmor = !access("/sys/module/apparmor/parameters/enabled", F_OK);
    facts->selinux = !access("/sys/fs/selinux/enforce", F_OK);
    facts->user_namespaces = userns >= 0;
    close_fd(userns);
    facts->idmapped_mounts = probe_idmap(runtime);
    facts->cap_sys_resource = has_capability(CAP_SYS_RESOURCE);
    facts->cpus = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
    facts->memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    facts->controllers = cgroups_available(&runtime->cgroups);
    facts->cgroup_v2 = !runtime->cgroups.v1 && runtime->cgroups.v2;
    runtime->tmpfs_user_xattr = kernel_at_least(name.release, 6, 6);
    probe_overlay(runtime);
}

static bool own_oom_score_set(void)
{
    auto_fd int fd = open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC);
    char text[16] = "";

    return fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 && atoi(text) != 0;
}

static int copy_texts(struct runtime *runtime, const struct runtime_config *config)
{
    const char *label = config->apparmor_profile ? config->apparmor_profile : config->selinux_label;

    if (label && asprintf(&runtime->label, "%s%s", config->apparmor_profile ? "exec " : "", label) < 0) {
        runtime->label = NULL;
        return -ENOMEM;
    }
    if (config->resolv_conf && !(runtime->resolv_conf = strdup(config->resolv_conf)))
        return -ENOMEM;
    return 0;
}

static int open_shared(struct runtime *runtime, const struct runtime_config *config, struct error **err)
{
    int result;

    runtime->layers_fd = fcntl(config->layers_dirfd, F_DUPFD_CLOEXEC, 3);
    runtime->proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    runtime->home_mounts_fd = open("/proc/thread-self/ns/mnt", O_RDONLY | O_CLOEXEC);
    if (runtime->layers_fd < 0 || runtime->proc_fd < 0 || runtime->home_mounts_fd < 0 || copy_texts(runtime, config))
        return error_set_errno(err, errno, "INTERNAL", "the runtime's directories cannot be opened");
    result = program_load(config->init_path, "coracle-init", &runtime->init_fd, err);
    if (!result && spawn_reserve(runtime) < 0)
        return error_set_errno(err, errno, "INTERNAL", "descriptors for containers cannot be reserved");
    if (!result && config->monitor_dir)
        result = monitor_programs_load(runtime, config->monitor_dir, err);
    if (result)
        return result;
    result = seccomp_container_filter(&runtime->filter, &runtime->filter_count, err);
    if (result)
        return result;
    result = cgroups_open(&runtime->cgroups, config->cgroup_parent, runtime->layers_fd, err);
    if (!result)
        result = stem_make(runtime, err);
    if (!result)
        result = void_make(runtime, err);
    return result ? result : monitor_descriptors_keep(runtime, err);
}

int runtime_open(const struct runtime_config *config, struct runtime **ret_runtime, struct error **err)
{
    struct runtime *runtime = calloc(1, sizeof(*runtime));
    int result;

    if (!runtime)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the runtime");
    *runtime = (struct runtime){.layers_fd = -1,
                                .proc_fd = -1,
                                .home_mounts_fd = -1,
                                .init_fd = -1,
                                .stem_fd = -1,
                                .void_mounts_fd = -1,
                                .emulator_mounts_fd = -1,
                                .null_fd = -1,
                                .stem_proc_fd = -1,
                                .stem_sys_fd = -1,
                                .skeleton_fd = -1,
                                .image_uid_base = config->image_uid_base,
                                .lock = PTHREAD_MUTEX_INITIALIZER,
                                .place_free = PTHREAD_COND_INITIALIZER};
    for (int i = 0; i < SPAWN_PLACES; i++)
        runtime->places[i].fd = -1;
    memset(runtime->monitor_fds, -1, sizeof(runtime->monitor_fds));
    memset(runtime->void_fds, -1, sizeof(runtime->void_fds));
    memset(runtime->cgroups.parent_fd, -1, sizeof(runtime->cgroups.parent_fd));
    memset(runtime->cgroups.home_fd, -1, sizeof(runtime->cgroups.home_fd));
    result = open_shared(runtime, config, err);
    if (result) {
        runtime_close(runtime);
        return result;
    }
    runtime->reset_oom_score = own_oom_score_set();
    probe(runtime);
    *ret_runtime = runtime;
    return 0;
}

void runtime_close(struct runtime *runtime)
{
    if (!runtime)
        return;
    for (int i = 0; i < IDMAP_CACHE; i++)
        if (runtime->idmap_cache[i].uid_base)
            close(runtime->idmap_cache[i].fd);
    for (int i = 0; i < SPAWN_PLACES; i++)
        close_fd(runtime->places[i].fd);
    cgroups_close(&runtime->cgroups);
    close_fd(runtime->layers_fd);
    close_fd(runtime->proc_fd);
    close_fd(runtime->home_mounts_fd);
    close_fd(runtime->init_fd);
    for (int i = 0; i < MACHINE_PROGRAMS; i++)
        close_fd(runtime->monitor_fds[i]);
    void_close(runtime);
    close_fd(runtime->null_fd);
    close_fd(runtime->stem_fd);
    close_fd(runtime->stem_proc_fd);
    close_fd(runtime->stem_sys_fd);
    close_fd(runtime->skeleton_fd);
    free(runtime->filter);
    free(runtime->label);
    free(runtime->resolv_conf);
    free(runtime);
}

void runtime_use_beside(struct runtime *runtime, struct beside *beside)
{
    runtime->beside = beside;
}

void runtime_facts(const struct runtime *runtime, struct runtime_facts *ret_facts)
{
    *ret_facts = runtime->facts;
}

int runtime_check_limits(const struct runtime *runtime, const struct limits *limits, struct error **err)
{
    int result = limits_fit(limits, runtime->facts.cpus, runtime->facts.memory_bytes, err);

    return result ? result : cgroup_check(&runtime->cgroups, limits, err);
}
