/* SPDX-License-Identifier: Apache-2.0 */
/* Not one of the draft's tables, but of its section 3.1: how many new sessions a second a function takes. */
#include <errno.h>

#include "bench/metrics/metric.h"
#include "bench/probe/connects.h"

enum { OUTSTANDING = 32, RUN_MS = 1000, QUICK_MS = 400 };

static void sample(struct measurement *m, const char *mode, struct outcome *outcomes)
{
    struct error *err = NULL;
    struct connects c;

    if (connects_run(&m->subject->target, OUTSTANDING, m->options->quick ? QUICK_MS : RUN_MS, &c, &err) < 0) {
        metric_fail(&metric_connections, outcomes, err);
        return;
    }
    if (c.refused > c.accepted / 100)
        outcome_fail(&outcomes[0], OUTCOME_FAILED, "%llu of %llu connections were refused",
                     (unsigned long long)c.refused, (unsigned long long)(c.refused + c.accepted));
    else
        outcome_set(&outcomes[0], (double)c.accepted / c.seconds);
}

static const char *const outputs[] = {"accepted", NULL};

const struct metric metric_connections = {
    .name = "connections",
    .unit = "1/s",
    .title = "New connections",
    .method =
        "TCP connections to the application's port from beside the instance's bridge, 32 under way at any time, each "
        "broken off with a reset as soon as it is established: completed handshakes a second over one second (0.4 with "
        "--quick). The client is one thread on this host and has its share of the limit.",
    .outputs = outputs,
    .default_runs_max = 15,
    .higher_is_better = true,
    .setup = metric_run_instance,
    .teardown = metric_end_instance,
    .sample = sample,
};
