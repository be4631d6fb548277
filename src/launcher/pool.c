/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The warm pool. Workers take and teach, one thread fills; no guest is waited for on it.
 *
 * A kind is what a shell must have been made for: layers, writable size, links; of a machine its size and links, and of
 * one whose guest is in it already (machine_parks()) the whole guest. The
 * kinds used last share the depth of host.conf evenly (the one used last gets the remainder); shells beyond a kind's
 * share are destroyed. So one image in use has the whole pool, two have half each, and an image used once disappears
 * when enough others came after it.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "launcher/instance.h"
#include "launcher/machines.h"
#include "launcher/pool.h"
#include "launcher/templates.h"

enum {
    POOL_MAX = 64, /* the bound of pool_depth */
    POOL_STACK = 512 * 1024,
    IDLE_POLL_MS = 2,       /* between looks whether the workers are idle */
    BUSY_WAIT_MAX_MS = 500, /* under a steady load the pool fills all the same */
    PARK_TIMEOUT_MS = 10000,
    PROGRAM_SIZE = 128, /* a longer path is not looked at beforehand */
    RETRY_S = 5,        /* after a shell could not be made */
};

struct kind {
    enum plan_kind plan;
    struct plan_root root;       /* PLAN_CONTAINER */
    char program[PROGRAM_SIZE];  /* what ran last, if that was a path: no part of what must fit */
    struct machine_kind machine; /* PLAN_MACHINE */
    enum parked_guest guest;     /* wanted; a guest that does not stand still (it ends by itself) is left out */
    uint32_t link_count;
    char links[NETWORK_PER_INSTANCE_MAX][LINK_NAME_SIZE];
};

struct entry {
    struct kind kind;
    struct launch_plan plan;   /* with a guest: of it (template_plan_copy()) */
    bool restless;             /* its guest cannot be parked */
    struct warm_shell *shells; /* at most depth */
    unsigned ready;
};

struct pool {
    pthread_t thread;
    bool running;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_bool stopping; /* read without the lock while waiting */
    unsigned depth;
    struct entry *entries; /* most recently used first; at most depth */
    unsigned entry_count;
    uint64_t taken, missed, shells_made;
    uint32_t generation; /* raised by pool_drop(): a shell made meanwhile may be stale */
    bool filling;
    pthread_cond_t filled;
};

static void kind_of(const struct launch_plan *plan, struct kind *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->plan = plan->kind;
    ret->link_count = (uint32_t)plan->nic_count;
    for (size_t i = 0; i < plan->nic_count; i++)
        memcpy(ret->links[i], plan->nics[i].link, LINK_NAME_SIZE);
    if (plan->kind == PLAN_MACHINE) {
        machine_kind_of(plan, &ret->machine);
        if (machine_parks(plan))
            ret->guest = plan->start_mode == START_SNAPSHOT ? GUEST_RESTORED : GUEST_BOOTED;
        return;
    }
    ret->root.layer_count = plan->root.layer_count;
    for (size_t i = 0; i < plan->root.layer_count; i++)
        memcpy(ret->root.layers[i], plan->root.layers[i], DIGEST_HEX_SIZE);
    const char *program = plan->process.argv ? plan->process.argv[0] : NULL;
    if (program && program[0] == '/' && strlen(program) < PROGRAM_SIZE)
        strcpy(ret->program, program);
    ret->root.read_only = plan->root.read_only;
    ret->root.writable_bytes = plan->root.writable_bytes;
}

/* memcmp would compare padding and what lies behind a terminator. */
static bool same_machine(const struct machine_kind *a, const struct machine_kind *b)
{
    return a->monitor == b->monitor && a->boot == b->boot && a->kvm == b->kvm && a->memory_bytes == b->memory_bytes &&
           a->memory_max_bytes == b->memory_max_bytes && a->vcpus == b->vcpus && a->vcpus_max == b->vcpus_max &&
           a->nic_count == b->nic_count;
}

static bool same_kind(const struct kind *a, const struct kind *b)
{
    if (a->plan != b->plan || a->guest != b->guest || !same_machine(&a->machine, &b->machine))
        return false;
    if (a->root.layer_count != b->root.layer_count || a->root.read_only != b->root.read_only ||
        a->root.writable_bytes != b->root.writable_bytes || a->link_count != b->link_count)
        return false;
    for (size_t i = 0; i < a->root.layer_count; i++)
        if (strcmp(a->root.layers[i], b->root.layers[i]) != 0)
            return false;
    for (uint32_t i = 0; i < a->link_count; i++)
        if (strcmp(a->links[i], b->links[i]) != 0)
            return false;
    return true;
}

