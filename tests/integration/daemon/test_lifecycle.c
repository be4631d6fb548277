/* SPDX-License-Identifier: Apache-2.0 */
/* The whole life cycle through the core with the fake technology: every verb, every fault, cancel, policy, 10,000. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "harness.h"

static struct bed bed;
static char op[INSTANCE_ID_SIZE];

static int set_up(void **state)
{
    bed_open(&bed, NULL);
    return 0;
}

static int tear_down(void **state)
{
    bed_close(&bed);
    return 0;
}

static void expect_ended(const char *operation, const char *state, const char *code)
{
    json_t *json = bed_wait(&bed, operation);

    assert_string_equal(text_of(json, "operationState"), state);
    assert_string_equal(text_of(json_object_get(json, "error"), "code"), code);
    json_decref(json);
}

static void expect_state(const char *name, const char *state)
{
    json_t *json = bed_instance(&bed, name);

    assert_non_null(json);
    assert_string_equal(text_of(json, "state"), state);
    json_decref(json);
}

#define OK(call) assert_string_equal((call), "")

static void test_whole_life(void **context)
{
    OK(bed_create(&bed, "{\"technology\":\"fake\",\"name\":\"a\",\"labels\":{\"k\":\"v\"}}", true, NULL, op));
    expect_ended(op, "COMPLETED", "");
    expect_state("a", "STARTED");
    OK(bed_change(&bed, "a", CORE_PAUSE, NULL, op));
    expect_ended(op, "COMPLETED", "");
    expect_state("a", "PAUSED");
    assert_string_equal(bed_change(&bed, "a", CORE_START, NULL, op), "CONFLICTING_STATE");
    OK(bed_change(&bed, "a", CORE_RESUME, "{}", op));
    expect_ended(op, "COMPLETED", "");
    expect_state("a", "STARTED");
    OK(bed_change(&bed, "a", CORE_RESTART, "{\"grace_ms\":100}", op));
    expect_ended(op, "COMPLETED", "");
    expect_state("a", "STARTED");
    assert_string_equal(bed_terminate(&bed, "a", false, op), "CONFLICTING_STATE");
    OK(bed_change(&bed, "a", CORE_STOP, NULL, op));
    expect_ended(op, "COMPLETED", "");
    expect_state("a", "STOPPED");
    OK(bed_change(&bed, "a", CORE_START, NULL, op));
    expect_ended(op, "COMPLETED", "");
    OK(bed_terminate(&bed, "a", true, op));
    expect_ended(op, "COMPLETED", "");
    assert_null(bed_instance(&bed, "a"));
    assert_string_equal(bed_change(&bed, "a", CORE_START, NULL, op), "INSTANCE_NOT_FOUND");
}

static void test_create_only_then_start(void **context)
{
    OK(bed_create(&bed, "{\"technology\":\"fake\",\"name\":\"b\"}", false, NULL, op));
    assert_string_equal(op, "");
    expect_state("b", "NOT_INSTANTIATED");
    OK(bed_change(&bed, "b", CORE_START, NULL, op));
    json_t *json = bed_wait(&bed, op);
    assert_string_equal(text_of(json, "operation"), "INSTANTIATE");
    assert_true(json_array_size(json_object_get(json, "steps")) >= 3);
    json_decref(json);
    OK(bed_terminate(&bed, "b", true, NULL));
}

static void test_refusals(void **context)
{
    static const struct {
        const char *descriptor, *code;
    } cases[] = {
        {"{\"technology\":\"fake\",\"nmae\":\"x\"}", "UNKNOWN_FIELD"},
        {"{\"technology\":\"fkae\"}", "UNKNOWN_TECHNOLOGY"},
        {"{\"technology\":\"container\"}", "MISSING_FIELD"},
        {"{\"technology\":\"container\",\"image\":\"x\"}", "LAUNCHER_UNAVAILABLE"},
        {"{\"technology\":\"container\",\"image\":\"x\",\"fault\":{\"step\":\"start\"}}", "INVALID_VALUE"},
        {"{\"technology\":\"fake\",\"networks\":[\"nowhere\"]}", "NETWORK_NOT_FOUND"},
        {"{\"technology\":\"fake\",\"networks\":[{\"name\":\"default\",\"ipv4\":\"10.0.0.1\"}]}", "INVALID_VALUE"},
        {"{\"technology\":\"fake\",\"fault\":{\"step\":\"plan\"}}", "START_FAILED"},
        {"[]", "INVALID_VALUE"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_string_equal(bed_create(&bed, cases[i].descriptor, true, NULL, NULL), cases[i].code);
    auto_buffer struct buffer out = {0};
    core_render_instances(bed.core, NULL, &out);
    assert_string_equal(out.data, "{\"items\":[]}");
    buffer_clear(&out);
    core_render_networks(bed.core, &out); /* refusals gave their addresses back */
    assert_non_null(strstr(out.data, "\"instances\":0"));
}

