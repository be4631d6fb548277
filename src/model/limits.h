/* SPDX-License-Identifier: Apache-2.0 */
/* Resource limits of one instance, as the user asked for them; 0 means "not asked for" in every field. */
#ifndef CORACLE_MODEL_LIMITS_H
#define CORACLE_MODEL_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { CPUSET_TEXT_SIZE = 128 };

struct limits {
    uint64_t cpu_milli;                 /* thousandths of one core; 500 = half a core */
    char cpuset[CPUSET_TEXT_SIZE];      /* kernel list format ("0-1,3"), "" when not asked for */
    uint64_t memory_bytes;              /* RAM; swap is never given beyond it */
    uint64_t pids;                      /* tasks, the platform's own init (1) included on top */
    uint64_t io_read_bps, io_write_bps;   /* bytes a second on the device that holds the image store */
    uint64_t io_read_iops, io_write_iops; /* operations a second on the same device */
    uint64_t storage_bytes;             /* the writable layer; default 64 MiB, set by the model */
    uint64_t cpus_max, memory_max_bytes; /* what a running machine can be given at most; 0: no more than it began with */
};

/* INSUFFICIENT_RESOURCES when more is asked for than the host has: such a limit would bound nothing. */
int limits_fit(const struct limits *limits, uint32_t cpus, uint64_t memory_bytes, struct error **err);

/* Whether a process is bounded in the same way by both. */
bool limits_same(const struct limits *a, const struct limits *b);

#endif
