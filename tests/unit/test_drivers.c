/* SPDX-License-Identifier: Apache-2.0 */
/* Golden plans of the container driver, what it refuses on which host, and the fake driver's. */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "drivers/container/container.h"
#include "drivers/fake/fake.h"
#include "drivers/hybrid/hybrid.h"
#include "drivers/qemu/parameters.h"
#include "drivers/qemu/qemu.h"
#include "drivers/vmm/vmm.h"
#include "model/machine.h"
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

/* ---- unikernels ---- */

static struct image_config unikernel_of(void)
{
    struct image_config image = image_of();

    image.guest = GUEST_UNIKERNEL;
    image.variant = VARIANT_UNIKERNEL;
    image.boot = "unikernel";
    image.layer_count = 1;
    image.env = NULL;
    image.user = image.workdir = NULL;
    return image;
}

static struct host_facts kvm_facts(void)
{
    struct host_facts facts = facts_of();

    facts.kvm_present = facts.tun = true;
    strcpy(facts.qemu, "7.2.0");
    return facts;
}

static int plan_unikernel(const char *text, const struct host_facts *facts, struct launch_plan *ret, struct error **err)
{
    struct image_config image = unikernel_of();
    struct vnf_spec spec = spec_of(text);
    struct plan_nic nics[2] = {{.link = "default", .mac = {2, 0, 0, 0, 0, 9}, .prefix4 = 24, .prefix6 = 64},
                               {.link = "other", .mac = {2, 0, 0, 0, 0, 10}, .prefix4 = 16}};
    int r;

    inet_pton(AF_INET, "198.18.0.9", &nics[0].ipv4);
    inet_pton(AF_INET, "198.18.0.1", &nics[0].gateway4);
    inet_pton(AF_INET6, "fd00::9", &nics[0].ipv6);
    inet_pton(AF_INET, "198.18.4.9", &nics[1].ipv4);
    r = vmm_driver.plan(&spec, &image, facts, nics, 2, id, ret, err);
    spec_clear(&spec);
    return r;
}

static void test_unikernel_golden(void **state)
{
    struct host_facts facts = kvm_facts();
    struct launch_plan plan;
    struct error *err = NULL;

    assert_int_equal(plan_unikernel("{\"technology\":\"unikernel.kvm\",\"image\":\"i\",\"args\":[\"-s\",\"a b%\"],"
                                    "\"resources\":{\"memory\":\"20MiB\",\"cpus\":0.5}}",
                                    &facts, &plan, &err),
                     0);
    assert_int_equal(plan.kind, PLAN_MACHINE);
    assert_int_equal(plan.machine.monitor, PLAN_MONITOR_VMM);
    assert_int_equal(plan.machine.boot, PLAN_BOOT_UNIKERNEL);
    assert_true(plan.machine.kvm && plan.machine.restorable);
    assert_int_equal(plan.machine.memory_bytes, 20 << 20);
    assert_true(plan.limits.memory_bytes > 20 << 20);
    assert_int_equal(plan.limits.cpu_milli, 500);
    assert_string_equal(plan.machine.parameters, "-- /iperf -s a%20b%25");
    assert_non_null(
        strstr(plan.machine.identity, "hostname=golden ip4=198.18.0.9/24 gw4=198.18.0.1 ip6=fd00::9/64 gwmac=02:"));
    assert_non_null(strstr(plan.machine.identity, " eth1.ip4=198.18.4.9/16 eth1.gwmac=02:"));
    assert_null(strstr(plan.machine.identity, "eth1.gw4"));
    plan_clear(&plan);
}

static void test_unikernel_accelerators(void **state)
{
    struct host_facts facts = kvm_facts();
    struct technology_state technology;
    struct launch_plan plan;
    struct error *err = NULL;

    vmm_driver.probe(&facts, &technology);
    assert_true(technology.available);
    assert_string_equal(technology.accelerator, "kvm-pvm");
    assert_false(technology.keeps_identity);
    facts.kvm_linux = true;
    vmm_driver.probe(&facts, &technology);
    assert_string_equal(technology.accelerator, "kvm");
    facts.kvm_present = facts.kvm_linux = false;
    vmm_driver.probe(&facts, &technology);
    assert_true(technology.available);
    assert_string_equal(technology.accelerator, "tcg");
    assert_true(technology.keeps_identity); /* as plan.machine.restorable says below */
    assert_int_equal(plan_unikernel("{\"image\":\"i\"}", &facts, &plan, &err), 0);
    assert_int_equal(plan.machine.monitor, PLAN_MONITOR_QEMU);
    assert_false(plan.machine.kvm || plan.machine.restorable);
    plan_clear(&plan);
    facts.qemu[0] = '\0';
    vmm_driver.probe(&facts, &technology);
    assert_false(technology.available);
    assert_non_null(strstr(technology.what_would_help, "qemu-system-x86"));
    facts.tun = false;
    vmm_driver.probe(&facts, &technology);
    assert_non_null(strstr(technology.why_not, "/dev/net/tun"));
}

