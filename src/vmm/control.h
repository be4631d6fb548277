/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of the launcher to a running machine (monitor/protocol.h), on a thread of their own. */
#ifndef CORACLE_VMM_CONTROL_H
#define CORACLE_VMM_CONTROL_H

#include "vmm/machine.h"

/* Starts the thread, which serves connections to listen_fd (taken over) as long as the process lives. Before the
 * sandbox closes. machine lives as long. */
int control_start(struct machine *machine, int listen_fd, struct error **err);

/* The guest said that it is ready; vCPU thread. */
void control_ready(void);

#endif
