/* SPDX-License-Identifier: Apache-2.0 */
/* Asks the guest to shut down: the agent of abi/agent.h, over vsock. */
#ifndef CORACLE_VMM_GUEST_CONTROL_H
#define CORACLE_VMM_GUEST_CONTROL_H

#include "vmm/machine.h"

/* Once, before the sandbox closes, for a machine with a vsock device. */
int guest_control_prepare(struct machine *m, struct error **err);

/* Any thread. True: the guest is being asked, for the first time; one that has nobody to ask is ended. False: it was
 * asked already, or has no vsock device. */
bool guest_control_stop(struct machine *m);

#endif
