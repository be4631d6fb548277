/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The report one shows to a colleague: one file, nothing from the network, readable in the dark, without colours and
 * with a screen reader. Raw samples are inside, as JSON.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "bench/report/report.h"
#include "bench/tables/table.h"

static const char style[] =
    ":root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--soft:#59636e;--line:#d7dce1;--panel:#f5f7f9;--link:#0b5cad;"
    "--c0:#0b6bcb;--c1:#c2410c;--c2:#15803d;--c3:#9333ea;--c4:#b91c1c;--c5:#0e7490;--c6:#a16207;--c7:#be185d}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#12161b;--fg:#e6eaee;--soft:#9aa6b2;--line:#2f3740;--panel:#1a2027;"
    "--link:#7cb8f5;--c0:#6fb1fa;--c1:#fb923c;--c2:#4ade80;--c3:#c792fa;--c4:#f87171;--c5:#4dd0e1;--c6:#facc15;"
    "--c7:#f472b6}}\n"
    "body{background:var(--bg);color:var(--fg);font:16px/1.55 system-ui,sans-serif;margin:0 auto;padding:1.5rem;"
    "max-width:60rem}\nh1{font-size:1.7rem;margin:0 0 .3rem}h2{font-size:1.25rem;margin:2.6rem 0 .6rem}"
    "h3{font-size:1rem;margin:1.4rem 0 .2rem}a{color:var(--link)}p{max-width:46rem}\n"
    ".lead{color:var(--soft)}.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;"
    "font-size:.92rem}th,td{padding:.35rem .7rem;text-align:right;border-bottom:1px solid "
    "var(--line);white-space:nowrap}"
    "th:first-child{text-align:left}thead th{color:var(--soft);font-weight:600}tbody th{font-weight:600}"
    "td.none{color:var(--soft)}\n"
    ".cards{display:flex;flex-wrap:wrap;gap:.8rem;margin:1.2rem 0;padding:0;list-style:none}.cards "
    "li{background:var(--panel);"
    "border:1px solid var(--line);border-radius:.6rem;padding:.7rem 1rem;min-width:9.5rem}.cards b{display:block;"
    "font-size:1.35rem}.cards span{color:var(--soft);font-size:.85rem}\n"
    "figure{margin:.6rem 0 "
    "1.4rem}figcaption{color:var(--soft);font-size:.85rem}svg{width:100%;height:auto;display:block}"
    "svg text{fill:var(--fg);font:12px system-ui,sans-serif}svg .tick,svg .draft{fill:var(--soft)}svg "
    ".value{font-weight:600}"
    ".grid{stroke:var(--line);fill:none}.diamond{fill:none;stroke:var(--soft);stroke-width:1.6}.cross{stroke:var(--c4);"
    "stroke-width:2;fill:none}.rug{stroke-width:1;opacity:.45;fill:none}.bar{stroke-width:5;opacity:.45;fill:none}"
    ".line{fill:none!important;stroke-width:2}\n"
    ".legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.85rem}.legend svg{display:inline;width:.8rem;"
    "height:.8rem}ol.notes,details{font-size:.88rem;color:var(--soft);max-width:52rem}dl{display:grid;"
    "grid-template-columns:max-content 1fr;gap:.2rem 1rem;font-size:.88rem}dt{color:var(--soft)}dd{margin:0}\n"
    ".pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(22rem,1fr));gap:0 1.5rem}\n"
    ".skip{position:absolute;left:-99rem}.skip:focus{left:1rem}\n";

static void put_style(FILE *out)
{
    fprintf(out, "<style>%s", style);
    for (int i = 0; i < 8; i++)
        fprintf(out, ".s%d{fill:var(--c%d);stroke:var(--c%d)}", i, i, i);
    fputs("</style>\n", out);
}

static void put_cell(FILE *out, const char *text, const char *anchor)
{
    const char *note = strstr(text, " [");
    char *end;
    long n = note ? strtol(note + 2, &end, 10) : 0;

    /* A footnote is " [3]"; an interval has a comma. */
    if (note && n > 0 && strcmp(end, "]") == 0) {
        fprintf(out, "%.*s <a href=\"#%s-%ld\" aria-label=\"note %ld\">[%ld]</a>", (int)(note - text), text, anchor, n,
                n, n);
        return;
    }
    html_text(out, *text ? text : "-");
}

