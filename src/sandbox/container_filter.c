/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system call allow list of containers, and its translation to BPF.
 *
 * Three answers. Allowed: what programs on glibc, musl, Python, busybox and network functions use. EPERM: calls that
 * exist to change the host or leave the container; programs expect them to be forbidden. ENOSYS: everything else and
 * everything younger than this list, so that a C library falls back to an older call; clone3 is among them, because
 * its flags lie in memory where a filter cannot see new user namespaces. Another architecture's calls (i386, x32) end
 * the process: they would pass a filter written for x86_64 numbers.
 *
 * The program is made here and not by libseccomp: neighbouring numbers with one answer become one interval of a binary
 * search, which is half as many instructions (attaching took 0.2 ms of each start), and "every value but two of an
 * argument's lower half" can be said. Only jumps, loads and returns are used, so that the kernel's cache of always
 * allowed calls still works.
 */
#include "sandbox/container_filter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h> /* RENAME_WHITEOUT */
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* Newer than musl 1.2.3, with which a guest's runtime is built. */
#ifndef SYS_quotactl_fd
#define SYS_quotactl_fd 443
#endif
#ifndef SYS_process_mrelease
#define SYS_process_mrelease 448
#endif
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#ifndef RENAME_WHITEOUT
#define RENAME_WHITEOUT (1 << 2)
#endif

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

/* Younger than the headers of Debian 12: x86_64 numbers. */
enum {
    NR_cachestat = 451,
    NR_fchmodat2 = 452,
    NR_map_shadow_stack = 453,
    NR_futex_wake = 454,
    NR_futex_wait = 455,
    NR_futex_requeue = 456,
    NR_mseal = 462,
    NR_setxattrat = 463,
    NR_getxattrat = 464,
    NR_listxattrat = 465,
    NR_removexattrat = 466,
};

enum {
    NAMESPACE_FLAGS =
        CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET,
    HARMLESS_UNSHARE = CLONE_FS | CLONE_FILES | CLONE_SYSVSEM,
};

