/* SPDX-License-Identifier: Apache-2.0 */
/* The bench's statistics against values worked out by hand or published in tables. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bench/reference.h"
#include "bench/stats.h"

static void assert_close(double a, double b, double tolerance)
{
    if (fabs(a - b) > tolerance)
        fail_msg("%.9g is not %.9g", a, b);
}

static void test_summary(void **state)
{
    const double v[] = {9, 1, 8, 2, 7, 3, 6, 4, 5, 10};
    struct summary s;

    assert_int_equal(stats_summarize(v, 10, &s), 0);
    assert_int_equal(s.n, 10);
    assert_close(s.min, 1, 0);
    assert_close(s.max, 10, 0);
    assert_close(s.median, 5.5, 1e-12);
    assert_close(s.mean, 5.5, 1e-12);
    assert_close(s.p99, 10, 0);
    /* n = 10: P(B < 2) = 11/1024 = 1.07%, P(B < 3) = 5.5% > 2.5%: the 2nd and the 9th (coverage 97.9%). */
    assert_true(s.has_interval);
    assert_close(s.ci_low, 2, 0);
    assert_close(s.ci_high, 9, 0);
    assert_close(v[0], 9, 0); /* the input keeps its order */
}

static void test_interval_ranks(void **state)
{
    /* Lower ranks of the 95% interval as in published tables (Conover, Practical Nonparametric Statistics). */
    static const struct {
        size_t n, low;
    } known[] = {{6, 1}, {8, 1}, {9, 2}, {20, 6}, {25, 8}, {30, 10}, {50, 18}};
    double v[50];
    struct summary s;

    for (size_t i = 0; i < 50; i++)
        v[i] = (double)(i + 1);
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        assert_int_equal(stats_summarize(v, known[i].n, &s), 0);
        assert_close(s.ci_low, (double)known[i].low, 0);
        assert_close(s.ci_high, (double)(known[i].n + 1 - known[i].low), 0);
    }
    assert_int_equal(stats_summarize(v, 5, &s), 0);
    assert_false(s.has_interval);
}

static void test_interval_covers(void **state)
{
    unsigned covered = 0;
    const unsigned trials = 4000;

    srand48(1);
    for (unsigned t = 0; t < trials; t++) {
        double v[21];
        struct summary s;
        for (size_t i = 0; i < 21; i++)
            v[i] = -log(1 - drand48()); /* median ln 2, skewed as start times are */
        assert_int_equal(stats_summarize(v, 21, &s), 0);
        covered += s.ci_low <= log(2) && log(2) <= s.ci_high;
    }
    assert_true(covered >= trials * 94 / 100);
    assert_true(covered < trials); /* an interval that always covers would be of no use */
}

static void test_p99(void **state)
{
    double v[200];
    struct summary s;

    for (size_t i = 0; i < 200; i++)
        v[i] = (double)(200 - i);
    assert_int_equal(stats_summarize(v, 200, &s), 0);
    assert_close(s.p99, 198, 0);
    assert_int_equal(stats_summarize(v, 0, &s), 0);
    assert_int_equal(s.n, 0);
}

static void test_compare_exact(void **state)
{
    const double a[] = {1, 2, 3, 4, 5}, b[] = {6, 7, 8, 9, 10}, c[] = {1.5, 2.5, 3.5, 4.5, 5.5};
    struct comparison r;

    /* Complete separation of 5 and 5: 2 of C(10,5) = 252 orders are as extreme. */
    assert_int_equal(stats_compare(a, 5, b, 5, &r), 0);
    assert_true(r.exact);
    assert_close(r.p, 2.0 / 252, 1e-12);
    assert_true(r.shown);
    assert_close(r.ratio, 8.0 / 3, 1e-12);
    /* U = 10 for 5 and 5: 0.6905 in the tables. */
    assert_int_equal(stats_compare(a, 5, c, 5, &r), 0);
    assert_close(r.p, 0.6905, 1e-3);
    assert_false(r.shown);
    assert_int_equal(stats_compare(a, 0, b, 5, &r), -EINVAL);
}

static void test_compare_ties(void **state)
{
    const double same[] = {3, 3, 3, 3}, a[] = {1, 1, 2}, b[] = {2, 2, 2};
    struct comparison r;

    assert_int_equal(stats_compare(same, 4, same, 4, &r), 0);
    assert_close(r.p, 1, 1e-12);
    /* Mid-ranks 1.5 1.5 4.5 | 4.5 4.5 4.5: of 20 choices, the ones with both 1.5 in one group (4 + 4) are as extreme.
     */
    assert_int_equal(stats_compare(a, 3, b, 3, &r), 0);
    assert_close(r.p, 8.0 / 20, 1e-12);
}

static void test_compare_approximation(void **state)
{
    double a[60], b[60];
    struct comparison r;

    for (size_t i = 0; i < 60; i++) {
        a[i] = (double)i;
        b[i] = (double)i + 0.5;
    }
    assert_int_equal(stats_compare(a, 60, b, 60, &r), 0);
    assert_false(r.exact);
    assert_false(r.shown);
    for (size_t i = 0; i < 60; i++)
        b[i] += 30;
    assert_int_equal(stats_compare(a, 60, b, 60, &r), 0);
    assert_true(r.p < 1e-6);
}

static void test_slope(void **state)
{
    const double x[] = {0, 1, 2, 3, 4}, y[] = {5, 7, 9, 1000, 13};
    double slope;

    assert_int_equal(stats_slope(x, y, 5, &slope), 0);
    assert_close(slope, 2, 1e-12); /* the outlier does not move it */
    assert_int_equal(stats_slope(x, y, 1, &slope), -EINVAL);
}

static void test_reference(void **state)
{
    size_t n;

    reference_list(&n);
    assert_int_equal(n, 42); /* seven rows, six columns in five tables */
    assert_close(reference_find("instantiation", "container")->value, 1711, 0);
    assert_close(reference_find("throughput_rx", "unikernel.osv.kvm")->value, 47.7, 1e-9);
    assert_close(reference_find("memory", "container")->value, 3.8, 1e-9);
    assert_null(reference_find("create_rate", "container"));
    for (size_t i = 0; reference_technologies()[i]; i++)
        assert_non_null(reference_find("image_size", reference_technologies()[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_summary),
        cmocka_unit_test(test_interval_ranks),
        cmocka_unit_test(test_interval_covers),
        cmocka_unit_test(test_p99),
        cmocka_unit_test(test_compare_exact),
        cmocka_unit_test(test_compare_ties),
        cmocka_unit_test(test_compare_approximation),
        cmocka_unit_test(test_slope),
        cmocka_unit_test(test_reference),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
