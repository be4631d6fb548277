/* SPDX-License-Identifier: Apache-2.0 */
/* What is a machine's own in a start (start.h): a monitor with an empty machine, taps, the guest that is loaded. */
#include "base/cleanup.h"
#include "launcher/machines.h"
#include "launcher/start.h"
#include "launcher/templates.h"

/* Whether a snapshot is restored though the machine for it must be made first: where that was asked for, and under
 * QEMU, which makes one in a tenth of a second and boots what it runs in seconds. A unikernel boots faster than that.
 */
static bool restores_cold(const struct start *s)
{
    return s->plan->start_mode == START_SNAPSHOT || s->plan->machine.monitor == PLAN_MONITOR_QEMU;
}

/* The fastest way that is ready and allowed: a guest that only has to be told who it is; a snapshot of a guest that
 * runs already, put into a warm machine; a warm machine that boots the image. */
static bool take_prepared(struct start *s)
{
    struct instance *i = s->i;
    enum start_mode mode = s->plan->start_mode;
    bool kept = s->snapshot_fd >= 0; /* one the user asked for: nothing else will do */
    auto_fd int snapshot = kept ? take_fd(&s->snapshot_fd) : mode == START_POOL ? -1 : template_take(s->l, s->plan);

    if (mode == START_SNAPSHOT && snapshot < 0)
        return false;
    if (!pool_take(s->l, s->plan, &s->shell)) {
        s->snapshot_fd = kept || restores_cold(s) ? take_fd(&snapshot) : -1;
        return false;
    }
    i->uid_slot = s->shell.uid_slot;
    i->ports = s->shell.ports;
    i->has_uid = i->has_number = true;
    s->snapshot_fd = s->shell.guest == GUEST_NONE ? take_fd(&snapshot) : -1;
    return true;
}

static int make_cold(struct start *s, struct error **err)
{
    struct instance *i = s->i;
    struct machine_kind kind;
    int r;

    start_begin_files(s);
    machine_kind_of(s->plan, &kind);
    r = machine_prepare(s->l, &kind, i->id, UID_FIRST + i->uid_slot * RUNTIME_ID_COUNT, &s->plan->limits, true,
                        &s->shell.machine, &s->steps, err);
    if (r < 0)
        return r;
    /* the monitor makes the machine while the taps are made here */
    uint64_t begin = monotonic_ns();
    i->ports.count = (uint32_t)s->plan->nic_count;
    r = fabric_tap(s->l->fabric, &i->ports, s->shell.taps, err);
    if (r < 0)
        i->ports.count = 0; /* nothing is attached */
    steps_add(&s->steps, "taps", begin, monotonic_ns());
    return r < 0 ? r : start_check_cancelled(s, err);
}

/* A parked guest is told of them at the same time: run(). */
static int give_addresses(struct start *s, struct error **err)
{
    return s->shell.guest != GUEST_NONE ? 0 : fabric_announce(s->l->fabric, &s->i->ports, s->plan->nics, err);
}

static int limit(struct start *s, struct error **err)
{
    uint64_t begin = monotonic_ns();
    int r = s->shell.guest != GUEST_NONE && limits_same(&s->shell.limits, &s->plan->limits)
                ? 0
                : machine_limit(s->shell.machine, &s->plan->limits, err);

    steps_add(&s->steps, "limits", begin, monotonic_ns());
    return r;
}

/* While the guest takes its new identity its addresses are announced; what it sends before that is dropped. */
static int identify(struct start *s, struct machine_guest *guest, struct error **err)
{
    if (s->shell.spare[0] && s->own_folder) /* the files that were made with the shell are its already */
        guest->log_fds[0] = guest->log_fds[1] = -1;
    uint64_t begin = monotonic_ns(), told;
    int r = machine_identify(s->shell.machine, guest, err);
    told = monotonic_ns();
    steps_add(&s->steps, "identity", begin, told);
    if (r == 0)
        r = fabric_announce(s->l->fabric, &s->i->ports, s->plan->nics, err);
    steps_add(&s->steps, "announce", told, monotonic_ns());
    return r < 0 ? r : machine_check_identified(s->shell.machine, err);
}

static int run(struct start *s, struct error **err)
{
    struct machine_guest guest = {.plan = s->plan,
                                  .taps = s->shell.taps,
                                  .exit_fd = s->exit_fd,
                                  .listen_fd = s->listen_fd,
                                  .log_fds = {s->log_fds[0], s->log_fds[1]},
                                  .snapshot_fd = s->snapshot_fd,
                                  .preparing = !s->prepared};
    int r = 0;

    /* QEMU makes its machine before the instance's limits hold: with little processor time that could take longer than
     * anybody waits. coracle-vmm needs less for that than for what comes under the limits anyway. */
    if (guest.preparing && s->plan->machine.monitor == PLAN_MONITOR_QEMU) {
        r = machine_await_prepared(s->shell.machine, &s->steps, err);
        guest.preparing = false;
        r = r < 0 ? r : start_check_cancelled(s, err);
    }
    if (r == 0)
        r = limit(s, err);
    if (r == 0)
        r = s->shell.guest != GUEST_NONE ? identify(s, &guest, err)
                                         : machine_load(s->l, s->shell.machine, &guest, &s->steps, err);
    if (r == 0)
        r = machine_become(s->shell.machine, s->dir, &s->i->container, err);
    if (r < 0)
        return r;
    s->shell.machine = NULL;
    warm_shell_drop_taps(&s->shell); /* the monitor has them now */
    return 0;
}

static int abandon(struct start *s, struct error **err)
{
    s->snapshot_fd = close_fd(s->snapshot_fd);
    warm_shell_drop_taps(&s->shell);
    s->shell.guest = GUEST_NONE;
    return machine_destroy(take_ptr(s->shell.machine), err);
}

const struct start_ops start_machine = {
    .take_prepared = take_prepared,
    .make_cold = make_cold,
    .give_addresses = give_addresses,
    .run = run,
    .abandon = abandon,
};