static void put_table(FILE *out, const struct table *t)
{
    fputs("<div class=\"scroll\"><table><thead><tr>", out);
    for (size_t i = 0; i < t->columns; i++) {
        fputs("<th scope=\"col\">", out);
        html_text(out, t->headings[i]);
        fputs("</th>", out);
    }
    fputs("</tr></thead><tbody>\n", out);
    for (size_t row = 0; row < t->rows; row++) {
        for (size_t i = 0; i < t->columns; i++) {
            const char *text = t->cell[row][i];
            bool none = !*text || *text == '-' || strncmp(text, "not measured", 12) == 0;
            fputs(i == 0 ? "<tr><th scope=\"row\">" : none ? "<td class=\"none\">" : "<td>", out);
            put_cell(out, text, t->anchor);
            fputs(i == 0 ? "</th>" : "</td>", out);
        }
        fputs("</tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
    if (t->remarks)
        fputs("<ol class=\"notes\">", out);
    for (size_t i = 0; i < t->remarks; i++) {
        fprintf(out, "<li id=\"%s-%zu\">", t->anchor, i + 1);
        html_text(out, t->remark[i]);
        fputs("</li>\n", out);
    }
    if (t->remarks)
        fputs("</ol>\n", out);
}

/* Cells of one metric whose variant is of the named output, those that were measured. */
static size_t pick(const struct results *r, const struct metric *metric, const char *output, const struct cell **cells)
{
    size_t n = 0;

    for (size_t i = 0; i < r->cell_count; i++) {
        const struct cell *c = &r->cells[i];
        const char *slash = strchr(c->variant, '/'), *name = slash ? slash + 1 : c->variant;
        if (c->metric == metric && c->summary.n && strncmp(name, output, strlen(output)) == 0 &&
            (name[strlen(output)] == '\0' || name[strlen(output)] == '@'))
            cells[n++] = c;
    }
    return n;
}

static void put_figure(FILE *out, const char *caption, const struct metric *metric)
{
    fputs("<figcaption>", out);
    html_text(out, caption);
    fprintf(out, " <a href=\"#method-%s\">How it was measured</a></figcaption></figure>\n", metric->name);
}

static void put_plots(FILE *out, const struct results *r, const struct metric *metric, const char *output)
{
    const struct cell *cells[CELL_MAX];
    size_t n = pick(r, metric, output, cells);
    char id[64], title[160];
    bool constant = true;

    for (size_t i = 0; i < n; i++)
        constant = constant && cells[i]->summary.min >= cells[i]->summary.max;
    if (n == 0)
        return;
    snprintf(title, sizeof(title), "%s, %s (%s)", metric->title, output, metric->unit);
    fprintf(out, "<h3>");
    html_text(out, title);
    fputs("</h3><figure>", out);
    snprintf(id, sizeof(id), "%s-%s-i", metric->name, output);
    svg_intervals(out, id, title, cells, n);
    put_figure(out,
               "Each run (thin lines), median and its 95% interval; hollow: the draft, as published, on its hardware.",
               metric);
    if (constant)
        return;
    fputs("<div class=\"pair\"><figure>", out);
    snprintf(id, sizeof(id), "%s-%s-s", metric->name, output);
    svg_scatter(out, id, title, cells, n);
    put_figure(out, "Every run in order.", metric);
    fputs("<figure>", out);
    snprintf(id, sizeof(id), "%s-%s-d", metric->name, output);
    svg_distribution(out, id, title, cells, n);
    put_figure(out, "Distribution: share of runs at or below a value; the marker is the median.", metric);
    fputs("</div>\n", out);
}

static void put_methods(FILE *out, const struct table_kind *kind)
{
    for (size_t j = 0; kind->metrics[j]; j++) {
        const struct metric *m = metric_find(kind->metrics[j]);
        fprintf(out, "<details id=\"method-%s\" open><summary>Method: %s</summary><p>", m->name, m->title);
        html_text(out, m->method);
        fputs("</p></details>\n", out);
    }
}

static void put_section(FILE *out, const struct results *r, const struct table_kind *kind)
{
    auto_free struct table *t = table_build(kind, r);

    if (!t)
        return;
    fprintf(out, "<section aria-labelledby=\"%s\"><h2 id=\"%s\">", t->anchor, t->anchor);
    html_text(out, t->title);
    if (t->section)
        fprintf(out, " <small>(draft, section %s)</small>", t->section);
    fputs("</h2>\n", out);
    put_table(out, t);
    for (size_t j = 0; kind->metrics[j]; j++) {
        const struct metric *m = metric_find(kind->metrics[j]);
        for (size_t i = 0; m->outputs[i]; i++)
            put_plots(out, r, m, m->outputs[i]);
    }
    put_methods(out, kind);
    fputs("</section>\n", out);
}

static void put_card(FILE *out, const struct results *r, const char *metric, const char *variant, const char *words)
{
    char value[24];

    for (size_t i = 0; i < r->cell_count; i++) {
        const struct cell *c = &r->cells[i];
        if (strcmp(c->metric->name, metric) != 0 || strcmp(c->variant, variant) != 0 || !(c->summary.median > 0) ||
            c->subject->peer)
            continue;
        fprintf(out, "<li><b>%s %s</b><span>%s, %s", table_number(c->summary.median, value, sizeof(value)),
                c->metric->unit, c->subject->label, words);
        if (c->reference)
            fprintf(out, "<br>draft: %g %s", c->reference->value, c->metric->unit);
        fputs("</span></li>\n", out);
    }
}

static void put_head(FILE *out, const struct results *r)
{
    char line[512];

    fputs("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
          "content=\"width=device-width,initial-scale=1\"><title>Coracle benchmark</title>\n",
          out);
    put_style(out);
    fputs("</head><body><a class=\"skip\" href=\"#main\">Skip to the tables</a><header><h1>Coracle benchmark</h1><p "
          "class=\"lead\">",
          out);
    fprintf(out, "%s on ", r->host.started_at);
    html_text(out, r->host.hostname);
    fputs(": ", out);
    html_text(out, report_host_line(r, line, sizeof(line)));
    fputs(".</p>\n", out);
    if (*report_noise_line(r, line, sizeof(line)))
        fprintf(out, "<p><strong>%s</strong></p>\n", line);
    fprintf(
        out,
        "<p>The tables of <cite>%s</cite>, measured here beside its numbers as published (%s: other hardware, other "
        "years). Values are medians with their 95%% interval; n counts the runs that succeeded.</p><ul "
        "class=\"cards\">\n",
        REFERENCE_NAME, REFERENCE_SETUP);
    put_card(out, r, "instantiation", "cold/rst", "cold start to RST");
    put_card(out, r, "instantiation", "pool/rst", "from the pool to RST");
    put_card(out, r, "throughput_tx", "tcp", "sending");
    put_card(out, r, "rtt", "average", "ping flood");
    put_card(out, r, "image_size", "shipped", "image");
    put_card(out, r, "memory", "host", "one more");
    fputs("</ul></header><main id=\"main\">\n", out);
}

static void put_fact(FILE *out, const char *name, const char *value)
{
    fprintf(out, "<dt>%s</dt><dd>", name);
    html_text(out, value);
    fputs("</dd>\n", out);
}

static void put_host(FILE *out, const struct results *r)
{
    char text[200];

    fputs("<section aria-labelledby=\"host\"><h2 id=\"host\">Host and versions</h2><dl>\n", out);
    put_fact(out, "CPU", r->host.cpu);
    put_fact(out, "Kernel", r->host.kernel);
    put_fact(out, "System", r->host.distribution);
    put_fact(out, "Virtualized", r->host.hypervisor);
    put_fact(out, "Governor", r->host.governor);
    put_fact(out, "Mitigations", r->host.mitigations);
    snprintf(text, sizeof(text), "%.2f %.2f %.2f before, %.2f %.2f %.2f after", r->host.load_before[0],
             r->host.load_before[1], r->host.load_before[2], r->host.load_after[0], r->host.load_after[1],
             r->host.load_after[2]);
    put_fact(out, "Load average", text);
    for (size_t i = 0; i < r->subject_count; i++) {
        const struct subject *s = &r->subjects[i];
        snprintf(text, sizeof(text), "%s, accelerator %s", s->version, s->accelerator);
        put_fact(out, s->label, s->available ? text : s->why_not);
    }
    put_fact(out, "Raw samples", *r->samples_path ? r->samples_path : "inside this page only");
    fputs("</dl><p><small>Intervals are distribution-free, from order statistics; comparisons are two-sided rank sum "
          "tests, "
          "counted out exactly up to 80 runs; p99 below 100 runs is the largest value.</small></p></section>\n",
          out);
}

/* "</" inside a script element would end it. */
static void put_raw(FILE *out, const struct results *r)
{
    fputs("<script type=\"application/json\" id=\"raw\">[\n", out);
    for (size_t i = 0; i < r->cell_count; i++) {
        json_t *o = report_cell_json(r, &r->cells[i]);
        auto_free char *text = o ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;

        for (const char *p = text ? text : "null"; *p; p++)
            fputs(*p == '<' ? "\\u003c" : (const char[]){*p, '\0'}, out);
        fputs(i + 1 < r->cell_count ? ",\n" : "\n", out);
        json_decref(o);
    }
    fputs("]</script>\n", out);
}

int report_html(FILE *out, const struct results *results, struct error **err)
{
    put_head(out, results);
    for (size_t i = 0; table_kinds()[i]; i++)
        put_section(out, results, table_kinds()[i]);
    put_host(out, results);
    fputs("</main>", out);
    put_raw(out, results);
    fputs("</body></html>\n", out);
    return 0;
}
