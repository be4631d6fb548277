/* SPDX-License-Identifier: Apache-2.0 */
/* What this host has for virtual machines: found out once, by trying, on a thread of its own at the launcher's start.
 */
#ifndef CORACLE_LAUNCHER_HOST_H
#define CORACLE_LAUNCHER_HOST_H

#include "launcher/launcher.h"

/* Starts looking. Nothing is wrong when that fails: the facts then say that there is nothing. */
void host_begin(struct launcher *l);

/* Waits for what is still being looked at (a second or two at most) and copies it. */
void host_facts_fill(struct launcher *l, struct host_facts *ret);

void host_end(struct launcher *l);

#endif
