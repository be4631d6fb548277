/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the supervisor keeps once its guest runs. QEMU has its own seccomp filter; this one is for the process that
 * QEMU, taken over by its guest, could attack through QMP and the consoles.
 */
#ifndef CORACLE_QEMU_CONFINE_H
#define CORACLE_QEMU_CONFINE_H

#include "base/error.h"

enum { CONFINE_CALL_COUNT = 38 }; /* docs/decisions/0012-qemu.md; a test counts them */

/* For ever: no new process, socket or mapping of code, no file but what /proc shows, no signal but to its own
 * children's uid. Refused calls come back with EPERM. */
int confine_supervisor(struct error **err);

#endif
