/* SPDX-License-Identifier: Apache-2.0 */
/* Building blocks of the tables: rows, values with their interval, footnotes. */
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "bench/tables/table.h"

static const struct table_kind *const kinds[] = {
    &table_instantiation, &table_throughput, &table_rtt, &table_image_size, &table_memory, &table_create_rate,
    &table_connections,   &table_instrument, NULL,
};

const struct table_kind *const *table_kinds(void)
{
    return kinds;
}

static bool asked_for(const struct table_kind *kind, const struct results *results)
{
    for (size_t i = 0; i < results->cell_count; i++)
        for (size_t j = 0; kind->metrics[j]; j++)
            if (strcmp(results->cells[i].metric->name, kind->metrics[j]) == 0)
                return true;
    return false;
}

struct table *table_build(const struct table_kind *kind, const struct results *results)
{
    struct table *t = asked_for(kind, results) ? calloc(1, sizeof(*t)) : NULL;

    if (!t)
        return NULL;
    t->anchor = kind->anchor;
    kind->build(results, t);
    while (t->columns < TABLE_COLUMN_MAX && t->headings[t->columns])
        t->columns++;
    return t;
}

int table_row(struct table *table, const struct subject *subject)
{
    size_t row = table->rows;

    if (row == TABLE_ROW_MAX)
        return -1;
    table->rows++;
    if (strcmp(subject->accelerator, "tcg") == 0)
        snprintf(
            table->cell[row][0], TABLE_CELL_SIZE, "%s (tcg) [%d]", subject->label,
            table_remark(table, "tcg: the guest's instructions are emulated; not comparable with native figures."));
    else
        snprintf(table->cell[row][0], TABLE_CELL_SIZE, "%s", subject->label);
    return (int)row;
}

int table_remark(struct table *table, const char *format, ...)
{
    char text[TABLE_REMARK_SIZE];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    for (size_t i = 0; i < table->remarks; i++)
        if (strcmp(table->remark[i], text) == 0)
            return (int)i + 1;
    if (table->remarks == TABLE_REMARK_MAX)
        return 0;
    memcpy(table->remark[table->remarks++], text, sizeof(text));
    return (int)table->remarks;
}

const char *table_number(double value, char *buf, size_t size)
{
    double magnitude = fabs(value);
    int decimals = magnitude >= 100 ? 0 : magnitude >= 10 ? 1 : magnitude >= 1 ? 2 : magnitude >= 0.1 ? 3 : 4;

    if (magnitude >= 100 && magnitude < 1000 && fabs(value - round(value)) > 0.005)
        decimals = 1;
    snprintf(buf, size, "%.*f", decimals, value);
    return buf;
}

void table_value(struct table *table, int row, int column, const struct cell *c)
{
    char median[24], low[24], high[24], *out;

    if (row < 0)
        return;
    out = table->cell[row][column];
    if (!c) {
        snprintf(out, TABLE_CELL_SIZE, "not measured");
    } else if (c->summary.n == 0) {
        /* Without the row's name: what is missing for the same reason shares one footnote. */
        snprintf(out, TABLE_CELL_SIZE, "not measured [%d]",
                 table_remark(table, "Not measured: %s.", *c->why_not ? c->why_not : "no run was made"));
    } else if (!c->summary.has_interval) {
        table_number(c->summary.median, out, TABLE_CELL_SIZE);
    } else {
        table_number(c->summary.median, median, sizeof(median));
        table_number(c->summary.ci_low, low, sizeof(low));
        table_number(c->summary.ci_high, high, sizeof(high));
        snprintf(out, TABLE_CELL_SIZE, "%s [%s, %s]", median, low, high);
    }
}

static const struct sample *first_failure(const struct cell *c)
{
    for (size_t i = 0; i < c->count; i++)
        if (!c->samples[i].ok)
            return &c->samples[i];
    return NULL;
}

void table_runs(struct table *table, int row, int column, const struct cell *c)
{
    if (row < 0 || !c || c->count == 0)
        return;
    if (c->failed == 0)
        snprintf(table->cell[row][column], TABLE_CELL_SIZE, "%zu", c->summary.n);
    else
        snprintf(table->cell[row][column], TABLE_CELL_SIZE, "%zu, %zu failed [%d]", c->summary.n, c->failed,
                 table_remark(table, "%s, %s: %zu of %zu runs failed, the first one: %s.", c->subject->label,
                              c->variant, c->failed, c->count, first_failure(c)->reason));
}

void table_reference(struct table *table, int row, int column, const char *metric, const struct subject *subject)
{
    const struct reference *r = reference_find(metric, subject->reference ? subject->reference : "");

    if (row < 0)
        return;
    if (r && !subject->peer)
        snprintf(table->cell[row][column], TABLE_CELL_SIZE, "%g", r->value);
    else
        snprintf(table->cell[row][column], TABLE_CELL_SIZE, "-");
}

void table_comparisons(struct table *table, const struct results *results, const char *metric, const char *output)
{
    char text[200];

    for (size_t i = 0; i < results->cell_count; i++) {
        const struct cell *a = &results->cells[i];

        if (strcmp(a->metric->name, metric) != 0 || !strstr(a->variant, output))
            continue;
        for (size_t j = 0; j < results->cell_count; j++) {
            const struct cell *b = &results->cells[j];
            if (cell_comparable(a, b))
                table_remark(table, "%s %s against %s %s: %s.", a->subject->label, a->variant, b->subject->label,
                             b->variant, results_compare_text(b, a, text, sizeof(text)));
        }
    }
}
