/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the REST layer's body parsers: whatever YAML or JSON accepts must be a bounded tree that prints as JSON and
 * reads back as the same value. The first byte chooses the parser. Built for libFuzzer, or as a replay program.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/api/body.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const json_t *value)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(17));
    json_t *again = NULL;

    if (!text)
        abort();
    if (strlen(text) <= BODY_BYTES_MAX && body_parse_json(text, strlen(text), &again, NULL) < 0)
        abort(); /* what YAML accepts, JSON must */
    if (again && !json_equal(again, value))
        abort();
    json_decref(again);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error *err = NULL;
    json_t *value = NULL;
    int r;

    if (size == 0)
        return 0;
    r = (*data == 'y' ? body_parse_yaml : body_parse_json)((const char *)data + 1, size - 1, &value, &err);
    if (r == 0)
        check(value);
    else if (!err || !err->message || value)
        abort();
    json_decref(value);
    error_free(err);
    return 0;
}
