/* SPDX-License-Identifier: Apache-2.0 */
/* GET /v1/host and /v1/metrics: what this host is, which technologies it can run and why not, what was counted. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "daemon/internal.h"
#include "model/spec_parse.h"

static const char *const controller_names[] = {
    [CONTROLLER_CPU] = "cpu",   [CONTROLLER_CPUSET] = "cpuset", [CONTROLLER_MEMORY] = "memory",
    [CONTROLLER_PIDS] = "pids", [CONTROLLER_IO] = "io",         [CONTROLLER_FREEZER] = "freezer",
};
static const struct {
    uint32_t bit;
    const char *name;
} verb_names[] = {{VERB_STOP, "stop"},   {VERB_PAUSE, "pause"},       {VERB_UPDATE, "update"},
                  {VERB_EXEC, "exec"},   {VERB_LOGS, "logs"},         {VERB_CONSOLE, "attach"},
                  {VERB_STATS, "stats"}, {VERB_SNAPSHOT, "snapshot"}, {VERB_RESTORE, "restore"}};

static void render_technology(struct core *core, const struct technology *t, struct buffer *out)
{
    struct technology_state state;
    bool any = false;

    technology_probe(core, t, &state);
    buffer_printf(out, "{\"name\":\"%s\",\"driver\":\"%s\",\"available\":%s,\"accelerator\":", t->name, t->driver->name,
                  state.available ? "true" : "false");
    buffer_json(out, state.accelerator);
    buffer_text(out, ",\"why_not\":");
    buffer_json(out, state.why_not);
    buffer_text(out, ",\"what_would_help\":");
    buffer_json(out, state.what_would_help);
    buffer_text(out, ",\"verbs\":[");
    for (size_t i = 0; i < sizeof(verb_names) / sizeof(verb_names[0]); i++) {
        if (!(state.verbs & verb_names[i].bit))
            continue;
        buffer_printf(out, "%s\"%s\"", any ? "," : "", verb_names[i].name);
        any = true;
    }
    buffer_text(out, "],\"start_modes\":[");
    any = false;
    for (int mode = START_AUTO; mode <= START_SNAPSHOT; mode++) {
        if (!(state.start_modes >> mode & 1))
            continue;
        buffer_printf(out, "%s\"%s\"", any ? "," : "", start_mode_name((enum start_mode)mode));
        any = true;
    }
    buffer_printf(out, "],\"guests\":[");
    any = false;
    for (int v = 0; v < VARIANT_COUNT; v++) {
        if (!(variants_of(t->guest_kind) >> v & 1))
            continue;
        buffer_printf(out, "%s\"%s\"", any ? "," : "", variant_name((enum image_variant)v));
        any = true;
    }
    buffer_text(out, "]}");
}

static void render_machine(struct core *core, struct buffer *out)
{
    struct utsname u = {0};
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);

    uname(&u);
    buffer_text(out, "{\"hostname\":");
    buffer_json(out, u.nodename);
    buffer_text(out, ",\"kernel\":");
    buffer_json(out, u.release);
    buffer_text(out, ",\"machine\":");
    buffer_json(out, u.machine);
    buffer_printf(out, ",\"cpus\":%ld,\"memory_bytes\":%llu,\"version\":\"%s\",\"fabric_netns\":",
                  sysconf(_SC_NPROCESSORS_ONLN), (unsigned long long)pages * (unsigned long long)page, CORACLE_VERSION);
    buffer_json(out, core->facts_known ? core->facts.fabric_netns : NULL);
}

static void render_facts(struct core *core, struct buffer *out)
{
    const struct host_facts *f = &core->facts;
    bool any = false;

    if (!core->facts_known) {
        buffer_text(out, ",\"cgroup\":null,\"security\":null");
        return;
    }
    buffer_printf(out, ",\"cgroup\":{\"version\":%d,\"parent\":", f->cgroup_v2 ? 2 : 1);
    buffer_json(out, f->cgroup_parent);
    buffer_text(out, ",\"controllers\":[");
    for (size_t i = 0; i < sizeof(controller_names) / sizeof(controller_names[0]); i++) {
        if (!(f->controllers >> i & 1))
            continue;
        buffer_printf(out, "%s\"%s\"", any ? "," : "", controller_names[i]);
        any = true;
    }
#define YES_NO(flag) (f->flag ? "true" : "false")
    buffer_printf(out,
                  "]},\"security\":{\"seccomp\":%s,\"landlock\":%s,\"apparmor\":%s,\"selinux\":%s,"
                  "\"user_namespaces\":%s}",
                  YES_NO(seccomp), YES_NO(landlock), YES_NO(apparmor), YES_NO(selinux), YES_NO(user_namespaces));
#undef YES_NO
}

static void render_host(struct core *core, const struct message_pool_reply *pool, struct buffer *out)
{
    int32_t pid = launcher_client_pid(core->slots[SLOT_LAUNCHER].executor);

    render_machine(core, out);
    render_facts(core, out);
    buffer_printf(out,
                  ",\"launcher\":{\"connected\":%s,\"pid\":", core->slots[SLOT_LAUNCHER].connected ? "true" : "false");
    if (pid)
        buffer_i64(out, pid);
    else
        buffer_text(out, "null");
    buffer_text(out, "},\"pool\":");
    if (pool)
        buffer_printf(out, "{\"depth\":%u,\"ready\":%u,\"snapshots\":%u,\"taken\":%llu,\"missed\":%llu}", pool->depth,
                      pool->ready, pool->snapshots, (unsigned long long)pool->taken, (unsigned long long)pool->missed);
    else
        buffer_text(out, "null");
    buffer_text(out, ",\"technologies\":[");
    for (size_t i = 0; i < technology_count; i++) {
        if (i)
            buffer_char(out, ',');
        render_technology(core, &technologies[i], out);
    }
    buffer_text(out, "]}");
}

/* A question about the host: answered with the pool's figures, or without them when no launcher is there. */
struct host_question {
    struct core *core;
    core_text_done done;
    void *context;
    struct call *call; /* so that core_forget() finds it */
};

