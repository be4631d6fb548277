/* SPDX-License-Identifier: Apache-2.0 */
/* What a process made with CLONE_VM may use until its exec, and how it is made (spawn.c). Inside src/runtime only. */
#ifndef CORACLE_RUNTIME_SPAWN_H
#define CORACLE_RUNTIME_SPAWN_H

#include <linux/close_range.h>
#include <sched.h>
#include <sys/syscall.h>

#include "runtime/internal.h"

#ifndef __x86_64__
#error "the child's system calls are written for x86_64"
#endif

struct clone_args;

/* No instrumentation in code the child runs: it has no thread state of its own. */
#define CHILD_CODE __attribute__((no_sanitize("address", "undefined"), no_stack_protector))

static CHILD_CODE inline long child_call(long number, long a, long b, long c, long d, long e)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}

/* How a child that shares the launcher's descriptors comes to a table of its own; read by both until it has one. */
struct spawn_files {
    unsigned high; /* no descriptor above it is kept */
    int own;       /* set by the child: 1, it has its table; -1, it could not have one */
};

/* The first thing a child made with CLONE_FILES does. */
static CHILD_CODE inline void child_own_files(struct spawn_files *files)
{
    long failure = child_call(SYS_close_range, files->high + 1, ~0u, CLOSE_RANGE_UNSHARE, 0, 0);

    __atomic_store_n(&files->own, failure ? -1 : 1, __ATOMIC_RELEASE);
    while (failure) /* nothing of the launcher's may be touched */
        child_call(SYS_exit, 127, 0, 0, 0, 0);
}

/* SCHED_OTHER, or SCHED_BATCH: as that, but it preempts nobody when it wakes up. Which thread of the launcher made it
 * is nothing an instance may notice: some of them are SCHED_BATCH. */
static CHILD_CODE inline void child_own_scheduling(int policy)
{
    const int priority = 0; /* struct sched_param */

    child_call(SYS_sched_setscheduler, 0, policy, (long)&priority, 0, 0);
}

/* Waits for one of the reserved descriptors and makes it a duplicate of fd, for a child that keeps what spawn_keep()
 * was told. Its place (runtime->places), to be given back with spawn_place_settle(), or -errno. */
int spawn_place_take(struct runtime *runtime, int fd, struct spawn_files *ret_files);
/* Gives a place back, once its child has a table of its own or is dead; pid 0: no child was made; place -1: nothing. */
void spawn_place_settle(struct runtime *runtime, int place, pid_t pid, int pidfd, const struct spawn_files *files);

struct spawn_place {
    const char *tag;      /* its cgroups */
    uint32_t controllers; /* v1: those it is born in */
    int mounts_fd;        /* mount namespace to be born in, -1: the launcher's */
    uint32_t owner;       /* effective uid of the making thread: owns new user namespaces; 0: unchanged */
};

/* clone3() whose child calls run(arguments) on the stack named in args and never returns. Both must stay valid until
 * the child's exec. Its pid, or -errno with *err. */
long spawn_clone(const struct runtime *runtime, const struct spawn_place *place, struct clone_args *args,
                 void (*run)(const void *), const void *arguments, struct error **err);

/* The launcher's own score is not inherited. */
int spawn_reset_oom_score(const struct runtime *runtime, pid_t pid, struct error **err);

#endif
