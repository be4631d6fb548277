/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers with units, signals, names: the small words of a descriptor. Pure. Used by spec_parse and by the CLI's checks. */
#ifndef CORACLE_MODEL_UNITS_H
#define CORACLE_MODEL_UNITS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* "64MiB", "10kB", "1.5GiB" or "4096" to bytes; path begins the message. INVALID_UNIT, INVALID_VALUE. */
int units_size(const char *text, const char *path, uint64_t *ret_bytes, struct error **err);

/* "100ms", "10s", "2m" to milliseconds; a number alone is refused, it would have to be guessed. */
int units_duration(const char *text, const char *path, uint32_t *ret_ms, struct error **err);

/* "SIGTERM", "TERM" or "15" to a number (1-64). */
int units_signal(const char *text, const char *path, int *ret_signal, struct error **err);

/* "SIGTERM" of 15; "SIGRTMIN+n" for real-time ones; buf holds 16 bytes. Returns buf. */
const char *units_signal_name(int signal, char *buf);

/* DNS label (RFC 1123 section 2.1): 1-63 of a-z 0-9 -, no '-' at an end. */
bool units_is_name(const char *text);

/* The kernel's list of CPUs, "0-1,3". */
bool units_is_cpuset(const char *text);

#endif
