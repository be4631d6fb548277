/* SPDX-License-Identifier: Apache-2.0 */
/* The driver of machines that QEMU runs: Linux kernels, disks, and unikernels that others built. */
#ifndef CORACLE_DRIVERS_QEMU_H
#define CORACLE_DRIVERS_QEMU_H

#include "nfv/driver.h"

extern const struct driver_ops qemu_driver;

#endif
