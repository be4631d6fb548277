/* SPDX-License-Identifier: Apache-2.0 */
/* Boot parameters and the common part of machines' plans (machine.h). */
#include "model/machine.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "model/naming.h"

enum { PAGE_BYTES = 4096 };
enum {
    QEMU_TASKS = 80, /* main loop, RCU, up to 64 threads for disks */
};
#define QEMU_BYTES        (UINT64_C(96) << 20) /* 20 MiB of its own, its copies of a kernel and an initrd */
#define QEMU_WRITES_BYTES (UINT64_C(1) << 30)
#define QEMU_CODE_LEAST   (UINT64_C(32) << 20) /* src/qemu/machine.c gives QEMU a quarter of the memory, within these */
#define QEMU_CODE_MOST    (UINT64_C(256) << 20)

static void add_v4(struct buffer *out, const char *prefix, const struct plan_nic *nic)
{
    char text[INET_ADDRSTRLEN];

    inet_ntop(AF_INET, &nic->ipv4, text, sizeof(text));
    buffer_printf(out, " %sip4=%s/%u", prefix, text, nic->prefix4);
    if (!nic->gateway4.s_addr)
        return;
    inet_ntop(AF_INET, &nic->gateway4, text, sizeof(text));
    buffer_printf(out, " %sgw4=%s", prefix, text);
}

static void add_v6(struct buffer *out, const char *prefix, const struct plan_nic *nic)
{
    char text[INET6_ADDRSTRLEN];

    inet_ntop(AF_INET6, &nic->ipv6, text, sizeof(text));
    buffer_printf(out, " %sip6=%s/%u", prefix, text, nic->prefix6);
    if (IN6_IS_ADDR_UNSPECIFIED(&nic->gateway6))
        return;
    inet_ntop(AF_INET6, &nic->gateway6, text, sizeof(text));
    buffer_printf(out, " %sgw6=%s", prefix, text);
}

static char *take_text(struct buffer *out)
{
    char *text = out->failed ? NULL : strdup(out->data ? out->data : "");

    buffer_clear(out);
    return text;
}

char *machine_identity(const char *hostname, const struct plan_nic *nics, size_t nic_count)
{
    struct buffer out = {0};
    char prefix[16] = "";
    uint8_t mac[6];

    buffer_printf(&out, "hostname=%s", hostname);
    for (size_t i = 0; i < nic_count; i++) {
        if (i)
            snprintf(prefix, sizeof(prefix), "eth%u.", (unsigned)i);
        if (nics[i].prefix4)
            add_v4(&out, prefix, &nics[i]);
        if (nics[i].prefix6)
            add_v6(&out, prefix, &nics[i]);
        link_mac(nics[i].link, mac);
        buffer_printf(&out, " %sgwmac=%02x:%02x:%02x:%02x:%02x:%02x", prefix, mac[0], mac[1], mac[2], mac[3], mac[4],
                      mac[5]);
    }
    return take_text(&out);
}

static void add_word(struct buffer *out, const char *word)
{
    for (; *word; word++) {
        unsigned char c = (unsigned char)*word;
        if (c <= ' ' || c == '%' || c == '"' || c >= 0x7f)
            buffer_printf(out, "%%%02x", c);
        else
            buffer_char(out, (char)c);
    }
}

char *machine_parameters(const char *parameters, char *const *argv)
{
    struct buffer out = {0};

    buffer_text(&out, parameters ? parameters : "");
    for (char *const *word = argv; word && *word; word++) {
        if (word == argv)
            buffer_text(&out, parameters && *parameters ? " --" : "--");
        buffer_char(&out, ' ');
        add_word(&out, *word);
    }
    return take_text(&out);
}