static void test_names_and_addresses_are_unique(void **context)
{
    const char *asked =
        "{\"technology\":\"fake\",\"name\":\"%s\",\"networks\":[{\"name\":\"default\",\"ipv4\":\"198.18.7.7\"}]}";
    char text[256];

    snprintf(text, sizeof(text), asked, "c1");
    OK(bed_create(&bed, text, false, NULL, NULL));
    assert_string_equal(bed_create(&bed, text, false, NULL, NULL), "NAME_TAKEN");
    snprintf(text, sizeof(text), asked, "c2");
    assert_string_equal(bed_create(&bed, text, false, NULL, NULL), "ADDRESS_TAKEN");
    OK(bed_terminate(&bed, "c1", false, op));
    expect_ended(op, "COMPLETED", "");
    OK(bed_create(&bed, text, false, NULL, NULL)); /* the address is free again */
    OK(bed_terminate(&bed, "c2", false, op));
    expect_ended(op, "COMPLETED", "");
}

static void test_fault_at_start(void **context)
{
    OK(bed_create(&bed, "{\"technology\":\"fake\",\"name\":\"d\",\"fault\":{\"step\":\"start\"}}", true, NULL, op));
    expect_ended(op, "FAILED", "START_FAILED");
    json_t *json = bed_instance(&bed, "d");
    assert_string_equal(text_of(json, "state"), "FAILED");
    assert_string_equal(text_of(json_object_get(json, "reason"), "code"), "START_FAILED");
    json_decref(json);
    OK(bed_change(&bed, "d", CORE_START, NULL, op));
    expect_ended(op, "FAILED", "START_FAILED");
    OK(bed_terminate(&bed, "d", false, op));
    expect_ended(op, "COMPLETED", "");
}

static void test_fault_at_stop(void **context)
{
    OK(bed_create(&bed, "{\"technology\":\"fake\",\"name\":\"e\",\"fault\":{\"step\":\"stop\"}}", true, NULL, op));
    expect_ended(op, "COMPLETED", "");
    OK(bed_change(&bed, "e", CORE_STOP, NULL, op));
    expect_ended(op, "FAILED", "INTERNAL");
    expect_state("e", "STARTED");
    OK(bed_terminate(&bed, "e", true, op));
    expect_ended(op, "COMPLETED", "");
}

static void test_stop_that_hangs_is_killed(void **context)
{
    OK(bed_create(&bed, "{\"technology\":\"fake\",\"name\":\"f\",\"fault\":{\"step\":\"hang-stop\"}}", true, NULL, op));
    expect_ended(op, "COMPLETED", "");
    uint64_t before = monotonic_ns();
    OK(bed_change(&bed, "f", CORE_STOP, "{\"grace_ms\":200}", op));
    expect_ended(op, "COMPLETED", "");
    assert_true(monotonic_ns() - before >= 200000000);
    json_t *json = bed_instance(&bed, "f");
    assert_string_equal(text_of(json_object_get(json, "exit"), "signal"), "SIGKILL");
    json_decref(json);
    OK(bed_terminate(&bed, "f", false, op));
    expect_ended(op, "COMPLETED", "");
}

static void cancel(const char *operation, const char *expected)
{
    struct operation *cancelled;
    struct error *err = NULL;
    int r = core_cancel(bed.core, operation, &cancelled, &err);

    assert_string_equal(r < 0 ? err->code : "", expected);
    error_free(err);
}

