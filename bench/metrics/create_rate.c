/* SPDX-License-Identifier: Apache-2.0 */
/* How many instances a second can be created and removed again, network included. */
#include <string.h>

#include "bench/crowd.h"
#include "bench/metrics/metric.h"

enum { COUNT = 160, COUNT_QUICK = 80, COUNT_SLOW = 8 };

/* A peer's command or an emulated guest takes a tenth of a second and more for each: a few already tell the rate. */
static size_t count_for(const struct measurement *m)
{
    if (m->subject->peer || strcmp(m->subject->accelerator, "tcg") == 0)
        return COUNT_SLOW;
    return m->options->quick ? COUNT_QUICK : COUNT;
}

static void sample(struct measurement *m, const char *mode, struct outcome *outcomes)
{
    size_t n = count_for(m);
    struct error *err = NULL;
    double seconds;

    if (crowd_cycle(m->subject, n, &seconds, &err) < 0)
        metric_fail(&metric_create_rate, outcomes, err);
    else
        outcome_set(&outcomes[0], (double)n / seconds);
}

static const char *const outputs[] = {"pipelined", NULL};

const struct metric metric_create_rate = {
    .name = "create_rate",
    .unit = "1/s",
    .title = "Create rate",
    .method = "Four clients at once, each creating an instance with a network, waiting until it runs, removing it and "
              "waiting "
              "until it is gone, then the next; 160 instances a run (80 with --quick, 8 for a peer or an emulated "
              "guest), over the "
              "time from the "
              "first call to the last answer.",
    .outputs = outputs,
    .default_runs_max = 8,
    .quick_runs_max = 3,
    .higher_is_better = true,
    .sample = sample,
};
