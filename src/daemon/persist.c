/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between memory and the store: what became dirty is written in one transaction, and read back at the start.
 *
 * Theory of operation: requests mark what they changed and ask for a flush at the end of this turn of the loop; the
 * reconciler's observations ask for one within 10 ms (they can be observed again, so they cost no flush of their own).
 * A flush that fails leaves nothing of it on the disk: requests not yet committed are undone in memory and their
 * callers told; observations stay dirty and are tried again. Daemon's thread.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/internal.h"
#include "daemon/store/store.h"
#include "model/codes.h"
#include "model/spec_parse.h"

enum {
    LATER_MS = 10,
    RETRY_MS = 1000,
    SOON_MAX_NS = 2000000, /* a request waits at most this long for others to share its commit */
    SEQ_BLOCK = 100000,
    EVENT_HISTORY = 10000,
    TRIM_EVERY = 256,
};

/* ---- marks */

void mark_instance(struct core *core, struct instance *i)
{
    if (i->dirty)
        return;
    i->dirty = true;
    i->next_dirty = core->dirty_instances;
    core->dirty_instances = i;
    flush_later(core);
}

void unmark_instance(struct core *core, struct instance *i)
{
    for (struct instance **d = &core->dirty_instances; *d; d = &(*d)->next_dirty) {
        if (*d == i) {
            *d = i->next_dirty;
            break;
        }
    }
    i->dirty = false;
}

void mark_operation(struct core *core, struct operation *op)
{
    if (op->dirty)
        return;
    op->dirty = true;
    op->next_dirty = core->dirty_operations;
    core->dirty_operations = op;
    flush_later(core);
}

int mark_removed(struct core *core, const char *id)
{
    if (core->removed_count == core->removed_capacity) {
        size_t capacity = core->removed_capacity ? core->removed_capacity * 2 : 16;
        void *list = realloc(core->removed, capacity * sizeof(*core->removed));
        if (!list)
            return -ENOMEM;
        core->removed = list;
        core->removed_capacity = capacity;
    }
    memcpy(core->removed[core->removed_count++], id, INSTANCE_ID_SIZE);
    flush_later(core);
    return 0;
}

/* ---- when */

static int on_flush_soon(sd_event_source *source, void *context)
{
    struct core *core = context;

    sd_event_source_set_enabled(core->flush_soon, SD_EVENT_OFF);
    core_flush(core);
    return 0;
}

static int on_flush_later(sd_event_source *source, uint64_t usec, void *context)
{
    core_flush(context);
    return 0;
}

void flush_soon(struct core *core)
{
    uint64_t now = monotonic_ns();

    if (!core->flush_soon) {
        if (sd_event_add_defer(core->loop, &core->flush_soon, on_flush_soon, core) < 0)
            return; /* flush_later() still comes */
        sd_event_source_set_enabled(core->flush_soon, SD_EVENT_OFF);
    }
    if (!core->flush_asked_ns) {
        core->flush_asked_ns = now;
        /* behind all other work of this turn, so that requests that came together share one commit */
        sd_event_source_set_priority(core->flush_soon, SD_EVENT_PRIORITY_IDLE);
        sd_event_source_set_enabled(core->flush_soon, SD_EVENT_ONESHOT);
    } else if (now - core->flush_asked_ns > SOON_MAX_NS) {
        sd_event_source_set_priority(core->flush_soon, SD_EVENT_PRIORITY_IMPORTANT);
    }
}

static void flush_in(struct core *core, uint64_t ms)
{
    int enabled = SD_EVENT_OFF;

    if (core->flush_later)
        sd_event_source_get_enabled(core->flush_later, &enabled);
    if (enabled != SD_EVENT_OFF)
        return;
    if (!core->flush_later)
        sd_event_add_time_relative(core->loop, &core->flush_later, CLOCK_MONOTONIC, ms * 1000, 1000, on_flush_later,
                                   core);
    else if (sd_event_source_set_time_relative(core->flush_later, ms * 1000) >= 0)
        sd_event_source_set_enabled(core->flush_later, SD_EVENT_ONESHOT);
}

