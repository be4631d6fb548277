/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that is asked of an instance besides starting it, and its end. Runs on a worker thread, one job of an
 * instance at a time. A table says what each message needs; handlers answer for themselves.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "launcher/files.h"
#include "launcher/instance.h"
#include "launcher/machine_exec.h"
#include "launcher/machines.h"
#include "launcher/pool.h"
#include "launcher/snapshots.h"
#include "monitor/monitor_client.h"

enum { MONITOR_TIMEOUT_MS = 5000 };

static int operate_signal(struct launcher *l, struct job *job, struct error **err)
{
    const struct message_signal *m = job->message.body;

    if (m->signal < 1 || m->signal > SIGRTMAX)
        return error_set(err, EINVAL, "INVALID_VALUE", "signal %d does not exist", m->signal);
    if (m->signal == SIGKILL)
        return container_kill_all(job->instance->container, err);
    if (job->instance->carrier)
        return machine_signal(l, job->instance, m->signal, err);
    return container_signal(job->instance->container, m->signal, err);
}

static int operate_pause(struct launcher *l, struct job *job, struct error **err)
{
    int r = container_pause(job->instance->container, err);

    if (r == 0)
        job->instance->paused = true;
    return r;
}

static int operate_resume(struct launcher *l, struct job *job, struct error **err)
{
    int r = container_resume(job->instance->container, err);

    if (r == 0)
        job->instance->paused = false;
    return r;
}

/* The bounds plan_validate() sets for a plan hold for an update too. */
static int check_limits(struct launcher *l, const struct job *job, struct error **err)
{
    struct message_update *m = job->message.body;
    struct launch_plan probe = {.kind = PLAN_FAKE, .limits = m->limits, .name = "x", .hostname = "x"};
    int r;

    memcpy(probe.id, m->id, sizeof(probe.id));
    r = plan_validate(&probe, err);
    return r < 0 ? r : limits_settle(l, &m->limits, err);
}

static int operate_update(struct launcher *l, struct job *job, struct error **err)
{
    const struct message_update *m = job->message.body;
    auto_fd int dir = -1;
    int r;

    r = check_limits(l, job, err);
    if (r == 0)
        r = instance_directory(l, job->instance->id, &dir, err);
    if (r == 0 && m->vcpus)
        r = machine_grow(job->instance, dir, m->vcpus, m->machine_bytes, err);
    return r < 0 ? r : container_update(job->instance->container, &m->limits, dir, err);
}

static int operate_stats(struct launcher *l, struct job *job, struct error **err)
{
    struct instance *i = job->instance;
    struct instance_stats reply_stats = {0};
    struct container_stats c;
    struct netlink_stats n;
    int r;

    r = container_stats(i->container, &c, err);
    if (r < 0)
        return r;
    reply_stats = (struct instance_stats){.known = c.known,
                                          .cpu_ns = c.cpu_ns,
                                          .memory_bytes = c.memory_bytes,
                                          .memory_peak_bytes = c.memory_peak_bytes,
                                          .pids = c.pids,
                                          .oom_kills = c.oom_kills,
                                          .throttled_ns = c.throttled_ns,
                                          .io_read_bytes = c.io_read_bytes,
                                          .io_write_bytes = c.io_write_bytes};
    if (fabric_stats(l->fabric, &i->ports, &n, NULL) == 0) {
        reply_stats.known |= 1u << STAT_NET;
        reply_stats.rx_packets = n.rx_packets;
        reply_stats.rx_bytes = n.rx_bytes;
        reply_stats.rx_dropped = n.rx_dropped;
        reply_stats.tx_packets = n.tx_packets;
        reply_stats.tx_bytes = n.tx_bytes;
        reply_stats.tx_dropped = n.tx_dropped;
    }
    reply(l, job, MESSAGE_STATS_REPLY, &reply_stats, NULL, 0);
    return 1;
}

/* ---- exec ---- */

static int keep_execution(struct launcher *l, struct instance *i, const struct runtime_exec *exec, struct error **err)
{
    struct execution *e = calloc(1, sizeof(*e));

    if (!e)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for an execution");
    e->exec = *exec;
    e->exec.terminal = -1;
    if (watch(l, exec->connection, i->serial, exec->number, false) < 0) {
        free(e);
        return error_set_errno(err, errno, "INTERNAL", "watching an execution");
    }
    e->next = i->executions;
    i->executions = e;
    return 0;
}

static int signal_execution(const struct instance *i, const struct runtime_exec *exec, int signal, struct error **err)
{
    return i->carrier ? machine_exec_signal(exec, signal, err) : runtime_exec_signal(exec, signal, err);
}

