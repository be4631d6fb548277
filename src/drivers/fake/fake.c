/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fake driver's plan and its executor: requests become jobs, a job answers from a timer of the daemon's loop.
 *
 * Why timers: an answer must never come from within the request, exactly as with the launcher. Daemon's thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/strv.h"
#include "drivers/fake/fake_internal.h"

enum { UID_BASE = 1 << 30, LIFE_DEFAULT_MS = 100 };

/* ---- driver */

static void fake_probe(const struct host_facts *facts, struct technology_state *ret)
{
    *ret = (struct technology_state){.available = true, .accelerator = "none"};
}

static int fake_plan(const struct vnf_spec *spec, const struct image_config *image, const struct host_facts *facts,
                     const struct plan_nic *nics, size_t nic_count, const char *id, struct launch_plan *ret,
                     struct error **err)
{
    struct launch_plan plan = {.kind = PLAN_FAKE, .start_mode = spec->start_mode, .fault = spec->fault};
    int r;

    if (strcmp(spec->fault.step, "plan") == 0)
        return error_set(err, EIO, "START_FAILED", "fault asked for at step \"plan\"");
    snprintf(plan.id, sizeof(plan.id), "%s", id);
    snprintf(plan.name, sizeof(plan.name), "%s", spec->name);
    snprintf(plan.hostname, sizeof(plan.hostname), "%s", spec->hostname[0] ? spec->hostname : spec->name);
    plan.limits = spec->limits;
    for (size_t i = 0; i < nic_count; i++)
        plan.nics[i] = nics[i];
    plan.nic_count = nic_count;
    memcpy(plan.ports, spec->ports, spec->port_count * sizeof(spec->ports[0]));
    plan.port_count = spec->port_count;
    plan.process.tty = spec->tty;
    plan.process.open_stdin = spec->open_stdin;
    plan.process.argv = strv_copy(spec->command);
    r = plan_validate(&plan, err);
    if (r < 0) {
        plan_clear(&plan);
        return r;
    }
    *ret = plan;
    return 0;
}

/* ---- jobs */

static void job_free(struct fake_job *job)
{
    *job->link = job->next;
    if (job->next)
        job->next->link = job->link;
    sd_event_source_disable_unref(job->timer);
    plan_clear(&job->plan);
    strv_free(job->process.argv);
    for (size_t i = 0; i < 3; i++)
        close_fd(job->fds[i]);
    free(job);
}

static void answer(struct fake_job *job, enum message_type type, const void *message, int *fds, size_t fd_count)
{
    job->done(job->context, type, message, fds, fd_count, NULL);
    for (size_t i = 0; i < fd_count; i++)
        close_fd(fds[i]);
}

static void fail(struct fake_job *job, const char *code, const char *words)
{
    auto_error struct error *err = NULL;

    error_set(&err, EIO, code, "%s", words);
    job->done(job->context, MESSAGE_FAILED, NULL, NULL, 0, err);
}

static struct fake_instance *running(struct fake_job *job)
{
    struct fake_instance *instance = strmap_get(&job->executor->instances, job->id);

    if (!instance)
        fail(job, "INSTANCE_NOT_FOUND", "the fake executor does not know this instance");
    else if (!instance->running)
        fail(job, "CONFLICTING_STATE", "the fake instance has ended");
    return instance && instance->running ? instance : NULL;
}

static int on_life_over(sd_event_source *source, uint64_t usec, void *context)
{
    struct fake_instance *instance = context;

    fake_instance_exit(instance, instance->plan.fault.exit_status << 8);
    return 0;
}

static void job_start(struct fake_job *job)
{
    struct fake_executor *executor = job->executor;
    struct fake_instance *instance, *before;
    struct message_started started = {.uid_base = UID_BASE};
    uint64_t now = monotonic_ns();

    if (strcmp(job->plan.fault.step, "start") == 0) {
        fail(job, "START_FAILED", "fault asked for at step \"start\"");
        return;
    }
    before = strmap_get(&executor->instances, job->id);
    if (before && before->running) {
        fail(job, "CONFLICTING_STATE", "the fake instance runs already");
        return;
    }
    if (before)
        fake_instance_free(strmap_remove(&executor->instances, job->id));
    instance = fake_instance_new(executor, &job->plan);
    if (!instance || strmap_put(&executor->instances, instance->plan.id, instance) < 0) {
        fake_instance_free(instance);
        fail(job, "NO_MEMORY", "out of memory");
        return;
    }
    if (strcmp(instance->plan.fault.step, "run") == 0)
        sd_event_add_time_relative(executor->loop, &instance->life, CLOCK_MONOTONIC,
                                   (uint64_t)(instance->plan.fault.after_ms ?: LIFE_DEFAULT_MS) * 1000, 0, on_life_over,
                                   instance);
    started.pid = instance->pid;
    started.origin = instance->plan.start_mode == START_COLD       ? ORIGIN_COLD
                     : instance->plan.start_mode == START_SNAPSHOT ? ORIGIN_SNAPSHOT
                                                                   : ORIGIN_POOL;
    steps_add(&started.steps, "fake", now, monotonic_ns());
    answer(job, MESSAGE_STARTED, &started, NULL, 0);
}

