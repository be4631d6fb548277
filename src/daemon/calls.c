/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to running instances that change nothing stored: signal, statistics, logs, console, exec, the host's state.
 *
 * Each is one message to the executor; the client's callback comes with the answer, unless the client has left.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strv.h"
#include "daemon/internal.h"
#include "model/json_read.h"
#include "model/units.h"

#define DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

enum { STATS_ROUND_MAX = 65536 };

/* STATS of all: a list that is complete when the last answer came. */
struct stats_round {
    struct core *core;
    struct buffer out;
    size_t waiting;
    bool any, sending;
    core_stats_all_done done;
    void *context;
};

static void call_free(struct call *call)
{
    *call->link = call->next;
    if (call->next)
        call->next->link = call->link;
    free(call);
}

static struct call *call_new(struct core *core, const struct instance *i, void *context)
{
    struct call *call = calloc(1, sizeof(*call));

    if (!call)
        return NULL;
    call->core = core;
    call->context = context;
    if (i)
        memcpy(call->instance, i->id, sizeof(call->instance));
    call->next = core->calls;
    call->link = &core->calls;
    if (call->next)
        call->next->link = &call->next;
    core->calls = call;
    return call;
}

static int send_call(struct call *call, const struct instance *i, enum message_type type, const void *message,
                const int *fds, size_t count, executor_done done, struct error **err)
{
    struct executor_slot *slot = instance_slot(call->core, i);
    int r;

    if (!slot->ready) {
        r = error_set(err, ENOTCONN, "LAUNCHER_UNAVAILABLE", "the %s is not connected", slot->name);
        error_hint(err, "instances run on; start coracle-launcher (systemctl start coracle-launcher), then ask again");
    } else {
        r = slot->executor->ops->request(slot->executor, type, message, fds, count, done, call, NULL, err);
    }
    if (r < 0)
        call_free(call);
    return r;
}

static int need_running(const struct instance *i, uint32_t verb, const char *word, struct error **err)
{
    if (verb && !(i->technology->driver->verbs & verb))
        return error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "technology %s has no %s", i->technology->name,
                         word);
    if (instance_state_runs(i->state))
        return 0;
    error_set(err, EBUSY, "CONFLICTING_STATE", "\"%s\" is %s: %s needs it running", i->name,
              instance_state_name(i->state), word);
    error_hint(err, "start it first: coracle start %s", i->name);
    return -EBUSY;
}

static int no_memory(struct error **err)
{
    return error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
}

/* ---- signal */

static void on_done(void *context, enum message_type type, const void *message, int *fds, size_t fd_count,
                    const struct error *err)
{
    struct call *call = context;

    if (!call->forgotten && call->done)
        call->done(call->context, err);
    call_free(call);
}

int core_signal_number(struct core *core, struct instance *i, int number, core_done done, void *context,
                       struct error **err)
{
    struct message_signal m = {.signal = number};
    int r = need_running(i, 0, "a signal", err);
    struct call *call = r < 0 ? NULL : call_new(core, i, context);

    if (r < 0)
        return r;
    if (!call)
        return no_memory(err);
    call->done = done;
    memcpy(m.id, i->id, sizeof(m.id));
    return send_call(call, i, MESSAGE_SIGNAL, &m, NULL, 0, on_done, err);
}

static int body_signal(void *target, const json_t *v, const char *path, struct error **err)
{
    uint64_t number;

    if (json_is_string(v))
        return units_signal(json_string_value(v), path, target, err);
    int r = json_read_u64(v, path, 1, 64, &number, err);
    if (r == 0)
        *(int *)target = (int)number;
    return r;
}

int core_signal(struct core *core, struct instance *i, const json_t *body, core_done done, void *context,
                struct error **err)
{
    static const struct json_field fields[] = {{"signal", body_signal}};
    int number = 0, r = json_read_object(body, "", fields, 1, &number, err);

    if (r == 0 && !number)
        r = error_set(err, EINVAL, "MISSING_FIELD", "signal: which one?");
    return r < 0 ? r : core_signal_number(core, i, number, done, context, err);
}

/* ---- statistics */

