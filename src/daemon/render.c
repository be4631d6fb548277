/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects of the API as JSON, printed straight into a buffer: a list of 1,000 instances is one pass over memory.
 *
 * Field names and order are those of docs/formats/rest-api.md. Daemon's thread.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "daemon/internal.h"
#include "daemon/store/store.h"
#include "model/codes.h"
#include "model/spec_parse.h"
#include "model/units.h"

enum { CIDR_SIZE = INET6_ADDRSTRLEN + 5 };

/* ,"name": and a value; text NULL prints null. */
static void text_member(struct buffer *out, const char *name, const char *value)
{
    buffer_text(out, name);
    buffer_json(out, value);
}

static void bool_member(struct buffer *out, const char *name, bool value)
{
    buffer_text(out, name);
    buffer_text(out, value ? "true" : "false");
}

static void number_member(struct buffer *out, const char *name, uint64_t value)
{
    buffer_text(out, name);
    buffer_u64(out, value);
}

static void time_member(struct buffer *out, const char *name, uint64_t realtime)
{
    buffer_text(out, name);
    buffer_json_time(out, realtime);
}

void core_render_version(struct buffer *out)
{
    buffer_text(out, "{\"version\":\"" CORACLE_VERSION "\",\"api\":\"v1\"}");
}

void core_render_health(struct core *core, struct buffer *out)
{
    bool launcher = core->slots[SLOT_LAUNCHER].ready;

    buffer_printf(out, "{\"status\":\"%s\",\"launcher\":%s}", launcher && !core->store_failing ? "ok" : "degraded",
                  launcher ? "true" : "false");
}

/* ---- problems */

/* The hint nearest to the cause is the most useful one. */
static const char *hint_of(const struct error *err)
{
    const char *hint = NULL;

    for (; err; err = err->cause)
        hint = err->hint ? err->hint : hint;
    return hint;
}

/* "NAME_TAKEN" as "Name taken". */
static void title_of(const char *code, struct buffer *out)
{
    buffer_char(out, '"');
    for (size_t i = 0; code[i]; i++)
        buffer_char(out, code[i] == '_' ? ' ' : i ? (char)(code[i] | 0x20) : code[i]);
    buffer_char(out, '"');
}

void core_render_problem(const struct error *err, struct buffer *out)
{
    const char *code = error_code_intern(err->code);
    char detail[2048];

    buffer_text(out, "{\"status\":");
    buffer_i64(out, error_code_http_status(code));
    text_member(out, ",\"code\":", code);
    buffer_text(out, ",\"title\":");
    title_of(code, out);
    text_member(out, ",\"detail\":", error_text(err, detail, sizeof(detail)));
    if (hint_of(err))
        text_member(out, ",\"hint\":", hint_of(err));
    buffer_char(out, '}');
}

/* ---- instances */

static void render_exit(const struct instance *i, struct buffer *out)
{
    char name[16];

    if (!i->exited) {
        buffer_text(out, ",\"exit\":null");
        return;
    }
    buffer_text(out, ",\"exit\":{");
    if (!i->exit_known)
        buffer_text(out, "\"status\":null");
    else if (WIFSIGNALED(i->exit_status))
        text_member(out, "\"signal\":", units_signal_name(WTERMSIG(i->exit_status), name));
    else
        number_member(out, "\"status\":", (uint64_t)WEXITSTATUS(i->exit_status));
    bool_member(out, ",\"oom\":", i->exit_oom);
    time_member(out, ",\"at\":", i->exited_at_ns);
    buffer_char(out, '}');
}

static void address_members(struct buffer *out, const char *names[3], int family, const void *address,
                            const void *gateway, unsigned prefix)
{
    char text[INET6_ADDRSTRLEN];

    text_member(out, names[0], prefix ? inet_ntop(family, address, text, sizeof(text)) : NULL);
    buffer_text(out, names[1]);
    if (prefix)
        buffer_u64(out, prefix);
    else
        buffer_text(out, "null");
    text_member(out, names[2], prefix ? inet_ntop(family, gateway, text, sizeof(text)) : NULL);
}

