/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Landlock and seccomp for the supervisor, after LOAD. Calls that are refused return EPERM instead of killing: what a C
 * library may try of itself must not end a guest, and an attacker gets nothing either way.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "qemu/confine.h"

#define X32_BIT 0x40000000u

static const uint32_t calls[] = {
    SYS_read,
    SYS_write,
    SYS_pread64,
    SYS_pwrite64, /* consoles, QMP, logs, snapshots */
    SYS_recvmsg,
    SYS_sendmsg,
    SYS_recvfrom,
    SYS_sendto, /* the launcher, QMP, consoles, journal */
    SYS_accept4,
    SYS_pipe2,
    SYS_fcntl,
    SYS_close, /* connections; console input */
    SYS_poll,
    SYS_ppoll,
    SYS_restart_syscall,
    SYS_lseek, /* the loop; holes of the memory's file */
    SYS_ftruncate,
    SYS_fstat,
    SYS_newfstatat,
    SYS_mmap, /* logs; snapshots; the heap */
    SYS_munmap,
    SYS_mprotect,
    SYS_mremap,
    SYS_brk, /* the heap */
    SYS_madvise,
    SYS_futex,
    SYS_openat,
    SYS_getdents64, /* /proc: does QEMU get a processor? */
    SYS_wait4,
    SYS_kill,
    SYS_getpid,
    SYS_getrandom, /* QEMU's end; seeds for the guest */
    SYS_clock_gettime,
    SYS_clock_nanosleep,
    SYS_rt_sigreturn,
    SYS_rt_sigprocmask,
    SYS_exit,
    SYS_exit_group,
};
_Static_assert(sizeof(calls) / sizeof(calls[0]) == CONFINE_CALL_COUNT, "the allow list changed: is that wanted?");

#if defined(__SANITIZE_ADDRESS__)
static const uint32_t sanitizer_calls[] = {SYS_sigaltstack, SYS_gettid, SYS_readlink};
#else
static const uint32_t sanitizer_calls[] = {SYS_read}; /* none: it is in the list */
#endif

enum { FILTER_BEFORE = 6, FILTER_MAX = FILTER_BEFORE + 2 * CONFINE_CALL_COUNT + 16 };

static int failed(struct error **err, const char *what)
{
    return error_set_errno(err, errno, "INTERNAL", "sandbox of coracle-qemu: %s", what);
}

/* Bits the kernel's ABI knows: 13 with the first, then refer, truncate, (net), ioctl_dev. */
static uint64_t landlock_bits(long abi)
{
    return (UINT64_C(1) << (abi >= 5 ? 16 : abi >= 3 ? 15 : abi == 2 ? 14 : 13)) - 1;
}

static int confine_files(struct error **err)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    const uint64_t everything = landlock_bits(abi);
    struct landlock_path_beneath_attr proc = {.allowed_access =
                                                  LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR};
    auto_fd int rules = -1, folder = -1;

    if (abi < 1)
        return 0; /* a kernel without it: the namespace has no other file to write anyway */
    rules = (int)syscall(SYS_landlock_create_ruleset, &everything, sizeof(everything), 0);
    folder = open("/proc", O_PATH | O_CLOEXEC);
    proc.parent_fd = folder;
    if (rules < 0 || folder < 0 || syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &proc, 0) < 0 ||
        syscall(SYS_landlock_restrict_self, rules, 0) < 0)
        return failed(err, "Landlock");
    return 0;
}

static unsigned short allow(struct sock_filter *code, unsigned short n, uint32_t call)
{
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    return n;
}

/* The last rule: of ioctl() the question how large the terminal of a command's caller is. */
static unsigned short allow_window_size(struct sock_filter *code, unsigned short n)
{
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1]));
    return allow(code, n, TIOCGWINSZ);
}

static int confine_calls(struct error **err)
{
    struct sock_filter code[FILTER_MAX];
    unsigned short n = 0;

    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    for (size_t i = 0; i < CONFINE_CALL_COUNT; i++)
        n = allow(code, n, calls[i]);
    for (size_t i = 0; i < sizeof(sanitizer_calls) / sizeof(calls[0]); i++)
        n = allow(code, n, sanitizer_calls[i]);
    n = allow_window_size(code, n);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    const struct sock_fprog program = {.len = n, .filter = code};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) < 0 ? failed(err, "seccomp") : 0;
}

int confine_supervisor(struct error **err)
{
    int r = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? failed(err, "no_new_privs") : 0;

    if (r == 0)
        r = confine_files(err);
    return r < 0 ? r : confine_calls(err);
}
