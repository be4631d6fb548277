/* SPDX-License-Identifier: Apache-2.0 */
/* What the command line reads and writes: sizes, times, log records, events, frames, descriptors, differences. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cli/apply.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/descriptor.h"
#include "cli/field.h"
#include "cli/logs.h"
#include "cli/rates.h"
#include "cli/sse.h"
#include "cli/stream.h"
#include "cli/waterfall.h"
#include "cli/yaml.h"

static void assert_text(char *actual, const char *expected)
{
    assert_string_equal(actual, expected);
    free(actual);
}

static void test_numbers_for_people(void **state)
{
    assert_text(text_bytes(0), "0 B");
    assert_text(text_bytes(1023), "1023 B");
    assert_text(text_bytes(1536), "1.5 KiB");
    assert_text(text_bytes(64 << 20), "64.0 MiB");
    assert_text(text_bytes(1048575), "1.0 MiB");
    assert_text(text_duration_us(850), "850 us");
    assert_text(text_duration_us(2900), "2.9 ms");
    assert_text(text_duration_us(250000), "250 ms");
    assert_text(text_duration_us(1240000), "1.24 s");
    assert_text(text_duration_us(192000000), "3m12s");
    assert_text(text_age(100, 104), "4s");
    assert_text(text_age(0, 7200), "2h");
    assert_text(text_age(200, 100), "0s");
}

static void test_unknown_is_not_zero(void **state)
{
    json_t *stats = json_pack("{s:n, s:i, s:f}", "a", "b", 0, "c", 0.5);

    assert_text(text_json(json_object_get(stats, "a"), NULL), "not measured");
    assert_text(text_json(json_object_get(stats, "missing"), NULL), "not measured");
    assert_text(text_json(json_object_get(stats, "b"), NULL), "0");
    assert_text(text_json(json_object_get(stats, "c"), NULL), "0.5");
    json_decref(stats);
}

static void test_rates(void **state)
{
    json_t *before = json_pack("{s:I, s:I, s:I, s:n}", "cpu_ns", (json_int_t)1000000, "rx", (json_int_t)100, "tx",
                               (json_int_t)7, "drops");
    json_t *now = json_pack("{s:I, s:I, s:I, s:i}", "cpu_ns", (json_int_t)251000000, "rx", (json_int_t)50100, "tx",
                            (json_int_t)3, "drops", 4);

    assert_text(rate_cpu(before, now, 500000000), "50.0%");
    assert_text(rate_count(before, now, "rx", NULL, 1000000000), "50.0k");
    assert_text(rate_count(before, now, "tx", NULL, 1000000000), "not measured"); /* ran backwards: restarted */
    assert_text(rate_count(before, now, "rx", "drops", 1000000000), "not measured");
    assert_text(rate_cpu(NULL, now, 1000000000), "not measured");
    json_decref(before);
    json_decref(now);
}

static void test_paths_are_escaped(void **state)
{
    assert_text(text_path("/v1/images/%s", "coracle/iperf:1"), "/v1/images/coracle%2Fiperf%3A1");
    assert_text(text_path("/v1/operations/%s?wait_ms=%d", "a b", 250), "/v1/operations/a%20b?wait_ms=250");
    assert_text(text_path("/v1/instances/%s/stop", "../../host?x#y"), "/v1/instances/..%2F..%2Fhost%3Fx%23y/stop");
}

static void test_durations(void **state)
{
    static const struct {
        const char *text;
        uint64_t ms;
    } good[] = {{"10", 10000}, {"0.5", 500}, {"500ms", 500}, {"1m30s", 90000}, {"2h", 7200000}, {"0", 0}};
    static const char *const bad[] = {"", "x", "-5", "5x", "10s5", "ms", "1e300s", "nan"};
    struct error *err = NULL;
    uint64_t ms;

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(text_parse_duration_ms(good[i].text, "t", &ms, NULL), 0);
        assert_int_equal(ms, good[i].ms);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (text_parse_duration_ms(bad[i], "t", &ms, &err) == 0)
            fail_msg("\"%s\" was taken for a duration", bad[i]);
        assert_string_equal(err->code, "INVALID_UNIT");
        error_free(err);
        err = NULL;
    }
}

static void assert_since(const char *word, const char *expected)
{
    char *text = NULL;

    assert_int_equal(text_parse_since(word, 1000000000, &text, NULL), 0);
    assert_text(text, expected);
}

static void test_since(void **state)
{
    struct error *err = NULL;
    char *text = NULL;

    assert_since("10m", "2001-09-09T01:36:40.000Z");
    assert_since("999999999", "2001-09-09T01:46:39.000Z");
    assert_since("2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05.678Z");
    assert_int_equal(text_parse_since("yesterday", 0, &text, &err), -EINVAL);
    assert_non_null(err->hint);
    error_free(err);
}

