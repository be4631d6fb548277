/* SPDX-License-Identifier: Apache-2.0 */
/* operations: the history of what was asked for, each with its time and steps; cancel one. */
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/table.h"
#include "cli/waterfall.h"

enum { COLUMN_COUNT = 6 };

static void print_table(const struct cli *cli, const json_t *items)
{
    static const struct column columns[] = {
        {"ID", 0}, {"INSTANCE", 0}, {"OPERATION", 0}, {"STATE", COLUMN_STATE}, {"STARTED", 0}, {"TOOK", COLUMN_RIGHT},
    };
    struct table *table = table_new(cli, columns, COLUMN_COUNT, true);
    json_t *o;
    size_t i;

    json_array_foreach(items, i, o)
    {
        const char *to = text_member(o, "changeStateTo");
        const json_t *us = json_object_get(o, "duration_us");
        char *cells[COLUMN_COUNT] = {
            text_dup(text_member(o, "id")),
            text_dup(text_member(o, "instance_name")),
            text_printf("%s%s%s%s", text_member(o, "operation"), *to ? " to " : "", to,
                        json_is_true(json_object_get(o, "isRestart")) ? " (restart)" : ""),
            text_dup(text_member(o, "operationState")),
            text_dup(text_member(o, "startTime")),
            json_is_integer(us) ? text_duration_us((uint64_t)json_integer_value(us)) : text_dup("-"),
        };

        table_row(table, cells);
    }
    table_print(table);
}

static int run_ls(struct cli *cli, const struct args *args, struct error **err)
{
    auto_free char *path = text_dup("/v1/operations");
    const char *value;
    size_t i;

    for (i = 0; (value = args_next(args, "instance", &i));)
        query_add(&path, "instance", value);
    if (args->word_count)
        query_add(&path, "instance", args->words[0]);
    for (i = 0; (value = args_next(args, "state", &i));)
        query_add(&path, "state", value);
    for (i = 0; (value = args_next(args, "operation", &i));)
        query_add(&path, "operation", value);
    return list_items(cli, path, "id", print_table, err);
}

static void print_error(const json_t *operation)
{
    const json_t *problem = json_object_get(operation, "error");

    if (!json_is_object(problem))
        return;
    printf("error: %s (%s)\n", text_member(problem, "detail"), text_member(problem, "code"));
    if (*text_member(problem, "hint"))
        printf("try: %s\n", text_member(problem, "hint"));
}

static int run_inspect(struct cli *cli, const struct args *args, struct error **err)
{
    auto_free char *path = text_path("/v1/operations/%s", args->words[0]);
    json_t *operation = NULL;
    int r = api_get(cli, path, &operation, err);

    if (r < 0 || cli->explain)
        return r;
    if (cli->json) {
        print_json(operation);
    } else {
        waterfall_print(cli, operation);
        print_error(operation);
    }
    json_decref(operation);
    return 0;
}

static int run_cancel(struct cli *cli, const struct args *args, struct error **err)
{
    auto_free char *path = text_path("/v1/operations/%s/cancel", args->words[0]);
    json_t *operation = NULL;
    int r = api_call(cli, "POST", path, NULL, &operation, err);

    if (r < 0 || cli->explain)
        return r;
    if (cli->json) {
        print_json(operation);
    } else {
        auto_free char *sentence =
            text_printf("%s is asked to end; it is %s", args->words[0], text_member(operation, "operationState"));

        report_done(cli, args->words[0], sentence);
    }
    json_decref(operation);
    return 0;
}

static const struct option_spec ls_options[] = {
    {"instance", 0, "NAME", "only of this instance, may repeat", WORD_INSTANCE},
    {"operation", 0, "KIND", "only this kind, may repeat", WORD_LIST,
     "INSTANTIATE|OPERATE|MODIFY_INFO|HEAL|TERMINATE|PULL"},
    {"state", 0, "STATE", "only in this state, may repeat", WORD_LIST,
     "STARTING|PROCESSING|COMPLETED|FAILED_TEMP|FAILED|ROLLING_BACK|ROLLED_BACK"},
    {NULL},
};

const struct command command_operation_ls = {
    .name = "operation ls",
    .aliases = "operations|operations ls|operation list|operations list",
    .section = "Look inside",
    .synopsis = "[OPTIONS] [NAME]",
    .summary = "List what was asked for and how it ended",
    .text = "Newest first; also of instances that are gone.",
    .options = ls_options,
    .words = WORD_INSTANCE,
    .max_words = 1,
    .run = run_ls,
};

const struct command command_operation_inspect = {
    .name = "operation inspect",
    .aliases = "operations inspect|operation show",
    .section = "Look inside",
    .synopsis = "ID",
    .summary = "Show an operation's steps and times",
    .text = "Times count from the arrival of the request at the daemon.",
    .words = WORD_OPERATION,
    .min_words = 1,
    .max_words = 1,
    .run = run_inspect,
};

const struct command command_operation_cancel = {
    .name = "operation cancel",
    .aliases = "operations cancel",
    .section = "Look inside",
    .synopsis = "ID",
    .summary = "Cancel an operation that has not ended",
    .text = "What was made so far is taken back.",
    .words = WORD_OPERATION,
    .min_words = 1,
    .max_words = 1,
    .run = run_cancel,
};
