/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-rng: bytes of the host's random number generator. */
#ifndef CORACLE_VMM_ENTROPY_H
#define CORACLE_VMM_ENTROPY_H

#include "vmm/devices/device.h"
#include "vmm/devices/loop.h"

int entropy_create(const struct guest_memory *memory, struct device **ret, struct error **err);
int entropy_attach(struct device *entropy, struct loop *loop, struct error **err);

#endif
