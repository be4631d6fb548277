/* SPDX-License-Identifier: Apache-2.0 */
/* Not one of the draft's: how many instances a second. Technologies that the host lacks are left out. */
#include <string.h>

#include "bench/tables/table.h"

static void build(const struct results *r, struct table *t)
{
    static const char *const headings[] = {"Technology", "Created and removed (1/s)", "n"};

    t->title = "Create rate";
    memcpy(t->headings, headings, sizeof(headings));
    for (size_t i = 0; i < r->subject_count; i++) {
        const struct subject *s = &r->subjects[i];
        const struct cell *c = results_find(r, "create_rate", s->label, "pipelined");
        int row = s->available ? table_row(t, s) : -1;

        table_value(t, row, 1, c);
        table_runs(t, row, 2, c);
    }
    table_comparisons(t, r, "create_rate", "pipelined");
}

static const char *const metrics[] = {"create_rate", NULL};
const struct table_kind table_create_rate = {"create_rate", metrics, build};