void flush_later(struct core *core)
{
    flush_in(core, LATER_MS);
}

/* ---- writing */

static void bind_text(sqlite3_stmt *s, int position, const char *text)
{
    if (text)
        sqlite3_bind_text(s, position, text, -1, SQLITE_STATIC);
    else
        sqlite3_bind_null(s, position);
}

static void bind_number(sqlite3_stmt *s, int position, uint64_t value)
{
    sqlite3_bind_int64(s, position, (sqlite3_int64)value);
}

static int write_nics(struct core *core, const struct instance *i)
{
    for (size_t k = 0; k < i->nic_count; k++) {
        const struct plan_nic *nic = &i->nics[k];
        sqlite3_stmt *s = store_statement(core->store, PUT_NIC);
        char four[INET_ADDRSTRLEN], six[INET6_ADDRSTRLEN], mac[18];

        snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", nic->mac[0], nic->mac[1], nic->mac[2], nic->mac[3],
                 nic->mac[4], nic->mac[5]);
        bind_text(s, 1, i->id);
        bind_number(s, 2, k);
        bind_text(s, 3, nic->link);
        bind_text(s, 4, mac);
        bind_text(s, 5, nic->prefix4 ? inet_ntop(AF_INET, &nic->ipv4, four, sizeof(four)) : NULL);
        bind_text(s, 6, nic->prefix6 ? inet_ntop(AF_INET6, &nic->ipv6, six, sizeof(six)) : NULL);
        int result = store_run(s);
        if (result != SQLITE_OK)
            return result;
    }
    return SQLITE_OK;
}

static void labels_text(const struct instance *i, struct buffer *out)
{
    buffer_char(out, '{');
    for (size_t k = 0; k < i->label_count; k++) {
        if (k)
            buffer_char(out, ',');
        buffer_json(out, i->labels[k].key);
        buffer_char(out, ':');
        buffer_json(out, i->labels[k].value);
    }
    buffer_char(out, '}');
}

static int write_instance(struct core *core, const struct instance *i)
{
    sqlite3_stmt *s = store_statement(core->store, PUT_INSTANCE);
    auto_buffer struct buffer resources = {0}, labels = {0};

    limits_render(&i->limits, &resources);
    labels_text(i, &labels);
    if (resources.failed || labels.failed)
        return SQLITE_NOMEM;
    bind_text(s, 1, i->id);
    bind_text(s, 2, i->name);
    bind_text(s, 3, i->technology->name);
    bind_text(s, 4, i->spec_json);
    bind_text(s, 5, resources.data);
    bind_text(s, 6, labels.data);
    bind_text(s, 7, i->image_digest);
    bind_number(s, 8, i->wanted);
    bind_number(s, 9, i->state);
    bind_text(s, 10, i->reason_code);
    bind_text(s, 11, i->reason_message);
    bind_number(s, 12, (uint64_t)i->pid);
    bind_number(s, 13, i->uid_base);
    bind_number(s, 14, i->origin);
    bind_number(s, 15, i->exited);
    bind_number(s, 16, i->exit_known);
    bind_number(s, 17, i->exit_oom);
    sqlite3_bind_int64(s, 18, i->exit_status);
    bind_number(s, 19, i->exited_at_ns);
    bind_number(s, 20, i->restarts);
    bind_number(s, 21, i->created_ns);
    bind_number(s, 22, i->started_ns);
    bind_number(s, 23, i->held);
    int result = store_run(s);
    return result == SQLITE_OK && !i->stored ? write_nics(core, i) : result;
}