static void render_nics(const struct instance *i, struct buffer *out)
{
    static const char hex[] = "0123456789abcdef";
    static const char *four[3] = {",\"ipv4\":", ",\"prefix4\":", ",\"gateway4\":"};
    static const char *six[3] = {",\"ipv6\":", ",\"prefix6\":", ",\"gateway6\":"};

    buffer_text(out, ",\"networks\":[");
    for (size_t k = 0; k < i->nic_count; k++) {
        const struct plan_nic *nic = &i->nics[k];
        char mac[18];

        for (size_t b = 0; b < 6; b++) {
            mac[3 * b] = hex[nic->mac[b] >> 4];
            mac[3 * b + 1] = hex[nic->mac[b] & 15];
            mac[3 * b + 2] = b < 5 ? ':' : '\0';
        }
        text_member(out, k ? ",{\"name\":" : "{\"name\":", nic->link);
        number_member(out, ",\"interface\":\"eth", k);
        text_member(out, "\",\"mac\":", mac);
        address_members(out, four, AF_INET, &nic->ipv4, &nic->gateway4, nic->prefix4);
        address_members(out, six, AF_INET6, &nic->ipv6, &nic->gateway6, nic->prefix6);
        buffer_char(out, '}');
    }
    buffer_char(out, ']');
}

static void render_ports(const struct instance *i, struct buffer *out)
{
    buffer_text(out, ",\"ports\":[");
    for (size_t k = 0; k < i->port_count; k++) {
        number_member(out, k ? ",{\"host_port\":" : "{\"host_port\":", i->ports[k].host_port);
        number_member(out, ",\"port\":", i->ports[k].port);
        text_member(out, ",\"protocol\":", i->ports[k].protocol == IPPROTO_UDP ? "udp" : "tcp");
        buffer_char(out, '}');
    }
    buffer_char(out, ']');
}

static void render_labels(const struct instance *i, struct buffer *out)
{
    buffer_text(out, ",\"labels\":{");
    for (size_t k = 0; k < i->label_count; k++) {
        if (k)
            buffer_char(out, ',');
        buffer_json(out, i->labels[k].key);
        buffer_char(out, ':');
        buffer_json(out, i->labels[k].value);
    }
    buffer_char(out, '}');
}

/* What can be asked of it in its present state. */
static void render_verbs(const struct instance *i, struct buffer *out)
{
    uint32_t has = i->technology->driver->verbs;

    buffer_text(out, ",\"verbs\":[");
    switch (i->state) {
    case STATE_STARTED:
        buffer_text(out, "\"stop\",\"restart\",\"signal\"");
        buffer_text(out, has & VERB_PAUSE ? ",\"pause\"" : "");
        buffer_text(out, has & VERB_UPDATE ? ",\"update\"" : "");
        buffer_text(out, has & VERB_EXEC ? ",\"exec\"" : "");
        buffer_text(out, has & VERB_LOGS ? ",\"logs\"" : "");
        buffer_text(out, has & VERB_CONSOLE && (i->tty || i->open_stdin) ? ",\"attach\"" : "");
        buffer_text(out, has & VERB_STATS ? ",\"stats\"" : "");
        break;
    case STATE_PAUSED:
        buffer_text(out, "\"resume\",\"stop\",\"restart\"");
        buffer_text(out, has & VERB_UPDATE ? ",\"update\"" : "");
        buffer_text(out, has & VERB_LOGS ? ",\"logs\"" : "");
        buffer_text(out, has & VERB_STATS ? ",\"stats\"" : "");
        break;
    case STATE_STOPPED:
    case STATE_FAILED:
        buffer_text(out, "\"start\",\"restart\",\"remove\"");
        buffer_text(out, has & VERB_UPDATE ? ",\"update\"" : "");
        buffer_text(out, has & VERB_LOGS ? ",\"logs\"" : "");
        break;
    case STATE_NOT_INSTANTIATED:
        buffer_text(out, "\"start\",\"remove\"");
        buffer_text(out, has & VERB_UPDATE ? ",\"update\"" : "");
        break;
    default:
        break;
    }
    buffer_char(out, ']');
}