static void answer(struct host_question *q, const struct message_pool_reply *pool)
{
    auto_buffer struct buffer out = {0};

    if (!q->call->forgotten) {
        render_host(q->core, pool, &out);
        q->done(q->context, &out);
    }
    *q->call->link = q->call->next;
    if (q->call->next)
        q->call->next->link = q->call->link;
    free(q->call);
    free(q);
}

static void on_pool(void *context, enum message_type type, const void *message, int *fds, size_t fd_count,
                    const struct error *err)
{
    answer(context, err ? NULL : message);
}

static void on_no_pool(void *context, const struct error *err)
{
    answer(context, NULL);
}

int core_host(struct core *core, core_text_done done, void *context, struct error **err)
{
    struct host_question *q = calloc(1, sizeof(*q));
    struct waiter *w = calloc(1, sizeof(*w));
    struct call *call = calloc(1, sizeof(*call));

    if (!q || !w || !call) {
        free(q);
        free(w);
        free(call);
        return error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
    }
    *call = (struct call){.core = core, .context = context, .next = core->calls, .link = &core->calls};
    if (call->next)
        call->next->link = &call->next;
    core->calls = call;
    *q = (struct host_question){.core = core, .done = done, .context = context, .call = call};
    if (core->slots[SLOT_LAUNCHER].ready &&
        core_launcher_request(core, MESSAGE_POOL, NULL, NULL, 0, on_pool, q, NULL) == 0) {
        free(w);
        return 0;
    }
    *w = (struct waiter){.core = core, .done = on_no_pool, .context = q};
    waiter_finish(core, w, NULL);
    return 0;
}

/* ---- metrics */

static void counter(struct buffer *out, const char *name, const char *help, uint64_t value)
{
    buffer_printf(out, "# HELP coracle_%s %s\n# TYPE coracle_%s counter\ncoracle_%s %llu\n", name, help, name, name,
                  (unsigned long long)value);
}

static uint64_t resident_bytes(void)
{
    auto_file FILE *f = fopen("/proc/self/statm", "re");
    unsigned long long size, resident = 0;

    if (!f || fscanf(f, "%llu %llu", &size, &resident) != 2)
        resident = 0;
    return resident * (unsigned long long)sysconf(_SC_PAGESIZE);
}

void core_render_metrics(struct core *core, struct buffer *out)
{
    const struct counters *c = &core->counters;
    uint64_t by_state[STATE_COUNT] = {0};

    for (const struct instance *i = core->instances; i; i = i->next)
        by_state[i->state]++;
    buffer_text(out, "# HELP coracle_instances Instances by state.\n# TYPE coracle_instances gauge\n");
    for (int s = 0; s < STATE_COUNT; s++)
        buffer_printf(out, "coracle_instances{state=\"%s\"} %llu\n", instance_state_name((enum instance_state)s),
                      (unsigned long long)by_state[s]);
    counter(out, "instances_created_total", "Instances created since this daemon started.", c->created);
    counter(out, "instances_removed_total", "Instances removed since this daemon started.", c->removed);
    counter(out, "starts_total", "Starts that ended well.", c->starts);
    counter(out, "starts_failed_total", "Starts that failed.", c->starts_failed);
    counter(out, "exits_total", "Applications that ended.", c->exits);
    counter(out, "heals_total", "Automatic restarts begun.", c->heals);
    counter(out, "instances_lost_total", "Instances found gone.", c->lost);
    counter(out, "commits_total", "Transactions written.", c->commits);
    counter(out, "commits_failed_total", "Transactions that could not be written.", c->commits_failed);
    buffer_printf(out,
                  "# HELP coracle_launcher_connected Whether the launcher is there.\n"
                  "# TYPE coracle_launcher_connected gauge\ncoracle_launcher_connected %d\n",
                  core->slots[SLOT_LAUNCHER].ready);
    buffer_printf(out,
                  "# HELP coracle_resident_bytes Resident memory of the daemon.\n"
                  "# TYPE coracle_resident_bytes gauge\ncoracle_resident_bytes %llu\n",
                  (unsigned long long)resident_bytes());
}
