/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots to start from (templates.h). Theory of operation:
 *
 * A template is a plan without what makes an instance itself: the identity and the wires are left out. Its guest is
 * booted like any other, in cgroups of its own with the plan's limits, until it says that its application listens; then
 * the monitor writes it into a sealed memory file, and the guest ends. What the guest wrote there is the tenant's own
 * image's doing, and only plans with the very same image, size and arguments start from it. The table holds those used
 * last, as many as are allowed and as fit into their share of the host's memory: who a template's memory is charged to
 * is gone when it is made. A template that fails, or fills the share by itself, is not tried again until it is learned
 * again after RETRY_S.
 *
 * A guest may never get ready, so a thread of its own waits for it: the pool and the end of the launcher do not.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "launcher/files.h"
#include "launcher/instance.h"
#include "launcher/machines.h"
#include "launcher/pool.h"
#include "launcher/templates.h"
#include "monitor/monitor_client.h"

enum {
    READY_TIMEOUT_MS = 5000,
    EMULATED_READY_TIMEOUT_MS = 240000,
    SNAPSHOT_TIMEOUT_MS = 10000,
    RETRY_S = 30,
    STACK_BYTES = 512 * 1024,
    MAKE_NICE = 10,
    MEMORY_SHARE = 8, /* of the host's memory one part, where host.conf says nothing */
};

struct template
{
    struct launch_plan plan; /* identity left out; owns its strings */
    int fd;                  /* sealed memory file, -1: not made yet */
    uint64_t bytes;
    bool failed;
    uint64_t failed_at_ns;
};

struct templates {
    pthread_t thread;
    bool running;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_bool stopping;
    int making; /* pidfd of the monitor whose guest is waited for, -1; borrowed */
    unsigned max, count;
    uint64_t bytes_max;
    struct template *list; /* most recently used first */
    uint64_t made;
    uint32_t generation; /* raised by template_drop(): one made meanwhile may be stale */
};

static bool same_text(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") == 0;
}

bool template_same(const struct launch_plan *a, const struct launch_plan *b)
{
    const struct plan_machine *m = &a->machine, *n = &b->machine;

    if (m->monitor != n->monitor || m->boot != n->boot || m->kvm != n->kvm || m->memory_bytes != n->memory_bytes ||
        m->vcpus != n->vcpus || m->memory_max_bytes != n->memory_max_bytes || m->vcpus_max != n->vcpus_max ||
        a->nic_count != b->nic_count || a->root.layer_count != b->root.layer_count ||
        !same_text(m->parameters, n->parameters))
        return false;
    for (size_t i = 0; i < a->root.layer_count; i++)
        if (strcmp(a->root.layers[i], b->root.layers[i]) != 0)
            return false;
    return true;
}

static struct template *find(struct templates *t, const struct launch_plan *plan)
{
    for (unsigned i = 0; i < t->count; i++)
        if (template_same(&t->list[i].plan, plan))
            return &t->list[i];
    return NULL;
}

static void clear(struct template *t)
{
    plan_clear(&t->plan);
    close_fd(t->fd);
}

int template_plan_copy(const struct launch_plan *plan, struct launch_plan *ret)
{
    struct launch_plan copy = {
        .kind = PLAN_MACHINE, .root = plan->root, .limits = plan->limits, .log_bytes_max = plan->log_bytes_max};

    copy.machine = plan->machine;
    copy.machine.identity = NULL;
    copy.machine.parameters = NULL;
    if (plan->machine.parameters && !(copy.machine.parameters = strdup(plan->machine.parameters)))
        return -ENOMEM;
    snprintf(copy.name, sizeof(copy.name), "template");
    snprintf(copy.id, sizeof(copy.id), "%s", plan->id);
    copy.nic_count = plan->nic_count;
    for (size_t i = 0; i < plan->nic_count; i++) /* the guest must not take it for its own: all devices have the same */
        memcpy(copy.nics[i].mac, (const uint8_t[6]){2}, 6);
    *ret = copy;
    return 0;
}

