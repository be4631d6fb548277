/* SPDX-License-Identifier: Apache-2.0 */
/* The table of section 4.3. */
#include <string.h>

#include "bench/tables/table.h"

static void build(const struct results *r, struct table *t)
{
    static const char *const headings[] = {"Technology", "Tx (Gb/s)", "Rx (Gb/s)", "n", "Draft Tx", "Draft Rx"};

    t->section = "4.3";
    t->title = "Throughput";
    memcpy(t->headings, headings, sizeof(headings));
    for (size_t i = 0; i < r->subject_count; i++) {
        const struct subject *s = &r->subjects[i];
        const struct cell *tx = results_find(r, "throughput_tx", s->label, "tcp");
        const struct cell *rx = results_find(r, "throughput_rx", s->label, "tcp");
        int row = table_row(t, s);

        table_value(t, row, 1, tx);
        table_value(t, row, 2, rx);
        table_runs(t, row, 3, tx && (!rx || tx->failed >= rx->failed) ? tx : rx);
        table_reference(t, row, 4, "throughput_tx", s);
        table_reference(t, row, 5, "throughput_rx", s);
    }
    table_comparisons(t, r, "throughput_tx", "tcp");
    table_comparisons(t, r, "throughput_rx", "tcp");
}

static const char *const metrics[] = {"throughput_tx", "throughput_rx", NULL};
const struct table_kind table_throughput = {"throughput", metrics, build};
