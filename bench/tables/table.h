/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table as text, made from results by one file of this folder each, printed by bench/report in every format. Tables
 * format only: whatever they show was measured and summarised before.
 */
#ifndef CORACLE_BENCH_TABLES_TABLE_H
#define CORACLE_BENCH_TABLES_TABLE_H

#include "bench/result.h"

enum {
    TABLE_COLUMN_MAX = 9,
    TABLE_ROW_MAX = 128,
    TABLE_REMARK_MAX = 64,
    TABLE_CELL_SIZE = 96,
    TABLE_REMARK_SIZE = 700
};

struct table {
    const char *section; /* of the draft, "4.2"; NULL: not one of the draft's */
    const char *title;
    const char *anchor;                     /* short name, for links */
    const char *headings[TABLE_COLUMN_MAX]; /* the first column is the row's name */
    size_t columns, rows, remarks;
    char cell[TABLE_ROW_MAX][TABLE_COLUMN_MAX][TABLE_CELL_SIZE];
    char remark[TABLE_REMARK_MAX][TABLE_REMARK_SIZE]; /* remark[i] is footnote i + 1 */
};

struct table_kind {
    const char *anchor;
    const char *const *metrics; /* NULL-terminated: those it shows; not printed when none was asked for */
    void (*build)(const struct results *results, struct table *table);
};

/* The five of the draft in its order, then the bench's own; NULL-terminated. */
const struct table_kind *const *table_kinds(void);

/* Made on the heap, since large; NULL when out of memory or when nothing of it was asked for. free() it. */
struct table *table_build(const struct table_kind *kind, const struct results *results);

/* The next row, its name filled in (with the accelerator beside it under tcg); -1 when the table is full. */
int table_row(struct table *table, const struct subject *subject);

/* Puts a remark in, once; returns its footnote number, 0 when there is no room. */
int table_remark(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "3.41 [3.20, 3.77]", or "not measured" with a footnote saying why. c may be NULL: "not measured". */
void table_value(struct table *table, int row, int column, const struct cell *c);

/* "30, 1 failed", with the first failure as a footnote. */
void table_runs(struct table *table, int row, int column, const struct cell *c);

/* The draft's number, or "-". */
void table_reference(struct table *table, int row, int column, const char *metric, const struct subject *subject);

/* Footnotes: what the metric's cells say against each other (peers, pool against cold, many against none). */
void table_comparisons(struct table *table, const struct results *results, const char *metric, const char *output);

/* Four significant digits at most, as few as needed. Returns buf. */
const char *table_number(double value, char *buf, size_t size);

extern const struct table_kind table_instantiation, table_throughput, table_rtt, table_image_size, table_memory,
    table_create_rate, table_connections, table_instrument;

#endif
