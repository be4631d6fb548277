/* SPDX-License-Identifier: Apache-2.0 */
/* The default output: the draft's five tables on a terminal, through libsmartcols. */
#include <errno.h>
#include <libsmartcols.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bench/report/report.h"
#include "bench/tables/table.h"

const char *report_host_line(const struct results *r, char *buf, size_t size)
{
    const struct fingerprint *h = &r->host;

    snprintf(buf, size, "%s, %d CPUs, %.1f GB, %s, %s; virtualized: %s; governor: %s; load %.2f before, %.2f after",
             h->cpu, h->cpus, (double)h->memory_bytes / 1e9, h->kernel, h->distribution, h->hypervisor, h->governor,
             h->load_before[0], h->load_after[0]);
    return buf;
}

const char *report_noise_line(const struct results *r, char *buf, size_t size)
{
    buf[0] = '\0';
    if (r->host.load_before[0] > 0.5)
        snprintf(buf, size,
                 "The host was busy before the run began (load %.2f): figures are worse and wider than on a "
                 "quiet one.",
                 r->host.load_before[0]);
    return buf;
}

static int fill(struct libscols_table *table, const struct table *t)
{
    for (size_t i = 0; i < t->columns; i++)
        if (!scols_table_new_column(table, t->headings[i], 0, i ? SCOLS_FL_RIGHT : 0))
            return -ENOMEM;
    for (size_t row = 0; row < t->rows; row++) {
        struct libscols_line *line = scols_table_new_line(table, NULL);
        for (size_t i = 0; line && i < t->columns; i++)
            if (scols_line_set_data(line, i, t->cell[row][i]) != 0)
                return -ENOMEM;
        if (!line)
            return -ENOMEM;
    }
    return 0;
}

static int print_table(FILE *out, const struct table *t)
{
    struct libscols_table *table = scols_new_table();
    int r = table ? fill(table, t) : -ENOMEM;

    if (r == 0) {
        fprintf(out, "\n%s%s%s\n", t->section ? t->section : "", t->section ? ". " : "", t->title);
        scols_table_set_stream(table, out);
        /* Cut columns would hide figures: the width of the terminal is not obeyed. */
        scols_table_set_termforce(table, SCOLS_TERMFORCE_NEVER);
        r = scols_print_table(table);
    }
    for (size_t i = 0; r == 0 && i < t->remarks; i++)
        fprintf(out, "  [%zu] %s\n", i + 1, t->remark[i]);
    scols_unref_table(table);
    return r;
}

int report_terminal(FILE *out, const struct results *results, struct error **err)
{
    char line[512];
    int r = 0;

    fprintf(out, "Measured on %s: %s.\n", results->host.hostname, report_host_line(results, line, sizeof(line)));
    for (size_t i = 0; i < results->subject_count; i++)
        if (results->subjects[i].available)
            fprintf(out, "  %s: %s, accelerator %s\n", results->subjects[i].label, results->subjects[i].version,
                    results->subjects[i].accelerator);
    fprintf(out, "Values: median [95%% interval of it]; n: runs that succeeded. Draft: as published (%s; %s).\n",
            REFERENCE_NAME, REFERENCE_SETUP);
    if (*report_noise_line(results, line, sizeof(line)))
        fprintf(out, "%s\n", line);
    for (size_t i = 0; r == 0 && table_kinds()[i]; i++) {
        auto_free struct table *t = table_build(table_kinds()[i], results);
        if (t)
            r = print_table(out, t);
    }
    if (*results->samples_path)
        fprintf(out, "\nRaw samples: %s\n", results->samples_path);
    return r == 0 ? 0 : error_set(err, ENOMEM, "NO_MEMORY", "no memory for a table");
}
