/* SPDX-License-Identifier: Apache-2.0 */
/* The driver of unikernels on KVM, by way of coracle-vmm. */
#ifndef CORACLE_DRIVERS_VMM_H
#define CORACLE_DRIVERS_VMM_H

#include "nfv/driver.h"

extern const struct driver_ops vmm_driver;

#endif
