/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One measured quantity: a const table of what it is called and how one sample is taken. Knows subjects only through
 * bench/subject.h, so the same probe measures every technology and every peer.
 *
 * A metric has modes (ways to run, sampled separately: cold, pool) and outputs (figures one sample yields together:
 * rst, syn_ack); the variant in the results is "mode/output", or the one of them it has.
 */
#ifndef CORACLE_BENCH_METRICS_METRIC_H
#define CORACLE_BENCH_METRICS_METRIC_H

#include "bench/subject.h"

enum { METRIC_OUTPUT_MAX = 4, REASON_SIZE = 320, DETAIL_SIZE = 200 };

enum outcome_kind {
    OUTCOME_FAILED, /* counted as a failed run, with its reason */
    OUTCOME_MEASURED,
    OUTCOME_ABSENT, /* cannot be measured for this subject at all: no run is counted, the reason is given once */
};

struct outcome {
    enum outcome_kind kind;
    double value;
    double syn_interval_us; /* of the flood that measured it, median; 0: no flood did */
    char reason[REASON_SIZE];
    char detail[DETAIL_SIZE]; /* more members for the raw sample's JSON object, without braces; "" none */
};

/* A metric at work on one subject. */
struct measurement {
    struct subject *subject;
    const struct bench_options *options;
    struct subject_instance instance; /* the running one, for metrics that need one throughout */
    bool running;
    void *state; /* the metric's own, made in setup and freed in teardown */
};

struct metric {
    const char *name;
    const char *unit;
    const char *title;          /* for people: "Instantiation time" */
    const char *method;         /* one paragraph: what exactly was timed or counted, with what */
    const char *const *modes;   /* NULL-terminated; NULL: one without a name */
    const char *const *outputs; /* NULL-terminated, at most METRIC_OUTPUT_MAX */
    unsigned default_runs_max;  /* when the user named no number of runs; 0: no bound */
    unsigned quick_runs_max;    /* the same with --quick, for metrics whose one run takes seconds; 0: no other bound */
    bool higher_is_better;
    bool instrument; /* measures the bench itself, once, not a subject */

    /* NULL: everywhere. Otherwise false with *ret_why when the subject has no such mode. */
    bool (*supports)(const struct subject *subject, const char *mode, const char **ret_why);

    /* Before and after all samples of one subject; either may be NULL. teardown() also follows a setup() that failed.
     */
    int (*setup)(struct measurement *m, struct error **err);
    void (*teardown)(struct measurement *m);

    /* One run: fills outcomes[] in the order of outputs. Fails by outcome, never by return. */
    void (*sample)(struct measurement *m, const char *mode, struct outcome *outcomes);
};

/* All metrics in the order in which they run and are reported, NULL-terminated. */
const struct metric *const *metric_list(void);
const struct metric *metric_find(const char *name);

/* "mode/output", "mode" or "output" into buf; scale > 0 appends "@scale". */
void metric_variant(const char *mode, const char *output, unsigned scale, char *buf, size_t size);

/* Marks all of a sample's outcomes as failed for the error's reason and frees the error. */
void metric_fail(const struct metric *metric, struct outcome *outcomes, struct error *err);

void outcome_set(struct outcome *outcome, double value);
void outcome_fail(struct outcome *outcome, enum outcome_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A running instance at the fixed address with its port open: setup and teardown of metrics that need one throughout.
 */
int metric_run_instance(struct measurement *m, struct error **err);
void metric_end_instance(struct measurement *m);

extern const struct metric metric_instrument, metric_instantiation, metric_throughput_tx, metric_throughput_rx,
    metric_rtt, metric_image_size, metric_memory, metric_create_rate, metric_connections;

#endif
