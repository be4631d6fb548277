/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Brings an instance to what is wanted of it, one operation at a time, and answers what happens by itself.
 *
 * Theory of operation: an operation is in one stage; a stage is one request to the executor and what ends it (its
 * answer, or the instance's exit). `sent` says the request is out. When the executor is lost, sent goes back to false
 * and the operation waits; adoption (adopt.c) looks at what is really there and advances it again. An answer that
 * comes for an operation that has ended is dropped, except that a start nobody wants any more is released.
 * Everything runs on the daemon's one thread.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/internal.h"
#include "model/spec_parse.h"

enum {
    EXECUTOR_WAIT_MS = 10000, /* for a launcher that is being restarted */
    START_LIMIT_MS = 60000,
    KILL_LIMIT_MS = 10000,
    RELEASE_RETRY_MS = 50,
    RELEASE_RETRIES = 200,
};

int operation_proceed(struct operation *op)
{
    auto_error struct error *err = NULL;
    int r = operation_advance(op->core, op, NULL, &err);

    if (r < 0 && op->stage == STAGE_START)
        operation_fail_start(op->core, op, err);
    else if (r < 0)
        operation_end(op->core, op, OPERATION_FAILED, err);
    return r;
}

static void next_stage(struct operation *op, enum stage stage)
{
    op->stage = stage;
    op->sent = false;
    op->timer = sd_event_source_disable_unref(op->timer);
    mark_operation(op->core, op);
}

static bool is_code(const struct error *err, const char *code)
{
    return err && strcmp(err->code, code) == 0;
}

/* ---- waiting for the executor */

/* What was asked for did not happen; the instance is as it was. */
static void give_up(struct operation *op, const struct error *err)
{
    struct instance *i = op->instance;

    if (op->stage == STAGE_START) {
        i->wanted = WANTED_STOPPED;
        if (i->state == STATE_STARTING)
            instance_event(op->core, i, EVENT_START_FAILED);
        instance_reason(i, err);
    } else {
        i->wanted = op->wanted_before;
    }
    if (op->stage == STAGE_UPDATE)
        operation_take_back_update(op);
    if (i->state == STATE_STOPPING)
        instance_event(op->core, i, EVENT_STOP_UNDONE);
    mark_instance(op->core, i);
}

static int on_executor_missing(sd_event_source *source, uint64_t usec, void *context)
{
    struct operation *op = context;
    auto_error struct error *err = NULL;

    error_set(&err, ENOTCONN, "LAUNCHER_UNAVAILABLE", "the launcher did not come back within %d s",
              EXECUTOR_WAIT_MS / 1000);
    error_hint(&err, "start coracle-launcher (systemctl start coracle-launcher), then ask again");
    give_up(op, err);
    operation_end(op->core, op, OPERATION_FAILED_TEMP, err);
    operation_settle(op);
    return 0;
}

static void wait_for_executor(struct operation *op)
{
    op->sent = false;
    operation_timer(op, EXECUTOR_WAIT_MS, on_executor_missing);
}

/* ---- after an exit */

static int on_backoff(sd_event_source *source, uint64_t usec, void *context)
{
    struct operation *op = context;

    op->timer = sd_event_source_disable_unref(op->timer);
    op->instance->restarts++;
    next_stage(op, STAGE_START);
    operation_enter(op->core, op, OPERATION_PROCESSING);
    mark_instance(op->core, op->instance);
    operation_proceed(op);
    return 0;
}

static void heal(struct core *core, struct instance *i)
{
    struct operation *op = operation_new(core, OPERATION_HEAL, i, NULL);
    uint32_t delay = restart_delay(&i->restart, i->restarts_in_a_row);

    if (!op)
        return; /* out of memory: it stays stopped, and says so */
    op->automatic = true;
    op->stage = STAGE_BACKOFF;
    i->operation = op;
    i->restarts_in_a_row++;
    core->counters.heals++;
    mark_operation(core, op);
    event_operation(core, "operation.started", op);
    operation_timer(op, delay, on_backoff);
}

/* Called when it does not run and no operation is about it: by policy it is started again, or is left. */
static void consider_heal(struct core *core, struct instance *i, bool good_exit)
{
    if (i->operation || (i->wanted != WANTED_STARTED && i->wanted != WANTED_PAUSED))
        return;
    if (i->running_since_ns && monotonic_ns() - i->running_since_ns > (uint64_t)RESTART_STEADY_MS * 1000000)
        i->restarts_in_a_row = 0;
    i->running_since_ns = 0;
    if (restart_wanted(&i->restart, good_exit, i->restarts_in_a_row)) {
        heal(core, i);
        return;
    }
    i->wanted = WANTED_STOPPED;
    mark_instance(core, i);
}

/* Ends an operation that was about a running instance, and sees to an exit that came meanwhile. */
static void end_and_look(struct operation *op, enum operation_state state, const struct error *err)
{
    struct instance *i = op->instance;

    operation_end(op->core, op, state, err);
    if (i && i->state == STATE_STOPPED)
        consider_heal(op->core, i, i->exit_known && i->exit_status == 0);
}

static void record_exit(struct instance *i, const struct message_exited *m)
{
    i->exited = true;
    i->exit_known = m->status_known;
    i->exit_status = m->wait_status;
    i->exit_oom = m->oom;
    i->exited_at_ns = m->exited_at_ns ? m->exited_at_ns : realtime_ns();
}

static void tell_exit(struct core *core, const struct instance *i)
{
    auto_buffer struct buffer detail = {0};

    if (!i->exit_known)
        buffer_text(&detail, "{\"status\":null");
    else if (WIFSIGNALED(i->exit_status))
        buffer_printf(&detail, "{\"signal\":%d", WTERMSIG(i->exit_status));
    else
        buffer_printf(&detail, "{\"status\":%d", WEXITSTATUS(i->exit_status));
    buffer_printf(&detail, ",\"oom\":%s}", i->exit_oom ? "true" : "false");
    event_instance(core, "instance.exited", i, detail.data);
}

/* The application is gone, which an operation under way may have been waiting for. */
static void stopped(struct operation *op)
{
    if (op->stage == STAGE_UNDO_KILL) {
        op->instance->wanted = WANTED_STOPPED;
        operation_end(op->core, op, op->timed_out ? OPERATION_FAILED : OPERATION_ROLLED_BACK, NULL);
    } else if (op->is_restart) {
        steps_add(&op->steps, "stop", op->sent_ns, monotonic_ns());
        next_stage(op, STAGE_START);
        operation_proceed(op);
    } else {
        steps_add(&op->steps, "stop", op->sent_ns, monotonic_ns());
        operation_end(op->core, op, OPERATION_COMPLETED, NULL);
    }
}

static bool waits_for_exit(const struct operation *op)
{
    return op->stage == STAGE_STOP || op->stage == STAGE_KILL || op->stage == STAGE_UNDO_KILL;
}

void instance_exited(struct core *core, struct instance *i, const struct message_exited *m)
{
    struct operation *op = i->operation;

    core->counters.exits++;
    record_exit(i, m);
    log_line(LOG_LEVEL_INFO, i->id, "%s ended, %s %d%s", i->name,
             !m->status_known              ? "status unknown"
             : WIFSIGNALED(m->wait_status) ? "signal"
                                           : "status",
             WIFSIGNALED(m->wait_status) ? WTERMSIG(m->wait_status) : WEXITSTATUS(m->wait_status),
             m->oom ? ", out of memory" : "");
    tell_exit(core, i);
    calls_instance_gone(core, i->id);
    instance_event(core, i, EVENT_EXIT);
    mark_instance(core, i);
    if (op && waits_for_exit(op)) {
        stopped(op);
        operation_settle(op);
    } else if (!op) {
        consider_heal(core, i, m->status_known && m->wait_status == 0);
    }
}

void instance_lost(struct core *core, struct instance *i)
{
    struct operation *op = i->operation;
    auto_error struct error *err = NULL;

    error_set(&err, ESRCH, "INSTANCE_LOST", "the instance is no longer on this host, and nobody saw how it ended");
    error_hint(&err, "the host was rebooted, or it was killed from outside; start it again");
    core->counters.lost++;
    calls_instance_gone(core, i->id);
    instance_event(core, i, EVENT_LOST);
    if (i->state == STATE_FAILED)
        instance_reason(i, err);
    mark_instance(core, i);
    if (op && waits_for_exit(op))
        stopped(op);
    else if (op && op->stage != STAGE_RELEASE && op->stage != STAGE_UNDO_RELEASE && op->stage != STAGE_BACKOFF)
        operation_end(core, op, OPERATION_FAILED, err);
    if (op)
        operation_settle(op);
    consider_heal(core, i, false);
}

/* ---- start */

static int plan_from_snapshot(const struct instance *i, struct launch_plan *plan, struct error **err)
{
    if (plan->machine.restorable) {
        memcpy(plan->machine.snapshot, i->snapshot, sizeof(i->snapshot));
        return 0;
    }
    plan_clear(plan);
    error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY",
              "the guest of %s cannot take a new identity here, so a restored one would be its twin",
              i->technology->name);
    error_hint(err, "unikernels can under coracle-vmm (a host with KVM), Linux guests with their agent");
    return -ENOTSUP;
}

