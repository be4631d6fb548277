/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots users keep: STATE/snapshots/UUID, one file each, written by a machine's monitor. The daemon gives the names. */
#ifndef CORACLE_LAUNCHER_SNAPSHOTS_H
#define CORACLE_LAUNCHER_SNAPSHOTS_H

#include "launcher/instance.h"

/* Removes what a predecessor left half-written. state_fd: borrowed. */
int snapshots_open(struct launcher *l, int state_fd, struct error **err);

/* The machine is written to a new file of that name; it stands still meanwhile and goes on. On a worker. */
int snapshot_write(struct launcher *l, struct instance *i, const char *name, struct error **err);

/* Opens one for reading. SNAPSHOT_NOT_FOUND. */
int snapshot_read(struct launcher *l, const char *name, int *ret_fd, struct error **err);

/* No error when there is none; a machine that was started from it goes on. */
int snapshot_remove(struct launcher *l, const char *name, struct error **err);

#endif