static const short allowed[] = {
    /* files */
    SYS_read, SYS_write, SYS_open, SYS_close, SYS_stat, SYS_fstat, SYS_lstat, SYS_lseek, SYS_pread64, SYS_pwrite64,
    SYS_readv, SYS_writev, SYS_preadv, SYS_pwritev, SYS_preadv2, SYS_pwritev2, SYS_access, SYS_faccessat,
    SYS_faccessat2, SYS_pipe, SYS_pipe2, SYS_dup, SYS_dup2, SYS_dup3, SYS_flock, SYS_fsync, SYS_fdatasync, SYS_sync,
    SYS_syncfs, SYS_sync_file_range, SYS_truncate, SYS_ftruncate, SYS_fallocate, SYS_fadvise64, SYS_readahead,
    SYS_getdents, SYS_getdents64, SYS_getcwd, SYS_chdir, SYS_fchdir, SYS_chroot, SYS_rename, SYS_renameat, SYS_mkdir,
    SYS_mkdirat, SYS_rmdir, SYS_creat, SYS_link, SYS_linkat, SYS_unlink, SYS_unlinkat, SYS_symlink, SYS_symlinkat,
    SYS_readlink, SYS_readlinkat, SYS_chmod, SYS_fchmod, SYS_fchmodat, NR_fchmodat2, SYS_chown, SYS_fchown, SYS_lchown,
    SYS_fchownat, SYS_umask, SYS_utime, SYS_utimes, SYS_utimensat, SYS_futimesat, SYS_statfs, SYS_fstatfs, SYS_statx,
    SYS_newfstatat, SYS_openat, SYS_openat2, SYS_close_range, SYS_sendfile, SYS_splice, SYS_tee, SYS_vmsplice,
    SYS_copy_file_range, SYS_setxattr, SYS_lsetxattr, SYS_fsetxattr, SYS_getxattr, SYS_lgetxattr, SYS_fgetxattr,
    SYS_listxattr, SYS_llistxattr, SYS_flistxattr, SYS_removexattr, SYS_lremovexattr, SYS_fremovexattr, NR_setxattrat,
    NR_getxattrat, NR_listxattrat, NR_removexattrat, SYS_inotify_init, SYS_inotify_init1, SYS_inotify_add_watch,
    SYS_inotify_rm_watch, SYS_ustat, NR_cachestat, SYS_io_destroy, SYS_io_getevents, SYS_io_submit, SYS_io_cancel,
    SYS_io_pgetevents,
    /* waiting */
    SYS_poll, SYS_ppoll, SYS_select, SYS_pselect6, SYS_epoll_create, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_wait,
    SYS_epoll_pwait, SYS_epoll_pwait2, SYS_eventfd, SYS_eventfd2, SYS_signalfd, SYS_signalfd4, SYS_timerfd_create,
    SYS_timerfd_settime, SYS_timerfd_gettime, SYS_futex, SYS_futex_waitv, NR_futex_wake, NR_futex_wait,
    NR_futex_requeue, SYS_restart_syscall, SYS_pause, SYS_sched_yield,
    /* memory */
    SYS_mmap, SYS_mprotect, SYS_munmap, SYS_brk, SYS_mremap, SYS_msync, SYS_mincore, SYS_madvise, SYS_process_madvise,
    SYS_mlock, SYS_mlock2, SYS_munlock, SYS_mlockall, SYS_munlockall, SYS_memfd_create, SYS_remap_file_pages,
    SYS_pkey_alloc, SYS_pkey_free, SYS_pkey_mprotect, SYS_get_mempolicy, SYS_set_mempolicy, SYS_mbind,
    NR_map_shadow_stack, NR_mseal, SYS_membarrier, SYS_process_mrelease,
    /* processes and threads */
    SYS_fork, SYS_vfork, SYS_execve, SYS_execveat, SYS_exit, SYS_exit_group, SYS_wait4, SYS_waitid, SYS_kill, SYS_tkill,
    SYS_tgkill, SYS_getpid, SYS_getppid, SYS_gettid, SYS_getpgid, SYS_setpgid, SYS_getpgrp, SYS_getsid, SYS_setsid,
    SYS_set_tid_address, SYS_set_robust_list, SYS_get_robust_list, SYS_arch_prctl, SYS_prctl, SYS_rseq,
    SYS_set_thread_area, SYS_get_thread_area, SYS_pidfd_open, SYS_pidfd_send_signal, SYS_getcpu, SYS_sched_setparam,
    SYS_sched_getparam, SYS_sched_setscheduler, SYS_sched_getscheduler, SYS_sched_get_priority_max,
    SYS_sched_get_priority_min, SYS_sched_rr_get_interval, SYS_sched_setaffinity, SYS_sched_getaffinity,
    SYS_sched_setattr, SYS_sched_getattr, SYS_getpriority, SYS_setpriority, SYS_ioprio_get, SYS_ioprio_set,
    SYS_ptrace, /* own processes only: same pid and user namespace */
    SYS_process_vm_readv, SYS_process_vm_writev,
    /* identity and limits */
    SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_setuid, SYS_setgid, SYS_setreuid, SYS_setregid, SYS_setresuid,
    SYS_setresgid, SYS_getresuid, SYS_getresgid, SYS_setfsuid, SYS_setfsgid, SYS_getgroups, SYS_setgroups, SYS_capget,
    SYS_capset, SYS_getrlimit, SYS_setrlimit, SYS_prlimit64, SYS_getrusage, SYS_times, SYS_seccomp,
    SYS_landlock_create_ruleset, SYS_landlock_add_rule, SYS_landlock_restrict_self,
    /* signals */
    SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigpending, SYS_rt_sigtimedwait, SYS_rt_sigqueueinfo,
    SYS_rt_tgsigqueueinfo, SYS_rt_sigsuspend, SYS_sigaltstack,
    /* time */
    SYS_nanosleep, SYS_clock_nanosleep, SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday, SYS_time, SYS_alarm,
    SYS_getitimer, SYS_setitimer, SYS_timer_create, SYS_timer_settime, SYS_timer_gettime, SYS_timer_getoverrun,
    SYS_timer_delete, SYS_adjtimex, /* reading; setting needs CAP_SYS_TIME of the host */
    /* network; socket() below */
    SYS_socketpair, SYS_bind, SYS_listen, SYS_accept, SYS_accept4, SYS_connect, SYS_getsockname, SYS_getpeername,
    SYS_sendto, SYS_recvfrom, SYS_sendmsg, SYS_recvmsg, SYS_sendmmsg, SYS_recvmmsg, SYS_shutdown, SYS_getsockopt,
    /* System V and POSIX IPC, in the container's own namespace */
    SYS_shmget, SYS_shmat, SYS_shmctl, SYS_shmdt, SYS_semget, SYS_semop, SYS_semctl, SYS_semtimedop, SYS_msgget,
    SYS_msgsnd, SYS_msgrcv, SYS_msgctl, SYS_mq_open, SYS_mq_unlink, SYS_mq_timedsend, SYS_mq_timedreceive,
    SYS_mq_notify, SYS_mq_getsetattr,
    /* the rest */
    SYS_uname, SYS_sysinfo, SYS_getrandom,
    SYS_sethostname, /* needs CAP_SYS_ADMIN, which only the init has, and only until the application runs */
};

