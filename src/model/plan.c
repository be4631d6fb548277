/* SPDX-License-Identifier: Apache-2.0 */
/* Bounds of a launch plan. The daemon checks what it sends, the launcher what it receives: the same function. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/strv.h"
#include "model/capability.h"
#include "model/plan.h"
#include "model/units.h"

enum { CWD_MAX = 4095, USER_TEXT_MAX = 255, LOG_BYTES_MAX = 1 << 30 };

void plan_clear(struct launch_plan *plan)
{
    strv_free(plan->process.argv);
    strv_free(plan->process.env);
    free(plan->process.cwd);
    free(plan->process.user);
    free(plan->machine.identity);
    free(plan->machine.parameters);
    memset(plan, 0, sizeof(*plan));
}

const char *start_origin_name(enum start_origin origin)
{
    static const char *const words[] = {[ORIGIN_COLD] = "cold", [ORIGIN_POOL] = "pool", [ORIGIN_SNAPSHOT] = "snapshot"};

    return (size_t)origin < sizeof(words) / sizeof(words[0]) ? words[origin] : "cold";
}

static int bad(struct error **err, const char *what)
{
    return error_set(err, EINVAL, "INVALID_VALUE", "plan: %s", what);
}

/* A terminated string inside its array; names from a wire may lack the terminator. */
static bool ends(const char *text, size_t size)
{
    return memchr(text, '\0', size) != NULL;
}

/* UUID text: 8-4-4-4-12 lower-case hexadecimal digits. It becomes part of paths, so nothing else may pass. */
static bool is_id(const char *id)
{
    if (!ends(id, INSTANCE_ID_SIZE) || strlen(id) != INSTANCE_ID_SIZE - 1)
        return false;
    for (size_t i = 0; i < INSTANCE_ID_SIZE - 1; i++) {
        if (i == 8 || i == 13 || i == 18 || i == 23) {
            if (id[i] != '-')
                return false;
        } else if (!strchr("0123456789abcdef", id[i])) {
            return false;
        }
    }
    return true;
}

static bool is_digest(const char *hex)
{
    return ends(hex, DIGEST_HEX_SIZE) && strlen(hex) == DIGEST_HEX_SIZE - 1 &&
           strspn(hex, "0123456789abcdef") == DIGEST_HEX_SIZE - 1;
}

static bool strings_fit(char *const *strings, size_t max, size_t *bytes)
{
    size_t n = strv_count(strings);

    for (size_t i = 0; i < n; i++)
        *bytes += strlen(strings[i]) + 1;
    return n <= max;
}

static int check_process(const struct launch_plan *plan, struct error **err)
{
    const struct plan_process *p = &plan->process;
    size_t bytes = 0;

    if (!p->argv || !p->argv[0] || !p->argv[0][0])
        return bad(err, "no program to run");
    /* command and args, and the image's environment beside the user's, share the vectors: twice the user's bound */
    if (!strings_fit(p->argv, 2 * ARGUMENT_MAX, &bytes) || !strings_fit(p->env, 2 * ARGUMENT_MAX, &bytes) ||
        bytes > 2 * ARGUMENT_BYTES_MAX)
        return bad(err, "arguments and environment are too large");
    for (char *const *e = p->env; e && *e; e++)
        if (**e == '=' || !strchr(*e, '='))
            return bad(err, "an environment entry is not KEY=value");
    if (!p->cwd || p->cwd[0] != '/' || strlen(p->cwd) > CWD_MAX)
        return bad(err, "the working directory is not absolute");
    if (p->user && strlen(p->user) > USER_TEXT_MAX)
        return bad(err, "the user is too long");
    return 0;
}

/* In memory: what is more is a mistake or an attack. */
#define STORAGE_BYTES_MAX (UINT64_C(1) << 40)

static int check_root(const struct launch_plan *plan, struct error **err)
{
    const struct plan_root *root = &plan->root;

    if (root->layer_count > LAYER_MAX || (plan->kind != PLAN_FAKE && root->layer_count < 1))
        return bad(err, "the number of layers is outside 1 to 64");
    for (size_t i = 0; i < root->layer_count; i++)
        if (!is_digest(root->layers[i]))
            return bad(err, "a layer is not named by a SHA-256");
    if (root->read_only && root->writable_bytes)
        return bad(err, "a read-only root with a writable layer");
    if (root->writable_bytes > STORAGE_BYTES_MAX || plan->limits.storage_bytes > STORAGE_BYTES_MAX)
        return bad(err, "a writable layer of more than 1 TiB");
    return 0;
}

