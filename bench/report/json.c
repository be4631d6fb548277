/* SPDX-License-Identifier: Apache-2.0 */
/* The form scripts rely on: an array, one object a technology, metric and variant. Fields are added, never changed. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "bench/report/report.h"

static json_t *number(bool known, double value)
{
    return known ? json_real(value) : json_null();
}

static json_t *samples_json(const struct cell *c)
{
    json_t *list = json_array();

    for (size_t i = 0; i < c->summary.n; i++)
        json_array_append_new(list, json_real(c->values[i]));
    return list;
}

static json_t *failures_json(const struct cell *c)
{
    json_t *list = json_array();

    for (size_t i = 0; i < c->count; i++)
        if (!c->samples[i].ok)
            json_array_append_new(
                list, json_pack("{s:i, s:s}", "run", (int)c->samples[i].run, "reason", c->samples[i].reason));
    return list;
}

static json_t *comparisons_json(const struct results *results, const struct cell *c)
{
    json_t *list = json_array();
    struct comparison cmp;
    char text[200];

    for (size_t i = 0; i < results->cell_count; i++) {
        const struct cell *base = &results->cells[i];

        if (!cell_comparable(c, base) ||
            stats_compare(base->values, base->summary.n, c->values, c->summary.n, &cmp) < 0)
            continue;
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:f, s:f, s:b, s:s, s:s}", "technology", base->subject->technology,
                                        "variant", base->variant, "ratio", cmp.ratio, "p", cmp.p, "shown", cmp.shown,
                                        "test", cmp.exact ? "rank sum, exact" : "rank sum, normal approximation",
                                        "verdict", results_compare_text(base, c, text, sizeof(text))));
    }
    return list;
}

json_t *report_cell_json(const struct results *results, const struct cell *c)
{
    bool some = c->summary.n > 0;
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:I, s:I}", "technology", c->subject->technology,
                          "accelerator", c->subject->accelerator, "version", c->subject->version, "metric",
                          c->metric->name, "variant", c->variant, "unit", c->metric->unit, "peer", c->subject->peer,
                          "n", (json_int_t)c->summary.n, "failed", (json_int_t)c->failed);

    if (!o)
        return NULL;
    json_object_set_new(o, "min", number(some, c->summary.min));
    json_object_set_new(o, "median", number(some, c->summary.median));
    json_object_set_new(o, "ci95_low", number(c->summary.has_interval, c->summary.ci_low));
    json_object_set_new(o, "ci95_high", number(c->summary.has_interval, c->summary.ci_high));
    json_object_set_new(o, "mean", number(some, c->summary.mean));
    json_object_set_new(o, "p99", number(some, c->summary.p99));
    json_object_set_new(o, "max", number(some, c->summary.max));
    json_object_set_new(o, "samples", samples_json(c));
    json_object_set_new(o, "reference", number(c->reference, c->reference ? c->reference->value : 0));
    json_object_set_new(o, "reference_section", c->reference ? json_string(c->reference->section) : json_null());
    json_object_set_new(o, "running", json_integer(c->scale));
    if (c->syn_interval_us > 0)
        json_object_set_new(o, "syn_interval_us", json_real(c->syn_interval_us));
    json_object_set_new(o, "not_measured",
                        some ? json_null() : json_string(*c->why_not ? c->why_not : "no run was made"));
    json_object_set_new(o, "failures", failures_json(c));
    json_object_set_new(o, "comparisons", comparisons_json(results, c));
    json_object_set_new(o, "method", json_string(c->metric->method));
    return o;
}

int report_json(FILE *out, const struct results *results, struct error **err)
{
    json_t *list = json_array(), *host = fingerprint_json(&results->host);
    auto_free char *text = NULL;

    for (size_t i = 0; i < results->cell_count; i++) {
        json_t *o = report_cell_json(results, &results->cells[i]);
        if (o)
            json_object_set(o, "host", host);
        json_array_append_new(list, o);
    }
    text = json_dumps(list, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    json_decref(list);
    json_decref(host);
    if (!text)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the JSON report");
    fprintf(out, "%s\n", text);
    return 0;
}