static void render_reason(const struct instance *i, struct buffer *out)
{
    if (!i->reason_code) {
        buffer_text(out, ",\"reason\":null");
        return;
    }
    text_member(out, ",\"reason\":{\"code\":", i->reason_code);
    text_member(out, ",\"message\":", i->reason_message);
    buffer_char(out, '}');
}

static void render_process(const struct instance *i, struct buffer *out)
{
    if (i->pid)
        number_member(out, ",\"pid\":", (uint64_t)i->pid);
    else
        buffer_text(out, ",\"pid\":null");
    if (i->pid)
        number_member(out, ",\"uid_base\":", i->uid_base);
    else
        buffer_text(out, ",\"uid_base\":null");
    bool_member(out, ",\"warm\":", i->origin != ORIGIN_COLD);
    text_member(out, ",\"started_from\":", start_origin_name(i->origin));
}

void core_render_instance(struct core *core, const struct instance *i, struct buffer *out)
{
    struct technology_state technology;

    buffer_reserve(out, 1024);
    technology_probe(core, i->technology, &technology);
    text_member(out, "{\"id\":", i->id);
    text_member(out, ",\"name\":", i->name);
    text_member(out, ",\"technology\":", i->technology->name);
    text_member(out, ",\"accelerator\":", technology.accelerator);
    text_member(out, ",\"image\":", *i->image ? i->image : NULL);
    text_member(out, ",\"image_digest\":", i->image_digest);
    text_member(out, ",\"state\":", instance_state_name(i->state));
    text_member(out, ",\"instantiationState\":", instance_instantiation_state(i->state));
    text_member(out, ",\"vnfState\":", instance_vnf_state(i->state));
    render_reason(i, out);
    render_process(i, out);
    render_exit(i, out);
    number_member(out, ",\"restarts\":", i->restarts);
    time_member(out, ",\"created_at\":", i->created_ns);
    time_member(out, ",\"started_at\":", i->started_ns);
    render_labels(i, out);
    render_nics(i, out);
    render_ports(i, out);
    buffer_text(out, ",\"resources\":");
    limits_render(&i->limits, out);
    buffer_text(out, ",\"spec\":");
    buffer_text(out, i->spec_json);
    text_member(out, ",\"operation\":", i->operation ? i->operation->id : NULL);
    render_verbs(i, out);
    buffer_char(out, '}');
}

void core_render_instances(struct core *core, const struct core_filter *filter, struct buffer *out)
{
    bool any = false;

    buffer_text(out, "{\"items\":[");
    for (const struct instance *i = core->instances; i; i = i->next) {
        if (!filter_instance(filter, i))
            continue;
        if (any)
            buffer_char(out, ',');
        any = true;
        core_render_instance(core, i, out);
    }
    buffer_text(out, "]}");
}

/* ---- operations */

static uint64_t us_since(uint64_t from, uint64_t to)
{
    return to > from ? (to - from) / 1000 : 0;
}

static void render_steps(const struct operation *op, struct buffer *out)
{
    buffer_text(out, ",\"steps\":[");
    for (uint32_t k = 0; k < op->steps.count; k++) {
        const struct step *s = &op->steps.list[k];
        text_member(out, k ? ",{\"name\":" : "{\"name\":", s->name);
        number_member(out, ",\"start_us\":", us_since(op->arrived_ns, s->start_ns));
        number_member(out, ",\"duration_us\":", s->duration_ns / 1000);
        buffer_char(out, '}');
    }
    buffer_char(out, ']');
}

