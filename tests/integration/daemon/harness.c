/* SPDX-License-Identifier: Apache-2.0 */
/* Drives a core in this process: requests go in, the loop runs until what is waited for has come. */
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "harness.h"

enum { COMMIT_MS = 10000, OPERATION_MS = 20000 };

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    return remove(path);
}

int bed_reopen(struct bed *bed, struct error **err)
{
    char run[128], state[128];
    struct core_options options = {.run_dir = run, .state_dir = state};

    snprintf(run, sizeof(run), "%s/run", bed->dir);
    snprintf(state, sizeof(state), "%s/state", bed->dir);
    assert_true(sd_event_new(&bed->loop) >= 0);
    int r = core_open(bed->loop, &options, &bed->core, err);
    if (r < 0)
        bed->loop = sd_event_unref(bed->loop);
    return r;
}

void bed_open(struct bed *bed, const char *parent)
{
    char path[128];
    struct error *err = NULL;

    *bed = (struct bed){0};
    snprintf(bed->dir, sizeof(bed->dir), "%s/coracle-core-XXXXXX", parent ? parent : "/tmp");
    assert_non_null(mkdtemp(bed->dir));
    snprintf(path, sizeof(path), "%s/run", bed->dir);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof(path), "%s/state", bed->dir);
    assert_int_equal(mkdir(path, 0700), 0);
    if (bed_reopen(bed, &err) < 0)
        fail_msg("core_open: %s", err->message);
    bed_turn(bed, 20);
}

void bed_shut(struct bed *bed)
{
    core_close(bed->core);
    bed->core = NULL;
    bed->loop = sd_event_unref(bed->loop);
}

void bed_close(struct bed *bed)
{
    bed_shut(bed);
    nftw(bed->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

bool bed_run(struct bed *bed, bool (*condition)(void *), void *context, unsigned ms)
{
    uint64_t end = monotonic_ns() + (uint64_t)ms * 1000000;

    while (!(condition && condition(context))) {
        uint64_t now = monotonic_ns();
        if (now >= end)
            return false;
        assert_true(sd_event_run(bed->loop, (end - now) / 1000 + 1) >= 0);
    }
    return true;
}

void bed_turn(struct bed *bed, unsigned ms)
{
    bed_run(bed, NULL, NULL, ms);
}

static bool is_done(void *context)
{
    return ((struct text_error *)context)->done;
}

static void on_done(void *context, const struct error *err)
{
    struct text_error *result = context;

    result->done = true;
    snprintf(result->code, sizeof(result->code), "%s", err ? err->code : "");
}

/* The code of a request's own error, else of its commit. */
static const char *outcome(struct bed *bed, int r, struct error *err)
{
    static struct text_error result;

    result = (struct text_error){0};
    if (r < 0) {
        assert_non_null(err);
        snprintf(result.code, sizeof(result.code), "%s", err->code);
        error_free(err);
        return result.code;
    }
    assert_null(err);
    assert_int_equal(core_commit_then(bed->core, on_done, &result, NULL), 0);
    assert_false(result.done);
    assert_true(bed_run(bed, is_done, &result, COMMIT_MS));
    return result.code;
}

static json_t *parse(const char *text)
{
    json_error_t where;
    json_t *json = json_loads(text, 0, &where);

    if (!json)
        fail_msg("%s at %d: %s", where.text, where.position, text);
    return json;
}

const char *bed_create(struct bed *bed, const char *descriptor, bool start, char *ret_id, char *ret_operation)
{
    struct core_times times = {.arrived_ns = monotonic_ns(), .parsed_ns = monotonic_ns()};
    struct instance *instance = NULL;
    struct operation *op = NULL;
    struct error *err = NULL;
    json_t *json = parse(descriptor);
    int r = core_create(bed->core, json, start, &times, &instance, &op, &err);

    json_decref(json);
    if (r == 0 && ret_id)
        strcpy(ret_id, core_instance_id(instance));
    if (r == 0 && ret_operation)
        strcpy(ret_operation, op ? core_operation_id(op) : "");
    return outcome(bed, r, err);
}

const char *bed_change(struct bed *bed, const char *name, enum core_verb verb, const char *body, char *ret_operation)
{
    struct operation *op = NULL;
    struct error *err = NULL;
    struct instance *instance = core_instance_find(bed->core, name, &err);
    json_t *json = body ? parse(body) : NULL;
    int r = instance ? core_change(bed->core, instance, verb, json, NULL, &op, &err) : -1;

    json_decref(json);
    if (r == 0 && ret_operation)
        strcpy(ret_operation, core_operation_id(op));
    return outcome(bed, r, err);
}

const char *bed_terminate(struct bed *bed, const char *name, bool force, char *ret_operation)
{
    struct operation *op = NULL;
    struct error *err = NULL;
    struct instance *instance = core_instance_find(bed->core, name, &err);
    int r = instance ? core_terminate(bed->core, instance, force, NULL, &op, &err) : -1;

    if (r == 0 && ret_operation)
        strcpy(ret_operation, core_operation_id(op));
    return outcome(bed, r, err);
}

json_t *bed_wait(struct bed *bed, const char *operation)
{
    struct text_error result = {0};
    auto_buffer struct buffer out = {0};
    struct error *err = NULL;

    assert_int_equal(core_operation_wait(bed->core, operation, OPERATION_MS, on_done, &result, NULL), 0);
    assert_true(bed_run(bed, is_done, &result, OPERATION_MS + 1000));
    if (core_render_operation_id(bed->core, operation, &out, &err) < 0)
        fail_msg("operation %s: %s", operation, err->message);
    return parse(out.data);
}

json_t *bed_instance(struct bed *bed, const char *name)
{
    struct instance *instance = core_instance_find(bed->core, name, NULL);
    auto_buffer struct buffer out = {0};

    if (!instance)
        return NULL;
    core_render_instance(bed->core, instance, &out);
    return parse(out.data);
}

struct wait_state {
    struct bed *bed;
    const char *name, *state;
};

static bool in_state(void *context)
{
    struct wait_state *wait = context;
    json_t *json = bed_instance(wait->bed, wait->name);
    bool is = json && strcmp(text_of(json, "state"), wait->state) == 0;

    json_decref(json);
    return is;
}

bool bed_wait_state(struct bed *bed, const char *name, const char *state, unsigned ms)
{
    struct wait_state wait = {bed, name, state};

    return bed_run(bed, in_state, &wait, ms);
}

const char *text_of(const json_t *object, const char *member)
{
    const char *text = json_string_value(json_object_get(object, member));

    return text ? text : "";
}
