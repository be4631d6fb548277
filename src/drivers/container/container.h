/* SPDX-License-Identifier: Apache-2.0 */
/* Containers: an application in its own namespaces on the host's kernel. Named by src/daemon/drivers.c. */
#ifndef CORACLE_DRIVERS_CONTAINER_H
#define CORACLE_DRIVERS_CONTAINER_H

#include "nfv/driver.h"

extern const struct driver_ops container_driver;

#endif
