/* SPDX-License-Identifier: Apache-2.0 */
/* One line a technology, metric and variant (RFC 4180), for a spreadsheet; empty fields where nothing was measured. */
#include <string.h>

#include "bench/report/report.h"

static void put_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"')
            fputc('"', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

static void put_number(FILE *out, bool known, double value)
{
    fputc(',', out);
    if (known)
        fprintf(out, "%.9g", value);
}

int report_csv(FILE *out, const struct results *results, struct error **err)
{
    fputs("technology,accelerator,metric,variant,unit,n,failed,min,median,ci95_low,ci95_high,p99,max,reference,"
          "not_measured\r\n",
          out);
    for (size_t i = 0; i < results->cell_count; i++) {
        const struct cell *c = &results->cells[i];
        bool some = c->summary.n > 0;

        fprintf(out, "%s,%s,%s,%s,%s,%zu,%zu", c->subject->technology, c->subject->accelerator, c->metric->name,
                c->variant, c->metric->unit, c->summary.n, c->failed);
        put_number(out, some, c->summary.min);
        put_number(out, some, c->summary.median);
        put_number(out, c->summary.has_interval, c->summary.ci_low);
        put_number(out, c->summary.has_interval, c->summary.ci_high);
        put_number(out, some, c->summary.p99);
        put_number(out, some, c->summary.max);
        put_number(out, c->reference, c->reference ? c->reference->value : 0);
        fputc(',', out);
        put_text(out, some ? "" : *c->why_not ? c->why_not : "no run was made");
        fputs("\r\n", out);
    }
    return 0;
}