static void job_signal(struct fake_job *job)
{
    struct fake_instance *instance = running(job);
    char text[64];

    if (!instance)
        return;
    if (strcmp(instance->plan.fault.step, "stop") == 0 && job->signal != SIGKILL) {
        fail(job, "INTERNAL", "fault asked for at step \"stop\"");
        return;
    }
    snprintf(text, sizeof(text), "signal %d", job->signal);
    fake_log(instance, "stderr", text);
    answer(job, MESSAGE_DONE, NULL, NULL, 0);
    bool deaf = strcmp(instance->plan.fault.step, "hang-stop") == 0 || instance->paused;
    if (job->signal == SIGKILL ||
        (!deaf && (job->signal == SIGTERM || job->signal == SIGINT || job->signal == SIGQUIT)))
        fake_instance_exit(instance, job->signal == SIGTERM ? 0 : job->signal);
}

static void job_cancel(struct fake_job *job)
{
    for (struct fake_job *other = job->executor->jobs; other; other = other->next) {
        if (other->request == job->number && other->type == MESSAGE_START) {
            fail(other, "CANCELLED", "the start was cancelled");
            job_free(other);
            break;
        }
    }
    answer(job, MESSAGE_DONE, NULL, NULL, 0);
}

static int on_exec_over(sd_event_source *source, uint64_t usec, void *context)
{
    struct fake_job *job = context;
    struct fake_executor *executor = job->executor;
    struct message_exec_exited exited = {.exec = job->number, .wait_status = job->signal << 8};

    memcpy(exited.id, job->id, sizeof(exited.id));
    job_free(job);
    if (executor->event)
        executor->event(executor->event_context, MESSAGE_EXEC_EXITED, &exited);
    return 0;
}

/* The command's output is there before the answer; its end is told by a later turn. Returns true when the job lives on.
 */
static bool job_exec(struct fake_job *job)
{
    struct fake_instance *instance = running(job);
    struct message_exec_started started;
    uint32_t delay = 0;
    int master = -1;

    if (!instance)
        return false;
    if (job->process.tty) {
        int ends[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
            fail(job, "EXEC_FAILED", "no terminal could be made");
            return false;
        }
        master = ends[0];
        job->fds[0] = ends[1];
    }
    int out = job->process.tty ? job->fds[0] : job->fds[1];
    job->signal = fake_run_command(job->process.argv, job->fds[0], out, &delay);
    job->number = started.exec = ++instance->execs;
    answer(job, MESSAGE_EXEC_STARTED, &started, &master, master >= 0);
    for (size_t i = 0; i < 3; i++)
        job->fds[i] = close_fd(job->fds[i]);
    job->timer = sd_event_source_disable_unref(job->timer);
    return sd_event_add_time_relative(job->executor->loop, &job->timer, CLOCK_MONOTONIC, (uint64_t)delay * 1000, 0,
                                      on_exec_over, job) >= 0;
}

static void job_logs(struct fake_job *job)
{
    struct fake_instance *instance = strmap_get(&job->executor->instances, job->id);
    char path[40];
    int fds[2];

    if (!instance) {
        fail(job, "INSTANCE_NOT_FOUND", "the fake executor does not know this instance");
        return;
    }
    /* a second description of the memfd, read-only and with its own offset; log.1 stays empty */
    snprintf(path, sizeof(path), "/proc/self/fd/%d", instance->log_fd);
    fds[0] = open(path, O_RDONLY | O_CLOEXEC);
    fds[1] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fds[0] < 0 || fds[1] < 0) {
        close_fd(fds[0]);
        close_fd(fds[1]);
        fail(job, "INTERNAL", "the log cannot be opened");
        return;
    }
    answer(job, MESSAGE_LOGS_REPLY, NULL, fds, 2);
}