static int write_operation(struct core *core, const struct operation *op)
{
    sqlite3_stmt *s = store_statement(core->store, PUT_OPERATION);
    auto_buffer struct buffer json = {0};

    core_render_operation(core, op, &json);
    if (json.failed)
        return SQLITE_NOMEM;
    bind_text(s, 1, op->id);
    bind_text(s, 2, *op->instance_id ? op->instance_id : NULL);
    bind_text(s, 3, *op->instance_name ? op->instance_name : NULL);
    bind_text(s, 4, operation_kind_name(op->kind));
    bind_text(s, 5, operation_state_name(op->state));
    bind_text(s, 6, op->change_to);
    bind_number(s, 7, op->is_restart);
    bind_number(s, 8, op->automatic);
    bind_number(s, 9, op->stage);
    bind_number(s, 10, op->grace_ms);
    bind_number(s, 11, op->start_time_ns);
    bind_number(s, 12, operation_state_ended(op->state));
    bind_text(s, 13, json.data);
    return store_run(s);
}

static int write_events(struct core *core)
{
    int result = SQLITE_OK;

    for (struct event *e = core->events; e && result == SQLITE_OK; e = e->next) {
        sqlite3_stmt *s = store_statement(core->store, PUT_EVENT);
        bind_number(s, 1, e->seq);
        bind_text(s, 2, *e->instance ? e->instance : NULL);
        bind_text(s, 3, e->type);
        sqlite3_bind_text(s, 4, e->json, (int)e->length, SQLITE_STATIC);
        result = store_run(s);
    }
    return result;
}

static int write_removed(struct core *core)
{
    static const enum statement both[] = {DELETE_NICS, DELETE_INSTANCE};
    int result = SQLITE_OK;

    for (size_t i = 0; i < 2 * core->removed_count && result == SQLITE_OK; i++) {
        sqlite3_stmt *s = store_statement(core->store, both[i % 2]);
        bind_text(s, 1, core->removed[i / 2]);
        result = store_run(s);
    }
    return result;
}

static int write_networks(struct core *core)
{
    int result = SQLITE_OK;

    for (struct network *n = core->networks; n && result == SQLITE_OK; n = n->next) {
        char four[INET6_ADDRSTRLEN + 5], six[INET6_ADDRSTRLEN + 5];
        if (!n->dirty)
            continue;
        sqlite3_stmt *s = store_statement(core->store, n->removed ? DELETE_NETWORK : PUT_NETWORK);
        bind_text(s, 1, n->name);
        if (!n->removed) {
            network_cidr(n, four, six);
            bind_text(s, 2, four);
            bind_text(s, 3, six);
            bind_number(s, 4, n->mtu);
            bind_number(s, 5, n->uplink);
        }
        result = store_run(s);
    }
    return result;
}

static int write_meta(struct core *core, const char *key, uint64_t value)
{
    sqlite3_stmt *s = store_statement(core->store, PUT_META);

    bind_text(s, 1, key);
    bind_number(s, 2, value);
    return store_run(s);
}

/* Numbers for events are reserved a block ahead, so that a killed daemon never gives one out twice. */
static int write_seq(struct core *core, uint64_t *ret_reserved)
{
    if (core->next_seq < core->reserved_seq && core->reserved_seq - core->next_seq > SEQ_BLOCK / 2) {
        *ret_reserved = core->reserved_seq;
        return SQLITE_OK;
    }
    *ret_reserved = core->reserved_seq == core->next_seq ? core->next_seq : core->next_seq + SEQ_BLOCK;
    return write_meta(core, "event_seq", *ret_reserved);
}

static int trim(struct core *core)
{
    int result = SQLITE_OK;

    if (core->operations_written >= TRIM_EVERY) {
        sqlite3_stmt *s = store_statement(core->store, TRIM_OPERATIONS);
        bind_number(s, 1, core->options.operation_history);
        result = store_run(s);
        core->operations_written = 0;
    }
    if (result == SQLITE_OK && core->events_written >= TRIM_EVERY) {
        sqlite3_stmt *s = store_statement(core->store, TRIM_EVENTS);
        bind_number(s, 1, EVENT_HISTORY);
        result = store_run(s);
        core->events_written = 0;
    }
    return result;
}

static int write_jobs(struct core *core)
{
    int result = SQLITE_OK;

    for (struct write_job *job = core->writes; job && result == SQLITE_OK; job = job->next)
        result = job->write(store_database(core->store), job->context);
    return result;
}