int template_take(struct launcher *l, const struct launch_plan *plan)
{
    struct templates *t = l->templates;
    const struct template *found;
    int fd = -1;

    if (!plan->machine.restorable || !t->max)
        return -1;
    pthread_mutex_lock(&t->lock);
    found = find(t, plan);
    if (found && found->fd >= 0)
        fd = fcntl(found->fd, F_DUPFD_CLOEXEC, 3);
    pthread_mutex_unlock(&t->lock);
    return fd;
}

/* Puts the entry in front; the least recently used one makes room. Under the lock. */
static void promote(struct templates *t, struct template moved, unsigned from)
{
    memmove(t->list + 1, t->list, from * sizeof(moved));
    t->list[0] = moved;
}

bool template_awaited(struct launcher *l, const struct launch_plan *plan)
{
    struct templates *t = l->templates;
    const struct template *found;

    pthread_mutex_lock(&t->lock);
    found = find(t, plan);
    bool awaited = found && found->fd < 0 && !found->failed;
    pthread_mutex_unlock(&t->lock);
    return awaited;
}

void template_learn(struct launcher *l, const struct launch_plan *plan)
{
    struct templates *t = l->templates;
    struct template fresh = {.fd = -1};
    struct template *found;

    if (plan->kind != PLAN_MACHINE || !plan->machine.restorable || !t->max)
        return;
    pthread_mutex_lock(&t->lock);
    found = find(t, plan);
    if (found) {
        if (found->failed && monotonic_ns() - found->failed_at_ns > RETRY_S * UINT64_C(1000000000))
            found->failed = false;
        found->plan.limits = plan->limits; /* who asked first with too little to get ready does not decide for all */
        promote(t, *found, (unsigned)(found - t->list));
    } else if (template_plan_copy(plan, &fresh.plan) == 0) {
        if (t->count == t->max)
            clear(&t->list[--t->count]);
        promote(t, fresh, t->count++);
    }
    pthread_cond_signal(&t->wake);
    pthread_mutex_unlock(&t->lock);
}

/* ---- making ---- */

/* A folder like an instance's: a launcher that dies here leaves one that no record names, which the next one sweeps. */
struct workshop {
    char name[48];
    int dir, exit_fd, listen_fd;
};

static int workshop_open(struct launcher *l, uint64_t number, struct workshop *w, struct error **err)
{
    int r;

    *w = (struct workshop){.dir = -1, .exit_fd = -1, .listen_fd = -1};
    snprintf(w->name, sizeof(w->name), "template-%d-%llu", (int)getpid(), (unsigned long long)number);
    r = instance_directory(l, w->name, &w->dir, err);
    return r < 0 ? r : instance_files_open(w->dir, &w->exit_fd, &w->listen_fd, err);
}

static void workshop_close(struct launcher *l, struct workshop *w)
{
    w->exit_fd = close_fd(w->exit_fd);
    w->listen_fd = close_fd(w->listen_fd);
    w->dir = close_fd(w->dir);
    instance_remove_files(l, w->name);
}

static int boot(struct launcher *l, const struct launch_plan *plan, struct machine *machine, const struct workshop *w,
                struct error **err)
{
    struct machine_guest guest = {.plan = plan,
                                  .exit_fd = w->exit_fd,
                                  .listen_fd = w->listen_fd,
                                  .log_fds = {-1, -1},
                                  .snapshot_fd = -1,
                                  .wait = true,
                                  .timeout_ms = plan->machine.monitor == PLAN_MONITOR_QEMU
                                                    ? EMULATED_READY_TIMEOUT_MS /* a whole Linux, perhaps emulated */
                                                    : READY_TIMEOUT_MS};
    struct steps steps = {0};
    int r = machine_await_prepared(machine, &steps, err);

    if (r == 0)
        r = machine_limit(machine, &plan->limits, err);
    return r < 0 ? r : machine_load(l, machine, &guest, &steps, err);
}

