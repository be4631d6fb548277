/* SPDX-License-Identifier: Apache-2.0 */
/* The table of cells between measuring and reporting. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bench/result.h"

struct cell *results_cell(struct results *results, const struct metric *metric, const struct subject *subject,
                          const char *mode, const char *output, unsigned scale)
{
    char variant[VARIANT_SIZE];
    struct cell *c;

    metric_variant(mode, output, scale, variant, sizeof(variant));
    for (size_t i = 0; i < results->cell_count; i++) {
        c = &results->cells[i];
        if (c->metric == metric && c->subject == subject && strcmp(c->variant, variant) == 0)
            return c;
    }
    if (results->cell_count == CELL_MAX)
        return NULL;
    c = &results->cells[results->cell_count++];
    *c = (struct cell){.metric = metric, .subject = subject, .scale = scale};
    snprintf(c->variant, sizeof(c->variant), "%s", variant);
    /* The draft has one figure a metric: that of the first output (its RTT is an average); a start has two ends here.
     */
    if (subject->reference && (output == metric->outputs[0] || metric == &metric_instantiation))
        c->reference = reference_find(metric->name, subject->reference);
    return c;
}

const struct cell *results_find(const struct results *results, const char *metric, const char *label,
                                const char *variant)
{
    for (size_t i = 0; i < results->cell_count; i++) {
        const struct cell *c = &results->cells[i];
        if (strcmp(c->metric->name, metric) == 0 && strcmp(c->subject->label, label) == 0 &&
            strcmp(c->variant, variant) == 0)
            return c;
    }
    return NULL;
}

int cell_add(struct cell *cell, unsigned run, const struct outcome *outcome)
{
    struct sample *s;

    if (outcome->kind == OUTCOME_ABSENT) {
        snprintf(cell->why_not, sizeof(cell->why_not), "%s", outcome->reason);
        return 0;
    }
    s = realloc(cell->samples, (cell->count + 1) * sizeof(*s));
    if (!s)
        return -ENOMEM;
    cell->samples = s;
    s = &s[cell->count++];
    *s = (struct sample){.run = run,
                         .ok = outcome->kind == OUTCOME_MEASURED,
                         .value = outcome->value,
                         .syn_interval_us = outcome->syn_interval_us};
    cell->syn_interval_us = s->syn_interval_us > cell->syn_interval_us ? s->syn_interval_us : cell->syn_interval_us;
    if (!s->ok) {
        snprintf(s->reason, sizeof(s->reason), "%s", outcome->reason);
        cell->failed++;
    }
    return 0;
}

static int summarize(struct cell *c)
{
    size_t n = 0;

    free(c->values);
    c->values = calloc(c->count + 1, sizeof(*c->values));
    if (!c->values)
        return -ENOMEM;
    for (size_t i = 0; i < c->count; i++)
        if (c->samples[i].ok)
            c->values[n++] = c->samples[i].value;
    if (n == 0 && c->count && !*c->why_not)
        snprintf(c->why_not, sizeof(c->why_not), "every run failed: %.280s", c->samples[c->count - 1].reason);
    return stats_summarize(c->values, n, &c->summary);
}

int results_summarize(struct results *results)
{
    for (size_t i = 0; i < results->cell_count; i++) {
        int r = summarize(&results->cells[i]);
        if (r < 0)
            return r;
    }
    return 0;
}

/* The draft's question is cold start, so a peer's cold start is what both cold and pool are compared with. */
bool cell_comparable(const struct cell *a, const struct cell *b)
{
    const char *suffix_a = strchr(a->variant, '/'), *suffix_b = strchr(b->variant, '/');

    if (a == b || a->metric != b->metric || a->summary.n == 0 || b->summary.n == 0 || a->subject->peer)
        return false;
    if (b->subject->peer)
        return a->scale == 0 && suffix_a && suffix_b ? strcmp(suffix_a, suffix_b) == 0
                                                     : strcmp(a->variant, b->variant) == 0;
    if (a->subject != b->subject || !suffix_a || !suffix_b || b->scale)
        return false;
    if (a->scale) /* the same start beside many and beside none */
        return strncmp(a->variant, b->variant, strlen(b->variant)) == 0;
    return strncmp(a->variant, "pool", 4) == 0 && strncmp(b->variant, "cold", 4) == 0 &&
           strcmp(suffix_a, suffix_b) == 0;
}

const char *results_compare_text(const struct cell *a, const struct cell *b, char *buf, size_t size)
{
    struct comparison c;
    const char *word;

    if (stats_compare(a->values, a->summary.n, b->values, b->summary.n, &c) < 0) {
        snprintf(buf, size, "not measured");
        return buf;
    }
    if (!c.shown || !(c.ratio > 0)) {
        snprintf(buf, size, "no difference shown (p = %.2g, n = %zu and %zu)", c.p, a->summary.n, b->summary.n);
        return buf;
    }
    word = a->metric->higher_is_better == (c.ratio > 1) ? "better" : "worse";
    snprintf(buf, size, "%.3g times %s (p %s %.2g, n = %zu and %zu)", c.ratio > 1 ? c.ratio : 1 / c.ratio, word,
             c.p < 1e-4 ? "<" : "=", c.p < 1e-4 ? 1e-4 : c.p, a->summary.n, b->summary.n);
    return buf;
}

void results_clear(struct results *results)
{
    for (size_t i = 0; i < results->cell_count; i++) {
        free(results->cells[i].samples);
        free(results->cells[i].values);
    }
    for (size_t i = 0; i < results->subject_count; i++)
        if (results->subjects[i].available)
            results->subjects[i].ops->close(&results->subjects[i]);
    results->cell_count = results->subject_count = 0;
}