uint64_t machine_memory(uint64_t asked, uint64_t normal, uint64_t least)
{
    uint64_t bytes = asked ? asked : normal;

    if (bytes < least)
        bytes = least;
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

uint32_t machine_vcpus(const struct limits *limits)
{
    uint64_t n = (limits->cpu_milli + 999) / 1000;

    return n < 1 ? 1 : n > MACHINE_VCPU_MAX ? MACHINE_VCPU_MAX : (uint32_t)n;
}

void machine_plan_begin(const struct vnf_spec *spec, const char *id, const char (*layers)[DIGEST_HEX_SIZE],
                        size_t layer_count, const struct plan_nic *nics, size_t nic_count, struct launch_plan *ret)
{
    plan_begin(PLAN_MACHINE, spec, id, layers, layer_count, nics, nic_count, ret);
    ret->root.read_only = true;
    ret->limits.storage_bytes = 0;
}

int machine_check_least(const struct vnf_spec *spec, uint64_t least, struct error **err)
{
    if (!spec->limits.memory_bytes || spec->limits.memory_bytes >= least)
        return 0;
    error_set(err, EINVAL, "INVALID_VALUE", "resources.memory: a machine of %s needs at least %llu MiB",
              spec->technology, (unsigned long long)least >> 20);
    return -EINVAL;
}

void machine_qemu_bounds(struct launch_plan *plan, bool private_disk)
{
    const struct plan_machine *m = &plan->machine;
    uint64_t code = m->memory_bytes / 4;

    code = code < QEMU_CODE_LEAST ? QEMU_CODE_LEAST : code > QEMU_CODE_MOST ? QEMU_CODE_MOST : code;
    plan->limits.memory_bytes =
        m->memory_bytes + QEMU_BYTES + (m->kvm ? 0 : code) + (private_disk ? QEMU_WRITES_BYTES : 0);
    plan->limits.pids = m->vcpus + QEMU_TASKS;
}

static int below(struct error **err, const char *field, const char *what)
{
    error_set(err, EINVAL, "INVALID_VALUE", "resources.%s: less than resources.%s", field, what);
    error_hint(err, "a machine has room for at least what it has");
    return -EINVAL;
}

int machine_set_room(const struct vnf_spec *spec, bool can_grow, struct plan_machine *m, struct error **err)
{
    const struct limits *l = &spec->limits;

    m->vcpus_max = l->cpus_max ? (uint32_t)l->cpus_max : m->vcpus;
    m->memory_max_bytes = l->memory_max_bytes ? l->memory_max_bytes / PAGE_BYTES * PAGE_BYTES : m->memory_bytes;
    if (!can_grow && (l->cpus_max || l->memory_max_bytes)) {
        error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY",
                  "resources.%s: a machine of %s has no slots for more as it runs",
                  l->cpus_max ? "cpus_max" : "memory_max", spec->technology);
        error_hint(err, "a disk's machine has (standardvm.kvm); others are stopped, updated and started");
        return -ENOTSUP;
    }
    if (m->vcpus_max < m->vcpus)
        return below(err, "cpus_max", "cpus");
    return m->memory_max_bytes < m->memory_bytes ? below(err, "memory_max", "memory") : 0;
}

static int cannot(struct error **err, const char *hint, const char *field, const char *why)
{
    error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "resources.%s: %s", field, why);
    error_hint(err, "%s", hint);
    return -ENOTSUP;
}

int machine_check_growth(const struct plan_machine *now, const struct plan_machine *wanted, struct error **err)
{
    static const char stop[] = "stop the instance, update it and start it";
    static const char room[] =
        "stop the instance, update it and start it; or give resources.cpus_max and memory_max before its start";

    if (wanted->vcpus < now->vcpus)
        return cannot(err, stop, "cpus", "processors are not taken from a running machine");
    if (wanted->memory_bytes < now->memory_bytes)
        return cannot(err, stop, "memory", "memory is not taken from a running machine");
    if (wanted->vcpus > now->vcpus_max)
        return cannot(err, room, "cpus", "the machine was not started with room for so many processors");
    if (wanted->memory_bytes > now->memory_max_bytes)
        return cannot(err, room, "memory", "the machine was not started with room for so much memory");
    if (wanted->vcpus_max != now->vcpus_max || wanted->memory_max_bytes != now->memory_max_bytes)
        return cannot(err, stop, now->vcpus_max != wanted->vcpus_max ? "cpus_max" : "memory_max",
                      "fixed while the machine runs");
    if ((wanted->memory_bytes - now->memory_bytes) % MACHINE_MEMORY_STEP == 0)
        return 0;
    error_set(err, EINVAL, "INVALID_VALUE", "resources.memory: a running machine is given memory in steps of %llu MiB",
              (unsigned long long)MACHINE_MEMORY_STEP >> 20);
    error_hint(err, "it has %llu MiB", (unsigned long long)now->memory_bytes >> 20);
    return -EINVAL;
}

int machine_check_spec(const struct vnf_spec *spec, struct error **err)
{
    const struct {
        bool asked;
        const char *field, *why;
    } foreign[] = {
        {spec->env_count != 0, "env", "a machine's guest has no environment; give arguments instead"},
        {spec->user != NULL, "user", "a machine's guest has its own users"},
        {spec->workdir != NULL, "workdir", "a machine's guest has its own directories"},
        {spec->capabilities != 0, "capabilities", "a machine's guest is alone in its kernel"},
        {spec->tty || spec->open_stdin, "tty, stdin", "a machine has a console: coracle attach"},
        {spec->limits.storage_bytes != 0, "resources.storage", "a machine's disk has the size its image gives it"},
    };

    for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++)
        if (foreign[i].asked) {
            error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "%s: %s has none: %s", foreign[i].field,
                      spec->technology, foreign[i].why);
            error_hint(err, "leave %s out", foreign[i].field);
            return -ENOTSUP;
        }
    return 0;
}
