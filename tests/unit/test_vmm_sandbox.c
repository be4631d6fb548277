/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every system call number against the monitor's filter, interpreted for x86_64, i386 and x32, with each conditional
 * argument mutated; then the refused ones tried in a process that has gone through all stages of the sandbox.
 * tests/integration/vmm does the same to a monitor with a running guest.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/devices/balloon.h"
#include "vmm/devices/block.h"
#include "vmm/devices/console.h"
#include "vmm/devices/entropy.h"
#include "vmm/devices/vsock.h"
#include "vmm/sandbox.h"

enum { NUMBERS = 1024, X32_BIT = 0x40000000, CALLS_MAX = 32 };

static struct sock_filter filter[SANDBOX_FILTER_MAX];
static unsigned length;
static uint32_t device_calls[CALLS_MAX];
static unsigned device_count;

#if defined(__SANITIZE_ADDRESS__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

/* Classic BPF as far as seccomp uses it; anything else fails the test. */
static uint32_t interpret(const struct seccomp_data *data)
{
    uint32_t a = 0;

    for (unsigned pc = 0; pc < length; pc++) {
        const struct sock_filter *i = &filter[pc];

        switch (i->code) {
        case BPF_LD | BPF_W | BPF_ABS:
            assert_true(i->k <= sizeof(*data) - 4);
            memcpy(&a, (const char *)data + i->k, 4);
            break;
        case BPF_JMP | BPF_JEQ | BPF_K:
            pc += a == i->k ? i->jt : i->jf;
            break;
        case BPF_JMP | BPF_JGE | BPF_K:
            pc += a >= i->k ? i->jt : i->jf;
            break;
        case BPF_RET | BPF_K:
            return i->k;
        default:
            fail_msg("instruction 0x%x", i->code);
        }
    }
    fail_msg("the filter has no end");
    return 0;
}

static uint32_t ask(uint32_t arch, uint32_t number, uint64_t a0, uint64_t a1, uint64_t a2)
{
    struct seccomp_data data = {.nr = (int)number, .arch = arch, .args = {a0, a1, a2}};

    return interpret(&data);
}

static void use(const struct device *d)
{
    for (const uint32_t *call = d->calls; call && *call; call++)
        device_calls[device_count++] = *call;
}

static void make(const uint32_t *calls, unsigned count)
{
    length = sandbox_filter(calls, count, filter);
    assert_true(length > 0 && length <= SANDBOX_FILTER_MAX);
}

/* Numbers that pass whatever their arguments are, and those that pass with some: ioctl, tgkill, madvise. */
static unsigned allowed(void)
{
    unsigned count = 0;

    for (uint32_t number = 0; number < NUMBERS; number++) {
        uint32_t answer = ask(AUDIT_ARCH_X86_64, number, 0, 0, 0);
        bool conditional = number == SYS_ioctl || number == SYS_tgkill || number == SYS_madvise;

        if (!conditional && answer != SECCOMP_RET_ALLOW)
            assert_int_equal(answer, SECCOMP_RET_KILL_PROCESS);
        if (!conditional)
            assert_int_equal(answer, ask(AUDIT_ARCH_X86_64, number, ~0ull, ~0ull, ~0ull));
        count += answer == SECCOMP_RET_ALLOW;
        count += conditional && !SANITIZED &&
                 (number == SYS_ioctl ||
                  ask(AUDIT_ARCH_X86_64, number, (uint64_t)getpid(), 0, MADV_DONTNEED) == SECCOMP_RET_ALLOW);
    }
    return count;
}

static void test_without_devices(void **state)
{
    make(NULL, 0);
    unsigned count = allowed();
    print_message("%u calls, %u instructions\n", count, length);
    if (!SANITIZED)
        assert_int_equal(count, SANDBOX_CALL_COUNT);
}

static struct guest_memory memory;