static void on_stats(void *context, enum message_type type, const void *message, int *fds, size_t fd_count,
                     const struct error *err)
{
    struct call *call = context;
    struct instance *i = strmap_get(&call->core->by_id, call->instance);
    auto_error struct error *gone = NULL;

    if (!err && !i) {
        error_set(&gone, ENOENT, "INSTANCE_NOT_FOUND", "the instance was removed meanwhile");
        err = gone;
    }
    if (!call->forgotten)
        call->stats_done(call->context, i, err ? NULL : message, err);
    call_free(call);
}

int core_stats(struct core *core, struct instance *i, core_stats_done done, void *context, struct error **err)
{
    struct message_id m;
    int r = need_running(i, VERB_STATS, "stats", err);
    struct call *call = r < 0 ? NULL : call_new(core, i, context);

    if (r < 0)
        return r;
    if (!call)
        return no_memory(err);
    call->stats_done = done;
    memcpy(m.id, i->id, sizeof(m.id));
    return send_call(call, i, MESSAGE_STATS, &m, NULL, 0, on_stats, err);
}

static void round_end(struct stats_round *round, bool forgotten)
{
    buffer_text(&round->out, "]}");
    if (!forgotten)
        round->done(round->context, &round->out);
    buffer_clear(&round->out);
    free(round);
}

static void on_round(void *context, enum message_type type, const void *message, int *fds, size_t fd_count,
                     const struct error *err)
{
    struct call *call = context;
    struct stats_round *round = call->round;
    struct instance *i = strmap_get(&call->core->by_id, call->instance);
    bool forgotten = call->forgotten;

    if (i && !err) {
        if (round->any)
            buffer_char(&round->out, ',');
        round->any = true;
        core_render_stats(i, message, &round->out);
    }
    call_free(call);
    if (--round->waiting == 0 && !round->sending)
        round_end(round, forgotten);
}

/* Nothing runs: the empty list still comes by a later turn. */
static void on_empty_round(void *context, const struct error *err)
{
    struct call *call = context;

    round_end(call->round, call->forgotten);
    call_free(call);
}

static int finish_empty(struct core *core, struct stats_round *round, struct error **err)
{
    struct call *call = call_new(core, NULL, round->context);
    struct waiter *w = calloc(1, sizeof(*w));

    if (!call || !w) {
        if (call)
            call_free(call);
        free(w);
        buffer_clear(&round->out);
        free(round);
        return no_memory(err);
    }
    call->round = round;
    *w = (struct waiter){.core = core, .done = on_empty_round, .context = call};
    waiter_finish(core, w, NULL);
    return 0;
}

int core_stats_all(struct core *core, core_stats_all_done done, void *context, struct error **err)
{
    struct stats_round *round = calloc(1, sizeof(*round));

    if (!round)
        return no_memory(err);
    *round = (struct stats_round){.core = core, .done = done, .context = context, .sending = true};
    buffer_text(&round->out, "{\"items\":[");
    for (struct instance *i = core->instances; i; i = i->next) {
        struct message_id m;
        if (!instance_state_runs(i->state) || !(i->technology->driver->verbs & VERB_STATS))
            continue;
        struct call *call = call_new(core, i, context);
        if (!call)
            break;
        call->round = round;
        memcpy(m.id, i->id, sizeof(m.id));
        round->waiting += send_call(call, i, MESSAGE_STATS, &m, NULL, 0, on_round, NULL) == 0;
    }
    round->sending = false;
    return round->waiting ? 0 : finish_empty(core, round, err);
}

/* ---- logs and console */

static void on_fds(void *context, enum message_type type, const void *message, int *fds, size_t fd_count,
                   const struct error *err)
{
    struct call *call = context;

    if (!call->forgotten)
        call->fds_done(call->context, fds, fd_count, err);
    call_free(call);
}

static int ask_fds(struct core *core, struct instance *i, enum message_type type, core_fds_done done, void *context,
                   struct error **err)
{
    struct call *call = call_new(core, i, context);
    struct message_id m;

    if (!call)
        return no_memory(err);
    call->fds_done = done;
    memcpy(m.id, i->id, sizeof(m.id));
    return send_call(call, i, type, &m, NULL, 0, on_fds, err);
}

