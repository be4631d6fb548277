/* SPDX-License-Identifier: Apache-2.0 */
/* YAML (and so JSON) files to JSON values, so that flags can be laid over a descriptor. Used by run, create, apply. */
#ifndef CORACLE_CLI_YAML_H
#define CORACLE_CLI_YAML_H

#include <jansson.h>
#include <stdio.h>

#include "base/error.h"

/*
 * Reads every document of in ("---" separates them). name: for error texts. *ret is an array of values.
 * Plain scalars follow YAML's core schema: true, null, 12, 0.5 get their types, everything else is a string.
 * Aliases are followed up to a bound on all nodes together, so that a small file cannot grow without limit.
 */
int yaml_read(FILE *in, const char *name, json_t **ret, struct error **err);

/* As yaml_read() of the file at path, "-" being standard input. */
int yaml_read_path(const char *path, json_t **ret, struct error **err);

#endif
