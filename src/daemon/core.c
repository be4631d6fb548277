/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The core's beginning and end, finding things, and telling waiting clients. Daemon's one thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/suggest.h"
#include "daemon/internal.h"
#include "daemon/store/store.h"
#include "model/naming.h"
#include "model/spec_parse.h"

enum { ID_PREFIX_MIN = 4 };

uint64_t realtime_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Random bytes by the half kilobyte: one system call serves many ids. */
void core_random(struct core *core, void *ret, size_t n)
{
    if (core->random_used + n > sizeof(core->random)) {
        size_t have = 0;
        while (have < sizeof(core->random)) {
            ssize_t r = getrandom(core->random + have, sizeof(core->random) - have, 0);
            have += r > 0 ? (size_t)r : 0;
        }
        core->random_used = 0;
    }
    memcpy(ret, core->random + core->random_used, n);
    core->random_used += n;
}

void core_new_id(struct core *core, char ret[INSTANCE_ID_SIZE])
{
    uint8_t bytes[16];

    core_random(core, bytes, sizeof(bytes));
    id_generate(bytes, ret);
}

struct error *error_copy(const struct error *from)
{
    struct error *copy = NULL;
    char text[2048];

    if (!from)
        return NULL;
    error_set(&copy, from->errnum > 0 ? from->errnum : EIO, from->code, "%s", error_text(from, text, sizeof(text)));
    for (; from; from = from->cause)
        if (from->hint)
            error_hint(&copy, "%s", from->hint);
    return copy;
}

/* ---- finding */

static int ambiguous(const char *prefix, struct error **err)
{
    error_set(err, EEXIST, "AMBIGUOUS_NAME", "\"%.64s\" begins the id of several instances", prefix);
    error_hint(err, "write more of the id, or the name");
    return -EEXIST;
}

static struct instance *not_found(struct core *core, const char *name, struct error **err)
{
    const char *nearest = NULL;

    for (struct instance *i = core->instances; i; i = i->next)
        suggest_offer(name, i->name, &nearest);
    error_set(err, ENOENT, "INSTANCE_NOT_FOUND", "there is no instance \"%.64s\"", name);
    if (nearest)
        error_hint(err, "did you mean \"%s\"?", nearest);
    error_hint(err, "GET /v1/instances (coracle ps --all) lists them");
    return NULL;
}

struct instance *core_instance_find(struct core *core, const char *name_or_id, struct error **err)
{
    struct instance *found = strmap_get(&core->by_name, name_or_id);
    size_t n = strlen(name_or_id);

    if (!found)
        found = strmap_get(&core->by_id, name_or_id);
    if (found)
        return found;
    for (struct instance *i = core->instances; i && n >= ID_PREFIX_MIN && n < INSTANCE_ID_SIZE; i = i->next) {
        if (strncmp(i->id, name_or_id, n) != 0)
            continue;
        if (found) {
            ambiguous(name_or_id, err);
            return NULL;
        }
        found = i;
    }
    return found ? found : not_found(core, name_or_id, err);
}

const char *core_instance_id(const struct instance *instance)
{
    return instance->id;
}

const char *core_instance_name(const struct instance *instance)
{
    return instance->name;
}

const char *core_network_name(const struct network *network)
{
    return network->name;
}

const char *core_operation_id(const struct operation *op)
{
    return op->id;
}

const char *core_instance_operation(const struct instance *instance)
{
    return instance->operation ? instance->operation->id : NULL;
}

bool core_instance_running(const struct instance *instance)
{
    return instance_state_runs(instance->state);
}

bool core_instance_tty(const struct instance *instance)
{
    return instance->tty;
}

struct executor_slot *instance_slot(struct core *core, const struct instance *instance)
{
    return &core->slots[technology_slot(instance->technology)];
}

/* ---- waiters */

static int on_ready(sd_event_source *source, void *context)
{
    struct core *core = context;

    while (core->ready) {
        struct waiter *w = core->ready;
        core->ready = w->next;
        if (w->done)
            w->done(w->context, w->error);
        error_free(w->error);
        free(w);
    }
    return sd_event_source_set_enabled(core->ready_source, SD_EVENT_OFF);
}

void waiter_finish(struct core *core, struct waiter *w, const struct error *err)
{
    struct waiter **end = &core->ready;

    w->timer = sd_event_source_disable_unref(w->timer);
    w->operation = NULL;
    w->error = error_copy(err);
    w->next = NULL;
    while (*end)
        end = &(*end)->next;
    *end = w;
    sd_event_source_set_enabled(core->ready_source, SD_EVENT_ONESHOT);
}