static int write_snapshot(const struct workshop *w, int *ret_fd, struct error **err)
{
    auto_fd int file = memfd_create("snapshot", MFD_CLOEXEC | MFD_ALLOW_SEALING), connection = -1;
    int r;

    if (file < 0)
        return error_set_errno(err, errno, "NO_MEMORY", "no memory file for a snapshot");
    r = monitor_connect(w->dir, "init.sock", &connection, err);
    if (r == 0)
        r = monitor_snapshot(connection, file, SNAPSHOT_TIMEOUT_MS, err);
    if (r < 0)
        return r;
    /* every guest that starts from it maps it: nobody may change it under them */
    if (fcntl(file, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
        return error_set_errno(err, errno, "INTERNAL", "sealing a snapshot");
    *ret_fd = take_fd(&file);
    return 0;
}

static void kill_making(const struct templates *t)
{
    if (t->making >= 0)
        syscall(SYS_pidfd_send_signal, t->making, SIGKILL, NULL, 0);
}

/* Whom templates_close() ends; -1: nobody. */
static void note_making(struct templates *t, int pidfd)
{
    pthread_mutex_lock(&t->lock);
    t->making = pidfd;
    if (t->stopping)
        kill_making(t);
    pthread_mutex_unlock(&t->lock);
}

static int make(struct launcher *l, const struct launch_plan *plan, uint64_t number, int *ret_fd, struct error **err)
{
    struct machine *machine = NULL;
    struct machine_kind kind;
    struct steps steps = {0};
    struct workshop w;
    uint32_t uid_slot;
    bool clean;
    int r;

    if (slots_take(&l->uids, &uid_slot) < 0)
        return error_set(err, ENOSPC, "UID_POOL_EXHAUSTED", "no uid range is free");
    machine_kind_of(plan, &kind);
    r = workshop_open(l, number, &w, err);
    if (r == 0)
        r = machine_prepare(l, &kind, w.name, UID_FIRST + uid_slot * RUNTIME_ID_COUNT, &plan->limits, false, &machine,
                            &steps, err);
    if (r == 0) {
        note_making(l->templates, machine_pidfd(machine));
        r = boot(l, plan, machine, &w, err);
    }
    if (r == 0)
        r = write_snapshot(&w, ret_fd, err);
    note_making(l->templates, -1);
    clean = machine_destroy(machine, NULL) == 0;
    workshop_close(l, &w);
    if (clean)
        slots_free(&l->uids, uid_slot); /* else it stays blocked until the next sweep */
    return r;
}

static struct template *missing(struct templates *t)
{
    for (unsigned i = 0; i < t->count; i++)
        if (t->list[i].fd < 0 && !t->list[i].failed)
            return &t->list[i];
    return NULL;
}

/* Those used longest ago make room; one that was just made is in front, or was used a moment ago. */
static void keep_to_share(struct templates *t)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < t->count; i++)
        sum += t->list[i].bytes;
    while (t->count && sum > t->bytes_max) {
        sum -= t->list[t->count - 1].bytes;
        clear(&t->list[--t->count]);
    }
}

