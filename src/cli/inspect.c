/* SPDX-License-Identifier: Apache-2.0 */
/* inspect: everything about an instance, one field of it, or the time of each step of its last start. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/field.h"
#include "cli/table.h"
#include "cli/waterfall.h"

enum { BAR_WIDTH = 40 };

int field_find(const json_t *value, const char *path, const json_t **ret, struct error **err)
{
    const json_t *now = value;
    const char *p = path;

    while (*p) {
        size_t n = strcspn(p, ".");
        auto_free char *key = text_printf("%.*s", (int)n, p);

        if (json_is_array(now) && *key && strspn(key, "0123456789") == n)
            now = json_array_get(now, strtoul(key, NULL, 10));
        else
            now = json_object_get(now, key);
        if (!now) {
            error_set(err, ENOENT, "INVALID_VALUE", "--field: there is no \"%.*s\"", (int)(p + n - path), path);
            error_hint(err, "--json shows what there is; names are joined by dots: networks.0.ipv4");
            return -ENOENT;
        }
        p += n + (p[n] == '.');
    }
    *ret = now;
    return 0;
}

char *waterfall_bar(uint64_t start_us, uint64_t duration_us, uint64_t total_us, unsigned int width, bool unicode)
{
    unsigned int before = total_us ? (unsigned int)(start_us * width / total_us) : 0;
    unsigned int length = total_us ? (unsigned int)((duration_us * width + total_us - 1) / total_us) : 0;
    char *bar = text_dup("");

    before = before >= width ? width - 1 : before;
    length = length ? length : 1;
    length = before + length > width ? width - before : length;
    for (unsigned int i = 0; i < before + length; i++) {
        char *longer = text_printf("%s%s", bar, i < before ? " " : unicode ? "\u2588" : "#");

        free(bar);
        bar = longer;
    }
    return bar;
}

static uint64_t member_u64(const json_t *object, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(object, key));
}

void waterfall_print(const struct cli *cli, const json_t *operation)
{
    static const struct column columns[] = {{"STEP", 0}, {"AFTER", COLUMN_RIGHT}, {"TOOK", COLUMN_RIGHT}, {"", 0}};
    struct table *table = table_new(cli, columns, 4, false);
    uint64_t total = member_u64(operation, "duration_us");
    auto_free char *time = text_json(json_object_get(operation, "duration_us"), NULL);
    auto_free char *words = json_object_get(operation, "duration_us") ? text_duration_us(total) : text_dup(time);
    json_t *step;
    size_t i;

    json_array_foreach(json_object_get(operation, "steps"), i, step)
    {
        uint64_t end = member_u64(step, "start_us") + member_u64(step, "duration_us");

        total = end > total ? end : total;
    }
    printf("%s of %s: %s in %s\n", text_member(operation, "operation"), text_member(operation, "instance_name"),
           text_member(operation, "operationState"), words);
    json_array_foreach(json_object_get(operation, "steps"), i, step)
    {
        uint64_t start = member_u64(step, "start_us"), took = member_u64(step, "duration_us");
        char *cells[] = {text_dup(text_member(step, "name")), text_duration_us(start), text_duration_us(took),
                         waterfall_bar(start, took, total, BAR_WIDTH, cli->unicode)};

        table_row(table, cells);
    }
    table_print(table);
}

/* The newest operation that ended in a start. */
static int run_steps(struct cli *cli, const char *name, struct error **err)
{
    auto_free char *path = text_path("/v1/operations?instance=%s", name);
    json_t *answer = NULL, *operation, *found = NULL;
    size_t i;
    int r = api_get(cli, path, &answer, err);

    if (r < 0 || cli->explain)
        return r;
    json_array_foreach(json_object_get(answer, "items"), i, operation)
    {
        const char *kind = text_member(operation, "operation"), *to = text_member(operation, "changeStateTo");

        if (!found && json_array_size(json_object_get(operation, "steps")) > 0 &&
            (!strcmp(kind, "INSTANTIATE") || !strcmp(kind, "HEAL") || !strcmp(to, "STARTED")))
            found = operation;
    }
    if (!found)
        r = error_set(err, ENOENT, "OPERATION_NOT_FOUND", "%s was not started yet, or its operations are forgotten",
                      name);
    else if (cli->json)
        print_json(found);
    else
        waterfall_print(cli, found);
    json_decref(answer);
    return r;
}

static void print_member(const struct cli *cli, const char *title, char *value)
{
    if (*value)
        printf("%s%-16s%s %s\n", term_paint(cli, "bold"), title, term_plain(cli), value);
    free(value);
}

static void print_networks(const struct cli *cli, const json_t *instance)
{
    json_t *n, *port;
    size_t i;

    json_array_foreach(json_object_get(instance, "networks"), i, n)
    {
        const char *four = text_member(n, "ipv4"), *six = text_member(n, "ipv6");
        auto_free char *left =
            *four ? text_printf("%s/%lld", four, json_integer_value(json_object_get(n, "prefix4"))) : text_dup("");
        auto_free char *right =
            *six ? text_printf("%s/%lld", six, json_integer_value(json_object_get(n, "prefix6"))) : text_dup("");

        print_member(cli, i ? "" : "Networks",
                     text_printf("%s on %s: %s %s, %s", text_member(n, "interface"), text_member(n, "name"), left,
                                 right, text_member(n, "mac")));
    }
    json_array_foreach(json_object_get(instance, "ports"), i, port)
        print_member(cli, i ? "" : "Ports",
                     text_printf("%lld -> %lld/%s", json_integer_value(json_object_get(port, "host_port")),
                                 json_integer_value(json_object_get(port, "port")), text_member(port, "protocol")));
}

