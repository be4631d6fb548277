/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What users ask of instances: checked, put into memory as an operation, begun. Called by the REST layer.
 *
 * A start is the hot path: its START leaves for the executor before anything is written; every other request begins
 * when its operation is committed (operation_committed() in reconcile.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/internal.h"
#include "model/json_read.h"
#include "model/machine.h"
#include "model/naming.h"
#include "model/spec_parse.h"

enum { GRACE_MAX_MS = 3600000, INSTANCE_MAX = 65536 };

static int no_memory(struct error **err)
{
    return error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
}

/* ---- create */

static int check_technology(struct core *core, const struct vnf_spec *spec, const struct technology **ret,
                            struct error **err)
{
    struct technology_state state;
    int r = technology_get(spec->technology, ret, err);

    if (r < 0)
        return r;
    if ((*ret)->guest_kind != GUEST_FAKE && !*spec->image) {
        error_set(err, EINVAL, "MISSING_FIELD", "image: technology %s needs one", spec->technology);
        error_hint(err, "GET /v1/images (coracle images) lists those that are here");
        return -EINVAL;
    }
    if ((*ret)->guest_kind != GUEST_FAKE && (*spec->fault.step || spec->fault.start_ms || spec->fault.after_ms)) {
        error_set(err, EINVAL, "INVALID_VALUE", "fault: only technology fake acts out faults");
        return -EINVAL;
    }
    technology_probe(core, *ret, &state);
    if (!(state.start_modes >> spec->start_mode & 1)) {
        error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "start_mode: technology %s has no %s to start from",
                  spec->technology, start_mode_name(spec->start_mode));
        error_hint(err, "use start_mode auto; GET /v1/host lists those of each technology");
        return -ENOTSUP;
    }
    if (!state.available) {
        bool launcher = !(*ret)->driver->make_executor && !core->facts_known;
        error_set(err, ENOTSUP, launcher ? "LAUNCHER_UNAVAILABLE" : "TECHNOLOGY_UNAVAILABLE",
                  "technology %s cannot run on this host: %s", spec->technology, state.why_not);
        error_hint(err, "%s", state.what_would_help);
        return -ENOTSUP;
    }
    return 0;
}

static int choose_name(struct core *core, struct vnf_spec *spec, struct error **err)
{
    const struct instance *holder = *spec->name ? strmap_get(&core->by_name, spec->name) : NULL;
    uint64_t random;

    if (holder) {
        error_set(err, EEXIST, "NAME_TAKEN", "name: \"%s\" is the name of an instance that is %s", spec->name,
                  instance_state_name(holder->state));
        error_hint(err, "choose another, or remove that one: coracle rm %s", spec->name);
        return -EEXIST;
    }
    while (!*spec->name) {
        core_random(core, &random, sizeof(random));
        name_generate(spec->technology, random, spec->name);
        if (strmap_get(&core->by_name, spec->name))
            *spec->name = '\0';
    }
    return 0;
}

/* Its image's digest is remembered: a tag that moves on later does not change what a restart runs. */
static int choose_image(struct core *core, const struct vnf_spec *spec, struct instance *i, struct error **err)
{
    struct image_view image;

    if (i->technology->guest_kind == GUEST_FAKE)
        return 0;
    if (!core->images)
        return error_set(err, ENOENT, "IMAGE_NOT_FOUND", "this daemon was built without an image store");
    int r = core->images->find(core->images_context, spec->image, i->technology, &image, err);
    if (r < 0)
        return r;
    i->image_digest = strdup(image.digest);
    return i->image_digest ? 0 : no_memory(err);
}

/* Everything that can fail before the instance is in a table. */
static int make_instance(struct core *core, struct vnf_spec *spec, struct instance **ret, struct error **err)
{
    const struct technology *technology;
    struct instance *i;
    int r = check_technology(core, spec, &technology, err);

    if (r == 0)
        r = choose_name(core, spec, err);
    if (r < 0)
        return r;
    if (core->instance_count >= INSTANCE_MAX)
        return error_set(err, ENOSPC, "TOO_MANY_REQUESTS", "there are %d instances, the bound of one host",
                         INSTANCE_MAX);
    i = instance_new(spec, technology);
    if (!i)
        return no_memory(err);
    core_new_id(core, i->id);
    r = choose_image(core, spec, i, err);
    if (r == 0)
        r = networks_take(core, spec, &i->nics, err);
    if (r < 0) {
        instance_free(i);
        return r;
    }
    i->nic_count = spec->network_count;
    r = core_add_instance(core, i);
    if (r < 0) {
        networks_give(core, i->nics, i->nic_count);
        instance_free(i);
        return no_memory(err);
    }
    *ret = i;
    return 0;
}

