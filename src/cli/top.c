/* SPDX-License-Identifier: Apache-2.0 */
/* stats: counters once; top: rates of all running instances, again and again on a terminal, once in a pipe. */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/rates.h"
#include "cli/table.h"

enum { COLUMN_COUNT = 9, INTERVAL_MS = 1000 };

struct sample {
    json_t *items;
    uint64_t at_ns;
};

struct row {
    json_t *before, *now;
    uint64_t interval_ns;
};

static const json_t *find_before(const struct sample *sample, const char *id)
{
    json_t *item;
    size_t i;

    json_array_foreach(sample->items, i, item) if (!strcmp(text_member(item, "id"), id)) return item;
    return NULL;
}

static double sort_value(const struct row *row, char key)
{
    bool known;
    double rx;

    switch (key) {
    case 'm':
        return (double)json_integer_value(json_object_get(row->now, "memory_bytes"));
    case 'p':
        rx = rate_of(row->before, row->now, "rx_packets", row->interval_ns, &known);
        return rx + rate_of(row->before, row->now, "tx_packets", row->interval_ns, &known);
    default:
        return rate_of(row->before, row->now, "cpu_ns", row->interval_ns, &known);
    }
}

static int compare_rows(const void *a, const void *b, void *key)
{
    const struct row *x = a, *y = b;
    char order = *(const char *)key;
    double vx, vy;

    if (order != 'n') {
        vx = sort_value(x, order);
        vy = sort_value(y, order);
        if (vx != vy)
            return vx < vy ? 1 : -1;
    }
    return strcmp(text_member(x->now, "name"), text_member(y->now, "name"));
}

static char *bytes_cell(const json_t *stats, const char *key)
{
    const json_t *value = json_object_get(stats, key);

    return json_is_integer(value) ? text_bytes((uint64_t)json_integer_value(value)) : text_dup(NOT_MEASURED);
}

static void add_row(struct table *table, const struct row *r)
{
    char *cells[COLUMN_COUNT] = {
        text_dup(text_member(r->now, "name")),
        text_dup(text_member(r->now, "technology")),
        rate_cpu(r->before, r->now, r->interval_ns),
        bytes_cell(r->now, "memory_bytes"),
        text_json(json_object_get(r->now, "pids"), NULL),
        rate_count(r->before, r->now, "rx_packets", NULL, r->interval_ns),
        rate_count(r->before, r->now, "tx_packets", NULL, r->interval_ns),
        rate_count(r->before, r->now, "rx_dropped", "tx_dropped", r->interval_ns),
        text_json(json_object_get(r->now, "oom_kills"), NULL),
    };

    table_row(table, cells);
}

/* Rows beyond max_rows are left out (a screen has an end; a pipe has none: 0). */
static char *render(const struct cli *cli, const struct sample *before, const struct sample *now, char order,
                    size_t max_rows)
{
    static const struct column columns[] = {{"NAME", 0},
                                            {"TECHNOLOGY", 0},
                                            {"CPU", COLUMN_RIGHT},
                                            {"MEMORY", COLUMN_RIGHT},
                                            {"TASKS", COLUMN_RIGHT},
                                            {"RX/s", COLUMN_RIGHT},
                                            {"TX/s", COLUMN_RIGHT},
                                            {"DROPS/s", COLUMN_RIGHT},
                                            {"OOM", COLUMN_RIGHT}};
    struct table *table = table_new(cli, columns, COLUMN_COUNT, true);
    size_t count = json_array_size(now->items), i;
    struct row *rows = text_alloc(count, sizeof(*rows));
    json_t *item;

    json_array_foreach(now->items, i, item) rows[i] =
        (struct row){(json_t *)find_before(before, text_member(item, "id")), item, now->at_ns - before->at_ns};
    qsort_r(rows, count, sizeof(*rows), compare_rows, &order);
    for (i = 0; i < count && (max_rows == 0 || i < max_rows); i++)
        add_row(table, &rows[i]);
    free(rows);
    return table_text(table);
}

static int take_sample(struct cli *cli, struct sample *ret, struct error **err)
{
    json_t *answer = NULL;
    int r = api_get(cli, "/v1/stats", &answer, err);

    if (r < 0)
        return r;
    ret->at_ns = clock_ns();
    ret->items = json_incref(json_object_get(answer, "items"));
    json_decref(answer);
    return 0;
}

static void sample_clear(struct sample *sample)
{
    json_decref(sample->items);
    sample->items = NULL;
}

/* Waits the interval; a key ends it early. Returns the key, 0 without one. */
static char wait_key(int ms)
{
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    char key = 0;

    if (poll(&p, 1, ms) > 0 && read(STDIN_FILENO, &key, 1) != 1)
        key = 'q';
    return key;
}

static void draw(const struct cli *cli, const struct sample *before, const struct sample *now, char order)
{
    unsigned short columns, rows;
    auto_free char *text = NULL;

    term_size(&columns, &rows);
    text = render(cli, before, now, order, rows > 4 ? rows - 4u : 1);
    printf("\033[H\033[Jcoracle: %zu running; sorted by %s\n%s\n%sq quits; sort by: c CPU, m memory, p packets, "
           "n name%s",
           json_array_size(now->items),
           order == 'm'   ? "memory"
           : order == 'p' ? "packets"
           : order == 'n' ? "name"
                          : "CPU",
           text, term_paint(cli, "dim"), term_plain(cli));
    fflush(stdout);
}

