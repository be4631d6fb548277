/* SPDX-License-Identifier: Apache-2.0 */
/* The ping flood of section 4.4: one outstanding ICMP echo at a time, the next as soon as the reply is there. */
#ifndef CORACLE_BENCH_PROBE_ECHO_H
#define CORACLE_BENCH_PROBE_ECHO_H

#include <stddef.h>

#include "bench/probe/flood.h"

/* Sends count echoes of ping's 56 bytes and writes each round trip in ms to times[count]: from just before the send
 * call to the kernel's receive stamp of the reply. *ret_n: how many were answered within a second each. */
int echo_flood(const struct target *target, size_t count, double *times, size_t *ret_n, struct error **err);

#endif