/* Plans, and begins the start when it is wanted; op is NULL for a create alone. */
static int plan_and_start(struct core *core, struct instance *i, const struct vnf_spec *spec, struct operation *op,
                          struct error **err)
{
    struct launch_plan plan = {0};
    uint64_t begun = monotonic_ns();
    int r = instance_plan(core, i, spec, &plan, err);

    if (r == 0 && op) {
        steps_add(&op->steps, "plan", begun, monotonic_ns());
        r = operation_advance(core, op, &plan, err);
    }
    plan_clear(&plan);
    return r;
}

static struct operation *begin(struct core *core, enum operation_kind kind, struct instance *i, enum stage stage,
                               const char *change_to, const struct core_times *times)
{
    struct operation *op = operation_new(core, kind, i, times);

    if (!op)
        return NULL;
    op->stage = stage;
    op->change_to = change_to;
    op->uncommitted = true;
    i->operation = op;
    return op;
}

/* Behind the send: what the rest of the world is told, and the disk. */
static void announce(struct core *core, struct instance *i, struct operation *op)
{
    if (op) {
        if (op->state == OPERATION_STARTING && op->sent)
            operation_enter(core, op, OPERATION_PROCESSING);
        mark_operation(core, op);
        event_operation(core, "operation.started", op);
    }
    mark_instance(core, i);
    flush_soon(core);
}

static int create(struct core *core, const json_t *descriptor, struct vnf_spec *spec, bool start,
                  const char *snapshot, const struct core_times *times, struct instance **ret, struct operation **ret_op, struct error **err)
{
    uint64_t begun = monotonic_ns();
    struct operation *op = NULL;
    struct instance *i = NULL;
    int r = make_instance(core, spec, &i, err);

    if (r < 0)
        return r;
    snprintf(i->snapshot, sizeof(i->snapshot), "%s", snapshot);
    if (start) {
        op = begin(core, OPERATION_INSTANTIATE, i, STAGE_START, NULL, times);
        if (!op)
            r = no_memory(err);
        else
            steps_add(&op->steps, "validate", times && times->parsed_ns ? times->parsed_ns : begun, monotonic_ns());
        i->wanted = WANTED_STARTED;
    }
    if (r == 0)
        r = plan_and_start(core, i, spec, op, err);
    if (r == 0 && !(i->spec_json = json_dumps(descriptor, JSON_COMPACT | JSON_REAL_PRECISION(15))))
        r = no_memory(err);
    if (r < 0) {
        if (op && op->sent) /* memory ran out behind the send: as if the store had failed */
            operation_undo(core, op, err ? *err : NULL);
        else if (op)
            operation_free(op);
        events_drop(core, i->id, NULL);
        core_drop_instance(core, i);
        return r;
    }
    core->counters.created++;
    event_instance(core, "instance.created", i, NULL);
    announce(core, i, op);
    *ret = i;
    *ret_op = op;
    return 0;
}

static int create_parsed(struct core *core, const json_t *descriptor, bool start, const char *snapshot,
                         const struct core_times *times, struct instance **ret_instance,
                         struct operation **ret_operation, struct error **err)
{
    struct vnf_spec spec;
    struct error *local = NULL;
    int r = spec_parse(descriptor, &spec, err);

    if (r < 0)
        return r;
    r = create(core, descriptor, &spec, start, snapshot, times, ret_instance, ret_operation, err ? err : &local);
    error_free(local);
    spec_clear(&spec);
    return r;
}

int core_create(struct core *core, const json_t *descriptor, bool start, const struct core_times *times,
                struct instance **ret_instance, struct operation **ret_operation, struct error **err)
{
    return create_parsed(core, descriptor, start, "", times, ret_instance, ret_operation, err);
}

int core_create_from(struct core *core, const json_t *descriptor, const char *snapshot, const struct core_times *times,
                     struct instance **ret, struct operation **ret_op, struct error **err)
{
    return create_parsed(core, descriptor, true, snapshot, times, ret, ret_op, err);
}

/* ---- check */

/* As make_instance(), but for the table. */
static int check_spec(struct core *core, struct vnf_spec *spec, struct instance *present, struct error **err)
{
    const struct technology *technology;
    struct launch_plan plan = {0};
    struct instance *i;
    int r = check_technology(core, spec, &technology, err);

    if (r < 0)
        return r;
    i = instance_new(spec, technology);
    if (!i)
        return no_memory(err);
    core_new_id(core, i->id);
    for (size_t n = 0; present && n < spec->network_count; n++) { /* what it asks for it may hold already */
        spec->networks[n].ipv4 = (struct in_addr){0};
        spec->networks[n].ipv6 = (struct in6_addr){0};
    }
    r = choose_image(core, spec, i, err);
    if (r == 0)
        r = networks_take(core, spec, &i->nics, err);
    if (r == 0) {
        i->nic_count = spec->network_count;
        r = instance_plan(core, i, spec, &plan, err);
        networks_give(core, i->nics, i->nic_count);
    }
    plan_clear(&plan);
    instance_free(i);
    return r;
}

