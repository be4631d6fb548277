/* SPDX-License-Identifier: Apache-2.0 */
/* update, kill and wait: limits changed live, signals, and waiting for a condition. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/descriptor.h"

static int update_one(struct cli *cli, const char *name, const json_t *change, json_t **ret_done, struct error **err)
{
    auto_free char *path = text_path("/v1/instances/%s", name), *sentence = NULL;
    json_t *operation = NULL;
    int r = api_call(cli, "PATCH", path, change, &operation, err);

    if (r == 0)
        r = operation_wait(cli, operation, ret_done, err);
    if (r == 0) {
        sentence = text_printf("%s updated", name);
        report_done(cli, name, sentence);
    }
    json_decref(operation);
    return r;
}

static int run_update(struct cli *cli, const struct args *args, struct error **err)
{
    struct outcome outcome = {0};
    struct error *one = NULL;
    json_t *change;
    int r = descriptor_update(args, &change, err);

    if (r < 0)
        return r;
    for (size_t i = 0; i < args->word_count; i++) {
        json_t *done = NULL;

        if (update_one(cli, args->words[i], change, &done, &one) < 0)
            outcome_error(cli, &outcome, &one);
        outcome_add(&outcome, done);
    }
    json_decref(change);
    return outcome_end(cli, &outcome, args->word_count);
}

/* "hup", "SIGHUP" and "1" are all said; the interface takes the name. */
static char *signal_name(const char *word)
{
    char *name;
    int number = (int)strtol(word, NULL, 10);

    if (number > 0 && sigabbrev_np(number))
        return text_printf("SIG%s", sigabbrev_np(number));
    name = text_printf("%s%s", strncasecmp(word, "SIG", 3) ? "SIG" : "", word);
    for (char *p = name; *p; p++)
        *p = (char)(*p >= 'a' && *p <= 'z' ? *p - 32 : *p);
    return name;
}

static int run_kill(struct cli *cli, const struct args *args, struct error **err)
{
    auto_free char *name = signal_name(args_get(args, "signal") ? args_get(args, "signal") : "SIGKILL");
    json_t *body = json_pack("{s:s}", "signal", name);
    struct outcome outcome = {0};
    struct error *one = NULL;

    for (size_t i = 0; i < args->word_count; i++) {
        auto_free char *path = text_path("/v1/instances/%s/signal", args->words[i]), *sentence = NULL;

        if (api_call(cli, "POST", path, body, NULL, &one) < 0) {
            outcome_error(cli, &outcome, &one);
            continue;
        }
        sentence = text_printf("%s was sent %s", args->words[i], name);
        report_done(cli, args->words[i], sentence);
        outcome_add(&outcome, json_pack("{s:s, s:s}", "instance_name", args->words[i], "signal", name));
    }
    json_decref(body);
    return outcome_end(cli, &outcome, args->word_count);
}

/* What --for names, as a state; NULL: it is gone. */
static int wanted_state(const char *word, const char **ret, struct error **err)
{
    static const char *const words[][2] = {
        {"started", "STARTED"}, {"running", "STARTED"}, {"ready", "STARTED"},
        {"stopped", "STOPPED"}, {"paused", "PAUSED"},   {"removed", NULL},
    };

    if (!strncmp(word, "state=", 6) && word[6]) {
        *ret = word + 6;
        return 0;
    }
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (!strcmp(words[i][0], word)) {
            *ret = words[i][1];
            return 0;
        }
    }
    error_set(err, EINVAL, "INVALID_VALUE", "--for: \"%s\" is no condition", word);
    error_hint(err, "started, ready, paused, stopped, removed, or state=FAILED");
    return -EINVAL;
}

/* 1: it is so; 0: not yet; -errno: it cannot become so, or asking failed. */
static int condition(struct cli *cli, const char *name, const char *state, json_t **ret, struct error **err)
{
    auto_free char *path = text_path("/v1/instances/%s", name);
    json_t *instance = NULL;
    struct error *why = NULL;
    const char *now, *reason;
    int r = api_get(cli, path, &instance, &why);

    if (r < 0 && !state && why && !strcmp(why->code, "INSTANCE_NOT_FOUND")) {
        error_free(why);
        return 1;
    }
    if (r < 0) {
        *err = why;
        return r;
    }
    now = text_member(instance, "state");
    reason = text_member(json_object_get(instance, "reason"), "message");
    if (cli->explain || (state && !strcmp(now, state))) {
        *ret = instance;
        return 1;
    }
    /* A process that ended is "stopped" for whoever waits for its end, whatever the state is called. */
    if (state && !strcmp(state, "STOPPED") && !strcmp(now, "FAILED")) {
        *ret = instance;
        return 1;
    }
    if (state && strcmp(state, "FAILED") != 0 && !strcmp(now, "FAILED")) {
        error_set(err, ECANCELED, "START_FAILED", "%s failed%s%s", name, *reason ? ": " : "", reason);
        error_hint(err, "coracle inspect %s and coracle logs %s say more", name, name);
        r = -ECANCELED;
    }
    json_decref(instance);
    return r;
}

