/* SPDX-License-Identifier: Apache-2.0 */
/* What the monitor may still do once a guest runs: nothing that names a file, a process or an address. */
#ifndef CORACLE_VMM_SANDBOX_H
#define CORACLE_VMM_SANDBOX_H

#include <stdint.h>

#include "base/error.h"

/* System calls the seccomp filter lets through. A tested number: raising it is a decision, not an accident. */
enum { SANDBOX_CALL_COUNT = 24 };

/* Before any descriptor is opened: closes every inherited one but 0, 1, 2 and those to keep (-1: none); no_new_privs,
 * no core. */
int sandbox_begin(int keep, int keep_too, struct error **err);

/* Both before the second thread, which inherits them. No capability is left, whoever started the monitor. */
int sandbox_privileges(struct error **err);

/* Landlock denies every path, as far as this kernel's version knows. */
int sandbox_files(struct error **err);

/* Before the guest's first instruction, for all threads: the list of system calls, and those of the devices this VM
 * has. Anything else kills the process. */
int sandbox_calls(const uint32_t *device_calls, unsigned count, struct error **err);

/* The filter alone, for the test that tries every number on it; code of SANDBOX_FILTER_MAX. Returns its length. */
enum { SANDBOX_FILTER_MAX = 320 };
struct sock_filter;
unsigned sandbox_filter(const uint32_t *device_calls, unsigned count, struct sock_filter *ret_code);

#endif
