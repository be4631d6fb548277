/* SPDX-License-Identifier: Apache-2.0 */
/* The stages of coracle-unpack's sandbox. See confine.h. The list of system calls is checked by every unpack test. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "unpack/confine.h"

#if defined(__SANITIZE_ADDRESS__)
enum { SANITIZED = 1 }; /* its shadow needs terabytes of address space, its reports a few more calls */
#else
enum { SANITIZED = 0 };
#endif

static int failed(struct error **err, const char *what)
{
    return error_set_errno(err, errno, "INTERNAL", "sandbox of the image reader: %s", what);
}

static int limit(int resource, rlim_t value, struct error **err)
{
    struct rlimit now, wanted = {value, value};

    if (getrlimit(resource, &now) == 0 && now.rlim_max < value)
        return 0; /* stricter already */
    return setrlimit(resource, &wanted) < 0 ? failed(err, "setrlimit") : 0;
}

static int stage_limits(struct error **err)
{
    int r = limit(RLIMIT_CORE, 0, err);

    if (r == 0)
        r = limit(RLIMIT_NOFILE, 64, err);
    if (r == 0)
        r = limit(RLIMIT_CPU, 1200, err);
    if (r == 0 && !SANITIZED)
        r = limit(RLIMIT_AS, (rlim_t)1 << 30, err); /* xz and zstd windows fit; their bombs do not */
    return r;
}

/* ---- Landlock ---- */

/* What Linux 6.12 (ABI 6) knows; the build host's header may be older. */
enum {
    NET_BIND_TCP = 1 << 0,
    NET_CONNECT_TCP = 1 << 1,
    SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0,
    SCOPE_SIGNAL = 1 << 1,
};
struct ruleset {
    uint64_t fs, net, scoped;
};

/* Bits the kernel's ABI knows: 13 with the first, then refer, truncate, (net), ioctl_dev. */
static uint64_t fs_bits(long abi)
{
    unsigned int bits = abi >= 5 ? 16 : abi >= 3 ? 15 : abi == 2 ? 14 : 13;

    return ((uint64_t)1 << bits) - 1;
}

static int stage_landlock(int dir_fd, struct error **err)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    struct ruleset rules = {.fs = fs_bits(abi)};
    struct landlock_path_beneath_attr beneath = {.parent_fd = dir_fd};
    auto_fd int fd = -1;

    /* The first ABI forbids every hard link between directories, which images need; chroot and seccomp remain. */
    if (abi < 2)
        return 0;
    rules.net = abi >= 4 ? NET_BIND_TCP | NET_CONNECT_TCP : 0;
    rules.scoped = abi >= 6 ? SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL : 0;
    beneath.allowed_access = rules.fs & ~(uint64_t)(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_SOCK |
                                                    LANDLOCK_ACCESS_FS_MAKE_BLOCK);
    fd = (int)syscall(SYS_landlock_create_ruleset, &rules, sizeof(rules.fs) * (abi >= 6 ? 3 : abi >= 4 ? 2 : 1), 0);
    if (fd < 0 || syscall(SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) < 0 ||
        syscall(SYS_landlock_restrict_self, fd, 0) < 0)
        return failed(err, "Landlock");
    return 0;
}

/* ---- capabilities ---- */

static int stage_capabilities(struct error **err)
{
    uint32_t keep = 1u << CAP_CHOWN | 1u << CAP_DAC_OVERRIDE | 1u << CAP_FOWNER | 1u << CAP_FSETID | 1u << CAP_SETFCAP;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    if (syscall(SYS_capget, &header, data) < 0)
        return failed(err, "capget");
    data[0].permitted &= keep;
    data[1].permitted = 0;
    for (size_t i = 0; i < 2; i++) {
        data[i].effective = data[i].permitted;
        data[i].inheritable = 0;
    }
    return syscall(SYS_capset, &header, data) < 0 ? failed(err, "capset") : 0;
}

/* ---- seccomp ---- */