static void test_unikernel_refusals(void **state)
{
    static const struct {
        const char *spec, *code, *words;
    } cases[] = {
        {"{\"image\":\"i\",\"env\":{\"A\":\"b\"}}", "UNSUPPORTED_BY_TECHNOLOGY", "env"},
        {"{\"image\":\"i\",\"user\":\"1\"}", "UNSUPPORTED_BY_TECHNOLOGY", "user"},
        {"{\"image\":\"i\",\"capabilities\":[\"NET_RAW\"]}", "UNSUPPORTED_BY_TECHNOLOGY", "capabilities"},
        {"{\"image\":\"i\",\"resources\":{\"memory\":\"1MiB\"}}", "INVALID_VALUE", "at least 4 MiB"},
        {"{\"image\":\"i\",\"resources\":{\"cpus\":9}}", "INSUFFICIENT_RESOURCES", "cpus"},
        {"{\"image\":\"i\",\"ports\":[\"80:80\"]}", "UNSUPPORTED_BY_TECHNOLOGY", "ports"},
    };
    struct host_facts facts = kvm_facts();

    facts.cpus = 2;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct launch_plan plan;
        struct error *err = NULL;
        assert_true(plan_unikernel(cases[i].spec, &facts, &plan, &err) < 0);
        assert_string_equal(err->code, cases[i].code);
        assert_non_null(strstr(err->message, cases[i].words));
        error_free(err);
    }
}

static void test_unikernel_wants_its_image(void **state)
{
    struct host_facts facts = kvm_facts();
    struct image_config image = image_of();
    struct vnf_spec spec = spec_of("{\"image\":\"i\"}");
    struct launch_plan plan;
    struct error *err = NULL;

    image.guest = GUEST_PROCESS;
    assert_true(vmm_driver.plan(&spec, &image, &facts, NULL, 0, id, &plan, &err) < 0);
    assert_non_null(strstr(err->message, "no unikernel"));
    error_free(err);
    spec_clear(&spec);
}

/* ---- machines in QEMU ---- */

static int plan_qemu(const char *text, struct image_config *image, const struct host_facts *facts,
                     struct launch_plan *ret, struct error **err)
{
    struct vnf_spec spec = spec_of(text);
    struct plan_nic nics[1] = {{.link = "default", .mac = {2, 0, 0, 0, 0, 9}, .prefix4 = 24}};
    int r;

    inet_pton(AF_INET, "198.18.0.9", &nics[0].ipv4);
    inet_pton(AF_INET, "198.18.0.1", &nics[0].gateway4);
    r = qemu_driver.plan(&spec, image, facts, nics, 1, id, ret, err);
    spec_clear(&spec);
    return r;
}

static struct image_config machine_image(enum guest_kind guest, const char *boot)
{
    struct image_config image = image_of();

    image.guest = guest;
    image.boot = boot;
    image.entrypoint = image.command = NULL;
    return image;
}