static void test_cancel_a_start(void **context)
{
    OK(bed_create(&bed, "{\"technology\":\"fake\",\"name\":\"g\",\"fault\":{\"step\":\"hang-start\"}}", true, NULL,
                  op));
    bed_turn(&bed, 30);
    expect_state("g", "STARTING");
    assert_string_equal(bed_change(&bed, "g", CORE_STOP, NULL, NULL), "OPERATION_IN_PROGRESS");
    cancel(op, "");
    expect_ended(op, "ROLLED_BACK", "CANCELLED");
    expect_state("g", "NOT_INSTANTIATED");
    cancel(op, "CONFLICTING_STATE");
    cancel("01234567-0123-0123-0123-0123456789ab", "OPERATION_NOT_FOUND");
    OK(bed_change(&bed, "g", CORE_START, NULL, op)); /* it hangs again: force removes it all the same */
    bed_turn(&bed, 10);
    OK(bed_terminate(&bed, "g", true, op));
    expect_ended(op, "COMPLETED", "");
    assert_null(bed_instance(&bed, "g"));
}

static void test_cancel_a_stop(void **context)
{
    OK(bed_create(&bed, "{\"technology\":\"fake\",\"name\":\"h\",\"fault\":{\"step\":\"hang-stop\"}}", true, NULL, op));
    expect_ended(op, "COMPLETED", "");
    OK(bed_change(&bed, "h", CORE_STOP, "{\"grace_ms\":60000}", op));
    bed_turn(&bed, 30);
    expect_state("h", "STOPPING");
    cancel(op, "");
    expect_ended(op, "FAILED_TEMP", "CANCELLED");
    expect_state("h", "STARTED");
    OK(bed_terminate(&bed, "h", true, op));
    expect_ended(op, "COMPLETED", "");
}

static void test_exit_without_policy(void **context)
{
    OK(bed_create(
        &bed, "{\"technology\":\"fake\",\"name\":\"i\",\"fault\":{\"step\":\"run\",\"after_ms\":50,\"exit_status\":3}}",
        true, NULL, op));
    expect_ended(op, "COMPLETED", "");
    assert_true(bed_wait_state(&bed, "i", "STOPPED", 2000));
    json_t *json = bed_instance(&bed, "i");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(json, "exit"), "status")), 3);
    assert_int_equal(json_integer_value(json_object_get(json, "restarts")), 0);
    json_decref(json);
    OK(bed_terminate(&bed, "i", false, op));
    expect_ended(op, "COMPLETED", "");
}

struct restarts {
    const char *name;
    int wanted;
};

static bool restarted(void *context)
{
    struct restarts *r = context;
    json_t *json = bed_instance(&bed, r->name);
    bool yes = json_integer_value(json_object_get(json, "restarts")) == r->wanted &&
               strcmp(text_of(json, "state"), "STOPPED") == 0 && json_is_null(json_object_get(json, "operation"));

    json_decref(json);
    return yes;
}

static void test_restart_policy(void **context)
{
    struct restarts three = {"j", 3}, none = {"k", 0};

    OK(bed_create(
        &bed,
        "{\"technology\":\"fake\",\"name\":\"j\",\"fault\":{\"step\":\"run\",\"after_ms\":5,\"exit_status\":1},"
        "\"restart\":{\"policy\":\"on-failure\",\"max\":3,\"backoff\":\"20ms\",\"backoff_max\":\"1s\"}}",
        true, NULL, op));
    uint64_t before = monotonic_ns();
    assert_true(bed_run(&bed, restarted, &three, 5000));
    assert_true(monotonic_ns() - before >= (20 + 40 + 80) * 1000000ull);
    bed_turn(&bed, 300); /* and no fourth */
    assert_true(restarted(&three));
    OK(bed_create(
        &bed,
        "{\"technology\":\"fake\",\"name\":\"k\",\"fault\":{\"step\":\"run\",\"after_ms\":5,\"exit_status\":0},"
        "\"restart\":\"on-failure\"}",
        true, NULL, op));
    expect_ended(op, "COMPLETED", "");
    bed_turn(&bed, 300); /* a good end is no failure */
    assert_true(restarted(&none));
    auto_buffer struct buffer out = {0};
    struct core_filter *filter = core_filter_new();
    assert_int_equal(core_filter_add(filter, "operation", "HEAL", NULL), 0);
    assert_int_equal(core_filter_add(filter, "instance", "j", NULL), 0);
    assert_int_equal(core_render_operations(bed.core, filter, &out, NULL), 0);
    core_filter_free(filter);
    json_t *list = json_loads(out.data, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(list, "items")), 3);
    assert_true(
        json_is_true(json_object_get(json_array_get(json_object_get(list, "items"), 0), "isAutomaticInvocation")));
    json_decref(list);
}