/* Removed ones first: their names and addresses may be taken anew in the same transaction. */
static int write_all(struct core *core, uint64_t *ret_reserved)
{
    int result = write_removed(core);

    if (result == SQLITE_OK && core->networks_dirty)
        result = write_networks(core);
    for (struct instance *i = core->dirty_instances; i && result == SQLITE_OK; i = i->next_dirty)
        result = write_instance(core, i);
    for (struct operation *op = core->dirty_operations; op && result == SQLITE_OK;
         op = op->next_dirty, core->operations_written++)
        result = write_operation(core, op);
    if (result == SQLITE_OK)
        result = write_events(core);
    core->events_written += core->event_count;
    if (result == SQLITE_OK)
        result = write_seq(core, ret_reserved);
    if (result == SQLITE_OK)
        result = trim(core);
    return result == SQLITE_OK ? write_jobs(core) : result;
}

static int commit(struct core *core, struct error **err)
{
    uint64_t reserved = 0;
    int result = store_begin(core->store);

    if (result == SQLITE_OK)
        result = write_all(core, &reserved);
    if (result == SQLITE_OK)
        result = store_commit(core->store);
    if (result != SQLITE_OK) {
        int r = store_error(core->store, result, "writing", err);
        store_rollback(core->store);
        return r;
    }
    core->reserved_seq = reserved;
    return 0;
}

/* ---- after it */

static void answer_commit_waiters(struct core *core, struct waiter *list, const struct error *err)
{
    while (list) {
        struct waiter *next = list->next;
        waiter_finish(core, list, err);
        list = next;
    }
}

static void finish_jobs(struct write_job *list, const struct error *err)
{
    while (list) {
        struct write_job *next = list->next;
        if (list->cleanup)
            list->cleanup(list->context, err);
        free(list);
        list = next;
    }
}

static void after_commit(struct core *core, uint64_t started_ns)
{
    struct operation *ops = core->dirty_operations;

    core->counters.commits++;
    core->removed_count = 0;
    while (core->dirty_instances) {
        struct instance *i = core->dirty_instances;
        core->dirty_instances = i->next_dirty;
        i->dirty = false;
        i->stored = true;
    }
    core->dirty_operations = NULL;
    if (core->networks_dirty)
        networks_committed(core);
    events_tell(core);
    while (core->events) {
        struct event *e = core->events;
        core->events = e->next;
        event_free(e);
    }
    core->events_tail = &core->events;
    core->event_count = 0;
    while (ops) {
        struct operation *op = ops;
        ops = op->next_dirty;
        op->next_dirty = NULL;
        op->dirty = false;
        op->stored = true;
        if (op->uncommitted) {
            op->uncommitted = false;
            steps_add(&op->steps, "store", started_ns, monotonic_ns());
            operation_committed(core, op);
        }
        if (!op->dirty)
            operation_settle(op);
    }
}

/* Undoes what was asked for since the last good commit, newest first. */
static void undo(struct core *core, const struct error *err)
{
    for (struct operation *op = core->operations, *next; op; op = next) {
        next = op->next;
        if (op->uncommitted)
            operation_undo(core, op, err);
    }
    for (struct instance *i = core->dirty_instances, *next; i; i = next) {
        next = i->next_dirty;
        if (i->stored)
            continue;
        events_drop(core, i->id, NULL);
        core_drop_instance(core, i);
    }
    if (core->networks_dirty)
        networks_undo(core);
    events_tell(core);
}