static void test_qemu_linux_golden(void **state)
{
    struct image_config image = machine_image(GUEST_LINUX, "linux");
    struct host_facts facts = kvm_facts();
    struct launch_plan plan;
    struct error *err = NULL;

    image.parameters = "quiet";
    facts.cpus = 8;
    assert_int_equal(
        plan_qemu("{\"technology\":\"tinyx.kvm\",\"image\":\"i\",\"command\":[\"/bin/iperf\"],\"args\":[\"-s\"],"
                  "\"resources\":{\"memory\":\"32MiB\",\"cpus\":1.5}}",
                  &image, &facts, &plan, &err),
        0);
    assert_int_equal(plan.machine.monitor, PLAN_MONITOR_QEMU);
    assert_int_equal(plan.machine.boot, PLAN_BOOT_LINUX);
    assert_false(plan.machine.kvm); /* a KVM that emulates ring 0 is no place for Linux */
    assert_true(plan.machine.restorable);
    assert_int_equal(plan.machine.memory_bytes, 32 << 20);
    assert_int_equal(plan.machine.vcpus, 2);
    assert_int_equal(plan.limits.memory_bytes, (32 + 96 + 32) << 20);
    assert_string_equal(plan.machine.parameters, "quiet -- /bin/iperf -s");
    assert_non_null(strstr(plan.machine.identity, "hostname=golden ip4=198.18.0.9/24 gw4=198.18.0.1 "));
    plan_clear(&plan);
    facts.kvm_linux = true;
    assert_int_equal(plan_qemu("{\"image\":\"i\"}", &image, &facts, &plan, &err), 0);
    assert_true(plan.machine.kvm);
    assert_string_equal(plan.machine.parameters, "quiet");
    assert_int_equal(plan.machine.memory_bytes, 64 << 20);
    plan_clear(&plan);
}

static void test_qemu_brought_unikernel(void **state)
{
    static char *const hello[] = {(char *)"/hello", (char *)"x", NULL};
    struct image_config image = machine_image(GUEST_UNIKERNEL, "multiboot");
    struct host_facts facts = kvm_facts();
    struct launch_plan plan;
    struct error *err = NULL;

    image.parameters = "--ip=eth0,{ip4},{mask4} --gw={gw4} {args} --verbose";
    image.entrypoint = (char **)hello;
    assert_int_equal(plan_qemu("{\"image\":\"i\"}", &image, &facts, &plan, &err), 0);
    assert_int_equal(plan.machine.boot, PLAN_BOOT_MULTIBOOT);
    assert_string_equal(plan.machine.parameters,
                        "--ip=eth0,198.18.0.9,255.255.255.0 --gw=198.18.0.1 /hello x --verbose");
    assert_null(plan.machine.identity);
    assert_false(plan.machine.restorable);
    plan_clear(&plan);
    image.parameters = "--ip6={ip6}";
    assert_true(plan_qemu("{\"image\":\"i\"}", &image, &facts, &plan, &err) < 0);
    assert_string_equal(err->code, "INVALID_VALUE");
    assert_non_null(strstr(err->message, "{ip6}"));
    error_free(err);
}

static void test_qemu_disk(void **state)
{
    struct image_config image = machine_image(GUEST_LINUX, "disk");
    struct host_facts facts = kvm_facts();
    struct launch_plan plan;
    struct error *err = NULL;

    image.disk = "disk.qcow2";
    assert_int_equal(plan_qemu("{\"image\":\"i\"}", &image, &facts, &plan, &err), 0);
    assert_int_equal(plan.machine.boot, PLAN_BOOT_DISK);
    assert_int_equal(plan.machine.memory_bytes, 512 << 20);
    assert_true(plan.limits.memory_bytes > UINT64_C(1536) << 20); /* what it writes is in memory */
    assert_int_equal(plan.machine.memory_max_bytes, 512 << 20);   /* no room that nobody asked for */
    plan_clear(&plan);
    image.boot = NULL;
    assert_true(plan_qemu("{\"image\":\"i\"}", &image, &facts, &plan, &err) < 0);
    assert_string_equal(err->code, "IMAGE_MALFORMED");
    error_free(err);
}

