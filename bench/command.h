/* SPDX-License-Identifier: Apache-2.0 */
/* Running a peer's command or a tool, with its output taken in; no shell in between. */
#ifndef CORACLE_BENCH_COMMAND_H
#define CORACLE_BENCH_COMMAND_H

#include <stdint.h>

#include "base/error.h"

/* Runs argv (looked up in PATH) inside netns (NULL: the caller's). *ret_output (may be NULL) gets its standard output,
 * the caller's to free. *ret_t0_ns (may be NULL): CLOCK_REALTIME just before its process was made. An exit status other
 * than 0 is an error with the last words of its standard error. */
int command_run(const char *netns, const char *const *argv, char **ret_output, int64_t *ret_t0_ns, struct error **err);

/* As command_run(), in the mount namespace at mount_path, without a program in between that would be timed with it. */
int command_run_in(const char *mount_path, const char *const *argv, int64_t *ret_t0_ns, struct error **err);

/* Runs a line of shell with set -eu; for set-up that is not timed. Arguments are $1... after "sh". */
int command_shell(const char *netns, const char *script, const char *const *arguments, char **ret_output,
                  struct error **err);

/* 0 when the program is in PATH, else -ENOENT with *err naming the Debian package to install. */
int command_find(const char *program, const char *package, struct error **err);

/* Cuts white space at the end of text in place; returns text. */
char *command_trim(char *text);

#endif
