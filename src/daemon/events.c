/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events: numbered when they happen, told when the change they speak of is committed, kept in a bounded table.
 *
 * Numbers only ever grow, across restarts too: a block of them is reserved in the store ahead of use. Daemon's thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/internal.h"
#include "daemon/store/store.h"

enum { EVENTS_UNSTORED_MAX = 10000 };

void event_free(struct event *event)
{
    free(event->json);
    free(event);
}

/* While the disk is full events go on being told, but not all can be kept for later storing. */
static void bound(struct core *core)
{
    if (core->event_count <= EVENTS_UNSTORED_MAX)
        return;
    struct event *oldest = core->events;
    core->events = oldest->next;
    if (!core->events)
        core->events_tail = &core->events;
    core->event_count--;
    event_free(oldest);
}

void core_event_add(struct core *core, const char *type, const char *instance_id, const char *instance_name,
                    const char *operation_id, const char *detail_json)
{
    struct event *event = calloc(1, sizeof(*event));
    struct buffer json = {0};

    if (!event)
        return; /* out of memory: the state itself is still right, and a listener can ask for it */
    event->seq = ++core->next_seq;
    event->type = type;
    if (instance_id)
        memcpy(event->instance, instance_id, sizeof(event->instance));
    if (operation_id)
        memcpy(event->operation, operation_id, sizeof(event->operation));
    buffer_text(&json, "{\"seq\":");
    buffer_u64(&json, event->seq);
    buffer_text(&json, ",\"time\":");
    buffer_json_time(&json, realtime_ns());
    buffer_text(&json, ",\"type\":");
    buffer_json(&json, type);
    buffer_text(&json, ",\"instance\":");
    buffer_json(&json, instance_id);
    buffer_text(&json, ",\"instance_name\":");
    buffer_json(&json, instance_name);
    buffer_text(&json, ",\"operation\":");
    buffer_json(&json, operation_id);
    buffer_text(&json, ",\"detail\":");
    buffer_text(&json, detail_json ? detail_json : "{}");
    buffer_char(&json, '}');
    if (json.failed) {
        buffer_clear(&json);
        free(event);
        return;
    }
    event->json = json.data;
    event->length = json.length;
    *core->events_tail = event;
    core->events_tail = &event->next;
    core->event_count++;
    bound(core);
    flush_later(core);
}

void event_instance(struct core *core, const char *type, const struct instance *i, const char *detail_json)
{
    core_event_add(core, type, i->id, i->name, i->operation ? i->operation->id : NULL, detail_json);
}

void event_operation(struct core *core, const char *type, const struct operation *op)
{
    auto_buffer struct buffer detail = {0};

    buffer_printf(&detail, "{\"operation\":\"%s\",\"operationState\":\"%s\"", operation_kind_name(op->kind),
                  operation_state_name(op->state));
    if (op->error) {
        buffer_text(&detail, ",\"error\":");
        core_render_problem(op->error, &detail);
    }
    buffer_char(&detail, '}');
    core_event_add(core, type, *op->instance_id ? op->instance_id : NULL, *op->instance_name ? op->instance_name : NULL,
                   op->id, detail.data);
}

/* Of a request that was undone: it never happened. */
void events_drop(struct core *core, const char *instance_id, const char *operation_id)
{
    for (struct event **e = &core->events; *e;) {
        struct event *event = *e;
        bool drop = !event->told && ((instance_id && strcmp(event->instance, instance_id) == 0) ||
                                     (operation_id && strcmp(event->operation, operation_id) == 0));
        if (!drop) {
            e = &event->next;
            continue;
        }
        *e = event->next;
        core->event_count--;
        event_free(event);
    }
    core->events_tail = &core->events;
    while (*core->events_tail)
        core->events_tail = &(*core->events_tail)->next;
}