static void test_machine_growth(void **state)
{
    static const struct {
        uint32_t vcpus, vcpus_max;
        uint64_t mib, mib_max;
        const char *code, *words;
    } cases[] = {
        {2, 4, 512, 1024, NULL, NULL}, /* as it is */
        {4, 4, 1024, 1024, NULL, NULL},
        {3, 4, 640, 1024, NULL, NULL},
        {1, 4, 512, 1024, "UNSUPPORTED_BY_TECHNOLOGY", "resources.cpus: processors are not taken"},
        {2, 4, 384, 1024, "UNSUPPORTED_BY_TECHNOLOGY", "resources.memory: memory is not taken"},
        {5, 5, 512, 1024, "UNSUPPORTED_BY_TECHNOLOGY", "resources.cpus: the machine was not started with room"},
        {2, 4, 1152, 1152, "UNSUPPORTED_BY_TECHNOLOGY", "resources.memory: the machine was not started with room"},
        {2, 8, 512, 1024, "UNSUPPORTED_BY_TECHNOLOGY", "resources.cpus_max: fixed"},
        {2, 4, 512, 2048, "UNSUPPORTED_BY_TECHNOLOGY", "resources.memory_max: fixed"},
        {2, 4, 600, 1024, "INVALID_VALUE", "steps of 128 MiB"},
    };
    const struct plan_machine now = {
        .vcpus = 2, .vcpus_max = 4, .memory_bytes = 512 << 20, .memory_max_bytes = 1 << 30};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct plan_machine wanted = {.vcpus = cases[i].vcpus,
                                            .vcpus_max = cases[i].vcpus_max,
                                            .memory_bytes = cases[i].mib << 20,
                                            .memory_max_bytes = cases[i].mib_max << 20};
        auto_error struct error *err = NULL;
        int r = machine_check_growth(&now, &wanted, &err);

        assert_int_equal(r == 0, !cases[i].code);
        if (r < 0) {
            assert_string_equal(err->code, cases[i].code);
            assert_non_null(strstr(err->message, cases[i].words));
            assert_non_null(err->hint);
        }
    }
}

static void refuses_room(const char *spec, struct image_config *image, const char *code)
{
    auto_error struct error *err = NULL;
    struct host_facts facts = kvm_facts();
    struct launch_plan plan;

    assert_true(plan_qemu(spec, image, &facts, &plan, &err) < 0);
    assert_string_equal(err->code, code);
    assert_non_null(strstr(err->message, "_max"));
}

static void test_room(void **state)
{
    struct image_config disk = machine_image(GUEST_LINUX, "disk"), linux_image = machine_image(GUEST_LINUX, "linux");
    struct host_facts facts = kvm_facts();
    auto_error struct error *err = NULL;
    struct launch_plan plan;

    disk.disk = "disk.raw";
    facts.cpus = 8;
    assert_int_equal(plan_qemu("{\"image\":\"i\",\"resources\":{\"cpus_max\":4,\"memory_max\":\"1GiB\"}}", &disk,
                               &facts, &plan, &err),
                     0);
    assert_int_equal(plan.machine.vcpus, 1);
    assert_int_equal(plan.machine.vcpus_max, 4);
    assert_int_equal(plan.machine.memory_max_bytes, 1 << 30);
    plan_clear(&plan);
    refuses_room("{\"image\":\"i\",\"resources\":{\"memory_max\":\"128MiB\"}}", &disk, "INVALID_VALUE");
    refuses_room("{\"image\":\"i\",\"resources\":{\"cpus\":2,\"cpus_max\":1}}", &disk, "INVALID_VALUE");
    refuses_room("{\"image\":\"i\",\"resources\":{\"cpus_max\":4}}", &linux_image, "UNSUPPORTED_BY_TECHNOLOGY");
    assert_true(plan_unikernel("{\"image\":\"i\",\"resources\":{\"memory_max\":\"64MiB\"}}", &facts, &plan, &err) < 0);
    assert_string_equal(err->code, "UNSUPPORTED_BY_TECHNOLOGY");
}

static void test_qemu_probe(void **state)
{
    struct host_facts facts = kvm_facts();
    struct technology_state technology;

    qemu_driver.probe(&facts, &technology);
    assert_true(technology.available);
    assert_string_equal(technology.accelerator, "tcg");
    facts.kvm_linux = true;
    qemu_driver.probe(&facts, &technology);
    assert_string_equal(technology.accelerator, "kvm");
    facts.tun = false;
    qemu_driver.probe(&facts, &technology);
    assert_non_null(strstr(technology.what_would_help, "modprobe tun"));
    facts.qemu[0] = '\0';
    qemu_driver.probe(&facts, &technology);
    assert_false(technology.available);
    assert_non_null(strstr(technology.what_would_help, "qemu-system-x86"));
}

/* ---- a container in a guest ---- */

static struct image_config carrier_image(void)
{
    struct image_config carrier = {
        .layer_count = 1, .guest = GUEST_LINUX, .boot = "linux", .initrd = true, .parameters = "quiet"};

    memset(carrier.layers[0], 'c', 64);
    return carrier;
}

