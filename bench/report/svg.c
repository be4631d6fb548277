/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plots of the HTML report as inline SVG: no script, no font, no file beside it. Series differ by colour and by marker,
 * and every plot's numbers are also in the table above it.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/report/report.h"
#include "bench/tables/table.h"

enum {
    WIDTH = 640,
    LEFT = 190,
    RIGHT = 24,
    ROW = 24,
    PLOT_HEIGHT = 240,
    TOP = 12,
    BOTTOM = 40,
    SCATTER_LEFT = 56,
    COLOURS = 8
};

struct axis {
    double low, high;
    double from, to; /* pixels */
    bool log;
};

void html_text(FILE *out, const char *text)
{
    for (; *text; text++) {
        const char *escape = *text == '&'    ? "&amp;"
                             : *text == '<'  ? "&lt;"
                             : *text == '>'  ? "&gt;"
                             : *text == '"'  ? "&quot;"
                             : *text == '\'' ? "&#39;"
                                             : NULL;
        if (escape)
            fputs(escape, out);
        else
            fputc(*text, out);
    }
}

static double place(const struct axis *a, double v)
{
    double share = a->log ? (log(v) - log(a->low)) / (log(a->high) - log(a->low)) : (v - a->low) / (a->high - a->low);

    return a->from + share * (a->to - a->from);
}

static void widen(struct axis *a, double low, double high)
{
    a->low = fmin(a->low, low);
    a->high = fmax(a->high, high);
}

/* A range that holds all samples (and the draft's values when with_reference); logarithmic when it spans a decade. */
static struct axis make_axis(const struct cell *const *cells, size_t count, bool with_reference)
{
    struct axis a = {.low = DBL_MAX, .high = -DBL_MAX};
    size_t references;
    const struct reference *r = reference_list(&references);

    for (size_t i = 0; i < count; i++)
        if (cells[i]->summary.n)
            widen(&a, cells[i]->summary.min, cells[i]->summary.max);
    for (size_t i = 0; with_reference && i < references; i++)
        if (strcmp(r[i].metric, cells[0]->metric->name) == 0)
            widen(&a, r[i].value, r[i].value);
    if (a.low > a.high)
        a = (struct axis){.low = 0, .high = 1};
    a.log = a.low > 0 && a.high / a.low > 10;
    if (a.log) {
        a.low /= 1.3;
        a.high *= 1.3;
    } else {
        a.low = a.low > 0 ? 0 : a.low * 1.1;
        a.high = a.high > 0 ? a.high * 1.08 : 1;
    }
    return a;
}

static double nice_step(double span)
{
    double raw = span / 5, unit = pow(10, floor(log10(raw)));

    return raw / unit < 1.5 ? unit : raw / unit < 3.5 ? 2 * unit : raw / unit < 7.5 ? 5 * unit : 10 * unit;
}

/* Ticks at 1, 2, 5 of each decade (1 only over more than three) or at round steps. */
static size_t make_ticks(const struct axis *a, double *ticks, size_t max)
{
    static const double within[] = {1, 2, 5};
    size_t n = 0, each = log10(a->high / fmax(a->low, 1e-9)) > 3 ? 1 : 3;

    if (!a->log) {
        double step = nice_step(a->high - a->low);
        for (double v = ceil(a->low / step) * step; v <= a->high && n < max; v += step)
            ticks[n++] = v;
        return n;
    }
    for (double decade = pow(10, floor(log10(a->low))); decade <= a->high; decade *= 10)
        for (size_t i = 0; i < each; i++)
            if (decade * within[i] >= a->low && decade * within[i] <= a->high && n < max)
                ticks[n++] = decade * within[i];
    return n;
}

static void open_svg(FILE *out, const char *id, const char *title, const char *what, double height)
{
    fprintf(out, "<svg viewBox=\"0 0 %d %.0f\" role=\"img\" aria-labelledby=\"%s-t %s-d\"><title id=\"%s-t\">", WIDTH,
            height, id, id, id);
    html_text(out, title);
    fprintf(out, "</title><desc id=\"%s-d\">%s The same numbers are in the table.</desc>\n", id, what);
}

