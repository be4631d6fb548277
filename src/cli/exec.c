/* SPDX-License-Identifier: Apache-2.0 */
/* exec: a further process inside an instance; attach: the instance's own terminal or streams. */
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/exec.h"
#include "cli/stream.h"

/* The whole session as one object, for programs. Bytes that are no UTF-8 come out as U+FFFD. */
static void print_collected(const json_t *exit, const struct buffer *out, const struct buffer *err)
{
    __attribute__((cleanup(cleanup_buffer))) struct buffer text = {0};
    auto_free char *exit_text = exit ? json_dumps(exit, JSON_COMPACT) : text_dup("null");

    buffer_printf(&text, "{\"exit\": %s, \"stdout\": ", exit_text);
    buffer_json(&text, out->data ? out->data : "");
    buffer_text(&text, ", \"stderr\": ");
    buffer_json(&text, err->data ? err->data : "");
    buffer_text(&text, "}\n");
    fwrite(text.data, 1, text.length, stdout);
}

/* Runs the session behind an upgraded connection and turns its end into an exit status. */
static int finish(struct session *session, struct api_channel *channel, struct error **err)
{
    __attribute__((cleanup(cleanup_buffer))) struct buffer out = {0}, err_out = {0};
    struct cli *cli = session->cli;
    int r;

    if (cli->json) {
        session->collect_out = &out;
        session->collect_err = &err_out;
    }
    r = session_run(session, channel, err);
    if (r == 0 && cli->json)
        print_collected(session->exit, &out, &err_out);
    if (r == 0 && session->exit)
        r = exit_status_of(session->exit);
    json_decref(session->exit);
    return r;
}

int attach_instance(struct cli *cli, const char *name, bool tty, bool send_stdin, bool from_start, struct error **err)
{
    auto_free char *path =
        text_path(from_start ? "/v1/instances/%s/attach?logs=true" : "/v1/instances/%s/attach", name);
    struct session session = {.cli = cli, .tty = tty, .send_stdin = send_stdin, .detachable = true};
    struct api_channel *channel;
    int r = api_upgrade(cli, path, NULL, &channel, err);

    if (r < 0 || cli->explain)
        return r;
    r = finish(&session, channel, err);
    if (session.detached)
        term_note(cli, "detached; %s goes on (coracle attach %s comes back)", name, name);
    return r;
}

static int run_attach(struct cli *cli, const struct args *args, struct error **err)
{
    const char *name = args->words[0];
    auto_free char *path = text_path("/v1/instances/%s", name);
    json_t *instance, *spec;
    bool tty, input;
    int r = api_get(cli, path, &instance, err);

    if (r < 0)
        return r;
    spec = json_object_get(instance, "spec");
    tty = json_is_true(json_object_get(spec, "tty")) && !cli->json;
    input = (tty || json_is_true(json_object_get(spec, "stdin"))) && !args_flag(args, "no-stdin");
    json_decref(instance);
    if (tty && cli->out_tty && input)
        term_note(cli, "attached to %s; Ctrl-P Ctrl-Q detaches", name);
    return attach_instance(cli, name, tty && isatty(STDIN_FILENO), input, false, err);
}

static int put_exec_env(const struct args *args, json_t *env, struct error **err)
{
    const char *word;

    for (size_t i = 0; (word = args_next(args, "env", &i));) {
        auto_free char *key = NULL;
        const char *value;

        if (text_split_pair(word, "--env", &key, &value, err) < 0)
            return -EINVAL;
        json_object_set_new(env, key, json_string(value));
    }
    return 0;
}

static int exec_body(const struct args *args, json_t **ret, struct error **err)
{
    json_t *command = json_array(), *env = json_object(), *body;
    int r = put_exec_env(args, env, err);

    for (size_t i = 1; i < args->word_count; i++)
        json_array_append_new(command, json_string(args->words[i]));
    body = json_pack("{s:o, s:o, s:b, s:b}", "command", command, "env", env, "tty", args_flag(args, "tty"), "stdin",
                     args_flag(args, "interactive"));
    if (args_get(args, "user"))
        json_object_set_new(body, "user", json_string(args_get(args, "user")));
    if (args_get(args, "workdir"))
        json_object_set_new(body, "workdir", json_string(args_get(args, "workdir")));
    if (r < 0) {
        json_decref(body);
        return r;
    }
    *ret = body;
    return 0;
}

static int run_exec(struct cli *cli, const struct args *args, struct error **err)
{
    struct session session = {.cli = cli, .tty = args_flag(args, "tty"), .send_stdin = args_flag(args, "interactive")};
    auto_free char *path = text_path("/v1/instances/%s/exec", args->words[0]);
    struct api_channel *channel;
    json_t *body;
    int r;

    if (session.tty && !isatty(STDIN_FILENO) && !cli->explain) {
        error_set(err, ENOTTY, "INVALID_VALUE", "-t: standard input is no terminal");
        error_hint(err, "leave -t out, or give it one: script -qec 'coracle exec -it %s ...' /dev/null",
                   args->words[0]);
        return -ENOTTY;
    }
    session.tty = session.tty && !cli->json;
    r = exec_body(args, &body, err);
    if (r < 0)
        return r;
    r = api_upgrade(cli, path, body, &channel, err);
    json_decref(body);
    return r < 0 || cli->explain ? r : finish(&session, channel, err);
}

static const struct option_spec exec_options[] = {
    {"interactive", 'i', NULL, "send standard input"},
    {"tty", 't', NULL, "give the process a terminal"},
    {"env", 'e', "KEY=VALUE", "environment variable, may repeat"},
    {"user", 'u', "USER[:GROUP]", "user of the process (default: the instance's)"},
    {"workdir", 'w', "DIR", "working directory"},
    {NULL},
};

const struct command command_exec = {
    .name = "exec",
    .section = "Look inside",
    .synopsis = "[OPTIONS] NAME COMMAND [WORD...]",
    .summary = "Run a further process inside an instance",
    .text =
        "Ends with the exit status of the process, or 128 and the number of the signal that ended it. Options stand "
        "before NAME; what follows belongs to the command. With --json prints output and exit status as one object.",
    .examples = "  coracle exec -it edge-fw /bin/sh\n  coracle exec edge-fw ip route",
    .options = exec_options,
    .words = WORD_INSTANCE,
    .min_words = 2,
    .max_words = -1,
    .stop_at_word = 1,
    .run = run_exec,
};

static const struct option_spec attach_options[] = {
    {"no-stdin", 0, NULL, "look only, send no input"},
    {NULL},
};

const struct command command_attach = {
    .name = "attach",
    .aliases = "console",
    .section = "Look inside",
    .synopsis = "[OPTIONS] NAME",
    .summary = "Join an instance's terminal or output",
    .text = "Shows the output from now on; coracle logs has what came before. On a terminal, Ctrl-P Ctrl-Q leaves and "
            "the instance goes on. Ends with the instance's exit status when it ends meanwhile.",
    .options = attach_options,
    .words = WORD_INSTANCE,
    .min_words = 1,
    .max_words = 1,
    .run = run_attach,
};
