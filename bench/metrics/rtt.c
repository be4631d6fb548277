/* SPDX-License-Identifier: Apache-2.0 */
/* Section 4.4: a ping flood, one echo outstanding at a time; the draft reports the average. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "bench/metrics/metric.h"
#include "bench/probe/echo.h"
#include "bench/stats.h"

enum { ECHO_COUNT = 4000, ECHO_WARMUP = 100 };

static void sample(struct measurement *m, const char *mode, struct outcome *outcomes)
{
    auto_free double *times = calloc(ECHO_COUNT, sizeof(*times));
    struct error *err = NULL;
    struct summary s;
    size_t n = 0;
    int r = times ? 0 : error_set(&err, ENOMEM, "NO_MEMORY", "no memory for the round trips");

    if (r == 0)
        r = echo_flood(&m->subject->target, ECHO_WARMUP, times, &n, &err);
    if (r == 0)
        r = echo_flood(&m->subject->target, ECHO_COUNT, times, &n, &err);
    if (r == 0 && n < ECHO_COUNT)
        r = error_set(&err, EIO, "TIMEOUT", "%zu of %d echoes were not answered", ECHO_COUNT - n, ECHO_COUNT);
    if (r == 0)
        r = stats_summarize(times, n, &s);
    if (r < 0) {
        metric_fail(&metric_rtt, outcomes, err);
        return;
    }
    outcome_set(&outcomes[0], s.mean);
    outcome_set(&outcomes[1], s.median);
    outcome_set(&outcomes[2], s.p99);
}

static const char *const outputs[] = {"average", "p50", "p99", NULL};

const struct metric metric_rtt = {
    .name = "rtt",
    .unit = "ms",
    .title = "Round-trip time",
    .method =
        "A ping flood of 4,000 ICMP echoes of 56 bytes from beside the instance's bridge, the next sent as soon as the "
        "reply is there (`ping -f` without its 10 ms cap): from just before the send call to the kernel's receive "
        "time stamp of the reply. One run gives one average, one median (p50) and one p99 of its 4,000; the table "
        "shows the median of the runs. The draft's figures are averages, in ms as it prints them.",
    .outputs = outputs,
    .default_runs_max = 15,
    .setup = metric_run_instance,
    .teardown = metric_end_instance,
    .sample = sample,
};
