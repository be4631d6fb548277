/* SPDX-License-Identifier: Apache-2.0 */
/* The table of section 4.4. */
#include <string.h>

#include "bench/tables/table.h"

static void build(const struct results *r, struct table *t)
{
    static const char *const headings[] = {"Technology", "Average (ms)", "p50 (ms)", "p99 (ms)", "n", "Draft (ms)"};

    t->section = "4.4";
    t->title = "RTT";
    memcpy(t->headings, headings, sizeof(headings));
    for (size_t i = 0; i < r->subject_count; i++) {
        const struct subject *s = &r->subjects[i];
        const struct cell *average = results_find(r, "rtt", s->label, "average");
        int row = table_row(t, s);

        table_value(t, row, 1, average);
        table_value(t, row, 2, results_find(r, "rtt", s->label, "p50"));
        table_value(t, row, 3, results_find(r, "rtt", s->label, "p99"));
        table_runs(t, row, 4, average);
        table_reference(t, row, 5, "rtt", s);
    }
    table_comparisons(t, r, "rtt", "average");
}

static const char *const metrics[] = {"rtt", NULL};
const struct table_kind table_rtt = {"rtt", metrics, build};