/* What each device adds; a larger number is a decision, made here and in docs/security/attack-surface.md. */
static void test_each_device(void **state)
{
    static const struct console_output output;
    struct device *d;
    unsigned added[6];

    memory = (struct guest_memory){.base = mmap(NULL, 1 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                                   .bytes = 1 << 20};
    for (unsigned mode = BLOCK_READ_ONLY; mode <= BLOCK_PRIVATE; mode++) {
        int fd = memfd_create("disk", MFD_CLOEXEC);
        assert_int_equal(ftruncate(fd, 4096), 0);
        assert_int_equal(block_create(&memory, fd, (enum block_mode)mode, "", &d, NULL), 0);
        device_count = 0;
        use(d);
        added[mode] = device_count;
        device_destroy(d);
    }
    assert_int_equal(added[BLOCK_READ_ONLY], 1);
    assert_int_equal(added[BLOCK_WRITABLE], 4);
    assert_int_equal(added[BLOCK_PRIVATE], 3);
    device_count = 0;
    assert_int_equal(console_create(&memory, &output, -1, &d, NULL), 0);
    use(d);
    device_destroy(d);
    assert_int_equal(device_count, 0);
    assert_int_equal(entropy_create(&memory, &d, NULL), 0);
    use(d);
    device_destroy(d);
    assert_int_equal(device_count, 1);
    assert_int_equal(balloon_create(&memory, false, &d, NULL), 0);
    use(d);
    device_destroy(d);
    assert_int_equal(device_count, 2);
    assert_int_equal(vsock_create(&memory, 3, -1, &d, NULL), 0);
    use(d);
    device_destroy(d);
    make(device_calls, device_count);
    if (!SANITIZED) /* epoll_ctl, shutdown, socketpair; the rest every VM has */
        assert_int_equal(allowed(), SANDBOX_CALL_COUNT + 2 + 3);
    munmap(memory.base, 1 << 20);
}

static void test_never(void **state)
{
    static const uint32_t never[] = {SYS_open,
                                     SYS_openat,
                                     SYS_openat2,
                                     SYS_creat,
                                     SYS_connect,
                                     SYS_bind,
                                     SYS_listen,
                                     SYS_socket,
                                     SYS_execve,
                                     SYS_execveat,
                                     SYS_ptrace,
                                     SYS_clone,
                                     SYS_clone3,
                                     SYS_fork,
                                     SYS_vfork,
                                     SYS_kill,
                                     SYS_mount,
                                     SYS_unlinkat,
                                     SYS_renameat,
                                     SYS_chmod,
                                     SYS_setuid,
                                     SYS_capset,
                                     SYS_prctl,
                                     SYS_seccomp,
                                     SYS_bpf,
                                     SYS_userfaultfd,
                                     SYS_io_uring_setup,
                                     SYS_mmap,
                                     SYS_mprotect,
                                     SYS_process_vm_readv,
                                     SYS_process_vm_writev,
                                     SYS_memfd_create,
                                     SYS_dup,
                                     SYS_dup2,
                                     SYS_fcntl,
                                     SYS_setsockopt,
                                     SYS_pidfd_open,
                                     SYS_pidfd_getfd,
                                     SYS_perf_event_open,
                                     SYS_keyctl,
                                     SYS_unshare,
                                     SYS_setns};

    make(device_calls, device_count);
    for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++)
        if (!SANITIZED || (never[i] != SYS_mmap && never[i] != SYS_mprotect && never[i] != SYS_openat))
            assert_int_equal(ask(AUDIT_ARCH_X86_64, never[i], 0, 0, 0), SECCOMP_RET_KILL_PROCESS);
}

static void test_other_architectures(void **state)
{
    static const uint32_t others[] = {AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64, AUDIT_ARCH_ARM, 0, ~0u};

    make(device_calls, device_count);
    for (uint32_t number = 0; number < NUMBERS; number++) {
        for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
            assert_int_equal(ask(others[i], number, 0, 0, 0), SECCOMP_RET_KILL_PROCESS);
        assert_int_equal(ask(AUDIT_ARCH_X86_64, number | X32_BIT, 0, 0, 0), SECCOMP_RET_KILL_PROCESS);
        assert_int_equal(ask(AUDIT_ARCH_X86_64, number | 0x80000000, 0, 0, 0), SECCOMP_RET_KILL_PROCESS);
    }
}