static void print_pairs(const struct cli *cli, const char *title, const json_t *object)
{
    const char *key, *heading = title;
    json_t *value;

    json_object_foreach((json_t *)object, key, value)
    {
        auto_free char *text = text_json(value, NULL);

        print_member(cli, heading, text_printf("%s=%s", key, text));
        heading = "";
    }
}

static void print_state(const struct cli *cli, const json_t *instance)
{
    const char *state = text_member(instance, "state"), *color = term_state_color(state);
    const json_t *reason = json_object_get(instance, "reason"), *exit = json_object_get(instance, "exit");

    print_member(cli, "State", text_printf("%s%s%s", term_paint(cli, color), state, color ? term_plain(cli) : ""));
    if (json_is_object(reason))
        print_member(cli, "Reason",
                     text_printf("%s (%s)", text_member(reason, "message"), text_member(reason, "code")));
    if (json_is_object(exit)) {
        auto_free char *signal_word = text_json(json_object_get(exit, "signal"), "");
        auto_free char *status = text_json(json_object_get(exit, "status"), "");

        print_member(cli, "Ended",
                     text_printf("%s%s%s%s %s", *signal_word ? "by " : "with status ",
                                 *signal_word ? signal_word : status,
                                 json_is_true(json_object_get(exit, "oom")) ? ", out of memory," : "", " at",
                                 text_member(exit, "at")));
    }
}

static void print_instance(const struct cli *cli, const json_t *i)
{
    json_t *verbs = json_object_get(i, "verbs"), *verb;
    char *can = text_dup("");
    size_t k;

    print_member(cli, "Name", text_dup(text_member(i, "name")));
    print_member(cli, "Id", text_dup(text_member(i, "id")));
    print_state(cli, i);
    print_member(cli, "Technology",
                 text_printf("%s, accelerator %s", text_member(i, "technology"), text_member(i, "accelerator")));
    print_member(cli, "Image", text_dup(text_member(i, "image")));
    print_member(cli, "Digest", text_dup(text_member(i, "image_digest")));
    print_member(cli, "Pid", text_json(json_object_get(i, "pid"), "-"));
    print_member(cli, "Uid range", text_json(json_object_get(i, "uid_base"), "-"));
    print_member(cli, "Started from", text_dup(text_member(i, "started_from")));
    print_member(cli, "Restarts", text_json(json_object_get(i, "restarts"), NULL));
    print_member(cli, "Created", text_dup(text_member(i, "created_at")));
    print_member(cli, "Started", text_dup(text_member(i, "started_at")));
    print_networks(cli, i);
    print_pairs(cli, "Resources", json_object_get(i, "resources"));
    print_pairs(cli, "Labels", json_object_get(i, "labels"));
    json_array_foreach(verbs, k, verb)
    {
        char *longer = text_printf("%s%s%s", can, k ? ", " : "", json_string_value(verb));

        free(can);
        can = longer;
    }
    print_member(cli, "Can", can);
}

static int print_field(const json_t *instance, const char *path, struct error **err)
{
    const json_t *value;
    char *text;
    int r = field_find(instance, path, &value, err);

    if (r < 0)
        return r;
    text = text_json(value, NULL);
    printf("%s\n", text);
    free(text);
    return 0;
}

static int inspect_one(struct cli *cli, const struct args *args, const char *name, bool first, struct error **err)
{
    auto_free char *path = text_path("/v1/instances/%s", name);
    const char *field = args_get(args, "field");
    json_t *instance = NULL;
    int r;

    if (args_flag(args, "steps"))
        return run_steps(cli, name, err);
    r = api_get(cli, path, &instance, err);
    if (r == 0 && !cli->explain) {
        if (field)
            r = print_field(instance, field, err);
        else if (cli->json)
            print_json(instance);
        else
            printf("%s", first ? "" : "\n"), print_instance(cli, instance);
    }
    json_decref(instance);
    return r;
}

static int run_inspect(struct cli *cli, const struct args *args, struct error **err)
{
    struct outcome outcome = {0};
    struct error *one = NULL;

    for (size_t i = 0; i < args->word_count; i++)
        if (inspect_one(cli, args, args->words[i], i == 0, &one) < 0)
            outcome_error(cli, &outcome, &one);
    return outcome.status;
}

static const struct option_spec options[] = {
    {"steps", 0, NULL, "time of each step of the last start, as bars"},
    {"field", 0, "PATH", "print one field only: networks.0.ipv4"},
    {NULL},
};

const struct command command_inspect = {
    .name = "inspect",
    .aliases = "show",
    .section = "Look inside",
    .synopsis = "[OPTIONS] NAME...",
    .summary = "Show everything about instances",
    .text = "What is not known is called \"not measured\". With --json prints one object per name, as the interface "
            "gives it.",
    .examples = "  coracle inspect --steps edge-fw\n  coracle inspect --field networks.0.ipv4 edge-fw",
    .options = options,
    .words = WORD_INSTANCE,
    .min_words = 1,
    .max_words = -1,
    .run = run_inspect,
};
