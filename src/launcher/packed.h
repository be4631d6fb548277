/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Roots of images as file system images, for guests that have their own kernel: images/packed/KEY/root, made by
 * coracle-pack at the first start that needs it, read-only and shared by all that follow; beside it the names of the
 * layers it was made of. It goes with the first of them. Called by workers and the threads of layers.c.
 */
#ifndef CORACLE_LAUNCHER_PACKED_H
#define CORACLE_LAUNCHER_PACKED_H

#include "launcher/launcher.h"

/* Opens it for reading, and makes it where it is not there: that may take seconds. IMAGE_MALFORMED and its like. */
int packed_open(struct launcher *l, const struct plan_root *root, int *ret_fd, struct error **err);

/* Forgets every one that was made of this layer. */
void packed_drop(struct launcher *l, const char *digest);

/* At the start: what was not finished goes. */
void packed_sweep(struct launcher *l);

#endif
