/* SPDX-License-Identifier: Apache-2.0 */
/* The driver of containers in guests of their own (section 5 of the reference draft). Named by src/daemon/drivers.c. */
#ifndef CORACLE_DRIVERS_HYBRID_H
#define CORACLE_DRIVERS_HYBRID_H

#include "nfv/driver.h"

extern const struct driver_ops hybrid_driver;

#endif