int core_check(struct core *core, const json_t *descriptor, struct instance **ret_present, struct error **err)
{
    struct instance *present;
    struct error *local = NULL;
    struct vnf_spec spec;
    int r = spec_parse(descriptor, &spec, err);

    if (r < 0)
        return r;
    present = *spec.name ? strmap_get(&core->by_name, spec.name) : NULL;
    if (!present)
        r = choose_name(core, &spec, err ? err : &local);
    if (r == 0)
        r = check_spec(core, &spec, present, err ? err : &local);
    error_free(local);
    spec_clear(&spec);
    if (r == 0)
        *ret_present = present;
    return r;
}

/* ---- change */

static int busy(const struct instance *i, struct error **err)
{
    error_set(err, EBUSY, "OPERATION_IN_PROGRESS", "\"%s\" is in operation %s (%s)", i->name,
              operation_kind_name(i->operation->kind), i->operation->id);
    error_hint(err, "wait for it (GET /v1/operations/%s?wait_ms=10000) or cancel it", i->operation->id);
    return -EBUSY;
}

/* A restart that only waits for its time gives way to what the user says. Returns whether there was one. */
static bool call_off_heal(struct core *core, struct instance *i)
{
    auto_error struct error *why = NULL;
    struct operation *op = i->operation;

    if (!op || op->stage != STAGE_BACKOFF)
        return false;
    error_set(&why, ECANCELED, "CANCELLED", "the waiting restart gave way to a request");
    operation_end(core, op, OPERATION_ROLLED_BACK, why);
    return true;
}

static int wrong_state(const struct instance *i, const char *verb, const char *hint, struct error **err)
{
    error_set(err, EBUSY, "CONFLICTING_STATE", "\"%s\" is %s: %s is not possible", i->name,
              instance_state_name(i->state), verb);
    error_hint(err, "%s", hint);
    return -EBUSY;
}

static int need_verb(const struct instance *i, uint32_t bit, const char *verb, struct error **err)
{
    if (i->technology->driver->verbs & bit)
        return 0;
    return error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "technology %s has no %s", i->technology->name, verb);
}

static int body_grace(void *target, const json_t *v, const char *path, struct error **err)
{
    uint64_t ms;
    int r = json_read_u64(v, path, 0, GRACE_MAX_MS, &ms, err);

    if (r == 0)
        *(int64_t *)target = (int64_t)ms;
    return r;
}

static int read_grace(const struct instance *i, const json_t *body, bool takes_grace, uint32_t *ret, struct error **err)
{
    static const struct json_field fields[] = {{"grace_ms", body_grace}};
    int64_t grace = -1;

    if (body && !json_is_null(body)) {
        int r = json_read_object(body, "", fields, takes_grace ? 1 : 0, &grace, err);
        if (r < 0)
            return r;
    }
    *ret = grace < 0 ? i->stop_grace_ms : (uint32_t)grace;
    return 0;
}

static const struct change_rule {
    const char *verb;
    uint32_t states; /* bit set of enum instance_state */
    uint32_t driver_verb;
    enum stage stage;
    const char *change_to;
    enum wanted wanted;
    bool takes_grace;
    const char *hint;
} rules[] = {
#define IN(state) (1u << STATE_##state)
    [CORE_START] = {"start", IN(NOT_INSTANTIATED) | IN(STOPPED) | IN(FAILED), 0, STAGE_START, "STARTED", WANTED_STARTED,
                    false, "it runs already; restart it if it should begin anew"},
    [CORE_STOP] = {"stop", IN(STARTED) | IN(PAUSED), VERB_STOP, STAGE_STOP, "STOPPED", WANTED_STOPPED, true,
                   "only an instance that runs can be stopped"},
    [CORE_RESTART] = {"restart", IN(STARTED) | IN(PAUSED) | IN(STOPPED) | IN(FAILED), VERB_STOP, STAGE_STOP, "STARTED",
                      WANTED_STARTED, true, "start it first"},
    [CORE_PAUSE] = {"pause", IN(STARTED), VERB_PAUSE, STAGE_PAUSE, "PAUSED", WANTED_PAUSED, false,
                    "only a started instance can be paused"},
    [CORE_RESUME] = {"resume", IN(PAUSED), VERB_PAUSE, STAGE_RESUME, "STARTED", WANTED_STARTED, false,
                     "only a paused instance can be resumed"},
#undef IN
};

