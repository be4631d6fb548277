/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor's system call filter, interpreted: every number of every architecture, and the arguments it looks at. */
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/sandbox.h"

enum { NUMBER_MAX = 1024 };

static struct sock_filter code[SANDBOX_FILTER_MAX];
static unsigned length;

/* The instructions that the filter uses; anything else fails the test. */
static uint32_t run(const struct seccomp_data *data)
{
    uint32_t a = 0;

    for (unsigned at = 0; at < length; at++) {
        const struct sock_filter *i = &code[at];
        switch (i->code) {
        case BPF_LD | BPF_W | BPF_ABS:
            assert_true(i->k + 4 <= sizeof(*data));
            memcpy(&a, (const uint8_t *)data + i->k, 4);
            break;
        case BPF_JMP | BPF_JEQ | BPF_K:
            at += a == i->k ? i->jt : i->jf;
            break;
        case BPF_JMP | BPF_JGE | BPF_K:
            at += a >= i->k ? i->jt : i->jf;
            break;
        case BPF_RET | BPF_K:
            return i->k;
        default:
            fail_msg("instruction %u: %#x", at, i->code);
        }
    }
    fail_msg("the filter ends without a word");
    return 0;
}

static uint32_t asked(uint32_t arch, int number, uint64_t first, uint64_t second, uint64_t third)
{
    const struct seccomp_data data = {.arch = arch, .nr = number, .args = {first, second, third}};

    return run(&data);
}

static unsigned count_allowed(uint32_t arch)
{
    unsigned allowed = 0;

    for (int n = 0; n < NUMBER_MAX; n++) {
        uint32_t r = asked(arch, n, (uint64_t)getpid(), KVM_RUN, MADV_DONTNEED);
        assert_true(r == SECCOMP_RET_ALLOW || r == SECCOMP_RET_KILL_PROCESS);
        allowed += r == SECCOMP_RET_ALLOW;
    }
    return allowed;
}

static void test_numbers(void **state)
{
    static const int never[] = {SYS_open,   SYS_openat, SYS_execve, SYS_socket, SYS_connect, SYS_ptrace, SYS_clone,
                                SYS_fork,   SYS_kill,   SYS_mmap,   SYS_mprotect, SYS_prctl, SYS_bpf,    SYS_unshare,
                                SYS_setns,  SYS_mount,  SYS_io_uring_setup,     SYS_process_vm_writev};

    length = sandbox_filter(NULL, 0, code);
    assert_true(length > 0 && length <= SANDBOX_FILTER_MAX);
#if defined(__SANITIZE_ADDRESS__)
    skip(); /* the filter has what the sanitizer needs */
#endif
    assert_int_equal(count_allowed(AUDIT_ARCH_X86_64), SANDBOX_CALL_COUNT);
    assert_int_equal(count_allowed(AUDIT_ARCH_I386), 0);
    assert_int_equal(asked(AUDIT_ARCH_X86_64, SYS_read | 0x40000000, 0, 0, 0), SECCOMP_RET_KILL_PROCESS); /* x32 */
    assert_int_equal(asked(AUDIT_ARCH_X86_64, -1, 0, 0, 0), SECCOMP_RET_KILL_PROCESS);
    for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++)
        assert_int_equal(asked(AUDIT_ARCH_X86_64, never[i], 0, 0, 0), SECCOMP_RET_KILL_PROCESS);
    assert_int_equal(asked(AUDIT_ARCH_X86_64, SYS_exit_group, 0, 0, 0), SECCOMP_RET_ALLOW);
}

static void test_arguments(void **state)
{
    static const uint64_t requests[] = {KVM_CREATE_VM, KVM_CREATE_VCPU, KVM_SET_USER_MEMORY_REGION, TUNSETIFF, 0x5412};

    length = sandbox_filter(NULL, 0, code);
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
        assert_int_equal(asked(AUDIT_ARCH_X86_64, SYS_ioctl, 0, requests[i], 0) & SECCOMP_RET_ACTION_FULL,
                         SECCOMP_RET_ERRNO);
    assert_int_equal(asked(AUDIT_ARCH_X86_64, SYS_ioctl, 0, TUNSETOFFLOAD, 0), SECCOMP_RET_ALLOW);
    assert_int_equal(asked(AUDIT_ARCH_X86_64, SYS_tgkill, 1, 1, 9), SECCOMP_RET_KILL_PROCESS);
}

static void test_calls_of_devices(void **state)
{
    static const uint32_t more[] = {SYS_madvise, SYS_preadv, SYS_read, SYS_preadv};

    length = sandbox_filter(more, 4, code);
    assert_true(length <= SANDBOX_FILTER_MAX);
#if !defined(__SANITIZE_ADDRESS__)
    assert_int_equal(count_allowed(AUDIT_ARCH_X86_64), SANDBOX_CALL_COUNT + 2);
    assert_int_equal(asked(AUDIT_ARCH_X86_64, SYS_madvise, 0, 0, MADV_HUGEPAGE), SECCOMP_RET_KILL_PROCESS);
#endif
    assert_int_equal(asked(AUDIT_ARCH_X86_64, SYS_madvise, 0, 0, MADV_REMOVE), SECCOMP_RET_ALLOW);
    assert_int_equal(asked(AUDIT_ARCH_X86_64, SYS_preadv, 0, 0, 0), SECCOMP_RET_ALLOW);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_numbers), cmocka_unit_test(test_arguments),
                                       cmocka_unit_test(test_calls_of_devices)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