static int wait_one(struct cli *cli, const char *name, const char *state, uint64_t end_ns, json_t **ret,
                    struct error **err)
{
    struct timespec pause = {.tv_nsec = 10 * 1000000L};
    int r;

    while ((r = condition(cli, name, state, ret, err)) == 0) {
        if (end_ns && clock_ns() >= end_ns) {
            error_set(err, ETIMEDOUT, "TIMEOUT", "%s did not become %s in time", name, state ? state : "removed");
            error_hint(err, "coracle inspect %s shows where it stands", name);
            return -ETIMEDOUT;
        }
        nanosleep(&pause, NULL);
        if (pause.tv_nsec < 250 * 1000000L)
            pause.tv_nsec += pause.tv_nsec / 2;
    }
    return r;
}

static void print_waited(const struct cli *cli, const char *name, const char *state, const json_t *instance)
{
    int status = exit_status_of(json_object_get(instance, "exit"));

    if (cli->json || cli->explain)
        return;
    if (state && !strcmp(state, "STOPPED") && status >= 0)
        printf("%d\n", status);
    else
        printf("%s\n", name);
}

static int run_wait(struct cli *cli, const struct args *args, struct error **err)
{
    const char *what = args_get(args, "for"), *limit = args_get(args, "timeout"), *state = NULL;
    struct outcome outcome = {0};
    struct error *one = NULL;
    uint64_t ms = 0, end_ns = 0;

    if (wanted_state(what ? what : "stopped", &state, err) < 0)
        return -EINVAL;
    if (limit && text_parse_duration_ms(limit, "--timeout", &ms, err) < 0)
        return -EINVAL;
    if (limit)
        end_ns = clock_ns() + ms * 1000000;
    for (size_t i = 0; i < args->word_count; i++) {
        json_t *instance = NULL;

        if (wait_one(cli, args->words[i], state, end_ns, &instance, &one) < 0) {
            outcome_error(cli, &outcome, &one);
            continue;
        }
        print_waited(cli, args->words[i], state, instance);
        outcome_add(&outcome, instance);
    }
    return outcome_end(cli, &outcome, args->word_count);
}

const struct command command_update = {
    .name = "update",
    .section = "Instances",
    .synopsis = "[OPTIONS] NAME...",
    .summary = "Change limits and labels of instances as they run",
    .text = "Takes effect at once. A limit this host cannot enforce is refused.",
    .examples = "  coracle update --cpus 0.5 --memory 128MiB edge-fw",
    .options = update_options,
    .words = WORD_INSTANCE,
    .min_words = 1,
    .max_words = -1,
    .run = run_update,
};

static const struct option_spec kill_options[] = {
    {"signal", 's', "SIGNAL", "signal by name or number (default SIGKILL)"},
    {NULL},
};

const struct command command_kill = {
    .name = "kill",
    .section = "Instances",
    .synopsis = "[OPTIONS] NAME...",
    .summary = "Send a signal to instances",
    .text = "The signal goes to the application's first process. A restart policy may start it again; stop does not.",
    .options = kill_options,
    .words = WORD_INSTANCE,
    .min_words = 1,
    .max_words = -1,
    .run = run_kill,
};

static const struct option_spec wait_options[] = {
    {"for", 0, "CONDITION", "started, ready, paused, stopped (default), removed, state=X", WORD_LIST,
     "started|ready|paused|stopped|removed|state=FAILED"},
    {"timeout", 0, "TIME", "give up after this: 30s, 500ms (default: never)"},
    {NULL},
};

const struct command command_wait = {
    .name = "wait",
    .section = "Instances",
    .synopsis = "[OPTIONS] NAME...",
    .summary = "Wait until instances are in a state",
    .text = "Waiting for stopped prints the exit status of the process. Fails at once when the condition cannot come "
            "true any more because the instance failed, and with TIMEOUT (exit status 1) when the time is over.",
    .examples = "  coracle wait edge-fw --for=ready --timeout 5s",
    .options = wait_options,
    .words = WORD_INSTANCE,
    .min_words = 1,
    .max_words = -1,
    .run = run_wait,
};
