/* SPDX-License-Identifier: Apache-2.0 */
/* run and create: a descriptor is made from flags, sent, and its start waited for; --attach stays with it. */
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/descriptor.h"
#include "cli/exec.h"
#include "cli/logs.h"

/* Sends the descriptor. *ret: INSTANCE, *ret_operation: OPERATION or NULL; both NULL under --explain. */
static int create(struct cli *cli, const struct args *args, bool start, json_t **ret, json_t **ret_operation,
                  struct error **err)
{
    json_t *spec, *answer = NULL, *operation;
    int r = descriptor_from_args(args, &spec, err);

    if (r < 0)
        return r;
    r = api_call(cli, "POST", start ? "/v1/instances?start=true" : "/v1/instances?start=false", spec, &answer, err);
    json_decref(spec);
    if (r < 0)
        return r;
    operation = json_object_get(answer, "operation");
    *ret_operation = json_is_object(operation) ? json_incref(operation) : NULL;
    *ret = json_incref(json_object_get(answer, "instance"));
    json_decref(answer);
    return 0;
}

static int run_create(struct cli *cli, const struct args *args, struct error **err)
{
    json_t *instance = NULL, *operation = NULL;
    int r = create(cli, args, false, &instance, &operation, err);

    if (r == 0 && !cli->explain) {
        auto_free char *sentence = text_printf("%s created; coracle start %s starts it", text_member(instance, "name"),
                                               text_member(instance, "name"));

        if (cli->json)
            print_json(instance);
        report_done(cli, text_member(instance, "name"), sentence);
    }
    json_decref(instance);
    json_decref(operation);
    return r;
}

static int remove_instance(struct cli *cli, const char *name, struct error **err)
{
    auto_free char *path = text_path("/v1/instances/%s?force=true", name);
    json_t *operation = NULL;
    int r = api_call(cli, "DELETE", path, NULL, &operation, err);

    if (r == 0)
        r = operation_wait(cli, operation, NULL, err);
    json_decref(operation);
    return r;
}

/* The exit status of an ended instance; STATUS_FAILED with a note when it has none. */
static int ended_status(struct cli *cli, const char *name, struct error **err)
{
    auto_free char *path = text_path("/v1/instances/%s", name);
    json_t *instance = NULL;
    int r = api_get(cli, path, &instance, err);

    if (r == 0 && !cli->explain) {
        r = exit_status_of(json_object_get(instance, "exit"));
        if (r < 0) {
            term_note(cli, "%s is %s; how it ended is not known", name, text_member(instance, "state"));
            r = STATUS_FAILED;
        }
    }
    json_decref(instance);
    return r;
}

/*
 * Nothing of the output may be missed, so it comes from the log's beginning: as text, or where a terminal or input is
 * wanted through the stream, which starts with the log, too.
 */
static int stay(struct cli *cli, const struct args *args, const char *name, struct error **err)
{
    bool tty = args_flag(args, "tty"), input = args_flag(args, "interactive");
    int r;

    if (!tty && !input) {
        r = logs_stream(cli, name, "?follow=true", false, err);
        return r < 0 ? r : ended_status(cli, name, err);
    }
    return attach_instance(cli, name, tty && isatty(STDIN_FILENO), input, true, err);
}

static int stay_and_remove(struct cli *cli, const struct args *args, const char *name, struct error **err)
{
    struct error *remove_error = NULL;
    int r = stay(cli, args, name, err);

    if (!args_flag(args, "rm"))
        return r;
    if (remove_instance(cli, name, &remove_error) < 0)
        report_error(cli, remove_error);
    error_free(remove_error);
    return r;
}

static void report_started(struct cli *cli, const char *name, json_t *operation)
{
    auto_free char *path = text_path("/v1/instances/%s", name), *sentence = NULL;
    json_t *instance = NULL;

    /* It may have ended and been removed by now: then what is known is said. */
    if (api_peek(cli, path, &instance, NULL) < 0)
        instance = json_pack("{s:s}", "name", name);
    sentence = started_sentence(instance, operation);
    if (cli->json) {
        json_t *both = json_pack("{s:O, s:O?}", "instance", instance, "operation", operation);

        print_json(both);
        json_decref(both);
    }
    report_done(cli, name, sentence);
    json_decref(instance);
}

