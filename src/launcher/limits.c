/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An instance's limits as they will be in force: what a plan does not ask for gets host.conf's defaults, so that no
 * instance can fill the host's process table or its memory; then the bounds of this host. Workers, for starts and
 * updates.
 */
#include "launcher/instance.h"

int limits_settle(struct launcher *l, struct limits *limits, struct error **err)
{
    const struct options *o = &l->options;
    struct runtime_facts facts;

    runtime_facts(l->runtime, &facts);
    /* Where there is no controller a default is not in force; only what is asked for is refused then. */
    if (!limits->pids && (facts.controllers & RUNTIME_PIDS))
        limits->pids = o->pids_default;
    if (!limits->memory_bytes && (facts.controllers & RUNTIME_MEMORY))
        limits->memory_bytes = o->memory_default ? o->memory_default : facts.memory_bytes / 100 * o->memory_percent;
    return runtime_check_limits(l->runtime, limits, err);
}