int instance_plan(struct core *core, struct instance *i, const struct vnf_spec *spec, struct launch_plan *ret,
                  struct error **err)
{
    const struct driver_ops *driver = i->technology->driver;
    struct image_view image = {0}, carrier = {0};
    struct image_config carried;
    int r = 0;

    if (i->image_digest) {
        if (!core->images)
            return error_set(err, ENOENT, "IMAGE_NOT_FOUND", "this daemon was built without an image store");
        r = core->images->find(core->images_context, i->image_digest, i->technology, &image, err);
    }
    if (r == 0 && i->technology->carrier && image.config) {
        r = technology_carrier(core, i->technology, &carrier, err);
        carried = *image.config;
        carried.carrier = carrier.config;
        image.config = &carried;
    }
    if (r < 0)
        return r;
    if (!i->stop_signal && image.config)
        i->stop_signal = image.config->stop_signal;
    r = driver->plan(spec, image.config, &core->facts, i->nics, i->nic_count, i->id, ret, err);
    return r < 0 || !i->snapshot[0] ? r : plan_from_snapshot(i, ret, err);
}

static int stored_plan(struct core *core, struct instance *i, struct launch_plan *ret, struct error **err)
{
    struct vnf_spec spec;
    int r = instance_spec(i, &spec, err);

    if (r < 0)
        return r;
    r = instance_plan(core, i, &spec, ret, err);
    spec_clear(&spec);
    return r;
}

