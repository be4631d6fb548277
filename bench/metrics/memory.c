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

enum {
    STEPS = 4,
    POINTS = STEPS + 1,
    READS = 7,
    READ_PAUSE_MS = 20,
    SETTLE_MS = 150,
    EMULATED_SETTLE_MS = 8000,
    QUICK_SETTLE_MS = 1000,
    PEER_INSTANCES = 8
};
enum { STEADY_PAUSE_MS = 250, STEADY_CALM = 4, STEADY_TRIES_MAX = 60, STEADY_BYTES = 32 * 1024 };

enum account { ACCOUNT_HOST, ACCOUNT_CGROUP, ACCOUNT_MONITOR, ACCOUNT_COUNT };

/*
 * Bytes of the kernel's objects that are in use; negative when the host does not say (slabinfo(5) is root's).
 * The pages of caches would not do: a cache keeps its pages when objects are freed, so that a second crowd of instances
 * seems to cost nothing.
 */
static double slab_active_bytes(void)
{
    auto_file FILE *f = fopen("/proc/slabinfo", "re");
    char line[512];
    double bytes = 0;

    if (!f)
        return -1;
    while (fgets(line, sizeof(line), f)) {
        unsigned long long active, size;
        if (sscanf(line, "%*s %llu %*u %llu", &active, &size) == 2)
            bytes += (double)active * (double)size;
    }
    return bytes;
}

/*
 * What processes and kernel hold: each line of /proc/meminfo that counts memory in use, and the kernel's objects.
 *
 * MemTotal - MemFree would be simpler and was wrong here by half: the page allocator and the slab caches keep what they
 * were given back, so that a crowd started after another one was removed seems to need less than it holds.
 */
static double host_used_bytes(void)
{
    static const char *const counted[] = {"AnonPages", "Shmem", "PageTables", "KernelStack", "Percpu"};
    auto_file FILE *f = fopen("/proc/meminfo", "re");
    double active = slab_active_bytes(), kib = 0;
    char line[128], key[64];
    unsigned long long value;

    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "%63[^:]: %llu kB", key, &value) != 2)
            continue;
        for (size_t i = 0; i < sizeof(counted) / sizeof(counted[0]); i++)
            if (strcmp(key, counted[i]) == 0)
                kib += (double)value;
        if (active < 0 && strcmp(key, "Slab") == 0)
            kib += (double)value;
    }
    return kib * 1024 + (active < 0 ? 0 : active);
}

/*
 * Waits until the host gives nothing back any more: network namespaces and memory cgroups of instances that were just
 * removed are freed in the background for seconds, and would be counted against the new ones.
 */
static void wait_until_steady(void)
{
    double before = host_used_bytes();
    int calm = 0;

    for (int i = 0; i < STEADY_TRIES_MAX && calm < STEADY_CALM; i++) {
        poll(NULL, 0, STEADY_PAUSE_MS);
        double now = host_used_bytes();
        calm = now > before - STEADY_BYTES ? calm + 1 : 0;
        before = now;
    }
}

/* An emulator gives back what it translated once when its guest has idled for seconds: too long for a first impression.
 */
static int settle_ms(const struct measurement *m)
{
    if (!m->subject->target.emulated)
        return SETTLE_MS;
    return m->options->quick ? QUICK_SETTLE_MS : EMULATED_SETTLE_MS;
}

static int read_point(struct subject *s, int wait_ms, double *accounts, bool *has_footprint, struct error **err)
{
    double used[READS];
    struct summary summary;
    struct footprint f = {0};
    int r;

    poll(NULL, 0, wait_ms);
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

    wait_until_steady();
    for (size_t i = 0; i < POINTS && r == 0; i++) {
        x[i] = (double)(i * step);
        r = crowd_grow(crowd, i * step, err);
        if (r == 0)
            r = read_point(m->subject, settle_ms(m), y[i], &has_footprint, err);
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

/* A crowd is to be of one kind: none of it boots because the snapshot it could start from was not ready yet. Where none
 * comes, all of it boots. */
static int setup(struct measurement *m, struct error **err)
{
    struct subject *s = m->subject;
    int r = s->has_snapshots ? subject_learn(s, err) : 0;

    if (r == 0 && s->has_snapshots)
        s->ops->prepare(s, SUBJECT_START_SNAPSHOT, false, NULL);
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
        "host: everything the host gives, as the slope of what processes and kernel hold (/proc/meminfo: AnonPages + "
        "Shmem "
        "+ PageTables + KernelStack + Percpu, and the kernel's objects in use, /proc/slabinfo; files' cached pages do "
        "not "
        "count) over 0 to N instances in four "
        "equal steps (N = 40; 20 with --quick; 8 for a peer), Theil and Sen's "
        "median of pairwise slopes; each reading is the median of seven; the run begins when the host has stopped "
        "freeing what came before; where a technology starts instances from a snapshot, when there is one. Instances "
        "are idle; emulated ones for 8 s before a reading (1 s with --quick: what was translated once is still "
        "counted). cgroup: the instances' memory cgroup alone. "
        "monitor: the platform's own processes (proportional set size) alone; both are parts of host, not additions. "
        "What other programs of the host allocate meanwhile is in host: measure on a quiet one. MB are 10^6 bytes.",
    .outputs = outputs,
    .default_runs_max = 8,
    .quick_runs_max = 3,
    .setup = setup,
    .sample = sample,
};