static const short refused[] = {
    /* file systems and namespaces */
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_open_tree,
    SYS_move_mount,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_mount_setattr,
    SYS_setns,
    SYS_swapon,
    SYS_swapoff,
    SYS_quotactl,
    SYS_quotactl_fd,
    SYS_open_by_handle_at,
    SYS_name_to_handle_at,
    SYS_fanotify_init,
    SYS_fanotify_mark,
    SYS_setdomainname,
    /* the kernel itself */
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_create_module,
    SYS_kexec_load,
    SYS_kexec_file_load,
    SYS_reboot,
    SYS_syslog,
    SYS_acct,
    SYS_iopl,
    SYS_ioperm,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_vhangup,
    SYS_modify_ldt,
    SYS__sysctl,
    SYS_nfsservctl,
    /* keys are not namespaced by themselves; other processes' insides */
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    SYS_kcmp,
    SYS_pidfd_getfd,
    SYS_move_pages,
    SYS_migrate_pages,
};

static const short conditional[] = {SYS_clone, SYS_unshare,    SYS_socket, SYS_ioctl,   SYS_personality,
                                    SYS_fcntl, SYS_setsockopt, SYS_mknod,  SYS_mknodat, SYS_renameat2};

static const uint32_t socket_families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET};

/* What execution domains programs set: none, ADDR_NO_RANDOMIZE off and on with UNAME26, and the question. */
static const uint32_t personalities[] = {0x0, 0x0008, 0x20000, 0x20008, 0xffffffff};

static bool contains(const short *list, size_t count, int number)
{
    for (size_t i = 0; i < count; i++)
        if (list[i] == number)
            return true;
    return false;
}

enum seccomp_verdict seccomp_container_verdict(int number)
{
    if (contains(conditional, COUNT(conditional), number))
        return SECCOMP_VERDICT_CONDITIONAL;
    if (contains(allowed, COUNT(allowed), number))
        return SECCOMP_VERDICT_ALLOW;
    return contains(refused, COUNT(refused), number) ? SECCOMP_VERDICT_EPERM : SECCOMP_VERDICT_ENOSYS;
}

/* ---- translation ---- */

enum { PROGRAM_MAX = 1024, NUMBER_END = 512, INTERVAL_MAX = 256, X32_BIT = 0x40000000 };

#define OFFSET(field) ((uint32_t)offsetof(struct seccomp_data, field))

enum answer { ANSWER_ALLOW, ANSWER_EPERM, ANSWER_ENOSYS, ANSWER_CONDITIONAL };

struct program {
    struct sock_filter *code;
    uint32_t count;
    bool full;
};

struct interval { /* numbers from begin up to the next interval's */
    uint32_t begin;
    enum answer answer;
};

