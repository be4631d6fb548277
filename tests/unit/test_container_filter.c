/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every system call number against the containers' filter, interpreted for x86_64, i386 and x32, with each conditional
 * argument mutated. tests/integration/runtime tries the refused ones in a real container.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "sandbox/container_filter.h"

enum { NUMBERS = 1024, X32_BIT = 0x40000000 };

static struct sock_filter *filter;
static uint32_t filter_count;

/* Classic BPF as far as seccomp uses it; anything else fails the test. */
static uint32_t interpret(const struct seccomp_data *data)
{
    uint32_t a = 0;

    for (uint32_t pc = 0; pc < filter_count; pc++) {
        const struct sock_filter *i = &filter[pc];
        bool taken;

        switch (i->code) {
        case BPF_LD | BPF_W | BPF_ABS:
            assert_true(i->k <= sizeof(*data) - 4);
            memcpy(&a, (const char *)data + i->k, 4);
            continue;
        case BPF_JMP | BPF_JA:
            pc += i->k;
            continue;
        case BPF_JMP | BPF_JEQ | BPF_K:
            taken = a == i->k;
            break;
        case BPF_JMP | BPF_JGE | BPF_K:
            taken = a >= i->k;
            break;
        case BPF_JMP | BPF_JSET | BPF_K:
            taken = a & i->k;
            break;
        case BPF_RET | BPF_K:
            return i->k;
        default:
            fail_msg("instruction 0x%x", i->code);
            return 0;
        }
        pc += taken ? i->jt : i->jf;
    }
    fail_msg("the filter has no end");
    return 0;
}

static uint32_t ask(uint32_t arch, uint32_t number, uint64_t a0, uint64_t a1)
{
    struct seccomp_data data = {.nr = (int)number, .arch = arch, .args = {a0, a1}};

    return interpret(&data);
}

static uint32_t wanted(int number)
{
    switch (seccomp_container_verdict(number)) {
    case SECCOMP_VERDICT_ALLOW:
        return SECCOMP_RET_ALLOW;
    case SECCOMP_VERDICT_EPERM:
        return SECCOMP_RET_ERRNO | EPERM;
    default:
        return SECCOMP_RET_ERRNO | ENOSYS;
    }
}

static void every_number_of_x86_64(void **state)
{
    unsigned allowed = 0, refused = 0;

    for (int number = 0; number < NUMBERS; number++) {
        if (seccomp_container_verdict(number) == SECCOMP_VERDICT_CONDITIONAL)
            continue;
        uint32_t answer = ask(AUDIT_ARCH_X86_64, (uint32_t)number, 0, 0);

        if (answer != wanted(number))
            fail_msg("system call %d: 0x%x instead of 0x%x", number, answer, wanted(number));
        assert_int_equal(answer, ask(AUDIT_ARCH_X86_64, (uint32_t)number, ~0ull, ~0ull));
        allowed += answer == SECCOMP_RET_ALLOW;
        refused += answer == (SECCOMP_RET_ERRNO | EPERM);
    }
    print_message("%u allowed, %u EPERM, %u instructions\n", allowed, refused, filter_count);
    /* The count is part of the contract: whoever lets more through changes it here, and says why in the commit. */
    assert_int_equal(allowed, 295);
    assert_int_equal(refused, 51);
}

static void every_number_of_other_architectures(void **state)
{
    static const uint32_t others[] = {AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64, AUDIT_ARCH_ARM, 0, ~0u};

    for (uint32_t number = 0; number < NUMBERS; number++) {
        for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
            assert_int_equal(ask(others[i], number, 0, 0), SECCOMP_RET_KILL_PROCESS);
        assert_int_equal(ask(AUDIT_ARCH_X86_64, number | X32_BIT, 0, 0), SECCOMP_RET_KILL_PROCESS);
    }
}