static void test_stop_calls_a_waiting_restart_off(void **context)
{
    OK(bed_create(
        &bed,
        "{\"technology\":\"fake\",\"name\":\"l\",\"fault\":{\"step\":\"run\",\"after_ms\":5,\"exit_status\":1},"
        "\"restart\":{\"policy\":\"always\",\"backoff\":\"30s\",\"backoff_max\":\"60s\"}}",
        true, NULL, op));
    assert_true(bed_wait_state(&bed, "l", "STOPPED", 2000));
    OK(bed_change(&bed, "l", CORE_STOP, NULL, op));
    expect_ended(op, "COMPLETED", "");
    OK(bed_terminate(&bed, "l", false, op));
    expect_ended(op, "COMPLETED", "");
}

static const char *update(const char *name, const char *body)
{
    static char code[64];
    struct operation *updated;
    struct error *err = NULL;
    json_t *json = json_loads(body, 0, NULL);
    int r = core_update(bed.core, core_instance_find(bed.core, name, NULL), json, NULL, &updated, &err);

    json_decref(json);
    snprintf(code, sizeof(code), "%s", r < 0 ? err->code : "");
    if (r == 0)
        strcpy(op, core_operation_id(updated));
    error_free(err);
    return code;
}

static void test_update(void **context)
{
    OK(bed_create(&bed,
                  "{\"technology\":\"fake\",\"name\":\"m\",\"labels\":{\"a\":\"1\",\"b\":\"2\"},\"resources\":{"
                  "\"memory\":\"64MiB\",\"pids\":9}}",
                  true, NULL, op));
    expect_ended(op, "COMPLETED", "");
    OK(update("m", "{\"resources\":{\"cpus\":0.5,\"pids\":null},\"labels\":{\"a\":null,\"c\":\"3\"}}"));
    expect_ended(op, "COMPLETED", "");
    assert_string_equal(update("m", "{\"resources\":{\"storage\":\"1MiB\"}}"), "INVALID_VALUE");
    assert_string_equal(update("m", "{}"), "MISSING_FIELD");
    assert_string_equal(update("m", "{\"resources\":{\"memory\":\"64Mib\"}}"), "INVALID_UNIT");
    bed_shut(&bed); /* and it is so after a restart of the daemon */
    assert_int_equal(bed_reopen(&bed, NULL), 0);
    json_t *json = bed_instance(&bed, "m"), *resources = json_object_get(json, "resources");
    assert_int_equal(json_integer_value(json_object_get(resources, "memory")), 64 << 20);
    assert_true(json_real_value(json_object_get(resources, "cpus")) == 0.5);
    assert_null(json_object_get(resources, "pids"));
    assert_int_equal(json_object_size(json_object_get(json, "labels")), 2);
    assert_string_equal(text_of(json_object_get(json, "labels"), "c"), "3");
    json_decref(json);
    OK(bed_terminate(&bed, "m", true, op));
    expect_ended(op, "COMPLETED", "");
}

struct seen {
    uint64_t last;
    size_t count;
    bool ordered;
};

static void on_event(void *context, const struct core_event *event)
{
    struct seen *seen = context;

    seen->ordered &= event->seq > seen->last;
    seen->last = event->seq;
    seen->count++;
}

static void test_events_keep_their_numbers(void **context)
{
    struct seen seen = {.ordered = true}, again = {.ordered = true};

    assert_int_equal(core_events_follow(bed.core, 0, NULL, on_event, &seen, NULL), 0);
    size_t old = seen.count;
    OK(bed_create(&bed, "{\"technology\":\"fake\",\"name\":\"n\"}", true, NULL, op));
    expect_ended(op, "COMPLETED", "");
    bed_turn(&bed, 50);
    assert_true(seen.ordered && seen.count >= old + 4);
    core_forget(bed.core, &seen);
    bed_shut(&bed);
    assert_int_equal(bed_reopen(&bed, NULL), 0);
    bed_turn(&bed, 50);
    assert_int_equal(core_events_follow(bed.core, seen.last, "n", on_event, &again, NULL), 0);
    core_forget(bed.core, &again);
    assert_true(again.ordered && again.count >= 1); /* the fake lost it: it says so, with higher numbers */
    json_t *json = bed_instance(&bed, "n");
    assert_string_equal(text_of(json, "state"), "FAILED");
    assert_string_equal(text_of(json_object_get(json, "reason"), "code"), "INSTANCE_LOST");
    json_decref(json);
    OK(bed_terminate(&bed, "n", true, op));
    expect_ended(op, "COMPLETED", "");
}

