/* SPDX-License-Identifier: Apache-2.0 */
/* Whether limits fit a host, and whether two are the same. Asked by drivers when they plan (daemon), and again by the
 * launcher. Pure. */
#include "model/limits.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

int limits_fit(const struct limits *limits, uint32_t cpus, uint64_t memory_bytes, struct error **err)
{
    if (cpus && limits->cpu_milli > cpus * 1000ull) {
        error_set(err, ERANGE, "INSUFFICIENT_RESOURCES", "resources.cpus: %g asked for, this host has %u",
                  (double)limits->cpu_milli / 1000, cpus);
        error_hint(err, "ask for at most %u, or leave it out: an instance may then use them all", cpus);
        return -ERANGE;
    }
    if (memory_bytes && limits->memory_bytes > memory_bytes) {
        error_set(err, ERANGE, "INSUFFICIENT_RESOURCES",
                  "resources.memory: %" PRIu64 " MiB asked for, this host has %" PRIu64 " MiB",
                  limits->memory_bytes >> 20, memory_bytes >> 20);
        error_hint(err, "ask for less, or place it on a larger host");
        return -ERANGE;
    }
    return 0;
}

bool limits_same(const struct limits *a, const struct limits *b)
{
    return a->cpu_milli == b->cpu_milli && strcmp(a->cpuset, b->cpuset) == 0 && a->memory_bytes == b->memory_bytes &&
           a->pids == b->pids && a->io_read_bps == b->io_read_bps && a->io_write_bps == b->io_write_bps &&
           a->io_read_iops == b->io_read_iops && a->io_write_iops == b->io_write_iops &&
           a->storage_bytes == b->storage_bytes;
}