/* The guest is the plan's, which matters where there is one. */
static bool same_guest(const struct entry *e, const struct launch_plan *plan)
{
    return e->kind.guest == GUEST_NONE ||
           (template_same(&e->plan, plan) && e->plan.log_bytes_max == plan->log_bytes_max);
}

static struct entry *find(struct pool *p, const struct kind *kind, const struct launch_plan *plan)
{
    for (unsigned i = 0; i < p->entry_count; i++)
        if (same_kind(&p->entries[i].kind, kind) && same_guest(&p->entries[i], plan))
            return &p->entries[i];
    return NULL;
}

static void clear_entry(struct entry *e)
{
    free(e->shells);
    plan_clear(&e->plan);
}

static unsigned share(const struct pool *p, unsigned index)
{
    return p->depth / p->entry_count + (index == 0 ? p->depth % p->entry_count : 0);
}

void warm_shell_drop_logs(struct launcher *l, struct warm_shell *w)
{
    for (int i = 0; i < 2; i++)
        w->log_fds[i] = close_fd(w->log_fds[i]);
    if (w->spare[0])
        logs_remove(l, w->spare);
    w->spare[0] = '\0';
}

void warm_shell_drop_folder(struct launcher *l, struct warm_shell *w)
{
    if (w->dir >= 0)
        instance_remove_folder(l, w->spare);
    w->dir = close_fd(w->dir);
    w->exit_fd = close_fd(w->exit_fd);
    w->listen_fd = close_fd(w->listen_fd);
}

void warm_shell_drop_taps(struct warm_shell *w)
{
    for (int i = 0; i < NETWORK_PER_INSTANCE_MAX; i++)
        w->taps[i] = close_fd(w->taps[i]);
}

void warm_shell_destroy(struct launcher *l, struct warm_shell *w)
{
    auto_error struct error *err = NULL;
    bool clean = w->machine ? machine_destroy(w->machine, &err) == 0 : shell_destroy(w->shell, &err) == 0;

    warm_shell_drop_folder(l, w);
    warm_shell_drop_logs(l, w);
    warm_shell_drop_taps(w);
    w->netns_socket = close_fd(w->netns_socket);
    fabric_unwire(l->fabric, &w->ports);
    slots_free(&l->numbers, w->ports.number);
    if (clean)
        slots_free(&l->uids, w->uid_slot);
    else
        log_error(NULL, err, "a shell of the pool left something behind"); /* its uid range stays blocked */
}

/* An init may have been killed (out of memory) while it was parked. */
static bool shell_lives(const struct warm_shell *w)
{
    struct pollfd p = {.fd = w->machine ? machine_pidfd(w->machine) : shell_pidfd(w->shell), .events = POLLIN};

    return poll(&p, 1, 0) == 0;
}

bool pool_take(struct launcher *l, const struct launch_plan *plan, struct warm_shell *ret_shell)
{
    struct pool *p = l->pool;
    struct warm_shell w;
    struct kind kind;
    struct entry *e;
    bool got = false;

    kind_of(plan, &kind);
    while (!got) {
        pthread_mutex_lock(&p->lock);
        e = find(p, &kind, plan);
        if (!e || !e->ready) {
            p->missed++;
            pthread_mutex_unlock(&p->lock);
            return false;
        }
        w = e->shells[0]; /* the oldest: it has settled longest */
        memmove(e->shells, e->shells + 1, --e->ready * sizeof(w));
        got = shell_lives(&w);
        p->taken += got;
        pthread_mutex_unlock(&p->lock);
        if (!got)
            warm_shell_destroy(l, &w);
    }
    *ret_shell = w;
    return true;
}

/* Whoever asked first does not bound what is made for those who come later; nor does it stay true for them that the
 * guest could not be parked within those bounds. */
static void learn_limits(struct entry *e, const struct limits *limits)
{
    if (limits_same(&e->plan.limits, limits))
        return;
    e->plan.limits = *limits;
    e->restless = false;
}

/* Moves the entry to the front, made when new; the least recently used one makes room. Returns shells to destroy. */
static unsigned promote(struct pool *p, const struct kind *kind, const struct launch_plan *plan,
                        struct warm_shell *ret_surplus)
{
    struct entry *e = find(p, kind, plan), moved;
    unsigned surplus = 0, index;

