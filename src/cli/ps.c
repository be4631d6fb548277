/* SPDX-License-Identifier: Apache-2.0 */
/* ps: the list of instances, with search words and filters. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/ps.h"
#include "cli/table.h"

enum { COLUMN_COUNT = 8, SHORT_IMAGE = 40 };

static const char *filter_key(const char *word, size_t n)
{
    static const char *const keys[][2] = {
        {"name", "name"},   {"technology", "technology"}, {"tech", "technology"},
        {"state", "state"}, {"status", "state"},          {"label", "label"},
        {"l", "label"},     {"image", "image"},           {"ancestor", "image"},
    };

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (strlen(keys[i][0]) == n && !strncmp(keys[i][0], word, n))
            return keys[i][1];
    return NULL;
}

/* docker's and people's words for the states of the model. */
static char *state_word(const char *value)
{
    static const char *const words[][2] = {
        {"running", "STARTED"}, {"exited", "STOPPED"}, {"created", "NOT_INSTANTIATED"}};
    char *upper;

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (!strcasecmp(words[i][0], value))
            return text_dup(words[i][1]);
    upper = text_dup(value);
    for (char *p = upper; *p; p++)
        *p = (char)(*p >= 'a' && *p <= 'z' ? *p - 32 : *p);
    return upper;
}

int filter_add(char **query, const char *word, bool *ret_state_given, struct error **err)
{
    bool negated = *word == '-' || *word == '!';
    const char *start = word + negated;
    size_t n = strcspn(start, "=:");
    const char *key = filter_key(start, n);
    auto_free char *value = NULL, *sent = NULL;

    if (!start[n] && !negated)
        return -ENOENT;
    if (!key) {
        error_set(err, EINVAL, "UNKNOWN_PARAMETER", "ps: \"%.*s\" is nothing that can be filtered by", (int)n, start);
        error_hint(err, "name, technology (tech), state, label (l), image; - before it negates");
        return -EINVAL;
    }
    if (!start[n] || !start[n + 1])
        return error_set(err, EINVAL, "MISSING_FIELD", "ps: %s needs a value: %s=VALUE", key, key);
    value = !strcmp(key, "state") ? state_word(start + n + 1) : text_dup(start + n + 1);
    sent = text_printf("%s%s", negated ? "-" : "", value);
    query_add(query, key, sent);
    if (!strcmp(key, "state"))
        *ret_state_given = true;
    return 0;
}

bool filter_matches(const json_t *instance, const char *word)
{
    static const char *const members[] = {"name", "image", "id"};
    const char *key;
    json_t *value;

    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
        if (strcasestr(text_member(instance, members[i]), word))
            return true;
    json_object_foreach(
        json_object_get(instance, "labels"), key,
        value) if (strcasestr(json_string_value(value) ? json_string_value(value) : "", word)) return true;
    return false;
}

static const char *sort_key;

static int compare(const void *a, const void *b)
{
    const json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
    int r = strcmp(text_member(x, sort_key), text_member(y, sort_key));

    return r ? r : strcmp(text_member(x, "name"), text_member(y, "name"));
}

/* What remains of the answer after the plain words, sorted: a new array. */
static json_t *select_items(const json_t *answer, char **words, size_t word_count, const char *key)
{
    json_t *items = json_object_get(answer, "items"), *item, *list = json_array();
    json_t **sorted = text_alloc(json_array_size(items), sizeof(json_t *));
    size_t i, n = 0;

    json_array_foreach(items, i, item)
    {
        bool keep = true;

        for (size_t w = 0; w < word_count && keep; w++)
            keep = filter_matches(item, words[w]);
        if (keep)
            sorted[n++] = item;
    }
    sort_key = key;
    qsort(sorted, n, sizeof(*sorted), compare);
    for (i = 0; i < n; i++)
        json_array_append(list, sorted[i]);
    free(sorted);
    return list;
}

static char *addresses(const json_t *instance)
{
    json_t *network;
    char *text = text_dup("");
    size_t i;

    json_array_foreach(json_object_get(instance, "networks"), i, network)
    {
        const char *four = text_member(network, "ipv4"), *six = text_member(network, "ipv6");
        char *longer = text_printf("%s%s%s", text, *text ? "," : "", *four ? four : six);

        free(text);
        text = longer;
    }
    return text;
}

static char *ports(const json_t *instance)
{
    char *text = text_dup("");
    json_t *port;
    size_t i;

    json_array_foreach(json_object_get(instance, "ports"), i, port)
    {
        char *longer = text_printf("%s%s%lld:%lld/%s", text, *text ? "," : "",
                                   json_integer_value(json_object_get(port, "host_port")),
                                   json_integer_value(json_object_get(port, "port")), text_member(port, "protocol"));

        free(text);
        text = longer;
    }
    return text;
}

static char *age(const json_t *instance, const char *key, time_t now)
{
    time_t then;

    return text_parse_time(text_member(instance, key), &then) == 0 ? text_age(then, now) : text_dup("-");
}

