/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Statistics of a benchmark: order statistics only, since start times are skewed and have heavy tails.
 *
 * Pure functions over arrays of doubles; used by the report writers and by nothing that measures.
 */
#ifndef CORACLE_BENCH_STATS_H
#define CORACLE_BENCH_STATS_H

#include <stdbool.h>
#include <stddef.h>

/* Fewer samples than this cannot bound a median at 95% (2 * 0.5^5 = 6.25% > 5%). */
enum { STATS_INTERVAL_N_MIN = 6 };

struct summary {
    size_t n;
    double min, median, p99, max, mean;
    bool has_interval;      /* n >= STATS_INTERVAL_N_MIN */
    double ci_low, ci_high; /* distribution-free interval of the median from order statistics, coverage >= 95% */
};

/* All zero for n == 0. p99 is the nearest-rank percentile: the largest sample below n = 100. -ENOMEM when out of
 * memory. */
int stats_summarize(const double *samples, size_t n, struct summary *ret_summary);

/* Nearest-rank percentile (0 < p <= 100) of an ascending array. n must not be 0. */
double stats_percentile(const double *sorted, size_t n, double p);

struct comparison {
    double p;     /* two-sided */
    bool exact;   /* permutation distribution counted out, ties included; else the normal approximation */
    bool shown;   /* p < 0.05: the samples differ */
    double ratio; /* median of b over median of a; 0 when a's is 0 */
};

/* Wilcoxon-Mann-Whitney rank sum test of a against b. -EINVAL when one is empty, -ENOMEM. */
int stats_compare(const double *a, size_t na, const double *b, size_t nb, struct comparison *ret_comparison);

/* Slope of y over x by Theil and Sen: the median of all pairwise slopes, which one outlier cannot move.
 * -EINVAL with fewer than two different x. */
int stats_slope(const double *x, const double *y, size_t n, double *ret_slope);

#endif
