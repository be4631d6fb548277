/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading JSON objects by a table of fields: a field that is in no table is an error that names it and its path.
 *
 * Why: every body the API takes refuses what it does not know (a misspelt limit must not be a missing limit).
 * Used by spec_parse and by the daemon for its smaller bodies.
 */
#ifndef CORACLE_MODEL_JSON_READ_H
#define CORACLE_MODEL_JSON_READ_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/strv.h"

enum { JSON_PATH_SIZE = 160 };

struct json_field {
    const char *name;
    /* value is never null (a null member counts as not given). path names it in messages. */
    int (*read)(void *target, const json_t *value, const char *path, struct error **err);
};

/* Calls each member's reader. path "" at the top. */
int json_read_object(const json_t *object, const char *path, const struct json_field *fields, size_t count, void *target,
                     struct error **err);

/* Each checks the type and says what was expected. Strings are borrowed from the value. */
int json_read_string(const json_t *value, const char *path, const char **ret, struct error **err);
int json_read_bool(const json_t *value, const char *path, bool *ret, struct error **err);
int json_read_u64(const json_t *value, const char *path, uint64_t min, uint64_t max, uint64_t *ret, struct error **err);
/* A list of strings to a NULL-terminated vector the caller frees with strv_free(). */
int json_read_strings(const json_t *value, const char *path, size_t max, char ***ret, struct error **err);
/* Index of a word in a list of n; INVALID_VALUE with a "did you mean". */
int json_read_word(const json_t *value, const char *path, const char *const *words, size_t n, size_t *ret,
                   struct error **err);

/* "a string", "a number", ... of a value, for messages. */
const char *json_type_words(const json_t *value);

/* Writes "path.name" (or "name" at the top) into buf of JSON_PATH_SIZE. Returns buf. */
const char *json_path_member(char *buf, const char *path, const char *name);
const char *json_path_item(char *buf, const char *path, size_t index);

#endif