/* The start is to be taken back: cancelled, timed out, or never stored. running: the executor did start it. */
void operation_undo_start(struct operation *op, bool running)
{
    struct instance *i = op->instance;

    operation_enter(op->core, op, OPERATION_ROLLING_BACK);
    if (!op->error && op->timed_out)
        error_set(&op->error, ETIMEDOUT, "TIMEOUT", "the start did not end within %d s", START_LIMIT_MS / 1000);
    else if (!op->error)
        error_set(&op->error, ECANCELED, "CANCELLED", "the operation was cancelled");
    if (op->kind == OPERATION_INSTANTIATE) {
        next_stage(op, STAGE_UNDO_RELEASE);
        operation_proceed(op);
    } else if (running) {
        next_stage(op, STAGE_UNDO_KILL);
        operation_proceed(op);
    } else {
        i->wanted = WANTED_STOPPED;
        instance_event(op->core, i, EVENT_EXIT);
        operation_end(op->core, op, op->timed_out ? OPERATION_FAILED : OPERATION_ROLLED_BACK, NULL);
    }
}

void operation_fail_start(struct core *core, struct operation *op, const struct error *err)
{
    struct instance *i = op->instance;
    bool healing = op->kind == OPERATION_HEAL;

    core->counters.starts_failed++;
    instance_event(core, i, EVENT_START_FAILED);
    instance_reason(i, err);
    mark_instance(core, i);
    log_error(i->id, err, "%s could not be started", i->name);
    if (!healing)
        i->wanted = WANTED_STOPPED;
    operation_end(core, op, OPERATION_FAILED, err);
    if (healing)
        consider_heal(core, i, false);
}

