/* SPDX-License-Identifier: Apache-2.0 */
/* Rates out of two STATS answers: pure arithmetic of top, with "not measured" kept apart from 0. */
#ifndef CORACLE_CLI_RATES_H
#define CORACLE_CLI_RATES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Difference of a counter a second; *ret_known is false when either sample lacks it or it ran backwards (a restart). */
double rate_of(const json_t *before, const json_t *now, const char *key, uint64_t interval_ns, bool *ret_known);

/* "12.5%" of one core, "not measured" when unknown. Caller frees. */
char *rate_cpu(const json_t *before, const json_t *now, uint64_t interval_ns);

/* "1.2k" a second of one or two counters (second may be NULL: only the first). Caller frees. */
char *rate_count(const json_t *before, const json_t *now, const char *first, const char *second, uint64_t interval_ns);

#endif
