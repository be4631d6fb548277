/* SPDX-License-Identifier: Apache-2.0 */
/* Shared behaviour of the commands: waiting for operations, reports and errors in one voice. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli/common.h"
#include "model/codes.h"

enum { FIRST_WAIT_MS = 250, SHOWN_WAIT_MS = 500, LONG_WAIT_MS = 60000 };

void print_json(const json_t *value)
{
    if (value)
        json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
    else
        fputs("{}", stdout);
    putchar('\n');
}

void print_json_line(const json_t *value)
{
    json_dumpf(value, stdout, JSON_COMPACT | JSON_ENCODE_ANY);
    putchar('\n');
    fflush(stdout);
}

static void print_problem(const struct error *err, const char *detail)
{
    json_t *problem = json_pack("{s:i, s:s, s:s, s:s?}", "status", error_code_http_status(err->code), "code", err->code,
                                "detail", detail, "hint", err->hint);

    json_dumpf(problem, stderr, JSON_COMPACT);
    fputc('\n', stderr);
    json_decref(problem);
}

int report_error(const struct cli *cli, const struct error *err)
{
    bool colored = term_colored(cli, true);
    char text[4096];

    term_status_clear(cli);
    fflush(stdout);
    error_text(err, text, sizeof(text));
    if (cli->json) {
        print_problem(err, text);
        return error_code_exit_status(err->code);
    }
    fprintf(stderr, "%serror%s: %s (%s)\n", colored ? "\033[31m" : "", colored ? "\033[0m" : "", text, err->code);
    if (err->hint)
        fprintf(stderr, "%stry%s: %s\n", colored ? "\033[32m" : "", colored ? "\033[0m" : "", err->hint);
    return error_code_exit_status(err->code);
}

static bool has_ended(const char *state)
{
    static const char *const ended[] = {"COMPLETED", "FAILED", "FAILED_TEMP", "ROLLED_BACK"};

    for (size_t i = 0; i < sizeof(ended) / sizeof(ended[0]); i++)
        if (!strcmp(state, ended[i]))
            return true;
    return false;
}

static void show_phase(const struct cli *cli, const json_t *operation)
{
    const json_t *steps = json_object_get(operation, "steps");
    const json_t *last = json_array_get(steps, json_array_size(steps) ? json_array_size(steps) - 1 : 0);
    auto_free char *time = text_duration_us((uint64_t)json_integer_value(json_object_get(operation, "duration_us")));
    const char *name = text_member(operation, "instance_name");

    term_status(cli, "%s%s%s %s %s%s%s", name, *name ? ": " : "", text_member(operation, "operation"),
                text_member(operation, "operationState"), time, last ? ", last step: " : "", text_member(last, "name"));
}

static int operation_error(const json_t *operation, struct error **err)
{
    const json_t *problem = json_object_get(operation, "error");
    const char *state = text_member(operation, "operationState");

    if (!strcmp(state, "COMPLETED"))
        return 0;
    if (json_is_object(problem))
        return api_problem(problem, 500, err);
    error_set(err, EIO, "INTERNAL", "%s of %s ended as %s without a reason", text_member(operation, "operation"),
              text_member(operation, "instance_name"), state);
    error_hint(err, "coracle operation inspect %s; the daemon's log may say more", text_member(operation, "id"));
    return -EIO;
}

/* Short waits first, so that a terminal shows phases only of work that takes long enough to be watched. */
int operation_wait(struct cli *cli, const json_t *operation, json_t **ret_done, struct error **err)
{
    const char *id = cli->explain ? "OPERATION" : text_member(operation, "id");
    json_t *now = json_incref((json_t *)operation);
    int r = 0, wait_ms = cli->err_tty && !cli->quiet && !cli->json ? FIRST_WAIT_MS : LONG_WAIT_MS;

    while (cli->explain || !has_ended(text_member(now, "operationState"))) {
        auto_free char *path = cli->explain ? text_printf("/v1/operations/OPERATION?wait_ms=%d", LONG_WAIT_MS)
                                            : text_path("/v1/operations/%s?wait_ms=%d", id, wait_ms);

        json_decref(now);
        now = NULL;
        r = api_get(cli, path, &now, err);
        if (r < 0 || cli->explain)
            break;
        if (wait_ms != LONG_WAIT_MS && !has_ended(text_member(now, "operationState"))) {
            show_phase(cli, now);
            wait_ms = SHOWN_WAIT_MS;
        }
    }
    term_status_clear(cli);
    if (r == 0 && !cli->explain)
        r = operation_error(now, err);
    if (r == 0 && ret_done)
        *ret_done = now;
    else
        json_decref(now);
    return r;
}

