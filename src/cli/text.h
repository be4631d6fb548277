/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Words and numbers as people read and write them: sizes, durations, times, paths. Pure; used by every command.
 *
 * Strings returned as char * are the caller's. Out of memory ends the program: a command line has nothing to save.
 */
#ifndef CORACLE_CLI_TEXT_H
#define CORACLE_CLI_TEXT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/error.h"

#define NOT_MEASURED "not measured"

char *text_dup(const char *s);
char *text_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
void *text_alloc(size_t count, size_t size);

/* "edge%20fw": everything but unreserved characters (RFC 3986 section 2.3) becomes %XX. */
char *text_percent(const char *s);

/* As text_printf with only %s and %d, each %s percent-encoded: "/v1/instances/%s/stop". */
char *text_path(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* "1.5 MiB", "512 B"; short enough for a column. */
char *text_bytes(uint64_t bytes);

/* "850 us", "2.9 ms", "1.24 s", "3m12s". */
char *text_duration_us(uint64_t us);

/* How long ago: "4s", "3m", "2h", "5d". */
char *text_age(time_t then, time_t now);

/* A JSON value as plain text; null and absent become "not measured" (or what absent says). Objects: compact JSON. */
char *text_json(const json_t *value, const char *absent);

/* The string at key, or "" when it is not there. Borrowed. */
const char *text_member(const json_t *object, const char *key);

/* Parses RFC 3339 in UTC ("2026-01-02T03:04:05.678Z"). Returns -EINVAL for something else. */
int text_parse_time(const char *s, time_t *ret);

/*
 * "5m", "1h30m" (ago), a Unix time, or RFC 3339: what --since takes. *ret is RFC 3339 UTC.
 * now: seconds, the moment durations count back from.
 */
int text_parse_since(const char *s, time_t now, char **ret, struct error **err);

/* "500ms", "10s", "2m", "1h", plain seconds ("10"). */
int text_parse_duration_ms(const char *s, const char *what, uint64_t *ret, struct error **err);

int text_parse_u64(const char *s, const char *what, uint64_t *ret, struct error **err);

/* CLOCK_MONOTONIC now, in ns. */
uint64_t clock_ns(void);

/* "key=value" split at the first '='; -EINVAL with *err naming what when there is none or the key is empty. */
int text_split_pair(const char *s, const char *what, char **ret_key, const char **ret_value, struct error **err);

#endif
