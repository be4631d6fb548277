/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boot parameters of unikernels that do not read Coracle's words (docs/formats/brought-unikernels.md): the image's line
 * with places in braces. Pure.
 */
#ifndef CORACLE_DRIVERS_QEMU_PARAMETERS_H
#define CORACLE_DRIVERS_QEMU_PARAMETERS_H

#include <stddef.h>

#include "base/error.h"
#include "model/plan.h"

/* line: "--ip=eth0,{ip4},{mask4} {args}"; NULL or without {args}: the arguments follow. *ret is the caller's to free.
 * INVALID_VALUE: a place that is not known, or the network has no such address. */
int parameters_fill(const char *line, char *const *argv, const char *hostname, const struct plan_nic *nics,
                    size_t nic_count, char **ret, struct error **err);

#endif
