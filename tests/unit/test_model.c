/* SPDX-License-Identifier: Apache-2.0 */
/* The model: units, life cycle tables, restart arithmetic, address pools, names, plan bounds. */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/strv.h"
#include "model/capability.h"
#include "model/ipam.h"
#include "model/lifecycle.h"
#include "model/naming.h"
#include "model/plan.h"
#include "model/restart.h"
#include "model/units.h"

static void expect_code(int r, struct error **err, const char *code)
{
    assert_true(r < 0);
    assert_non_null(*err);
    assert_string_equal((*err)->code, code);
    error_free(*err);
    *err = NULL;
}

/* ---- units */

static void test_sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0},           {"4096", 4096},      {"1B", 1},
                {"1kB", 1000},      {"64MiB", 64 << 20}, {"1.5GiB", 3ull << 29},
                {"10MB", 10000000}, {"2GB", 2000000000}};
    static const struct {
        const char *text, *code;
    } bad[] = {{"-1", "INVALID_VALUE"},       {"", "INVALID_VALUE"},
               {"MiB", "INVALID_VALUE"},      {"1.", "INVALID_VALUE"},
               {"1.2345kB", "INVALID_VALUE"}, {"1e9", "INVALID_UNIT"},
               {"64Mib", "INVALID_UNIT"},     {"64mib", "INVALID_UNIT"},
               {"64 MiB", "INVALID_UNIT"},    {"99999999999GiB", "INVALID_VALUE"},
               {"0x10", "INVALID_UNIT"},      {"99999999999999999999999", "INVALID_VALUE"}};

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        uint64_t bytes = 7;
        assert_int_equal(units_size(good[i].text, "p", &bytes, NULL), 0);
        assert_int_equal(bytes, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint64_t bytes = 7;
        struct error *err = NULL;
        expect_code(units_size(bad[i].text, "p", &bytes, &err), &err, bad[i].code);
        assert_int_equal(bytes, 7);
    }
    struct error *err = NULL;
    uint64_t bytes;
    assert_true(units_size("64Mib", "resources.memory", &bytes, &err) < 0);
    assert_non_null(strstr(err->message, "resources.memory"));
    assert_non_null(strstr(err->hint, "\"MiB\""));
    error_free(err);
}

static void test_durations_and_signals(void **state)
{
    uint32_t ms;
    int number;
    char name[16];
    struct error *err = NULL;

    assert_int_equal(units_duration("1.5s", "p", &ms, NULL), 0);
    assert_int_equal(ms, 1500);
    assert_int_equal(units_duration("2m", "p", &ms, NULL), 0);
    assert_int_equal(ms, 120000);
    expect_code(units_duration("10", "p", &ms, &err), &err, "INVALID_UNIT");
    err = NULL;
    expect_code(units_duration("25000m", "p", &ms, &err), &err, "INVALID_VALUE");
    for (int i = 1; i <= 64; i++) { /* every name goes back to its number */
        if (i == 32 || i == 33)
            continue;
        assert_int_equal(units_signal(units_signal_name(i, name), "p", &number, NULL), 0);
        assert_int_equal(number, i);
    }
    assert_int_equal(units_signal("term", "p", &number, NULL), 0);
    assert_int_equal(number, SIGTERM);
    err = NULL;
    assert_true(units_signal("SIGTREM", "p", &number, &err) < 0);
    assert_non_null(strstr(err->hint, "SIGTERM"));
    error_free(err);
    err = NULL;
    expect_code(units_signal("0", "p", &number, &err), &err, "INVALID_VALUE");
    err = NULL;
    expect_code(units_signal("65", "p", &number, &err), &err, "INVALID_VALUE");
}

static void test_names_and_cpusets(void **state)
{
    assert_true(units_is_name("a") && units_is_name("edge-fw-1") && units_is_name("0"));
    assert_false(units_is_name("") || units_is_name("-a") || units_is_name("a-") || units_is_name("A") ||
                 units_is_name("a.b") || units_is_name("a/b") || units_is_name("a b"));
    assert_true(units_is_name("aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg"));
    assert_false(units_is_name("aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggg"));
    assert_true(units_is_cpuset("0") && units_is_cpuset("0-1,3") && units_is_cpuset("7,5"));
    assert_false(units_is_cpuset("") || units_is_cpuset("3-1") || units_is_cpuset("0,") || units_is_cpuset("a") ||
                 units_is_cpuset("-1") || units_is_cpuset("0-") || units_is_cpuset("99999") || units_is_cpuset("0\n"));
}

