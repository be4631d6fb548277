/* SPDX-License-Identifier: Apache-2.0 */
/* See place.h. The device thread calls; the kernel moves. */
#include <linux/rseq.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/devices/place.h"

enum { MOVE_PAUSE_NS = 500000 }; /* two senders on two cores must not make the vCPU a shuttlecock */

/* The calling thread's rseq area, which the kernel keeps true. glibc has registered one; musl leaves it to us. */
static const struct rseq *rseq_area(void)
{
#ifdef __GLIBC__
    extern const ptrdiff_t __rseq_offset;
    extern const unsigned int __rseq_size;

    return __rseq_size ? (const void *)((const char *)__builtin_thread_pointer() + __rseq_offset) : NULL;
#else
    enum { SIGNATURE = 0x53053053 };
    static struct rseq area = {.cpu_id = (uint32_t)RSEQ_CPU_ID_UNINITIALIZED};

    return syscall(SYS_rseq, &area, sizeof(area), 0, SIGNATURE) == 0 ? &area : NULL;
#endif
}

void place_vcpu(struct place *p)
{
    const struct rseq *area;

    p->vcpus++;
    if (p->vcpus > 1 || sched_getaffinity(0, sizeof(p->allowed), &p->allowed) < 0 || CPU_COUNT(&p->allowed) < 2)
        return;
    area = rseq_area();
    if (!area)
        return;
    p->tid = (pid_t)syscall(SYS_gettid);
    p->vcpu_cpu = &area->cpu_id;
}

void place_apart(struct place *p, uint64_t now)
{
    if (!p->tid || p->vcpus != 1)
        return;
    int here = sched_getcpu();
    if (here < 0 || *p->vcpu_cpu != (uint32_t)here || !CPU_ISSET(here, &p->allowed) ||
        now - p->moved_at < MOVE_PAUSE_NS)
        return;
    cpu_set_t others = p->allowed;
    CPU_CLR(here, &others);
    p->moved_at = now;
    p->narrowed = sched_setaffinity(p->tid, sizeof(others), &others) == 0;
}

void place_free(struct place *p)
{
    if (!p->narrowed)
        return;
    p->narrowed = false;
    sched_setaffinity(p->tid, sizeof(p->allowed), &p->allowed);
}
