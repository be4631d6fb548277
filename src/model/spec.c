/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a descriptor's life, and its JSON form. Used by the daemon. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "model/capability.h"
#include "model/json_read.h"
#include "model/spec_parse.h"
#include "model/units.h"

void spec_clear(struct vnf_spec *spec)
{
    strv_free(spec->command);
    strv_free(spec->args);
    pairs_free(spec->env, spec->env_count);
    pairs_free(spec->labels, spec->label_count);
    free(spec->user);
    free(spec->workdir);
    memset(spec, 0, sizeof(*spec));
}

/* Begins a member: a comma when something stands before it in this object. */
static void member(struct buffer *out, const char *name)
{
    char last = out->length ? out->data[out->length - 1] : '{';

    if (last != '{' && last != '[')
        buffer_char(out, ',');
    buffer_json(out, name);
    buffer_char(out, ':');
}

static void member_text(struct buffer *out, const char *name, const char *value)
{
    if (value && *value) {
        member(out, name);
        buffer_json(out, value);
    }
}

static void member_number(struct buffer *out, const char *name, uint64_t value)
{
    if (value) {
        member(out, name);
        buffer_u64(out, value);
    }
}

static void member_strings(struct buffer *out, const char *name, char *const *strings)
{
    if (!strings)
        return;
    member(out, name);
    for (size_t i = 0; i == 0 || strings[i]; i++) {
        buffer_char(out, i ? ',' : '[');
        if (!strings[i])
            break;
        buffer_json(out, strings[i]);
    }
    buffer_char(out, ']');
}

static void member_pairs(struct buffer *out, const char *name, const struct spec_pair *pairs, size_t count)
{
    if (!count)
        return;
    member(out, name);
    buffer_char(out, '{');
    for (size_t i = 0; i < count; i++) {
        member(out, pairs[i].key);
        buffer_json(out, pairs[i].value);
    }
    buffer_char(out, '}');
}

void limits_render(const struct limits *l, struct buffer *out)
{
    buffer_char(out, '{');
    if (l->cpu_milli) {
        member(out, "cpus");
        buffer_u64(out, l->cpu_milli / 1000);
        if (l->cpu_milli % 1000)
            buffer_printf(out, ".%03u", (unsigned)(l->cpu_milli % 1000));
    }
    member_text(out, "cpuset", l->cpuset);
    member_number(out, "memory", l->memory_bytes);
    member_number(out, "cpus_max", l->cpus_max);
    member_number(out, "memory_max", l->memory_max_bytes);
    member_number(out, "pids", l->pids);
    member_number(out, "storage", l->storage_bytes);
    if (l->io_read_bps || l->io_write_bps || l->io_read_iops || l->io_write_iops) {
        member(out, "io");
        buffer_char(out, '{');
        member_number(out, "read_bps", l->io_read_bps);
        member_number(out, "write_bps", l->io_write_bps);
        member_number(out, "read_iops", l->io_read_iops);
        member_number(out, "write_iops", l->io_write_iops);
        buffer_char(out, '}');
    }
    buffer_char(out, '}');
}

static void render_networks(const struct vnf_spec *spec, struct buffer *out)
{
    char text[INET6_ADDRSTRLEN];

    member(out, "networks");
    buffer_char(out, '[');
    for (size_t i = 0; i < spec->network_count; i++) {
        const struct spec_network *net = &spec->networks[i];
        buffer_text(out, i ? ",{" : "{");
        member_text(out, "name", net->name);
        if (net->ipv4.s_addr)
            member_text(out, "ipv4", inet_ntop(AF_INET, &net->ipv4, text, sizeof(text)));
        if (!IN6_IS_ADDR_UNSPECIFIED(&net->ipv6))
            member_text(out, "ipv6", inet_ntop(AF_INET6, &net->ipv6, text, sizeof(text)));
        buffer_char(out, '}');
    }
    buffer_char(out, ']');
}

static void render_ports_and_capabilities(const struct vnf_spec *spec, struct buffer *out)
{
    if (spec->port_count)
        member(out, "ports");
    for (size_t i = 0; i < spec->port_count; i++)
        buffer_printf(out, "%s\"%u:%u/%s\"%s", i ? "," : "[", spec->ports[i].host_port, spec->ports[i].port,
                      spec->ports[i].protocol == IPPROTO_UDP ? "udp" : "tcp", i + 1 == spec->port_count ? "]" : "");
    if (!spec->capabilities)
        return;
    member(out, "capabilities");
    char before = '[';
    for (unsigned i = 0; i < 32; i++) {
        if (!(spec->capabilities >> i & 1))
            continue;
        buffer_char(out, before);
        buffer_json(out, capability_name(i));
        before = ',';
    }
    buffer_char(out, ']');
}

static void render_policies(const struct vnf_spec *spec, struct buffer *out)
{
    char name[16];

    member(out, "restart");
    buffer_printf(out, "{\"policy\":\"%s\",\"max\":%u,\"backoff\":\"%ums\",\"backoff_max\":\"%ums\"}",
                  restart_policy_name(spec->restart), spec->restart_max, spec->restart_backoff_ms,
                  spec->restart_backoff_max_ms);
    member(out, "stop");
    buffer_char(out, '{');
    if (spec->stop_signal) {
        member(out, "signal");
        buffer_json(out, units_signal_name(spec->stop_signal, name));
    }
    member(out, "grace");
    buffer_printf(out, "\"%ums\"}", spec->stop_grace_ms);
    member(out, "start_mode");
    buffer_json(out, start_mode_name(spec->start_mode));
    if (spec->fault.step[0] || spec->fault.start_ms || spec->fault.after_ms || spec->fault.exit_status) {
        member(out, "fault");
        buffer_char(out, '{');
        member_text(out, "step", spec->fault.step);
        member_number(out, "after_ms", spec->fault.after_ms);
        member_number(out, "start_ms", spec->fault.start_ms);
        member_number(out, "exit_status", (uint64_t)spec->fault.exit_status);
        buffer_char(out, '}');
    }
}

void spec_render(const struct vnf_spec *spec, struct buffer *out)
{
    buffer_char(out, '{');
    member_text(out, "name", spec->name);
    member_text(out, "technology", spec->technology);
    member_text(out, "image", spec->image);
    member_strings(out, "command", spec->command);
    member_strings(out, "args", spec->args);
    member_pairs(out, "env", spec->env, spec->env_count);
    member_pairs(out, "labels", spec->labels, spec->label_count);
    member_text(out, "user", spec->user);
    member_text(out, "workdir", spec->workdir);
    member_text(out, "hostname", spec->hostname);
    member(out, "read_only");
    buffer_text(out, spec->read_only ? "true" : "false");
    member(out, "tty");
    buffer_text(out, spec->tty ? "true" : "false");
    member(out, "stdin");
    buffer_text(out, spec->open_stdin ? "true" : "false");
    member(out, "resources");
    limits_render(&spec->limits, out);
    render_networks(spec, out);
    render_ports_and_capabilities(spec, out);
    render_policies(spec, out);
    buffer_char(out, '}');
}
