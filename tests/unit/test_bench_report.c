/* SPDX-License-Identifier: Apache-2.0 */
/* What scripts rely on: the fields of the JSON and CSV, "not measured", footnotes, comparisons; from made-up results.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bench/report/report.h"
#include "bench/tables/table.h"

static struct results *results;

static void add(const struct metric *metric, struct subject *s, const char *mode, const char *output, double first,
                double step, unsigned n)
{
    struct cell *c = results_cell(results, metric, s, mode, output, 0);

    for (unsigned i = 0; i < n; i++) {
        struct outcome o = {.kind = OUTCOME_MEASURED, .value = first + step * i};
        assert_int_equal(cell_add(c, i, &o), 0);
    }
}

static struct subject *add_subject(const char *name, bool peer, bool available)
{
    struct subject *s = &results->subjects[results->subject_count++];

    *s = (struct subject){
        .available = available, .peer = peer, .reference = peer ? "container" : NULL, .ops = &subject_crun};
    snprintf(s->label, sizeof(s->label), "%s", name);
    snprintf(s->technology, sizeof(s->technology), "%s", name);
    snprintf(s->accelerator, sizeof(s->accelerator), "none");
    if (!peer)
        s->reference = s->technology;
    return s;
}

static int setup(void **state)
{
    struct outcome failed = {.kind = OUTCOME_FAILED, .reason = "a RST came early <&\"|>"};
    struct subject *container, *docker, *xen;
    struct cell *c;

    results = calloc(1, sizeof(*results));
    snprintf(results->host.cpu, sizeof(results->host.cpu), "A <CPU> & co");
    container = add_subject("container", false, true);
    xen = add_subject("tinyx.xen", false, false);
    docker = add_subject("docker", true, true);
    add(&metric_instantiation, container, "cold", "rst", 3, 0.1, 10);
    add(&metric_instantiation, container, "cold", "syn_ack", 4, 0.1, 10);
    add(&metric_instantiation, container, "pool", "rst", 0.3, 0.01, 10);
    add(&metric_instantiation, docker, "cold", "rst", 200, 1, 10);
    add(&metric_rtt, container, NULL, "average", 0.01, 0.001, 10);
    add(&metric_rtt, docker, NULL, "average", 0.0101, 0.001, 10);
    c = results_cell(results, &metric_instantiation, container, "cold", "rst", 0);
    cell_add(c, 10, &failed);
    c = results_cell(results, &metric_instantiation, xen, "cold", "rst", 0);
    snprintf(c->why_not, sizeof(c->why_not), "no Xen on this host");
    return results_summarize(results);
}

static int teardown(void **state)
{
    for (size_t i = 0; i < results->subject_count; i++)
        results->subjects[i].available = false; /* nothing was opened */
    results_clear(results);
    free(results);
    return 0;
}

static char *render(int (*writer)(FILE *, const struct results *, struct error **))
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);

    assert_int_equal(writer(f, results, NULL), 0);
    fclose(f);
    return text;
}

static json_t *find(json_t *list, const char *technology, const char *metric, const char *variant)
{
    json_t *o;
    size_t i;

    json_array_foreach(list, i, o)
    {
        if (strcmp(json_string_value(json_object_get(o, "technology")), technology) == 0 &&
            strcmp(json_string_value(json_object_get(o, "metric")), metric) == 0 &&
            strcmp(json_string_value(json_object_get(o, "variant")), variant) == 0)
            return o;
    }
    fail_msg("no object for %s %s %s", technology, metric, variant);
    return NULL;
}

static void test_json_fields(void **state)
{
    static const char *const fields[] = {"technology", "accelerator", "metric", "variant", "unit",     "n",
                                         "min",        "median",      "p99",    "samples", "reference"};
    char *text = render(report_json);
    json_t *list = json_loads(text, 0, NULL), *o;

    assert_true(json_is_array(list));
    o = find(list, "container", "instantiation", "cold/rst");
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        assert_non_null(json_object_get(o, fields[i]));
    assert_int_equal(json_integer_value(json_object_get(o, "n")), 10);
    assert_int_equal(json_integer_value(json_object_get(o, "failed")), 1);
    assert_int_equal(json_array_size(json_object_get(o, "samples")), 10);
    assert_true(json_number_value(json_object_get(o, "reference")) == 1711);
    assert_true(json_number_value(json_object_get(o, "min")) == 3);
    assert_int_equal(json_array_size(json_object_get(o, "comparisons")), 1);
    o = find(list, "tinyx.xen", "instantiation", "cold/rst");
    assert_int_equal(json_integer_value(json_object_get(o, "n")), 0);
    assert_true(json_is_null(json_object_get(o, "median")));
    assert_string_equal(json_string_value(json_object_get(o, "not_measured")), "no Xen on this host");
    assert_true(json_number_value(json_object_get(o, "reference")) == 431);
    json_decref(list);
    free(text);
}