static uint64_t memory_of(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

/* Where the result goes, unless it was dropped or pushed out meanwhile. */
static void settle(struct templates *t, const struct launch_plan *plan, uint32_t generation, int fd)
{
    struct template *place = generation == t->generation ? find(t, plan) : NULL;
    uint64_t bytes = fd >= 0 ? memory_of(fd) : 0;

    if (place && fd >= 0 && bytes <= t->bytes_max) {
        place->fd = fd;
        place->bytes = bytes;
        keep_to_share(t);
        return;
    }
    if (place) {
        place->failed = true;
        place->failed_at_ns = monotonic_ns();
    }
    if (fd >= 0 && bytes > t->bytes_max)
        log_line(LOG_LEVEL_WARNING, NULL, "a snapshot to start from has %llu MiB, more than snapshot_memory",
                 (unsigned long long)bytes >> 20);
    close_fd(fd);
}

/* Called and returns with the lock held. */
static void make_one(struct launcher *l, const struct template *wanted)
{
    auto_error struct error *err = NULL;
    struct templates *t = l->templates;
    struct launch_plan plan = {0};
    uint32_t generation = t->generation;
    uint64_t number = ++t->made;
    int fd = -1;

    if (template_plan_copy(&wanted->plan, &plan) < 0)
        return;
    pthread_mutex_unlock(&t->lock);
    if (make(l, &plan, number, &fd, &err) < 0 && !t->stopping)
        log_error(NULL, err, "no snapshot to start from could be made");
    pthread_mutex_lock(&t->lock);
    settle(t, &plan, generation, fd);
    plan_clear(&plan);
    pthread_mutex_unlock(&t->lock);
    pool_look_again(l); /* it may have waited for this one */
    pthread_mutex_lock(&t->lock);
}

static void *make_missing(void *context)
{
    struct launcher *l = context;
    struct templates *t = l->templates;

    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), MAKE_NICE);
    pthread_mutex_lock(&t->lock);
    while (!t->stopping) {
        if (!missing(t)) {
            pthread_cond_wait(&t->wake, &t->lock);
            continue;
        }
        pthread_mutex_unlock(&t->lock);
        pool_let_others_first(l, &t->stopping);
        pthread_mutex_lock(&t->lock);
        const struct template *wanted = missing(t);
        if (wanted && !t->stopping)
            make_one(l, wanted);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

void template_drop(struct launcher *l, const char *layer)
{
    struct templates *t = l->templates;

    pthread_mutex_lock(&t->lock);
    t->generation++;
    for (unsigned i = 0; i < t->count;) {
        const struct plan_root *root = &t->list[i].plan.root;
        bool uses = false;
        for (size_t n = 0; n < root->layer_count; n++)
            uses |= strcmp(root->layers[n], layer) == 0;
        if (!uses) {
            i++;
            continue;
        }
        clear(&t->list[i]);
        memmove(&t->list[i], &t->list[i + 1], (--t->count - i) * sizeof(t->list[0]));
    }
    pthread_mutex_unlock(&t->lock);
}

unsigned template_count(struct launcher *l)
{
    struct templates *t = l->templates;
    unsigned n = 0;

    pthread_mutex_lock(&t->lock);
    for (unsigned i = 0; i < t->count; i++)
        n += t->list[i].fd >= 0;
    pthread_mutex_unlock(&t->lock);
    return n;
}

static int start_thread(struct launcher *l, struct error **err)
{
    struct templates *t = l->templates;
    pthread_attr_t attributes;
    int e;

    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    e = pthread_create(&t->thread, &attributes, make_missing, l);
    pthread_attr_destroy(&attributes);
    t->running = e == 0;
    return e ? error_set_errno(err, e, "START_FAILED", "starting the thread that makes snapshots") : 0;
}

int templates_open(struct launcher *l, struct error **err)
{
    struct templates *t = calloc(1, sizeof(*t));
    struct runtime_facts facts;

    l->templates = t;
    if (t) {
        pthread_mutex_init(&t->lock, NULL);
        pthread_cond_init(&t->wake, NULL);
        t->making = -1;
        t->max = l->options.snapshot_count;
        runtime_facts(l->runtime, &facts);
        t->bytes_max = l->options.snapshot_memory ? l->options.snapshot_memory : facts.memory_bytes / MEMORY_SHARE;
        t->list = calloc(t->max + 1, sizeof(*t->list));
    }
    if (!t || !t->list)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the table of snapshots");
    return t->max ? start_thread(l, err) : 0;
}

static void stop_thread(struct launcher *l)
{
    struct templates *t = l->templates;

    if (!t || !t->running)
        return;
    pthread_mutex_lock(&t->lock);
    t->stopping = true;
    kill_making(t);
    pthread_cond_signal(&t->wake);
    pthread_mutex_unlock(&t->lock);
    pthread_join(t->thread, NULL);
    t->running = false;
}

void templates_close(struct launcher *l)
{
    struct templates *t = l->templates;

    if (!t)
        return;
    stop_thread(l);
    while (t->count)
        clear(&t->list[--t->count]);
    free(t->list);
    free(t);
    l->templates = NULL;
}