/* ---- life cycle */

static void test_lifecycle_table(void **state)
{
    assert_int_equal(lifecycle_next(STATE_NOT_INSTANTIATED, EVENT_START), STATE_STARTING);
    assert_int_equal(lifecycle_next(STATE_STARTING, EVENT_START_DONE), STATE_STARTED);
    assert_int_equal(lifecycle_next(STATE_STARTED, EVENT_PAUSE), STATE_PAUSED);
    assert_int_equal(lifecycle_next(STATE_PAUSED, EVENT_STOP), STATE_STOPPING);
    assert_int_equal(lifecycle_next(STATE_STOPPING, EVENT_EXIT), STATE_STOPPED);
    assert_int_equal(lifecycle_next(STATE_NOT_INSTANTIATED, EVENT_EXIT), -1);
    assert_int_equal(lifecycle_next(STATE_STOPPED, EVENT_PAUSE), -1);
    for (int s = 0; s < STATE_COUNT; s++) {
        assert_int_equal(instance_state_parse(instance_state_name((enum instance_state)s)), s);
        if (s != STATE_NOT_INSTANTIATED) /* from everywhere an end and a loss can be taken */
            assert_true(lifecycle_next((enum instance_state)s, EVENT_EXIT) >= 0 &&
                        lifecycle_next((enum instance_state)s, EVENT_LOST) >= 0);
        assert_true(lifecycle_next((enum instance_state)s, EVENT_RUNS) >= 0); /* adoption can find any of them */
        for (int e = 0; e < EVENT_COUNT; e++)
            assert_in_range(lifecycle_next((enum instance_state)s, (enum instance_event)e) + 1, 0, STATE_COUNT);
    }
}

static void test_operation_states(void **state)
{
    for (int from = 0; from < OPERATION_STATE_COUNT; from++) {
        enum operation_state s = (enum operation_state)from;
        assert_int_equal(operation_state_parse(operation_state_name(s)), from);
        bool leaves = false;
        for (int to = 0; to < OPERATION_STATE_COUNT; to++)
            leaves |= operation_state_may_follow(s, (enum operation_state)to);
        assert_int_equal(leaves, !operation_state_ended(s)); /* an ended one stays as it is, no other is a dead end */
    }
    assert_true(operation_state_may_follow(OPERATION_PROCESSING, OPERATION_ROLLING_BACK));
    assert_false(operation_state_may_follow(OPERATION_ROLLING_BACK, OPERATION_COMPLETED));
    for (int k = 0; k < OPERATION_KIND_COUNT; k++)
        assert_int_equal(operation_kind_parse(operation_kind_name((enum operation_kind)k)), k);
}

static void test_restart(void **state)
{
    struct restart_rule rule = {RESTART_ON_FAILURE, 3, 100, 1000};

    assert_true(restart_wanted(&rule, false, 2));
    assert_false(restart_wanted(&rule, false, 3));
    assert_false(restart_wanted(&rule, true, 0));
    rule.policy = RESTART_ALWAYS;
    rule.max = 0;
    assert_true(restart_wanted(&rule, true, 1000000));
    rule.policy = RESTART_NO;
    assert_false(restart_wanted(&rule, false, 0));
    assert_int_equal(restart_delay(&rule, 0), 100);
    assert_int_equal(restart_delay(&rule, 3), 800);
    assert_int_equal(restart_delay(&rule, 4), 1000);
    assert_int_equal(restart_delay(&rule, UINT32_MAX), 1000);
    for (uint32_t n = 0; n < 40; n++) /* never shorter than before */
        assert_true(restart_delay(&rule, n + 1) >= restart_delay(&rule, n));
    rule.backoff_ms = 0;
    assert_int_equal(restart_delay(&rule, 0), 0);
    assert_int_equal(restart_delay(&rule, 40), 1000);
}