/* clang-format off */
static const int allowed[] = {
    /* reading the archive, writing the files */
    SCMP_SYS(read), SCMP_SYS(pread64), SCMP_SYS(write), SCMP_SYS(pwrite64), SCMP_SYS(lseek), SCMP_SYS(close),
    SCMP_SYS(openat2), SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(statx), SCMP_SYS(readlinkat), SCMP_SYS(ftruncate),
    SCMP_SYS(mkdirat), SCMP_SYS(mknodat), SCMP_SYS(symlinkat), SCMP_SYS(linkat), SCMP_SYS(unlinkat), SCMP_SYS(renameat),
    SCMP_SYS(fchown), SCMP_SYS(fchownat), SCMP_SYS(fchmod), SCMP_SYS(fchmodat), SCMP_SYS(fsetxattr),
    SCMP_SYS(utimensat), SCMP_SYS(syncfs), SCMP_SYS(fcntl),
    /* memory, time, randomness (hash seeds), the end */
    SCMP_SYS(brk), SCMP_SYS(mremap), SCMP_SYS(munmap), SCMP_SYS(madvise), SCMP_SYS(futex), SCMP_SYS(getpid),
    SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(getrandom), SCMP_SYS(uname),
    SCMP_SYS(rt_sigreturn), SCMP_SYS(exit), SCMP_SYS(exit_group),
};
static const int allowed_sanitized[] = {
    SCMP_SYS(sigaltstack), SCMP_SYS(gettid), SCMP_SYS(sched_yield), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(prctl), SCMP_SYS(getrlimit), SCMP_SYS(prlimit64), SCMP_SYS(readlink), SCMP_SYS(sched_getaffinity),
};
/* Libraries try them (locales, character sets) and go on without. */
static const int denied[] = { SCMP_SYS(open), SCMP_SYS(openat), SCMP_SYS(access), SCMP_SYS(faccessat), SCMP_SYS(stat) };
/* clang-format on */

static int add_rules(scmp_filter_ctx c, uint32_t action, const int *list, size_t count)
{
    int r = 0;

    for (size_t i = 0; i < count && r == 0; i++)
        r = seccomp_rule_add(c, action, list[i], 0);
    return r;
}

static int stage_seccomp(struct error **err)
{
    const uint32_t exec = 4; /* PROT_EXEC */
    scmp_filter_ctx c = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int r = c ? 0 : -ENOMEM;

    if (r == 0)
        r = add_rules(c, SCMP_ACT_ALLOW, allowed, sizeof(allowed) / sizeof(*allowed));
    if (r == 0 && SANITIZED)
        r = add_rules(c, SCMP_ACT_ALLOW, allowed_sanitized, sizeof(allowed_sanitized) / sizeof(*allowed_sanitized));
    if (r == 0)
        r = add_rules(c, SCMP_ACT_ERRNO(EACCES), denied, sizeof(denied) / sizeof(*denied));
    if (r == 0)
        r = seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, exec, 0));
    if (r == 0)
        r = seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, exec, 0));
    if (r == 0)
        r = seccomp_load(c);
    seccomp_release(c);
    errno = -r;
    return r < 0 ? failed(err, "seccomp") : 0;
}

int confine(int dir_fd, int keep_max, struct error **err)
{
    int r;

    umask(0);
    if (syscall(SYS_close_range, (unsigned int)keep_max + 1, ~0u, 0) < 0)
        return failed(err, "close_range");
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return failed(err, "prctl");
    r = stage_limits(err);
    if (r < 0)
        return r;
    /* Without CAP_SYS_CHROOT: Landlock confines alone. */
    if (fchdir(dir_fd) < 0)
        return failed(err, "fchdir");
    if (chroot(".") < 0 && errno != EPERM)
        return failed(err, "chroot");
    r = stage_landlock(dir_fd, err);
    if (r == 0)
        r = stage_capabilities(err);
    return r == 0 ? stage_seccomp(err) : r;
}
