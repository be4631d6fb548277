/* SPDX-License-Identifier: Apache-2.0 */
/* Section 4.3: one TCP flow between host and instance, Debian's iperf on the host's side, both directions. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>

#include "base/cleanup.h"
#include "bench/command.h"
#include "bench/metrics/metric.h"

static int setup(struct measurement *m, struct error **err)
{
    int r = command_find("iperf", "iperf", err);

    return r < 0 ? r : metric_run_instance(m, err);
}

/* The last line of iperf 2's CSV report; the ninth field is bits per second. */
static double parse_csv(char *text)
{
    char *line = strrchr(command_trim(text), '\n'), *field;

    field = line ? line + 1 : text;
    for (int i = 0; i < 8 && field; i++) {
        field = strchr(field, ',');
        field = field ? field + 1 : NULL;
    }
    return field ? strtod(field, NULL) : 0;
}

static void measure(struct measurement *m, const struct metric *metric, bool from_instance, struct outcome *outcome)
{
    char address[INET_ADDRSTRLEN], seconds[16], port[8];
    const char *argv[] = {"iperf", "-c", address, "-p", port, "-t", seconds, "-y", "C", from_instance ? "-R" : NULL,
                          NULL};
    auto_free char *text = NULL;
    struct error *err = NULL;
    double bits;

    inet_ntop(AF_INET, &m->subject->target.address, address, sizeof(address));
    snprintf(seconds, sizeof(seconds), "%.1f", m->options->seconds);
    snprintf(port, sizeof(port), "%u", m->subject->target.port);
    if (command_run(m->subject->target.netns, argv, &text, NULL, &err) < 0) {
        metric_fail(metric, outcome, err);
        return;
    }
    bits = parse_csv(text);
    if (bits > 0)
        outcome_set(outcome, bits / 1e9);
    else
        outcome_fail(outcome, OUTCOME_FAILED, "iperf reported no throughput: %.120s", *text ? text : "nothing");
}

static void sample_tx(struct measurement *m, const char *mode, struct outcome *outcomes)
{
    measure(m, &metric_throughput_tx, true, outcomes);
}

static void sample_rx(struct measurement *m, const char *mode, struct outcome *outcomes)
{
    measure(m, &metric_throughput_rx, false, outcomes);
}

static const char *const outputs[] = {"tcp", NULL};

const struct metric metric_throughput_tx = {
    .name = "throughput_tx",
    .unit = "Gbit/s",
    .title = "Throughput, sent by the instance",
    .method = "One TCP flow from the instance to the host it runs on, no network card involved: `iperf -R`, "
              "iperf 2 in the namespace beside the instance's bridge, bytes received there over the time of the flow.",
    .outputs = outputs,
    .default_runs_max = 8,
    .higher_is_better = true,
    .setup = setup,
    .teardown = metric_end_instance,
    .sample = sample_tx,
};

const struct metric metric_throughput_rx = {
    .name = "throughput_rx",
    .unit = "Gbit/s",
    .title = "Throughput, received by the instance",
    .method =
        "One TCP flow from the host to the instance that runs on it, no network card involved: `iperf -c`, "
        "iperf 2 in the namespace beside the instance's bridge, bytes handed to TCP there over the time of the flow.",
    .outputs = outputs,
    .default_runs_max = 8,
    .higher_is_better = true,
    .setup = setup,
    .teardown = metric_end_instance,
    .sample = sample_rx,
};