static int start_stored(struct core *core, struct instance *i, struct operation *op, struct error **err)
{
    struct technology_state state;
    struct vnf_spec spec;
    int r;

    technology_probe(core, i->technology, &state);
    if (!state.available) {
        error_set(err, ENOTSUP, core->facts_known ? "TECHNOLOGY_UNAVAILABLE" : "LAUNCHER_UNAVAILABLE",
                  "technology %s cannot run on this host: %s", i->technology->name, state.why_not);
        error_hint(err, "%s", state.what_would_help);
        return -ENOTSUP;
    }
    r = instance_spec(i, &spec, err);
    if (r < 0)
        return r;
    r = plan_and_start(core, i, &spec, op, err);
    spec_clear(&spec);
    return r;
}

int core_change(struct core *core, struct instance *i, enum core_verb verb, const json_t *body,
                const struct core_times *times, struct operation **ret, struct error **err)
{
    const struct change_rule *rule = &rules[verb];
    struct operation *op;
    uint32_t grace;
    int r = read_grace(i, body, rule->takes_grace, &grace, err);

    if (r == 0 && rule->driver_verb)
        r = need_verb(i, rule->driver_verb, rule->verb, err);
    if (r < 0)
        return r;
    bool healing = i->operation && i->operation->stage == STAGE_BACKOFF;
    if (i->operation && !healing)
        return busy(i, err);
    if (!(rule->states >> i->state & 1) && !(healing && verb == CORE_STOP))
        return wrong_state(i, rule->verb, rule->hint, err);
    call_off_heal(core, i);
    op = begin(core,
               verb == CORE_START && i->state == STATE_NOT_INSTANTIATED ? OPERATION_INSTANTIATE : OPERATION_OPERATE, i,
               rule->stage, rule->change_to, times);
    if (!op)
        return no_memory(err);
    if (op->kind == OPERATION_INSTANTIATE)
        op->change_to = NULL;
    op->is_restart = verb == CORE_RESTART;
    op->grace_ms = grace;
    if (op->is_restart && !instance_state_runs(i->state))
        op->stage = STAGE_START;
    i->wanted = rule->wanted;
    if (verb == CORE_START)
        i->restarts_in_a_row = 0;
    if (op->stage == STAGE_START)
        r = start_stored(core, i, op, err);
    if (r < 0) {
        i->wanted = op->wanted_before;
        operation_free(op);
        return r;
    }
    announce(core, i, op);
    *ret = op;
    return 0;
}

/* ---- update */

struct update_body {
    struct limits limits;
    const json_t *labels;
    bool any;
};

static int update_resources(void *target, const json_t *v, const char *path, struct error **err)
{
    ((struct update_body *)target)->any = true;
    return limits_parse(v, path, &((struct update_body *)target)->limits, err);
}

static int update_labels(void *target, const json_t *v, const char *path, struct error **err)
{
    if (!json_is_object(v))
        return error_set(err, EINVAL, "INVALID_VALUE", "%s: expected an object, found %s", path, json_type_words(v));
    ((struct update_body *)target)->any = true;
    ((struct update_body *)target)->labels = v;
    return 0;
}

static const struct json_field update_fields[] = {{"resources", update_resources}, {"labels", update_labels}};

/* RFC 7396: given labels are set, those that are null go. */
static int merge_labels(const struct instance *i, const json_t *given, struct spec_pair **ret, size_t *ret_count,
                        struct error **err)
{
    json_t *merged = json_object(), *value;
    const char *key;
    int r = merged ? 0 : no_memory(err);

    for (size_t k = 0; k < i->label_count && r == 0; k++)
        if (json_object_set_new(merged, i->labels[k].key, json_string(i->labels[k].value)) < 0)
            r = no_memory(err);
    json_object_foreach((json_t *)given, key, value)
    {
        if (json_is_null(value))
            json_object_del(merged, key);
        else if (r == 0 && json_object_set(merged, key, value) < 0)
            r = no_memory(err);
    }
    if (r == 0)
        r = labels_parse(merged, "labels", ret, ret_count, err);
    json_decref(merged);
    return r;
}

static bool grows(const struct plan_machine *now, const struct plan_machine *wanted)
{
    return wanted->vcpus > now->vcpus || wanted->memory_bytes > now->memory_bytes;
}

