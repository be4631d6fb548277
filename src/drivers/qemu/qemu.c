/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plans a machine that coracle-qemu runs: a Linux kernel (tinyx.kvm), a disk with its boot loader (standardvm.kvm), or
 * a unikernel built elsewhere (unikernel.osv.kvm and its like).
 *
 * Their code runs at ring 0, so KVM serves only where it runs ring 0 natively (VT-x, SVM); elsewhere QEMU emulates, and
 * the accelerator says so. Pure; called by the reconciler on the daemon's thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strv.h"
#include "drivers/qemu/parameters.h"
#include "drivers/qemu/qemu.h"
#include "model/command.h"
#include "model/machine.h"

enum {
    LINUX_MEMORY = 64 << 20, /* costs what the guest touches */
    DISK_MEMORY = 512 << 20,
    BROUGHT_MEMORY = 128 << 20,
    LEAST_MEMORY = 8 << 20,
};

static void qemu_probe(const struct host_facts *facts, struct technology_state *ret)
{
    *ret = (struct technology_state){.accelerator = facts->kvm_linux ? "kvm" : "tcg"};
    if (!facts->qemu[0]) {
        ret->accelerator = "none";
        ret->why_not = "QEMU is not installed";
        ret->what_would_help = "apt-get install qemu-system-x86";
    } else if (!facts->tun) {
        ret->why_not = "there is no /dev/net/tun, so a machine cannot be connected";
        ret->what_would_help = "modprobe tun";
    } else {
        ret->available = true;
    }
}

static int no_memory(struct error **err)
{
    return error_set(err, ENOMEM, "NO_MEMORY", "machine plan: out of memory");
}

/* Numbers are those of enum monitor_boot; the words are the image's (docs/formats/guest-images.md). */
static int find_boot(const struct vnf_spec *spec, const struct image_config *image, enum plan_boot *ret,
                     struct error **err)
{
    static const struct {
        const char *word;
        enum plan_boot boot;
    } boots[] = {{"unikernel", PLAN_BOOT_UNIKERNEL},
                 {"pvh", PLAN_BOOT_PVH},
                 {"linux", PLAN_BOOT_LINUX},
                 {"disk", PLAN_BOOT_DISK},
                 {"multiboot", PLAN_BOOT_MULTIBOOT}};

    for (size_t i = 0; image->boot && i < sizeof(boots) / sizeof(boots[0]); i++)
        if (strcmp(image->boot, boots[i].word) == 0) {
            *ret = boots[i].boot;
            return 0;
        }
    error_set(err, EINVAL, "IMAGE_MALFORMED", "image: %s does not boot as a machine", spec->image);
    error_hint(err, "import a kernel or a disk: coracle image import FILE NAME --guest linux|disk|unikernel");
    return -EINVAL;
}

static int check_host(const struct vnf_spec *spec, const struct host_facts *facts, struct error **err)
{
    int r = plan_check_ports(spec, facts->publish, err);

    if (r == 0)
        r = machine_check_least(spec, LEAST_MEMORY, err);
    if (r < 0)
        return r;
    return limits_fit(&spec->limits, facts->cpus, facts->memory_bytes, err);
}

/*
 * A guest that reads Coracle's words gets them; another one gets its own, filled in. A disk's boot loader is told
 * nothing: its words come on a metadata disk and by its agent (docs/formats/guest-agent.md). A guest without an agent
 * is never ready, so it never becomes a template: that Linux is called restorable does no harm to one that is not.
 */
static int plan_parameters(const struct vnf_spec *spec, const struct image_config *image, struct launch_plan *plan,
                           struct error **err)
{
    struct plan_machine *m = &plan->machine;
    auto_strv char **argv = NULL;
    bool has_command = image->entrypoint || image->command || spec->command || spec->args;

    if (has_command) {
        int r = command_combine(spec, image->entrypoint, image->command, &argv, err);
        if (r < 0)
            return r;
    }
    if (image->guest == GUEST_UNIKERNEL && m->boot != PLAN_BOOT_UNIKERNEL)
        return parameters_fill(image->parameters, argv, plan->hostname, plan->nics, plan->nic_count, &m->parameters,
                               err);
    m->identity = machine_identity(plan->hostname, plan->nics, plan->nic_count);
    m->parameters = machine_parameters(image->parameters, argv);
    return m->identity && m->parameters ? 0 : no_memory(err);
}

static uint64_t normal_memory(enum plan_boot boot)
{
    return boot == PLAN_BOOT_DISK ? DISK_MEMORY : boot == PLAN_BOOT_LINUX ? LINUX_MEMORY : BROUGHT_MEMORY;
}

static int plan_machine(const struct vnf_spec *spec, const struct image_config *image, const struct host_facts *facts,
                        struct launch_plan *plan, struct error **err)
{
    struct plan_machine *m = &plan->machine;
    int r = find_boot(spec, image, &m->boot, err);

    if (r < 0)
        return r;
    m->monitor = PLAN_MONITOR_QEMU;
    m->kvm = facts->kvm_linux;
    m->restorable = image->guest == GUEST_LINUX; /* by its agent, see below */
    m->vcpus = machine_vcpus(&spec->limits);
    m->memory_bytes = machine_memory(spec->limits.memory_bytes, normal_memory(m->boot),
                                     image->memory_min > LEAST_MEMORY ? image->memory_min : LEAST_MEMORY);
    r = machine_set_room(spec, m->boot == PLAN_BOOT_DISK, m, err);
    if (r < 0)
        return r;
    machine_qemu_bounds(plan, image->disk != NULL);
    return plan_parameters(spec, image, plan, err);
}

static int qemu_plan(const struct vnf_spec *spec, const struct image_config *image, const struct host_facts *facts,
                     const struct plan_nic *nics, size_t nic_count, const char *id, struct launch_plan *ret,
                     struct error **err)
{
    struct launch_plan plan;
    int r = machine_check_spec(spec, err);

    if (r == 0)
        r = check_host(spec, facts, err);
    if (r < 0)
        return r;
    machine_plan_begin(spec, id, image->layers, image->layer_count, nics, nic_count, &plan);
    r = plan_machine(spec, image, facts, &plan, err);
    return plan_finish(&plan, r, ret, err);
}

const struct driver_ops qemu_driver = {
    .name = "qemu",
    .guest_kinds = GUEST_UNIKERNEL | GUEST_LINUX,
    .verbs = VERB_STOP | VERB_PAUSE | VERB_UPDATE | VERB_LOGS | VERB_STATS | VERB_SNAPSHOT | VERB_RESTORE,
    .start_modes = 1 << START_AUTO | 1 << START_COLD | 1 << START_POOL | 1 << START_SNAPSHOT,
    .probe = qemu_probe,
    .plan = qemu_plan,
    .make_executor = NULL, /* the launcher executes: it needs privileges */
};
