/* SPDX-License-Identifier: Apache-2.0 */
/* The REST layer's router: what finds a row, what is refused and how, path tricks. Pure; no daemon. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/api/router.h"

static const struct route routes[] = {
    {"GET", "/v1/instances", {"name", "label"}, BODY_NONE, NULL, NULL},
    {"POST", "/v1/instances", {"start"}, BODY_DESCRIPTOR, NULL, NULL},
    {"GET", "/v1/instances/{id}", {0}, BODY_NONE, NULL, NULL},
    {"POST", "/v1/instances/{id}/start", {0}, BODY_OPTIONAL, NULL, NULL},
    {"POST", "/v1/images/pull", {0}, BODY_DESCRIPTOR, NULL, NULL},
    {"GET", "/v1/images/{ref}", {0}, BODY_NONE, NULL, NULL},
};

struct found {
    const struct route *route;
    struct target target;
    char allow[64];
    struct error *err;
    int r;
};

static struct found find(const char *method, const char *uri)
{
    struct found found = {0};

    found.r = route_find(routes, sizeof(routes) / sizeof(routes[0]), method, uri, &found.route, &found.target,
                         found.allow, sizeof(found.allow), &found.err);
    return found;
}

static void found_clear(struct found *found)
{
    target_clear(&found->target);
    error_free(found->err);
}

static void expect_row(const char *method, const char *uri, size_t row, const char *argument)
{
    struct found found = find(method, uri);

    assert_int_equal(found.r, 0);
    assert_ptr_equal(found.route, &routes[row]);
    if (argument)
        assert_string_equal(found.target.argument, argument);
    else
        assert_null(found.target.argument);
    found_clear(&found);
}

static void expect_code(const char *method, const char *uri, const char *code)
{
    struct found found = find(method, uri);

    if (found.r == 0)
        fail_msg("%s %s was accepted", method, uri);
    assert_string_equal(found.err->code, code);
    found_clear(&found);
}

static void finds_rows(void **state)
{
    expect_row("GET", "/v1/instances", 0, NULL);
    expect_row("HEAD", "/v1/instances?name=a", 0, NULL);
    expect_row("POST", "/v1/instances", 1, NULL);
    expect_row("GET", "/v1/instances/edge", 2, "edge");
    expect_row("POST", "/v1/instances/edge/start", 3, "edge");
    expect_row("POST", "/v1/images/pull", 4, NULL);
    expect_row("GET", "/v1/images/pull", 5, "pull");
    expect_row("GET", "/v1/images/coracle%2Fiperf%3a1", 5, "coracle/iperf:1");
    expect_row("GET", "/v1/images/%C3%A9", 5, "\xc3\xa9");
}

static void tells_allowed_methods(void **state)
{
    struct found found = find("DELETE", "/v1/instances");

    assert_int_not_equal(found.r, 0);
    assert_string_equal(found.err->code, "METHOD_NOT_ALLOWED");
    assert_string_equal(found.allow, "GET, POST");
    found_clear(&found);
    expect_code("get", "/v1/instances", "METHOD_NOT_ALLOWED");
}

static void tricks_find_nothing(void **state)
{
    static const char *const paths[] = {
        "",
        "/",
        "v1/instances",
        "//v1/instances",
        "/v1//instances",
        "/v1/instances/",
        "/v1/instances/a/",
        "/v1/./instances",
        "/v1/x/../instances",
        "/v1%2finstances",
        "/v1/instances/../images/x",
        "/v1/instances/a/start/x",
        "*",
        "http://host/v1/instances",
        "/V1/instances",
        "/v1/instance",
        "/v1/instances#x",
    };

    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
        expect_code("GET", paths[i], "ROUTE_NOT_FOUND");
    /* These are names that nobody can have. */
    expect_row("GET", "/v1/instances/..%2f", 2, "../");
    expect_row("GET", "/v1/instances/..", 2, "..");
    expect_row("GET", "/v1/instances/%2e%2e%2f%2e%2e%2fetc%2fpasswd", 2, "../../etc/passwd");
}

