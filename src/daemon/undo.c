/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking back: requests whose commit failed, and operations the user cancels.
 *
 * What had not left yet never happened; a start that had left is cancelled, killed or released, whichever it needs.
 * Called by core_flush() and by the REST layer, on the daemon's thread.
 */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "daemon/internal.h"

/* Nobody is told of this operation any more; it stays in memory only until its last answer came. */
static void orphan(struct core *core, struct operation *op)
{
    struct operation **d = &core->dirty_operations;

    while (*d && *d != op)
        d = &(*d)->next_dirty;
    if (*d)
        *d = op->next_dirty;
    op->dirty = false;
    op->stored = true;
    op->state = OPERATION_ROLLED_BACK;
    op->timer = sd_event_source_disable_unref(op->timer);
    op->orphan_slot = instance_slot(core, op->instance);
    if (op->instance->operation == op)
        op->instance->operation = NULL;
    op->instance = NULL;
    events_drop(core, NULL, op->id);
    operation_settle(op);
}

/* The start was through before its commit failed: what it made is taken back by an operation of its own. */
static void take_back_start(struct core *core, struct operation *op, const struct error *err)
{
    struct instance *i = op->instance;
    struct operation *back;

    if (!i->stored) {
        if (i->held)
            release_unknown(core, instance_slot(core, i), i->id);
        orphan(core, op);
        return;
    }
    op->state = OPERATION_ROLLED_BACK;
    if (!op->error)
        op->error = error_copy(err);
    i->wanted = WANTED_STOPPED;
    mark_instance(core, i);
    back = instance_state_runs(i->state) ? operation_new(core, OPERATION_OPERATE, i, NULL) : NULL;
    if (!back)
        return;
    back->automatic = true;
    back->change_to = "STOPPED";
    back->stage = STAGE_KILL;
    i->operation = back;
    mark_operation(core, back);
    event_operation(core, "operation.started", back);
    operation_enter(core, back, OPERATION_PROCESSING);
    operation_proceed(back);
}

void operation_undo(struct core *core, struct operation *op, const struct error *err)
{
    struct instance *i = op->instance;

    op->uncommitted = false;
    if (!i) {
        operation_settle(op);
        return;
    }
    if (operation_state_ended(op->state)) {
        take_back_start(core, op, err);
        return;
    }
    if (i->stored && op->sent && op->stage == STAGE_START) {
        /* it may run by now: the ordinary rollback takes it back, and is recorded when the store works again */
        op->cancel_pending = true;
        op->error = error_copy(err);
        operation_send_cancel(op);
        return;
    }
    operation_send_cancel(op);
    i->wanted = op->wanted_before;
    if (op->kind == OPERATION_MODIFY_INFO)
        operation_take_back_update(op);
    i->state = op->state_before;
    orphan(core, op);
}

static int cannot_cancel(struct operation *op, struct error **err)
{
    error_set(err, EBUSY, "CONFLICTING_STATE", "%s of \"%s\" cannot be cancelled in this stage",
              operation_kind_name(op->kind), op->instance_name);
    error_hint(err, "wait for it: GET /v1/operations/%s?wait_ms=10000", op->id);
    return -EBUSY;
}

int operation_request_cancel(struct core *core, struct operation *op, struct error **err)
{
    struct instance *i = op->instance;
    auto_error struct error *why = NULL;

    error_set(&why, ECANCELED, "CANCELLED", "the operation was cancelled");
    if (op->stage == STAGE_FOREIGN && op->cancel) {
        op->cancel_pending = true;
        op->cancel(op->cancel_context);
    } else if (op->stage == STAGE_START && op->sent) {
        op->cancel_pending = true;
        operation_send_cancel(op);
    } else if (op->stage == STAGE_START) {
        operation_undo_start(op, false);
    } else if (op->stage == STAGE_BACKOFF) {
        i->wanted = WANTED_STOPPED;
        mark_instance(core, i);
        operation_end(core, op, OPERATION_ROLLED_BACK, why);
    } else if (op->stage == STAGE_STOP && op->sent) {
        i->wanted = WANTED_STARTED;
        instance_event(core, i, EVENT_STOP_UNDONE);
        mark_instance(core, i);
        operation_end(core, op, OPERATION_FAILED_TEMP, why);
    } else {
        return cannot_cancel(op, err);
    }
    mark_operation(core, op);
    flush_soon(core);
    return 0;
}
