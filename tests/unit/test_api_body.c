/* SPDX-License-Identifier: Apache-2.0 */
/* Request bodies: JSON and YAML agree, YAML 1.1's surprises stay text, bombs are refused before they are built. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/api/body.h"

typedef int (*parser)(const char *, size_t, json_t **, struct error **);

static void expect_refused_bytes(parser parse, const char *text, size_t n, const char *words)
{
    struct error *err = NULL;
    json_t *value = (json_t *)&err; /* must stay untouched */

    if (parse(text, n, &value, &err) == 0)
        fail_msg("accepted: %.60s", text);
    assert_ptr_equal(value, &err);
    assert_string_equal(err->code, "MALFORMED_BODY");
    if (words && !strstr(err->message, words))
        fail_msg("\"%s\" does not say \"%s\"", err->message, words);
    error_free(err);
}

static void expect_refused(parser parse, const char *text, const char *words)
{
    expect_refused_bytes(parse, text, strlen(text), words);
}

/* yaml reads as the same value as json. */
static void expect_same(const char *yaml, const char *json)
{
    struct error *err = NULL;
    json_t *a = NULL, *b = NULL;

    if (body_parse_yaml(yaml, strlen(yaml), &a, &err) < 0)
        fail_msg("%s: %s", yaml, err->message);
    if (body_parse_json(json, strlen(json), &b, &err) < 0)
        fail_msg("%s: %s", json, err->message);
    if (!json_equal(a, b)) {
        char *text = json_dumps(a, JSON_ENCODE_ANY);
        fail_msg("%s reads as %s, not %s", yaml, text, json);
    }
    json_decref(a);
    json_decref(b);
}

static void yaml_reads_a_descriptor(void **state)
{
    expect_same("# a comment\nname: edge-fw\nimage: coracle/iperf\ncommand: [/iperf, -s]\nenv: {LEVEL: info}\n"
                "read_only: true\nresources:\n  cpus: 0.5\n  cpuset: \"0-1\"\n  memory: 64MiB\n  pids: 64\n"
                "networks: [{name: default, ipv4: 198.18.0.10, ipv6: \"fd00::10\"}]\nports: [\"8080:80/tcp\"]\n"
                "restart: no\nstop: {signal: SIGTERM, grace: 10s}\n",
                "{\"name\":\"edge-fw\",\"image\":\"coracle/iperf\",\"command\":[\"/"
                "iperf\",\"-s\"],\"env\":{\"LEVEL\":\"info\"},"
                "\"read_only\":true,\"resources\":{\"cpus\":0.5,\"cpuset\":\"0-1\",\"memory\":\"64MiB\",\"pids\":64},"
                "\"networks\":[{\"name\":\"default\",\"ipv4\":\"198.18.0.10\",\"ipv6\":\"fd00::10\"}],\"ports\":["
                "\"8080:80/tcp\"],"
                "\"restart\":\"no\",\"stop\":{\"signal\":\"SIGTERM\",\"grace\":\"10s\"}}");
    expect_same("%YAML 1.1\n---\n{}\n...\n", "{}");
    expect_same("a: |\n  two\n  lines\nb: >\n  one\n  line\n", "{\"a\":\"two\\nlines\\n\",\"b\":\"one line\\n\"}");
}

static void yaml_scalars_hold_no_surprise(void **state)
{
    expect_same("[no, yes, on, off, y, n, True, FALSE, NULL, Null]",
                "[\"no\",\"yes\",\"on\",\"off\",\"y\",\"n\",\"True\",\"FALSE\",\"NULL\",\"Null\"]");
    expect_same("[0777, 0x1f, 1_000, 1:30, .5, 5., +1, .inf, .NaN, 0b1, 1e, -]",
                "[\"0777\",\"0x1f\",\"1_000\",\"1:30\",\".5\",\"5.\",\"+1\",\".inf\",\".NaN\",\"0b1\",\"1e\",\"-\"]");
    expect_same("[0, -0, 12, -7, 1.5, 1e3, 1E-2, 9223372036854775807, -9223372036854775808]",
                "[0, 0, 12, -7, 1.5, 1000.0, 0.01, 9223372036854775807, -9223372036854775808]");
    expect_same("[true, false, null, ~, ]", "[true,false,null,null]");
    expect_same("['12', \"true\", 'null', '']", "[\"12\",\"true\",\"null\",\"\"]");
    expect_same("a:\nb: 2001-01-01\n", "{\"a\":null,\"b\":\"2001-01-01\"}");
}

