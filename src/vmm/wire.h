/* SPDX-License-Identifier: Apache-2.0 */
/* Opens what the plain tool's options say the network devices are connected to; before the sandbox closes. */
#ifndef CORACLE_VMM_WIRE_H
#define CORACLE_VMM_WIRE_H

#include "vmm/machine.h"
#include "vmm/options.h"

/* Descriptors opened before a failure end with the process. */
int wires_open(const struct options *o, struct machine_load *ret, struct error **err);

#endif
