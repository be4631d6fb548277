/* SPDX-License-Identifier: Apache-2.0 */
/* TCP connections opened and broken off as fast as the other side takes them, from the fabric's namespace. */
#ifndef CORACLE_BENCH_PROBE_CONNECTS_H
#define CORACLE_BENCH_PROBE_CONNECTS_H

#include <stdint.h>

#include "bench/probe/flood.h"

struct connects {
    uint64_t accepted; /* handshakes that were completed */
    uint64_t refused;  /* answered by a reset, or not within the probe's time */
    double seconds;
};

/* One connection to target->port, broken off with a reset. -ETIMEDOUT when it is not answered, -ECONNREFUSED ... */
int connects_knock(const struct target *target, int timeout_ms, struct error **err);

/* Keeps `outstanding` connections to target->port under way for about `ms` milliseconds. Each is broken off with a
 * reset as soon as it is established, so that neither side keeps it in TIME-WAIT (RFC 9293, 3.6). */
int connects_run(const struct target *target, unsigned outstanding, unsigned ms, struct connects *ret,
                 struct error **err);

#endif