static void tell_one(struct core *core, const struct event *event)
{
    struct core_event view = {event->seq, event->type, *event->instance ? event->instance : NULL, event->json,
                              event->length};

    for (struct listener *l = core->listeners; l; l = l->next)
        if (l->seen && (!*l->instance || strcmp(l->instance, event->instance) == 0))
            l->seen(l->context, &view);
}

void events_tell(struct core *core)
{
    for (struct event *event = core->events; event; event = event->next) {
        if (!event->told)
            tell_one(core, event);
        event->told = true;
    }
    for (struct listener **l = &core->listeners; *l;) {
        struct listener *gone = *l;
        if (gone->seen) {
            l = &gone->next;
            continue;
        }
        *l = gone->next;
        free(gone);
    }
}

/* An instance that is gone is still known by its id in old events. */
static const char *wanted_id(struct core *core, const char *instance)
{
    struct instance *found = instance ? core_instance_find(core, instance, NULL) : NULL;

    return found ? found->id : instance;
}

/* Calls seen for each stored and each told but unstored event after since. */
static int walk(struct core *core, uint64_t since, const char *id, core_event_seen seen, void *context,
                struct error **err)
{
    sqlite3_stmt *s = store_statement(core->store, EVENTS_SINCE);
    uint64_t last = since;
    int result;

    sqlite3_bind_int64(s, 1, since > INT64_MAX ? INT64_MAX : (sqlite3_int64)since);
    while ((result = sqlite3_step(s)) == SQLITE_ROW) {
        struct core_event view = {.seq = (uint64_t)sqlite3_column_int64(s, 0),
                                  .instance = (const char *)sqlite3_column_text(s, 1),
                                  .type = (const char *)sqlite3_column_text(s, 2),
                                  .json = (const char *)sqlite3_column_text(s, 3),
                                  .length = (size_t)sqlite3_column_bytes(s, 3)};
        last = view.seq;
        if (!id || (view.instance && strcmp(id, view.instance) == 0))
            seen(context, &view);
    }
    sqlite3_reset(s);
    if (result != SQLITE_DONE)
        return store_error(core->store, result, "reading events", err);
    for (struct event *e = core->events; e; e = e->next) {
        struct core_event view = {e->seq, e->type, *e->instance ? e->instance : NULL, e->json, e->length};
        if (e->told && e->seq > last && (!id || strcmp(id, e->instance) == 0))
            seen(context, &view);
    }
    return 0;
}

int core_events_follow(struct core *core, uint64_t since, const char *instance, core_event_seen seen, void *context,
                       struct error **err)
{
    const char *id = wanted_id(core, instance);
    struct listener *l = calloc(1, sizeof(*l));
    int r = 0;

    if (!l)
        return error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
    if (id && strlen(id) >= sizeof(l->instance)) {
        free(l);
        return error_set(err, ENOENT, "INSTANCE_NOT_FOUND", "there is no instance \"%.64s\"", id);
    }
    if (since != UINT64_MAX)
        r = walk(core, since, id, seen, context, err);
    if (r < 0) {
        free(l);
        return r;
    }
    *l = (struct listener){.seen = seen, .context = context};
    if (id)
        memcpy(l->instance, id, strlen(id) + 1);
    struct listener **end = &core->listeners;
    while (*end)
        end = &(*end)->next;
    *end = l;
    return 0;
}

struct list_state {
    struct buffer *out;
    bool any;
};

static void list_one(void *context, const struct core_event *event)
{
    struct list_state *state = context;

    if (state->any)
        buffer_char(state->out, ',');
    state->any = true;
    buffer_add(state->out, event->json, event->length);
}

int core_render_events(struct core *core, uint64_t since, const char *instance, struct buffer *out, struct error **err)
{
    struct list_state state = {.out = out};
    size_t before = out->length;

    buffer_text(out, "{\"items\":[");
    int r = walk(core, since, wanted_id(core, instance), list_one, &state, err);
    if (r < 0) {
        out->length = before;
        return r;
    }
    buffer_text(out, "]}");
    return 0;
}
