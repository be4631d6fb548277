/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot: the memory of running machines, kept to start others from. */
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/table.h"

enum { COLUMN_COUNT = 6 };

static void print_table(const struct cli *cli, const json_t *items)
{
    static const struct column columns[] = {{"NAME", 0},  {"INSTANCE", 0},        {"TECHNOLOGY", 0},
                                            {"IMAGE", 0}, {"SIZE", COLUMN_RIGHT}, {"CREATED", 0}};
    struct table *table = table_new(cli, columns, COLUMN_COUNT, true);
    const json_t *size;
    json_t *s;
    size_t i;

    json_array_foreach(items, i, s)
    {
        size = json_object_get(s, "size_bytes");
        char *cells[COLUMN_COUNT] = {
            text_dup(text_member(s, "name")),
            text_dup(text_member(s, "instance_name")),
            text_dup(text_member(s, "technology")),
            text_dup(text_member(s, "image")),
            json_is_integer(size) ? text_bytes((uint64_t)json_integer_value(size)) : text_dup("being made"),
            text_dup(text_member(s, "created_at")),
        };

        table_row(table, cells);
    }
    table_print(table);
}

static int run_ls(struct cli *cli, const struct args *args, struct error **err)
{
    return list_items(cli, "/v1/snapshots", "name", print_table, err);
}

static json_t *named(const char *name)
{
    return name ? json_pack("{s:s}", "name", name) : json_object();
}

static int run_create(struct cli *cli, const struct args *args, struct error **err)
{
    auto_free char *path = text_path("/v1/instances/%s/snapshot", args->words[0]);
    json_t *body = named(args->word_count > 1 ? args->words[1] : NULL), *operation = NULL, *done = NULL;
    int r = api_call(cli, "POST", path, body, &operation, err);

    json_decref(body);
    if (r == 0)
        r = operation_wait(cli, operation, &done, err);
    if (r == 0 && !cli->explain && cli->json)
        print_json(done);
    else if (r == 0 && !cli->explain)
        report_done(cli, args->words[0], "snapshot kept: coracle snapshot ls");
    json_decref(operation);
    json_decref(done);
    return r;
}

static int run_restore(struct cli *cli, const struct args *args, struct error **err)
{
    auto_free char *path = text_path("/v1/snapshots/%s/restore", args->words[0]);
    json_t *body = named(args_get(args, "name")), *answer = NULL, *done = NULL, *instance = NULL;
    int r = api_call(cli, "POST", path, body, &answer, err);

    json_decref(body);
    if (r == 0)
        r = operation_wait(cli, json_object_get(answer, "operation"), &done, err);
    if (r == 0 && !cli->explain) {
        auto_free char *there = text_path("/v1/instances/%s", text_member(json_object_get(answer, "instance"), "id"));
        r = api_get(cli, there, &instance, err);
    }
    if (r == 0 && !cli->explain && cli->json) {
        print_json(instance);
    } else if (r == 0 && !cli->explain) {
        auto_free char *sentence = started_sentence(instance, done);
        report_done(cli, text_member(instance, "name"), sentence);
    }
    json_decref(answer);
    json_decref(done);
    json_decref(instance);
    return r;
}

static int run_rm(struct cli *cli, const struct args *args, struct error **err)
{
    return remove_named(cli, args, "/v1/snapshots", "snapshot");
}

const struct command command_snapshot_ls = {
    .name = "snapshot ls",
    .aliases = "snapshots|snapshot list",
    .section = "Images and networks",
    .synopsis = "",
    .summary = "List snapshots",
    .text = "A snapshot is the memory of a running machine, kept in a file. Containers have none.",
    .run = run_ls,
};

const struct command command_snapshot_create = {
    .name = "snapshot create",
    .section = "Images and networks",
    .synopsis = "INSTANCE [NAME]",
    .summary = "Keep a running machine's memory",
    .text =
        "The machine stands still while it is written, and goes on. Without a NAME it is called after the instance.",
    .examples = "  coracle snapshot create edge-fw warmed-up",
    .words = WORD_INSTANCE,
    .min_words = 1,
    .max_words = 2,
    .run = run_create,
};

static const struct option_spec restore_options[] = {
    {"name", 'n', "NAME", "name of the new instance (default: one is made)"},
    {NULL},
};

const struct command command_snapshot_restore = {
    .name = "snapshot restore",
    .section = "Images and networks",
    .synopsis = "[OPTIONS] NAME",
    .summary = "Start an instance from a snapshot",
    .text = "A new instance goes on where the other one was, under an identity of its own: name, addresses, hardware "
            "address, entropy. Memory that neither changes is shared. When it is started again later, it boots its "
            "image.",
    .examples = "  coracle snapshot restore --name edge-fw2 warmed-up",
    .options = restore_options,
    .words = WORD_SNAPSHOT,
    .min_words = 1,
    .max_words = 1,
    .run = run_restore,
};

const struct command command_snapshot_rm = {
    .name = "snapshot rm",
    .aliases = "snapshot remove|snapshot delete",
    .section = "Images and networks",
    .synopsis = "NAME...",
    .summary = "Remove snapshots",
    .text = "Instances that were started from it go on.",
    .words = WORD_SNAPSHOT,
    .min_words = 1,
    .max_words = -1,
    .run = run_rm,
};
