/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes a thread of another process do a system call: inject TID NUMBER [i386]. The thread stands in one already, whose
 * instruction is used again. Prints what came back, which is the number itself when the filter has a fatal signal waiting. For test_devices.py, which
 * proves with it what a monitor's sandbox forbids from inside the monitor.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

/* 0: it stopped; 1: it is gone. */
static int stop_at(pid_t tid, int request)
{
    int status = 0;

    if (ptrace(request, tid, 0, 0) < 0 || waitpid(tid, &status, __WALL) != tid)
        return -1;
    if (!WIFSTOPPED(status))
        return 1;
    if (request == PTRACE_SYSCALL && WSTOPSIG(status) != (SIGTRAP | 0x80))
        return stop_at(tid, request); /* a signal on the way, which is dropped */
    return 0;
}

int main(int argc, char **argv)
{
    struct user_regs_struct regs;
    pid_t tid = argc > 2 ? atoi(argv[1]) : 0;
    int r;

    if (tid <= 0 || ptrace(PTRACE_SEIZE, tid, 0, PTRACE_O_TRACESYSGOOD) < 0) {
        perror("inject");
        return 2;
    }
    long word = 0;
    for (unsigned tries = 0; (word & 0xffff) != 0x050f; tries++) {
        if (tries == 200 || (tries && ptrace(PTRACE_CONT, tid, 0, 0) < 0)) {
            fprintf(stderr, "inject: the thread stands in no system call\n");
            return 2;
        }
        usleep(10000);
        if (stop_at(tid, PTRACE_INTERRUPT) != 0 || ptrace(PTRACE_GETREGS, tid, 0, &regs) < 0)
            return 2;
        word = ptrace(PTRACE_PEEKTEXT, tid, regs.rip - 2, 0);
    }
    if (argc > 3)
        ptrace(PTRACE_POKETEXT, tid, regs.rip - 2, (word & ~0xffffl) | 0x80cd);
    regs.rip -= 2;
    regs.rax = (uint64_t)strtoul(argv[2], NULL, 0);
    regs.orig_rax = (uint64_t)-1;
    regs.rdi = regs.rsi = regs.rdx = regs.r10 = regs.r8 = regs.r9 = regs.rbx = regs.rcx = 0;
    if (ptrace(PTRACE_SETREGS, tid, 0, &regs) < 0) {
        perror("inject");
        return 2;
    }
    r = stop_at(tid, PTRACE_SYSCALL); /* at its entry; the filter is asked behind it */
    if (r == 0)
        r = stop_at(tid, PTRACE_SYSCALL);
    if (r == 0 && ptrace(PTRACE_GETREGS, tid, 0, &regs) == 0)
        printf("%lld\n", (long long)regs.rax);
    return 0;
}