int core_commit_then(struct core *core, core_done done, void *context, struct error **err)
{
    struct waiter *w = calloc(1, sizeof(*w));

    if (!w)
        return error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
    *w = (struct waiter){.core = core, .done = done, .context = context};
    *core->commit_tail = w;
    core->commit_tail = &w->next;
    flush_soon(core);
    return 0;
}

static void forget_list(struct waiter *list, void *context)
{
    for (; list; list = list->next)
        if (list->context == context)
            list->done = NULL;
}

void core_forget(struct core *core, void *context)
{
    forget_list(core->commit_waiters, context);
    forget_list(core->ready, context);
    for (struct waiter **w = &core->operation_waiters; *w;) {
        struct waiter *gone = *w;
        if (gone->context != context) {
            w = &gone->next;
            continue;
        }
        *w = gone->next;
        sd_event_source_disable_unref(gone->timer);
        free(gone);
    }
    for (struct listener *l = core->listeners; l; l = l->next)
        if (l->context == context)
            l->seen = NULL;
    for (struct call *call = core->calls; call; call = call->next)
        call->forgotten |= call->context == context;
}

/* ---- filters */

struct condition {
    struct condition *next;
    char *value;
    bool negated;
};

enum filter_key { BY_NAME, BY_TECHNOLOGY, BY_STATE, BY_LABEL, BY_IMAGE, BY_INSTANCE, BY_OPERATION, KEY_COUNT };
static const char *const filter_keys[KEY_COUNT] = {"name",  "technology", "state",    "label",
                                                   "image", "instance",   "operation"};

struct core_filter {
    struct condition *conditions[KEY_COUNT];
};

struct core_filter *core_filter_new(void)
{
    return calloc(1, sizeof(struct core_filter));
}

/* A state nobody has would quietly match nothing. */
static int check_filter(enum filter_key key, const char *value, struct error **err)
{
    const char *nearest = NULL;

    if (key == BY_OPERATION && operation_kind_parse(value) < 0)
        return error_set(err, EINVAL, "INVALID_VALUE", "operation: \"%.32s\" is no kind of operation", value);
    if (key == BY_LABEL && *value == '=')
        return error_set(err, EINVAL, "INVALID_VALUE", "label: write key or key=value");
    if (key != BY_STATE || instance_state_parse(value) >= 0 || operation_state_parse(value) >= 0)
        return 0;
    for (int i = 0; i < STATE_COUNT; i++)
        suggest_offer(value, instance_state_name((enum instance_state)i), &nearest);
    for (int i = 0; i < OPERATION_STATE_COUNT; i++)
        suggest_offer(value, operation_state_name((enum operation_state)i), &nearest);
    error_set(err, EINVAL, "INVALID_VALUE", "state: \"%.32s\" is no state", value);
    error_hint(err, "%s%s%s",
               nearest ? "did you mean "
                       : "states of instances: NOT_INSTANTIATED STARTING STARTED PAUSED "
                         "STOPPING STOPPED FAILED",
               nearest ? nearest : "", nearest ? "?" : "");
    return -EINVAL;
}

int core_filter_add(struct core_filter *filter, const char *key, const char *value, struct error **err)
{
    size_t i = 0;
    struct condition *c;
    bool negated = *value == '-';
    int r;

    while (i < KEY_COUNT && strcmp(filter_keys[i], key) != 0)
        i++;
    if (i == KEY_COUNT)
        return error_set(err, EINVAL, "UNKNOWN_PARAMETER", "there is no parameter \"%.32s\" here", key);
    r = check_filter((enum filter_key)i, value + negated, err);
    if (r < 0)
        return r;
    c = calloc(1, sizeof(*c));
    if (!c || !(c->value = strdup(value + negated))) {
        free(c);
        return error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
    }
    c->negated = negated;
    c->next = filter->conditions[i];
    filter->conditions[i] = c;
    return 0;
}

void core_filter_free(struct core_filter *filter)
{
    for (size_t i = 0; filter && i < KEY_COUNT; i++) {
        while (filter->conditions[i]) {
            struct condition *c = filter->conditions[i];
            filter->conditions[i] = c->next;
            free(c->value);
            free(c);
        }
    }
    free(filter);
}

/* Positive ones by "or", negated ones each. alternative may be NULL. */
static bool match_text(const struct condition *c, const char *text, const char *alternative)
{
    bool any = false, positive = false;

    for (; c; c = c->next) {
        bool same = strcmp(c->value, text) == 0 || (alternative && strcmp(c->value, alternative) == 0);
        if (c->negated && same)
            return false;
        positive |= !c->negated;
        any |= !c->negated && same;
    }
    return any || !positive;
}