static void test_comparison_words(void **state)
{
    char text[200];
    const struct cell *mine = results_find(results, "instantiation", "container", "cold/rst");
    const struct cell *docker = results_find(results, "instantiation", "docker", "cold/rst");

    assert_true(cell_comparable(mine, docker));
    assert_false(cell_comparable(docker, mine));
    results_compare_text(docker, mine, text, sizeof(text));
    assert_non_null(strstr(text, "times better"));
    results_compare_text(mine, docker, text, sizeof(text));
    assert_non_null(strstr(text, "times worse"));
    results_compare_text(results_find(results, "rtt", "docker", "average"),
                         results_find(results, "rtt", "container", "average"), text, sizeof(text));
    assert_non_null(strstr(text, "no difference shown"));
}

static void test_tables(void **state)
{
    char *terminal = render(report_terminal), *markdown = render(report_markdown);

    assert_non_null(strstr(terminal, "4.2. Instantiation times"));
    assert_non_null(strstr(terminal, "1711"));
    assert_non_null(strstr(terminal, "not measured [2]"));
    assert_non_null(strstr(terminal, "[2] Not measured: no Xen on this host."));
    assert_non_null(strstr(terminal, "10, 1 failed"));
    assert_non_null(strstr(terminal, "A start from a snapshot is not offered by: container (")); /* not the peer */
    assert_null(strstr(terminal, "4.5.")); /* not asked for, not printed */
    assert_non_null(strstr(markdown, "| container | cold |"));
    free(terminal);
    free(markdown);
}

static void test_csv(void **state)
{
    char *text = render(report_csv);

    assert_non_null(strstr(text, "container,none,instantiation,pool/rst,ms,10,0,0.3,0.345,0.31,0.38,0.39,0.39,1711,"));
    assert_non_null(strstr(text, "tinyx.xen,none,instantiation,cold/rst,ms,0,0,,,,,,,431,\"no Xen on this host\""));
    free(text);
}

/* Every element that is opened is closed, in order; void elements aside. Counts what a browser would have to mend. */
static void assert_balanced(const char *html)
{
    char stack[64][16];
    size_t depth = 0;

    for (const char *p = strchr(html, '<'); p; p = strchr(p + 1, '<')) {
        char name[16];
        const char *end = strchr(p, '>');

        if (p[1] == '!' || !end || sscanf(p + 1 + (p[1] == '/'), "%15[a-z0-9]", name) != 1)
            continue;
        if (p[1] == '/') {
            assert_true(depth > 0);
            assert_string_equal(name, stack[--depth]);
        } else if (end[-1] != '/' && strcmp(name, "meta") != 0 && strcmp(name, "br") != 0) {
            assert_true(depth < 64);
            strcpy(stack[depth++], name);
        }
    }
    assert_int_equal(depth, 0);
}

static void test_html(void **state)
{
    char *text = render(report_html);

    assert_balanced(text);
    assert_non_null(strstr(text, "A &lt;CPU&gt; &amp; co"));
    assert_null(strstr(text, "early <&"));
    assert_non_null(strstr(text, "<svg"));
    assert_non_null(strstr(text, "prefers-color-scheme:dark"));
    assert_non_null(strstr(text, "draft: container"));
    assert_null(strstr(text, "http://"));
    assert_null(strstr(text, "https://"));
    assert_null(strstr(text, "\"nan"));
    assert_null(strstr(text, ">nan"));
    assert_null(strstr(text, "-nan"));
    assert_null(strstr(text, "inf\""));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_fields), cmocka_unit_test(test_comparison_words),
        cmocka_unit_test(test_tables),      cmocka_unit_test(test_csv),
        cmocka_unit_test(test_html),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