static void test_log_records(void **state)
{
    static const char line[] = "2016-10-06T00:17:09.669794202Z stderr P some text";
    static const char empty[] = "2016-10-06T00:17:09.669794202Z stdout F ";
    static const char *const bad[] = {"", "x", "t stdout", "t stdout X text", "t stdin F text", "t stdout Ftext"};
    struct log_record r;

    assert_int_equal(log_record_parse(line, sizeof(line) - 1, &r), 0);
    assert_true(r.partial);
    assert_int_equal(r.time_size, 30);
    assert_memory_equal(r.stream, "stderr", 6);
    assert_int_equal(r.text_size, 9);
    assert_memory_equal(r.text, "some text", 9);
    assert_int_equal(log_record_parse(empty, sizeof(empty) - 1, &r), 0);
    assert_int_equal(r.text_size, 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(log_record_parse(bad[i], strlen(bad[i]), &r), -EPROTO);
}

struct seen {
    char text[256];
    int count;
};

static int on_event(void *context, const char *data)
{
    struct seen *seen = context;

    strncat(seen->text, data, sizeof(seen->text) - strlen(seen->text) - 2);
    strcat(seen->text, ";");
    return ++seen->count == 3;
}

/* The same events whatever pieces they come in. */
static void test_event_stream(void **state)
{
    static const char bytes[] = ": hello\r\nid: 7\r\nevent: a\r\ndata: {\"x\":1}\r\n\r\n"
                                "data:one\ndata: two\n\n\n\nid: 9\n\ndata: last\n\nnever";

    for (size_t piece = 1; piece < sizeof(bytes); piece++) {
        struct seen seen = {0};
        struct sse sse = {.event = on_event, .context = &seen};
        int r = 0;

        for (size_t i = 0; i < sizeof(bytes) - 1 && !r; i += piece)
            r = sse_feed(&sse, bytes + i, sizeof(bytes) - 1 - i < piece ? sizeof(bytes) - 1 - i : piece);
        assert_string_equal(seen.text, "{\"x\":1};one\ntwo;last;");
        assert_int_equal(r, 1);
        sse_clear(&sse);
    }
}

static void test_frames(void **state)
{
    char data[FRAME_HEADER + 300];
    struct frame frame;

    memset(data, 'x', sizeof(data));
    frame_header((unsigned char *)data, FRAME_STDERR, 300);
    for (size_t n = 0; n < sizeof(data); n++)
        assert_int_equal(frame_parse(data, n, &frame), 0);
    assert_int_equal(frame_parse(data, sizeof(data), &frame), sizeof(data));
    assert_int_equal(frame.stream, FRAME_STDERR);
    assert_int_equal(frame.size, 300);
    data[0] = 9;
    assert_int_equal(frame_parse(data, sizeof(data), &frame), -EPROTO);
    frame_header((unsigned char *)data, FRAME_STDOUT, 0xffffffff);
    assert_int_equal(frame_parse(data, sizeof(data), &frame), -EPROTO);
    data[1] = 1;
    assert_int_equal(frame_parse(data, FRAME_HEADER, &frame), -EPROTO);
}

static json_t *descriptor(const struct command *command, char **argv)
{
    struct error *err = NULL;
    struct args args;
    json_t *spec = NULL;
    int argc = 0;

    while (argv[argc])
        argc++;
    assert_int_equal(args_parse(command, argv, argc, &args, NULL), 0);
    if (descriptor_from_args(&args, &spec, &err) < 0)
        fail_msg("%s", err->message);
    args_clear(&args);
    return spec;
}

static void assert_json(json_t *value, const char *expected)
{
    auto_free char *text = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS);

    assert_string_equal(text, expected);
    json_decref(value);
}

#define WORDS(...) ((char *[]){__VA_ARGS__, NULL})

static void test_descriptor_from_flags(void **state)
{
    assert_json(descriptor(&command_run_, WORDS("img")), "{\"image\":\"img\"}");
    assert_json(descriptor(&command_run_, WORDS("--name", "a", "-m", "64m", "--cpus", "2", "--cpuset", "0", "-p", "8:9",
                                                "--network", "x:ip=198.18.0.9,ip=fd00::1", "--read-only", "img", "-s")),
                "{\"args\":[\"-s\"],\"image\":\"img\",\"name\":\"a\",\"networks\":[{\"ipv4\":\"198.18.0.9\",\"ipv6\":"
                "\"fd00::1\",\"name\":\"x\"}],\"ports\":[\"8:9/tcp\"],\"read_only\":true,\"resources\":{\"cpus\":2,"
                "\"cpuset\":\"0\",\"memory\":\"64MiB\"}}");
    assert_json(descriptor(&command_run_, WORDS("--network", "none", "--restart", "on-failure:3", "--stop-timeout", "2",
                                                "--entrypoint", "/bin/sh", "img", "-c", "true")),
                "{\"args\":[\"-c\",\"true\"],\"command\":[\"/bin/sh\"],\"image\":\"img\",\"networks\":[],\"restart\":{"
                "\"max\":3,\"policy\":\"on-failure\"},\"stop\":{\"grace\":\"2000ms\"}}");
}

static void test_sizes(void **state)
{
    assert_text(descriptor_size("64m"), "64MiB");
    assert_text(descriptor_size("1.5g"), "1.5GiB");
    assert_text(descriptor_size("64Mi"), "64MiB");
    assert_text(descriptor_size("64MB"), "64MB");
    assert_text(descriptor_size("4096"), "4096");
    assert_text(descriptor_size("64MIB"), "64MIB"); /* the daemon refuses it, by name */
    assert_text(descriptor_size("-1m"), "-1m");
}