    if (!e && p->entry_count == p->depth) {
        struct entry *last = &p->entries[--p->entry_count];
        memcpy(ret_surplus, last->shells, last->ready * sizeof(*last->shells));
        surplus = last->ready;
        clear_entry(last);
    }
    if (!e) {
        e = &p->entries[p->entry_count];
        *e = (struct entry){.kind = *kind, .shells = calloc(p->depth, sizeof(*e->shells))};
        if (!e->shells || (kind->guest != GUEST_NONE && template_plan_copy(plan, &e->plan) < 0)) {
            clear_entry(e);
            return surplus;
        }
        p->entry_count++;
    }
    memcpy(e->kind.program, kind->program, sizeof(e->kind.program));
    if (kind->guest != GUEST_NONE)
        learn_limits(e, &plan->limits);
    index = (unsigned)(e - p->entries);
    moved = *e;
    memmove(p->entries + 1, p->entries, index * sizeof(moved));
    p->entries[0] = moved;
    return surplus;
}

void pool_learn(struct launcher *l, const struct launch_plan *plan)
{
    struct warm_shell surplus[POOL_MAX];
    struct pool *p = l->pool;
    unsigned count;
    struct kind kind;

    if (!p->depth)
        return;
    kind_of(plan, &kind);
    pthread_mutex_lock(&p->lock);
    count = promote(p, &kind, plan, surplus);
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < count; i++)
        warm_shell_destroy(l, &surplus[i]);
}

static bool uses(const struct entry *e, const char *layer, const char *link)
{
    const struct kind *k = &e->kind;
    const struct plan_root *root = k->guest == GUEST_NONE ? &k->root : &e->plan.root;

    for (size_t i = 0; layer && i < root->layer_count; i++)
        if (strcmp(root->layers[i], layer) == 0)
            return true;
    for (uint32_t i = 0; link && i < k->link_count; i++)
        if (strcmp(k->links[i], link) == 0)
            return true;
    return false;
}

void pool_drop(struct launcher *l, const char *layer, const char *link)
{
    struct warm_shell dropped[POOL_MAX];
    struct pool *p = l->pool;
    unsigned count = 0;

    pthread_mutex_lock(&p->lock);
    p->generation++;
    while (p->filling)
        pthread_cond_wait(&p->filled, &p->lock);
    for (unsigned i = 0; i < p->entry_count;) {
        struct entry *e = &p->entries[i];
        if (!uses(e, layer, link)) {
            i++;
            continue;
        }
        memcpy(dropped + count, e->shells, e->ready * sizeof(*e->shells));
        count += e->ready;
        clear_entry(e);
        memmove(e, e + 1, (--p->entry_count - i) * sizeof(*e));
    }
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < count; i++)
        warm_shell_destroy(l, &dropped[i]);
}

