/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors: what is accepted, what is refused and how it is said, and that printing and reading agree. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/spec_parse.h"

static int parse(const char *text, struct vnf_spec *ret, struct error **err)
{
    json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);

    assert_non_null(json);
    int r = spec_parse(json, ret, err);
    json_decref(json);
    return r;
}

static const char whole[] =
    "{\"name\":\"edge-fw\",\"technology\":\"container\",\"image\":\"coracle/iperf\",\"command\":[\"/iperf\",\"-s\"],"
    "\"args\":[\"-u\"],\"env\":{\"LEVEL\":\"info\"},\"labels\":{\"tenant\":\"a\"},\"user\":\"1000:1000\",\"workdir\":"
    "\"/\","
    "\"hostname\":\"fw\",\"read_only\":false,\"tty\":true,\"stdin\":true,\"resources\":{\"cpus\":0.5,\"cpuset\":\"0-"
    "1\","
    "\"memory\":\"64MiB\",\"pids\":64,\"storage\":\"16MiB\",\"io\":{\"read_bps\":\"10MB\",\"write_iops\":1000}},"
    "\"networks\":[{\"name\":\"default\",\"ipv4\":\"198.18.0.10\",\"ipv6\":\"fd00::10\"},\"other\"],"
    "\"ports\":[\"8080:80/tcp\",\"53:5353/udp\",\"9:9\"],\"capabilities\":[\"NET_ADMIN\",\"CAP_NET_RAW\"],"
    "\"restart\":{\"policy\":\"on-failure\",\"max\":5,\"backoff\":\"100ms\",\"backoff_max\":\"30s\"},"
    "\"stop\":{\"signal\":\"SIGINT\",\"grace\":\"10s\"},\"start_mode\":\"cold\"}";

static void test_whole_descriptor(void **state)
{
    struct vnf_spec spec;
    struct error *err = NULL;

    if (parse(whole, &spec, &err) < 0)
        fail_msg("%s", err->message);
    assert_string_equal(spec.name, "edge-fw");
    assert_string_equal(spec.command[1], "-s");
    assert_null(spec.command[2]);
    assert_string_equal(spec.args[0], "-u");
    assert_int_equal(spec.limits.cpu_milli, 500);
    assert_int_equal(spec.limits.memory_bytes, 64 << 20);
    assert_int_equal(spec.limits.io_read_bps, 10000000);
    assert_int_equal(spec.limits.io_write_iops, 1000);
    assert_int_equal(spec.network_count, 2);
    assert_string_equal(spec.networks[1].name, "other");
    assert_int_equal(spec.port_count, 3);
    assert_int_equal(spec.ports[1].protocol, IPPROTO_UDP);
    assert_int_equal(spec.ports[2].protocol, IPPROTO_TCP);
    assert_int_equal(spec.capabilities, 1u << 12 | 1u << 13);
    assert_int_equal(spec.restart, RESTART_ON_FAILURE);
    assert_int_equal(spec.stop_signal, SIGINT);
    assert_int_equal(spec.start_mode, START_COLD);
    assert_true(spec.tty && spec.open_stdin && !spec.read_only);
    spec_clear(&spec);
}

static void test_defaults(void **state)
{
    struct vnf_spec spec;

    assert_int_equal(parse("{\"image\":\"x\",\"user\":null}", &spec, NULL), 0);
    assert_string_equal(spec.technology, "container");
    assert_int_equal(spec.network_count, 1);
    assert_string_equal(spec.networks[0].name, "default");
    assert_int_equal(spec.stop_grace_ms, 10000);
    assert_int_equal(spec.restart, RESTART_NO);
    assert_int_equal(spec.restart_backoff_ms, 100);
    assert_null(spec.command);
    assert_null(spec.user);
    spec_clear(&spec);
    assert_int_equal(parse("{\"networks\":[]}", &spec, NULL), 0);
    assert_true(spec.no_network && spec.network_count == 0);
    spec_clear(&spec);
}

