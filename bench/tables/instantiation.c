/* SPDX-License-Identifier: Apache-2.0 */
/* The table of section 4.2, with the second column (SYN-ACK) and the warm pool and snapshots as rows of their own. */
#include <string.h>

#include "bench/tables/table.h"

enum { SYN_INTERVAL_STATED_US = 60, EMULATED_STATED_US = 600 }; /* the pace and what a timer may be late */

static void add_row(const struct results *r, struct table *t, const struct cell *rst)
{
    char variant[VARIANT_SIZE], start[VARIANT_SIZE], *slash;
    const struct cell *ack;
    int row = table_row(t, rst->subject);
    bool has_mode;

    if (row < 0)
        return;
    snprintf(start, sizeof(start), "%s", rst->variant);
    slash = strchr(start, '/');
    if (slash)
        *slash = '\0';
    if (rst->scale)
        snprintf(variant, sizeof(variant), "%.16s/syn_ack@%u", start, rst->scale);
    else
        snprintf(variant, sizeof(variant), "%.16s/syn_ack", start);
    ack = results_find(r, "instantiation", rst->subject->label, variant);
    has_mode = rst->subject->available;
    if (rst->scale)
        snprintf(t->cell[row][1], TABLE_CELL_SIZE, "%.16s, %u running", start, rst->scale);
    else
        snprintf(t->cell[row][1], TABLE_CELL_SIZE, "%s", has_mode ? start : "-");
    table_value(t, row, 2, rst);
    table_value(t, row, 3, ack);
    if (rst->summary.n)
        table_number(rst->summary.p99, t->cell[row][4], TABLE_CELL_SIZE);
    if (ack && ack->summary.n)
        table_number(ack->summary.p99, t->cell[row][5], TABLE_CELL_SIZE);
    if (rst->syn_interval_us > (rst->subject->target.emulated ? EMULATED_STATED_US : SYN_INTERVAL_STATED_US))
        table_remark(
            t, "%s, %s: in some runs SYNs were %.0f us apart, not %d us or less; figures are up to that much late.",
            rst->subject->label, rst->variant, rst->syn_interval_us, rst->subject->target.emulated ? 500 : 50);
    table_runs(t, row, 6, ack && ack->failed > rst->failed ? ack : rst);
    if (rst->scale == 0)
        table_reference(t, row, 7, "instantiation", rst->subject);
}

/* A row that is left out is a question; a way of starting that a technology does not have is no failure. */
static void note_not_offered(const struct results *r, struct table *t)
{
    char names[REASON_SIZE] = "";
    size_t used = 0;

    for (size_t i = 0; i < r->subject_count && used < sizeof(names); i++) {
        const struct subject *s = &r->subjects[i];
        if (s->available && !s->peer && !s->has_snapshots)
            used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s", used ? ", " : "", s->technology);
    }
    if (used)
        table_remark(t, "A start from a snapshot is not offered by: %s (GET /v1/host, start_modes).", names);
}

static void build(const struct results *r, struct table *t)
{
    static const char *const headings[] = {"Technology", "Start",       "RST (ms)", "SYN-ACK (ms)",
                                           "p99 RST",    "p99 SYN-ACK", "n",        "Draft (ms)"};

    t->section = "4.2";
    t->title = "Instantiation times";
    memcpy(t->headings, headings, sizeof(headings));
    for (size_t i = 0; i < r->subject_count; i++) {
        for (size_t j = 0; j < r->cell_count; j++) {
            const struct cell *c = &r->cells[j];
            bool prepared = strncmp(c->variant, "cold", 4) != 0;
            bool snapshot = strncmp(c->variant, "snapshot", 8) == 0;

            if (c->subject != &r->subjects[i] || c->metric != &metric_instantiation || !strstr(c->variant, "/rst"))
                continue;
            if (!prepared || (c->subject->available && !c->subject->peer && (!snapshot || c->subject->has_snapshots)))
                add_row(r, t, c);
        }
    }
    note_not_offered(r, t);
    table_comparisons(t, r, "instantiation", "/rst");
    table_comparisons(t, r, "instantiation", "/syn_ack");
}

static const char *const metrics[] = {"instantiation", NULL};
const struct table_kind table_instantiation = {"instantiation", metrics, build};
