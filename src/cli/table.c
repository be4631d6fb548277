/* SPDX-License-Identifier: Apache-2.0 */
/* A thin layer over libsmartcols, so that one place decides on width, truncation and colour. */
#include <libsmartcols.h>
#include <stdio.h>
#include <string.h>

#include "cli/table.h"
#include "cli/term.h"
#include "cli/text.h"

struct table {
    const struct cli *cli;
    struct libscols_table *lib;
    const struct column *columns;
    size_t count;
};

struct table *table_new(const struct cli *cli, const struct column *columns, size_t count, bool truncate)
{
    struct table *table = text_alloc(1, sizeof(*table));

    *table = (struct table){cli, scols_new_table(), columns, count};
    if (!table->lib) {
        fputs("coracle: out of memory\n", stderr);
        exit(1);
    }
    scols_table_set_column_separator(table->lib, "  ");
    scols_table_enable_colors(table->lib, term_colored(cli, false));
    if (!cli->out_tty)
        scols_table_set_termforce(table->lib, SCOLS_TERMFORCE_NEVER);
    for (size_t i = 0; i < count; i++) {
        int flags = (columns[i].flags & COLUMN_RIGHT ? SCOLS_FL_RIGHT : 0) |
                    (columns[i].flags & COLUMN_TRUNCATE && truncate && cli->out_tty ? SCOLS_FL_TRUNC : 0);

        scols_table_new_column(table->lib, columns[i].title, columns[i].flags & COLUMN_TRUNCATE ? 0.1 : 0, flags);
    }
    return table;
}

void table_row(struct table *table, char **cells)
{
    struct libscols_line *line = scols_table_new_line(table->lib, NULL);

    for (size_t i = 0; line && i < table->count; i++) {
        const char *color = table->columns[i].flags & COLUMN_STATE && cells[i] ? term_state_color(cells[i]) : NULL;

        if (color)
            scols_cell_set_color(scols_line_get_cell(line, i), color);
        scols_line_refer_data(line, i, cells[i]);
    }
}

static void table_free(struct table *table)
{
    scols_unref_table(table->lib);
    free(table);
}

void table_print(struct table *table)
{
    if (scols_table_is_empty(table->lib)) {
        /* libsmartcols prints nothing at all then; the heading says that the list is empty, not the answer lost. */
        for (size_t i = 0; i < table->count; i++)
            printf("%s%s", i ? "  " : "", table->columns[i].title);
        putchar('\n');
    } else {
        scols_print_table(table->lib);
    }
    table_free(table);
}

char *table_text(struct table *table)
{
    char *text = NULL;

    if (scols_print_table_to_string(table->lib, &text) < 0 || !text)
        text = text_dup("");
    table_free(table);
    return text;
}
