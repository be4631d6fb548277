/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Meeting an executor again: after the daemon started, or after the launcher came back.
 *
 * The executor lists what it has; each instance is compared with what is wanted. What nobody knows is released, what
 * is missing is reported or started again by policy, what an interrupted operation was about is carried on.
 */
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/internal.h"

static void found(struct executor_slot *slot, const struct message_instance *m)
{
    struct core *core = slot->core;
    struct instance *i = strmap_get(&core->by_id, m->id);
    struct message_exited exited = {
        .wait_status = m->wait_status, .oom = m->oom, .status_known = m->status_known, .exited_at_ns = m->exited_at_ns};

    if (!i || instance_slot(core, i) != slot) {
        log_line(LOG_LEVEL_WARNING, m->id, "found at the %s, but not in the store; released", slot->name);
        release_unknown(core, slot, m->id);
        return;
    }
    i->seen = i->held = true;
    if (m->running) {
        i->pid = m->pid;
        i->uid_base = m->uid_base;
        if (i->state != STATE_STOPPING)
            instance_event(core, i, EVENT_RUNS);
        if (m->paused && i->state == STATE_STARTED)
            instance_event(core, i, EVENT_PAUSE);
        i->running_since_ns = i->running_since_ns ? i->running_since_ns : monotonic_ns();
        mark_instance(core, i);
    } else if (instance_state_runs(i->state)) {
        memcpy(exited.id, m->id, sizeof(exited.id));
        instance_exited(core, i, &exited);
    }
}

void slot_event(void *context, enum message_type type, const void *message)
{
    struct executor_slot *slot = context;
    struct core *core = slot->core;

    if (type == MESSAGE_INSTANCE) {
        found(slot, message);
    } else if (type == MESSAGE_EXITED) {
        const struct message_exited *m = message;
        struct instance *i = strmap_get(&core->by_id, m->id);
        /* a second report of the same end (it was listed as ended, too) changes nothing */
        if (i && (instance_state_runs(i->state) || i->state == STATE_STARTING))
            instance_exited(core, i, m);
    } else if (type == MESSAGE_EXEC_EXITED) {
        calls_exec_exited(core, message);
    }
}

/* An operation that was interrupted, and its instance is as the executor says. */
static void carry_on(struct core *core, struct operation *op, bool runs)
{
    struct instance *i = op->instance;
    auto_error struct error *err = NULL;

    if (op->uncommitted)
        return;
    op->sent = false;
    if (op->stage == STAGE_START && runs) { /* its answer was lost, its work was not */
        if (op->cancel_pending)
            op->stage = op->kind == OPERATION_INSTANTIATE ? STAGE_UNDO_RELEASE : STAGE_UNDO_KILL;
        else {
            operation_end(core, op, OPERATION_COMPLETED, NULL);
            operation_settle(op);
            return;
        }
    }
    if (op->stage == STAGE_BACKOFF)
        op->stage = STAGE_START;
    if (op->state == OPERATION_STARTING)
        operation_enter(core, op, OPERATION_PROCESSING);
    if (!runs && (op->stage == STAGE_STOP || op->stage == STAGE_KILL || op->stage == STAGE_UNDO_KILL)) {
        instance_lost(core, i);
        return;
    }
    if (!runs && (op->stage == STAGE_PAUSE || op->stage == STAGE_RESUME || op->stage == STAGE_UPDATE)) {
        operation_end(core, op, op->stage == STAGE_UPDATE ? OPERATION_COMPLETED : OPERATION_FAILED, NULL);
        operation_settle(op);
        return;
    }
    if (operation_advance(core, op, NULL, &err) < 0) {
        if (op->stage == STAGE_START)
            operation_fail_start(core, op, err);
        else
            operation_end(core, op, OPERATION_FAILED, err);
    }
}

static void compare(struct core *core, struct instance *i)
{
    bool runs = i->seen && instance_state_runs(i->state);

    if (!i->seen && !i->operation && (instance_state_runs(i->state) || i->state == STATE_STARTING)) {
        instance_lost(core, i);
        return;
    }
    if (!i->seen && i->operation && instance_state_runs(i->state) && i->operation->stage != STAGE_STOP &&
        i->operation->stage != STAGE_KILL && i->operation->stage != STAGE_RELEASE) {
        instance_lost(core, i);
        return;
    }
    if (i->operation)
        carry_on(core, i->operation, runs);
}

static void on_listed(void *context, enum message_type type, const void *message, int *fds, size_t fd_count,
                      const struct error *err)
{
    struct executor_slot *slot = context;
    struct core *core = slot->core;

    if (err) {
        if (strcmp(err->code, "LAUNCHER_UNAVAILABLE") != 0)
            log_error(NULL, err, "the %s could not list its instances", slot->name);
        return;
    }
    slot->ready = true;
    for (struct instance *i = core->instances, *next; i; i = next) {
        next = i->next;
        if (instance_slot(core, i) == slot)
            compare(core, i);
    }
    if (slot == &core->slots[SLOT_LAUNCHER])
        core_event_add(core, "launcher.back", NULL, NULL, NULL, NULL);
    log_line(LOG_LEVEL_INFO, NULL, "the %s is connected, its instances are adopted", slot->name);
}

void slot_adopt(struct executor_slot *slot)
{
    auto_error struct error *err = NULL;

    slot->ready = false;
    for (struct instance *i = slot->core->instances; i; i = i->next)
        if (instance_slot(slot->core, i) == slot)
            i->seen = false;
    if (slot->executor->ops->request(slot->executor, MESSAGE_LIST, NULL, NULL, 0, on_listed, slot, NULL, &err) < 0)
        log_error(NULL, err, "the %s cannot be asked for its instances", slot->name);
}

void slot_lost(struct executor_slot *slot)
{
    bool was_ready = slot->ready;

    slot->ready = false;
    calls_instance_gone(slot->core, NULL);
    if (was_ready) {
        log_line(LOG_LEVEL_WARNING, NULL, "the %s is gone; instances run on, it is looked for", slot->name);
        core_event_add(slot->core, "launcher.lost", NULL, NULL, NULL, NULL);
    }
}
