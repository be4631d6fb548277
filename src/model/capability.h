/* SPDX-License-Identifier: Apache-2.0 */
/* The few capabilities (capabilities(7)) an instance may hold, always inside its own user namespace. Pure. */
#ifndef CORACLE_MODEL_CAPABILITY_H
#define CORACLE_MODEL_CAPABILITY_H

#include <stdint.h>

#include "base/error.h"

uint32_t capability_default_set(void); /* every container's: what images that drop root need */
uint32_t capability_allowed_set(void); /* the defaults and what a user may add */

/* "NET_RAW" or "CAP_NET_RAW" to its number; INVALID_VALUE for one outside the allowed set. */
int capability_parse(const char *text, const char *path, unsigned *ret, struct error **err);

/* "NET_RAW", NULL for a number outside the allowed set. */
const char *capability_name(unsigned number);

#endif
