/* SPDX-License-Identifier: Apache-2.0 */
/* The schedule of a benchmark: opens the subjects, interleaves their runs, writes every raw sample as it is made. */
#ifndef CORACLE_BENCH_RUN_H
#define CORACLE_BENCH_RUN_H

#include "bench/result.h"

/* Opens what is to be measured into results->subjects; one that cannot be is kept with its reason. */
int run_open_subjects(const struct bench_options *options, struct results *results, struct error **err);

/* Runs everything. Single failures are in the cells; an error means that nothing sensible can be reported. */
int run_all(const struct bench_options *options, struct results *results, struct error **err);

#endif