static int operate_exec(struct launcher *l, struct job *job, struct error **err)
{
    const struct message_exec *m = job->message.body;
    struct message_exec_started started;
    struct runtime_exec exec;
    int r;

    if (!m->process.argv || !m->process.argv[0] || !m->process.cwd || m->process.cwd[0] != '/')
        return error_set(err, EINVAL, "INVALID_VALUE", "exec: a command and an absolute directory are needed");
    if (!m->process.tty && job->message.fd_count != 3)
        return error_set(err, EINVAL, "PROTOCOL_ERROR", "exec without a terminal needs three descriptors");
    r = job->instance->carrier ? machine_exec(l, job->instance, &m->process, job->message.fds, &exec, err)
                               : container_exec(job->instance->container, &m->process, job->message.fds, &exec, err);
    if (r < 0)
        return r;
    started.exec = exec.number;
    auto_fd int terminal = exec.terminal;
    exec.terminal = -1;
    r = keep_execution(l, job->instance, &exec, err);
    if (r < 0) {
        signal_execution(job->instance, &exec, SIGKILL, NULL);
        runtime_exec_close(&exec);
        return r;
    }
    reply(l, job, MESSAGE_EXEC_STARTED, &started, &terminal, terminal >= 0 ? 1 : 0);
    return 1;
}

static struct execution **find_execution(struct instance *i, uint32_t number)
{
    struct execution **place = &i->executions;

    while (*place && (*place)->exec.number != number)
        place = &(*place)->next;
    return place;
}

static int operate_exec_signal(struct launcher *l, struct job *job, struct error **err)
{
    const struct message_exec_signal *m = job->message.body;
    struct execution *e = *find_execution(job->instance, m->exec);

    if (!e)
        return error_set(err, ESRCH, "CONFLICTING_STATE", "execution %u has ended", m->exec);
    if (m->signal < 1 || m->signal > SIGRTMAX)
        return error_set(err, EINVAL, "INVALID_VALUE", "signal %d does not exist", m->signal);
    return signal_execution(job->instance, &e->exec, m->signal, err);
}

static void end_execution(struct launcher *l, struct instance *i, struct execution **place, int wait_status)
{
    struct message_exec_exited m = {.exec = (*place)->exec.number, .wait_status = wait_status};
    struct execution *e = *place;

    memcpy(m.id, i->id, sizeof(m.id));
    unwatch(l, e->exec.connection);
    runtime_exec_close(&e->exec);
    *place = e->next;
    free(e);
    send_event(l, MESSAGE_EXEC_EXITED, &m);
}

static void execution_ended(struct launcher *l, struct instance *i, uint32_t number)
{
    struct execution **place = find_execution(i, number);
    int status = SIGKILL, r;

    if (!*place)
        return;
    r = i->carrier ? machine_exec_wait(&(*place)->exec, &status) : runtime_exec_wait(&(*place)->exec, &status);
    if (r == -EAGAIN)
        watch(l, (*place)->exec.connection, i->serial, number, true);
    else
        end_execution(l, i, place, r < 0 ? SIGKILL : status);
}

/* ---- logs, console ---- */