static void emit(struct program *program, uint16_t code, uint8_t jt, uint8_t jf, uint32_t k)
{
    if (program->count == PROGRAM_MAX) {
        program->full = true;
        return;
    }
    program->code[program->count++] = (struct sock_filter){code, jt, jf, k};
}

static void emit_load(struct program *program, uint32_t offset)
{
    emit(program, BPF_LD | BPF_W | BPF_ABS, 0, 0, offset);
}

static void emit_return(struct program *program, uint32_t value)
{
    emit(program, BPF_RET | BPF_K, 0, 0, value);
}

/* Equal: skips the next instruction; else: goes to it. */
static void emit_unless_equal(struct program *program, uint32_t value)
{
    emit(program, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, value);
}

/* Returns value when the loaded word equals one of a list. */
static void emit_return_if(struct program *program, const uint32_t *list, size_t count, uint32_t value)
{
    for (size_t i = 0; i < count; i++) {
        emit(program, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, list[i]);
        emit_return(program, value);
    }
}

/* The answers that depend on arguments. Little-endian: the lower half of an argument is at its own offset, and where
 * the upper half is not looked at, the kernel does not either. */
static void emit_condition(struct program *program, int number)
{
    static const short second_argument[] = {SYS_ioctl, SYS_fcntl, SYS_setsockopt, SYS_mknod}; /* what decides */
    static const uint32_t terminal[] = {TIOCSTI, TIOCLINUX}; /* typing into another's terminal */
    /* A lease on a file of a shared layer makes every other opener wait; a notification tells of their reads. */
    static const uint32_t leases[] = {F_SETLEASE, F_NOTIFY};
    /* Their pages are charged to nobody: a gibibyte past the instance's memory limit. libpcap reads without them. */
    static const uint32_t rings[] = {PACKET_RX_RING, PACKET_TX_RING};
    static const uint32_t own_cgroup[] = {CLONE_NEWCGROUP}; /* the init's; needs CAP_SYS_ADMIN, no application has it */

    emit_load(program, contains(second_argument, COUNT(second_argument), number) ? OFFSET(args[1]) : OFFSET(args[0]));
    switch (number) {
    /* No device nodes, and no whiteouts of overlayfs (a character device 0:0), which the kernel lets anybody make: a
     * Landlock before ABI 3 was seen to let them pass, and rename has a way of its own to make one. */
    case SYS_mknodat:
        emit_load(program, OFFSET(args[2]));
        /* fall through */
    case SYS_mknod:
        emit(program, BPF_JMP | BPF_JSET | BPF_K, 1, 0, S_IFCHR); /* S_IFBLK has that bit, too */
        emit_return(program, SECCOMP_RET_ALLOW);
        break;
    case SYS_renameat2:
        emit_load(program, OFFSET(args[4]));
        emit(program, BPF_JMP | BPF_JSET | BPF_K, 1, 0, RENAME_WHITEOUT);
        emit_return(program, SECCOMP_RET_ALLOW);
        break;
    case SYS_fcntl:
        emit_return_if(program, leases, COUNT(leases), SECCOMP_RET_ERRNO | EPERM);
        emit_return(program, SECCOMP_RET_ALLOW);
        return;
    case SYS_setsockopt:
        emit_unless_equal(program, SOL_PACKET);
        emit_return(program, SECCOMP_RET_ALLOW);
        emit_load(program, OFFSET(args[2]));
        emit_return_if(program, rings, COUNT(rings), SECCOMP_RET_ERRNO | EPERM);
        emit_return(program, SECCOMP_RET_ALLOW);
        return;
    case SYS_ioctl:
        emit_return_if(program, terminal, COUNT(terminal), SECCOMP_RET_ERRNO | EPERM);
        emit_return(program, SECCOMP_RET_ALLOW);
        return;
    case SYS_socket:
        emit_return_if(program, socket_families, COUNT(socket_families), SECCOMP_RET_ALLOW);
        emit_return(program, SECCOMP_RET_ERRNO | EAFNOSUPPORT);
        return;
    case SYS_personality:
        emit_return_if(program, personalities, COUNT(personalities), SECCOMP_RET_ALLOW);
        break;
    case SYS_clone:
        emit(program, BPF_JMP | BPF_JSET | BPF_K, 1, 0, NAMESPACE_FLAGS);
        emit_return(program, SECCOMP_RET_ALLOW);
        break;
    case SYS_unshare:
        emit_return_if(program, own_cgroup, COUNT(own_cgroup), SECCOMP_RET_ALLOW);
        emit(program, BPF_JMP | BPF_JSET | BPF_K, 1, 0, ~(uint32_t)HARMLESS_UNSHARE);
        emit_return(program, SECCOMP_RET_ALLOW);
        break;
    default:
        break;
    }
    emit_return(program, SECCOMP_RET_ERRNO | EPERM);
}

