/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of the launcher to a running machine (monitor/protocol.h), on a thread of their own. */
#ifndef CORACLE_VMM_CONTROL_H
#define CORACLE_VMM_CONTROL_H

#include "vmm/machine.h"

/* Starts the thread, which routes the VM's interrupts (what the kernel waits for there need not hold up the machine)
 * and then waits for control_serve(). machine, with its VM, lives as long as the process. */
int control_start(struct machine *machine, struct error **err);
/* Interrupts are routed, and the thread's start is over: before a device raises one, and before the sandbox closes.
 * The result is that of routing; asked for again, it is the same. Main thread. */
int control_await_start(struct error **err);

/* Connections to listen_fd (taken over) are served from now on, as long as the process lives. */
void control_serve(int listen_fd);
/* From now on to another one (taken over), while the thread serves. */
void control_serve_instead(int listen_fd);

/* The guest said that it is ready; vCPU thread. */
void control_ready(void);

#endif
