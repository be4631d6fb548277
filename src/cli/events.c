/* SPDX-License-Identifier: Apache-2.0 */
/* events: what happened, from the daemon's memory or as it happens. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/sse.h"

enum { FILTER_MAX = 16, TAIL_DEFAULT = 20 };

struct selection {
    const struct cli *cli;
    const char *types[FILTER_MAX]; /* prefixes of the type; none: all */
    size_t type_count;
    char *since; /* RFC 3339; NULL: no bound */
};

static bool is_selected(const struct selection *s, const json_t *event)
{
    const char *type = text_member(event, "type");

    /* RFC 3339 in UTC with the same number of digits sorts as text. */
    if (s->since && strcmp(text_member(event, "time"), s->since) < 0)
        return false;
    for (size_t i = 0; i < s->type_count; i++)
        if (!strncmp(type, s->types[i], strlen(s->types[i])))
            return true;
    return s->type_count == 0;
}

/* A change of state in two words, anything else as it came. Caller frees. */
static char *detail_text(const json_t *detail)
{
    if (*text_member(detail, "to"))
        return text_printf("%s -> %s", text_member(detail, "from"), text_member(detail, "to"));
    if (*text_member(detail, "operation"))
        return text_printf("%s %s", text_member(detail, "operation"), text_member(detail, "operationState"));
    return json_object_size(detail) ? text_json(detail, "") : text_dup("");
}

static void print_event(const struct selection *s, const json_t *event)
{
    const json_t *detail = json_object_get(event, "detail");
    auto_free char *text = detail_text(detail);
    const char *to = text_member(detail, "to");
    const char *color = term_state_color(*to ? to : text_member(detail, "operationState"));

    if (s->cli->json) {
        print_json_line(event);
        return;
    }
    printf("%s  %-17s  %s%s%s%s%s\n", text_member(event, "time"), text_member(event, "type"),
           text_member(event, "instance_name"), *text ? "  " : "", term_paint(s->cli, color), text,
           color ? term_plain(s->cli) : "");
    fflush(stdout);
}

static int on_event(void *context, const char *data)
{
    struct selection *s = context;
    json_t *event = json_loads(data, 0, NULL);

    if (event && is_selected(s, event))
        print_event(s, event);
    json_decref(event);
    return ferror(stdout);
}

static int on_bytes(void *context, const char *data, size_t size)
{
    return sse_feed(context, data, size);
}

static int add_filter(struct selection *s, char **path, const char *filter, struct error **err)
{
    if (!strncmp(filter, "type=", 5) && s->type_count < FILTER_MAX) {
        s->types[s->type_count++] = filter + 5;
        return 0;
    }
    if (!strncmp(filter, "instance=", 9)) {
        query_add(path, "instance", filter + 9);
        return 0;
    }
    error_set(err, EINVAL, "INVALID_VALUE", "events: \"%s\" is no filter", filter);
    error_hint(err, "type=instance.state (or a beginning of it: type=operation), instance=NAME");
    return -EINVAL;
}

static int set_since(struct selection *s, char **path, const char *since, struct error **err)
{
    /* A short number is the sequence number of an event. */
    if (strlen(since) < 9 && strspn(since, "0123456789") == strlen(since)) {
        query_add(path, "since", since);
        return 0;
    }
    return text_parse_since(since, time(NULL), &s->since, err);
}

static int select_from_args(const struct args *args, struct selection *s, char **path, struct error **err)
{
    const char *filter, *since = args_get(args, "since");
    int r = 0;

    if (args_flag(args, "follow"))
        query_add(path, "follow", "true");
    for (size_t i = 0; r == 0 && (filter = args_next(args, "filter", &i));)
        r = add_filter(s, path, filter, err);
    if (r == 0 && args->word_count)
        query_add(path, "instance", args->words[0]);
    if (r == 0 && since)
        r = set_since(s, path, since, err);
    return r;
}

/* How many of the last events a list shows: what --tail says; all since --since; else the last few. */
static int tail_from_args(const struct args *args, uint64_t *ret, struct error **err)
{
    const char *tail = args_get(args, "tail");

    *ret = args_get(args, "since") ? UINT64_MAX : TAIL_DEFAULT;
    if (!tail)
        return 0;
    if (strcmp(tail, "all") != 0)
        return text_parse_u64(tail, "--tail", ret, err);
    *ret = UINT64_MAX;
    return 0;
}

static int print_list(struct cli *cli, const struct selection *s, const char *path, uint64_t tail, struct error **err)
{
    json_t *answer = NULL, *event, *kept = json_array();
    size_t i;
    int r = api_get(cli, path, &answer, err);

    json_array_foreach(json_object_get(answer, "items"), i, event)
    {
        if (is_selected(s, event))
            json_array_append(kept, event);
    }
    while (json_array_size(kept) > tail)
        json_array_remove(kept, 0);
    json_array_foreach(kept, i, event) if (!cli->json) print_event(s, event);
    if (r == 0 && cli->json && !cli->explain) {
        json_t *list = json_pack("{s:O}", "items", kept);

        print_json(list);
        json_decref(list);
    }
    json_decref(kept);
    json_decref(answer);
    return r;
}

static int run_events(struct cli *cli, const struct args *args, struct error **err)
{
    auto_free char *path = text_dup("/v1/events");
    struct selection s = {.cli = cli};
    struct sse sse = {.event = on_event, .context = &s};
    uint64_t tail;
    int r = select_from_args(args, &s, &path, err);

    if (r == 0)
        r = tail_from_args(args, &tail, err);
    if (r == 0 && args_flag(args, "follow"))
        r = api_stream(cli, path, on_bytes, &sse, err);
    else if (r == 0)
        r = print_list(cli, &s, path, tail, err);
    sse_clear(&sse);
    free(s.since);
    return r;
}

static const struct option_spec options[] = {
    {"follow", 'f', NULL, "go on with what happens"},
    {"since", 0, "WHEN", "from then on: 10m, a time, or the number of an event"},
    {"tail", 'n', "N", "the last N of them (default 20 without --since; all: as far back as is kept)"},
    {"filter", 0, "KEY=VALUE", "type=PREFIX, instance=NAME; may repeat"},
    {NULL},
};

const struct command command_events = {
    .name = "events",
    .section = "Look inside",
    .synopsis = "[OPTIONS] [NAME]",
    .summary = "Show what happened, or what happens",
    .text = "Without -f prints the last 20 events and ends. With -f prints what happens from now on "
            "(with --since, from then on) until it is interrupted. With --json and -f every event is one line of JSON.",
    .examples = "  coracle events -f --filter type=instance\n  coracle events --since 10m edge-fw",
    .options = options,
    .words = WORD_INSTANCE,
    .max_words = 1,
    .run = run_events,
};
