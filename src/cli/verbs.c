/* SPDX-License-Identifier: Apache-2.0 */
/* start, stop, restart, pause, resume, rm: one request per name, sent to all before any is waited for. */
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/common.h"

struct verb {
    const char *method, *path; /* path: format with one name */
    const char *sentence;      /* "%s stopped"; NULL: the started sentence */
};

static json_t *grace_body(uint64_t ms)
{
    return json_pack("{s:I}", "grace_ms", (json_int_t)ms);
}

static void say_done(struct cli *cli, const struct verb *verb, const char *word, json_t *operation)
{
    const char *known = text_member(operation, "instance_name"), *name = *known ? known : word;
    auto_free char *path = text_path("/v1/instances/%s", word), *sentence = NULL;
    json_t *instance = NULL;

    if (cli->json || cli->explain)
        return;
    if (verb->sentence) {
        auto_free char *time =
            text_duration_us((uint64_t)json_integer_value(json_object_get(operation, "duration_us")));

        sentence = json_object_get(operation, "duration_us") ? text_printf("%s %s in %s", name, verb->sentence, time)
                                                             : text_printf("%s %s", name, verb->sentence);
    } else if (api_peek(cli, path, &instance, NULL) == 0) {
        sentence = started_sentence(instance, operation);
    }
    report_done(cli, name, sentence ? sentence : name);
    json_decref(instance);
}

static int send_one(struct cli *cli, const struct verb *verb, const char *name, const json_t *body, json_t **ret,
                    struct error **err)
{
    auto_free char *escaped = text_percent(name);
    auto_free char *path = text_printf("%s%s%s", "/v1/instances/", escaped, verb->path);

    return api_call(cli, verb->method, path, body, ret, err);
}

/* Sends everything, then waits: ten instances stop in the time of the slowest. */
static int for_each_name(struct cli *cli, const struct args *args, const struct verb *verb, const json_t *body)
{
    json_t **operations = text_alloc(args->word_count, sizeof(json_t *));
    bool *failed = text_alloc(args->word_count, sizeof(bool));
    struct outcome outcome = {0};
    struct error *err = NULL;

    for (size_t i = 0; i < args->word_count; i++) {
        failed[i] = send_one(cli, verb, args->words[i], body, &operations[i], &err) < 0;
        if (failed[i])
            outcome_error(cli, &outcome, &err);
    }
    for (size_t i = 0; i < args->word_count; i++) {
        json_t *done = NULL;

        if (!failed[i] && args_flag(args, "no-wait")) {
            done = json_incref(operations[i]);
            if (!cli->json && !cli->explain)
                printf("%s\n", text_member(done, "id"));
        } else if (!failed[i] && operation_wait(cli, operations[i], &done, &err) < 0) {
            outcome_error(cli, &outcome, &err);
        } else if (!failed[i]) {
            say_done(cli, verb, args->words[i], done);
        }
        outcome_add(&outcome, done);
        json_decref(operations[i]);
    }
    free(operations);
    free(failed);
    return outcome_end(cli, &outcome, args->word_count);
}

static int with_grace(struct cli *cli, const struct args *args, const struct verb *verb, struct error **err)
{
    const char *time = args_get(args, "time");
    json_t *body = NULL;
    uint64_t ms;
    int status;

    if (time) {
        if (text_parse_duration_ms(time, "--time", &ms, err) < 0)
            return -EINVAL;
        body = grace_body(ms);
    }
    status = for_each_name(cli, args, verb, body);
    json_decref(body);
    return status;
}

static int run_start(struct cli *cli, const struct args *args, struct error **err)
{
    static const struct verb verb = {"POST", "/start", NULL};

    return for_each_name(cli, args, &verb, NULL);
}

static int run_stop(struct cli *cli, const struct args *args, struct error **err)
{
    static const struct verb verb = {"POST", "/stop", "stopped"};

    return with_grace(cli, args, &verb, err);
}

static int run_restart(struct cli *cli, const struct args *args, struct error **err)
{
    static const struct verb verb = {"POST", "/restart", "restarted"};

    return with_grace(cli, args, &verb, err);
}

static int run_pause(struct cli *cli, const struct args *args, struct error **err)
{
    static const struct verb verb = {"POST", "/pause", "paused"};

    return for_each_name(cli, args, &verb, NULL);
}

static int run_resume(struct cli *cli, const struct args *args, struct error **err)
{
    static const struct verb verb = {"POST", "/resume", "resumed"};

    return for_each_name(cli, args, &verb, NULL);
}

static int run_rm(struct cli *cli, const struct args *args, struct error **err)
{
    static const struct verb gentle = {"DELETE", "", "removed"}, force = {"DELETE", "?force=true", "removed"};

    return for_each_name(cli, args, args_flag(args, "force") ? &force : &gentle, NULL);
}

#define NO_WAIT                                                                                                        \
    {                                                                                                                  \
        "no-wait", 0, NULL, "print the operation's id and do not wait for its end"                                     \
    }

static const struct option_spec plain_options[] = {NO_WAIT, {NULL}};
static const struct option_spec grace_options[] = {
    {"time", 't', "SECONDS", "grace before it is killed: 10, 500ms (default: the descriptor's)", .alias = "grace"},
    NO_WAIT,
    {NULL},
};
static const struct option_spec rm_options[] = {
    {"force", 'f', NULL, "also what is running: it is killed first"},
    NO_WAIT,
    {NULL},
};

#define VERB(n, a, s, t, o)                                                                                            \
    const struct command command_##n = {                                                                               \
        .name = #n,                                                                                                    \
        .aliases = a,                                                                                                  \
        .section = "Instances",                                                                                        \
        .synopsis = "[OPTIONS] NAME...",                                                                               \
        .summary = s,                                                                                                  \
        .text = t,                                                                                                     \
        .options = o,                                                                                                  \
        .words = WORD_INSTANCE,                                                                                        \
        .min_words = 1,                                                                                                \
        .max_words = -1,                                                                                               \
        .run = run_##n,                                                                                                \
    }

VERB(start, NULL, "Start instances", "Says how long each took, and whether its shell came from the warm pool.",
     plain_options);
VERB(stop, NULL, "Stop instances",
     "Sends the stop signal and, when the grace is over, kills. The writable layer stays.", grace_options);
VERB(restart, NULL, "Stop and start instances", "The writable layer, the addresses and the name stay.", grace_options);
VERB(pause, NULL, "Freeze instances", "Every process stands still and keeps its memory.", plain_options);
VERB(resume, "unpause", "Let paused instances go on", "The opposite of pause.", plain_options);
VERB(rm, "remove|delete", "Remove instances", "Their writable layer and logs go with them; operations stay listed.",
     rm_options);