static void yaml_refuses(void **state)
{
    expect_refused(body_parse_yaml, "", "empty");
    expect_refused(body_parse_yaml, "# nothing\n", "empty");
    expect_refused(body_parse_yaml, "a: 1\nb: 2\na: 3\n", "line 3, column 1: a key stands twice");
    expect_refused(body_parse_yaml, "a: &x [1]\n", "anchors");
    expect_refused(body_parse_yaml, "a: *x\n", "anchors");
    expect_refused(body_parse_yaml, "&k a: 1\n", "anchors");
    expect_refused(body_parse_yaml, "a: !!python/object x\n", "tags");
    expect_refused(body_parse_yaml, "a: !!str 1\n", "tags");
    expect_refused(body_parse_yaml, "<<: {a: 1}\n", "merge");
    expect_refused(body_parse_yaml, "? [a]\n: b\n", "key");
    expect_refused(body_parse_yaml, "---\na: 1\n---\nb: 2\n", "second");
    expect_refused(body_parse_yaml, "a: [1\n", NULL);
    expect_refused(body_parse_yaml, "a: 9223372036854775808\n", "range");
    expect_refused(body_parse_yaml, "a: 1e999\n", "range");
    expect_refused(body_parse_yaml, "a: \"\\0\"\n", "NUL");
    expect_refused(body_parse_yaml, "\"a\\0b\": 1\n", "NUL");
    expect_refused(body_parse_yaml, "a: \xff\xfe\n", NULL);
    expect_refused(body_parse_yaml, "\ta: 1\n", NULL);
    expect_refused_bytes(body_parse_yaml, "a\0b", 3, NULL);
    expect_refused_bytes(body_parse_yaml, "\xff\xfe{\0}\0", 6, NULL);
}

static void json_refuses(void **state)
{
    expect_refused(body_parse_json, "", NULL);
    expect_refused(body_parse_json, "{", NULL);
    expect_refused(body_parse_json, "{} {}", NULL);
    expect_refused(body_parse_json, "{\"a\":1,\"a\":2}", "duplicate");
    expect_refused(body_parse_json, "{\"a\":1,\"\\u0061\":2}", "duplicate");
    expect_refused(body_parse_json, "{\"a\":9223372036854775808}", "too big");
    expect_refused(body_parse_json, "{\"a\":1e999}", NULL);
    expect_refused(body_parse_json, "{\"a\":NaN}", NULL);
    expect_refused(body_parse_json, "{\"a\":\"\\u0000\"}", NULL);
    expect_refused(body_parse_json, "{\"a\":\"\\ud800\"}", NULL);
    expect_refused(body_parse_json, "{\"a\":\"\xff\"}", NULL);
    expect_refused(body_parse_json, "{'a':1}", NULL);
    expect_refused(body_parse_json, "{\"a\":01}", NULL);
    expect_refused(body_parse_json, "{\"a\":1,}", NULL);
    expect_refused_bytes(body_parse_json, "{}\0", 3, NULL);
}

static char *repeat(const char *piece, size_t times)
{
    size_t n = strlen(piece);
    char *text = malloc(n * times + 1);

    for (size_t i = 0; i < times; i++)
        memcpy(text + i * n, piece, n);
    text[n * times] = '\0';
    return text;
}

static void refuses_bombs(void **state)
{
    static const struct {
        const char *piece;
        size_t times;
    } bombs[] = {{"[", 500000},    {"{\"a\":", 100000}, {"[{},{}],", 100000},
                 {"{a: ", 100000}, {"- ", 100000},      {"a,", 400000}};

    for (size_t i = 0; i < sizeof(bombs) / sizeof(bombs[0]); i++) {
        char *text = repeat(bombs[i].piece, bombs[i].times);
        expect_refused(body_parse_json, text, NULL);
        free(text);
    }
    for (size_t i = 0; i < 5; i++) {
        char *text = repeat(i == 4 ? "[" : bombs[i].piece, 20000);
        expect_refused(body_parse_yaml, text, NULL);
        free(text);
    }
    char *items = repeat("- x\n", BODY_VALUES_MAX + 1);
    expect_refused(body_parse_yaml, items, "too many values");
    free(items);
}

/* Brackets inside of strings are no depth. */
static void counts_outside_of_strings(void **state)
{
    char *inside = repeat("[{:,\\\"", 10000), *text = malloc(strlen(inside) + 20);
    json_t *value = NULL;

    strcat(strcat(strcpy(text, "{\"a\":\""), inside), "\"}");
    assert_int_equal(body_parse_json(text, strlen(text), &value, NULL), 0);
    json_decref(value);
    free(inside);
    free(text);
}

static void depth_bound_is_exact(void **state)
{
    for (int over = 0; over < 2; over++) {
        char *open = repeat("[", BODY_DEPTH_MAX + over), *close = repeat("]", BODY_DEPTH_MAX + over);
        char text[2 * BODY_DEPTH_MAX + 8];
        json_t *value = NULL;
        strcat(strcpy(text, open), close);
        assert_int_equal(body_parse_json(text, strlen(text), &value, NULL) == 0, !over);
        json_decref(value);
        value = NULL;
        assert_int_equal(body_parse_yaml(text, strlen(text), &value, NULL) == 0, !over);
        json_decref(value);
        free(open);
        free(close);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(yaml_reads_a_descriptor),
        cmocka_unit_test(yaml_scalars_hold_no_surprise),
        cmocka_unit_test(yaml_refuses),
        cmocka_unit_test(json_refuses),
        cmocka_unit_test(refuses_bombs),
        cmocka_unit_test(counts_outside_of_strings),
        cmocka_unit_test(depth_bound_is_exact),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
