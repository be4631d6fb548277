/* SPDX-License-Identifier: Apache-2.0 */
/* Opens what the plain tool's options say the network device is connected to; before the sandbox closes. */
#ifndef CORACLE_VMM_WIRE_H
#define CORACLE_VMM_WIRE_H

#include "vmm/devices/net.h"
#include "vmm/options.h"

/* Descriptors opened before a failure end with the process. */
int wire_open(const struct options *o, struct net_options *ret, struct error **err);

#endif