static void add_launcher_steps(struct operation *op, const struct steps *steps)
{
    for (uint32_t k = 0; k < steps->count; k++) {
        char name[STEP_NAME_SIZE + 16] = "launcher ";
        strncat(name, steps->list[k].name, STEP_NAME_SIZE - 1);
        steps_add(&op->steps, name, steps->list[k].start_ns, steps->list[k].start_ns + steps->list[k].duration_ns);
    }
}

void instance_runs(struct core *core, struct instance *i, const struct message_started *m)
{
    i->pid = m->pid;
    i->uid_base = m->uid_base;
    i->origin = m->origin;
    i->snapshot[0] = '\0'; /* from now on it begins as its image does */
    i->exited = false;
    i->started_ns = realtime_ns();
    i->running_since_ns = monotonic_ns();
    i->wanted = WANTED_STARTED;
    core->counters.starts++;
    instance_event(core, i, EVENT_START_DONE);
    mark_instance(core, i);
}

static void on_started(void *context, enum message_type type, const void *message, int *fds, size_t fd_count,
                       const struct error *err)
{
    struct operation *op = context;
    struct core *core = op->core;

    op->outstanding--;
    if (operation_state_ended(op->state)) {
        /* superseded or never stored: nobody wants it */
        if (op->orphan_slot && !err)
            release_unknown(core, op->orphan_slot, op->instance_id);
    } else if (is_code(err, "LAUNCHER_UNAVAILABLE")) {
        wait_for_executor(op);
    } else if (op->cancel_pending || op->timed_out) {
        operation_undo_start(op, !err);
    } else if (err) {
        operation_fail_start(core, op, err);
    } else {
        steps_add(&op->steps, "launcher", op->sent_ns, monotonic_ns());
        add_launcher_steps(op, &((const struct message_started *)message)->steps);
        instance_runs(core, op->instance, message);
        operation_end(core, op, OPERATION_COMPLETED, NULL);
    }
    operation_settle(op);
}

static void on_ignored(void *context, enum message_type type, const void *message, int *fds, size_t fd_count,
                       const struct error *err)
{
    struct operation *op = context;

    op->outstanding--;
    operation_settle(op);
}

static int request(struct operation *op, enum message_type type, const void *message, executor_done done,
                   struct error **err)
{
    struct executor *executor = instance_slot(op->core, op->instance)->executor;
    int r = executor->ops->request(executor, type, message, NULL, 0, done, op, done == on_ignored ? NULL : &op->request,
                                   err);
    if (r >= 0)
        op->outstanding++;
    return r;
}

void operation_send_cancel(struct operation *op)
{
    struct message_cancel m = {.request = op->request};

    if (op->sent && op->stage == STAGE_START)
        request(op, MESSAGE_CANCEL, &m, on_ignored, NULL);
}

static int on_start_limit(sd_event_source *source, uint64_t usec, void *context)
{
    struct operation *op = context;

    op->timer = sd_event_source_disable_unref(op->timer);
    op->timed_out = true;
    operation_send_cancel(op);
    return 0;
}

static int send_start(struct operation *op, const struct launch_plan *plan, struct error **err)
{
    struct core *core = op->core;
    struct instance *i = op->instance;
    struct launch_plan own = {0};
    int r = plan ? 0 : stored_plan(core, i, &own, err);

    if (r == 0)
        r = request(op, MESSAGE_START, plan ? plan : &own, on_started, err);
    plan_clear(&own);
    if (r < 0)
        return r;
    i->held = true;
    instance_event(core, i, EVENT_START);
    operation_timer(op, START_LIMIT_MS, on_start_limit);
    return 0;
}