static void job_console(struct fake_job *job)
{
    struct fake_instance *instance = running(job);
    auto_error struct error *err = NULL;
    int fd = -1;

    if (!instance)
        return;
    if (fake_console(instance, &fd, &err) < 0)
        job->done(job->context, MESSAGE_FAILED, NULL, NULL, 0, err);
    else
        answer(job, MESSAGE_CONSOLE_REPLY, NULL, &fd, 1);
}

static void job_list(struct fake_job *job)
{
    struct fake_executor *executor = job->executor;

    for (size_t i = 0; i < executor->instances.capacity; i++) {
        const struct fake_instance *instance = executor->instances.slots[i].value;
        struct message_instance m = {0};

        if (!executor->instances.slots[i].key)
            continue;
        memcpy(m.id, instance->plan.id, sizeof(m.id));
        memcpy(m.name, instance->plan.name, sizeof(m.name));
        m.pid = instance->pid;
        m.uid_base = UID_BASE;
        m.running = instance->running;
        m.paused = instance->paused;
        m.wait_status = instance->wait_status;
        m.status_known = true;
        m.exited_at_ns = instance->exited_at_ns;
        if (executor->event)
            executor->event(executor->event_context, MESSAGE_INSTANCE, &m);
    }
    answer(job, MESSAGE_DONE, NULL, NULL, 0);
}

static void job_release(struct fake_job *job)
{
    struct fake_instance *instance = strmap_remove(&job->executor->instances, job->id);

    if (!instance) {
        fail(job, "INSTANCE_NOT_FOUND", "the fake executor does not know this instance");
        return;
    }
    fake_instance_free(instance);
    answer(job, MESSAGE_DONE, NULL, NULL, 0);
}

static void job_small(struct fake_job *job)
{
    struct fake_instance *instance = running(job);
    struct instance_stats stats = {0};

    if (!instance)
        return;
    switch (job->type) {
    case MESSAGE_PAUSE:
    case MESSAGE_RESUME:
        instance->paused = job->type == MESSAGE_PAUSE;
        break;
    case MESSAGE_UPDATE:
        instance->plan.limits = job->limits;
        break;
    case MESSAGE_STATS:
        fake_stats(instance, &stats);
        answer(job, MESSAGE_STATS_REPLY, &stats, NULL, 0);
        return;
    default:
        break;
    }
    answer(job, MESSAGE_DONE, NULL, NULL, 0);
}

static int on_job(sd_event_source *source, uint64_t usec, void *context)
{
    struct fake_job *job = context;
    struct message_pool_reply pool = {0};

    switch (job->type) {
    case MESSAGE_START:
        job_start(job);
        break;
    case MESSAGE_SIGNAL:
        job_signal(job);
        break;
    case MESSAGE_EXEC:
        if (job_exec(job))
            return 0;
        break;
    case MESSAGE_LOGS:
        job_logs(job);
        break;
    case MESSAGE_CONSOLE:
        job_console(job);
        break;
    case MESSAGE_LIST:
        job_list(job);
        break;
    case MESSAGE_RELEASE:
        job_release(job);
        break;
    case MESSAGE_CANCEL:
        job_cancel(job);
        break;
    case MESSAGE_POOL:
        answer(job, MESSAGE_POOL_REPLY, &pool, NULL, 0);
        break;
    case MESSAGE_LINK_ADD:
    case MESSAGE_LINK_REMOVE:
    case MESSAGE_EXEC_SIGNAL:
        answer(job, MESSAGE_DONE, NULL, NULL, 0);
        break;
    default:
        job_small(job);
        break;
    }
    job_free(job);
    return 0;
}

/* ---- executor */

static int copy_process(const struct plan_process *from, struct plan_process *to)
{
    *to = (struct plan_process){.tty = from->tty, .argv = strv_copy(from->argv)};
    return from->argv && !to->argv ? -ENOMEM : 0;
}