static json_t *yaml(const char *text, struct error **err)
{
    auto_file FILE *in = fmemopen((char *)text, strlen(text), "r");
    json_t *value = NULL;

    return yaml_read(in, "test", &value, err) == 0 ? value : NULL;
}

static void test_yaml(void **state)
{
    assert_json(yaml("a: 1\nb: [x, \"2\", 0.5, true, ~, 198.18.0.1]\n---\n{c: '3', d: }\n", NULL),
                "[{\"a\":1,\"b\":[\"x\",\"2\",0.5,true,null,\"198.18.0.1\"]},{\"c\":\"3\",\"d\":null}]");
    assert_json(yaml("base: &b {x: 1}\nuse: *b\n", NULL), "[{\"base\":{\"x\":1},\"use\":{\"x\":1}}]");
    assert_json(yaml("", NULL), "[]");
}

static void assert_yaml_fails(const char *text, const char *words)
{
    struct error *err = NULL;

    assert_null(yaml(text, &err));
    assert_string_equal(err->code, "MALFORMED_BODY");
    if (!strstr(err->message, words))
        fail_msg("\"%s\" does not say \"%s\"", err->message, words);
    error_free(err);
}

static void test_yaml_refuses(void **state)
{
    assert_yaml_fails("a: 1\na: 2\n", "line 2: a key stands there twice");
    assert_yaml_fails("a: [1\n", "line");
    assert_yaml_fails("? [a]\n: b\n", "no plain word");
    /* Each level holds nine of the one before: 3.9e8 nodes in 400 bytes. */
    assert_yaml_fails(
        "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
        "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n"
        "f: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n",
        "too large");
    assert_yaml_fails("a: &a [*a]\n", "");
}

static void test_fields(void **state)
{
    json_t *value = json_pack("{s:{s:s}, s:[{s:i}]}", "a", "b", "x", "l", "n", 3);
    const json_t *found = NULL;
    struct error *err = NULL;

    assert_int_equal(field_find(value, "a.b", &found, NULL), 0);
    assert_string_equal(json_string_value(found), "x");
    assert_int_equal(field_find(value, "l.0.n", &found, NULL), 0);
    assert_int_equal(json_integer_value(found), 3);
    assert_int_equal(field_find(value, "l.1", &found, &err), -ENOENT);
    error_free(err);
    json_decref(value);
}

static void test_differences(void **state)
{
    json_t *wanted = json_pack("{s:s, s:i, s:{s:s, s:f}}", "name", "a", "n", 1, "r", "memory", "64MiB", "cpus", 1.0);
    json_t *same = json_pack("{s:s, s:i, s:{s:s, s:i}, s:s}", "name", "a", "n", 1, "r", "memory", "64MiB", "cpus", 1,
                             "extra", "x");
    json_t *other = json_pack("{s:s, s:{s:s}}", "name", "a", "r", "memory", "1GiB");
    uint64_t index = json_index(same);

    assert_json(descriptor_differences(wanted, same), "[]");
    assert_json(descriptor_differences(wanted, other),
                "[{\"field\":\"n\",\"is\":null,\"wanted\":1},{\"field\":\"r.memory\",\"is\":\"1GiB\",\"wanted\":"
                "\"64MiB\"},{\"field\":\"r.cpus\",\"is\":null,\"wanted\":1.0}]");
    json_object_set_new(same, "n", json_integer(2));
    assert_true(json_index(same) != index);
    json_decref(wanted);
    json_decref(same);
    json_decref(other);
}

static void test_exit_status(void **state)
{
    json_t *a = json_pack("{s:i}", "status", 3), *b = json_pack("{s:s}", "signal", "SIGKILL");

    assert_int_equal(exit_status_of(a), 3);
    assert_int_equal(exit_status_of(b), 137);
    assert_int_equal(exit_status_of(NULL), -1);
    json_decref(a);
    json_decref(b);
}

static void test_bars(void **state)
{
    assert_text(waterfall_bar(0, 50, 100, 10, false), "#####");
    assert_text(waterfall_bar(50, 50, 100, 10, false), "     #####");
    assert_text(waterfall_bar(99, 0, 100, 10, false), "         #");
    assert_text(waterfall_bar(500, 500, 100, 10, false), "         #"); /* beyond the end: still one mark inside */
    assert_text(waterfall_bar(0, 0, 0, 4, true), "\u2588");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_for_people),
        cmocka_unit_test(test_unknown_is_not_zero),
        cmocka_unit_test(test_rates),
        cmocka_unit_test(test_paths_are_escaped),
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_since),
        cmocka_unit_test(test_log_records),
        cmocka_unit_test(test_event_stream),
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_descriptor_from_flags),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_yaml),
        cmocka_unit_test(test_yaml_refuses),
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_differences),
        cmocka_unit_test(test_exit_status),
        cmocka_unit_test(test_bars),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