/* ---- stop */

static int on_kill_limit(sd_event_source *source, uint64_t usec, void *context)
{
    struct operation *op = context;
    auto_error struct error *err = NULL;

    error_set(&err, ETIMEDOUT, "TIMEOUT", "the instance did not end within %d s of SIGKILL", KILL_LIMIT_MS / 1000);
    error_hint(&err, "a process in it waits for the kernel (disk, NFS); remove it with force");
    if (op->instance->state == STATE_STOPPING)
        instance_event(op->core, op->instance, EVENT_STOP_UNDONE);
    operation_end(op->core, op, OPERATION_FAILED, err);
    operation_settle(op);
    return 0;
}

static int on_grace_over(sd_event_source *source, uint64_t usec, void *context)
{
    struct operation *op = context;

    next_stage(op, STAGE_KILL);
    operation_proceed(op);
    return 0;
}

static void on_signalled(void *context, enum message_type type, const void *message, int *fds, size_t fd_count,
                         const struct error *err)
{
    struct operation *op = context;

    op->outstanding--;
    if (operation_state_ended(op->state) || !waits_for_exit(op)) {
        operation_settle(op);
        return;
    }
    if (is_code(err, "LAUNCHER_UNAVAILABLE")) {
        wait_for_executor(op);
    } else if (is_code(err, "INSTANCE_NOT_FOUND")) {
        instance_lost(op->core, op->instance);
        return;
    } else if (err && !is_code(err, "CONFLICTING_STATE")) { /* that one says: it has ended, the news is under way */
        if (op->instance->state == STATE_STOPPING)
            instance_event(op->core, op->instance, EVENT_STOP_UNDONE);
        op->instance->wanted = WANTED_STARTED;
        end_and_look(op, OPERATION_FAILED, err);
    }
    operation_settle(op);
}

static int send_signal(struct operation *op, int number, struct error **err)
{
    struct message_signal m = {.signal = number};
    bool kill = number == SIGKILL;

    memcpy(m.id, op->instance->id, sizeof(m.id));
    int r = request(op, MESSAGE_SIGNAL, &m, on_signalled, err);
    if (r == 0)
        operation_timer(op, kill ? KILL_LIMIT_MS : op->grace_ms, kill ? on_kill_limit : on_grace_over);
    return r;
}

static int send_stop(struct operation *op, struct error **err)
{
    struct instance *i = op->instance;
    struct message_id m;

    if (i->state == STATE_PAUSED) { /* a frozen application hears no signal */
        memcpy(m.id, i->id, sizeof(m.id));
        request(op, MESSAGE_RESUME, &m, on_ignored, NULL);
    }
    if (i->state != STATE_STARTING) /* an undone start is never shown as started */
        instance_event(op->core, i, EVENT_STOP);
    if (op->stage == STAGE_STOP && op->grace_ms == 0)
        op->stage = STAGE_KILL;
    if (op->stage == STAGE_STOP)
        return send_signal(op, i->stop_signal ? i->stop_signal : SIGTERM, err);
    return send_signal(op, SIGKILL, err);
}

/* ---- pause, resume, update */

void operation_take_back_update(struct operation *op)
{
    struct instance *i = op->instance;

    i->limits = op->limits_before;
    if (op->labels_before) {
        pairs_free(i->labels, i->label_count);
        i->labels = take_ptr(op->labels_before);
        i->label_count = op->label_count_before;
        op->label_count_before = 0;
    }
    mark_instance(op->core, i);
}

