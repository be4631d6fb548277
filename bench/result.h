/* SPDX-License-Identifier: Apache-2.0 */
/* What a run of the bench found: cells of samples, filled by run.c, summarised once, then only read by the reports. */
#ifndef CORACLE_BENCH_RESULT_H
#define CORACLE_BENCH_RESULT_H

#include "bench/host.h"
#include "bench/metrics/metric.h"
#include "bench/reference.h"
#include "bench/stats.h"

enum { VARIANT_SIZE = 48, CELL_MAX = 512, SUBJECT_MAX = 24 };

struct sample {
    unsigned run; /* from 0, in the order in which they were made */
    bool ok;
    double value;
    double syn_interval_us;   /* 0: no flood measured it */
    char reason[REASON_SIZE]; /* when not ok */
};

/* One technology (or peer), metric and variant. */
struct cell {
    const struct metric *metric;
    const struct subject *subject;
    char variant[VARIANT_SIZE];
    unsigned scale;
    struct sample *samples;
    size_t count; /* ok and failed */
    size_t failed;
    char why_not[REASON_SIZE]; /* not "": not measured at all, and why */
    const struct reference *reference;
    double *values; /* the ok ones in order; made by results_summarize() */
    struct summary summary;
    double syn_interval_us; /* the largest of the runs; 0: no flood */
};

struct results {
    struct subject subjects[SUBJECT_MAX];
    size_t subject_count;
    struct subject instrument; /* stands for the bench itself */
    struct cell cells[CELL_MAX];
    size_t cell_count;
    struct fingerprint host;
    char samples_path[512]; /* where the raw samples are; "" nowhere */
    double seconds;         /* how long all of it took */
    unsigned runs, warmup;
};

/* The cell of these, made when it is new; NULL when the table is full. */
struct cell *results_cell(struct results *results, const struct metric *metric, const struct subject *subject,
                          const char *mode, const char *output, unsigned scale);

/* A cell by names, NULL when there is none. technology is a subject's label. */
const struct cell *results_find(const struct results *results, const char *metric, const char *label,
                                const char *variant);

/* Appends; -ENOMEM. */
int cell_add(struct cell *cell, unsigned run, const struct outcome *outcome);

/* Fills values and summary of all cells; -ENOMEM. */
int results_summarize(struct results *results);

/* Is b a sensible baseline for a: a peer, the cold start for a warm one, none running for many? */
bool cell_comparable(const struct cell *a, const struct cell *b);

/* A sentence comparing b with a: a ratio with its p-value, or "no difference shown". Returns buf. */
const char *results_compare_text(const struct cell *a, const struct cell *b, char *buf, size_t size);

void results_clear(struct results *results);

#endif
