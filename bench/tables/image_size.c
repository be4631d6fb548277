/* SPDX-License-Identifier: Apache-2.0 */
/* The table of section 4.5. */
#include <string.h>

#include "bench/tables/table.h"

static void build(const struct results *r, struct table *t)
{
    static const char *const headings[] = {"Technology", "Size (MB)", "n", "Draft (MB)"};

    t->section = "4.5";
    t->title = "Image size";
    memcpy(t->headings, headings, sizeof(headings));
    for (size_t i = 0; i < r->subject_count; i++) {
        const struct subject *s = &r->subjects[i];
        const struct cell *c = results_find(r, "image_size", s->label, "shipped");
        int row = table_row(t, s);

        /* A count has no interval, however often it is made. */
        if (row >= 0 && c && c->summary.n && c->summary.min >= c->summary.max)
            table_number(c->summary.median, t->cell[row][1], TABLE_CELL_SIZE);
        else
            table_value(t, row, 1, c);
        table_runs(t, row, 2, c);
        table_reference(t, row, 3, "image_size", s);
    }
}

static const char *const metrics[] = {"image_size", NULL};
const struct table_kind table_image_size = {"image_size", metrics, build};