static enum answer answer_for(uint32_t number)
{
    switch (seccomp_container_verdict((int)number)) {
    case SECCOMP_VERDICT_ALLOW:
        return ANSWER_ALLOW;
    case SECCOMP_VERDICT_EPERM:
        return ANSWER_EPERM;
    case SECCOMP_VERDICT_CONDITIONAL:
        return ANSWER_CONDITIONAL;
    default:
        return ANSWER_ENOSYS;
    }
}

/* A number with conditions is an interval of its own; the last one is ENOSYS and has no end. */
static size_t make_intervals(struct interval *intervals)
{
    size_t count = 0;

    for (uint32_t number = 0; number <= NUMBER_END && count < INTERVAL_MAX; number++) {
        enum answer answer = number == NUMBER_END ? ANSWER_ENOSYS : answer_for(number);

        if (!count || answer == ANSWER_CONDITIONAL || intervals[count - 1].answer != answer)
            intervals[count++] = (struct interval){number, answer};
    }
    return count;
}

static void emit_answer(struct program *program, const struct interval *interval)
{
    static const uint32_t values[] = {
        [ANSWER_ALLOW] = SECCOMP_RET_ALLOW,
        [ANSWER_EPERM] = SECCOMP_RET_ERRNO | EPERM,
        [ANSWER_ENOSYS] = SECCOMP_RET_ERRNO | ENOSYS,
    };

    if (interval->answer == ANSWER_CONDITIONAL)
        emit_condition(program, (int)interval->begin);
    else
        emit_return(program, values[interval->answer]);
}

/* Binary search: number >= middle goes on behind the left half, by a long jump since it may be far. Depth: log2. */
static void emit_search(struct program *program, const struct interval *intervals, size_t count)
{
    size_t left = count / 2;
    uint32_t jump;

    if (count == 1) {
        emit_answer(program, intervals);
        return;
    }
    emit(program, BPF_JMP | BPF_JGE | BPF_K, 0, 1, intervals[left].begin);
    jump = program->count;
    emit(program, BPF_JMP | BPF_JA, 0, 0, 0);
    emit_search(program, intervals, left);
    if (!program->full)
        program->code[jump].k = program->count - jump - 1;
    emit_search(program, intervals + left, count - left);
}

int seccomp_container_filter(struct sock_filter **ret_filter, uint32_t *ret_count, struct error **err)
{
    struct program program = {.code = calloc(PROGRAM_MAX, sizeof(struct sock_filter))};
    struct interval intervals[INTERVAL_MAX];
    size_t count = make_intervals(intervals);

    if (!program.code)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the system call filter");
    emit_load(&program, OFFSET(arch));
    emit_unless_equal(&program, AUDIT_ARCH_X86_64);
    emit_return(&program, SECCOMP_RET_KILL_PROCESS);
    emit_load(&program, OFFSET(nr));
    emit(&program, BPF_JMP | BPF_JGE | BPF_K, 0, 1, X32_BIT);
    emit_return(&program, SECCOMP_RET_KILL_PROCESS);
    emit_search(&program, intervals, count);
    if (program.full || count == INTERVAL_MAX) {
        free(program.code);
        return error_set(err, E2BIG, "INTERNAL", "the system call filter does not fit");
    }
    *ret_filter = program.code;
    *ret_count = program.count;
    return 0;
}
