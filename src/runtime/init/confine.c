/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What coracle-init gives up, and what it makes every process of the container give up.
 *
 * Before the launcher's start order arrives (so that a warm start pays nothing for it): rlimits, session keyring, the
 * bounding set, Landlock, seccomp. The init itself lives under the same seccomp filter and Landlock domain as the
 * application, so an application that took the init over would have won capabilities in its own namespace only.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/landlock.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

int prctl(int option, ...);

/* Newer than the headers of Debian 12. */
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14)
#endif
#ifndef LANDLOCK_ACCESS_FS_IOCTL_DEV
#define LANDLOCK_ACCESS_FS_IOCTL_DEV (1ULL << 15)
#endif
enum { SCOPE_ABSTRACT_UNIX_SOCKET = 1, SCOPE_SIGNAL = 2, LAST_CAPABILITY = 40 };

struct landlock_ruleset_6 { /* struct landlock_ruleset_attr as of ABI 6 */
    uint64_t handled_access_fs, handled_access_net, scoped;
};

static void limit(int resource, rlim_t soft, rlim_t hard)
{
    struct rlimit now;

    /* Raising needs CAP_SYS_RESOURCE of the host, which even the launcher may lack: what cannot be raised stays. */
    if (getrlimit(resource, &now))
        return;
    if (hard < now.rlim_max)
        now.rlim_max = hard;
    now.rlim_cur = soft < now.rlim_max ? soft : now.rlim_max;
    setrlimit(resource, &now);
}

int apply_settings(void)
{
    limit(RLIMIT_CORE, 0, 0); /* the host's core_pattern is no place for a tenant's memory */
    limit(RLIMIT_NOFILE, 1024, 1048576);
    umask(022);
    /* A keyring of its own; -ENOSYS on a kernel without keys is as good. */
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS)
        return fail(STAGE_SETTINGS, errno, "keyring");
    return 0;
}

static int drop_bounding(uint64_t keep)
{
    for (unsigned cap = 0; cap <= LAST_CAPABILITY; cap++)
        if (!(keep & (1ull << cap)) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) && errno != EINVAL)
            return -1;
    return 0;
}

static int set_sets(uint64_t permitted, uint64_t inheritable)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {
        {(uint32_t)permitted, (uint32_t)permitted, (uint32_t)inheritable},
        {(uint32_t)(permitted >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32)},
    };

    return (int)syscall(SYS_capset, &header, data);
}

/* In the child, after its uid was set: exec then computes what root gets from the bounding set, and what another user
 * gets from the ambient set (only what the descriptor asked for by name). */
int set_capabilities(uint64_t bounding, uint64_t ambient, bool root)
{
    uint64_t held = root ? bounding : ambient;

    if (set_sets(held, root ? 0 : ambient))
        return fail(STAGE_CAPABILITIES, errno, NULL);
    for (unsigned cap = 0; !root && cap <= LAST_CAPABILITY; cap++)
        if ((ambient & (1ull << cap)) && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0))
            return fail(STAGE_CAPABILITIES, errno, "ambient");
    return 0;
}

static int allow_beneath(int ruleset, int directory, uint64_t access)
{
    struct landlock_path_beneath_attr rule = {.allowed_access = access, .parent_fd = directory};

    return (int)syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
}

/*
 * Landlock grants along whole subtrees: "/" minus /proc cannot be said. With a read-only root nothing but /dev (its
 * terminals and /dev/shm) is to be written at all, so every other write is denied, /proc and /sys included. With a
 * writable root that rule would forbid new files in "/", so there the read-only mounts of /proc/sys and /sys do that
 * work, and Landlock denies device nodes, and ioctls on devices outside /dev. Any Landlock domain also forbids
 * mounting. Scopes (ABI 6) keep abstract sockets and signals inside.
 */
static int apply_landlock(uint32_t abi, bool read_only)
{
    struct landlock_ruleset_6 rules = {.handled_access_fs =
                                           LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK};
    uint64_t writes = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |
                      LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |
                      LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_SYM;
    uint64_t device = abi >= 5 ? LANDLOCK_ACCESS_FS_IOCTL_DEV : 0;
    size_t size = abi >= 6 ? sizeof(rules) : abi >= 4 ? 16 : 8;
    int result, ruleset;

    if (abi >= 3)
        writes |= LANDLOCK_ACCESS_FS_TRUNCATE;
    if (!read_only)
        writes = 0;
    rules.handled_access_fs |= writes | device;
    rules.scoped = abi >= 6 ? SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL : 0;
    ruleset = (int)syscall(SYS_landlock_create_ruleset, &rules, size, 0);
    if (ruleset < 0)
        return fail(STAGE_LANDLOCK, errno, NULL);
    result = writes | device ? allow_beneath(ruleset, root_state.dev_fd, writes | device) : 0;
    if (!result)
        result = (int)syscall(SYS_landlock_restrict_self, ruleset, 0);
    close(ruleset);
    return result ? fail(STAGE_LANDLOCK, errno, "restrict") : 0;
}

/* Host name and cgroup namespace are set: what only they needed goes. */
int drop_admin(uint64_t bounding)
{
    return set_sets(bounding & ~(1ull << CAP_SYS_ADMIN), 0) ? fail(STAGE_CAPABILITIES, errno, "admin") : 0;
}

int confine(const struct init_root *root, const void *filter)
{
    struct sock_fprog program = {.len = (unsigned short)root->filter_count, .filter = (void *)filter};

    if (drop_bounding(root->bounding) || set_sets(root->bounding, 0))
        return fail(STAGE_CAPABILITIES, errno, "init");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return fail(STAGE_SECCOMP, errno, "no_new_privs");
    if (root->landlock_abi && apply_landlock(root->landlock_abi, root->flags & INIT_ROOT_READ_ONLY))
        return -1;
    if (root->filter_count && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
        return fail(STAGE_SECCOMP, errno, NULL);
    return 0;
}
