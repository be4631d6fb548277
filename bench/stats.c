/* SPDX-License-Identifier: Apache-2.0 */
/* Order statistics, rank sum test and robust slope for the bench's report; no I/O, no state. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "bench/stats.h"

/* Beyond this many samples in both groups the normal approximation is better than 1% and counting out is slow. */
enum { EXACT_TOTAL_MAX = 80 };

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median_of_sorted(const double *v, size_t n)
{
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

double stats_percentile(const double *sorted, size_t n, double p)
{
    size_t rank = (size_t)ceil(p / 100 * (double)n);

    return sorted[rank == 0 ? 0 : rank > n ? n - 1 : rank - 1];
}

/* Largest k such that P(Binomial(n, 1/2) < k) <= 0.025: the k-th and (n+1-k)-th order statistics bound the median. */
static size_t interval_rank(size_t n)
{
    double log_term = -(double)n * log(2), cumulated = 0;
    size_t k = 0;

    for (size_t i = 0; i < n; i++) {
        cumulated += exp(log_term);
        if (cumulated > 0.025)
            break;
        k = i + 1;
        log_term += log((double)(n - i)) - log((double)(i + 1));
    }
    return k;
}

int stats_summarize(const double *samples, size_t n, struct summary *ret_summary)
{
    struct summary s = {.n = n};
    auto_free double *sorted = NULL;

    if (n == 0) {
        *ret_summary = s;
        return 0;
    }
    sorted = malloc(n * sizeof(*sorted));
    if (!sorted)
        return -ENOMEM;
    memcpy(sorted, samples, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), ascending);
    for (size_t i = 0; i < n; i++)
        s.mean += sorted[i] / (double)n;
    s.min = sorted[0];
    s.max = sorted[n - 1];
    s.median = median_of_sorted(sorted, n);
    s.p99 = stats_percentile(sorted, n, 99);
    if (n >= STATS_INTERVAL_N_MIN) {
        size_t k = interval_rank(n);
        s.has_interval = true;
        s.ci_low = sorted[k - 1];
        s.ci_high = sorted[n - k];
    }
    *ret_summary = s;
    return 0;
}

struct ranked {
    double value;
    bool from_a;
    size_t rank2; /* twice the mid-rank: whole numbers even with ties */
};

static int by_value(const void *a, const void *b)
{
    return ascending(&((const struct ranked *)a)->value, &((const struct ranked *)b)->value);
}

/* Sets mid-ranks; returns the sum of t^3 - t over groups of ties. */
static double rank_all(struct ranked *r, size_t n)
{
    double ties = 0;

    qsort(r, n, sizeof(*r), by_value);
    for (size_t i = 0, j; i < n; i = j) {
        for (j = i + 1; j < n && !(r[j].value > r[i].value); j++)
            ;
        for (size_t k = i; k < j; k++)
            r[k].rank2 = i + j + 1;
        double t = (double)(j - i);
        ties += t * t * t - t;
    }
    return ties;
}

/*
 * Exact p: of all ways to choose na of the n ranks, the share whose sum is at least as far from the expected one as the
 * one seen. ways[k][s] counts choices of k ranks with (doubled) sum s, filled rank by rank.
 */
static int exact_p(const struct ranked *r, size_t n, size_t na, size_t seen2, double *ret_p)
{
    size_t sum_max = n * (n + 1), expected2 = na * (n + 1), width = sum_max + 1;
    size_t distance = seen2 > expected2 ? seen2 - expected2 : expected2 - seen2;
    auto_free double *ways = calloc((na + 1) * width, sizeof(*ways));
    double extreme = 0, all = 0;

    if (!ways)
        return -ENOMEM;
    ways[0] = 1;
    for (size_t i = 0; i < n; i++)
        for (size_t k = i + 1 < na ? i + 1 : na; k > 0; k--)
            for (size_t s = sum_max; s + 1 > r[i].rank2; s--)
                ways[k * width + s] += ways[(k - 1) * width + s - r[i].rank2];
    for (size_t s = 0; s <= sum_max; s++) {
        double w = ways[na * width + s];
        all += w;
        if ((s > expected2 ? s - expected2 : expected2 - s) >= distance)
            extreme += w;
    }
    *ret_p = extreme / all;
    return 0;
}

static double normal_p(size_t na, size_t nb, size_t seen2, double ties)
{
    double n = (double)(na + nb), product = (double)na * (double)nb;
    double off = fabs((double)seen2 / 2 - (double)na * (n + 1) / 2) - 0.5;
    double variance = product / 12 * (n + 1 - ties / (n * (n - 1)));

    return variance <= 0 || off <= 0 ? 1 : erfc(off / sqrt(variance) / sqrt(2));
}

int stats_compare(const double *a, size_t na, const double *b, size_t nb, struct comparison *ret_comparison)
{
    struct comparison c = {.exact = na + nb <= EXACT_TOTAL_MAX};
    auto_free struct ranked *r = NULL;
    struct summary sa, sb;
    size_t seen2 = 0;
    double ties;

    if (na == 0 || nb == 0)
        return -EINVAL;
    r = calloc(na + nb, sizeof(*r));
    if (!r || stats_summarize(a, na, &sa) < 0 || stats_summarize(b, nb, &sb) < 0)
        return -ENOMEM;
    for (size_t i = 0; i < na + nb; i++)
        r[i] = (struct ranked){.value = i < na ? a[i] : b[i - na], .from_a = i < na};
    ties = rank_all(r, na + nb);
    for (size_t i = 0; i < na + nb; i++)
        seen2 += r[i].from_a ? r[i].rank2 : 0;
    if (!c.exact)
        c.p = normal_p(na, nb, seen2, ties);
    else if (exact_p(r, na + nb, na, seen2, &c.p) < 0)
        return -ENOMEM;
    c.shown = c.p < 0.05;
    c.ratio = sa.median > 0 ? sb.median / sa.median : 0;
    *ret_comparison = c;
    return 0;
}

int stats_slope(const double *x, const double *y, size_t n, double *ret_slope)
{
    auto_free double *slopes = calloc(n > 1 ? n * (n - 1) / 2 : 1, sizeof(*slopes));
    size_t count = 0;

    if (!slopes)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        for (size_t j = i + 1; j < n; j++)
            if (x[i] < x[j] || x[i] > x[j])
                slopes[count++] = (y[j] - y[i]) / (x[j] - x[i]);
    if (count == 0)
        return -EINVAL;
    qsort(slopes, count, sizeof(*slopes), ascending);
    *ret_slope = median_of_sorted(slopes, count);
    return 0;
}
