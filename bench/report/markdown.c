/* SPDX-License-Identifier: Apache-2.0 */
/* The tables as GitHub-flavoured Markdown, for an issue or a README. */
#include "base/cleanup.h"
#include "bench/report/report.h"
#include "bench/tables/table.h"

/* A bar would end the cell. */
static void put(FILE *out, const char *text)
{
    for (; *text; text++)
        fputs(*text == '|' ? "\\|" : (const char[]){*text, '\0'}, out);
}

static void print_table(FILE *out, const struct table *t)
{
    fprintf(out, "\n### %s%s%s\n\n|", t->section ? t->section : "", t->section ? ". " : "", t->title);
    for (size_t i = 0; i < t->columns; i++)
        fprintf(out, " %s |", t->headings[i]);
    fputs("\n|", out);
    for (size_t i = 0; i < t->columns; i++)
        fputs(i ? "---:|" : "---|", out);
    for (size_t row = 0; row < t->rows; row++) {
        fputs("\n|", out);
        for (size_t i = 0; i < t->columns; i++) {
            fputc(' ', out);
            put(out, t->cell[row][i]);
            fputs(" |", out);
        }
    }
    fputc('\n', out);
    for (size_t i = 0; i < t->remarks; i++)
        fprintf(out, "%s- \\[%zu\\] %s\n", i ? "" : "\n", i + 1, t->remark[i]);
}

int report_markdown(FILE *out, const struct results *results, struct error **err)
{
    char line[512];

    fprintf(out,
            "## Coracle benchmark\n\nMeasured on %s. Values: median [95%% interval of it]; n: runs that succeeded. "
            "Draft: as published in %s (%s).\n",
            report_host_line(results, line, sizeof(line)), REFERENCE_NAME, REFERENCE_SETUP);
    if (*report_noise_line(results, line, sizeof(line)))
        fprintf(out, "\n%s\n", line);
    for (size_t i = 0; table_kinds()[i]; i++) {
        auto_free struct table *t = table_build(table_kinds()[i], results);
        if (t)
            print_table(out, t);
    }
    return 0;
}
