/* SPDX-License-Identifier: Apache-2.0 */
/* One field of a JSON answer by its dotted path; pure. Used by inspect commands. */
#ifndef CORACLE_CLI_FIELD_H
#define CORACLE_CLI_FIELD_H

#include <jansson.h>

#include "base/error.h"

/* "a.b", "networks.0.ipv4". *ret is borrowed from value. -ENOENT with *err naming how far the path leads. */
int field_find(const json_t *value, const char *path, const json_t **ret, struct error **err);

#endif
