/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A technology that runs nothing: it answers every verb, and acts out faults on demand (spec.fault).
 *
 * For testing the whole control plane on any machine. Its instances live in the daemon's memory, so a killed daemon
 * loses them, as a host that lost power loses its containers.
 */
#ifndef CORACLE_DRIVERS_FAKE_H
#define CORACLE_DRIVERS_FAKE_H

#include "nfv/driver.h"

extern const struct driver_ops fake_driver;

#endif