static void test_refusals(void **state)
{
    static const struct {
        const char *text, *code, *where, *hint; /* hint NULL: any */
    } cases[] = {
        {"{\"imgae\":\"x\"}", "UNKNOWN_FIELD", "imgae", "\"image\""},
        {"{\"resources\":{\"memroy\":1}}", "UNKNOWN_FIELD", "resources.memroy", "\"memory\""},
        {"{\"resources\":{\"io\":{\"read\":1}}}", "UNKNOWN_FIELD", "resources.io.read", NULL},
        {"{\"networks\":[{\"nmae\":\"a\"}]}", "UNKNOWN_FIELD", "networks[0].nmae", "\"name\""},
        {"{\"resources\":{\"memory\":\"64Mib\"}}", "INVALID_UNIT", "resources.memory", "\"MiB\""},
        {"{\"resources\":{\"memory\":-1}}", "INVALID_VALUE", "resources.memory: -1 is negative", NULL},
        {"{\"resources\":{\"memory\":\"-64MiB\"}}", "INVALID_VALUE", "resources.memory", NULL},
        {"{\"resources\":{\"memory\":true}}", "INVALID_VALUE", "resources.memory", NULL},
        {"{\"resources\":{\"memory\":1}}", "INVALID_VALUE", "resources.memory", NULL},
        {"{\"resources\":{\"cpus\":-0.5}}", "INVALID_VALUE", "resources.cpus", NULL},
        {"{\"resources\":{\"cpus\":0}}", "INVALID_VALUE", "resources.cpus", NULL},
        {"{\"resources\":{\"cpus\":\"1\"}}", "INVALID_VALUE", "resources.cpus", NULL},
        {"{\"resources\":{\"cpus\":1e300}}", "INVALID_VALUE", "resources.cpus", NULL},
        {"{\"resources\":{\"pids\":0}}", "INVALID_VALUE", "resources.pids", NULL},
        {"{\"resources\":{\"pids\":1.5}}", "INVALID_VALUE", "resources.pids", NULL},
        {"{\"resources\":{\"cpuset\":\"1-0\"}}", "INVALID_VALUE", "resources.cpuset", NULL},
        {"{\"resources\":[]}", "INVALID_VALUE", "resources", NULL},
        {"{\"name\":\"Bad_Name\"}", "INVALID_VALUE", "name", NULL},
        {"{\"name\":\"../x\"}", "INVALID_VALUE", "name", NULL},
        {"{\"image\":\"a b\"}", "INVALID_VALUE", "image", NULL},
        {"{\"image\":\"\"}", "INVALID_VALUE", "image", NULL},
        {"{\"command\":\"/bin/sh\"}", "INVALID_VALUE", "command", "list"},
        {"{\"command\":[]}", "INVALID_VALUE", "command", NULL},
        {"{\"command\":[1]}", "INVALID_VALUE", "command[0]", "quotes"},
        {"{\"env\":{\"A\":1}}", "INVALID_VALUE", "env.A", "quotes"},
        {"{\"env\":{\"\":\"x\"}}", "INVALID_VALUE", "env", NULL},
        {"{\"env\":{\"A=B\":\"x\"}}", "INVALID_VALUE", "env.A=B", NULL},
        {"{\"env\":[\"A=1\"]}", "INVALID_VALUE", "env", NULL},
        {"{\"labels\":{\"a b\":\"x\"}}", "INVALID_VALUE", "labels.a b", NULL},
        {"{\"workdir\":\"tmp\"}", "INVALID_VALUE", "workdir", NULL},
        {"{\"read_only\":\"yes\"}", "INVALID_VALUE", "read_only", NULL},
        {"{\"read_only\":true,\"resources\":{\"storage\":\"1MiB\"}}", "INVALID_VALUE", "resources.storage", NULL},
        {"{\"networks\":[\"a\",\"a\"]}", "INVALID_VALUE", "networks[1]", NULL},
        {"{\"networks\":[{}]}", "MISSING_FIELD", "networks[0].name", NULL},
        {"{\"networks\":[{\"name\":\"a\",\"ipv4\":\"1.2.3\"}]}", "INVALID_VALUE", "networks[0].ipv4", NULL},
        {"{\"networks\":[1,2,3,4,5,6,7,8,9]}", "INVALID_VALUE", "networks", NULL},
        {"{\"ports\":[\"80\"]}", "INVALID_VALUE", "ports[0]", NULL},
        {"{\"ports\":[\"80:0/tcp\"]}", "INVALID_VALUE", "ports[0]", NULL},
        {"{\"ports\":[\"80:65536/tcp\"]}", "INVALID_VALUE", "ports[0]", NULL},
        {"{\"ports\":[\"80:80/sctp\"]}", "INVALID_VALUE", "ports[0]", NULL},
        {"{\"ports\":[\"80:80/\"]}", "INVALID_VALUE", "ports[0]", NULL},
        {"{\"ports\":[\"80:1/tcp\",\"80:2/tcp\"]}", "INVALID_VALUE", "ports[1]", NULL},
        {"{\"ports\":[\"80:1\"],\"networks\":[]}", "INVALID_VALUE", "ports", NULL},
        {"{\"capabilities\":[\"SYS_ADMIN\"]}", "INVALID_VALUE", "capabilities[0]", NULL},
        {"{\"restart\":\"allways\"}", "INVALID_VALUE", "restart", "always"},
        {"{\"restart\":{\"backoff\":100}}", "INVALID_VALUE", "restart.backoff", "unit"},
        {"{\"restart\":{\"backoff\":\"100\"}}", "INVALID_UNIT", "restart.backoff", NULL},
        {"{\"restart\":{\"backoff\":\"2s\",\"backoff_max\":\"1s\"}}", "INVALID_VALUE", "restart.backoff_max", NULL},
        {"{\"stop\":{\"signal\":\"SIGTREM\"}}", "INVALID_VALUE", "stop.signal", "SIGTERM"},
        {"{\"start_mode\":\"warm\"}", "INVALID_VALUE", "start_mode", NULL},
        {"{\"fault\":{\"step\":\"strat\"}}", "INVALID_VALUE", "fault.step", "start"},
        {"\"text\"", "INVALID_VALUE", "body", NULL},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct vnf_spec spec = {.name = "untouched"};
        struct error *err = NULL;

        if (parse(cases[i].text, &spec, &err) == 0)
            fail_msg("accepted: %s", cases[i].text);
        if (strcmp(err->code, cases[i].code) != 0 || !strstr(err->message, cases[i].where))
            fail_msg("%s: got %s \"%s\"", cases[i].text, err->code, err->message);
        if (cases[i].hint && (!err->hint || !strstr(err->hint, cases[i].hint)))
            fail_msg("%s: the hint is \"%s\"", cases[i].text, err->hint);
        assert_string_equal(spec.name, "untouched");
        error_free(err);
    }
}