static void on_changed(void *context, enum message_type type, const void *message, int *fds, size_t fd_count,
                       const struct error *err)
{
    struct operation *op = context;
    struct instance *i = op->instance;

    op->outstanding--;
    if (operation_state_ended(op->state)) {
        operation_settle(op);
        return;
    }
    if (is_code(err, "LAUNCHER_UNAVAILABLE")) {
        wait_for_executor(op);
        return;
    }
    if (err && op->stage == STAGE_UPDATE)
        operation_take_back_update(op);
    else if (err)
        i->wanted = op->wanted_before;
    else if (op->stage == STAGE_PAUSE && i->state == STATE_STARTED)
        instance_event(op->core, i, EVENT_PAUSE);
    else if (op->stage == STAGE_RESUME && i->state == STATE_PAUSED)
        instance_event(op->core, i, EVENT_RESUME);
    steps_add(&op->steps, "launcher", op->sent_ns, monotonic_ns());
    end_and_look(op, err ? OPERATION_FAILED : OPERATION_COMPLETED, err);
    operation_settle(op);
}

/* What a machine's limits are is its plan's: its monitor needs more than the guest has. */
static int send_update(struct operation *op, struct error **err)
{
    struct instance *i = op->instance;
    struct message_update update = {.limits = i->limits};
    struct launch_plan plan = {0};
    struct vnf_spec spec;
    int r = instance_spec(i, &spec, err);

    if (r < 0)
        return r;
    memcpy(update.id, i->id, sizeof(update.id));
    spec.limits = i->limits;
    r = instance_plan(op->core, i, &spec, &plan, err);
    if (r == 0 && plan.kind == PLAN_MACHINE) {
        update.limits = plan.limits;
        if (i->limits.cpus_max || i->limits.memory_max_bytes) {
            update.vcpus = plan.machine.vcpus;
            update.machine_bytes = plan.machine.memory_bytes;
        }
    }
    plan_clear(&plan);
    spec_clear(&spec);
    return r < 0 ? r : request(op, MESSAGE_UPDATE, &update, on_changed, err);
}

static int send_change(struct operation *op, struct error **err)
{
    struct message_id id;

    memcpy(id.id, op->instance->id, sizeof(id.id));
    if (op->stage == STAGE_UPDATE)
        return send_update(op, err);
    return request(op, op->stage == STAGE_PAUSE ? MESSAGE_PAUSE : MESSAGE_RESUME, &id, on_changed, err);
}

/* ---- release */

/* The instance leaves the platform: row, name, addresses. */
static void finish_terminate(struct operation *op)
{
    struct core *core = op->core;
    struct instance *i = op->instance;

    if (i->stored && mark_removed(core, i->id) < 0) {
        auto_error struct error *err = NULL;
        error_set(&err, ENOMEM, "NO_MEMORY", "out of memory");
        operation_end(core, op, OPERATION_FAILED, err);
        return;
    }
    core->counters.removed++;
    operation_end(core, op, OPERATION_COMPLETED, NULL);
    event_instance(core, "instance.removed", i, NULL);
    core_drop_instance(core, i);
}

static void released(struct operation *op)
{
    struct instance *i = op->instance;

    i->held = false;
    if (op->stage == STAGE_RELEASE) {
        finish_terminate(op);
        return;
    }
    i->wanted = WANTED_CREATED;
    instance_event(op->core, i, EVENT_START_UNDONE);
    operation_end(op->core, op, op->timed_out ? OPERATION_FAILED : OPERATION_ROLLED_BACK, NULL);
}

static int on_release_retry(sd_event_source *source, uint64_t usec, void *context)
{
    struct operation *op = context;

    op->sent = false;
    operation_proceed(op);
    return 0;
}

