/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Section 4.6: what the host gives for one more instance, all of it: the slope of the host's used memory over a growing
 * number of instances. One process's resident set would leave out the kernel's part, which is most of a container.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "bench/crowd.h"
#include "bench/metrics/metric.h"
#include "bench/stats.h"

enum { STEPS = 4, POINTS = STEPS + 1, READS = 7, READ_PAUSE_MS = 20, SETTLE_MS = 150, PEER_INSTANCES = 8 };

enum account { ACCOUNT_HOST, ACCOUNT_CGROUP, ACCOUNT_MONITOR, ACCOUNT_COUNT };

/* Everything that is neither free nor a file's cached page; shared memory and all slab count as used. */
static double host_used_bytes(void)
{
    unsigned long long total = 0, free_kib = 0, buffers = 0, cached = 0, shmem = 0, value;
    auto_file FILE *f = fopen("/proc/meminfo", "re");
    char line[128], key[64];

    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "%63[^:]: %llu kB", key, &value) != 2)
            continue;
        if (strcmp(key, "MemTotal") == 0)
            total = value;
        else if (strcmp(key, "MemFree") == 0)
            free_kib = value;
        else if (strcmp(key, "Buffers") == 0)
            buffers = value;
        else if (strcmp(key, "Cached") == 0)
            cached = value;
        else if (strcmp(key, "Shmem") == 0)
            shmem = value;
    }
    return ((double)total - (double)free_kib - (double)buffers - (double)cached + (double)shmem) * 1024;
}

static int read_point(struct subject *s, double *accounts, bool *has_footprint, struct error **err)
{
    double used[READS];
    struct summary summary;
    struct footprint f = {0};
    int r;

    poll(NULL, 0, SETTLE_MS);
    for (size_t i = 0; i < READS; i++) {
        used[i] = host_used_bytes();
        poll(NULL, 0, READ_PAUSE_MS);
    }
    r = stats_summarize(used, READS, &summary);
    if (r < 0)
        return error_set(err, -r, "NO_MEMORY", "no memory for the readings");
    if (*has_footprint && (!s->ops->footprint || s->ops->footprint(s, &f, NULL) < 0))
        *has_footprint = false;
    accounts[ACCOUNT_HOST] = summary.median;
    accounts[ACCOUNT_CGROUP] = (double)f.cgroup_bytes;
    accounts[ACCOUNT_MONITOR] = (double)f.monitor_bytes;
    return 0;
}

static int fit(double y[POINTS][ACCOUNT_COUNT], const double *x, size_t account, double *ret_mb)
{
    double column[POINTS], slope;
    int r;

    for (size_t i = 0; i < POINTS; i++)
        column[i] = y[i][account];
    r = stats_slope(x, column, POINTS, &slope);
    if (r == 0)
        *ret_mb = slope / 1e6;
    return r;
}

static int measure(struct measurement *m, struct crowd *crowd, struct outcome *outcomes, struct error **err)
{
    size_t step = (m->subject->peer ? PEER_INSTANCES : m->options->memory_instances) / STEPS;
    double x[POINTS], y[POINTS][ACCOUNT_COUNT], mb = 0;
    bool has_footprint = true;
    int r = 0;

    for (size_t i = 0; i < POINTS && r == 0; i++) {
        x[i] = (double)(i * step);
        r = crowd_grow(crowd, i * step, err);
        if (r == 0)
            r = read_point(m->subject, y[i], &has_footprint, err);
    }
    for (size_t a = 0; r == 0 && a < ACCOUNT_COUNT; a++) {
        if (a != ACCOUNT_HOST && !has_footprint)
            outcome_fail(&outcomes[a], OUTCOME_ABSENT, "the subject keeps no account of it that could be read");
        else if (fit(y, x, a, &mb) < 0)
            outcome_fail(&outcomes[a], OUTCOME_FAILED, "no line through the readings");
        else
            outcome_set(&outcomes[a], mb);
    }
    return r;
}

static void sample(struct measurement *m, const char *mode, struct outcome *outcomes)
{
    struct crowd crowd = {.subject = m->subject};
    struct error *err = NULL;
    int r = measure(m, &crowd, outcomes, &err);

    if (crowd_clear(&crowd, r < 0 ? NULL : &err) < 0)
        r = -EIO;
    if (r < 0)
        metric_fail(&metric_memory, outcomes, err);
}

static const char *const outputs[] = {
    [ACCOUNT_HOST] = "host", [ACCOUNT_CGROUP] = "cgroup", [ACCOUNT_MONITOR] = "monitor", [ACCOUNT_COUNT] = NULL};

const struct metric metric_memory = {
    .name = "memory",
    .unit = "MB",
    .title = "Memory for one more instance",
    .method =
        "host: everything the host gives, as the slope of its used memory (/proc/meminfo: MemTotal - MemFree - Buffers "
        "- Cached + Shmem, so processes, page tables, slab and network buffers all count, files' cached pages do "
        "not) over 0 to N instances in four equal steps (N = 40; 20 with --quick; 8 for a peer), Theil and Sen's "
        "median of pairwise slopes; each reading is the median of seven. cgroup: the instances' memory cgroup alone. "
        "monitor: the platform's own processes (proportional set size) alone; both are parts of host, not additions. "
        "What other programs of the host allocate meanwhile is in host: measure on a quiet one. MB are 10^6 bytes.",
    .outputs = outputs,
    .default_runs_max = 8,
    .sample = sample,
};