static void test_too_much(void **state)
{
    struct vnf_spec spec;
    struct error *err = NULL;
    json_t *json = json_object(), *list = json_array();
    char *long_text = malloc(20001);

    memset(long_text, 'x', 20000);
    long_text[20000] = '\0';
    for (int i = 0; i < 2; i++)
        json_array_append_new(list, json_string(long_text));
    json_object_set_new(json, "command", list);
    assert_true(spec_parse(json, &spec, &err) < 0);
    assert_string_equal(err->code, "INVALID_VALUE");
    error_free(err);
    json_array_clear(list);
    for (int i = 0; i < ARGUMENT_MAX + 1; i++)
        json_array_append_new(list, json_string("x"));
    err = NULL;
    assert_true(spec_parse(json, &spec, &err) < 0);
    error_free(err);
    json_decref(json);
    free(long_text);
}

static void render(const struct vnf_spec *spec, struct buffer *out)
{
    buffer_clear(out);
    spec_render(spec, out);
    assert_false(out->failed);
}

/* spec_parse(spec_render(s)) gives s again, for a descriptor with a random choice of members. */
static void test_print_and_read_agree(void **state)
{
    json_t *all = json_loads(whole, 0, NULL);
    unsigned seed = 7;

    for (int round = 0; round < 2000; round++) {
        struct buffer first = {0}, second = {0};
        struct vnf_spec a, b;
        struct error *err = NULL;
        json_t *some = json_copy(all);
        const char *key;
        void *next;
        json_t *value;

        json_object_foreach_safe(some, next, key, value)
        {
            if (rand_r(&seed) % 3 == 0)
                json_object_del(some, key);
        }
        if (spec_parse(some, &a, &err) == 0) {
            render(&a, &first);
            if (parse(first.data, &b, &err) < 0)
                fail_msg("%s: %s", err->message, first.data);
            render(&b, &second);
            assert_string_equal(first.data, second.data);
            assert_int_equal(memcmp(&a.limits, &b.limits, sizeof(a.limits)), 0);
            assert_int_equal(memcmp(a.networks, b.networks, sizeof(a.networks)), 0);
            assert_int_equal(memcmp(a.ports, b.ports, sizeof(a.ports)), 0);
            spec_clear(&a);
            spec_clear(&b);
        }
        error_free(err);
        buffer_clear(&first);
        buffer_clear(&second);
        json_decref(some);
    }
    json_decref(all);
}

static void test_limits_merge(void **state)
{
    struct limits l = {.cpu_milli = 500, .memory_bytes = 64 << 20, .io_read_bps = 5}, before;
    json_t *patch = json_loads("{\"cpus\":2,\"memory\":null,\"io\":null}", 0, NULL);
    json_t *bad = json_loads("{\"cpus\":1,\"pids\":-1}", 0, NULL);

    assert_int_equal(limits_parse(patch, "resources", &l, NULL), 0);
    assert_int_equal(l.cpu_milli, 2000);
    assert_int_equal(l.memory_bytes, 0);
    assert_int_equal(l.io_read_bps, 0);
    before = l;
    assert_true(limits_parse(bad, "resources", &l, NULL) < 0);
    assert_memory_equal(&before, &l, sizeof(l));
    json_decref(patch);
    json_decref(bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_descriptor),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_too_much),
        cmocka_unit_test(test_print_and_read_agree),
        cmocka_unit_test(test_limits_merge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
