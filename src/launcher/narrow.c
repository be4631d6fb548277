/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The launcher gives up what it does not need: capabilities outside a list with a reason for each, the gaining of any
 * by exec, and system calls that no part of it and no instance uses. Main thread, before any other exists.
 *
 * A seccomp filter is inherited by every instance, so the list holds only what an instance is denied as well: whatever
 * a container might want (ptrace in its own namespaces, for instance) is its own filter's matter.
 */
#include <cap-ng.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "launcher/launcher.h"

static const int kept[] = {
    CAP_SYS_ADMIN,    /* mounts, namespaces, setns, idmapped mounts */
    CAP_NET_ADMIN,    /* bridges, veth pairs, addresses, nftables */
    CAP_SETUID,       /* uid_map of instances' ranges */
    CAP_SETGID,       /* gid_map of instances' ranges */
    CAP_SETPCAP,      /* dropping from the bounding set, here and in children */
    CAP_CHOWN,        /* folders of images/tmp go to the image range, launcher.sock to the daemon's group */
    CAP_DAC_OVERRIDE, /* cgroup files and folders owned by the ranges of instances and images */
    CAP_FOWNER,       /* modes of such folders */
    CAP_KILL,         /* signals to instances: their uids are not ours */
    CAP_SYS_PTRACE,   /* /proc/PID/ns of instances, which run under other uids */
    CAP_SYS_CHROOT,   /* entering a mount namespace */
    CAP_SYS_RESOURCE, /* oom_score_adj and resource limits of instances; many hosts withhold it */
    CAP_SETFCAP,      /* uid maps, and what coracle-unpack keeps of file capabilities */
};

/* System calls that change the machine itself or open large parts of the kernel. */
static const int denied[] = {
    SYS_kexec_load,
    SYS_kexec_file_load,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_iopl,
    SYS_ioperm,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_adjtimex,
    SYS_clock_adjtime,
    SYS_acct,
    SYS_quotactl,
    SYS_quotactl_fd,
    SYS_syslog,
    SYS_vhangup,
    SYS_uselib,
    SYS_add_key,
    SYS_request_key,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_open_by_handle_at,
    SYS_move_pages,
    SYS_migrate_pages,
    SYS_lookup_dcookie,
    SYS_nfsservctl,
};

enum { DENIED_COUNT = sizeof(denied) / sizeof(denied[0]), X32_BIT = 0x40000000 };

static int deny_system_calls(struct error **err)
{
    struct sock_filter code[DENIED_COUNT + 8];
    struct sock_fprog program = {.filter = code};
    unsigned short n = 0;

    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, DENIED_COUNT + 1, 0);
    for (unsigned i = 0; i < DENIED_COUNT; i++)
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)denied[i],
                                                 (unsigned char)(DENIED_COUNT - i), 0);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    program.len = n;
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        return error_set_errno(err, errno, "START_FAILED", "installing the launcher's system call filter");
    return 0;
}

int narrow(struct error **err)
{
    capng_clear(CAPNG_SELECT_ALL);
    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
        if (prctl(PR_CAPBSET_READ, kept[i]) == 1) /* one the host withholds cannot be asked for */
            capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_BOUNDING_SET, (unsigned)kept[i]);
    if (capng_apply(CAPNG_SELECT_BOTH) != 0)
        return error_set(err, EPERM, "START_FAILED", "capabilities cannot be given up; the launcher needs to be root");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_set_errno(err, errno, "START_FAILED", "setting no_new_privs");
    return deny_system_calls(err);
}