static void refuses_unclean_text(void **state)
{
    static const char *const names[] = {
        "%00",       "a%00b",        "%",      "%2",       "%zz", "%c0%af", "%ff",
        "%ed%a0%80", "%f4%90%80%80", "%e2%82", "a%0d%0ab", "%7f", "\xff",
    };
    char uri[64];

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(uri, sizeof(uri), "/v1/instances/%s", names[i]);
        expect_code("GET", uri, "INVALID_VALUE");
        snprintf(uri, sizeof(uri), "/v1/instances?name=%s", names[i]);
        expect_code("GET", uri, "INVALID_VALUE");
    }
}

static void bounds_sizes(void **state)
{
    static char uri[URI_BYTES_MAX + 100];

    strcpy(uri, "/v1/instances/");
    memset(uri + 14, 'a', PATH_ARGUMENT_MAX);
    expect_row("GET", uri, 2, uri + 14);
    uri[14 + PATH_ARGUMENT_MAX] = 'a';
    expect_code("GET", uri, "INVALID_VALUE");
    memset(uri + 14, 'a', URI_BYTES_MAX);
    expect_code("GET", uri, "INVALID_VALUE");
    strcpy(uri, "/v1/instances?");
    for (int i = 0; i <= QUERY_PARAMETER_MAX; i++)
        strcat(uri, "label=a&");
    expect_code("GET", uri, "INVALID_VALUE");
}

static void reads_the_query(void **state)
{
    struct found found = find("GET", "/v1/instances?label=a%3Db&&label=-c+d%2B&name");
    const char *value;

    assert_int_equal(found.r, 0);
    assert_int_equal(found.target.query_count, 3);
    assert_string_equal(found.target.query[0].value, "a=b");
    assert_string_equal(found.target.query[1].value, "-c d+");
    assert_string_equal(found.target.query[2].value, "");
    assert_int_equal(target_value(&found.target, "name", &value, NULL), 0);
    assert_string_equal(value, "");
    assert_int_not_equal(target_value(&found.target, "label", &value, NULL), 0);
    found_clear(&found);
    expect_code("GET", "/v1/instances?nam=x", "UNKNOWN_PARAMETER");
    expect_code("GET", "/v1/instances/x?name=x", "UNKNOWN_PARAMETER");
    expect_code("GET", "/v1/instances?Name=x", "UNKNOWN_PARAMETER");
}

static void reads_numbers_and_booleans(void **state)
{
    static const char *const bad[] = {"-1", "+1", " 1", "1 ", "0x1", "", "1001", "99999999999999999999999", "1e3"};
    struct target target = {.query = {{"start", "true"}, {"n", "1000"}}, .query_count = 2};
    unsigned long long number = 7;
    bool flag = false;

    assert_int_equal(target_bool(&target, "start", false, &flag, NULL), 0);
    assert_true(flag);
    assert_int_equal(target_number(&target, "n", 5, 1000, &number, NULL), 0);
    assert_int_equal(number, 1000);
    assert_int_equal(target_number(&target, "other", 5, 1000, &number, NULL), 0);
    assert_int_equal(number, 5);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        target.query[1].value = bad[i];
        assert_int_not_equal(target_number(&target, "n", 5, 1000, &number, NULL), 0);
    }
    assert_int_equal(number, 5);
    target.query[0].value = "yes";
    assert_int_not_equal(target_bool(&target, "start", false, &flag, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_rows),
        cmocka_unit_test(tells_allowed_methods),
        cmocka_unit_test(tricks_find_nothing),
        cmocka_unit_test(refuses_unclean_text),
        cmocka_unit_test(bounds_sizes),
        cmocka_unit_test(reads_the_query),
        cmocka_unit_test(reads_numbers_and_booleans),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
