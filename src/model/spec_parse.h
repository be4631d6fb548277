/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON form of a descriptor (docs/formats/rest-api.md) and back. Pure; used by the daemon and by fuzz tests. */
#ifndef CORACLE_MODEL_SPEC_PARSE_H
#define CORACLE_MODEL_SPEC_PARSE_H

#include <jansson.h>

#include "base/buffer.h"
#include "model/spec.h"

/* Reads and checks a descriptor: UNKNOWN_FIELD, INVALID_UNIT, INVALID_VALUE, each with the field's path. Defaults that
 * need no host are filled in; name and hostname stay "" and image "" when not given. *ret is written only on success. */
int spec_parse(const json_t *descriptor, struct vnf_spec *ret, struct error **err);

/* Reads {"cpus": ..., ...} over what is in *limits (a field that is null is taken back); untouched on failure. */
int limits_parse(const json_t *resources, const char *path, struct limits *limits, struct error **err);

/* Reads {"key": "value", ...} into a list the caller frees with pairs_free(). */
int labels_parse(const json_t *labels, const char *path, struct spec_pair **ret, size_t *ret_count, struct error **err);
void pairs_free(struct spec_pair *pairs, size_t count);

/* Appends the descriptor with every field that differs from "not asked for"; spec_parse() of it gives the same spec. */
void spec_render(const struct vnf_spec *spec, struct buffer *out);
void limits_render(const struct limits *limits, struct buffer *out);

/* "no", "on-failure", "always"; "auto", "cold", "pool", "snapshot". */
const char *restart_policy_name(enum restart_policy policy);
const char *start_mode_name(enum start_mode mode);

/* Field names of the top of a descriptor, NULL-terminated: for completion and documentation tests. */
const char *const *spec_field_names(void);

#endif