static void arguments_decide(void **state)
{
    const uint32_t no = SECCOMP_RET_ERRNO | EPERM;

    for (int bit = 0; bit < 32; bit++) {
        uint64_t flag = 1ull << bit;
        bool namespace = flag & (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
                                 CLONE_NEWPID | CLONE_NEWNET);

        assert_int_equal(ask(AUDIT_ARCH_X86_64, SYS_clone, flag | 17, 0), namespace ? no : SECCOMP_RET_ALLOW);
        bool harmless = flag & (CLONE_FS | CLONE_FILES | CLONE_SYSVSEM | CLONE_NEWCGROUP);

        assert_int_equal(ask(AUDIT_ARCH_X86_64, SYS_unshare, flag, 0), harmless ? SECCOMP_RET_ALLOW : no);
        assert_int_equal(ask(AUDIT_ARCH_X86_64, SYS_unshare, flag | CLONE_NEWUSER, 0), no);
    }
    assert_int_equal(ask(AUDIT_ARCH_X86_64, SYS_unshare, CLONE_NEWCGROUP | CLONE_FS, 0), no);
    for (unsigned family = 0; family < 64; family++) {
        bool known =
            family == AF_UNIX || family == AF_INET || family == AF_INET6 || family == AF_NETLINK || family == AF_PACKET;

        assert_int_equal(ask(AUDIT_ARCH_X86_64, SYS_socket, family, 0),
                         known ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | EAFNOSUPPORT);
    }
    for (uint64_t request = 0x5400; request < 0x5500; request++) {
        uint32_t answer = request == TIOCSTI || request == 0x541c ? no : SECCOMP_RET_ALLOW;

        assert_int_equal(ask(AUDIT_ARCH_X86_64, SYS_ioctl, 0, request), answer);
        assert_int_equal(ask(AUDIT_ARCH_X86_64, SYS_ioctl, 0, request | 1ull << 32), answer);
    }
    assert_int_equal(ask(AUDIT_ARCH_X86_64, SYS_ioctl, 0, 0x80000000), SECCOMP_RET_ALLOW);
    for (uint64_t command = 0; command < 2048; command++) {
        uint32_t answer = command == F_SETLEASE || command == F_NOTIFY ? no : SECCOMP_RET_ALLOW;

        assert_int_equal(ask(AUDIT_ARCH_X86_64, SYS_fcntl, 3, command), answer);
        assert_int_equal(ask(AUDIT_ARCH_X86_64, SYS_fcntl, 3, command | 1ull << 32), answer);
    }
    for (uint64_t option = 0; option < 64; option++) {
        struct seccomp_data data = {.nr = SYS_setsockopt, .arch = AUDIT_ARCH_X86_64, .args = {3, SOL_PACKET, option}};
        bool ring = option == PACKET_RX_RING || option == PACKET_TX_RING;

        assert_int_equal(interpret(&data), ring ? no : SECCOMP_RET_ALLOW);
        data.args[1] = SOL_SOCKET;
        assert_int_equal(interpret(&data), SECCOMP_RET_ALLOW);
    }
    for (unsigned type = 0; type < 16; type++) {
        struct seccomp_data data = {.nr = SYS_mknodat, .arch = AUDIT_ARCH_X86_64, .args = {3, 1, type << 12 | 0600}};
        bool special = type << 12 == S_IFCHR || type << 12 == S_IFBLK;
        bool file = type << 12 == S_IFREG || type << 12 == S_IFIFO || type << 12 == S_IFSOCK || type == 0;

        if (special || file) {
            assert_int_equal(interpret(&data), special ? no : SECCOMP_RET_ALLOW);
            assert_int_equal(ask(AUDIT_ARCH_X86_64, SYS_mknod, 1, type << 12 | 0600), special ? no : SECCOMP_RET_ALLOW);
        }
    }
    for (unsigned flags = 0; flags < 8; flags++) {
        struct seccomp_data data = {.nr = SYS_renameat2, .arch = AUDIT_ARCH_X86_64, .args = {3, 1, 3, 2, flags}};

        assert_int_equal(interpret(&data), flags & 4 /* RENAME_WHITEOUT */ ? no : SECCOMP_RET_ALLOW);
    }
    assert_int_equal(ask(AUDIT_ARCH_X86_64, SYS_io_setup, 1, 0), SECCOMP_RET_ERRNO | ENOSYS);
    assert_int_equal(ask(AUDIT_ARCH_X86_64, SYS_personality, 0xffffffff, 0), SECCOMP_RET_ALLOW);
    assert_int_equal(ask(AUDIT_ARCH_X86_64, SYS_personality, 0x0400000, 0), no);
}

static int setup(void **state)
{
    struct error *err = NULL;

    return seccomp_container_filter(&filter, &filter_count, &err);
}

static int teardown(void **state)
{
    free(filter);
    return 0;
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_number_of_x86_64),
        cmocka_unit_test(every_number_of_other_architectures),
        cmocka_unit_test(arguments_decide),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
