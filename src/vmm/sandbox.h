/* SPDX-License-Identifier: Apache-2.0 */
/* What the monitor may still do once a guest runs: nothing that names a file, a process or an address. */
#ifndef CORACLE_VMM_SANDBOX_H
#define CORACLE_VMM_SANDBOX_H

#include "base/error.h"

/* System calls the seccomp filter lets through. A tested number: raising it is a decision, not an accident. */
enum { SANDBOX_CALL_COUNT = 23 };

/* Before any descriptor is opened: closes every inherited one but 0, 1, 2 and keep (-1: none); no_new_privs, no core.
 */
int sandbox_begin(int keep, struct error **err);

/* Both before the second thread, which inherits them. No capability is left, whoever started the monitor. */
int sandbox_privileges(struct error **err);

/* Landlock denies every path, as far as this kernel's version knows. */
int sandbox_files(struct error **err);

/* Before the guest's first instruction, for all threads: the list of system calls. Anything else kills the process. */
int sandbox_calls(struct error **err);

#endif
