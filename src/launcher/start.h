/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One start under way: what start.c (the order of things, the same for all) shares with the kinds of instance
 * (start_container.c, start_machine.c). Nobody else includes it. On a worker thread.
 */
#ifndef CORACLE_LAUNCHER_START_H
#define CORACLE_LAUNCHER_START_H

#include "base/beside.h"
#include "launcher/instance.h"
#include "launcher/pool.h"

struct start;

/* What differs between a container and a machine. Each makes or takes parts of struct start; undo() and abandon() take
 * them back. */
struct start_ops {
    /* A prepared shell of the plan's kind becomes this start's: uid range, ports, spare logs, origin. False: none. */
    bool (*take_prepared)(struct start *s);
    /* Without one: makes the shell and its wires; numbers are taken, i->ports.count is 0 and set here. Calls
     * start_begin_files(). */
    int (*make_cold)(struct start *s, struct error **err);
    /* Announces the plan's addresses and gives them to the instance as far as the platform does that. */
    int (*give_addresses)(struct start *s, struct error **err);
    /* The application runs, or the guest's first instruction is next: i->container replaces the shell. */
    int (*run)(struct start *s, struct error **err);
    /* Destroys the shell, if any. -errno: something of it may be left. */
    int (*abandon)(struct start *s, struct error **err);
};

extern const struct start_ops start_container, start_machine;

struct start {
    struct launcher *l;
    struct job *job;
    struct instance *i;
    struct launch_plan *plan;
    const struct start_ops *ops;
    bool again;    /* the instance ran before and ended */
    bool prepared; /* shell came from the pool */
    bool own_folder; /* and its folder with it */
    enum start_origin origin;
    struct warm_shell shell; /* .shell or .machine: ours until it became i->container; log files until they are kept */
    struct root_work *root;  /* begun for a cold shell, not given to it yet */
    int snapshot_fd;         /* a machine's guest comes from it, -1: from its image */
    int dir, log_fds[2], exit_fd, listen_fd;
    struct files_work { /* the opening of those but dir, beside what else a cold start makes */
        struct beside_work work;
        uint64_t begin_ns, end_ns;
        int result;
        struct error *err;
    } files;
    struct steps steps;
};

/* Opens the files beside: called once, when the caller has begun what is needed earlier. */
void start_begin_files(struct start *s);
int start_check_cancelled(const struct start *s, struct error **err);
/* errno as an error that says what was being done. */
int start_failed(struct error **err, const char *what);

#endif
