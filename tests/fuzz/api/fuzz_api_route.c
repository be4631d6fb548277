/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the REST layer's router with "METHOD target" lines: what it lets through is clean text within bounds, what it
 * refuses has a code. Built for libFuzzer, or as a replay program.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/api/router.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct route routes[] = {
    {"GET", "/v1/i", {"name", "label", "tail", "follow"}, BODY_NONE, NULL, NULL},
    {"POST", "/v1/i", {"start"}, BODY_DESCRIPTOR, NULL, NULL},
    {"GET", "/v1/i/{id}", {0}, BODY_NONE, NULL, NULL},
    {"POST", "/v1/i/{id}/start", {0}, BODY_OPTIONAL, NULL, NULL},
};

static void check_clean(const char *text)
{
    if (!text_is_clean(text, strlen(text)))
        abort();
}

static void check_target(const struct route *route, const struct target *target)
{
    unsigned long long number;
    const char *value;
    bool flag;

    if ((strchr(route->pattern, '{') != NULL) != (target->argument != NULL))
        abort();
    if (target->argument && strlen(target->argument) > PATH_ARGUMENT_MAX)
        abort();
    if (target->argument)
        check_clean(target->argument);
    for (size_t i = 0; i < target->query_count; i++) {
        check_clean(target->query[i].key);
        check_clean(target->query[i].value);
    }
    target_value(target, "name", &value, NULL);
    target_bool(target, "follow", false, &flag, NULL);
    if (target_number(target, "tail", 0, 1000, &number, NULL) == 0 && number > 1000)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), *uri, allow[16];
    const struct route *route = NULL;
    struct target target = {0};
    struct error *err = NULL;

    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    uri = strchr(text, ' ');
    if (uri) {
        *uri++ = '\0';
        if (route_find(routes, 4, text, uri, &route, &target, allow, sizeof(allow), &err) == 0)
            check_target(route, &target);
        else if (!err || !err->code)
            abort();
    }
    target_clear(&target);
    error_free(err);
    free(text);
    return 0;
}