/* Copies what a job needs out of the request. */
static int fill_job(struct fake_job *job, const void *message, const int *fds, size_t fd_count)
{
    const struct launch_plan *plan = message;

    switch (job->type) {
    case MESSAGE_START:
        job->plan = *plan;
        job->plan.process.env = NULL;
        job->plan.process.cwd = job->plan.process.user = NULL;
        memcpy(job->id, plan->id, sizeof(job->id));
        return copy_process(&plan->process, &job->plan.process);
    case MESSAGE_EXEC:
        memcpy(job->id, ((const struct message_exec *)message)->id, sizeof(job->id));
        for (size_t i = 0; i < fd_count && i < 3; i++)
            if ((job->fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3)) < 0)
                return -errno;
        return copy_process(&((const struct message_exec *)message)->process, &job->process);
    case MESSAGE_SIGNAL:
        memcpy(job->id, ((const struct message_signal *)message)->id, sizeof(job->id));
        job->signal = ((const struct message_signal *)message)->signal;
        return 0;
    case MESSAGE_UPDATE:
        memcpy(job->id, ((const struct message_update *)message)->id, sizeof(job->id));
        job->limits = ((const struct message_update *)message)->limits;
        return 0;
    case MESSAGE_CANCEL:
        job->number = ((const struct message_cancel *)message)->request;
        return 0;
    case MESSAGE_PAUSE:
    case MESSAGE_RESUME:
    case MESSAGE_STATS:
    case MESSAGE_RELEASE:
    case MESSAGE_LOGS:
    case MESSAGE_CONSOLE:
        memcpy(job->id, ((const struct message_id *)message)->id, sizeof(job->id));
        return 0;
    default:
        return 0;
    }
}

static int fake_request(struct executor *base, enum message_type type, const void *message, const int *fds,
                        size_t fd_count, executor_done done, void *context, uint32_t *ret_request, struct error **err)
{
    struct fake_executor *executor = (struct fake_executor *)base;
    struct fake_job *job = calloc(1, sizeof(*job));
    int r;

    if (!job)
        return error_set(err, ENOMEM, "NO_MEMORY", "fake executor: out of memory");
    *job = (struct fake_job){.executor = executor, .type = type, .fds = {-1, -1, -1}, .done = done, .context = context};
    job->request = ++executor->last_request;
    job->link = &executor->jobs;
    job->next = executor->jobs;
    if (job->next)
        job->next->link = &job->next;
    executor->jobs = job;
    r = fill_job(job, message, fds, fd_count);
    if (r >= 0 && strcmp(job->plan.fault.step, "hang-start") != 0)
        r = sd_event_add_time_relative(executor->loop, &job->timer, CLOCK_MONOTONIC,
                                       (uint64_t)job->plan.fault.start_ms * 1000, 1, on_job, job);
    if (r < 0) {
        job_free(job);
        return error_set_errno(err, -r, "INTERNAL", "fake executor");
    }
    if (ret_request)
        *ret_request = job->request;
    return 0;
}

static void fake_listen(struct executor *base, executor_event event, void *context)
{
    struct fake_executor *executor = (struct fake_executor *)base;

    executor->event = event;
    executor->event_context = context;
}

static void fake_destroy(struct executor *base)
{
    struct fake_executor *executor = (struct fake_executor *)base;

    while (executor->jobs)
        job_free(executor->jobs);
    for (size_t i = 0; i < executor->instances.capacity; i++)
        if (executor->instances.slots[i].key)
            fake_instance_free(executor->instances.slots[i].value);
    strmap_clear(&executor->instances);
    sd_event_unref(executor->loop);
    free(executor);
}

static const struct executor_ops fake_executor_ops = {
    .request = fake_request, .listen = fake_listen, .destroy = fake_destroy};

static int fake_make_executor(struct sd_event *loop, struct executor **ret, struct error **err)
{
    struct fake_executor *executor = calloc(1, sizeof(*executor));

    if (!executor)
        return error_set(err, ENOMEM, "NO_MEMORY", "fake executor: out of memory");
    executor->base.ops = &fake_executor_ops;
    executor->loop = sd_event_ref(loop);
    executor->last_pid = 1 << 22; /* above every pid of the kernel: nobody can mistake it for a process */
    *ret = &executor->base;
    return 0;
}

const struct driver_ops fake_driver = {
    .name = "fake",
    .guest_kinds = GUEST_FAKE,
    .start_modes = 1 << START_AUTO | 1 << START_COLD | 1 << START_POOL | 1 << START_SNAPSHOT,
    .verbs = VERB_STOP | VERB_PAUSE | VERB_UPDATE | VERB_EXEC | VERB_LOGS | VERB_CONSOLE | VERB_STATS,
    .probe = fake_probe,
    .plan = fake_plan,
    .make_executor = fake_make_executor,
};