static void marker(FILE *out, size_t series, double x, double y, double size)
{
    unsigned colour = (unsigned)(series % COLOURS);

    switch (series % 4) {
    case 0:
        fprintf(out, "<circle class=\"s%u\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"/>", colour, x, y, size);
        break;
    case 1:
        fprintf(out, "<rect class=\"s%u\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>", colour, x - size,
                y - size, 2 * size, 2 * size);
        break;
    case 2:
        fprintf(out, "<path class=\"s%u\" d=\"M%.1f %.1fl%.1f %.1fh%.1fz\"/>", colour, x, y - size, size, 2 * size,
                -2 * size);
        break;
    default:
        fprintf(out, "<path class=\"s%u\" d=\"M%.1f %.1fl%.1f %.1fl%.1f %.1fl%.1f %.1fz\"/>", colour, x, y - size, size,
                size, -size, size, -size, -size);
    }
}

static void series_name(const struct cell *c, char *buf, size_t size)
{
    snprintf(buf, size, "%s %s%s", c->subject->label, c->variant,
             strcmp(c->subject->accelerator, "tcg") == 0 ? " (tcg)" : "");
}

static void x_axis(FILE *out, const struct axis *a, double top, double bottom, const char *unit)
{
    double ticks[40];
    size_t n = make_ticks(a, ticks, 40);
    char text[24];

    for (size_t i = 0; i < n; i++) {
        double x = place(a, ticks[i]);
        snprintf(text, sizeof(text), "%g", ticks[i]);
        fprintf(out,
                "<path class=\"grid\" d=\"M%.1f %.1fV%.1f\"/><text class=\"tick\" x=\"%.1f\" y=\"%.1f\" "
                "text-anchor=\"middle\">%s</text>\n",
                x, top, bottom, x, bottom + 14, text);
    }
    fprintf(out, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s%s</text>\n", a->to, bottom + 30,
            unit, a->log ? ", logarithmic" : "");
}

static void interval_row(FILE *out, const struct cell *c, size_t series, const struct axis *a, double y)
{
    char name[120], value[24];

    series_name(c, name, sizeof(name));
    fprintf(out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">", LEFT - 10, y + 4);
    html_text(out, name);
    fputs("</text>", out);
    for (size_t i = 0; i < c->summary.n; i++)
        fprintf(out, "<path class=\"rug s%u\" d=\"M%.1f %.1fv8\"/>", (unsigned)(series % COLOURS),
                place(a, c->values[i]), y - 4);
    if (c->summary.has_interval)
        fprintf(out, "<path class=\"bar s%u\" d=\"M%.1f %.1fH%.1f\"/>", (unsigned)(series % COLOURS),
                place(a, c->summary.ci_low), y, place(a, c->summary.ci_high));
    if (c->summary.n) {
        double x = place(a, c->summary.median);
        marker(out, series, x, y, 5);
        fprintf(out, "<text class=\"value\" x=\"%.1f\" y=\"%.1f\">%s</text>", x + 9, y - 5,
                table_number(c->summary.median, value, sizeof(value)));
    }
    fputc('\n', out);
}

static void draft_row(FILE *out, const struct reference *r, const struct axis *a, double y)
{
    double x = place(a, r->value);

    fprintf(out,
            "<text class=\"draft\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">draft: %s</text><path class=\"diamond\" "
            "d=\"M%.1f %.1fl6 6l-6 6l-6 -6z\"/><text class=\"value draft\" x=\"%.1f\" y=\"%.1f\">%g</text>\n",
            LEFT - 10, y + 4, r->technology, x, y - 6, x + 10, y - 4, r->value);
}

void svg_intervals(FILE *out, const char *id, const char *title, const struct cell *const *cells, size_t count)
{
    struct axis a = make_axis(cells, count, true);
    size_t rows = 0, series = 0, references;
    const struct reference *r = reference_list(&references);
    double y = TOP + 18;

    for (size_t i = 0; i < count; i++)
        rows += cells[i]->summary.n > 0;
    for (size_t i = 0; i < references; i++)
        rows += strcmp(r[i].metric, cells[0]->metric->name) == 0;
    a.from = LEFT;
    a.to = WIDTH - RIGHT - 40;
    open_svg(
        out, id, title,
        "A row a technology: each run as a thin line, the median as a marker, its 95% interval as a bar; the draft's "
        "published numbers as hollow diamonds.",
        TOP + (double)rows * ROW + BOTTOM);
    x_axis(out, &a, TOP, TOP + (double)rows * ROW, cells[0]->metric->unit);
    for (size_t i = 0; i < count; i++) {
        if (!cells[i]->summary.n)
            continue;
        interval_row(out, cells[i], series++, &a, y);
        y += ROW;
    }
    for (size_t i = 0; i < references; i++) {
        if (strcmp(r[i].metric, cells[0]->metric->name) != 0)
            continue;
        draft_row(out, &r[i], &a, y);
        y += ROW;
    }
    fputs("</svg>\n", out);
}

static void legend(FILE *out, const struct cell *const *cells, size_t count)
{
    size_t series = 0;

    fputs("<p class=\"legend\">", out);
    for (size_t i = 0; i < count; i++) {
        char name[120];
        if (!cells[i]->summary.n)
            continue;
        series_name(cells[i], name, sizeof(name));
        fputs("<span><svg viewBox=\"0 0 12 12\" aria-hidden=\"true\">", out);
        marker(out, series++, 6, 6, 4);
        fputs("</svg> ", out);
        html_text(out, name);
        fputs("</span> ", out);
    }
    fputs("</p>\n", out);
}

static void y_axis(FILE *out, const struct axis *a, double left, double right, const char *unit)
{
    double ticks[40];
    size_t n = make_ticks(a, ticks, 40);

    for (size_t i = 0; i < n; i++) {
        double y = place(a, ticks[i]);
        fprintf(out,
                "<path class=\"grid\" d=\"M%.1f %.1fH%.1f\"/><text class=\"tick\" x=\"%.1f\" y=\"%.1f\" "
                "text-anchor=\"end\">%g</text>\n",
                left, y, right, left - 6, y + 4, ticks[i]);
    }
    fprintf(out, "<text class=\"tick\" x=\"4\" y=\"%d\">%s</text>\n", TOP - 2, unit);
}

void svg_scatter(FILE *out, const char *id, const char *title, const struct cell *const *cells, size_t count)
{
    struct axis y = make_axis(cells, count, false);
    size_t series = 0;
    unsigned last = 1;

    y.from = TOP + PLOT_HEIGHT;
    y.to = TOP + 6;
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < cells[i]->count; j++)
            last = cells[i]->samples[j].run > last ? cells[i]->samples[j].run : last;
    struct axis x = {.low = -0.5, .high = last + 0.5, .from = SCATTER_LEFT, .to = WIDTH - RIGHT};
    open_svg(out, id, title, "Every run in the order in which it was made; a failed run is a cross at the top.",
             TOP + PLOT_HEIGHT + 24);
    y_axis(out, &y, SCATTER_LEFT, WIDTH - RIGHT, cells[0]->metric->unit);
    fprintf(out, "<text class=\"tick\" x=\"%d\" y=\"%d\" text-anchor=\"end\">run 0 to %u, in order</text>\n",
            WIDTH - RIGHT, TOP + PLOT_HEIGHT + 18, last);
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < cells[i]->count; j++) {
            const struct sample *s = &cells[i]->samples[j];
            double px = place(&x, s->run);
            if (s->ok)
                marker(out, series, px, place(&y, s->value), 3);
            else
                fprintf(out, "<path class=\"cross\" d=\"M%.1f %dl8 8m0 -8l-8 8\"/>", px - 4, TOP);
        }
        series += cells[i]->summary.n > 0;
        fputc('\n', out);
    }
    fputs("</svg>\n", out);
    legend(out, cells, count);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void steps(FILE *out, const struct cell *c, size_t series, const struct axis *x, const struct axis *y)
{
    double sorted[4096];
    size_t n = c->summary.n > 4096 ? 4096 : c->summary.n;

    memcpy(sorted, c->values, n * sizeof(double));
    qsort(sorted, n, sizeof(double), ascending);
    fprintf(out, "<path class=\"line s%u\" d=\"M%.1f %.1f", (unsigned)(series % COLOURS), place(x, sorted[0]),
            place(y, 0));
    for (size_t i = 0; i < n; i++)
        fprintf(out, "H%.1fV%.1f", place(x, sorted[i]), place(y, (double)(i + 1) / (double)n));
    fputs("\"/>\n", out);
    marker(out, series, place(x, sorted[n / 2]), place(y, (double)(n / 2 + 1) / (double)n), 4);
}

void svg_distribution(FILE *out, const char *id, const char *title, const struct cell *const *cells, size_t count)
{
    struct axis x = make_axis(cells, count, false);
    struct axis y = {.low = 0, .high = 1, .from = TOP + PLOT_HEIGHT, .to = TOP + 6};
    size_t series = 0;

    x.from = SCATTER_LEFT;
    x.to = WIDTH - RIGHT;
    open_svg(out, id, title, "Share of the runs at or below each value.", TOP + PLOT_HEIGHT + BOTTOM);
    y_axis(out, &y, SCATTER_LEFT, WIDTH - RIGHT, "share of runs");
    x_axis(out, &x, TOP, TOP + PLOT_HEIGHT, cells[0]->metric->unit);
    for (size_t i = 0; i < count; i++)
        if (cells[i]->summary.n)
            steps(out, cells[i], series++, &x, &y);
    fputs("</svg>\n", out);
    legend(out, cells, count);
}