/* The technology's own word on whether these limits can be enforced here, and on a machine that runs. */
static int check_limits(struct core *core, struct instance *i, const struct limits *limits, struct error **err)
{
    struct launch_plan now = {0}, plan = {0};
    struct vnf_spec spec;
    int r;

    if (limits->storage_bytes != i->limits.storage_bytes) {
        error_set(err, EINVAL, "INVALID_VALUE",
                  "resources.storage: the size of the writable layer is fixed for its life");
        error_hint(err, "remove the instance and create it with another");
        return -EINVAL;
    }
    r = instance_spec(i, &spec, err);
    if (r < 0)
        return r;
    spec.limits = i->limits;
    r = instance_state_runs(i->state) ? instance_plan(core, i, &spec, &now, err) : 0;
    spec.limits = *limits;
    if (r == 0)
        r = instance_plan(core, i, &spec, &plan, err);
    if (r == 0 && now.kind == PLAN_MACHINE)
        r = machine_check_growth(&now.machine, &plan.machine, err);
    if (r == 0 && now.kind == PLAN_MACHINE && i->state == STATE_PAUSED && grows(&now.machine, &plan.machine))
        r = wrong_state(i, "a larger machine", "resume it first: coracle resume", err);
    plan_clear(&now);
    plan_clear(&plan);
    spec_clear(&spec);
    return r;
}

int core_update(struct core *core, struct instance *i, const json_t *body, const struct core_times *times,
                struct operation **ret, struct error **err)
{
    struct update_body update = {.limits = i->limits};
    struct spec_pair *labels = NULL;
    size_t label_count = 0;
    struct operation *op;
    int r = json_read_object(body, "", update_fields, 2, &update, err);

    if (r == 0 && !update.any)
        r = error_set(err, EINVAL, "MISSING_FIELD", "body: neither resources nor labels are given");
    if (r == 0)
        r = need_verb(i, VERB_UPDATE, "update", err);
    if (r == 0 && i->operation)
        r = busy(i, err);
    if (r == 0)
        r = check_limits(core, i, &update.limits, err);
    if (r == 0 && update.labels)
        r = merge_labels(i, update.labels, &labels, &label_count, err);
    if (r < 0)
        return r;
    op = begin(core, OPERATION_MODIFY_INFO, i, STAGE_UPDATE, NULL, times);
    if (!op) {
        pairs_free(labels, label_count);
        return no_memory(err);
    }
    i->limits = update.limits;
    if (labels) {
        op->labels_before = i->labels;
        op->label_count_before = i->label_count;
        i->labels = labels;
        i->label_count = label_count;
    }
    announce(core, i, op);
    *ret = op;
    return 0;
}

/* ---- terminate, cancel */

/* With force, what is under way ends here; its late answers are dropped, the release takes what it made. */
static void supersede(struct core *core, struct instance *i)
{
    auto_error struct error *why = NULL;
    struct operation *op = i->operation;

    error_set(&why, ECANCELED, "CANCELLED", "the instance is removed with force");
    operation_request_cancel(core, op, NULL);
    if (i->operation == op)
        operation_end(core, op, op->state == OPERATION_ROLLING_BACK ? OPERATION_ROLLED_BACK : OPERATION_FAILED, why);
    operation_settle(op);
}

int core_terminate(struct core *core, struct instance *i, bool force, const struct core_times *times,
                   struct operation **ret, struct error **err)
{
    struct operation *op;

    call_off_heal(core, i);
    if (i->operation && (i->operation->kind == OPERATION_TERMINATE || !force || i->operation->uncommitted))
        return busy(i, err);
    if (instance_state_runs(i->state) && !force)
        return wrong_state(i, "remove", "stop it first, or remove it with force", err);
    if (i->operation)
        supersede(core, i);
    op = begin(core, OPERATION_TERMINATE, i, STAGE_RELEASE, NULL, times);
    if (!op)
        return no_memory(err);
    i->wanted = WANTED_GONE;
    announce(core, i, op);
    *ret = op;
    return 0;
}

int core_cancel(struct core *core, const char *operation_id, struct operation **ret, struct error **err)
{
    struct operation *op = operation_find(core, operation_id);
    auto_buffer struct buffer past = {0};

    if (!op) {
        int r = core_render_operation_id(core, operation_id, &past, err);
        if (r < 0)
            return r;
    }
    if (!op || operation_state_ended(op->state))
        return error_set(err, EBUSY, "CONFLICTING_STATE", "operation %s has ended", operation_id);
    if (op->cancel_pending)
        return error_set(err, EBUSY, "CONFLICTING_STATE", "operation %s is being cancelled already", operation_id);
    int r = operation_request_cancel(core, op, err);
    if (r == 0)
        *ret = op;
    return r;
}