void core_render_operation(struct core *core, const struct operation *op, struct buffer *out)
{
    text_member(out, "{\"id\":", op->id);
    text_member(out, ",\"instance\":", *op->instance_id ? op->instance_id : NULL);
    text_member(out, ",\"instance_name\":", *op->instance_name ? op->instance_name : NULL);
    text_member(out, ",\"operation\":", operation_kind_name(op->kind));
    text_member(out, ",\"changeStateTo\":", op->change_to);
    bool_member(out, ",\"isRestart\":", op->is_restart);
    text_member(out, ",\"operationState\":", operation_state_name(op->state));
    bool_member(out, ",\"isAutomaticInvocation\":", op->automatic);
    bool_member(out, ",\"isCancelPending\":", op->cancel_pending && !operation_state_ended(op->state));
    time_member(out, ",\"startTime\":", op->start_time_ns);
    time_member(out, ",\"stateEnteredTime\":", op->entered_ns);
    buffer_text(out, ",\"error\":");
    if (op->error)
        core_render_problem(op->error, out);
    else
        buffer_text(out, "null");
    render_steps(op, out);
    number_member(out, ",\"duration_us\":", us_since(op->arrived_ns, op->ended_ns ? op->ended_ns : monotonic_ns()));
    buffer_char(out, '}');
}

static int operation_not_found(const char *id, struct error **err)
{
    error_set(err, ENOENT, "OPERATION_NOT_FOUND", "there is no operation \"%.64s\"", id);
    error_hint(err, "GET /v1/operations lists those that are kept");
    return -ENOENT;
}

/* Ended ones, from the store, by id or a unique prefix of one. */
static int render_past(struct core *core, const char *id, struct buffer *out, struct error **err)
{
    sqlite3_stmt *s = store_statement(core->store, FIND_OPERATION);
    size_t before = out->length;
    char end[INSTANCE_ID_SIZE + 1];
    int result, found = 0;

    if (strlen(id) >= INSTANCE_ID_SIZE || strlen(id) < 4)
        return operation_not_found(id, err);
    strcpy(end, id);
    strcat(end, "~"); /* behind every character of an id */
    sqlite3_bind_text(s, 1, id, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 2, end, -1, SQLITE_STATIC);
    while ((result = sqlite3_step(s)) == SQLITE_ROW) {
        if (found++ == 0)
            buffer_add(out, sqlite3_column_text(s, 1), (size_t)sqlite3_column_bytes(s, 1));
    }
    sqlite3_reset(s);
    if (result == SQLITE_DONE && found == 1)
        return 0;
    out->length = before;
    if (result != SQLITE_DONE)
        return store_error(core->store, result, "reading an operation", err);
    if (found > 1)
        return error_set(err, EEXIST, "AMBIGUOUS_NAME", "\"%s\" begins the id of several operations", id);
    return operation_not_found(id, err);
}

int core_render_operation_id(struct core *core, const char *id, struct buffer *out, struct error **err)
{
    size_t n = strlen(id);

    for (const struct operation *op = core->operations; op; op = op->next) {
        if (strcmp(op->id, id) == 0 || (n >= 4 && strncmp(op->id, id, n) == 0)) {
            core_render_operation(core, op, out);
            return 0;
        }
    }
    return render_past(core, id, out, err);
}

static bool in_memory(const struct core *core, const char *id)
{
    for (const struct operation *op = core->operations; op; op = op->next)
        if (strcmp(op->id, id) == 0)
            return true;
    return false;
}

static void comma(struct buffer *out, bool *any)
{
    if (*any)
        buffer_char(out, ',');
    *any = true;
}

static int past_operations(struct core *core, const struct core_filter *filter, struct buffer *out, bool *any,
                           struct error **err)
{
    sqlite3_stmt *s = store_statement(core->store, ALL_OPERATIONS);
    int result;

    while ((result = sqlite3_step(s)) == SQLITE_ROW) {
        const char *column[5];
        for (int k = 0; k < 5; k++)
            column[k] = (const char *)sqlite3_column_text(s, k) ?: "";
        if (!filter_operation(filter, column[1], column[2], column[3], column[4]) || in_memory(core, column[0]))
            continue;
        comma(out, any);
        buffer_add(out, sqlite3_column_text(s, 5), (size_t)sqlite3_column_bytes(s, 5));
    }
    sqlite3_reset(s);
    return result == SQLITE_DONE ? 0 : store_error(core->store, result, "reading operations", err);
}

