/* SPDX-License-Identifier: Apache-2.0 */
/*
 * START: from a plan to a running instance, on a worker thread. Checks everything, writes the record, takes a warm
 * shell or makes a cold one, gives it its network, starts the application. Whatever fails, what was made is taken back
 * in the reverse order, and a launcher that dies in between leaves a record of state "starting", which the next one
 * undoes.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "launcher/files.h"
#include "launcher/snapshots.h"
#include "launcher/start.h"
#include "launcher/templates.h"
#include "launcher/uplink.h"

enum {
    STORAGE_MIN = 64 * 1024,
    CAPABILITIES_TO_FORGE = 1 << CAP_NET_ADMIN | 1 << CAP_NET_RAW,
};

static int check_layers(const struct start *s, struct error **err)
{
    struct stat st;

    for (size_t n = 0; n < s->plan->root.layer_count; n++) {
        const char *hex = s->plan->root.layers[n];
        if (fstatat(s->l->layers_fd, hex, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode)) {
            error_set(err, ENOENT, "IMAGE_NOT_FOUND", "layer %s is not in the image store", hex);
            error_hint(err, "import the image again");
            return -ENOENT;
        }
    }
    return 0;
}

static int check_links(const struct start *s, struct error **err)
{
    struct link link;

    for (size_t n = 0; n < s->plan->nic_count; n++)
        if (fabric_link_get(s->l->fabric, s->plan->nics[n].link, &link) < 0)
            return error_set(err, ENOENT, "NETWORK_NOT_FOUND", "there is no network %s", s->plan->nics[n].link);
    return 0;
}

/* The plan comes from a process that may be compromised: every bound is looked at again here. */
static int check_plan(struct start *s, struct error **err)
{
    struct launch_plan *p = s->plan;
    int r;

    r = plan_validate(p, err);
    if (r < 0)
        return r;
    if (p->kind == PLAN_CONTAINER)
        s->ops = &start_container;
    else if (p->kind == PLAN_MACHINE)
        s->ops = &start_machine;
    else
        return error_set(err, EINVAL, "LAUNCHER_REFUSED", "the launcher does not run plans of kind %d", p->kind);
    if (p->capabilities & ~runtime_capabilities_allowed())
        return error_set(err, EPERM, "LAUNCHER_REFUSED", "the plan asks for capabilities nobody may have (0x%x)",
                         p->capabilities & ~runtime_capabilities_allowed());
    if ((p->capabilities & CAPABILITIES_TO_FORGE) && !fabric_guarded(s->l->fabric)) {
        error_set(err, EOPNOTSUPP, "UNSUPPORTED_BY_TECHNOLOGY",
                  "capabilities: this host cannot keep an instance with NET_RAW or NET_ADMIN to its own addresses");
        error_hint(err, "install nftables (and a kernel with nf_tables for bridges) and restart the launcher");
        return -EOPNOTSUPP;
    }
    if (!p->log_bytes_max)
        p->log_bytes_max = s->l->options.log_bytes;
    if (!p->root.read_only && !p->root.writable_bytes)
        p->root.writable_bytes = s->l->options.storage_default;
    if (!p->root.read_only && p->root.writable_bytes < STORAGE_MIN)
        return error_set(err, EINVAL, "INVALID_VALUE", "storage: at least %d bytes are needed", STORAGE_MIN);
    r = limits_settle(s->l, &p->limits, err);
    if (r == 0)
        r = check_layers(s, err);
    if (r == 0)
        r = check_links(s, err);
    return r < 0 ? r : uplink_check(s->l, p, err);
}

int start_check_cancelled(const struct start *s, struct error **err)
{
    if (!atomic_load(&s->job->cancelled))
        return 0;
    return error_set(err, ECANCELED, "CANCELLED", "the start of %s was cancelled", s->plan->name);
}

int start_failed(struct error **err, const char *what)
{
    int e = errno;

    return error_set_errno(err, e, e == ENOSPC || e == EDQUOT ? "NO_SPACE" : "START_FAILED", "%s", what);
}

/* A warm shell brings empty log files, which become this instance's by a rename after the application runs (keep_logs);
 * an instance that ran before, or left logs, goes on with its own. */