static int plan_hybrid(const char *text, const struct host_facts *facts, struct launch_plan *ret, struct error **err)
{
    const struct image_config carrier = carrier_image();
    struct image_config image = image_of();
    struct vnf_spec spec = spec_of(text);
    struct plan_nic nic = {.link = "default", .mac = {2, 0, 0, 0, 0, 9}, .prefix4 = 24};
    int r;

    image.carrier = &carrier;
    image.stop_signal = 3;
    inet_pton(AF_INET, "198.18.0.9", &nic.ipv4);
    r = hybrid_driver.plan(&spec, &image, facts, &nic, 1, id, ret, err);
    spec_clear(&spec);
    return r;
}

/* The container is planned as technology container plans it; its guest and its bounds are around it. */
static void test_hybrid_golden(void **state)
{
    struct host_facts facts = kvm_facts();
    struct launch_plan plan, container;
    auto_buffer struct buffer inner = {0}, plain = {0};
    struct image_config image = image_of();
    struct vnf_spec spec = spec_of("{\"image\":\"i\",\"args\":[\"-p\"],\"env\":{\"A\":\"user\"}}");
    struct error *err = NULL;

    assert_int_equal(plan_hybrid("{\"image\":\"i\",\"args\":[\"-p\"],\"env\":{\"A\":\"user\"},\"resources\":"
                                 "{\"memory\":\"32MiB\",\"pids\":9,\"cpus\":1.5}}",
                                 &facts, &plan, &err),
                     0);
    assert_int_equal(container_driver.plan(&spec, &image, &facts, NULL, 0, id, &container, &err), 0);
    words(&inner, "", plan.process.argv);
    words(&inner, "", plan.process.env);
    words(&plain, "", container.process.argv);
    words(&plain, "", container.process.env);
    assert_string_equal(inner.data, plain.data);
    assert_string_equal(plan.process.cwd, container.process.cwd);
    assert_string_equal(plan.process.user, container.process.user);
    assert_int_equal(plan.capabilities, container.capabilities);
    assert_int_equal(plan.kind, PLAN_MACHINE);
    assert_int_equal(plan.root.layer_count, 2);
    assert_int_equal(plan.root.writable_bytes, 16 << 20);
    assert_int_equal(plan.machine.carrier[0], 'c');
    assert_int_equal(plan.machine.inner_memory_bytes, 32 << 20);
    assert_int_equal(plan.machine.memory_bytes, (32 + 28) << 20);
    assert_true(plan.limits.memory_bytes > plan.machine.memory_bytes);
    assert_int_equal(plan.machine.inner_pids, 9);
    assert_true(plan.limits.pids > 9); /* QEMU's own threads */
    assert_int_equal(plan.machine.vcpus, 2);
    assert_int_equal(plan.machine.stop_signal, 3);
    assert_false(plan.machine.restorable);
    assert_string_equal(plan.machine.parameters, "quiet");
    assert_non_null(strstr(plan.machine.identity, "ip4=198.18.0.9/24"));
    plan_clear(&plan);
    plan_clear(&container);
    spec_clear(&spec);
}

static void test_hybrid_refusals(void **state)
{
    static const struct {
        const char *text, *code;
    } cases[] = {
        {"{\"image\":\"i\",\"tty\":true}", "UNSUPPORTED_BY_TECHNOLOGY"},
        {"{\"image\":\"i\",\"resources\":{\"memory\":\"1MiB\"}}", "INVALID_VALUE"},
        {"{\"image\":\"i\",\"resources\":{\"memory\":\"8MiB\",\"storage\":\"9MiB\"}}", "INVALID_VALUE"},
        {"{\"image\":\"i\",\"resources\":{\"memory\":\"1000MiB\"}}", "INSUFFICIENT_RESOURCES"},
        {"{\"image\":\"i\",\"ports\":[\"80:80\"]}", "UNSUPPORTED_BY_TECHNOLOGY"},
        {"{\"image\":\"i\",\"networks\":[\"a\",\"b\",\"c\",\"d\",\"e\"]}", "UNSUPPORTED_BY_TECHNOLOGY"},
    };
    struct host_facts facts = kvm_facts();

    facts.memory_bytes = 1010 << 20; /* the guest's own need counts too */
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct launch_plan plan;
        struct error *err = NULL;

        if (plan_hybrid(cases[i].text, &facts, &plan, &err) == 0 || strcmp(err->code, cases[i].code) != 0)
            fail_msg("%s: %s", cases[i].text, err ? err->code : "was planned");
        error_free(err);
    }
}

