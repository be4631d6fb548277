/* SPDX-License-Identifier: Apache-2.0 */
/* logs: what an instance wrote, from the beginning or as it comes. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/api.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/logs.h"

int log_record_parse(const char *line, size_t size, struct log_record *ret)
{
    const char *end = line + size, *stream, *flag;
    struct log_record r = {.time = line};

    stream = memchr(line, ' ', size);
    flag = stream ? memchr(stream + 1, ' ', (size_t)(end - stream - 1)) : NULL;
    if (!flag || end - flag < 2 || (flag[1] != 'F' && flag[1] != 'P') || (end - flag > 2 && flag[2] != ' '))
        return -EPROTO;
    r.time_size = (size_t)(stream - line);
    r.stream = stream + 1;
    r.stream_size = (size_t)(flag - r.stream);
    if (r.stream_size != 6 || (strncmp(r.stream, "stdout", 6) != 0 && strncmp(r.stream, "stderr", 6) != 0))
        return -EPROTO;
    r.partial = flag[1] == 'P';
    r.text = end - flag > 3 ? flag + 3 : end;
    r.text_size = (size_t)(end - r.text);
    *ret = r;
    return 0;
}

static void print_json_record(const struct log_record *r)
{
    __attribute__((cleanup(cleanup_buffer))) struct buffer text = {0};
    auto_free char *content = text_printf("%.*s", (int)r->text_size, r->text);

    buffer_printf(&text, "{\"time\": \"%.*s\", \"stream\": \"%.*s\", \"partial\": %s, \"text\": ", (int)r->time_size,
                  r->time, (int)r->stream_size, r->stream, r->partial ? "true" : "false");
    buffer_json(&text, content);
    buffer_text(&text, "}\n");
    fwrite(text.data, 1, text.length, stdout);
}

static void print_record(struct log_printer *printer, const char *line, size_t size)
{
    struct log_record r;
    bool *in_line, is_err;
    FILE *to;

    if (log_record_parse(line, size, &r) < 0) {
        /* Nothing is kept from the user because its form is unknown. */
        fprintf(stdout, "%.*s\n", (int)size, line);
        return;
    }
    if (printer->cli->json) {
        print_json_record(&r);
        return;
    }
    is_err = r.stream[3] == 'e';
    in_line = &printer->in_line[is_err];
    to = is_err ? stderr : stdout;
    /* Where both streams end in one place, their lines keep their order. */
    if (is_err)
        fflush(stdout);
    if (printer->timestamps && !*in_line)
        fprintf(to, "%.*s ", (int)r.time_size, r.time);
    fwrite(r.text, 1, r.text_size, to);
    if (!r.partial)
        fputc('\n', to);
    *in_line = r.partial;
}

int log_printer_feed(void *context, const char *data, size_t size)
{
    struct log_printer *printer = context;
    const char *newline;
    size_t taken = 0;

    buffer_add(&printer->rest, data, size);
    while ((newline = memchr(printer->rest.data + taken, '\n', printer->rest.length - taken))) {
        size_t n = (size_t)(newline - (printer->rest.data + taken));

        print_record(printer, printer->rest.data + taken, n);
        taken += n + 1;
    }
    memmove(printer->rest.data, printer->rest.data + taken, printer->rest.length - taken);
    printer->rest.length -= taken;
    return fflush(stdout) != 0;
}

int logs_stream(struct cli *cli, const char *name, const char *query, bool timestamps, struct error **err)
{
    auto_free char *base = text_path("/v1/instances/%s/logs", name);
    auto_free char *path = text_printf("%s%s", base, query);
    struct log_printer printer = {.cli = cli, .timestamps = timestamps};
    int r = api_stream(cli, path, log_printer_feed, &printer, err);

    if (printer.rest.length)
        print_record(&printer, printer.rest.data, printer.rest.length);
    buffer_clear(&printer.rest);
    return r;
}

static int run_logs(struct cli *cli, const struct args *args, struct error **err)
{
    const char *tail = args_get(args, "tail"), *since = args_get(args, "since"), *stream = args_get(args, "stream");
    auto_free char *query = text_dup("");
    uint64_t lines;

    if (args_flag(args, "follow"))
        query_add(&query, "follow", "true");
    if (tail && strcmp(tail, "all") != 0) {
        if (text_parse_u64(tail, "--tail", &lines, err) < 0)
            return -EINVAL;
        query_add(&query, "tail", tail);
    }
    if (since) {
        auto_free char *time_text = NULL;

        if (text_parse_since(since, time(NULL), &time_text, err) < 0)
            return -EINVAL;
        query_add(&query, "since", time_text);
    }
    if (stream)
        query_add(&query, "stream", stream);
    return logs_stream(cli, args->words[0], query, args_flag(args, "timestamps"), err);
}

static const struct option_spec options[] = {
    {"follow", 'f', NULL, "go on with what comes"},
    {"tail", 'n', "N", "only the last N lines (all: everything)"},
    {"since", 0, "TIME", "only from then on: 10m, 2026-01-02T03:04:05Z, a Unix time"},
    {"timestamps", 't', NULL, "time before every line"},
    {"stream", 0, "STREAM", "only this one", WORD_LIST, "stdout|stderr"},
    {NULL},
};

const struct command command_logs = {
    .name = "logs",
    .section = "Look inside",
    .synopsis = "[OPTIONS] NAME",
    .summary = "Show what an instance wrote",
    .text = "What the application wrote to its standard output goes to standard output, its errors to standard error. "
            "With --json every record is one line of JSON.",
    .examples = "  coracle logs -f --tail 20 edge-fw\n  coracle logs --since 10m --timestamps edge-fw",
    .options = options,
    .words = WORD_INSTANCE,
    .min_words = 1,
    .max_words = 1,
    .run = run_logs,
};