/* A guest that carries a container. */
static int check_carrier(const struct launch_plan *plan, struct error **err)
{
    const struct plan_machine *m = &plan->machine;

    if (!is_digest(m->carrier))
        return bad(err, "a carrier is not named by a SHA-256");
    if (m->monitor != PLAN_MONITOR_QEMU || m->boot != PLAN_BOOT_LINUX)
        return bad(err, "a carrier that is no Linux kernel");
    if (m->snapshot[0] || m->restorable)
        return bad(err, "a carrier from a snapshot");
    if (m->stop_signal < 1 || m->stop_signal > 64)
        return bad(err, "a carrier's stop signal does not exist");
    if (m->inner_memory_bytes > m->memory_bytes || m->inner_pids > 1u << 22)
        return bad(err, "a container's limit is larger than its guest");
    return check_process(plan, err);
}

static int check_machine(const struct launch_plan *plan, struct error **err)
{
    const struct plan_machine *m = &plan->machine;

    if (m->monitor != PLAN_MONITOR_VMM && m->monitor != PLAN_MONITOR_QEMU)
        return bad(err, "a machine without a monitor");
    if (m->boot < PLAN_BOOT_UNIKERNEL || m->boot > PLAN_BOOT_MULTIBOOT)
        return bad(err, "an unknown way to boot a machine");
    if (m->memory_bytes < MACHINE_MEMORY_MIN || m->memory_bytes > MACHINE_MEMORY_MAX || m->memory_bytes % 4096)
        return bad(err, "a machine's memory is outside 1 MiB to 4 TiB, or not whole pages");
    if (m->vcpus < 1 || m->vcpus > MACHINE_VCPU_MAX)
        return bad(err, "a machine's processors are outside 1 to 64");
    if ((m->memory_max_bytes && m->memory_max_bytes < m->memory_bytes) || m->memory_max_bytes > MACHINE_MEMORY_MAX ||
        m->memory_max_bytes % 4096 || (m->vcpus_max && m->vcpus_max < m->vcpus) || m->vcpus_max > MACHINE_VCPU_MAX)
        return bad(err, "a machine can become no smaller than it is, nor larger than others");
    if (m->boot != PLAN_BOOT_DISK && (m->memory_max_bytes > m->memory_bytes || m->vcpus_max > m->vcpus))
        return bad(err, "a machine without slots that has room to grow");
    if ((m->identity ? strlen(m->identity) : 0) + (m->parameters ? strlen(m->parameters) : 0) + 2 >
        MACHINE_PARAMETERS_MAX)
        return bad(err, "a machine's boot parameters are too long");
    if (!ends(m->snapshot, sizeof(m->snapshot)) || (m->snapshot[0] && !is_id(m->snapshot)))
        return bad(err, "a snapshot is not named by a UUID");
    if (m->carrier[0] || !ends(m->carrier, sizeof(m->carrier)))
        return check_carrier(plan, err);
    if (plan->process.argv || plan->capabilities || !plan->root.read_only)
        return bad(err, "a machine with a container's parts");
    return 0;
}

static int check_nics(const struct launch_plan *plan, struct error **err)
{
    if (plan->nic_count > NETWORK_PER_INSTANCE_MAX)
        return bad(err, "too many networks");
    for (size_t i = 0; i < plan->nic_count; i++) {
        const struct plan_nic *nic = &plan->nics[i];

        if (!ends(nic->link, sizeof(nic->link)) || !units_is_name(nic->link))
            return bad(err, "a link's name is malformed");
        if (nic->mac[0] & 1 || !(nic->mac[0] & 2))
            return bad(err, "a MAC address is not a locally administered unicast one");
        if (nic->prefix4 > 32 || nic->prefix6 > 128)
            return bad(err, "an address prefix is too long");
        if (nic->prefix4 && (ntohl(nic->ipv4.s_addr) >> 28 >= 14 || ntohl(nic->ipv4.s_addr) >> 24 == 127 ||
                             ntohl(nic->ipv4.s_addr) >> 24 == 0))
            return bad(err, "an IPv4 address is not a unicast one");
        if (nic->prefix6 && (IN6_IS_ADDR_MULTICAST(&nic->ipv6) || IN6_IS_ADDR_UNSPECIFIED(&nic->ipv6) ||
                             IN6_IS_ADDR_LOOPBACK(&nic->ipv6)))
            return bad(err, "an IPv6 address is not a unicast one");
    }
    return 0;
}