static int open_logs(struct start *s, struct error **err)
{
    struct warm_shell *w = &s->shell;

    if (w->spare[0] && faccessat(s->l->logs_fd, s->i->id, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT) {
        memcpy(s->log_fds, w->log_fds, sizeof(s->log_fds));
        w->log_fds[0] = w->log_fds[1] = -1;
        return 0;
    }
    warm_shell_drop_logs(s->l, w);
    return logs_open(s->l, s->i->id, s->log_fds, err);
}

/* Off the way to the application's first instruction, because a rename waits for the disk's journal while the daemon
 * commits; before the record says "running", so that a crash in between undoes the start and sweeps the files. */
static int keep_logs(struct start *s, struct error **err)
{
    struct warm_shell *w = &s->shell;

    if (!w->spare[0])
        return 0;
    if (renameat2(s->l->logs_fd, w->spare, s->l->logs_fd, s->i->id, RENAME_NOREPLACE) < 0)
        return start_failed(err, "keeping the log files");
    w->spare[0] = '\0';
    return 0;
}

/* A warm shell brings the folder, with exit file and socket, which a rename makes this instance's. */
static int open_folder(struct start *s, struct error **err)
{
    struct warm_shell *w = &s->shell;
    int r;

    if (s->dir < 0 && w->dir >= 0 &&
        renameat2(s->l->instances_fd, w->spare, s->l->instances_fd, s->i->id, RENAME_NOREPLACE) == 0) {
        s->dir = take_fd(&w->dir);
        s->exit_fd = take_fd(&w->exit_fd);
        s->listen_fd = take_fd(&w->listen_fd);
        s->own_folder = true;
        return 0;
    }
    r = s->dir < 0 ? instance_directory(s->l, s->i->id, &s->dir, err) : 0;
    warm_shell_drop_folder(s->l, w);
    return r;
}

static void run_files(void *context)
{
    struct start *s = context;
    struct files_work *f = &s->files;

    f->begin_ns = monotonic_ns();
    f->result = open_logs(s, &f->err);
    if (f->result == 0 && s->exit_fd < 0)
        f->result = instance_files_open(s->dir, &s->exit_fd, &s->listen_fd, &f->err);
    f->end_ns = monotonic_ns();
}

/* A warm shell brings its files: nothing that another thread should be woken for. */
void start_begin_files(struct start *s)
{
    beside_begin(s->prepared ? NULL : s->l->beside, &s->files.work, run_files, s);
}

static int end_files(struct start *s, struct error **err)
{
    struct files_work *f = &s->files;

    beside_end(s->prepared ? NULL : s->l->beside, &f->work);
    steps_add(&s->steps, "files", f->begin_ns, f->end_ns);
    if (f->result < 0 && err)
        *err = take_ptr(f->err);
    return f->result;
}

/* Numbers and, from the pool or to be made, the shell they belong to. */
static int take_numbers(struct start *s, struct error **err)
{
    struct instance *i = s->i;

    if (!i->has_uid && slots_take(&s->l->uids, &i->uid_slot) < 0) {
        error_set(err, ENOSPC, "UID_POOL_EXHAUSTED", "all %d uid ranges are in use", SLOT_COUNT);
        error_hint(err, "remove instances that have ended");
        return -ENOSPC;
    }
    i->has_uid = true;
    if (slots_take(&s->l->numbers, &i->ports.number) < 0)
        return error_set(err, ENOSPC, "UID_POOL_EXHAUSTED", "all interface numbers are in use");
    i->has_number = true;
    return 0;
}

/* A prepared shell brings its own uid range, which a kept writable layer does not fit. */
static int choose_shell(struct start *s, struct error **err)
{
    enum start_mode mode = s->plan->start_mode;
    int r;

    if (s->plan->machine.snapshot[0] && (r = snapshot_read(s->l, s->plan->machine.snapshot, &s->snapshot_fd, err)) < 0)
        return r;
    s->prepared = mode != START_COLD && !s->i->has_uid && s->ops->take_prepared(s);
    s->origin = s->snapshot_fd >= 0 || s->shell.guest == GUEST_RESTORED ? ORIGIN_SNAPSHOT
                : s->prepared                                           ? ORIGIN_POOL
                                                                        : ORIGIN_COLD;
    if (s->prepared)
        return 0;
    if (mode == START_POOL || (mode == START_SNAPSHOT && s->snapshot_fd < 0)) {
        error_set(err, EAGAIN, "CONFLICTING_STATE", "start_mode %s is ready for this image",
                  mode == START_POOL ? "pool: no warm shell" : "snapshot: no snapshot");
        error_hint(err, "wait until `coracle doctor` shows one ready, or use start_mode auto");
        return -EAGAIN;
    }
    return take_numbers(s, err);
}

static void note_ports(struct start *s)
{
    s->i->published_count = s->plan->port_count;
    memcpy(s->i->published, s->plan->ports, sizeof(s->i->published));
}

static int write_first_record(struct start *s, struct error **err)
{
    struct fabric_ports all = s->i->ports;
    int r;

    /* the record names every address the start may make, the instance only what it has */
    note_ports(s);
    s->i->ports.count = (uint32_t)s->plan->nic_count;
    memset(&s->i->record, 0, sizeof(s->i->record));
    s->i->state = s->again ? INSTANCE_ENDED : INSTANCE_STARTING; /* what a successor should find */
    r = record_write(s->l, s->i, s->dir, err);
    s->i->state = INSTANCE_STARTING;
    s->i->ports.count = all.count;
    s->i->published_count = 0;
    return r;
}

/* After a failure elsewhere: what was begun is over, its own failure nobody's concern. */
static void drop_files(struct start *s)
{
    beside_drop(s->prepared ? NULL : s->l->beside, &s->files.work);
    error_free(take_ptr(s->files.err));
}

static int give_addresses(struct start *s, struct error **err)
{
    uint64_t begin = monotonic_ns();
    int r = s->ops->give_addresses(s, err);

    steps_add(&s->steps, "addresses", begin, monotonic_ns());
    if (r < 0 || !s->plan->port_count)
        return r;
    begin = monotonic_ns();
    r = uplink_publish(s->l->uplink, s->i->id, &s->i->ports.list[0], s->plan->ports, s->plan->port_count, err);
    if (r == 0)
        s->i->published_count = s->plan->port_count;
    steps_add(&s->steps, "publish", begin, monotonic_ns());
    return r;
}

static int start_application(struct start *s, struct error **err)
{
    struct instance *i = s->i;
    int r = s->ops->run(s, err);

    if (r < 0)
        return r;
    container_record(i->container, &i->record);
    i->writable = !s->plan->root.read_only && s->plan->kind == PLAN_CONTAINER;
    i->carrier = s->plan->kind == PLAN_MACHINE && s->plan->machine.carrier[0];
    i->state = INSTANCE_RUNNING;
    uint64_t begin = monotonic_ns();
    r = keep_logs(s, err);
    if (r == 0)
        r = record_write(s->l, i, s->dir, err);
    steps_add(&s->steps, "record again", begin, monotonic_ns());
    if (r == 0)
        r = start_check_cancelled(s, err);
    if (r == 0 && watch(s->l, container_pidfd(i->container), i->serial, 0, false) < 0)
        r = error_set_errno(err, errno, "INTERNAL", "watching the instance");
    return r;
}

/* Takes back everything a failed start made; an instance that ran before is as it was. */
static void undo(struct start *s)
{
    auto_error struct error *err = NULL;
    struct instance *i = s->i;
    bool clean = true;

    drop_files(s);
    warm_shell_drop_folder(s->l, &s->shell);
    warm_shell_drop_logs(s->l, &s->shell);
    if (i->container) {
        unwatch(s->l, container_pidfd(i->container));
        clean = container_destroy(take_ptr(i->container), &err) == 0;
    }
    if (s->ops->abandon(s, &err) < 0)
        clean = false;
    if (!clean) {
        log_error(i->id, err, "a failed start left something behind");
        i->has_uid = false; /* its range stays blocked until the next sweep */
    }
    if (!s->again && s->dir >= 0)
        runtime_writable_release(s->dir, NULL);
    instance_release_host(s->l, i, s->again && i->writable);
}

static void settle_failure(struct start *s)
{
    struct instance *i = s->i;

    undo(s);
    if (s->again) {
        i->state = INSTANCE_ENDED;
        record_write(s->l, i, s->dir, NULL);
    } else {
        instance_remove_files(s->l, i->id);
        i->state = INSTANCE_NONE;
    }
}

static int build(struct start *s, struct error **err)
{
    uint64_t begin = monotonic_ns();
    int r;

    r = s->again ? instance_directory(s->l, s->i->id, &s->dir, err) : 0;
    if (r == 0)
        r = choose_shell(s, err);
    if (r == 0)
        r = open_folder(s, err);
    if (r == 0)
        r = fabric_claim(s->l->fabric, &s->i->ports, s->plan->nics, (uint32_t)s->plan->nic_count, err);
    if (r == 0)
        r = write_first_record(s, err);
    steps_add(&s->steps, "record", begin, monotonic_ns());
    if (r == 0 && s->prepared)
        start_begin_files(s);
    else if (r == 0)
        r = s->ops->make_cold(s, err);
    if (r == 0)
        r = give_addresses(s, err);
    if (r == 0)
        r = end_files(s, err);
    if (r == 0)
        r = start_check_cancelled(s, err);
    return r < 0 ? r : start_application(s, err);
}

static void close_files(struct start *s)
{
    int *fds[] = {&s->dir, &s->log_fds[0], &s->log_fds[1], &s->exit_fd, &s->listen_fd, &s->snapshot_fd};

    for (size_t n = 0; n < sizeof(fds) / sizeof(fds[0]); n++)
        *fds[n] = close_fd(*fds[n]);
}

/* Builds and settles; a prepared shell that turns out unfit is replaced by a cold one where the plan leaves the choice.
 */
static int attempt(struct start *s, struct error **err)
{
    auto_error struct error *first = NULL;
    int r = build(s, &first);

    if (r == 0)
        return 0;
    settle_failure(s);
    if (s->origin != ORIGIN_COLD && s->plan->start_mode == START_AUTO && strcmp(first->code, "START_FAILED") == 0) {
        log_error(s->i->id, first, "the start from a prepared shell failed, trying a cold one");
        close_files(s);
        s->plan->start_mode = START_COLD;
        s->steps.count = 0;
        s->own_folder = false;
        s->i->state = INSTANCE_STARTING;
        r = build(s, err);
        if (r < 0)
            settle_failure(s);
        return r;
    }
    if (err)
        *err = take_ptr(first);
    return r;
}

void job_start(struct launcher *l, struct job *job)
{
    struct start s = {.l = l,
                      .job = job,
                      .i = job->instance,
                      .plan = job->message.body,
                      .shell = WARM_SHELL_NONE,
                      .dir = -1,
                      .log_fds = {-1, -1},
                      .exit_fd = -1,
                      .listen_fd = -1,
                      .snapshot_fd = -1};
    auto_error struct error *err = NULL;
    struct message_started started = {0};
    uint64_t begin = monotonic_ns();
    int r;

    if (s.i->state == INSTANCE_RUNNING)
        r = error_set(&err, EBUSY, "CONFLICTING_STATE", "%s is running already", s.i->name);
    else
        r = start_check_cancelled(&s, &err);
    if (r == 0)
        r = check_plan(&s, &err);
    steps_add(&s.steps, "check", begin, monotonic_ns());
    if (r == 0) {
        s.again = s.i->state == INSTANCE_ENDED;
        s.i->state = INSTANCE_STARTING;
        s.i->paused = false;
        snprintf(s.i->name, sizeof(s.i->name), "%s", s.plan->name);
        if (s.again && !s.i->writable)
            instance_release_host(l, s.i, false);
        r = attempt(&s, &err);
    }
    if (r == 0) {
        started.pid = s.i->record.pid;
        started.uid_base = s.i->record.uid_base;
        started.origin = s.origin;
        started.steps = s.steps;
        reply(l, job, MESSAGE_STARTED, &started, NULL, 0);
        template_learn(l, s.plan);
        pool_learn(l, s.plan);
    } else {
        reply_error(l, job, err);
    }
    close_files(&s);
    if (r == 0)
        log_line(LOG_LEVEL_INFO, s.i->id, "started %s (%s) in %llu us, pid %d", s.i->name, start_origin_name(s.origin),
                 (unsigned long long)(monotonic_ns() - begin) / 1000, started.pid);
    else
        log_error(s.i->id, err, "start of %s failed", s.plan->name[0] ? s.plan->name : "an instance");
}
