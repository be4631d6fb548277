/* SPDX-License-Identifier: Apache-2.0 */
/* Operations (SOL003 VnfLcmOpOcc) in memory: begun, moved through their states, ended, waited for. Daemon's thread. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/internal.h"
#include "model/spec_parse.h"

struct operation *operation_new(struct core *core, enum operation_kind kind, struct instance *instance,
                                const struct core_times *times)
{
    struct operation *op = calloc(1, sizeof(*op));
    uint64_t now = monotonic_ns();

    if (!op)
        return NULL;
    core_new_id(core, op->id);
    op->core = core;
    op->kind = kind;
    op->arrived_ns = times && times->arrived_ns ? times->arrived_ns : now;
    op->start_time_ns = op->entered_ns = realtime_ns();
    if (times && times->parsed_ns)
        steps_add(&op->steps, "parse", op->arrived_ns, times->parsed_ns);
    if (instance) {
        op->instance = instance;
        op->wanted_before = instance->wanted;
        op->state_before = instance->state;
        op->limits_before = instance->limits;
        memcpy(op->instance_id, instance->id, sizeof(op->instance_id));
        memcpy(op->instance_name, instance->name, sizeof(op->instance_name));
    }
    op->next = core->operations;
    op->link = &core->operations;
    if (op->next)
        op->next->link = &op->next;
    core->operations = op;
    return op;
}

void operation_free(struct operation *op)
{
    struct core *core = op->core;

    for (struct operation **d = &core->dirty_operations; *d; d = &(*d)->next_dirty) {
        if (*d == op) {
            *d = op->next_dirty;
            break;
        }
    }
    if (op->instance && op->instance->operation == op)
        op->instance->operation = NULL;
    *op->link = op->next;
    if (op->next)
        op->next->link = op->link;
    sd_event_source_disable_unref(op->timer);
    pairs_free(op->labels_before, op->label_count_before);
    error_free(op->error);
    free(op);
}

void operation_settle(struct operation *op)
{
    if (operation_state_ended(op->state) && op->stored && !op->dirty && !op->outstanding)
        operation_free(op);
}

struct operation *operation_find(struct core *core, const char *id)
{
    for (struct operation *op = core->operations; op; op = op->next)
        if (strcmp(op->id, id) == 0)
            return op;
    return NULL;
}

void operation_enter(struct core *core, struct operation *op, enum operation_state state)
{
    if (!operation_state_may_follow(op->state, state)) {
        log_line(LOG_LEVEL_ERROR, *op->instance_id ? op->instance_id : NULL, "operation %s cannot go from %s to %s",
                 op->id, operation_state_name(op->state), operation_state_name(state));
        return;
    }
    op->state = state;
    op->entered_ns = realtime_ns();
    mark_operation(core, op);
}

static void wake_waiters(struct core *core, struct operation *op)
{
    for (struct waiter **w = &core->operation_waiters; *w;) {
        struct waiter *mine = *w;
        if (mine->operation != op) {
            w = &mine->next;
            continue;
        }
        *w = mine->next;
        waiter_finish(core, mine, NULL);
    }
}

void operation_end(struct core *core, struct operation *op, enum operation_state state, const struct error *err)
{
    op->timer = sd_event_source_disable_unref(op->timer);
    operation_enter(core, op, state);
    op->ended_ns = monotonic_ns();
    if (err && !op->error)
        op->error = error_copy(err);
    op->sent = false;
    if (op->instance && op->instance->operation == op)
        op->instance->operation = NULL;
    event_operation(core, "operation.ended", op);
    wake_waiters(core, op);
    log_line(LOG_LEVEL_INFO, *op->instance_id ? op->instance_id : NULL, "%s %s %s in %llu us", op->instance_name,
             operation_kind_name(op->kind), operation_state_name(op->state),
             (unsigned long long)(op->ended_ns - op->arrived_ns) / 1000);
    flush_later(core);
}

void operation_timer(struct operation *op, uint64_t delay_ms, sd_event_time_handler_t handler)
{
    op->timer = sd_event_source_disable_unref(op->timer);
    int r = sd_event_add_time_relative(op->core->loop, &op->timer, CLOCK_MONOTONIC, delay_ms * 1000, 1000, handler, op);
    if (r < 0)
        log_line(LOG_LEVEL_ERROR, op->instance_id, "no timer for operation %s: %s", op->id, strerror(-r));
}

/* ---- waiting */

static int on_wait_over(sd_event_source *source, uint64_t usec, void *context)
{
    struct waiter *mine = context;

    for (struct waiter **w = &mine->core->operation_waiters; *w; w = &(*w)->next) {
        if (*w == mine) {
            *w = mine->next;
            break;
        }
    }
    waiter_finish(mine->core, mine, NULL);
    return 0;
}

int core_operation_wait(struct core *core, const char *id, uint32_t timeout_ms, core_done done, void *context,
                        struct error **err)
{
    struct operation *op = operation_find(core, id);
    struct waiter *w = calloc(1, sizeof(*w));

    if (!w)
        return error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
    *w = (struct waiter){.core = core, .done = done, .context = context, .operation = op};
    if (!op || operation_state_ended(op->state) || timeout_ms == 0) {
        waiter_finish(core, w, NULL); /* an unknown id is said by the rendering that follows */
        return 0;
    }
    if (sd_event_add_time_relative(core->loop, &w->timer, CLOCK_MONOTONIC, (uint64_t)timeout_ms * 1000, 1000,
                                   on_wait_over, w) < 0) {
        free(w);
        return error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
    }
    w->next = core->operation_waiters;
    core->operation_waiters = w;
    return 0;
}

/* ---- operations of others (images) */

struct operation *core_operation_begin(struct core *core, const char *kind, const struct core_times *times,
                                       struct error **err)
{
    int number = operation_kind_parse(kind);
    struct operation *op = number < 0 ? NULL : operation_new(core, (enum operation_kind)number, NULL, times);

    if (!op) {
        error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
        return NULL;
    }
    op->stage = STAGE_FOREIGN;
    operation_enter(core, op, OPERATION_PROCESSING);
    event_operation(core, "operation.started", op);
    flush_soon(core);
    return op;
}

void core_operation_step(struct operation *op, const char *name, uint64_t start_ns, uint64_t end_ns)
{
    steps_add(&op->steps, name, start_ns, end_ns);
}

void core_operation_end(struct core *core, const char *operation_id, const struct error *err)
{
    struct operation *op = operation_find(core, operation_id);

    if (op && !operation_state_ended(op->state))
        operation_end(core, op, err ? OPERATION_FAILED : OPERATION_COMPLETED, err);
}

void core_operation_on_cancel(struct operation *op, void (*cancel)(void *context), void *context)
{
    op->cancel = cancel;
    op->cancel_context = context;
}
