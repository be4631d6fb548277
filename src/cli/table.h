/* SPDX-License-Identifier: Apache-2.0 */
/* Tables by libsmartcols: width of the terminal, colours and truncation only there. Used by every listing command. */
#ifndef CORACLE_CLI_TABLE_H
#define CORACLE_CLI_TABLE_H

#include "cli/cli.h"

enum column_flags { COLUMN_RIGHT = 1, COLUMN_TRUNCATE = 2, COLUMN_STATE = 4 /* coloured by its word */ };

struct column {
    const char *title;
    int flags;
};

struct table;

/* Ends the program when memory is short. truncate: columns marked so may be cut to the terminal's width. */
struct table *table_new(const struct cli *cli, const struct column *columns, size_t count, bool truncate);

/* cells: count strings that the table takes over; NULL shows an empty cell. The array itself stays the caller's. */
void table_row(struct table *table, char **cells);

/* Prints to stdout and frees. */
void table_print(struct table *table);

/* As table_print(), into a string the caller frees. */
char *table_text(struct table *table);

#endif