void report_done(const struct cli *cli, const char *name, const char *sentence)
{
    if (cli->json || cli->explain)
        return;
    if (cli->out_tty && !cli->quiet) {
        printf("%s\n", sentence);
        return;
    }
    printf("%s\n", name);
    fflush(stdout);
    term_note(cli, "%s", sentence);
}

char *started_sentence(const json_t *instance, const json_t *operation)
{
    const json_t *us = json_object_get(operation, "duration_us");
    auto_free char *time = json_is_integer(us) ? text_duration_us((uint64_t)json_integer_value(us)) : NULL;

    if (!time)
        return text_printf("%s started", text_member(instance, "name"));
    const char *from = text_member(instance, "started_from");
    return text_printf("%s started in %s (%s)", text_member(instance, "name"), time,
                       strcmp(from, "pool") == 0 ? "warm pool" : from);
}

void outcome_add(struct outcome *outcome, json_t *item)
{
    if (!outcome->items)
        outcome->items = json_array();
    if (item)
        json_array_append_new(outcome->items, item);
}

void outcome_error(const struct cli *cli, struct outcome *outcome, struct error **err)
{
    int status = report_error(cli, *err);

    if (outcome->status == 0)
        outcome->status = status;
    error_free(*err);
    *err = NULL;
}

int outcome_end(const struct cli *cli, struct outcome *outcome, size_t names)
{
    if (cli->json && !cli->explain) {
        json_t *list = json_pack("{s:o}", "items", outcome->items ? json_incref(outcome->items) : json_array());

        if (names == 1 && json_array_size(outcome->items) == 1)
            print_json(json_array_get(outcome->items, 0));
        else if (names > 1 || outcome->status == 0)
            print_json(names == 1 ? NULL : list);
        json_decref(list);
    }
    json_decref(outcome->items);
    return outcome->status;
}

/* glibc's sigabbrev_np() inverted; a number the server might send is not foreseen by the API. */
static int signal_number(const char *name)
{
    for (int i = 1; i < NSIG; i++) {
        const char *known = sigabbrev_np(i);

        if (known && !strcmp(known, !strncmp(name, "SIG", 3) ? name + 3 : name))
            return i;
    }
    return SIGKILL;
}

int list_items(struct cli *cli, const char *path, const char *name_member,
               void (*print_table)(const struct cli *cli, const json_t *items), struct error **err)
{
    json_t *answer = NULL, *items, *item;
    size_t i;
    int r = api_get(cli, path, &answer, err);

    if (r < 0 || cli->explain)
        return r;
    items = json_object_get(answer, "items");
    if (cli->json)
        print_json(answer);
    else if (cli->quiet)
        json_array_foreach(items, i, item) printf("%s\n", text_member(item, name_member));
    else
        print_table(cli, items);
    json_decref(answer);
    return 0;
}

int remove_named(struct cli *cli, const struct args *args, const char *base, const char *what)
{
    struct outcome outcome = {0};
    struct error *one = NULL;

    for (size_t i = 0; i < args->word_count; i++) {
        auto_free char *encoded = text_percent(args->words[i]), *path = text_printf("%s/%s", base, encoded);
        auto_free char *sentence = text_printf("%s %s removed", what, args->words[i]);

        if (api_call(cli, "DELETE", path, NULL, NULL, &one) < 0) {
            outcome_error(cli, &outcome, &one);
            continue;
        }
        outcome_add(&outcome, json_pack("{s:s}", "name", args->words[i]));
        report_done(cli, args->words[i], sentence);
    }
    return outcome_end(cli, &outcome, args->word_count);
}

int exit_status_of(const json_t *exit)
{
    const json_t *status = json_object_get(exit, "status"), *signal_name = json_object_get(exit, "signal");

    if (json_is_integer(status))
        return (int)json_integer_value(status) & 0xff;
    if (json_is_string(signal_name))
        return EXIT_SIGNAL_BASE + signal_number(json_string_value(signal_name));
    if (json_is_integer(signal_name))
        return EXIT_SIGNAL_BASE + (int)json_integer_value(signal_name);
    return -1;
}

void query_add(char **query, const char *key, const char *value)
{
    auto_free char *escaped = text_percent(value);
    char *longer = text_printf("%s%c%s=%s", *query, strchr(*query, '?') ? '&' : '?', key, escaped);

    free(*query);
    *query = longer;
}
