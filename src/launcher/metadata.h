/* SPDX-License-Identifier: Apache-2.0 */
/* The metadata disk of a machine that boots from a disk: its loader takes no parameters. Used by machines.c. */
#ifndef CORACLE_LAUNCHER_METADATA_H
#define CORACLE_LAUNCHER_METADATA_H

#include "base/error.h"
#include "model/plan.h"

/* parameters: identity and the rest, as a kernel would get them. *ret_fd: the disk, in memory, for reading only. */
int metadata_disk(const struct launch_plan *plan, const char *parameters, int *ret_fd, struct error **err);

/* The words of the container that a plan's carrier carries (docs/formats/guest-container.md), as a disk; the caller's. */
int container_disk(const struct launch_plan *plan, int *ret_fd, struct error **err);

#endif