static int check_ports(const struct launch_plan *plan, struct error **err)
{
    if (plan->port_count > PORT_PER_INSTANCE_MAX)
        return bad(err, "too many published ports");
    for (size_t i = 0; i < plan->port_count; i++) {
        const struct spec_port *port = &plan->ports[i];
        if (!port->host_port || !port->port || (port->protocol != IPPROTO_TCP && port->protocol != IPPROTO_UDP))
            return bad(err, "a published port is malformed");
    }
    return 0;
}

int plan_validate(const struct launch_plan *plan, struct error **err)
{
    int r;

    if (!is_id(plan->id))
        return bad(err, "the instance's id is not a UUID");
    if (!ends(plan->name, NAME_SIZE) || !units_is_name(plan->name) || !ends(plan->hostname, NAME_SIZE) ||
        !units_is_name(plan->hostname))
        return bad(err, "a name is not a DNS label");
    if (plan->kind != PLAN_CONTAINER && plan->kind != PLAN_FAKE && plan->kind != PLAN_MACHINE)
        return bad(err, "unknown kind");
    if ((unsigned)plan->start_mode > START_SNAPSHOT)
        return bad(err, "unknown start mode");
    if (plan->kind == PLAN_CONTAINER && (r = check_process(plan, err)) < 0)
        return r;
    if (plan->kind == PLAN_MACHINE && (r = check_machine(plan, err)) < 0)
        return r;
    if ((r = check_root(plan, err)) < 0 || (r = check_nics(plan, err)) < 0 || (r = check_ports(plan, err)) < 0)
        return r;
    if (!ends(plan->limits.cpuset, CPUSET_TEXT_SIZE) ||
        (plan->limits.cpuset[0] && !units_is_cpuset(plan->limits.cpuset)))
        return bad(err, "cpuset is malformed");
    if (plan->limits.cpu_milli > 4096000 || plan->limits.memory_bytes > 1ull << 50 || plan->limits.pids > 1u << 22)
        return bad(err, "a limit is too large");
    if (plan->capabilities & ~capability_allowed_set())
        return bad(err, "a capability outside the allowed set");
    if (plan->log_bytes_max > LOG_BYTES_MAX)
        return bad(err, "the log bound is too large");
    return 0;
}

void plan_begin(enum plan_kind kind, const struct vnf_spec *spec, const char *id, const char (*layers)[DIGEST_HEX_SIZE],
                size_t layer_count, const struct plan_nic *nics, size_t nic_count, struct launch_plan *ret)
{
    *ret = (struct launch_plan){.kind = kind, .start_mode = spec->start_mode, .limits = spec->limits};
    snprintf(ret->id, sizeof(ret->id), "%s", id);
    snprintf(ret->name, sizeof(ret->name), "%s", spec->name);
    snprintf(ret->hostname, sizeof(ret->hostname), "%s", spec->hostname[0] ? spec->hostname : spec->name);
    memcpy(ret->root.layers, layers, layer_count * sizeof(layers[0]));
    ret->root.layer_count = layer_count;
    for (size_t i = 0; i < nic_count; i++)
        ret->nics[i] = nics[i];
    ret->nic_count = nic_count;
    memcpy(ret->ports, spec->ports, spec->port_count * sizeof(spec->ports[0]));
    ret->port_count = spec->port_count;
}

int plan_finish(struct launch_plan *plan, int r, struct launch_plan *ret, struct error **err)
{
    if (r == 0)
        r = plan_validate(plan, err);
    if (r < 0) {
        plan_clear(plan);
        return r;
    }
    *ret = *plan;
    return 0;
}

int plan_check_ports(const struct vnf_spec *spec, bool publish, struct error **err)
{
    if (!spec->port_count || publish)
        return 0;
    error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "ports: publishing is not configured on this host");
    error_hint(err, "set publish = ADDRESS in host.conf and restart the launcher, or leave ports out: instances reach "
                    "each other on their network without it");
    return -ENOTSUP;
}