static int live(struct cli *cli, int interval_ms, char order, struct error **err)
{
    struct sample before = {0}, now = {0};
    int r = take_sample(cli, &before, err);
    char key = 0;

    if (r == 0)
        r = term_raw(true, err);
    if (r < 0) {
        sample_clear(&before);
        return r;
    }
    term_screen();
    while (key != 'q' && key != 0x1b && (r = take_sample(cli, &now, err)) == 0) {
        draw(cli, &before, &now, order);
        key = wait_key(interval_ms);
        if (key && strchr("cmpn", key))
            order = key;
        /* A key shows the same samples in another order; only time makes new rates. */
        if (!key) {
            sample_clear(&before);
            before = now;
        } else {
            sample_clear(&now);
        }
    }
    sample_clear(&before);
    term_restore();
    return r;
}

static int once(struct cli *cli, int interval_ms, char order, struct error **err)
{
    struct sample before = {0}, now = {0};
    int r = take_sample(cli, &before, err);

    if (r == 0 && cli->json && !cli->explain) {
        json_t *list = json_pack("{s:O}", "items", before.items);

        print_json(list);
        json_decref(list);
    } else if (r == 0 && !cli->explain) {
        usleep((useconds_t)interval_ms * 1000);
        r = take_sample(cli, &now, err);
        if (r == 0) {
            auto_free char *text = render(cli, &before, &now, order, 0);

            puts(*text ? text : "nothing is running");
        }
        sample_clear(&now);
    }
    sample_clear(&before);
    return r;
}

static int run_top(struct cli *cli, const struct args *args, struct error **err)
{
    const char *interval = args_get(args, "interval"), *sort = args_get(args, "sort");
    uint64_t ms = INTERVAL_MS;
    char order = 'c';

    if (interval && text_parse_duration_ms(interval, "--interval", &ms, err) < 0)
        return -EINVAL;
    if (ms < 100 || ms > 3600000)
        return error_set(err, EINVAL, "INVALID_VALUE", "--interval: from 100ms to 1h");
    if (sort && strcmp(sort, "cpu") && strcmp(sort, "memory") && strcmp(sort, "packets") && strcmp(sort, "name"))
        return error_set(err, EINVAL, "INVALID_VALUE", "--sort: \"%s\" is none of cpu, memory, packets, name", sort);
    if (sort)
        order = sort[0];
    if (args_flag(args, "once") || cli->json || cli->explain || !cli->out_tty || !isatty(STDIN_FILENO))
        return once(cli, (int)ms, order, err);
    return live(cli, (int)ms, order, err);
}

static json_t *stats_list(struct cli *cli, const struct args *args, struct error **err)
{
    json_t *list = json_array(), *answer = NULL;
    int r = 0;

    if (args->word_count == 0) {
        r = api_get(cli, "/v1/stats", &answer, err);
        json_array_extend(list, json_object_get(answer, "items"));
        json_decref(answer);
    }
    for (size_t i = 0; r == 0 && i < args->word_count; i++) {
        auto_free char *path = text_path("/v1/instances/%s/stats", args->words[i]);

        r = api_get(cli, path, &answer, err);
        if (r == 0 && answer)
            json_array_append_new(list, answer);
    }
    if (r < 0) {
        json_decref(list);
        return NULL;
    }
    return list;
}

static void print_stats(const struct cli *cli, const json_t *list)
{
    static const struct column columns[] = {{"NAME", 0}, {"COUNTER", 0}, {"VALUE", COLUMN_RIGHT}};
    struct table *table = table_new(cli, columns, 3, true);
    json_t *stats, *value;
    const char *key;
    size_t i;

    json_array_foreach(list, i, stats)
    {
        json_object_foreach(stats, key, value)
        {
            bool is_bytes = strstr(key, "bytes") && json_is_integer(value);
            char *cells[] = {text_dup(text_member(stats, "name")), text_dup(key),
                             is_bytes ? text_bytes((uint64_t)json_integer_value(value)) : text_json(value, NULL)};

            if (!strcmp(key, "id") || !strcmp(key, "name") || !strcmp(key, "technology"))
                free(cells[0]), free(cells[1]), free(cells[2]);
            else
                table_row(table, cells);
        }
    }
    table_print(table);
}

static int run_stats(struct cli *cli, const struct args *args, struct error **err)
{
    json_t *list = stats_list(cli, args, err), *all;

    if (!list)
        return -EIO;
    if (cli->json && !cli->explain) {
        all = json_pack("{s:O}", "items", list);
        print_json(args->word_count == 1 ? json_array_get(list, 0) : all);
        json_decref(all);
    } else if (!cli->explain) {
        print_stats(cli, list);
    }
    json_decref(list);
    return 0;
}

static const struct option_spec options[] = {
    {"once", 0, NULL, "print one table and end (what a pipe gets anyway)"},
    {"interval", 'd', "TIME", "time between two looks: 1s, 250ms"},
    {"sort", 0, "COLUMN", "sort by it at first", WORD_LIST, "cpu|memory|packets|name"},
    {NULL},
};

const struct command command_top = {
    .name = "top",
    .section = "Look inside",
    .synopsis = "[OPTIONS]",
    .summary = "Watch processor, memory and packets of what runs",
    .text = "CPU is in hundredths of one core. Packets and drops are a second's. With --json prints the counters.",
    .options = options,
    .run = run_top,
};

const struct command command_stats = {
    .name = "stats",
    .section = "Look inside",
    .synopsis = "[NAME...]",
    .summary = "Show counters of instances",
    .text = "Everything that is counted, since the instance was started; without a name of all that run.",
    .words = WORD_INSTANCE,
    .max_words = -1,
    .run = run_stats,
};
