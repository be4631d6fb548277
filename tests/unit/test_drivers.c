/* SPDX-License-Identifier: Apache-2.0 */
/* Golden plans of the container driver, what it refuses on which host, and the fake driver's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "drivers/container/container.h"
#include "drivers/fake/fake.h"
#include "model/spec_parse.h"

static const char id[] = "01234567-89ab-4cde-8f01-23456789abcd";
static char *entrypoint[] = {(char *)"/iperf", NULL}, *command[] = {(char *)"-s", NULL};
static char *env[] = {(char *)"PATH=/opt/bin", (char *)"A=image", (char *)"B=image", NULL};

static struct image_config image_of(void)
{
    struct image_config image = {
        .layer_count = 2, .entrypoint = entrypoint, .command = command, .env = env, .user = "500", .workdir = "srv"};

    memset(image.layers[0], 'a', 64);
    memset(image.layers[1], 'b', 64);
    return image;
}

static struct host_facts facts_of(void)
{
    return (struct host_facts){.controllers = 0x3f,
                               .landlock = true,
                               .seccomp = true,
                               .user_namespaces = true,
                               .idmapped_mounts = true,
                               .overlay = true};
}

static struct vnf_spec spec_of(const char *text)
{
    json_t *json = json_loads(text, 0, NULL);
    struct vnf_spec spec;
    struct error *err = NULL;

    assert_non_null(json);
    if (spec_parse(json, &spec, &err) < 0)
        fail_msg("%s", err->message);
    json_decref(json);
    if (!*spec.name)
        strcpy(spec.name, "golden");
    return spec;
}

static void words(struct buffer *out, const char *name, char *const *list)
{
    buffer_printf(out, " %s=", name);
    for (; list && *list; list++)
        buffer_printf(out, "[%s]", *list);
}

/* A plan in one line, so that a golden is a string. */
static void print_plan(const struct launch_plan *p, struct buffer *out)
{
    buffer_printf(out, "%s/%s kind=%d mode=%d", p->name, p->hostname, p->kind, p->start_mode);
    words(out, "argv", p->process.argv);
    words(out, "env", p->process.env);
    buffer_printf(out, " cwd=%s user=%s tty=%d stdin=%d", p->process.cwd ? p->process.cwd : "-",
                  p->process.user ? p->process.user : "-", p->process.tty, p->process.open_stdin);
    buffer_printf(out, " layers=");
    for (size_t i = 0; i < p->root.layer_count; i++)
        buffer_printf(out, "%.1s", p->root.layers[i]);
    buffer_printf(out, " ro=%d writable=%llu caps=%x nics=%zu cpu=%llu mem=%llu", p->root.read_only,
                  (unsigned long long)p->root.writable_bytes, p->capabilities, p->nic_count,
                  (unsigned long long)p->limits.cpu_milli, (unsigned long long)p->limits.memory_bytes);
}

static void expect_plan(const char *descriptor, const char *golden)
{
    struct vnf_spec spec = spec_of(descriptor);
    struct image_config image = image_of();
    struct host_facts facts = facts_of();
    struct plan_nic nic = {.link = "default", .mac = {2}, .prefix4 = 16};
    struct launch_plan plan;
    struct error *err = NULL;
    struct buffer out = {0};

    nic.ipv4.s_addr = htonl(0xc6120002);
    if (container_driver.plan(&spec, &image, &facts, &nic, 1, id, &plan, &err) < 0)
        fail_msg("%s", err->message);
    assert_string_equal(plan.id, id);
    print_plan(&plan, &out);
    assert_string_equal(out.data, golden);
    buffer_clear(&out);
    plan_clear(&plan);
    spec_clear(&spec);
}

static void test_golden_plans(void **state)
{
    expect_plan("{\"image\":\"i\"}", /* all from the image */
                "golden/golden kind=1 mode=0 argv=[/iperf][-s] env=[PATH=/opt/bin][HOSTNAME=golden][A=image][B=image]"
                " cwd=/srv user=500 tty=0 stdin=0 layers=ab ro=0 writable=67108864 caps=4fb nics=1 cpu=0 mem=0");
    expect_plan(
        "{\"image\":\"i\",\"args\":[\"-c\",\"h\"]}", /* args replace the image's command only */
        "golden/golden kind=1 mode=0 argv=[/iperf][-c][h] env=[PATH=/opt/bin][HOSTNAME=golden][A=image][B=image]"
        " cwd=/srv user=500 tty=0 stdin=0 layers=ab ro=0 writable=67108864 caps=4fb nics=1 cpu=0 mem=0");
    expect_plan("{\"image\":\"i\",\"args\":[]}", /* no arguments at all */
                "golden/golden kind=1 mode=0 argv=[/iperf] env=[PATH=/opt/bin][HOSTNAME=golden][A=image][B=image]"
                " cwd=/srv user=500 tty=0 stdin=0 layers=ab ro=0 writable=67108864 caps=4fb nics=1 cpu=0 mem=0");
    expect_plan("{\"image\":\"i\",\"command\":[\"/bin/x\"]}", /* command replaces both */
                "golden/golden kind=1 mode=0 argv=[/bin/x] env=[PATH=/opt/bin][HOSTNAME=golden][A=image][B=image]"
                " cwd=/srv user=500 tty=0 stdin=0 layers=ab ro=0 writable=67108864 caps=4fb nics=1 cpu=0 mem=0");
    expect_plan(
        "{\"image\":\"i\",\"command\":[\"/bin/"
        "x\"],\"args\":[\"y\"],\"env\":{\"A\":\"user\",\"C\":\"\"},\"user\":\"1:2\","
        "\"workdir\":\"/w\",\"hostname\":\"h\",\"tty\":true,\"stdin\":true,\"read_only\":true,\"start_mode\":\"cold\","
        "\"capabilities\":[\"NET_RAW\"],\"resources\":{\"cpus\":1.5,\"memory\":\"8MiB\"}}",
        "golden/h kind=1 mode=1 argv=[/bin/x][y] env=[PATH=/opt/bin][HOSTNAME=h][TERM=xterm][A=user][B=image][C=]"
        " cwd=/w user=1:2 tty=1 stdin=1 layers=ab ro=1 writable=0 caps=24fb nics=1 cpu=1500 mem=8388608");
}

