/* SPDX-License-Identifier: Apache-2.0 */
/* Search words and filters of ps as a query of GET /v1/instances; pure, so that it is tested without a daemon. */
#ifndef CORACLE_CLI_PS_H
#define CORACLE_CLI_PS_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"

/*
 * Adds one filter: "key=value" or "key:value", with "-" or "!" before it negated; keys name, technology (tech),
 * state, status, label (l), image. *ret_state_given is set when it speaks about the state. A word without key is not
 * for here (-ENOENT, no error set): it is searched for in names.
 */
int filter_add(char **query, const char *word, bool *ret_state_given, struct error **err);

/* Whether a plain word stands in the instance's name, image, id or a label's value. */
bool filter_matches(const json_t *instance, const char *word);

#endif