/* ---- address pools */

static void test_subnets(void **state)
{
    static const struct {
        const char *four, *six;
    } bad[] = {{"198.18.0.1/16", NULL}, {"198.18.0.0", NULL},    {"198.18.0.0/31", NULL},  {"198.18.0.0/7", NULL},
               {"224.0.0.0/8", NULL},   {"127.0.0.0/8", NULL},   {"198.18.0.0/16x", NULL}, {"0.0.0.0/8", NULL},
               {NULL, "fd00::1/64"},    {NULL, "fd00::/32"},     {NULL, "ff00::/64"},      {NULL, "::/64"},
               {NULL, "fe80::/64"},     {"198.18.0.0/-1", NULL}, {"198.18.0.0/", NULL}};
    struct subnet s, other;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct error *err = NULL;
        expect_code(subnet_parse(bad[i].four, bad[i].six, &s, &err), &err, "INVALID_VALUE");
    }
    assert_int_equal(subnet_parse("198.18.0.0/16", "fd00:1::/64", &s, NULL), 0);
    assert_int_equal(ntohl(s.gateway4.s_addr), 0xc6120001);
    assert_int_equal(s.gateway6.s6_addr[15], 1);
    assert_int_equal(subnet_parse("198.18.255.0/24", NULL, &other, NULL), 0);
    assert_true(subnet_overlaps(&s, &other) && subnet_overlaps(&other, &s));
    assert_int_equal(subnet_parse("198.19.0.0/16", "fd00:2::/64", &other, NULL), 0);
    assert_false(subnet_overlaps(&s, &other));
}

static struct ipam *pool(const char *four, const char *six)
{
    struct subnet s;
    struct ipam *ipam;

    assert_int_equal(subnet_parse(four, six, &s, NULL), 0);
    assert_int_equal(ipam_new(&s, &ipam, NULL), 0);
    return ipam;
}

static void test_pool_is_used_up_and_refilled(void **state)
{
    struct ipam *ipam = pool("10.1.0.0/28", "fd00::/64");
    struct in_addr none = {0}, four;
    struct in6_addr any = {0}, six;
    struct error *err = NULL;

    for (uint32_t k = 2; k <= 14; k++) { /* 16 less network, gateway, broadcast */
        assert_int_equal(ipam_take(ipam, none, &any, &four, &six, NULL), 0);
        assert_int_equal(ntohl(four.s_addr), 0x0a010000 + k);
        assert_int_equal(six.s6_addr[15], k);
    }
    expect_code(ipam_take(ipam, none, &any, &four, &six, &err), &err, "ADDRESS_POOL_EXHAUSTED");
    four.s_addr = htonl(0x0a010005);
    six = (struct in6_addr){.s6_addr = {0xfd}};
    six.s6_addr[15] = 5;
    ipam_give(ipam, four, &six);
    assert_int_equal(ipam_take(ipam, none, &any, &four, &six, NULL), 0); /* the lowest free one again */
    assert_int_equal(ntohl(four.s_addr), 0x0a010005);
    ipam_free(ipam);
}

static void test_asked_for_addresses(void **state)
{
    struct ipam *ipam = pool("10.1.0.0/24", "fd00::/64");
    struct in_addr none = {0}, four, asked = {htonl(0x0a010007)};
    struct in6_addr any = {0}, six, far;
    struct error *err = NULL;

    assert_int_equal(inet_pton(AF_INET6, "fd00::dead:beef:1:2", &far), 1);
    assert_int_equal(ipam_take(ipam, asked, &far, &four, &six, NULL), 0);
    assert_int_equal(four.s_addr, asked.s_addr);
    assert_memory_equal(&six, &far, sizeof(far));
    expect_code(ipam_take(ipam, asked, &any, &four, &six, &err), &err, "ADDRESS_TAKEN");
    err = NULL;
    expect_code(ipam_take(ipam, none, &far, &four, &six, &err), &err, "ADDRESS_TAKEN");
    for (const char *const *bad = (const char *const[]){"10.1.0.0", "10.1.0.255", "10.2.0.1", NULL}; *bad; bad++) {
        struct in_addr outside;
        assert_int_equal(inet_pton(AF_INET, *bad, &outside), 1);
        err = NULL;
        expect_code(ipam_take(ipam, outside, &any, &four, &six, &err), &err, "INVALID_VALUE");
    }
    asked.s_addr = htonl(0x0a010001);
    err = NULL;
    expect_code(ipam_take(ipam, asked, &any, &four, &six, &err), &err, "ADDRESS_TAKEN"); /* the gateway */
    ipam_give(ipam, (struct in_addr){htonl(0x0a010007)}, &far);
    assert_int_equal(ipam_take(ipam, (struct in_addr){htonl(0x0a010007)}, &far, &four, &six, NULL), 0);
    ipam_free(ipam);
}