void pool_look_again(struct launcher *l)
{
    struct pool *p = l->pool;

    pthread_mutex_lock(&p->lock);
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

void pool_figures(struct launcher *l, struct message_pool_reply *ret)
{
    struct pool *p = l->pool;

    pthread_mutex_lock(&p->lock);
    *ret = (struct message_pool_reply){.depth = p->depth, .taken = p->taken, .missed = p->missed};
    for (unsigned i = 0; i < p->entry_count; i++)
        ret->ready += p->entries[i].ready;
    pthread_mutex_unlock(&p->lock);
}

static int fill_shell(struct launcher *l, const struct kind *kind, const char *tag, struct warm_shell *w,
                      struct error **err)
{
    struct steps steps = {0};
    struct limits defaults = {0};
    int r = shell_create(l->runtime, tag, UID_FIRST + w->uid_slot * RUNTIME_ID_COUNT, &w->shell, &steps, err);

    if (r == 0)
        r = limits_settle(l, &defaults, err);
    if (r == 0)
        r = shell_preset(w->shell, &defaults, err);
    if (r == 0)
        shell_expect(w->shell, kind->program[0] ? kind->program : NULL);
    if (r == 0)
        r = shell_set_root(w->shell, &kind->root, -1, &steps, err);
    if (r < 0)
        return r;
    w->ports.count = kind->link_count;
    r = fabric_wire(l->fabric, &w->ports, shell_netns_fd(w->shell), NULL, &w->netns_socket, err);
    if (r < 0)
        w->ports.count = 0; /* nothing is attached */
    return r;
}

static int fill_machine(struct launcher *l, const struct kind *kind, const char *tag, struct warm_shell *w,
                        struct error **err)
{
    struct steps steps = {0};
    int r = machine_prepare(l, &kind->machine, tag, UID_FIRST + w->uid_slot * RUNTIME_ID_COUNT, NULL, false,
                            &w->machine, &steps, err);

    if (r < 0)
        return r;
    w->ports.count = kind->link_count;
    r = fabric_tap(l->fabric, &w->ports, w->taps, err);
    if (r < 0)
        w->ports.count = 0; /* nothing is attached */
    return r;
}

/* Loads the guest and waits until it stands still. */
static int fill_guest(struct launcher *l, const struct kind *kind, const struct launch_plan *plan, struct warm_shell *w,
                      struct error **err)
{
    auto_fd int snapshot = kind->guest == GUEST_RESTORED ? template_take(l, plan) : -1;
    const struct machine_guest guest = {.plan = plan,
                                        .taps = w->taps,
                                        .exit_fd = w->exit_fd,
                                        .listen_fd = w->listen_fd,
                                        .log_fds = {w->log_fds[0], w->log_fds[1]},
                                        .snapshot_fd = snapshot,
                                        .park = true,
                                        .timeout_ms = PARK_TIMEOUT_MS};
    int r;

    if (kind->guest == GUEST_RESTORED && snapshot < 0)
        return 0; /* gone meanwhile: a start looks for one itself */
    r = machine_limit(w->machine, &plan->limits, err);
    if (r == 0)
        r = machine_load(l, w->machine, &guest, &(struct steps){0}, err);
    if (r < 0)
        return r;
    w->guest = kind->guest;
    w->limits = plan->limits;
    warm_shell_drop_taps(w); /* the monitor has them now */
    return 0;
}

/* What a start needs of the disk, under a name of its own until then. */
static int fill_files(struct launcher *l, uint64_t number, struct warm_shell *w, struct error **err)
{
    int r;

    snprintf(w->spare, sizeof(w->spare), SPARE_PREFIX "%d-%llu", (int)getpid(), (unsigned long long)number);
    r = logs_open(l, w->spare, w->log_fds, err);
    if (r == 0)
        r = instance_directory(l, w->spare, &w->dir, err);
    return r < 0 ? r : instance_files_open(w->dir, &w->exit_fd, &w->listen_fd, err);
}

/* plan: of the guest that is to be parked, NULL: none. */
static int make_shell(struct launcher *l, const struct kind *kind, const struct launch_plan *plan, uint64_t number,
                      struct warm_shell *ret, struct error **err)
{
    struct warm_shell w = WARM_SHELL_NONE;
    char tag[RUNTIME_TAG_SIZE];
    int r;

    if (slots_take(&l->uids, &w.uid_slot) < 0)
        return error_set(err, ENOSPC, "UID_POOL_EXHAUSTED", "no uid range is free");
    if (slots_take(&l->numbers, &w.ports.number) < 0) {
        slots_free(&l->uids, w.uid_slot);
        return error_set(err, ENOSPC, "UID_POOL_EXHAUSTED", "no interface number is free");
    }
    for (uint32_t i = 0; i < kind->link_count; i++)
        memcpy(w.ports.list[i].link, kind->links[i], LINK_NAME_SIZE);
    snprintf(tag, sizeof(tag), "pool-%d-%llu", (int)getpid(), (unsigned long long)number);
    r = kind->plan == PLAN_MACHINE ? fill_machine(l, kind, tag, &w, err) : fill_shell(l, kind, tag, &w, err);
    if (r == 0)
        r = fill_files(l, number, &w, err);
    if (r == 0)
        r = w.machine ? machine_await_prepared(w.machine, &(struct steps){0}, err)
                      : shell_wait(w.shell, PARK_TIMEOUT_MS, err);
    if (r == 0 && plan)
        r = fill_guest(l, kind, plan, &w, err);
    if (r < 0) {
        warm_shell_destroy(l, &w);
        return r;
    }
    *ret = w;
    return 0;
}

/* Which kind lacks a shell, or which has one too many. Under the lock. */
static struct entry *lacking(struct launcher *l)
{
    struct pool *p = l->pool;

    for (unsigned i = 0; i < p->entry_count; i++) {
        struct entry *e = &p->entries[i];
        if (e->ready < share(p, i) && !(e->kind.guest == GUEST_RESTORED && template_awaited(l, &e->plan)))
            return e;
    }
    return NULL;
}

static struct entry *overfull(struct pool *p)
{
    for (unsigned i = 0; i < p->entry_count; i++)
        if (p->entries[i].ready > share(p, i))
            return &p->entries[i];
    return NULL;
}

void pool_let_others_first(struct launcher *l, const atomic_bool *stopping)
{
    struct timespec pause = {.tv_nsec = IDLE_POLL_MS * 1000000};

    for (int waited = 0; waited < BUSY_WAIT_MAX_MS && !atomic_load(stopping); waited += IDLE_POLL_MS) {
        nanosleep(&pause, NULL);
        if (workers_idle(l))
            return;
    }
}

static void pause_after_failure(struct pool *p)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += RETRY_S;
    if (!p->stopping)
        pthread_cond_timedwait(&p->wake, &p->lock, &until);
}

