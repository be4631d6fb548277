/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines as the launcher makes them, for a start and for the pool: a monitor with an empty machine, its taps, and
 * what it is told to run. Any thread.
 */
#ifndef CORACLE_LAUNCHER_MACHINES_H
#define CORACLE_LAUNCHER_MACHINES_H

#include "launcher/launcher.h"
#include "monitor/protocol.h"
#include "runtime/machine.h"

/* What of a plan decides what is prepared; the same numbers fit any guest of that size. */
struct machine_kind {
    enum plan_monitor monitor;
    enum plan_boot boot;
    bool kvm;
    uint64_t memory_bytes, memory_max_bytes;
    uint32_t vcpus, vcpus_max;
    uint32_t nic_count;
};

void machine_kind_of(const struct launch_plan *plan, struct machine_kind *ret);

/* Starts the monitor and tells it to prepare (least: what machine_load() at once would only wait for is left out);
 * returns at once, so that the caller can make the taps meanwhile.
 * kvm_device: the host's /dev/kvm is opened for it. limits as in machine_create(). */
int machine_prepare(struct launcher *l, const struct machine_kind *kind, const char *tag, uint32_t uid,
                    const struct limits *limits, bool least, struct machine **ret_machine, struct steps *steps,
                    struct error **err);
/* Waits until it is prepared. */
int machine_await_prepared(struct machine *machine, struct steps *steps, struct error **err);

/* What a guest gets; descriptors are borrowed. */
struct machine_guest {
    const struct launch_plan *plan;
    const int *taps; /* plan->nic_count of them; NULL: devices without a wire */
    int exit_fd, listen_fd;
    int log_fds[2];  /* -1: output is discarded */
    int snapshot_fd; /* -1: the plan's image is booted */
    bool wait;       /* until the guest says that it is ready */
    bool park;       /* until it is ready and stands still, to be told who it is by machine_identify() */
    bool preparing;  /* machine_await_prepared() is still owed: done when all that LOAD takes is at hand */
    int timeout_ms;  /* 0: 20,000 */
};

/* Loads and enters; returns when the guest's first instruction is next, or with wait when it is ready. */
int machine_load(struct launcher *l, struct machine *machine, const struct machine_guest *guest, struct steps *steps,
                 struct error **err);

/* Whether this plan's guest can be booted before it is somebody. */
bool machine_parks(const struct launch_plan *plan);
/* Tells a parked guest who it is: guest's plan, exit and listening descriptors and logs; log_fds -1: all of these are
 * those of machine_load().
 * Returns at once; a monitor that cannot do it ends. */
int machine_identify(struct machine *machine, const struct machine_guest *guest, struct error **err);
/* A little later: whether it has refused. */
int machine_check_identified(struct machine *machine, struct error **err);
/* A running one gets processors and memory until it has so much; dir: the instance's folder. */
int machine_grow(struct instance *i, int dir, uint32_t vcpus, uint64_t memory_bytes, struct error **err);

#endif
