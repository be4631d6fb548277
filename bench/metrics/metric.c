/* SPDX-License-Identifier: Apache-2.0 */
/* The table of all metrics, and what several probes share. */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "bench/metrics/metric.h"
#include "bench/probe/netns.h"

enum { PORT_WAIT_MS = 10000 };

static const struct metric *const metrics[] = {
    &metric_instrument, &metric_instantiation, &metric_throughput_tx, &metric_throughput_rx, &metric_rtt,
    &metric_image_size, &metric_memory,        &metric_create_rate,   &metric_connections,   NULL,
};

const struct metric *const *metric_list(void)
{
    return metrics;
}

const struct metric *metric_find(const char *name)
{
    for (size_t i = 0; metrics[i]; i++)
        if (strcmp(metrics[i]->name, name) == 0)
            return metrics[i];
    return NULL;
}

void metric_variant(const char *mode, const char *output, unsigned scale, char *buf, size_t size)
{
    int n = snprintf(buf, size, "%s%s%s", mode ? mode : "", mode && output ? "/" : "", output ? output : "");

    if (scale && n > 0 && (size_t)n < size)
        snprintf(buf + n, size - (size_t)n, "@%u", scale);
}

void outcome_set(struct outcome *outcome, double value)
{
    outcome->kind = OUTCOME_MEASURED;
    outcome->value = value;
}

void outcome_fail(struct outcome *outcome, enum outcome_kind kind, const char *format, ...)
{
    va_list ap;

    outcome->kind = kind;
    va_start(ap, format);
    vsnprintf(outcome->reason, sizeof(outcome->reason), format, ap);
    va_end(ap);
}

void metric_fail(const struct metric *metric, struct outcome *outcomes, struct error *err)
{
    char text[REASON_SIZE];

    error_text(err, text, sizeof(text));
    for (size_t i = 0; metric->outputs[i]; i++)
        outcome_fail(&outcomes[i], OUTCOME_FAILED, "%s", text);
    error_free(err);
}

/* Whether the application accepts connections by now. */
static int try_port(const struct target *t, struct error **err)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(t->port), .sin_addr = t->address};
    struct timeval limit = {.tv_sec = 1};
    auto_fd int fd = -1;
    int r = netns_socket(t->netns, AF_INET, SOCK_STREAM, 0, &fd, err);

    if (r < 0)
        return r;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    return connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 ? 1 : 0;
}

static int wait_for_port(const struct target *t, struct error **err)
{
    for (int64_t since = monotonic_ns(); monotonic_ns() - since < (int64_t)PORT_WAIT_MS * 1000000; poll(NULL, 0, 20)) {
        int r = try_port(t, err);
        if (r != 0)
            return r < 0 ? r : 0;
    }
    return error_set(err, ETIMEDOUT, "TIMEOUT", "port %u of the instance did not open within %d s", t->port,
                     PORT_WAIT_MS / 1000);
}

int metric_run_instance(struct measurement *m, struct error **err)
{
    const struct subject_ops *ops = m->subject->ops;
    int r = ops->prepare(m->subject, SUBJECT_START_DEFAULT, true, err);

    if (r == 0)
        r = ops->create(m->subject, &m->instance, err);
    if (r < 0)
        return r;
    m->running = true;
    if (ops->wait)
        r = ops->wait(m->subject, &m->instance, err);
    return r < 0 ? r : wait_for_port(&m->subject->target, err);
}

void metric_end_instance(struct measurement *m)
{
    if (m->running)
        m->subject->ops->destroy(m->subject, &m->instance, NULL);
    m->running = false;
}