void core_flush(struct core *core)
{
    struct waiter *waiters = core->commit_waiters;
    struct write_job *jobs;
    auto_error struct error *err = NULL;
    uint64_t started = monotonic_ns();
    bool nothing = !core->dirty_instances && !core->dirty_operations && !core->removed_count && !core->networks_dirty &&
                   !core->events && !core->writes;
    int r;

    if (core->flushing)
        return;
    core->flushing = true;
    core->commit_waiters = NULL;
    core->commit_tail = &core->commit_waiters;
    core->flush_asked_ns = 0;
    r = nothing ? 0 : commit(core, &err);
    core->store_failing = nothing ? core->store_failing : r < 0;
    jobs = core->writes;
    core->writes = NULL;
    core->writes_tail = &core->writes;
    if (r < 0) {
        core->counters.commits_failed++;
        log_error(NULL, err, "nothing was written");
        undo(core, err);
    } else if (!nothing) {
        after_commit(core, started);
    }
    finish_jobs(jobs, err);
    answer_commit_waiters(core, waiters, err);
    core->flushing = false;
    if (r < 0)
        flush_in(core, RETRY_MS);
}

/* ---- reading at the start */

static const char *column(sqlite3_stmt *s, int i)
{
    return (const char *)sqlite3_column_text(s, i);
}

static int load_networks(struct core *core, struct error **err)
{
    sqlite3_stmt *s = store_statement(core->store, ALL_NETWORKS);
    int result, r = 0;

    while (r == 0 && (result = sqlite3_step(s)) == SQLITE_ROW)
        r = network_load(core, column(s, 0), column(s, 1), column(s, 2), (uint16_t)sqlite3_column_int(s, 3),
                         sqlite3_column_int(s, 4) != 0, err);
    sqlite3_reset(s);
    if (r == 0 && result != SQLITE_DONE)
        r = store_error(core->store, result, "reading networks", err);
    return r;
}

static int bad_row(const char *what, const char *name, struct error **err)
{
    error_set(err, EINVAL, "STORE_FAILED", "the stored %s \"%s\" is damaged", what, name ? name : "?");
    error_hint(err,
               "restore a backup of the database, or move it away to start empty (running instances will be ended)");
    return -EINVAL;
}

static char *copy_column(sqlite3_stmt *s, int i)
{
    return column(s, i) ? strdup(column(s, i)) : NULL;
}

static void load_observed(struct instance *i, sqlite3_stmt *s)
{
    i->image_digest = copy_column(s, 6);
    i->wanted = (enum wanted)sqlite3_column_int(s, 7);
    i->state = (enum instance_state)sqlite3_column_int(s, 8);
    i->reason_code = column(s, 9) ? error_code_intern(column(s, 9)) : NULL;
    i->reason_message = copy_column(s, 10);
    i->pid = sqlite3_column_int(s, 11);
    i->uid_base = (uint32_t)sqlite3_column_int64(s, 12);
    i->origin = (enum start_origin)sqlite3_column_int(s, 13);
    if ((unsigned)i->origin > ORIGIN_SNAPSHOT)
        i->origin = ORIGIN_COLD;
    i->exited = sqlite3_column_int(s, 14) != 0;
    i->exit_known = sqlite3_column_int(s, 15) != 0;
    i->exit_oom = sqlite3_column_int(s, 16) != 0;
    i->exit_status = sqlite3_column_int(s, 17);
    i->exited_at_ns = (uint64_t)sqlite3_column_int64(s, 18);
    i->restarts = (uint32_t)sqlite3_column_int(s, 19);
    i->created_ns = (uint64_t)sqlite3_column_int64(s, 20);
    i->started_ns = (uint64_t)sqlite3_column_int64(s, 21);
    i->held = sqlite3_column_int(s, 22) != 0;
    i->stored = true;
}

/* The descriptor, with resources and labels as they were last set. */
static int load_spec(sqlite3_stmt *s, struct vnf_spec *ret, struct error **err)
{
    json_t *spec = json_loads(column(s, 3) ? column(s, 3) : "", 0, NULL);
    json_t *resources = json_loads(column(s, 4) ? column(s, 4) : "", 0, NULL);
    json_t *labels = json_loads(column(s, 5) ? column(s, 5) : "", 0, NULL);
    int r = -EINVAL;

    if (spec && resources && labels)
        r = spec_parse(spec, ret, err);
    if (r == 0) {
        memset(&ret->limits, 0, sizeof(ret->limits));
        pairs_free(ret->labels, ret->label_count);
        ret->labels = NULL;
        ret->label_count = 0;
        r = limits_parse(resources, "resources", &ret->limits, err);
    }
    if (r == 0)
        r = labels_parse(labels, "labels", &ret->labels, &ret->label_count, err);
    json_decref(spec);
    json_decref(resources);
    json_decref(labels);
    return r;
}

