/* SPDX-License-Identifier: Apache-2.0 */
/* The fingerprint of the host a figure was measured on: without it a figure cannot be compared with another. */
#ifndef CORACLE_BENCH_HOST_H
#define CORACLE_BENCH_HOST_H

#include <jansson.h>

struct fingerprint {
    char hostname[64], cpu[128], kernel[128], governor[32], hypervisor[32], distribution[96];
    char mitigations[1024]; /* "name: state; ..." of /sys/devices/system/cpu/vulnerabilities */
    int cpus;
    unsigned long long memory_bytes;
    double load_before[3], load_after[3];
    char started_at[32]; /* RFC 3339, UTC */
};

void fingerprint_read(struct fingerprint *ret);

/* The load average at the end of the run. */
void fingerprint_end(struct fingerprint *fingerprint);

/* As a JSON object; NULL when out of memory. The caller's. */
json_t *fingerprint_json(const struct fingerprint *fingerprint);

#endif