/* What the launcher checks of a plan that names a carrier. */
static void test_hybrid_plan_bounds(void **state)
{
    struct host_facts facts = kvm_facts();
    struct launch_plan plan, bent;
    struct error *err = NULL;

    assert_int_equal(plan_hybrid("{\"image\":\"i\"}", &facts, &plan, &err), 0);
    for (int i = 0; i < 8; i++) {
        bent = plan;
        if (i == 0)
            bent.machine.carrier[5] = '/';
        else if (i == 1)
            bent.machine.stop_signal = 0;
        else if (i == 2)
            bent.machine.stop_signal = 65;
        else if (i == 3)
            bent.machine.inner_memory_bytes = bent.machine.memory_bytes + 1;
        else if (i == 4)
            bent.machine.monitor = PLAN_MONITOR_VMM;
        else if (i == 5)
            bent.process.argv = NULL;
        else if (i == 6)
            bent.machine.restorable = true;
        else
            bent.machine.carrier[0] = '\0'; /* then it is a machine with a container's parts */
        assert_int_equal(plan_validate(&bent, &err), -EINVAL);
        error_free(err);
        err = NULL;
    }
    plan_clear(&plan);
}

static void test_hybrid_probe(void **state)
{
    struct host_facts facts = kvm_facts();
    struct technology_state technology;

    facts.overlay = true;
    hybrid_driver.probe(&facts, &technology);
    assert_true(technology.available);
    assert_string_equal(technology.accelerator, "tcg");
    facts.overlay = false;
    hybrid_driver.probe(&facts, &technology);
    assert_false(technology.available);
    assert_non_null(strstr(technology.what_would_help, "overlay"));
    facts.tun = false;
    hybrid_driver.probe(&facts, &technology);
    assert_non_null(strstr(technology.what_would_help, "modprobe tun"));
    facts.qemu[0] = '\0';
    hybrid_driver.probe(&facts, &technology);
    assert_non_null(strstr(technology.what_would_help, "qemu-system-x86"));
}

static void test_parameters_fill(void **state)
{
    static const struct {
        const char *line, *filled;
    } cases[] = {
        {NULL, "a b"},
        {"", "a b"},
        {"x", "x a b"},
        {"{args}", "a b"},
        {"{\"json\": {1}} {mac} {hostname} {prefix4}", "{\"json\": {1}} 02:00:00:00:00:09 h 24 a b"},
        {"{gw4} {", NULL},
        {"{ip4.1}", NULL},
        {"{ip4.x}", NULL},
        {"{nothing}", NULL},
        {"{ip4.0}}", "10.0.0.1} a b"},
    };
    char *const argv[] = {(char *)"a", (char *)"b", NULL};
    struct plan_nic nic = {.mac = {2, 0, 0, 0, 0, 9}, .prefix4 = 24};

    inet_pton(AF_INET, "10.0.0.1", &nic.ipv4);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error *err = NULL;
        char *filled = NULL;
        int r = parameters_fill(cases[i].line, argv, "h", &nic, 1, &filled, &err);
        if (cases[i].filled && r == 0)
            assert_string_equal(filled, cases[i].filled);
        assert_int_equal(r, cases[i].filled ? 0 : -EINVAL);
        free(filled);
        error_free(err);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_plans),
        cmocka_unit_test(test_limits_this_host_cannot_enforce),
        cmocka_unit_test(test_other_refusals),
        cmocka_unit_test(test_probe_says_why_not),
        cmocka_unit_test(test_fake_plan),
        cmocka_unit_test(test_unikernel_golden),
        cmocka_unit_test(test_unikernel_accelerators),
        cmocka_unit_test(test_unikernel_refusals),
        cmocka_unit_test(test_unikernel_wants_its_image),
        cmocka_unit_test(test_qemu_linux_golden),
        cmocka_unit_test(test_qemu_brought_unikernel),
        cmocka_unit_test(test_qemu_disk),
        cmocka_unit_test(test_machine_growth),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_qemu_probe),
        cmocka_unit_test(test_hybrid_golden),
        cmocka_unit_test(test_hybrid_refusals),
        cmocka_unit_test(test_hybrid_plan_bounds),
        cmocka_unit_test(test_hybrid_probe),
        cmocka_unit_test(test_parameters_fill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