static int load_instance(struct core *core, sqlite3_stmt *s, struct error **err)
{
    const struct technology *technology = column(s, 2) ? technology_find(column(s, 2)) : NULL;
    struct vnf_spec spec = {0};
    struct instance *i = NULL;
    bool sane = column(s, 0) && strlen(column(s, 0)) == INSTANCE_ID_SIZE - 1 && column(s, 1) &&
                strlen(column(s, 1)) < NAME_SIZE && technology && sqlite3_column_int(s, 7) <= WANTED_GONE &&
                sqlite3_column_int(s, 8) < STATE_COUNT;

    if (!sane || load_spec(s, &spec, err) < 0)
        goto bad;
    memcpy(spec.name, column(s, 1), strlen(column(s, 1)) + 1);
    i = instance_new(&spec, technology);
    if (!i)
        goto bad;
    memcpy(i->id, column(s, 0), INSTANCE_ID_SIZE);
    i->spec_json = copy_column(s, 3);
    load_observed(i, s);
    i->nics = calloc(NETWORK_PER_INSTANCE_MAX, sizeof(*i->nics));
    if (!i->spec_json || !i->nics || core_add_instance(core, i) < 0)
        goto bad;
    spec_clear(&spec);
    return 0;
bad:
    spec_clear(&spec);
    instance_free(i);
    if (err && *err)
        return error_wrap(err, "STORE_FAILED", "stored instance \"%s\"", column(s, 1) ? column(s, 1) : "?");
    return bad_row("instance", column(s, 1), err);
}

static int load_instances(struct core *core, struct error **err)
{
    sqlite3_stmt *s = store_statement(core->store, ALL_INSTANCES);
    int result, r = 0;

    while (r == 0 && (result = sqlite3_step(s)) == SQLITE_ROW)
        r = load_instance(core, s, err);
    sqlite3_reset(s);
    if (r == 0 && result != SQLITE_DONE)
        r = store_error(core->store, result, "reading instances", err);
    return r;
}

static int load_nic(struct core *core, sqlite3_stmt *s, struct error **err)
{
    struct instance *i = column(s, 0) ? strmap_get(&core->by_id, column(s, 0)) : NULL;
    struct plan_nic nic = {0};

    if (!i || !column(s, 1) || strlen(column(s, 1)) >= NAME_SIZE || i->nic_count >= NETWORK_PER_INSTANCE_MAX ||
        (column(s, 3) && inet_pton(AF_INET, column(s, 3), &nic.ipv4) != 1) ||
        (column(s, 4) && inet_pton(AF_INET6, column(s, 4), &nic.ipv6) != 1))
        return bad_row("address of instance", column(s, 0), err);
    memcpy(nic.link, column(s, 1), strlen(column(s, 1)) + 1);
    int r = network_reserve(core, &nic, err);
    if (r < 0)
        return r;
    i->nics[i->nic_count++] = nic;
    return 0;
}

static int load_nics(struct core *core, struct error **err)
{
    sqlite3_stmt *s = store_statement(core->store, ALL_NICS);
    int result, r = 0;

    while (r == 0 && (result = sqlite3_step(s)) == SQLITE_ROW)
        r = load_nic(core, s, err);
    sqlite3_reset(s);
    if (r == 0 && result != SQLITE_DONE)
        r = store_error(core->store, result, "reading addresses", err);
    for (struct instance *i = core->instances; i && r == 0; i = i->next) {
        void *smaller = realloc(i->nics, (i->nic_count + 1) * sizeof(*i->nics));
        i->nics = smaller ? smaller : i->nics;
    }
    return r;
}

