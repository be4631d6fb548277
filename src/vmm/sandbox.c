/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The monitor's sandbox, in the order of its stages. A guest that takes the monitor over holds its descriptors (the VM,
 * a tap, two outputs) and the calls below. main.c runs the stages; tests/integration/vmm counts and tries them.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <linux/vhost.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/sandbox.h"

static int failed(struct error **err, const char *what)
{
    return error_set_errno(err, errno, "INTERNAL", "sandbox of the monitor: %s", what);
}

static int close_between(unsigned first, unsigned last)
{
    return first <= last && syscall(SYS_close_range, first, last, 0) < 0 ? -1 : 0;
}

int sandbox_begin(int keep, int keep_too, struct error **err)
{
    const int low = keep < keep_too ? keep : keep_too, high = keep < keep_too ? keep_too : keep;
    const struct rlimit none = {0, 0};
    unsigned first = STDERR_FILENO + 1;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return failed(err, "no_new_privs");
    if (setrlimit(RLIMIT_CORE, &none) < 0)
        return failed(err, "setrlimit");
    for (int i = 0; i < 2; i++) {
        int kept = i == 0 ? low : high;
        if (kept < (int)first)
            continue;
        if (close_between(first, (unsigned)kept - 1) < 0)
            return failed(err, "close_range");
        first = (unsigned)kept + 1;
    }
    return close_between(first, ~0u) < 0 ? failed(err, "close_range") : 0;
}

/* Bits the kernel's ABI knows: 13 with the first, then refer, truncate, (net), ioctl_dev. */
static uint64_t landlock_bits(long abi)
{
    return (UINT64_C(1) << (abi >= 5 ? 16 : abi >= 3 ? 15 : abi == 2 ? 14 : 13)) - 1;
}

int sandbox_privileges(struct error **err)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct none[2] = {{0}, {0}};

    return syscall(SYS_capset, &header, none) < 0 ? failed(err, "capset") : 0;
}

int sandbox_files(struct error **err)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    const uint64_t everything = landlock_bits(abi);
    auto_fd int rules = -1;

    if (abi < 1)
        return 0; /* a kernel without it: the calls that open files are gone all the same */
    rules = (int)syscall(SYS_landlock_create_ruleset, &everything, sizeof(everything), 0);
    if (rules < 0 || syscall(SYS_landlock_restrict_self, rules, 0) < 0)
        return failed(err, "Landlock");
    return 0;
}

/* ---- seccomp ---- */

static const uint32_t calls[] = {
    SYS_ioctl,  /* the requests below only */
    SYS_tgkill, /* of this process: the vCPU is interrupted */
    SYS_readv,
    SYS_writev,
    SYS_read,
    SYS_write, /* tap; event descriptors, console, log */
    SYS_epoll_pwait,
    SYS_sched_yield,
    SYS_futex,             /* device thread; locks */
    SYS_sched_setaffinity, /* device thread: place.c */
    SYS_timer_settime,
    SYS_rt_sigreturn, /* the guest's deadlines */
    SYS_clock_gettime,
    SYS_getpid,
    SYS_sendto,    /* log: time, name, journal */
    SYS_ftruncate, /* log: the older of the two files */
    SYS_poll,
    SYS_accept4,
    SYS_recvmsg, /* control thread: the launcher asks */
    SYS_sendmsg,
    SYS_close,
    SYS_pwrite64,        /* and is answered; a snapshot */
    SYS_restart_syscall, /* the kernel's own, for a wait that a freeze or a stop interrupted */
    SYS_exit_group,
};
_Static_assert(sizeof(calls) / sizeof(calls[0]) == SANDBOX_CALL_COUNT, "the allow list grew: is that wanted?");

static const uint32_t requests[] = {KVM_RUN, KVM_SET_MP_STATE, KVM_GET_REGS, KVM_GET_SREGS, KVM_GET_FPU, TUNSETOFFLOAD,
                                    TUNSETQUEUE, /* the driver's wishes */
                                    /* vhost-net, when the driver is ready or resets; its memory was told before */
                                    VHOST_SET_FEATURES, VHOST_SET_VRING_NUM, VHOST_SET_VRING_BASE, VHOST_SET_VRING_ADDR,
                                    VHOST_SET_VRING_KICK, VHOST_SET_VRING_CALL, VHOST_NET_SET_BACKEND};

#if defined(__SANITIZE_ADDRESS__)
static const uint32_t sanitizer_calls[] = {SYS_mmap,     SYS_munmap,      SYS_madvise,        SYS_mprotect,
                                           SYS_gettid,   SYS_sigaltstack, SYS_rt_sigprocmask, SYS_openat,
                                           SYS_readlink, SYS_prlimit64};
#else
static const uint32_t sanitizer_calls[1];
#endif