/* Random takes and gives against a plain array: never one address twice, always the lowest. */
static void test_pool_property(void **state)
{
    enum { SIZE = 1024 };
    struct ipam *ipam = pool("10.1.0.0/22", NULL);
    static bool taken[SIZE];
    struct in6_addr any = {0}, six;
    unsigned seed = 42;

    taken[0] = taken[1] = taken[SIZE - 1] = true;
    for (int step = 0; step < 200000; step++) {
        uint32_t n = (uint32_t)rand_r(&seed) % SIZE;
        struct in_addr four;
        if (rand_r(&seed) % 5 < 3) {
            uint32_t lowest = 0;
            while (lowest < SIZE && taken[lowest])
                lowest++;
            int r = ipam_take(ipam, (struct in_addr){0}, &any, &four, &six, NULL);
            assert_int_equal(r == 0, lowest < SIZE);
            if (r == 0) {
                assert_int_equal(ntohl(four.s_addr) - 0x0a010000, lowest);
                taken[lowest] = true;
            }
        } else if (n > 1 && n < SIZE - 1 && taken[n]) {
            ipam_give(ipam, (struct in_addr){htonl(0x0a010000 + n)}, &any);
            taken[n] = false;
        }
    }
    ipam_free(ipam);
}

static void test_macs(void **state)
{
    struct in_addr a = {htonl(0xc6120002)}, b = {htonl(0xc6120003)};
    struct in6_addr any = {0};
    uint8_t one[6], again[6], other[6];

    ipam_mac("default", a, &any, one);
    ipam_mac("default", a, &any, again);
    ipam_mac("default", b, &any, other);
    assert_memory_equal(one, again, 6);
    assert_memory_not_equal(one, other, 6);
    assert_int_equal(one[0] & 3, 2); /* locally administered, unicast */
}

/* ---- names, plans */

static void test_naming(void **state)
{
    uint8_t bytes[16];
    char name[NAME_SIZE], id[INSTANCE_ID_SIZE];

    memset(bytes, 0xff, sizeof(bytes));
    id_generate(bytes, id);
    assert_string_equal(id, "ffffffff-ffff-4fff-bfff-ffffffffffff");
    for (uint64_t k = 0; k < 1000; k++) {
        name_generate("unikernel.osv.kvm", k * 7919 * 7919 * 7919, name);
        assert_true(units_is_name(name));
        assert_memory_equal(name, "unikernel-osv-kvm-", 18);
    }
    name_generate("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", UINT64_MAX,
                  name);
    assert_true(units_is_name(name));
}

static void good_plan(struct launch_plan *plan)
{
    static char *argv[] = {(char *)"/a", NULL}, *env[] = {(char *)"PATH=/bin", NULL};

    *plan = (struct launch_plan){.id = "01234567-89ab-4cde-8f01-23456789abcd",
                                 .name = "a",
                                 .hostname = "a",
                                 .kind = PLAN_CONTAINER,
                                 .process = {.argv = argv, .env = env, .cwd = (char *)"/"},
                                 .root = {.layer_count = 1, .writable_bytes = 4096}};
    memset(plan->root.layers[0], 'a', 64);
    plan->nic_count = 1;
    strcpy(plan->nics[0].link, "default");
    plan->nics[0].mac[0] = 2;
    plan->nics[0].ipv4.s_addr = htonl(0xc6120002);
    plan->nics[0].prefix4 = 16;
}

