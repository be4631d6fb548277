/* SPDX-License-Identifier: Apache-2.0 */
/* Writers of results, one a format. None measures, none changes a figure. */
#ifndef CORACLE_BENCH_REPORT_REPORT_H
#define CORACLE_BENCH_REPORT_REPORT_H

#include <stdio.h>

#include "bench/result.h"

int report_terminal(FILE *out, const struct results *results, struct error **err);
int report_markdown(FILE *out, const struct results *results, struct error **err);
int report_json(FILE *out, const struct results *results, struct error **err);
int report_csv(FILE *out, const struct results *results, struct error **err);
int report_html(FILE *out, const struct results *results, struct error **err);

/* "AMD EPYC, 2 CPUs, Linux 6.1, Debian 12, load 0.1 before, 1.9 after". Returns buf. */
const char *report_host_line(const struct results *results, char *buf, size_t size);

/* Says of what the reader should be wary on this host, "" when of nothing. Returns buf. */
const char *report_noise_line(const struct results *results, char *buf, size_t size);

/* One object of the JSON format; the caller's. NULL when out of memory. */
json_t *report_cell_json(const struct results *results, const struct cell *cell);

/* Plots as inline SVG, for the HTML report: cells[] of one metric and output, those without samples left out. */
void svg_intervals(FILE *out, const char *id, const char *title, const struct cell *const *cells, size_t count);
void svg_scatter(FILE *out, const char *id, const char *title, const struct cell *const *cells, size_t count);
void svg_distribution(FILE *out, const char *id, const char *title, const struct cell *const *cells, size_t count);

/* Writes text with the five characters of XML escaped. */
void html_text(FILE *out, const char *text);

#endif