static bool has_label(const struct instance *i, const char *wanted)
{
    size_t n = strcspn(wanted, "=");

    for (size_t k = 0; k < i->label_count; k++)
        if (strncmp(i->labels[k].key, wanted, n) == 0 && !i->labels[k].key[n] &&
            (!wanted[n] || strcmp(i->labels[k].value, wanted + n + 1) == 0))
            return true;
    return false;
}

static bool match_labels(const struct condition *c, const struct instance *i)
{
    bool any = false, positive = false;

    for (; c; c = c->next) {
        bool has = has_label(i, c->value);
        if (c->negated && has)
            return false;
        positive |= !c->negated;
        any |= !c->negated && has;
    }
    return any || !positive;
}

bool filter_instance(const struct core_filter *f, const struct instance *i)
{
    return !f ||
           (match_text(f->conditions[BY_NAME], i->name, NULL) &&
            match_text(f->conditions[BY_TECHNOLOGY], i->technology->name, NULL) &&
            match_text(f->conditions[BY_STATE], instance_state_name(i->state), NULL) &&
            match_text(f->conditions[BY_IMAGE], i->image, i->image_digest) && match_labels(f->conditions[BY_LABEL], i));
}

bool filter_operation(const struct core_filter *f, const char *instance_id, const char *instance_name, const char *kind,
                      const char *state)
{
    return !f ||
           (match_text(f->conditions[BY_INSTANCE], instance_id, instance_name) &&
            match_text(f->conditions[BY_OPERATION], kind, NULL) && match_text(f->conditions[BY_STATE], state, NULL));
}

/* ---- beginning and end */

static void on_launcher(void *context, const struct host_facts *connected)
{
    struct executor_slot *slot = context;
    struct core *core = slot->core;

    slot->connected = connected != NULL;
    if (connected) {
        core->facts = *connected;
        core->facts_known = true;
        networks_announce(core);
        snapshots_sweep(core);
        slot_adopt(slot);
    } else {
        slot_lost(slot);
    }
}

static int open_launcher(struct core *core, struct error **err)
{
    struct executor_slot *slot = &core->slots[SLOT_LAUNCHER];
    auto_free char *path = NULL;

    *slot = (struct executor_slot){.core = core, .name = "launcher"};
    if (asprintf(&path, "%s/launcher.sock", core->run_dir) < 0) {
        path = NULL;
        return error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
    }
    int r = launcher_client_new(core->loop, path, on_launcher, slot, &slot->executor, err);
    if (r == 0)
        slot->executor->ops->listen(slot->executor, slot_event, slot);
    return r;
}

/* Executors of drivers that carry out by themselves; they are there at once. */
static int open_executors(struct core *core, struct error **err)
{
    core->slot_count = SLOT_DRIVERS;
    for (size_t i = 0; i < technology_count; i++) {
        size_t n = technology_slot(&technologies[i]);
        struct executor_slot *slot = &core->slots[n];

        if (n < core->slot_count)
            continue;
        *slot = (struct executor_slot){.core = core, .name = technologies[i].driver->name, .connected = true};
        int r = technologies[i].driver->make_executor(core->loop, &slot->executor, err);
        if (r < 0)
            return r;
        core->slot_count = n + 1;
        slot->executor->ops->listen(slot->executor, slot_event, slot);
        slot_adopt(slot);
    }
    return 0;
}

static int copy_options(struct core *core, const struct core_options *options)
{
    core->options = *options;
    core->run_dir = strdup(options->run_dir);
    core->state_dir = strdup(options->state_dir);
    core->ipv4_pool = options->ipv4_pool ? strdup(options->ipv4_pool) : NULL;
    core->ipv6_pool = options->ipv6_pool ? strdup(options->ipv6_pool) : NULL;
    if (!core->run_dir || !core->state_dir || (options->ipv4_pool && !core->ipv4_pool) ||
        (options->ipv6_pool && !core->ipv6_pool))
        return -ENOMEM;
    core->options.run_dir = core->run_dir;
    core->options.state_dir = core->state_dir;
    core->options.ipv4_pool = core->ipv4_pool;
    core->options.ipv6_pool = core->ipv6_pool;
    if (!core->options.operation_history)
        core->options.operation_history = 10000;
    return 0;
}