#define REFUSED(change)                                                                                                \
    do {                                                                                                               \
        struct error *err = NULL;                                                                                      \
        good_plan(&plan);                                                                                              \
        change;                                                                                                        \
        expect_code(plan_validate(&plan, &err), &err, "INVALID_VALUE");                                                \
    } while (0)

static void test_plan_bounds(void **state)
{
    static char *many[600], *bad_env[] = {(char *)"NOEQUALS", NULL}, *nothing[] = {NULL};
    struct launch_plan plan;

    for (size_t i = 0; i < 599; i++)
        many[i] = (char *)"x";
    good_plan(&plan);
    assert_int_equal(plan_validate(&plan, NULL), 0);
    REFUSED(strcpy(plan.id, "../../../../../../../../../../../etc"));
    REFUSED(plan.id[35] = 'G');
    REFUSED(memset(plan.id, 'a', sizeof(plan.id)));
    REFUSED(plan.name[0] = '\0');
    REFUSED(strcpy(plan.hostname, "a/b"));
    REFUSED(memset(plan.name, 'a', sizeof(plan.name)));
    REFUSED(plan.kind = 0);
    REFUSED(plan.start_mode = (enum start_mode)9);
    REFUSED(plan.process.argv = nothing);
    REFUSED(plan.process.argv = many);
    REFUSED(plan.process.env = bad_env);
    REFUSED(plan.process.cwd = (char *)"relative");
    REFUSED(plan.process.cwd = NULL);
    REFUSED(plan.root.layer_count = 0);
    REFUSED(plan.root.layer_count = LAYER_MAX + 1);
    REFUSED(strcpy(plan.root.layers[0], "../x"));
    REFUSED(plan.root.layers[0][3] = '/');
    REFUSED(plan.root.read_only = true);
    REFUSED(plan.nic_count = NETWORK_PER_INSTANCE_MAX + 1);
    REFUSED(strcpy(plan.nics[0].link, "a;b"));
    REFUSED(plan.nics[0].mac[0] = 1);
    REFUSED(plan.nics[0].prefix4 = 33);
    REFUSED(plan.nics[0].ipv4.s_addr = htonl(0x7f000001));
    REFUSED(plan.nics[0].prefix6 = 64);
    REFUSED(plan.port_count = PORT_PER_INSTANCE_MAX + 1);
    REFUSED(plan.port_count = 1);
    REFUSED(strcpy(plan.limits.cpuset, "0;1"));
    REFUSED(plan.capabilities = 1u << 21); /* CAP_SYS_ADMIN */
    REFUSED(plan.log_bytes_max = 1ull << 40);
}

static void test_capabilities(void **state)
{
    unsigned number;
    struct error *err = NULL;

    assert_int_equal(capability_parse("CAP_NET_ADMIN", "p", &number, NULL), 0);
    assert_int_equal(number, 12);
    assert_int_equal(capability_parse("net_raw", "p", &number, NULL), 0);
    assert_string_equal(capability_name(number), "NET_RAW");
    expect_code(capability_parse("SYS_ADMIN", "p", &number, &err), &err, "INVALID_VALUE");
    assert_int_equal(capability_default_set() & ~capability_allowed_set(), 0);
    assert_int_equal(capability_default_set() >> 12 & 3, 0); /* neither NET_ADMIN nor NET_RAW unasked */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_durations_and_signals),
        cmocka_unit_test(test_names_and_cpusets),
        cmocka_unit_test(test_lifecycle_table),
        cmocka_unit_test(test_operation_states),
        cmocka_unit_test(test_restart),
        cmocka_unit_test(test_subnets),
        cmocka_unit_test(test_pool_is_used_up_and_refilled),
        cmocka_unit_test(test_asked_for_addresses),
        cmocka_unit_test(test_pool_property),
        cmocka_unit_test(test_macs),
        cmocka_unit_test(test_naming),
        cmocka_unit_test(test_plan_bounds),
        cmocka_unit_test(test_capabilities),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