static void test_lost_instances_are_healed_by_policy(void **context)
{
    OK(bed_create(&bed, "{\"technology\":\"fake\",\"name\":\"o\",\"restart\":\"always\"}", true, NULL, op));
    expect_ended(op, "COMPLETED", "");
    bed_shut(&bed);
    assert_int_equal(bed_reopen(&bed, NULL), 0);
    assert_true(bed_wait_state(&bed, "o", "STARTED", 3000));
    bed_turn(&bed, 200);
    assert_true(bed_wait_state(&bed, "o", "STARTED", 3000));
    OK(bed_terminate(&bed, "o", true, op));
    expect_ended(op, "COMPLETED", "");
}

struct answer {
    bool started, exited;
    int status;
    uint32_t exec;
    size_t fds;
    struct instance_stats stats;
    char code[64];
    char text[512];
};

static bool exec_over(void *context)
{
    return ((struct answer *)context)->exited;
}

static void on_exec_started(void *context, uint32_t exec, int *fds, size_t count, const struct error *err)
{
    struct answer *a = context;
    a->started = true;
    a->exec = exec;
    snprintf(a->code, sizeof(a->code), "%s", err ? err->code : "");
    a->exited |= err != NULL;
}

static void on_exec_exited(void *context, int status, const struct error *err)
{
    struct answer *a = context;
    assert_true(a->started);
    a->exited = true;
    a->status = status;
}

static void on_stats(void *context, const struct instance *instance, const struct instance_stats *stats,
                     const struct error *err)
{
    struct answer *a = context;
    assert_null(err);
    a->exited = true;
    a->stats = *stats;
}

static void on_logs(void *context, int *fds, size_t count, const struct error *err)
{
    struct answer *a = context;
    assert_null(err);
    a->exited = true;
    a->fds = count;
    assert_true(read(fds[0], a->text, sizeof(a->text) - 1) > 0);
}

static void test_exec_stats_logs(void **context)
{
    static const struct core_exec_callbacks callbacks = {on_exec_started, on_exec_exited};
    struct answer a = {0}, stats = {0}, logs = {0};
    json_t *body = json_loads("{\"command\":[\"echo\",\"hello\",\"there\"]}", 0, NULL);
    int out[2];
    char text[64] = "";

    OK(bed_create(&bed, "{\"technology\":\"fake\",\"name\":\"p\"}", true, NULL, op));
    expect_ended(op, "COMPLETED", "");
    struct instance *i = core_instance_find(bed.core, "p", NULL);
    assert_int_equal(pipe(out), 0);
    const int fds[3] = {out[0], out[1], out[1]};
    assert_int_equal(core_exec(bed.core, i, body, fds, 3, &callbacks, &a, NULL), 0);
    assert_true(bed_run(&bed, exec_over, &a, 2000));
    assert_int_equal(a.status, 0);
    assert_int_equal(read(out[0], text, sizeof(text)), 12);
    assert_string_equal(text, "hello there\n");
    close(out[0]);
    close(out[1]);
    json_decref(body);
    assert_int_equal(core_stats(bed.core, i, on_stats, &stats, NULL), 0);
    assert_true(bed_run(&bed, exec_over, &stats, 2000));
    assert_true(stats.stats.known & 1 << STAT_MEMORY && stats.stats.memory_bytes > 0);
    assert_int_equal(core_logs(bed.core, i, on_logs, &logs, NULL), 0);
    assert_true(bed_run(&bed, exec_over, &logs, 2000));
    assert_int_equal(logs.fds, 2);
    assert_non_null(strstr(logs.text, " stdout F fake instance started\n"));
    OK(bed_terminate(&bed, "p", true, op));
    expect_ended(op, "COMPLETED", "");
}

