/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plans a container: what the image brings and what the user says become one process, one root, one set of bounds.
 *
 * Pure: no privilege, no I/O; the launcher carries the plan out. Command and environment combine as docker's do, so
 * that images behave as their authors saw them. Called by the reconciler on the daemon's thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "drivers/container/container.h"
#include "model/capability.h"
#include "model/process.h"

enum { DEFAULT_STORAGE = 64 << 20 };

static void container_probe(const struct host_facts *facts, struct technology_state *ret)
{
    *ret = (struct technology_state){.accelerator = "none"};
    if (!facts->user_namespaces) {
        ret->why_not = "user namespaces are switched off on this host";
        ret->what_would_help =
            "sysctl user.max_user_namespaces=32768 (and kernel.unprivileged_userns_clone is not needed)";
    } else if (!facts->idmapped_mounts) {
        ret->why_not = "the kernel or the file system of the image store has no idmapped mounts";
        ret->what_would_help =
            "Linux 5.12 or newer (5.19 for overlay) with the state directory on ext4, xfs, btrfs or tmpfs";
    } else if (!facts->overlay) {
        ret->why_not = "the kernel has no overlay file system";
        ret->what_would_help = "modprobe overlay, or a kernel with CONFIG_OVERLAY_FS";
    } else if (!facts->seccomp) {
        ret->why_not = "the kernel has no seccomp filters";
        ret->what_would_help = "a kernel with CONFIG_SECCOMP_FILTER";
    } else {
        ret->available = true;
    }
}

/* ---- bounds */

static int not_enforceable(const char *limit, const char *controller, const struct host_facts *facts,
                           struct error **err)
{
    error_set(err, ENOTSUP, "LIMIT_NOT_ENFORCEABLE", "resources.%s: this host has no cgroup %s controller", limit,
              controller);
    if (facts->cgroup_v2)
        error_hint(err,
                   "enable it above the platform's cgroup (echo +%s > cgroup.subtree_control), or leave the limit "
                   "out",
                   controller);
    error_hint(err,
               "mount it (mount -t cgroup -o %s %s /sys/fs/cgroup/%s) or boot without cgroup_disable=%s; or leave "
               "the limit out",
               controller, controller, controller, controller);
    return -ENOTSUP;
}

static int check_limits(const struct limits *l, const struct host_facts *facts, struct error **err)
{
    const struct {
        bool asked;
        enum controller controller;
        const char *limit, *name;
    } needs[] = {
        {l->cpu_milli != 0, CONTROLLER_CPU, "cpus", "cpu"},
        {l->cpuset[0] != '\0', CONTROLLER_CPUSET, "cpuset", "cpuset"},
        {l->memory_bytes != 0, CONTROLLER_MEMORY, "memory", "memory"},
        {l->pids != 0, CONTROLLER_PIDS, "pids", "pids"},
        {l->io_read_bps || l->io_write_bps || l->io_read_iops || l->io_write_iops, CONTROLLER_IO, "io",
         facts->cgroup_v2 ? "io" : "blkio"},
    };

    for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++)
        if (needs[i].asked && !(facts->controllers >> needs[i].controller & 1))
            return not_enforceable(needs[i].limit, needs[i].name, facts, err);
    if (l->cpus_max || l->memory_max_bytes) {
        error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "resources.%s: a container has no slots to fill",
                  l->cpus_max ? "cpus_max" : "memory_max");
        error_hint(err, "leave it out: a container's limits are changed without it");
        return -ENOTSUP;
    }
    if (limits_fit(l, facts->cpus, facts->memory_bytes, err) < 0)
        return -ERANGE;
    if (l->memory_bytes && l->storage_bytes > l->memory_bytes) {
        error_set(err, EINVAL, "INVALID_VALUE", "resources.storage: larger than resources.memory, in which it counts");
        error_hint(err, "raise resources.memory or lower resources.storage");
        return -EINVAL;
    }
    return 0;
}

static void plan_root(const struct vnf_spec *spec, struct plan_root *root)
{
    root->read_only = spec->read_only;
    if (!spec->read_only)
        root->writable_bytes = spec->limits.storage_bytes ? spec->limits.storage_bytes : DEFAULT_STORAGE;
}

static int container_plan(const struct vnf_spec *spec, const struct image_config *image, const struct host_facts *facts,
                          const struct plan_nic *nics, size_t nic_count, const char *id, struct launch_plan *ret,
                          struct error **err)
{
    struct launch_plan plan;
    int r = plan_check_ports(spec, facts->publish, err);

    if (r == 0)
        r = check_limits(&spec->limits, facts, err);
    if (r < 0)
        return r;
    plan_begin(PLAN_CONTAINER, spec, id, image->layers, image->layer_count, nics, nic_count, &plan);
    plan_root(spec, &plan.root);
    plan.limits.storage_bytes = plan.root.writable_bytes;
    plan.capabilities = capability_default_set() | spec->capabilities;
    r = process_plan(spec, image->entrypoint, image->command, image->env, image->workdir, image->user, plan.hostname,
                     &plan.process, err);
    return plan_finish(&plan, r, ret, err);
}

const struct driver_ops container_driver = {
    .name = "container",
    .guest_kinds = GUEST_PROCESS,
    .verbs = VERB_STOP | VERB_PAUSE | VERB_UPDATE | VERB_EXEC | VERB_LOGS | VERB_CONSOLE | VERB_STATS,
    .start_modes = 1 << START_AUTO | 1 << START_COLD | 1 << START_POOL,
    .probe = container_probe,
    .plan = container_plan,
    .make_executor = NULL, /* the launcher executes: it needs privileges */
};