static void on_released(void *context, enum message_type type, const void *message, int *fds, size_t fd_count,
                        const struct error *err)
{
    struct operation *op = context;

    op->outstanding--;
    if (operation_state_ended(op->state)) {
        operation_settle(op);
        return;
    }
    if (is_code(err, "LAUNCHER_UNAVAILABLE")) {
        wait_for_executor(op);
        return;
    }
    /* a start that is being cancelled holds the instance for a moment */
    if ((is_code(err, "CONFLICTING_STATE") || is_code(err, "OPERATION_IN_PROGRESS")) &&
        op->retries++ < RELEASE_RETRIES) {
        operation_timer(op, RELEASE_RETRY_MS, on_release_retry);
        return;
    }
    steps_add(&op->steps, "release", op->sent_ns, monotonic_ns());
    if (!err || is_code(err, "INSTANCE_NOT_FOUND")) {
        released(op);
    } else {
        op->instance->wanted = op->wanted_before == WANTED_GONE ? WANTED_STOPPED : op->wanted_before;
        instance_reason(op->instance, err);
        mark_instance(op->core, op->instance);
        operation_end(op->core, op, OPERATION_FAILED, err);
    }
    operation_settle(op);
}

static int send_release(struct operation *op, struct error **err)
{
    struct message_id m;

    if (!op->instance->held) {
        released(op);
        return 0;
    }
    memcpy(m.id, op->instance->id, sizeof(m.id));
    return request(op, MESSAGE_RELEASE, &m, on_released, err);
}

static void on_unknown_released(void *context, enum message_type type, const void *message, int *fds, size_t fd_count,
                                const struct error *err)
{
    if (err && !is_code(err, "LAUNCHER_UNAVAILABLE") && !is_code(err, "INSTANCE_NOT_FOUND"))
        log_error(NULL, err, "an instance nobody wants could not be released");
}

void release_unknown(struct core *core, struct executor_slot *slot, const char *id)
{
    auto_error struct error *err = NULL;
    struct message_id m;

    memcpy(m.id, id, sizeof(m.id));
    if (slot->executor->ops->request(slot->executor, MESSAGE_RELEASE, &m, NULL, 0, on_unknown_released, slot, NULL,
                                     &err) < 0)
        log_error(id, err, "could not release what is not in the store"); /* the next adoption tries again */
}

/* ---- the operation as a whole */

static int send_stage(struct operation *op, const struct launch_plan *plan, struct error **err)
{
    switch (op->stage) {
    case STAGE_START:
        return send_start(op, plan, err);
    case STAGE_STOP:
    case STAGE_KILL:
    case STAGE_UNDO_KILL:
        return send_stop(op, err);
    case STAGE_PAUSE:
    case STAGE_RESUME:
    case STAGE_UPDATE:
        return send_change(op, err);
    case STAGE_RELEASE:
    case STAGE_UNDO_RELEASE:
        return send_release(op, err);
    default:
        return 0;
    }
}

int operation_advance(struct core *core, struct operation *op, const struct launch_plan *plan, struct error **err)
{
    struct instance *i = op->instance;

    if (op->sent || op->stage == STAGE_BACKOFF || op->stage == STAGE_FOREIGN || !i)
        return 0;
    if (!instance_slot(core, i)->ready && (i->held || op->stage == STAGE_START)) {
        if (op->stage == STAGE_START && i->state != STATE_STARTING)
            instance_event(core, i, EVENT_START);
        wait_for_executor(op);
        return 0;
    }
    op->timer = sd_event_source_disable_unref(op->timer);
    op->sent = true;
    op->sent_ns = monotonic_ns();
    int r = send_stage(op, plan, err);
    if (r < 0)
        op->sent = false;
    return r;
}

/* The request is on the disk: what was held back until then goes out now. */
void operation_committed(struct core *core, struct operation *op)
{
    if (operation_state_ended(op->state) || op->sent)
        return;
    if (op->state == OPERATION_STARTING)
        operation_enter(core, op, OPERATION_PROCESSING);
    if (op->stage == STAGE_STOP && !instance_state_runs(op->instance->state)) { /* a heal that waited was called off */
        if (op->is_restart) {
            next_stage(op, STAGE_START);
            operation_proceed(op);
        } else {
            operation_end(core, op, OPERATION_COMPLETED, NULL);
        }
        return;
    }
    if (op->stage == STAGE_UPDATE && !instance_state_runs(op->instance->state)) {
        operation_end(core, op, OPERATION_COMPLETED, NULL);
        return;
    }
    operation_proceed(op);
}