static void test_forgotten_clients_hear_nothing(void **context)
{
    struct answer a = {0};

    OK(bed_create(&bed, "{\"technology\":\"fake\",\"name\":\"q\"}", true, NULL, op));
    expect_ended(op, "COMPLETED", "");
    assert_int_equal(core_stats(bed.core, core_instance_find(bed.core, "q", NULL), on_stats, &a, NULL), 0);
    core_forget(bed.core, &a);
    bed_turn(&bed, 50);
    assert_false(a.exited);
    OK(bed_terminate(&bed, "q", true, op));
    expect_ended(op, "COMPLETED", "");
}

static size_t count_of(const struct core_filter *filter)
{
    auto_buffer struct buffer out = {0};

    core_render_instances(bed.core, filter, &out);
    json_t *list = json_loads(out.data, 0, NULL);
    size_t n = json_array_size(json_object_get(list, "items"));
    json_decref(list);
    return n;
}

static void test_filters(void **context)
{
    OK(bed_create(&bed, "{\"technology\":\"fake\",\"name\":\"r1\",\"labels\":{\"tier\":\"a\"}}", true, NULL, op));
    OK(bed_create(&bed, "{\"technology\":\"fake\",\"name\":\"r2\",\"labels\":{\"tier\":\"b\"}}", false, NULL, NULL));
    expect_ended(op, "COMPLETED", "");
    static const struct {
        const char *key, *value;
        size_t count;
    } cases[] = {{"label", "tier=a", 1},    {"label", "tier", 2},          {"label", "-tier=a", 1},
                 {"state", "STARTED", 1},   {"state", "-STARTED", 1},      {"name", "r2", 1},
                 {"technology", "fake", 2}, {"technology", "container", 0}};
    size_t before = count_of(NULL);
    assert_int_equal(before, 2);
    for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
        struct core_filter *filter = core_filter_new();
        assert_int_equal(core_filter_add(filter, cases[k].key, cases[k].value, NULL), 0);
        assert_int_equal(count_of(filter), cases[k].count);
        core_filter_free(filter);
    }
    struct core_filter *filter = core_filter_new();
    struct error *err = NULL;
    assert_true(core_filter_add(filter, "state", "STRATED", &err) < 0);
    assert_non_null(strstr(err->hint, "STARTED"));
    error_free(err);
    core_filter_free(filter);
}

static void test_ten_thousand(void **context)
{
    enum { MANY = 10000 };
    json_t *descriptor = json_loads("{\"technology\":\"fake\"}", 0, NULL);
    uint64_t begun = monotonic_ns();

    for (int k = 0; k < MANY; k++) {
        struct instance *i;
        struct operation *o;
        assert_int_equal(core_create(bed.core, descriptor, true, NULL, &i, &o, NULL), 0);
        if (k % 50 == 49)
            while (sd_event_run(bed.loop, 0) > 0)
                ;
    }
    json_decref(descriptor);
    bed_turn(&bed, 200);
    struct core_filter *started = core_filter_new();
    assert_int_equal(core_filter_add(started, "state", "STARTED", NULL), 0);
    assert_int_equal(count_of(started), MANY);
    print_message("10,000 fakes started in %.1f s\n", (double)(monotonic_ns() - begun) / 1e9);
    auto_buffer struct buffer out = {0};
    begun = monotonic_ns();
    core_render_instances(bed.core, NULL, &out);
    print_message("10,000 listed in %.1f ms, %zu bytes\n", (double)(monotonic_ns() - begun) / 1e6, out.length);
    bed_shut(&bed);
    begun = monotonic_ns();
    assert_int_equal(bed_reopen(&bed, NULL), 0);
    print_message("reopened with them in %.1f ms\n", (double)(monotonic_ns() - begun) / 1e6);
    assert_int_equal(count_of(NULL), MANY);
    core_filter_free(started);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_whole_life),
        TEST(test_create_only_then_start),
        TEST(test_refusals),
        TEST(test_names_and_addresses_are_unique),
        TEST(test_fault_at_start),
        TEST(test_fault_at_stop),
        TEST(test_stop_that_hangs_is_killed),
        TEST(test_cancel_a_start),
        TEST(test_cancel_a_stop),
        TEST(test_exit_without_policy),
        TEST(test_restart_policy),
        TEST(test_stop_calls_a_waiting_restart_off),
        TEST(test_update),
        TEST(test_events_keep_their_numbers),
        TEST(test_lost_instances_are_healed_by_policy),
        TEST(test_exec_stats_logs),
        TEST(test_forgotten_clients_hear_nothing),
        TEST(test_filters),
        TEST(test_ten_thousand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
