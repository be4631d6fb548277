/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroups of containers: v2, v1, or the hybrid of both, behind one set of functions.
 *
 * A container has at most one directory in each hierarchy, NAME/TAG, addressed below an open descriptor of NAME, so no
 * descriptor is held per container. Used by the runtime library on the launcher's threads.
 */
#ifndef CORACLE_RUNTIME_CGROUP_H
#define CORACLE_RUNTIME_CGROUP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "model/limits.h"
#include "runtime/runtime.h"

enum { CGROUP_CONTROLLERS = 6, CGROUP_UNIFIED = CGROUP_CONTROLLERS, CGROUP_HIERARCHIES = CGROUP_CONTROLLERS + 1 };

struct cgroups {
    /* Index: bit number of enum runtime_controller, CGROUP_UNIFIED for the cgroup2 tree. */
    int parent_fd[CGROUP_HIERARCHIES]; /* NAME in that hierarchy; -1: no such hierarchy */
    int home_fd[CGROUP_CONTROLLERS];   /* v1: tasks file of the launcher's own cgroup */
    uint32_t v1;                       /* controllers with a v1 hierarchy */
    uint32_t v2;                       /* controllers of the cgroup2 tree, enabled for NAME's children */
    bool kill, freeze;                 /* cgroup.kill and cgroup.freeze in the cgroup2 tree */
    char io_device[24];                /* "MAJOR:MINOR" of the disk limits apply to; "": none */
};

/* io_dirfd: a directory on the device that io limits apply to. Makes the parents. */
int cgroups_open(struct cgroups *ret_cgroups, const char *parent, int io_dirfd, struct error **err);
void cgroups_close(struct cgroups *cgroups);

/* The controllers that can be enforced (FREEZER: pausing works). */
uint32_t cgroups_available(const struct cgroups *cgroups);

/* The v1 controllers each container joins at its creation, limits or not. */
uint32_t cgroup_default_set(const struct cgroups *cgroups);

/* Makes TAG in the cgroup2 tree, if any, and in the v1 hierarchies of controllers. All or nothing. */
int cgroup_make(const struct cgroups *cgroups, const char *tag, uint32_t controllers, struct error **err);

/* A descriptor of TAG in the cgroup2 tree for CLONE_INTO_CGROUP; -1: none. */
int cgroup_open_unified(const struct cgroups *cgroups, const char *tag);

/* Moves the calling thread into TAG's cgroups of the v1 controllers, and home again. */
int cgroup_enter(const struct cgroups *cgroups, const char *tag, uint32_t controllers, struct error **err);
void cgroup_leave(const struct cgroups *cgroups, uint32_t controllers);

/* Which v1 directories TAG has. */
uint32_t cgroup_present(const struct cgroups *cgroups, const char *tag);

/* The controllers that limits need. */
uint32_t cgroup_needed(const struct limits *limits);
int cgroup_check(const struct cgroups *cgroups, const struct limits *limits, struct error **err);

/* Writes every limit asked for; with all also "no limit" for those not asked for. Puts back the old ones when one
 * fails. The directories must exist. */
int cgroup_apply(const struct cgroups *cgroups, const char *tag, const struct limits *limits, bool all,
                 struct error **err);

/* Opens TAG's tasks file of a v1 controller for writing; -1 with errno. */
int cgroup_open_tasks(const struct cgroups *cgroups, const char *tag, unsigned controller);

/* Moves all processes of TAG into its cgroup of a v1 controller (after cgroup_make()); may take 10 ms each. */
int cgroup_move_all(const struct cgroups *cgroups, const char *tag, unsigned controller, struct error **err);

/* Makes the v1 cgroups that limits need and TAG lacks, and moves everybody there. */
int cgroup_join_missing(const struct cgroups *cgroups, const char *tag, const struct limits *limits,
                        struct error **err);

int cgroup_stats(const struct cgroups *cgroups, const char *tag, struct container_stats *ret_stats);
bool cgroup_oom_kills(const struct cgroups *cgroups, const char *tag, uint64_t *ret_count);

int cgroup_freeze(const struct cgroups *cgroups, const char *tag, bool frozen, struct error **err);
bool cgroup_frozen(const struct cgroups *cgroups, const char *tag);

/* SIGKILL to every process of TAG; one round. Returns how many processes were seen. */
int cgroup_kill(const struct cgroups *cgroups, const char *tag);

/* Removes TAG everywhere, waiting up to timeout_ms for processes that are ending. */
int cgroup_remove(const struct cgroups *cgroups, const char *tag, int timeout_ms, struct error **err);

/* Calls each(context, tag) once or more for every directory below the parents. */
int cgroup_each(const struct cgroups *cgroups, void (*each)(void *context, const char *tag), void *context,
                struct error **err);

#endif