enum { NUMBER_MAX = SANDBOX_CALL_COUNT + 32 };

struct program {
    struct sock_filter code[SANDBOX_FILTER_MAX];
    unsigned short length;
};

static void emit(struct program *p, uint16_t code, uint32_t value, uint8_t if_true, uint8_t if_false)
{
    p->code[p->length++] = (struct sock_filter){.code = code, .jt = if_true, .jf = if_false, .k = value};
}

static void allow_if(struct program *p, uint32_t value)
{
    emit(p, BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1);
    emit(p, BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
}

static void load(struct program *p, size_t offset)
{
    emit(p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static void kill_process(struct program *p)
{
    emit(p, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
}

/* An unknown ioctl comes back as refused, so that a library's isatty() is no reason to die. */
static void check_ioctl(struct program *p)
{
    load(p, offsetof(struct seccomp_data, args[1]));
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
        allow_if(p, requests[i]);
    emit(p, BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM, 0, 0);
}

/* Signals to threads of this process only. */
static void check_tgkill(struct program *p)
{
    load(p, offsetof(struct seccomp_data, args[0]));
    allow_if(p, (uint32_t)getpid());
    kill_process(p);
}

/* Memory of the guest's goes back, nothing else: no advice that changes what a page is. */
static void check_madvise(struct program *p)
{
    load(p, offsetof(struct seccomp_data, args[2]));
    allow_if(p, MADV_DONTNEED);
    allow_if(p, MADV_REMOVE);
    kill_process(p);
}

/* What is left to decide when the number is that of an allowed call. */
static void allow_call(struct program *p, uint32_t number, bool any_advice)
{
    if (number == SYS_ioctl)
        check_ioctl(p);
    else if (number == SYS_tgkill)
        check_tgkill(p);
    else if (number == SYS_madvise && !any_advice)
        check_madvise(p);
    else
        emit(p, BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
}

/*
 * The numbers as a search tree. When a filter is set the kernel tries it with every system call there is, to learn which
 * of them it need not run it for: a list of comparisons made that the most expensive step of a start.
 */
static void search(struct program *p, const uint32_t *numbers, unsigned count, bool any_advice)
{
    if (count == 1) {
        unsigned short at = p->length;
        emit(p, BPF_JMP | BPF_JEQ | BPF_K, numbers[0], 0, 0);
        allow_call(p, numbers[0], any_advice);
        p->code[at].jf = (uint8_t)(p->length - at - 1);
        kill_process(p);
        return;
    }
    unsigned short at = p->length;
    emit(p, BPF_JMP | BPF_JGE | BPF_K, numbers[count / 2], 0, 0);
    search(p, numbers, count / 2, any_advice);
    p->code[at].jt = (uint8_t)(p->length - at - 1); /* half of a program of at most SANDBOX_FILTER_MAX */
    search(p, numbers + count / 2, count - count / 2, any_advice);
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static unsigned gather(uint32_t *ret, const uint32_t *from, size_t count, unsigned have)
{
    for (size_t i = 0; i < count && have < NUMBER_MAX; i++)
        ret[have++] = from[i];
    return have;
}

static void write_filter(struct program *p, const uint32_t *device_calls, unsigned device_count)
{
    uint32_t numbers[NUMBER_MAX];
    const size_t sanitizer = sizeof(sanitizer_calls) / sizeof(sanitizer_calls[0]);
    unsigned all = gather(numbers, calls, SANDBOX_CALL_COUNT, 0), count = 0;

    if (sanitizer > 1)
        all = gather(numbers, sanitizer_calls, sanitizer, all);
    all = gather(numbers, device_calls, device_count, all);
    qsort(numbers, all, sizeof(numbers[0]), by_number);
    for (unsigned i = 0; i < all; i++) /* each once */
        if (i == 0 || numbers[i] != numbers[i - 1])
            numbers[count++] = numbers[i];
    load(p, offsetof(struct seccomp_data, arch));
    emit(p, BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
    kill_process(p);
    load(p, offsetof(struct seccomp_data, nr));
    search(p, numbers, count, sanitizer > 1); /* a sanitizer advises too */
}

unsigned sandbox_filter(const uint32_t *device_calls, unsigned count, struct sock_filter *ret_code)
{
    struct program program = {.length = 0};

    write_filter(&program, device_calls, count);
    memcpy(ret_code, program.code, program.length * sizeof(program.code[0]));
    return program.length;
}

int sandbox_calls(const uint32_t *device_calls, unsigned count, struct error **err)
{
    struct program program = {.length = 0};

    write_filter(&program, device_calls, count);
    struct sock_fprog filter = {.len = program.length, .filter = program.code};
    long r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter);
    if (r > 0) {
        errno = ESRCH; /* a thread could not take it */
        r = -1;
    }
    return r < 0 ? failed(err, "seccomp") : 0;
}
