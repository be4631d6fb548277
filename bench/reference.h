/* SPDX-License-Identifier: Apache-2.0 */
/* The figures of the reference draft as published, so that a report can stand beside them. */
#ifndef CORACLE_BENCH_REFERENCE_H
#define CORACLE_BENCH_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>

#define REFERENCE_NAME  "draft-natarajan-nfvrg-containers-for-nfv-02"
#define REFERENCE_SETUP "Xeon E5-1630 v3 3.7 GHz, 4 cores, Linux 4.4.1, Xen 4.6.0, Docker 1.11"

struct reference {
    const char *section; /* "4.2" */
    const char *metric;
    const char *technology;
    double value; /* in the metric's unit, see enum metric's table */
};

/* The list in the draft's own order of rows. */
const struct reference *reference_list(size_t *ret_count);

/* The draft's value, or NULL when it has none for this pair. Published brought-in unikernels count for their own names.
 */
const struct reference *reference_find(const char *metric, const char *technology);

/* The draft's technologies in the order of its tables, NULL-terminated. */
const char *const *reference_technologies(void);

#endif
