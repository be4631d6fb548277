/* SPDX-License-Identifier: Apache-2.0 */
/* What the user asked `coracle bench` for, parsed. */
#ifndef CORACLE_BENCH_OPTIONS_H
#define CORACLE_BENCH_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum report_format { REPORT_TABLE, REPORT_JSON, REPORT_CSV, REPORT_MARKDOWN, REPORT_HTML };

enum { LIST_MAX = 16, SCALE_MAX = 8 };

/* Entries point into one owned copy of the argument. */
struct word_list {
    char *text;
    char *word[LIST_MAX];
    size_t count;
};

struct bench_options {
    const char *socket; /* explicit path, or NULL: RUN_DIR/api.sock */
    const char *run_dir;
    const char *image;             /* reference in Coracle's image store */
    const char *archive;           /* the same image as a file, for peers and for an empty store; NULL: looked for */
    struct word_list technologies; /* empty: all the host has */
    struct word_list metrics;      /* empty: all */
    struct word_list against;
    unsigned scale[SCALE_MAX]; /* instances running beside; 0 alone when not asked for */
    size_t scale_count;
    unsigned runs; /* of every metric; 0: default_runs, or fewer where a metric says so */
    unsigned default_runs, warmup;
    double seconds;            /* of one throughput run */
    unsigned memory_instances; /* largest N of the memory line */
    enum report_format format;
    const char *output;  /* NULL: standard output */
    const char *html;    /* also write the HTML report there; NULL: no */
    const char *samples; /* raw samples; NULL: beside output, or under the user's state folder */
    bool quick, list, help, version;
};

/* Parses argv; -EINVAL with *err on a mistake. The result is the caller's to options_clear(). */
int options_parse(int argc, char **argv, struct bench_options *ret_options, struct error **err);
void options_clear(struct bench_options *options);

/* Is the metric wanted? True when none were named. */
bool options_want_metric(const struct bench_options *options, const char *metric);

void options_usage(void);

#endif