static int check_flags(const struct args *args, bool attached, struct error **err)
{
    if (args_flag(args, "detach") && args_flag(args, "attach"))
        return error_set(err, EINVAL, "INVALID_VALUE", "run: --detach and --attach exclude each other");
    if (args_flag(args, "rm") && !attached) {
        error_set(err, EINVAL, "INVALID_VALUE", "run: --rm works only together with --attach, -i or -t");
        error_hint(err, "run it with --attach, or remove it when done: coracle rm -f NAME");
        return -EINVAL;
    }
    return 0;
}

static int run_run(struct cli *cli, const struct args *args, struct error **err)
{
    bool attached = !args_flag(args, "detach") &&
                    (args_flag(args, "attach") || args_flag(args, "tty") || args_flag(args, "interactive"));
    json_t *instance = NULL, *operation = NULL, *done = NULL;
    int r = check_flags(args, attached, err);

    if (r == 0)
        r = create(cli, args, true, &instance, &operation, err);
    if (r == 0 && !args_flag(args, "no-wait"))
        r = operation_wait(cli, operation, &done, err);
    if (r == 0) {
        const char *name = cli->explain ? "INSTANCE" : text_member(instance, "name");

        if (attached)
            r = stay_and_remove(cli, args, name, err);
        else if (!cli->explain && done)
            report_started(cli, name, done);
        else if (!cli->explain && cli->json)
            print_json(instance);
        else if (!cli->explain)
            printf("%s\n", name);
    } else if (instance && !cli->explain) {
        error_hint(err, "coracle inspect %s and coracle logs %s say more; coracle rm -f %s removes it",
                   text_member(instance, "name"), text_member(instance, "name"), text_member(instance, "name"));
        if (attached && args_flag(args, "rm"))
            remove_instance(cli, text_member(instance, "name"), NULL);
    }
    json_decref(instance);
    json_decref(operation);
    json_decref(done);
    return r;
}

static const struct option_spec run_options[] = {
    {"attach", 'a', NULL, "stay: show its output, end with its exit status"},
    {"detach", 'd', NULL, "do not stay (the default without -i and -t)"},
    {"rm", 0, NULL, "remove it when it has ended (with --attach, -i or -t)"},
    {"no-wait", 0, NULL, "do not wait until it is started"},
    {NULL},
};

const struct command command_run_ = {
    .name = "run",
    .section = "Instances",
    .synopsis = "[OPTIONS] IMAGE [WORD...]",
    .summary = "Create an instance and start it",
    .text = "Returns with the instance's name once it is started, and says how long that took. With --attach, -i or -t "
            "it stays with the instance, shows its output and ends with its exit status. The words behind IMAGE "
            "replace the image's command and stay behind its entry point. A descriptor (-f) may stand in for flags.\n\n"
            "A limit that this host cannot enforce is refused (exit status 2), never dropped.",
    .examples = "  coracle run --name edge-fw --memory 64MiB --cpus 0.5 coracle/iperf -s\n"
                "  coracle run -it --rm tools /bin/sh\n"
                "  coracle run -f edge.yaml --label tenant=a",
    .options = run_options,
    .more_options = descriptor_options,
    .words = WORD_IMAGE,
    .min_words = 0,
    .max_words = -1,
    .stop_at_word = 1,
    .run = run_run,
};

const struct command command_create = {
    .name = "create",
    .section = "Instances",
    .synopsis = "[OPTIONS] IMAGE [WORD...]",
    .summary = "Create an instance without starting it",
    .text = "As run, but the instance waits for coracle start.",
    .examples = "  coracle create --name edge-fw coracle/iperf",
    .more_options = descriptor_options,
    .words = WORD_IMAGE,
    .min_words = 0,
    .max_words = -1,
    .stop_at_word = 1,
    .run = run_create,
};
