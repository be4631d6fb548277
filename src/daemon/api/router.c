/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Route lookup. The path is split at '/' before it is percent-decoded, so "%2f" never makes a segment and "..": just a
 * name that nobody has. Nothing is normalised: what does not match a row exactly is not found.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/api/router.h"

void target_clear(struct target *target)
{
    free(target->text);
    *target = (struct target){0};
}

/* Bytes a UTF-8 sequence that starts with c needs to follow (RFC 3629 section 4), -1 for no start. */
static int continuation_count(unsigned char c)
{
    if (c >= 0xc2 && c <= 0xdf)
        return 1;
    if (c >= 0xe0 && c <= 0xef)
        return 2;
    if (c >= 0xf0 && c <= 0xf4)
        return 3;
    return -1;
}

/* The second byte's bounds depend on the first: no overlong form, no surrogate, nothing above U+10FFFF. */
static bool second_fits(unsigned char first, unsigned char second)
{
    unsigned char low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    unsigned char high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;

    return second >= low && second <= high;
}

bool text_is_clean(const char *text, size_t length)
{
    const unsigned char *s = (const unsigned char *)text;

    for (size_t i = 0; i < length; i++) {
        if (s[i] < 0x80) {
            if (s[i] < 0x20 || s[i] == 0x7f)
                return false;
            continue;
        }
        int more = continuation_count(s[i]);
        if (more < 0 || (size_t)more >= length - i || !second_fits(s[i], s[i + 1]))
            return false;
        for (int k = 1; k <= more; k++)
            if ((s[i + k] & 0xc0) != 0x80)
                return false;
        i += (size_t)more;
    }
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes %XX (and '+' as a space in a query) in place; false for a bad escape or a byte no text has. */
static bool decode(char *text, bool plus_is_space)
{
    char *out = text;

    for (const char *s = text; *s; s++) {
        if (*s == '%') {
            int high = hex_digit(s[1]), low = high < 0 ? -1 : hex_digit(s[2]);
            if (low < 0 || (high == 0 && low == 0))
                return false;
            *out++ = (char)(high << 4 | low);
            s += 2;
        } else {
            *out++ = plus_is_space && *s == '+' ? ' ' : *s;
        }
    }
    *out = '\0';
    return text_is_clean(text, (size_t)(out - text));
}

/* Compares a raw path with a pattern. On a match *ret_start and *ret_length say where {id}'s value lies. */
static bool path_matches(const char *pattern, const char *path, const char **ret_start, size_t *ret_length)
{
    *ret_start = NULL;
    while (*pattern) {
        if (*pattern == '{') {
            size_t n = strcspn(path, "/");
            if (n == 0)
                return false;
            *ret_start = path;
            *ret_length = n;
            path += n;
            pattern = strchr(pattern, '}') + 1;
        } else if (*pattern++ != *path++) {
            return false;
        }
    }
    return *path == '\0';
}

static void allow_add(char *allow, size_t size, const char *method)
{
    size_t used = strlen(allow);

    if (used + strlen(method) + 3 > size)
        return;
    if (used)
        strcat(allow, ", ");
    strcat(allow, method);
}

static bool method_matches(const char *route_method, const char *method)
{
    return strcmp(route_method, method) == 0 || (strcmp(method, "HEAD") == 0 && strcmp(route_method, "GET") == 0);
}

static bool parameter_known(const struct route *route, const char *key)
{
    for (size_t i = 0; i < ROUTE_PARAMETER_MAX && route->parameters[i]; i++)
        if (strcmp(route->parameters[i], key) == 0)
            return true;
    return false;
}

static void hint_parameters(const struct route *route, struct error **err)
{
    char list[256] = "";

    for (size_t i = 0; i < ROUTE_PARAMETER_MAX && route->parameters[i]; i++)
        allow_add(list, sizeof(list), route->parameters[i]);
    error_hint(err, *list ? "it takes: %s" : "it takes no parameters%s", list);
}

static int parse_query(const struct route *route, char *query, struct target *target, struct error **err)
{
    char *rest = query;

    while (rest && *rest) {
        char *pair = strsep(&rest, "&"), *value = pair;
        if (*pair == '\0')
            continue;
        strsep(&value, "=");
        if (!decode(pair, true) || (value && !decode(value, true)))
            return error_set(err, EINVAL, "INVALID_VALUE",
                             "query: a parameter is not percent-encoded clean UTF-8 text");
        if (!parameter_known(route, pair)) {
            error_set(err, EINVAL, "UNKNOWN_PARAMETER", "%s %s knows no parameter \"%s\"", route->method,
                      route->pattern, pair);
            hint_parameters(route, err);
            return -EINVAL;
        }
        if (target->query_count == QUERY_PARAMETER_MAX)
            return error_set(err, E2BIG, "INVALID_VALUE", "query: more than %d parameters", QUERY_PARAMETER_MAX);
        target->query[target->query_count++] = (struct query_parameter){pair, value ? value : pair + strlen(pair)};
    }
    return 0;
}

/* Takes the argument and the query out of target->text, which holds "path\0query\0". */
static int fill_target(const struct route *route, size_t argument_at, size_t argument_length, char *query,
                       struct target *target, struct error **err)
{
    if (argument_at) {
        target->argument = target->text + argument_at;
        target->argument[argument_length] = '\0'; /* what follows in the path was already compared */
        if (argument_length > (size_t)PATH_ARGUMENT_MAX * 3 || !decode(target->argument, false) ||
            strlen(target->argument) > PATH_ARGUMENT_MAX)
            return error_set(err, EINVAL, "INVALID_VALUE",
                             "path: the name is not percent-encoded clean UTF-8 text of at most %d bytes",
                             PATH_ARGUMENT_MAX);
    }
    return parse_query(route, query, target, err);
}

int route_find(const struct route *routes, size_t count, const char *method, const char *uri,
               const struct route **ret_route, struct target *target, char *allow, size_t allow_size,
               struct error **err)
{
    const char *argument;
    size_t length = strlen(uri), argument_length = 0;

    *allow = '\0';
    if (length > URI_BYTES_MAX)
        return error_set(err, E2BIG, "INVALID_VALUE", "the request target is longer than %d bytes", URI_BYTES_MAX);
    *target = (struct target){.text = strdup(uri)};
    if (!target->text)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a request");
    char *query = strchr(target->text, '?');
    if (query)
        *query++ = '\0';
    for (size_t i = 0; i < count; i++) {
        if (!path_matches(routes[i].pattern, target->text, &argument, &argument_length))
            continue;
        if (!method_matches(routes[i].method, method)) {
            allow_add(allow, allow_size, routes[i].method);
            continue;
        }
        *ret_route = &routes[i];
        return fill_target(&routes[i], argument ? (size_t)(argument - target->text) : 0, argument_length, query, target,
                           err);
    }
    if (*allow) {
        error_set(err, ENOTSUP, "METHOD_NOT_ALLOWED", "this path does not know the request's method");
        error_hint(err, "use %s", allow);
        return -ENOTSUP;
    }
    error_set(err, ENOENT, "ROUTE_NOT_FOUND", "there is no such path in this API");
    error_hint(err, "GET /v1/openapi.yaml describes every path");
    return -ENOENT;
}

int target_value(const struct target *target, const char *key, const char **ret_value, struct error **err)
{
    const char *found = NULL;

    for (size_t i = 0; i < target->query_count; i++) {
        if (strcmp(target->query[i].key, key) != 0)
            continue;
        if (found)
            return error_set(err, EINVAL, "INVALID_VALUE", "query: \"%s\" stands more than once", key);
        found = target->query[i].value;
    }
    *ret_value = found;
    return 0;
}

int target_bool(const struct target *target, const char *key, bool fallback, bool *ret, struct error **err)
{
    const char *value;
    int r = target_value(target, key, &value, err);

    if (r < 0)
        return r;
    if (!value)
        *ret = fallback;
    else if (strcmp(value, "true") == 0 || strcmp(value, "false") == 0)
        *ret = *value == 't';
    else
        return error_set(err, EINVAL, "INVALID_VALUE", "query: %s is neither \"true\" nor \"false\"", key);
    return 0;
}

int target_number(const struct target *target, const char *key, unsigned long long fallback, unsigned long long max,
                  unsigned long long *ret, struct error **err)
{
    const char *value;
    char *end;
    int r = target_value(target, key, &value, err);

    if (r < 0)
        return r;
    if (!value) {
        *ret = fallback;
        return 0;
    }
    errno = 0;
    unsigned long long number = strtoull(value, &end, 10);
    if (*value < '0' || *value > '9' || *end || errno || number > max)
        return error_set(err, EINVAL, "INVALID_VALUE", "query: %s is no whole number from 0 to %llu", key, max);
    *ret = number;
    return 0;
}
