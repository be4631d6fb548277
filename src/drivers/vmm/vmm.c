/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plans a unikernel as a virtual machine: image and descriptor become a monitor, its memory and boot parameters.
 *
 * Where the host has KVM, coracle-vmm runs the guest at CPL 3, natively on every flavour of KVM. Where it has none, the
 * very same image runs under QEMU's emulation (microvm), which the accelerator tells. Pure; called by the reconciler on
 * the daemon's thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strv.h"
#include "drivers/vmm/vmm.h"
#include "model/command.h"
#include "model/machine.h"

enum {
    DEFAULT_MEMORY = 16 << 20, /* costs what the guest touches; the iperf endpoint's windows fit */
    LEAST_MEMORY = 4 << 20,
    MONITOR_BYTES = 16 << 20, /* the monitor's own, and what the kernel charges to it, on top of the guest's */
    MONITOR_TASKS = 16,
};

static void vmm_probe(const struct host_facts *facts, struct technology_state *ret)
{
    *ret = (struct technology_state){.accelerator = "kvm"};
    if (!facts->tun) {
        ret->why_not = "there is no /dev/net/tun, so a machine cannot be connected";
        ret->what_would_help = "modprobe tun";
    } else if (facts->kvm_present) {
        ret->available = true;
        if (!facts->kvm_linux)
            ret->accelerator = "kvm-pvm";
    } else if (facts->qemu[0]) {
        ret->available = true;
        ret->accelerator = "tcg";
        ret->keeps_identity = true; /* QEMU has no way to the guest's boot page */
    } else {
        ret->accelerator = "none";
        ret->why_not = facts->kvm_why_not[0] ? facts->kvm_why_not : "there is no /dev/kvm, and QEMU is not installed";
        ret->what_would_help = "a host with KVM (modprobe kvm_intel or kvm_amd, virtualization switched on in the "
                               "firmware), or for emulation: apt-get install qemu-system-x86";
    }
}

static int no_memory(struct error **err)
{
    return error_set(err, ENOMEM, "NO_MEMORY", "unikernel plan: out of memory");
}

static int check_image(const struct vnf_spec *spec, const struct image_config *image, struct error **err)
{
    if (image->guest == GUEST_UNIKERNEL && image->boot && strcmp(image->boot, "unikernel") == 0)
        return 0;
    error_set(err, EINVAL, "IMAGE_MALFORMED", "image: %s is no unikernel of Coracle's (it boots by %s)", spec->image,
              image->boot ? image->boot : "exec");
    error_hint(err, "build one: coracle build APP --for unikernel.kvm; other unikernels run on unikernel.osv.kvm");
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

static int plan_machine(const struct vnf_spec *spec, const struct image_config *image, const struct host_facts *facts,
                        struct launch_plan *plan, struct error **err)
{
    struct plan_machine *m = &plan->machine;
    auto_strv char **argv = NULL;
    int r = command_combine(spec, image->entrypoint, image->command, &argv, err);

    if (r < 0)
        return r;
    m->kvm = facts->kvm_present;
    m->monitor = m->kvm ? PLAN_MONITOR_VMM : PLAN_MONITOR_QEMU;
    m->boot = PLAN_BOOT_UNIKERNEL;
    m->restorable = m->kvm;
    m->vcpus = 1;
    m->memory_bytes = machine_memory(spec->limits.memory_bytes, DEFAULT_MEMORY,
                                     image->memory_min > LEAST_MEMORY ? image->memory_min : LEAST_MEMORY);
    r = machine_set_room(spec, false, m, err);
    if (r < 0)
        return r;
    m->identity = machine_identity(plan->hostname, plan->nics, plan->nic_count);
    m->parameters = machine_parameters(image->parameters, argv);
    if (!m->identity || !m->parameters)
        return no_memory(err);
    plan->limits.memory_bytes = m->memory_bytes + MONITOR_BYTES;
    plan->limits.pids = MONITOR_TASKS; /* the guest has one task: any limit asked for holds */
    if (m->monitor == PLAN_MONITOR_QEMU)
        machine_qemu_bounds(plan, false);
    return 0;
}

static int vmm_plan(const struct vnf_spec *spec, const struct image_config *image, const struct host_facts *facts,
                    const struct plan_nic *nics, size_t nic_count, const char *id, struct launch_plan *ret,
                    struct error **err)
{
    struct launch_plan plan;
    int r = check_image(spec, image, err);

    if (r == 0)
        r = machine_check_spec(spec, err);
    if (r == 0)
        r = check_host(spec, facts, err);
    if (r < 0)
        return r;
    machine_plan_begin(spec, id, image->layers, image->layer_count, nics, nic_count, &plan);
    r = plan_machine(spec, image, facts, &plan, err);
    return plan_finish(&plan, r, ret, err);
}

const struct driver_ops vmm_driver = {
    .name = "vmm",
    .guest_kinds = GUEST_UNIKERNEL,
    .verbs = VERB_STOP | VERB_PAUSE | VERB_UPDATE | VERB_LOGS | VERB_STATS | VERB_SNAPSHOT |
             VERB_RESTORE, /* no exec: there is one program */
    .start_modes = 1 << START_AUTO | 1 << START_COLD | 1 << START_POOL | 1 << START_SNAPSHOT,
    .probe = vmm_probe,
    .plan = vmm_plan,
    .make_executor = NULL, /* the launcher executes: it needs privileges */
};