int core_render_operations(struct core *core, const struct core_filter *filter, struct buffer *out, struct error **err)
{
    size_t before = out->length;
    bool any = false;
    int r;

    buffer_text(out, "{\"items\":[");
    for (const struct operation *op = core->operations; op; op = op->next) {
        if (op->orphan_slot || !filter_operation(filter, op->instance_id, op->instance_name,
                                                 operation_kind_name(op->kind), operation_state_name(op->state)))
            continue;
        comma(out, &any);
        core_render_operation(core, op, out);
    }
    r = past_operations(core, filter, out, &any, err);
    if (r < 0) {
        out->length = before;
        return r;
    }
    buffer_text(out, "]}");
    return 0;
}

/* ---- networks */

void core_render_network(struct core *core, const struct network *n, struct buffer *out)
{
    char four[CIDR_SIZE], six[CIDR_SIZE], text[INET6_ADDRSTRLEN];

    network_cidr(n, four, six);
    text_member(out, "{\"name\":", n->name);
    text_member(out, ",\"ipv4\":", *four ? four : NULL);
    text_member(out, ",\"gateway4\":", *four ? inet_ntop(AF_INET, &n->subnet.gateway4, text, sizeof(text)) : NULL);
    text_member(out, ",\"ipv6\":", *six ? six : NULL);
    text_member(out, ",\"gateway6\":", *six ? inet_ntop(AF_INET6, &n->subnet.gateway6, text, sizeof(text)) : NULL);
    if (n->mtu)
        number_member(out, ",\"mtu\":", n->mtu);
    else
        buffer_text(out, ",\"mtu\":null");
    /* what it may, and the host has: a network marked so reaches nothing where no uplink is configured */
    bool_member(out, ",\"uplink\":", n->uplink && core->facts_known && core->facts.uplink[0]);
    number_member(out, ",\"instances\":", n->instances);
    buffer_char(out, '}');
}

void core_render_networks(struct core *core, struct buffer *out)
{
    bool any = false;

    buffer_text(out, "{\"items\":[");
    for (const struct network *n = core->networks; n; n = n->next) {
        if (n->removed)
            continue;
        comma(out, &any);
        core_render_network(core, n, out);
    }
    buffer_text(out, "]}");
}

/* ---- statistics */

void core_render_stats(const struct instance *i, const struct instance_stats *s, struct buffer *out)
{
    const struct {
        const char *name;
        enum stat_bit bit;
        uint64_t value;
    } rows[] = {
        {"cpu_ns", STAT_CPU, s->cpu_ns},
        {"memory_bytes", STAT_MEMORY, s->memory_bytes},
        {"memory_peak_bytes", STAT_MEMORY_PEAK, s->memory_peak_bytes},
        {"pids", STAT_PIDS, s->pids},
        {"oom_kills", STAT_OOM, s->oom_kills},
        {"throttled_ns", STAT_THROTTLED, s->throttled_ns},
        {"io_read_bytes", STAT_IO, s->io_read_bytes},
        {"io_write_bytes", STAT_IO, s->io_write_bytes},
        {"rx_packets", STAT_NET, s->rx_packets},
        {"rx_bytes", STAT_NET, s->rx_bytes},
        {"rx_dropped", STAT_NET, s->rx_dropped},
        {"tx_packets", STAT_NET, s->tx_packets},
        {"tx_bytes", STAT_NET, s->tx_bytes},
        {"tx_dropped", STAT_NET, s->tx_dropped},
    };

    text_member(out, "{\"id\":", i->id);
    text_member(out, ",\"name\":", i->name);
    text_member(out, ",\"technology\":", i->technology->name);
    for (size_t k = 0; k < sizeof(rows) / sizeof(rows[0]); k++) {
        buffer_text(out, ",\"");
        buffer_text(out, rows[k].name);
        buffer_text(out, "\":");
        if (s->known >> rows[k].bit & 1)
            buffer_u64(out, rows[k].value);
        else
            buffer_text(out, "null");
    }
    buffer_char(out, '}');
}
