/* SPDX-License-Identifier: Apache-2.0 */
/* Not of the draft's: how many instances, how many connections a second. Technologies that the host lacks are left out.
 */
#include <string.h>

#include "bench/tables/table.h"

static void build(const struct results *r, struct table *t, const char *metric, const char *variant, const char *title,
                  const char *heading)
{
    const char *headings[] = {"Technology", heading, "n"};

    t->title = title;
    memcpy(t->headings, headings, sizeof(headings));
    for (size_t i = 0; i < r->subject_count; i++) {
        const struct subject *s = &r->subjects[i];
        const struct cell *c = results_find(r, metric, s->label, variant);
        int row = s->available ? table_row(t, s) : -1;

        table_value(t, row, 1, c);
        table_runs(t, row, 2, c);
    }
    table_comparisons(t, r, metric, variant);
}

static void build_create_rate(const struct results *r, struct table *t)
{
    build(r, t, "create_rate", "pipelined", "Create rate", "Created and removed (1/s)");
}

static void build_connections(const struct results *r, struct table *t)
{
    build(r, t, "connections", "accepted", "New connections", "Accepted (1/s)");
}

static const char *const create_rate[] = {"create_rate", NULL};
const struct table_kind table_create_rate = {"create_rate", create_rate, build_create_rate};
static const char *const connections[] = {"connections", NULL};
const struct table_kind table_connections = {"connections", connections, build_connections};