int core_logs(struct core *core, struct instance *i, core_fds_done done, void *context, struct error **err)
{
    if (!(i->technology->driver->verbs & VERB_LOGS))
        return error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "technology %s has no logs", i->technology->name);
    if (i->state == STATE_NOT_INSTANTIATED) {
        error_set(err, EBUSY, "CONFLICTING_STATE", "\"%s\" was never started, so it has no logs", i->name);
        error_hint(err, "start it first: coracle start %s", i->name);
        return -EBUSY;
    }
    return ask_fds(core, i, MESSAGE_LOGS, done, context, err);
}

int core_console(struct core *core, struct instance *i, core_fds_done done, void *context, struct error **err)
{
    int r = need_running(i, VERB_CONSOLE, "attach", err);

    if (r < 0)
        return r;
    if (!i->tty && !i->open_stdin) {
        error_set(err, EBUSY, "CONFLICTING_STATE", "\"%s\" has neither a terminal nor an open stdin", i->name);
        error_hint(err, "create it with tty: true or stdin: true; logs --follow shows its output");
        return -EBUSY;
    }
    return ask_fds(core, i, MESSAGE_CONSOLE, done, context, err);
}

/* ---- exec */

struct exec_body {
    char **command;
    char **env; /* room for TERM and PATH behind what was given */
    size_t env_count;
    const char *user, *workdir;
    bool tty, open_stdin;
};

static int exec_command(void *target, const json_t *v, const char *path, struct error **err)
{
    if (json_is_array(v) && !json_array_size(v))
        return error_set(err, EINVAL, "INVALID_VALUE", "%s: an empty command cannot be run", path);
    return json_read_strings(v, path, ARGUMENT_MAX, &((struct exec_body *)target)->command, err);
}

static int exec_env(void *target, const json_t *v, const char *path, struct error **err)
{
    struct exec_body *body = target;
    const char *key;
    json_t *value;

    if (!json_is_object(v) || json_object_size(v) > ARGUMENT_MAX)
        return error_set(err, EINVAL, "INVALID_VALUE", "%s: expected an object of at most %d variables", path,
                         ARGUMENT_MAX);
    body->env = calloc(json_object_size(v) + 3, sizeof(*body->env));
    if (!body->env)
        return no_memory(err);
    json_object_foreach((json_t *)v, key, value)
    {
        char where[JSON_PATH_SIZE];
        const char *text;
        int r = json_read_string(value, json_path_member(where, path, key), &text, err);
        if (r < 0)
            return r;
        if (!*key || strchr(key, '='))
            return error_set(err, EINVAL, "INVALID_VALUE", "%s: a variable's name must not be empty or hold \"=\"",
                             where);
        if (asprintf(&body->env[body->env_count], "%s=%s", key, text) < 0) {
            body->env[body->env_count] = NULL;
            return no_memory(err);
        }
        body->env_count++;
    }
    return 0;
}

static int exec_user(void *target, const json_t *v, const char *path, struct error **err)
{
    return json_read_string(v, path, &((struct exec_body *)target)->user, err);
}

static int exec_workdir(void *target, const json_t *v, const char *path, struct error **err)
{
    int r = json_read_string(v, path, &((struct exec_body *)target)->workdir, err);

    if (r == 0 && *((struct exec_body *)target)->workdir && *((struct exec_body *)target)->workdir != '/')
        r = error_set(err, EINVAL, "INVALID_VALUE", "%s: not an absolute path", path);
    return r;
}

static int exec_tty(void *target, const json_t *v, const char *path, struct error **err)
{
    return json_read_bool(v, path, &((struct exec_body *)target)->tty, err);
}

static int exec_stdin(void *target, const json_t *v, const char *path, struct error **err)
{
    return json_read_bool(v, path, &((struct exec_body *)target)->open_stdin, err);
}

static const struct json_field exec_fields[] = {{"command", exec_command}, {"env", exec_env}, {"user", exec_user},
                                                {"workdir", exec_workdir}, {"tty", exec_tty}, {"stdin", exec_stdin}};

bool core_exec_wants_tty(const json_t *body)
{
    return json_is_true(json_object_get(body, "tty"));
}

static void on_exec(void *context, enum message_type type, const void *message, int *fds, size_t fd_count,
                    const struct error *err)
{
    struct call *call = context;
    const struct message_exec_started *started = message;

    if (!err) {
        call->exec_started = true;
        call->exec_number = started->exec;
    }
    if (!call->forgotten)
        call->exec.started(call->context, err ? 0 : started->exec, fds, fd_count, err);
    if (err)
        call_free(call);
}

