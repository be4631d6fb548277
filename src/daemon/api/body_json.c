/* SPDX-License-Identifier: Apache-2.0 */
/* JSON bodies: one pass that counts depth and values in the raw text, then jansson with its strict flags. */
#include <errno.h>
#include <stdbool.h>

#include "daemon/api/body.h"

/* Whether the text could become a tree deeper or larger than allowed. Knows strings; leaves syntax to the parser. */
static int check_shape(const char *text, size_t length, struct error **err)
{
    size_t depth = 0, values = 1;
    bool in_string = false;

    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
            continue;
        }
        if (c == '"')
            in_string = true;
        else if (c == ',' || c == ':')
            values++;
        else if (c == '[' || c == '{')
            values++, depth++;
        else if ((c == ']' || c == '}') && depth)
            depth--;
        if (depth > BODY_DEPTH_MAX)
            return error_set(err, EINVAL, "MALFORMED_BODY", "body: nested deeper than %d levels at byte %zu",
                             BODY_DEPTH_MAX, i);
        if (values > BODY_VALUES_MAX)
            return error_set(err, EINVAL, "MALFORMED_BODY", "body: more than %d values", BODY_VALUES_MAX);
    }
    return 0;
}

int body_parse_json(const char *text, size_t length, json_t **ret, struct error **err)
{
    json_error_t where;
    int r = check_shape(text, length, err);

    if (r < 0)
        return r;
    json_t *value = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &where);
    if (!value) {
        error_set(err, EINVAL, "MALFORMED_BODY", "body: line %d, column %d: %s", where.line, where.column, where.text);
        error_hint(err, "the body must be one JSON object; for YAML say Content-Type: application/yaml");
        return -EINVAL;
    }
    *ret = value;
    return 0;
}