static int operate_logs(struct launcher *l, struct job *job, struct error **err)
{
    auto_fd int dir = openat(l->logs_fd, job->instance->id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    auto_fd int first = -1, second = -1;

    if (dir < 0)
        return error_set(err, ENOENT, "INSTANCE_NOT_FOUND", "there are no logs of instance %s", job->instance->id);
    first = openat(dir, "log.0", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    second = openat(dir, "log.1", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (first < 0 || second < 0)
        return error_set_errno(err, errno, "INTERNAL", "opening the log files");
    reply(l, job, MESSAGE_LOGS_REPLY, NULL, (int[]){first, second}, 2);
    return 1;
}

/* Its monitor has the write end of the guest's console input. */
static int machine_console(struct launcher *l, struct instance *i, int *ret_fd, struct error **err)
{
    auto_fd int dir = -1, connection = -1;
    int r = i->paused ? error_set(err, EBUSY, "CONFLICTING_STATE", "%s is paused: its monitor does not answer", i->name)
                      : instance_directory(l, i->id, &dir, err);

    if (r == 0)
        r = monitor_connect(dir, "init.sock", &connection, err);
    if (r == 0)
        r = instance_asks(i, connection, err);
    if (r < 0)
        return r;
    r = monitor_open_console(connection, MONITOR_TIMEOUT_MS, ret_fd, err);
    return instance_asked(i, r, err);
}

static int operate_console(struct launcher *l, struct job *job, struct error **err)
{
    auto_fd int fd = -1;
    int r = job->instance->record.machine ? machine_console(l, job->instance, &fd, err)
                                          : container_console(job->instance->container, &fd, err);

    if (r < 0)
        return r;
    reply(l, job, MESSAGE_CONSOLE_REPLY, NULL, &fd, 1);
    return 1;
}

static int operate_snapshot(struct launcher *l, struct job *job, struct error **err)
{
    const struct message_snapshot *m = job->message.body;

    if (!instance_id_valid(m->snapshot))
        return error_set(err, EINVAL, "INVALID_VALUE", "a snapshot's file is not named by a UUID");
    return snapshot_write(l, job->instance, m->snapshot, err);
}

/* ---- the end ---- */

/* Ends executions, reads how the application ended, frees processes and network. keep_record: the
 * instance stays known as ended. Returns -errno when something was left behind. */
static int bury(struct launcher *l, struct instance *i, bool keep_record, struct error **err)
{
    auto_error struct error *ignored = NULL;
    auto_fd int dir = -1;
    int r;

    while (i->executions)
        end_execution(l, i, &i->executions, SIGKILL);
    unwatch(l, container_pidfd(i->container));
    r = instance_directory(l, i->id, &dir, err);
    if (r == 0 && container_exit_read(i->container, dir, &i->exit, &ignored) < 0) {
        log_error(i->id, ignored, "how it ended cannot be read");
        i->exit = (struct container_exit){.wait_status = SIGKILL};
    }
    r = container_destroy(take_ptr(i->container), err);
    i->paused = false;
    i->state = INSTANCE_ENDED;
    instance_release_host(l, i, i->writable);
    if (r < 0)
        i->has_uid = false; /* something of it still runs: its uid range stays blocked until the next sweep */
    if (dir >= 0 && (keep_record || r < 0))
        record_write(l, i, dir, NULL); /* on a full /run the exit file still tells */
    return r;
}

void job_ended(struct launcher *l, struct job *job)
{
    auto_error struct error *err = NULL;
    struct instance *i = job->instance;
    struct message_exited m;

    if (job->exec) {
        execution_ended(l, i, job->exec);
        return;
    }
    if (i->state != INSTANCE_RUNNING || container_alive(i->container))
        return; /* released or started anew in the meantime */
    if (bury(l, i, true, &err) < 0)
        log_error(i->id, err, "something of the ended instance was left behind");
    m = (struct message_exited){.wait_status = i->exit.wait_status,
                                .oom = i->exit.oom,
                                .status_known = i->exit.status_known,
                                .exited_at_ns = i->exit.exited_at_ns};
    memcpy(m.id, i->id, sizeof(m.id));
    log_line(LOG_LEVEL_INFO, i->id, "ended with wait status 0x%x%s", i->exit.wait_status,
             i->exit.oom ? ", out of memory" : "");
    send_event(l, MESSAGE_EXITED, &m);
}

static int operate_release(struct launcher *l, struct job *job, struct error **err)
{
    struct instance *i = job->instance;
    auto_fd int dir = -1;
    struct stat st;
    int r;

    if (i->state == INSTANCE_NONE) {
        bool had_files = fstatat(l->logs_fd, i->id, &st, AT_SYMLINK_NOFOLLOW) == 0;
        instance_remove_files(l, i->id);
        return had_files ? 0 : error_set(err, ENOENT, "INSTANCE_NOT_FOUND", "there is no instance %s", i->id);
    }
    if (i->state == INSTANCE_RUNNING) {
        r = bury(l, i, false, err);
        if (r < 0)
            return r;
    }
    r = instance_directory(l, i->id, &dir, err);
    if (r == 0)
        r = runtime_writable_release(dir, err);
    if (r < 0)
        return r;
    instance_release_host(l, i, false);
    instance_remove_files(l, i->id);
    i->state = INSTANCE_NONE; /* forgotten when no job is left */
    return 0;
}

/* What each request needs of the instance. A handler returns 0 (DONE is sent), 1 (it has answered) or -errno. */
static const struct operation {
    bool running, known;
    int (*run)(struct launcher *l, struct job *job, struct error **err);
} operations[MESSAGE_TYPE_COUNT] = {
    [MESSAGE_SIGNAL] = {true, true, operate_signal},     [MESSAGE_PAUSE] = {true, true, operate_pause},
    [MESSAGE_RESUME] = {true, true, operate_resume},     [MESSAGE_UPDATE] = {true, true, operate_update},
    [MESSAGE_STATS] = {true, true, operate_stats},       [MESSAGE_EXEC] = {true, true, operate_exec},
    [MESSAGE_CONSOLE] = {true, true, operate_console},   [MESSAGE_EXEC_SIGNAL] = {true, true, operate_exec_signal},
    [MESSAGE_SNAPSHOT] = {true, true, operate_snapshot}, [MESSAGE_LOGS] = {false, false, operate_logs},
    [MESSAGE_RELEASE] = {false, false, operate_release},
};

void job_operate(struct launcher *l, struct job *job)
{
    const struct operation *o = &operations[job->message.type];
    auto_error struct error *err = NULL;
    struct instance *i = job->instance;
    int r;

    if (!o->run)
        r = error_set(&err, EPROTO, "PROTOCOL_ERROR", "%s is no request", proto_type_name(job->message.type));
    else if (o->known && i->state == INSTANCE_NONE)
        r = error_set(&err, ENOENT, "INSTANCE_NOT_FOUND", "there is no instance %s", i->id);
    else if (o->running && i->state != INSTANCE_RUNNING)
        r = error_set(&err, ESRCH, "CONFLICTING_STATE", "%s is not running", i->name);
    else
        r = o->run(l, job, &err);
    if (r < 0)
        reply_error(l, job, err);
    else if (r == 0)
        reply(l, job, MESSAGE_DONE, NULL, NULL, 0);
}
