/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What coracle-init does beside its main work: making the working directory the root (the kernel looks at every process
 * of the host for that: 0.3 ms where a thousand run), unmounting the old root (it waits for an RCU grace period, 0.1 to
 * 1 ms) and raising the loopback interface (it waits for the lock the launcher's veth needs, too).
 *
 * Until then paths from "/" lead into the stem, so the main thread uses descriptors only. The old root lies over the
 * new one until it is unmounted, with everything the stem had, the host's /proc included: nobody but the init runs
 * before.
 *
 * A second thread that lives that long only, on a stack of its own, made before Landlock and seccomp bind the main
 * thread. It shares errno with it, so it makes raw system calls. The application starts after helper_join() only.
 */
#include "init.h"

#include <errno.h>
#include <linux/futex.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>

static unsigned char stack[2048] __attribute__((aligned(16)));
static int running; /* thread id; the kernel clears it when the thread has ended */
static int pivot_result;
static struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};

static inline long raw_call(long number, long a, long b, long c)
{
    long result;

    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

static __attribute__((noreturn, used)) void helper_main(void)
{
    long fd;

    pivot_result = (int)raw_call(SYS_pivot_root, (long)".", (long)".", 0);
    if (!pivot_result)
        pivot_result = (int)raw_call(SYS_umount2, (long)".", MNT_DETACH, 0);
    fd = raw_call(SYS_socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        raw_call(SYS_ioctl, fd, SIOCSIFFLAGS, (long)&loopback);
        raw_call(SYS_close, fd, 0, 0);
    }
    for (;;)
        raw_call(SYS_exit, 0, 0, 0);
}

int helper_start(void)
{
    register int *r10 __asm__("r10") = &running;
    register void (*r8)(void) __asm__("r8") = helper_main;
    long result;

    running = -1;
    __asm__ volatile("syscall\n\t"
                     "testq %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xorl %%ebp, %%ebp\n\t"
                     "callq *%%r8\n\t"
                     "1:"
                     : "=a"(result)
                     : "a"(SYS_clone),
                       "D"(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_CHILD_CLEARTID),
                       "S"(stack + sizeof(stack)), "d"(0), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    if (result < 0) {
        running = 0;
        return fail(STAGE_PIVOT, (int)-result, "helper");
    }
    return 0;
}

int helper_join(void)
{
    int now;

    while ((now = __atomic_load_n(&running, __ATOMIC_ACQUIRE)))
        syscall(SYS_futex, &running, FUTEX_WAIT, now, NULL);
    return pivot_result ? fail(STAGE_PIVOT, -pivot_result, "old root") : 0;
}
