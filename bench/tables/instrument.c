/* SPDX-License-Identifier: Apache-2.0 */
/* Not one of the draft's: how far the bench's own clock and probe can be trusted. */
#include <string.h>

#include "bench/tables/table.h"

static void build(const struct results *r, struct table *t)
{
    static const char *const headings[] = {"The instrument itself", "ms", "p99", "n"};
    static const struct {
        const char *output, *name;
    } lines[] = {
        {"onset", "bias: address there until RST stamped"},
        {"answering", "next reply of an end that answers"},
        {"interval", "between two SYNs to one port"},
        {"null", "smallest API call, flood at nobody"},
    };

    t->title = "The instrument's baseline";
    memcpy(t->headings, headings, sizeof(headings));
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        const struct cell *c = results_find(r, "instrument", "instrument", lines[i].output);
        int row = table_row(t, &r->instrument);

        snprintf(t->cell[row][0], TABLE_CELL_SIZE, "%s", lines[i].name);
        table_value(t, row, 1, c);
        if (c && c->summary.n)
            table_number(c->summary.p99, t->cell[row][2], TABLE_CELL_SIZE);
        table_runs(t, row, 3, c);
        if (c && strcmp(lines[i].output, "onset") == 0 && c->summary.n)
            table_remark(
                t,
                "Instantiation times are %.3f ms late in the median and never early; differences below %.3f ms "
                "(its p99) say nothing.",
                c->summary.median, c->summary.p99);
        if (c && strcmp(lines[i].output, "interval") == 0 && c->summary.n && c->summary.median > 0.05)
            table_remark(
                t,
                "The host could not keep the flood's pace: SYNs were %.0f us apart, not 50 us or less. Measure on "
                "a quieter host.",
                c->summary.median * 1000);
    }
}

static const char *const metrics[] = {"instrument", NULL};
const struct table_kind table_instrument = {"instrument", metrics, build};
