/* SPDX-License-Identifier: Apache-2.0 */
/* Flags of run, create and update turned into a descriptor (docs/formats/rest-api.md); the daemon checks its values. */
#ifndef CORACLE_CLI_DESCRIPTOR_H
#define CORACLE_CLI_DESCRIPTOR_H

#include "cli/cli.h"

extern const struct option_spec descriptor_options[]; /* of run and create */
extern const struct option_spec update_options[];

/* Lays the flags (and IMAGE [COMMAND...] of words) over the descriptor of -f, or over an empty one. */
int descriptor_from_args(const struct args *args, json_t **ret, struct error **err);

/* {"resources": {...}, "labels": {...}} of what was given. */
int descriptor_update(const struct args *args, json_t **ret, struct error **err);

/* "64m", "64Mi" (docker's and Kubernetes' way) to "64MiB"; what the platform understands stays as it is. Caller frees.
 */
char *descriptor_size(const char *word);

#endif