static const char *intern_change(const char *word)
{
    static const char *const words[] = {"STARTED", "STOPPED", "PAUSED"};

    for (size_t i = 0; word && i < 3; i++)
        if (strcmp(word, words[i]) == 0)
            return words[i];
    return NULL;
}

/* An operation the last daemon did not live to end: adoption carries it on, or it is ended here. */
static int load_operation(struct core *core, sqlite3_stmt *s, struct error **err)
{
    struct instance *i = column(s, 1) ? strmap_get(&core->by_id, column(s, 1)) : NULL;
    int kind = column(s, 3) ? operation_kind_parse(column(s, 3)) : -1;
    int state = column(s, 4) ? operation_state_parse(column(s, 4)) : -1;
    struct operation *op;

    if (kind < 0 || state < 0 || !column(s, 0) || strlen(column(s, 0)) != INSTANCE_ID_SIZE - 1)
        return bad_row("operation", column(s, 0), err);
    op = operation_new(core, (enum operation_kind)kind, i, NULL);
    if (!op)
        return error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
    memcpy(op->id, column(s, 0), INSTANCE_ID_SIZE);
    if (column(s, 1) && !i)
        snprintf(op->instance_id, sizeof(op->instance_id), "%s", column(s, 1));
    if (column(s, 2))
        snprintf(op->instance_name, sizeof(op->instance_name), "%s", column(s, 2));
    op->state = (enum operation_state)state;
    op->change_to = intern_change(column(s, 5));
    op->is_restart = sqlite3_column_int(s, 6) != 0;
    op->automatic = sqlite3_column_int(s, 7) != 0;
    op->stage = (enum stage)sqlite3_column_int(s, 8);
    op->grace_ms = (uint32_t)sqlite3_column_int64(s, 9);
    op->start_time_ns = (uint64_t)sqlite3_column_int64(s, 10);
    op->stored = true;
    if (i && !i->operation && op->stage <= STAGE_UNDO_KILL)
        i->operation = op;
    return 0;
}

static void end_orphans(struct core *core)
{
    auto_error struct error *err = NULL;

    error_set(&err, EINTR, "CANCELLED", "the daemon was restarted in the middle of this");
    error_hint(&err, "ask for it again");
    for (struct operation *op = core->operations, *next; op; op = next) {
        next = op->next;
        if (op->instance && op->instance->operation == op)
            continue;
        if (op->kind == OPERATION_TERMINATE)
            operation_end(core, op, op->state == OPERATION_ROLLING_BACK ? OPERATION_ROLLED_BACK : OPERATION_COMPLETED,
                          NULL);
        else
            operation_end(core, op, OPERATION_FAILED, err);
    }
}

static int load_operations(struct core *core, struct error **err)
{
    sqlite3_stmt *s = store_statement(core->store, OPEN_OPERATIONS);
    int result, r = 0;

    while (r == 0 && (result = sqlite3_step(s)) == SQLITE_ROW)
        r = load_operation(core, s, err);
    sqlite3_reset(s);
    if (r == 0 && result != SQLITE_DONE)
        r = store_error(core->store, result, "reading operations", err);
    if (r == 0)
        end_orphans(core);
    return r;
}

static int load_seq(struct core *core, struct error **err)
{
    sqlite3_stmt *s = store_statement(core->store, GET_META);

    bind_text(s, 1, "event_seq");
    int result = sqlite3_step(s);
    if (result == SQLITE_ROW)
        core->next_seq = (uint64_t)sqlite3_column_int64(s, 0);
    sqlite3_reset(s);
    return result == SQLITE_ROW || result == SQLITE_DONE ? 0 : store_error(core->store, result, "reading", err);
}

int persist_load(struct core *core, struct error **err)
{
    int r = load_seq(core, err);

    if (r == 0)
        r = load_networks(core, err);
    if (r == 0)
        r = load_instances(core, err);
    if (r == 0)
        r = load_nics(core, err);
    return r == 0 ? load_operations(core, err) : r;
}
