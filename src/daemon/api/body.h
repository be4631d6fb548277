/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request's body, JSON or YAML, as a JSON value whose size and depth are bounded before any tree is built.
 *
 * Pure: tested and fuzzed alone. Called by request.c when a body is complete.
 */
#ifndef CORACLE_DAEMON_API_BODY_H
#define CORACLE_DAEMON_API_BODY_H

#include <jansson.h>
#include <stddef.h>

#include "base/error.h"

enum {
    BODY_BYTES_MAX = 1 << 20,
    BODY_DEPTH_MAX = 32,
    BODY_VALUES_MAX = 20000, /* a tree node costs up to 250 bytes: 5 MB at most, whatever the text is */
};

/* RFC 8259; duplicate keys, NUL in a string, numbers outside of int64 and double are refused. MALFORMED_BODY. */
int body_parse_json(const char *text, size_t length, json_t **ret, struct error **err);

/*
 * The JSON subset of YAML: mappings with string keys, sequences, scalars. No anchors, aliases, tags, merge keys or
 * second document. A plain scalar is null (~, null, nothing), true, false, a JSON number, or else a string: so "no",
 * "on", 0777, 1:30 and 1_000 stay the text they are. MALFORMED_BODY with line and column.
 */
int body_parse_yaml(const char *text, size_t length, json_t **ret, struct error **err);

#endif
