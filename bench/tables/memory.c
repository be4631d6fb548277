/* SPDX-License-Identifier: Apache-2.0 */
/* The table of section 4.6. */
#include <string.h>

#include "bench/tables/table.h"

static void build(const struct results *r, struct table *t)
{
    static const char *const headings[] = {"Technology",    "In all (MB)", "of it cgroup",
                                           "of it monitor", "n",           "Draft (MB)"};

    t->section = "4.6";
    t->title = "Memory usage, one more instance";
    memcpy(t->headings, headings, sizeof(headings));
    for (size_t i = 0; i < r->subject_count; i++) {
        const struct subject *s = &r->subjects[i];
        const struct cell *host = results_find(r, "memory", s->label, "host");
        int row = table_row(t, s);

        table_value(t, row, 1, host);
        table_value(t, row, 2, results_find(r, "memory", s->label, "cgroup"));
        table_value(t, row, 3, results_find(r, "memory", s->label, "monitor"));
        table_runs(t, row, 4, host);
        table_reference(t, row, 5, "memory", s);
        if (host && host->summary.has_interval && host->summary.ci_low <= 0)
            table_remark(
                t,
                "%s, in all: the interval holds 0, so other programs of this host allocated and freed more than the "
                "instances; measure on a quieter one.",
                s->label);
    }
    table_comparisons(t, r, "memory", "host");
}

static const char *const metrics[] = {"memory", NULL};
const struct table_kind table_memory = {"memory", metrics, build};
