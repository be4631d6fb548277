/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plans a container inside a Tinyx guest of its own: the container's image, process, root and bounds as the container
 * driver plans them, and around them the machine that carries it (plan.h, `carrier`). One container a guest, so a guest
 * is never of two tenants.
 *
 * Memory is asked for the container; the guest gets that and its own need. Pure; called on the daemon's thread.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/hybrid/hybrid.h"
#include "model/capability.h"
#include "model/machine.h"
#include "model/process.h"

enum {
    CONTAINER_MEMORY = 64 << 20, /* when nothing is asked for: costs what it touches */
    GUEST_MEMORY = 28 << 20,     /* kernel, initramfs, init and runtime take 20 of it */
    LEAST_MEMORY = 4 << 20,
    STORAGE = 64 << 20,
    PIDS = 1024,
    NETWORKS = 4, /* a microvm has eight devices, and four are the guest's own */
};

static void hybrid_probe(const struct host_facts *facts, struct technology_state *ret)
{
    *ret = (struct technology_state){.accelerator = facts->kvm_linux ? "kvm" : "tcg"};
    if (!facts->qemu[0]) {
        ret->accelerator = "none";
        ret->why_not = "QEMU is not installed";
        ret->what_would_help = "apt-get install qemu-system-x86";
    } else if (!facts->tun) {
        ret->why_not = "there is no /dev/net/tun, so a machine cannot be connected";
        ret->what_would_help = "modprobe tun";
    } else if (!facts->overlay) {
        ret->why_not = "the kernel has no overlay file system, by which an image's layers are merged";
        ret->what_would_help = "modprobe overlay, or a kernel with CONFIG_OVERLAY_FS";
    } else {
        ret->available = true;
    }
}

static int check_spec(const struct vnf_spec *spec, const struct host_facts *facts, struct error **err)
{
    const struct limits *l = &spec->limits;
    struct limits whole = *l;
    int r = plan_check_ports(spec, facts->publish, err);

    if (r == 0)
        r = machine_check_least(spec, LEAST_MEMORY, err);
    if (r < 0)
        return r;
    if (spec->tty || spec->open_stdin) {
        error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "tty, stdin: %s has none: its guest is not typed to",
                  spec->technology);
        error_hint(err, "leave them out, and use coracle exec -it in the running instance; or technology container");
        return -ENOTSUP;
    }
    if (spec->network_count > NETWORKS) {
        error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "networks: %s joins at most %d", spec->technology,
                  NETWORKS);
        error_hint(err, "leave some out, or use technology container");
        return -ENOTSUP;
    }
    if (l->memory_bytes && l->storage_bytes > l->memory_bytes) {
        error_set(err, EINVAL, "INVALID_VALUE", "resources.storage: larger than resources.memory, in which it counts");
        error_hint(err, "raise resources.memory or lower resources.storage");
        return -EINVAL;
    }
    if (l->memory_bytes)
        whole.memory_bytes += GUEST_MEMORY;
    return limits_fit(&whole, facts->cpus, facts->memory_bytes, err);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Bounds of the container in its guest; then those of the machine on the host. */
static void plan_bounds(const struct vnf_spec *spec, const struct image_config *carrier, struct launch_plan *plan)
{
    const struct limits *asked = &spec->limits;
    struct plan_machine *m = &plan->machine;

    m->inner_memory_bytes = asked->memory_bytes ? asked->memory_bytes : CONTAINER_MEMORY;
    if (asked->storage_bytes > m->inner_memory_bytes) /* nobody bounded the memory in which it counts */
        m->inner_memory_bytes += asked->storage_bytes;
    m->inner_pids = asked->pids ? asked->pids : PIDS;
    plan->root.read_only = spec->read_only;
    if (!spec->read_only)
        plan->root.writable_bytes =
            asked->storage_bytes ? asked->storage_bytes : least(STORAGE, m->inner_memory_bytes / 2);
    m->memory_bytes = machine_memory(m->inner_memory_bytes + GUEST_MEMORY, 0, carrier->memory_min);
    m->vcpus = machine_vcpus(asked);
    machine_qemu_bounds(plan, false);
}

static int plan_machine(const struct vnf_spec *spec, const struct image_config *image, const struct host_facts *facts,
                        struct launch_plan *plan, struct error **err)
{
    const struct image_config *carrier = image->carrier;
    struct plan_machine *m = &plan->machine;

    m->monitor = PLAN_MONITOR_QEMU;
    m->boot = PLAN_BOOT_LINUX;
    m->kvm = facts->kvm_linux;
    memcpy(m->carrier, carrier->layers[0], sizeof(m->carrier));
    m->stop_signal = (uint32_t)(spec->stop_signal    ? spec->stop_signal
                                : image->stop_signal ? image->stop_signal
                                                     : SIGTERM);
    plan_bounds(spec, carrier, plan);
    m->identity = machine_identity(plan->hostname, plan->nics, plan->nic_count);
    m->parameters = machine_parameters(carrier->parameters, NULL);
    if (!m->identity || !m->parameters)
        return error_set(err, ENOMEM, "NO_MEMORY", "machine plan: out of memory");
    return machine_set_room(spec, false, m, err);
}

static int hybrid_plan(const struct vnf_spec *spec, const struct image_config *image, const struct host_facts *facts,
                       const struct plan_nic *nics, size_t nic_count, const char *id, struct launch_plan *ret,
                       struct error **err)
{
    struct launch_plan plan;
    int r = check_spec(spec, facts, err);

    if (r < 0)
        return r;
    machine_plan_begin(spec, id, image->layers, image->layer_count, nics, nic_count, &plan);
    plan.capabilities = capability_default_set() | spec->capabilities;
    r = process_plan(spec, image->entrypoint, image->command, image->env, image->workdir, image->user, plan.hostname,
                     &plan.process, err);
    if (r == 0)
        r = plan_machine(spec, image, facts, &plan, err);
    return plan_finish(&plan, r, ret, err);
}

const struct driver_ops hybrid_driver = {
    .name = "hybrid",
    .guest_kinds = GUEST_PROCESS,
    .verbs = VERB_STOP | VERB_PAUSE | VERB_EXEC | VERB_LOGS | VERB_STATS,
    .start_modes = 1 << START_AUTO | 1 << START_COLD | 1 << START_POOL,
    .probe = hybrid_probe,
    .plan = hybrid_plan,
    .make_executor = NULL, /* the launcher executes: it needs privileges */
};