static void print_table(const struct cli *cli, const json_t *items, bool no_trunc)
{
    static const struct column columns[] = {
        {"NAME", 0},    {"TECHNOLOGY", 0},          {"STATE", COLUMN_STATE}, {"IMAGE", COLUMN_TRUNCATE},
        {"ADDRESS", 0}, {"PORTS", COLUMN_TRUNCATE}, {"AGE", COLUMN_RIGHT},   {"ID", 0},
    };
    struct table *table = table_new(cli, columns, COLUMN_COUNT, !no_trunc);
    time_t now = time(NULL);
    json_t *item;
    size_t i;

    json_array_foreach(items, i, item)
    {
        char *cells[COLUMN_COUNT] = {
            text_dup(text_member(item, "name")),
            text_dup(text_member(item, "technology")),
            text_dup(text_member(item, "state")),
            no_trunc ? text_dup(text_member(item, "image"))
                     : text_printf("%.*s", SHORT_IMAGE, text_member(item, "image")),
            addresses(item),
            ports(item),
            age(item, "created_at", now),
            text_printf("%.*s", no_trunc ? 64 : 8, text_member(item, "id")),
        };

        table_row(table, cells);
    }
    table_print(table);
}

static int make_query(const struct args *args, char **query, struct error **err)
{
    /* Alternatives, not negations: two negated states would be joined by "or". */
    static const char *const shown[] = {"STARTING", "STARTED", "PAUSED", "STOPPING", "FAILED"};
    bool state_given = false;
    const char *filter;

    for (size_t i = 0; (filter = args_next(args, "filter", &i));) {
        int r = filter_add(query, filter, &state_given, err);

        if (r == -ENOENT)
            r = error_set(err, EINVAL, "INVALID_VALUE", "--filter: \"%s\" is not KEY=VALUE", filter);
        if (r < 0)
            return r;
    }
    for (size_t i = 0; i < args->word_count; i++) {
        int r = filter_add(query, args->words[i], &state_given, err);

        if (r < 0 && r != -ENOENT)
            return r;
    }
    if (!args_flag(args, "all") && !state_given)
        for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++)
            query_add(query, "state", shown[i]);
    return 0;
}

static int pick_sort(const struct args *args, const char **ret, struct error **err)
{
    static const char *const keys[][2] = {{"name", "name"},
                                          {"state", "state"},
                                          {"created", "created_at"},
                                          {"technology", "technology"},
                                          {"image", "image"}};
    const char *word = args_get(args, "sort");

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (!strcmp(keys[i][0], word ? word : "created")) {
            *ret = keys[i][1];
            return 0;
        }
    }
    error_set(err, EINVAL, "INVALID_VALUE", "--sort: \"%s\" is no column to sort by", word);
    error_hint(err, "name, state, created, technology or image");
    return -EINVAL;
}

static void print_items(struct cli *cli, const struct args *args, json_t *items)
{
    json_t *item;
    size_t i;

    if (cli->json) {
        json_t *list = json_pack("{s:O}", "items", items);

        print_json(list);
        json_decref(list);
    } else if (cli->quiet) {
        json_array_foreach(items, i, item) printf("%s\n", text_member(item, "id"));
    } else {
        print_table(cli, items, args_flag(args, "no-trunc"));
    }
}

static int run_ps(struct cli *cli, const struct args *args, struct error **err)
{
    auto_free char *path = text_dup("/v1/instances");
    char **plain = text_alloc(args->word_count, sizeof(char *));
    json_t *answer = NULL, *items;
    const char *key;
    size_t plain_count = 0;
    int r = pick_sort(args, &key, err);

    for (size_t i = 0; i < args->word_count; i++)
        if (!strpbrk(args->words[i], "=:"))
            plain[plain_count++] = args->words[i];
    if (r == 0)
        r = make_query(args, &path, err);
    if (r == 0)
        r = api_get(cli, path, &answer, err);
    if (r == 0 && !cli->explain) {
        items = select_items(answer, plain, plain_count, key);
        print_items(cli, args, items);
        json_decref(items);
    }
    json_decref(answer);
    free(plain);
    return r;
}

static const struct option_spec options[] = {
    {"all", 'a', NULL, "also those that are stopped or were never started"},
    {"filter", 'f', "KEY=VALUE", "name, technology, state, label, image; may repeat", WORD_FILTER},
    {"no-trunc", 0, NULL, "cut nothing to the width of the terminal"},
    {"sort", 0, "COLUMN", "sort by it", WORD_LIST, "name|state|created|technology|image"},
    {NULL},
};

const struct command command_ps = {
    .name = "ps",
    .aliases = "ls|list",
    .section = "Look inside",
    .synopsis = "[OPTIONS] [WORD...]",
    .summary = "List instances",
    .text =
        "Words search: tech:container, state:started, label:tenant=a, image:coracle/iperf; a - before them negates; "
        "a plain word is looked for in names, images, ids and labels. The same key twice means either, different "
        "keys mean both. Without -a and without a word about the state, what is stopped is left out. "
        "With -q prints ids only.",
    .examples = "  coracle ps -a\n  coracle ps tech:container -state:failed edge\n  coracle rm -f $(coracle ps -aq)",
    .options = options,
    .words = WORD_FILTER,
    .max_words = -1,
    .filter_words = true,
    .run = run_ps,
};
