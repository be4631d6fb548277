/* SPDX-License-Identifier: Apache-2.0 */
/* What a process made with CLONE_VM may use until its exec, and how it is made (spawn.c). Inside src/runtime only. */
#ifndef CORACLE_RUNTIME_SPAWN_H
#define CORACLE_RUNTIME_SPAWN_H

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