/* A guest that could not be parked (it ended, it never listened) is not tried again: its shells stay empty. */
static void note_restless(struct entry *e, const struct error *err)
{
    log_error(NULL, err, "the pool keeps empty machines for an image whose guest does not wait");
    if (e)
        e->restless = true;
}

/* Makes one shell of a kind and parks it; called and returns with the lock held. */
static void fill_one(struct launcher *l, const struct entry *e)
{
    auto_error struct error *err = NULL;
    struct pool *p = l->pool;
    const bool guest = e->kind.guest != GUEST_NONE && !e->restless;
    struct launch_plan plan = {0};
    struct kind kind = e->kind;
    uint64_t number = ++p->shells_made;
    uint32_t generation = p->generation;
    struct entry *place;
    struct warm_shell w;
    int r;

    if (e->kind.guest != GUEST_NONE && template_plan_copy(&e->plan, &plan) < 0)
        return pause_after_failure(p);
    p->filling = true;
    pthread_mutex_unlock(&p->lock);
    r = make_shell(l, &kind, guest ? &plan : NULL, number, &w, &err);
    pthread_mutex_lock(&p->lock);
    place = generation == p->generation && !p->stopping ? find(p, &kind, &plan) : NULL;
    plan_clear(&plan);
    if (r == 0 && place && place->ready < p->depth) {
        place->shells[place->ready++] = w;
    } else if (r == 0) {
        pthread_mutex_unlock(&p->lock);
        warm_shell_destroy(l, &w);
        pthread_mutex_lock(&p->lock);
    }
    p->filling = false;
    pthread_cond_broadcast(&p->filled);
    if (r < 0 && guest) {
        note_restless(place, err);
    } else if (r < 0) {
        log_error(NULL, err, "the pool could not make a shell");
        pause_after_failure(p);
    }
}

static void drop_one(struct launcher *l, struct entry *e)
{
    struct warm_shell w = e->shells[--e->ready];

    pthread_mutex_unlock(&l->pool->lock);
    warm_shell_destroy(l, &w);
    pthread_mutex_lock(&l->pool->lock);
}

static void *fill(void *context)
{
    struct launcher *l = context;
    struct pool *p = l->pool;
    struct entry *e;

    /* Starts go first. Not by a nice value: instances would inherit it, and only CAP_SYS_NICE could take it back. */
    sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0});
    pthread_mutex_lock(&p->lock);
    while (!p->stopping) {
        if (!lacking(l) && !overfull(p)) {
            pthread_cond_wait(&p->wake, &p->lock);
            continue;
        }
        pthread_mutex_unlock(&p->lock);
        pool_let_others_first(l, &p->stopping);
        pthread_mutex_lock(&p->lock);
        if (p->stopping)
            break;
        if ((e = overfull(p)))
            drop_one(l, e);
        else if ((e = lacking(l)))
            fill_one(l, e);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

int pool_open(struct launcher *l, struct error **err)
{
    struct pool *p = calloc(1, sizeof(*p));
    pthread_attr_t attributes;
    int e;

    if (!p)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the pool");
    p->depth = l->options.pool_depth;
    p->entries = calloc(p->depth ? p->depth : 1, sizeof(*p->entries));
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->filled, NULL);
    l->pool = p;
    if (!p->entries)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the pool");
    if (!p->depth)
        return 0;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, POOL_STACK);
    e = pthread_create(&p->thread, &attributes, fill, l);
    pthread_attr_destroy(&attributes);
    if (e)
        return error_set_errno(err, e, "START_FAILED", "starting the pool's thread");
    p->running = true;
    return 0;
}

void pool_stop(struct launcher *l)
{
    struct pool *p = l->pool;

    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stopping = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    if (p->running)
        pthread_join(p->thread, NULL);
    p->running = false;
}

void pool_close(struct launcher *l)
{
    struct pool *p = l->pool;

    if (!p)
        return;
    for (unsigned i = 0; i < p->entry_count; i++) {
        for (unsigned s = 0; s < p->entries[i].ready; s++)
            warm_shell_destroy(l, &p->entries[i].shells[s]);
        clear_entry(&p->entries[i]);
    }
    free(p->entries);
    free(p);
    l->pool = NULL;
}