int core_open(sd_event *loop, const struct core_options *options, struct core **ret, struct error **err)
{
    struct core *core = calloc(1, sizeof(*core));
    int r;

    if (!core)
        return error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
    core->loop = sd_event_ref(loop);
    core->events_tail = &core->events;
    core->writes_tail = &core->writes;
    core->commit_tail = &core->commit_waiters;
    core->random_used = sizeof(core->random);
    r = copy_options(core, options);
    if (r == 0)
        r = sd_event_add_defer(loop, &core->ready_source, on_ready, core);
    if (r < 0)
        error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
    else
        sd_event_source_set_enabled(core->ready_source, SD_EVENT_OFF);
    if (r >= 0)
        r = store_open(core->state_dir, &core->store, err);
    if (r >= 0)
        r = persist_load(core, err);
    if (r >= 0)
        r = networks_open(core, err);
    if (r >= 0)
        r = snapshots_open(core, err);
    if (r >= 0)
        r = open_launcher(core, err);
    if (r >= 0)
        r = open_executors(core, err);
    if (r < 0) {
        core_close(core);
        return r;
    }
    core->opened = true;
    *ret = core;
    return 0;
}

static void free_waiters(struct waiter *list)
{
    while (list) {
        struct waiter *next = list->next;
        sd_event_source_disable_unref(list->timer);
        error_free(list->error);
        free(list);
        list = next;
    }
}

static void free_objects(struct core *core)
{
    while (core->operations)
        operation_free(core->operations);
    while (core->instances) {
        struct instance *next = core->instances->next;
        instance_free(core->instances);
        core->instances = next;
    }
    snapshots_close(core);
    while (core->networks) {
        struct network *next = core->networks->next;
        network_free(core->networks);
        core->networks = next;
    }
    while (core->events) {
        struct event *next = core->events->next;
        event_free(core->events);
        core->events = next;
    }
    while (core->calls) {
        struct call *next = core->calls->next;
        free(core->calls);
        core->calls = next;
    }
    while (core->listeners) {
        struct listener *next = core->listeners->next;
        free(core->listeners);
        core->listeners = next;
    }
}

void core_close(struct core *core)
{
    if (!core)
        return;
    if (core->opened) {
        core->reserved_seq = core->next_seq; /* an orderly end leaves no gap in the event numbers */
        core->networks_dirty |= core->next_seq != 0;
        core_flush(core);
    }
    for (size_t i = 0; i < SLOT_MAX; i++) {
        struct executor *executor = core->slots[i].executor;
        if (executor)
            executor->ops->destroy(executor);
        core->slots[i].executor = NULL;
    }
    sd_event_source_disable_unref(core->flush_soon);
    sd_event_source_disable_unref(core->flush_later);
    sd_event_source_disable_unref(core->ready_source);
    free_waiters(core->commit_waiters);
    free_waiters(core->operation_waiters);
    free_waiters(core->ready);
    free_objects(core);
    strmap_clear(&core->by_id);
    strmap_clear(&core->by_name);
    store_close(core->store);
    free(core->removed);
    free(core->run_dir);
    free(core->state_dir);
    free(core->ipv4_pool);
    free(core->ipv6_pool);
    sd_event_unref(core->loop);
    free(core);
}

struct sd_event *core_loop(struct core *core)
{
    return core->loop;
}

const struct core_options *core_get_options(struct core *core)
{
    return &core->options;
}

void core_set_images(struct core *core, const struct image_ops *ops, void *context)
{
    core->images = ops;
    core->images_context = context;
}

/* The guest that its container runs in is its image as much as the container's. */
static bool uses_image(const struct core *core, const struct instance *i, const char *digest)
{
    struct image_view carrier;

    if (i->image_digest && strcmp(i->image_digest, digest) == 0)
        return true;
    return i->technology->carrier && technology_carrier(core, i->technology, &carrier, NULL) == 0 &&
           strcmp(carrier.digest, digest) == 0;
}

size_t core_image_users(struct core *core, const char *digest, const char **ret_name)
{
    size_t n = 0;

    for (struct instance *i = core->instances; i; i = i->next) {
        if (!uses_image(core, i, digest))
            continue;
        if (n++ == 0 && ret_name)
            *ret_name = i->name;
    }
    return n + snapshots_of_image(core, digest, n ? NULL : ret_name);
}

struct sqlite3 *core_database(struct core *core)
{
    return store_database(core->store);
}

int core_write(struct core *core, int (*write)(struct sqlite3 *, void *), core_done cleanup, void *context,
               struct error **err)
{
    struct write_job *job = calloc(1, sizeof(*job));

    if (!job)
        return error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
    *job = (struct write_job){.write = write, .cleanup = cleanup, .context = context};
    *core->writes_tail = job;
    core->writes_tail = &job->next;
    flush_soon(core);
    return 0;
}

int core_launcher_request(struct core *core, enum message_type type, const void *message, const int *fds,
                          size_t fd_count, executor_done done, void *context, struct error **err)
{
    struct executor *executor = core->slots[SLOT_LAUNCHER].executor;

    return executor->ops->request(executor, type, message, fds, fd_count, done, context, NULL, err);
}