static void expect_refusal(const char *descriptor, const struct host_facts *facts, const struct image_config *image,
                           const char *code, const char *word)
{
    struct vnf_spec spec = spec_of(descriptor);
    struct launch_plan plan = {.name = "untouched"};
    struct error *err = NULL;

    assert_true(container_driver.plan(&spec, image, facts, NULL, 0, id, &plan, &err) < 0);
    assert_string_equal(err->code, code);
    if (!strstr(err->message, word) || !err->hint)
        fail_msg("\"%s\" does not name %s, or has no hint", err->message, word);
    assert_string_equal(plan.name, "untouched");
    error_free(err);
    spec_clear(&spec);
}

static void test_limits_this_host_cannot_enforce(void **state)
{
    static const struct {
        enum controller controller;
        const char *descriptor, *word;
    } cases[] = {
        {CONTROLLER_CPU, "{\"image\":\"i\",\"resources\":{\"cpus\":1}}", "resources.cpus"},
        {CONTROLLER_CPUSET, "{\"image\":\"i\",\"resources\":{\"cpuset\":\"0\"}}", "resources.cpuset"},
        {CONTROLLER_MEMORY, "{\"image\":\"i\",\"resources\":{\"memory\":\"8MiB\"}}", "resources.memory"},
        {CONTROLLER_PIDS, "{\"image\":\"i\",\"resources\":{\"pids\":8}}", "resources.pids"},
        {CONTROLLER_IO, "{\"image\":\"i\",\"resources\":{\"io\":{\"write_bps\":\"1MB\"}}}", "resources.io"},
    };
    struct image_config image = image_of();

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int version = 1; version <= 2; version++) {
            struct host_facts facts = facts_of();
            facts.cgroup_v2 = version == 2;
            facts.controllers &= ~(1u << cases[i].controller);
            expect_refusal(cases[i].descriptor, &facts, &image, "LIMIT_NOT_ENFORCEABLE", cases[i].word);
        }
    }
}

static void test_other_refusals(void **state)
{
    struct host_facts facts = facts_of();
    struct image_config image = image_of(), bare = {.layer_count = 1};

    memset(bare.layers[0], 'a', 64);
    expect_refusal("{\"image\":\"i\"}", &facts, &bare, "MISSING_FIELD", "command");
    facts.cpus = 2;
    facts.memory_bytes = 1ull << 30;
    expect_refusal("{\"image\":\"i\",\"resources\":{\"cpus\":2.5}}", &facts, &image, "INSUFFICIENT_RESOURCES", "2.5");
    expect_refusal("{\"image\":\"i\",\"resources\":{\"memory\":\"2GiB\"}}", &facts, &image, "INSUFFICIENT_RESOURCES",
                   "1024 MiB");
    expect_refusal("{\"image\":\"i\",\"ports\":[\"80:80\"]}", &facts, &image, "UNSUPPORTED_BY_TECHNOLOGY", "ports");
    expect_refusal("{\"image\":\"i\",\"resources\":{\"memory\":\"8MiB\",\"storage\":\"16MiB\"}}", &facts, &image,
                   "INVALID_VALUE", "resources.storage");
}

static void test_probe_says_why_not(void **state)
{
    struct technology_state s;
    struct host_facts facts = facts_of();

    container_driver.probe(&facts, &s);
    assert_true(s.available && !s.why_not);
    for (int i = 0; i < 4; i++) {
        facts = facts_of();
        *(i == 0   ? &facts.user_namespaces
          : i == 1 ? &facts.idmapped_mounts
          : i == 2 ? &facts.overlay
                   : &facts.seccomp) = false;
        container_driver.probe(&facts, &s);
        assert_false(s.available);
        assert_true(s.why_not && s.what_would_help);
    }
}

static void test_fake_plan(void **state)
{
    struct vnf_spec spec = spec_of("{\"technology\":\"fake\",\"fault\":{\"step\":\"run\",\"after_ms\":5}}");
    struct host_facts facts = {0};
    struct launch_plan plan;

    assert_int_equal(fake_driver.plan(&spec, NULL, &facts, NULL, 0, id, &plan, NULL), 0);
    assert_int_equal(plan.kind, PLAN_FAKE);
    assert_string_equal(plan.fault.step, "run");
    plan_clear(&plan);
    spec_clear(&spec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_plans),   cmocka_unit_test(test_limits_this_host_cannot_enforce),
        cmocka_unit_test(test_other_refusals), cmocka_unit_test(test_probe_says_why_not),
        cmocka_unit_test(test_fake_plan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