static bool has_env(char *const *env, const char *prefix)
{
    for (; env && *env; env++)
        if (strncmp(*env, prefix, strlen(prefix)) == 0)
            return true;
    return false;
}

static int complete_env(struct exec_body *body)
{
    if (!body->env && !(body->env = calloc(3, sizeof(*body->env))))
        return -ENOMEM;
    if (!has_env(body->env, "PATH=") && !(body->env[body->env_count++] = strdup(DEFAULT_PATH)))
        return -ENOMEM;
    if (body->tty && !has_env(body->env, "TERM=") && !(body->env[body->env_count++] = strdup("TERM=xterm")))
        return -ENOMEM;
    return 0;
}

static int send_exec(struct core *core, struct instance *i, struct exec_body *body, const int *fds, size_t count,
                     const struct core_exec_callbacks *callbacks, void *context, struct error **err)
{
    const char *cwd = body->workdir && *body->workdir ? body->workdir : "/";
    struct message_exec m = {.process = {.argv = body->command,
                                         .cwd = (char *)cwd,
                                         .tty = body->tty,
                                         .user = body->user && *body->user ? (char *)body->user : NULL,
                                         .open_stdin = body->open_stdin}};
    struct call *call;

    if (complete_env(body) < 0 || !(call = call_new(core, i, context)))
        return no_memory(err);
    m.process.env = body->env;
    memcpy(m.id, i->id, sizeof(m.id));
    call->exec = *callbacks;
    return send_call(call, i, MESSAGE_EXEC, &m, fds, count, on_exec, err);
}

int core_exec(struct core *core, struct instance *i, const json_t *json, const int *fds, size_t count,
              const struct core_exec_callbacks *callbacks, void *context, struct error **err)
{
    struct exec_body body = {0};
    int r = need_running(i, VERB_EXEC, "exec", err);

    if (r == 0 && i->state == STATE_PAUSED) {
        r = error_set(err, EBUSY, "CONFLICTING_STATE", "\"%s\" is PAUSED: nothing runs in it", i->name);
        error_hint(err, "resume it first: coracle resume %s", i->name);
    }
    if (r == 0)
        r = json_read_object(json, "", exec_fields, sizeof(exec_fields) / sizeof(exec_fields[0]), &body, err);
    if (r == 0 && !body.command)
        r = error_set(err, EINVAL, "MISSING_FIELD", "command: what is to be run?");
    if (r == 0)
        r = send_exec(core, i, &body, fds, count, callbacks, context, err);
    strv_free(body.command);
    strv_free(body.env);
    return r;
}

static void end_exec(struct call *call, int wait_status, const struct error *err)
{
    if (!call->forgotten)
        call->exec.exited(call->context, wait_status, err);
    call_free(call);
}

void calls_exec_exited(struct core *core, const struct message_exec_exited *m)
{
    for (struct call *call = core->calls; call; call = call->next) {
        if (call->exec_started && call->exec_number == m->exec && strcmp(call->instance, m->id) == 0) {
            end_exec(call, m->wait_status, NULL);
            return;
        }
    }
}

/* instance_id NULL: of all (the launcher was lost, the ends of execs are not told again). */
void calls_instance_gone(struct core *core, const char *instance_id)
{
    auto_error struct error *err = NULL;

    for (struct call *call = core->calls, *next; call; call = next) {
        next = call->next;
        if (!call->exec_started || (instance_id && strcmp(call->instance, instance_id) != 0))
            continue;
        if (!err)
            error_set(&err, ESRCH, "EXEC_FAILED", instance_id ? "the instance ended" : "the launcher was lost");
        end_exec(call, 0, err);
    }
}

int core_exec_signal(struct core *core, const char *instance_id, uint32_t exec, int number, struct error **err)
{
    struct instance *i = strmap_get(&core->by_id, instance_id);
    struct message_exec_signal m = {.exec = exec, .signal = number};
    struct call *call = i ? call_new(core, i, NULL) : NULL;

    if (!call)
        return error_set(err, ENOENT, "INSTANCE_NOT_FOUND", "the instance is gone");
    memcpy(m.id, i->id, sizeof(m.id));
    call->forgotten = true;
    return send_call(call, i, MESSAGE_EXEC_SIGNAL, &m, NULL, 0, on_done, err);
}
