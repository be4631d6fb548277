/* SPDX-License-Identifier: Apache-2.0 */
/* Table-driven reading of JSON objects, with messages that say where. Runs in the daemon, on untrusted bodies. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"
#include "model/json_read.h"

const char *json_type_words(const json_t *value)
{
    static const char *const words[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "a list", [JSON_STRING] = "a string", [JSON_INTEGER] = "a number",
        [JSON_REAL] = "a number",    [JSON_TRUE] = "true",    [JSON_FALSE] = "false",     [JSON_NULL] = "null",
    };
    return value ? words[json_typeof(value)] : "nothing";
}

const char *json_path_member(char *buf, const char *path, const char *name)
{
    snprintf(buf, JSON_PATH_SIZE, "%.80s%s%.64s", path, *path ? "." : "", name);
    return buf;
}

const char *json_path_item(char *buf, const char *path, size_t index)
{
    snprintf(buf, JSON_PATH_SIZE, "%.80s[%zu]", path, index);
    return buf;
}

static int expected(const json_t *value, const char *path, const char *what, struct error **err)
{
    return error_set(err, EINVAL, "INVALID_VALUE", "%s: expected %s, found %s", *path ? path : "body", what,
                     json_type_words(value));
}

static int unknown_field(const char *where, const char *name, const struct json_field *fields, size_t count,
                         struct error **err)
{
    const char *nearest = NULL;
    char all[512] = "";
    size_t used = 0;

    for (size_t i = 0; i < count; i++) {
        suggest_offer(name, fields[i].name, &nearest);
        if (used < sizeof(all) - 1)
            used += (size_t)snprintf(all + used, sizeof(all) - used, "%s%s", i ? " " : "", fields[i].name);
    }
    error_set(err, EINVAL, "UNKNOWN_FIELD", "%s: there is no such field", where);
    if (nearest)
        error_hint(err, "did you mean \"%s\"?", nearest);
    else if (count == 0)
        error_hint(err, "leave the body empty");
    error_hint(err, "fields here: %s", all);
    return -EINVAL;
}

int json_read_object(const json_t *object, const char *path, const struct json_field *fields, size_t count,
                     void *target, struct error **err)
{
    const char *name;
    json_t *value;

    if (!json_is_object(object))
        return expected(object, path, "an object", err);
    json_object_foreach((json_t *)object, name, value)
    {
        char where[JSON_PATH_SIZE];
        size_t i = 0;

        json_path_member(where, path, name);
        while (i < count && strcmp(fields[i].name, name) != 0)
            i++;
        if (i == count)
            return unknown_field(where, name, fields, count, err);
        if (json_is_null(value))
            continue;
        int r = fields[i].read(target, value, where, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int json_read_string(const json_t *value, const char *path, const char **ret, struct error **err)
{
    if (!json_is_string(value)) {
        int r = expected(value, path, "a string", err);
        if (json_is_number(value) || json_is_boolean(value))
            error_hint(err, "put it in quotes");
        return r;
    }
    *ret = json_string_value(value);
    return 0;
}

int json_read_bool(const json_t *value, const char *path, bool *ret, struct error **err)
{
    if (!json_is_boolean(value))
        return expected(value, path, "true or false", err);
    *ret = json_is_true(value);
    return 0;
}

int json_read_u64(const json_t *value, const char *path, uint64_t min, uint64_t max, uint64_t *ret, struct error **err)
{
    json_int_t number = json_integer_value(value);

    if (!json_is_integer(value))
        return expected(value, path, "a whole number", err);
    if (number < 0 || (uint64_t)number < min || (uint64_t)number > max)
        return error_set(err, ERANGE, "INVALID_VALUE", "%s: %lld is outside %llu to %llu", path, (long long)number,
                         (unsigned long long)min, (unsigned long long)max);
    *ret = (uint64_t)number;
    return 0;
}

int json_read_strings(const json_t *value, const char *path, size_t max, char ***ret, struct error **err)
{
    size_t n = json_array_size(value);
    char **list;

    if (!json_is_array(value)) {
        int r = expected(value, path, "a list of strings", err);
        error_hint(err, "write a list: [\"/bin/app\", \"-v\"]");
        return r;
    }
    if (n > max)
        return error_set(err, E2BIG, "INVALID_VALUE", "%s: %zu entries, at most %zu are allowed", path, n, max);
    list = calloc(n + 1, sizeof(*list));
    if (!list)
        return error_set(err, ENOMEM, "NO_MEMORY", "%s: out of memory", path);
    for (size_t i = 0; i < n; i++) {
        char where[JSON_PATH_SIZE];
        const char *text;
        int r = json_read_string(json_array_get(value, i), json_path_item(where, path, i), &text, err);
        if (r == 0 && !(list[i] = strdup(text)))
            r = error_set(err, ENOMEM, "NO_MEMORY", "%s: out of memory", path);
        if (r < 0) {
            strv_free(list);
            return r;
        }
    }
    *ret = list;
    return 0;
}

int json_read_word(const json_t *value, const char *path, const char *const *words, size_t n, size_t *ret,
                   struct error **err)
{
    const char *text, *nearest = NULL;
    char all[256] = "";
    size_t used = 0;
    int r = json_read_string(value, path, &text, err);

    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(text, words[i]) == 0) {
            *ret = i;
            return 0;
        }
        suggest_offer(text, words[i], &nearest);
        if (used < sizeof(all) - 1)
            used += (size_t)snprintf(all + used, sizeof(all) - used, "%s%s", i ? ", " : "", words[i]);
    }
    error_set(err, EINVAL, "INVALID_VALUE", "%s: \"%.64s\" is none of: %s", path, text, all);
    if (nearest)
        error_hint(err, "did you mean \"%s\"?", nearest);
    return -EINVAL;
}