static void test_arguments(void **state)
{
    static const uint32_t requests[] = {KVM_RUN, KVM_SET_MP_STATE, KVM_GET_REGS, KVM_GET_SREGS, TUNSETOFFLOAD};
    static const uint32_t refused[] = {KVM_SET_USER_MEMORY_REGION,
                                       KVM_SET_REGS,
                                       KVM_SET_SREGS,
                                       KVM_CREATE_VM,
                                       KVM_CREATE_VCPU,
                                       KVM_IRQFD,
                                       KVM_IOEVENTFD,
                                       KVM_SET_GSI_ROUTING,
                                       KVM_SET_MSRS,
                                       KVM_CREATE_DEVICE,
                                       TUNSETIFF,
                                       TUNATTACHFILTER,
                                       TIOCSTI,
                                       FIONREAD,
                                       SIOCGIFCONF,
                                       TUNSETLINK};

    make(device_calls, device_count);
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
        assert_int_equal(ask(AUDIT_ARCH_X86_64, SYS_ioctl, 3, requests[i], 0), SECCOMP_RET_ALLOW);
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
        assert_int_equal(ask(AUDIT_ARCH_X86_64, SYS_ioctl, 3, refused[i], 0), SECCOMP_RET_ERRNO | EPERM);
    for (int bit = 0; bit < 32; bit++) {
        assert_int_equal(ask(AUDIT_ARCH_X86_64, SYS_ioctl, 3, (uint32_t)KVM_SET_MP_STATE ^ 1u << bit, 0),
                         SECCOMP_RET_ERRNO | EPERM);
        assert_int_equal(ask(AUDIT_ARCH_X86_64, SYS_tgkill, (uint64_t)getpid() ^ 1u << bit, 1, 9),
                         SECCOMP_RET_KILL_PROCESS);
    }
    assert_int_equal(ask(AUDIT_ARCH_X86_64, SYS_tgkill, (uint64_t)getpid(), 1, SIGUSR1), SECCOMP_RET_ALLOW);
    for (uint64_t advice = 0; advice < 128 && !SANITIZED; advice++)
        assert_int_equal(ask(AUDIT_ARCH_X86_64, SYS_madvise, 0, 0, advice),
                         advice == MADV_DONTNEED || advice == MADV_REMOVE ? SECCOMP_RET_ALLOW
                                                                          : SECCOMP_RET_KILL_PROCESS);
}

/* ---- in a process ---- */

static int child(uint32_t number, bool i386)
{
    pid_t pid = fork();

    if (pid == 0) {
        if (sandbox_begin(-1, -1, NULL) < 0 || sandbox_privileges(NULL) < 0 || sandbox_files(NULL) < 0 ||
            sandbox_calls(device_calls, device_count, NULL) < 0)
            syscall(SYS_exit_group, 3);
        if (i386) {
            uint32_t result = number;
            __asm__ volatile("int $0x80" : "+a"(result) : "b"(0), "c"(0), "d"(0) : "memory");
        } else {
            syscall(number, 0, 0, 0, 0, 0, 0);
        }
        syscall(SYS_exit_group, 0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void test_in_a_process(void **state)
{
    static const uint32_t tried[] = {SYS_open, SYS_connect, SYS_execve, SYS_ptrace, SYS_socket,           SYS_clone,
                                     SYS_kill, SYS_bpf,     SYS_mount,  SYS_prctl,  SYS_process_vm_readv, SYS_setuid,
                                     SYS_fork, X32_BIT,     NUMBERS};

    for (size_t i = 0; i < sizeof(tried) / sizeof(tried[0]); i++) {
        int status = child(tried[i], false);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
            fail_msg("system call %u: wait status %x", tried[i], status);
    }
    int status = child(20, true); /* i386's getpid: harmless, and yet */
    assert_true(WIFSIGNALED(status) &&
                (WTERMSIG(status) == SIGSYS || WTERMSIG(status) == SIGSEGV)); /* no i386 at all */
    status = child(SYS_sched_yield, false);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_devices), cmocka_unit_test(test_each_device),
        cmocka_unit_test(test_never),           cmocka_unit_test(test_other_architectures),
        cmocka_unit_test(test_arguments),       cmocka_unit_test(test_in_a_process),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
