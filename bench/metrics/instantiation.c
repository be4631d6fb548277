/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Section 4.2: from the create call until a SYN flood from outside the instance is answered. The flood runs before the
 * call is made; a reply stamped before the call's first byte is a failed run, never a good figure.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "bench/metrics/metric.h"

enum { APART_MS = 100, QUIET_MS = 3, TIMEOUT_MS = 15000, EMULATED_TIMEOUT_MS = 240000, CLOCK_STEP_MAX_NS = 200000 };

static bool supports(const struct subject *subject, const char *mode, const char **ret_why)
{
    if (strcmp(mode, "snapshot") == 0) {
        *ret_why = subject->peer ? "this peer has no snapshots to start from" : "this technology has none";
        return subject->has_snapshots;
    }
    if (strcmp(mode, "pool") != 0 || subject->has_pool)
        return true;
    *ret_why = subject->peer ? "this peer has no warm pool" : "the warm pool is switched off on this host (pool_depth)";
    return false;
}

static int setup(struct measurement *m, struct error **err)
{
    return subject_learn(m->subject, err);
}

/* Ends the instance; its own story of the start comes first, then whether it was where the flood aimed. */
static int conclude(struct subject *s, struct subject_instance *instance, struct error **err)
{
    int r = s->ops->wait ? s->ops->wait(s, instance, err) : 0;

    if (r == 0)
        r = s->ops->inspect(s, instance, err);
    if (r == 0 && memcmp(instance->mac, s->target.mac, sizeof(instance->mac)) != 0) {
        memcpy(s->target.mac, instance->mac, sizeof(instance->mac));
        r = error_set(err, EADDRNOTAVAIL, "PRECONDITION_FAILED",
                      "the instance got another hardware address than before");
    }
    int removed = s->ops->destroy(s, instance, r < 0 ? NULL : err);
    return r < 0 ? r : removed;
}

static int timeout_ms(const struct subject *s)
{
    return s->target.emulated ? EMULATED_TIMEOUT_MS : TIMEOUT_MS;
}

static void judge(const struct subject *subject, struct outcome *o, bool seen, int64_t stamp, int64_t t0,
                  const struct flood_result *f, const char *what)
{
    o->syn_interval_us = f->interval_median_us;
    snprintf(o->detail, sizeof(o->detail),
             "\"syns\": %llu, \"syn_interval_median_us\": %.1f, \"syn_interval_p99_us\": %.1f, "
             "\"syn_interval_max_us\": %.1f",
             (unsigned long long)f->sent, f->interval_median_us, f->interval_p99_us, f->interval_max_us);
    if (!seen)
        outcome_fail(o, OUTCOME_FAILED, "no %s within %d s", what, timeout_ms(subject) / 1000);
    else if (stamp < t0)
        outcome_fail(o, OUTCOME_FAILED, "a %s came %.3f ms before the create call: something else answered", what,
                     (double)(t0 - stamp) / 1e6);
    else if (f->clock_step_ns > CLOCK_STEP_MAX_NS || f->clock_step_ns < -CLOCK_STEP_MAX_NS)
        outcome_fail(o, OUTCOME_FAILED, "the clock was set by %.3f ms during the run", (double)f->clock_step_ns / 1e6);
    else
        outcome_set(o, (double)(stamp - t0) / 1e6);
}

static enum subject_start start_of(const char *mode)
{
    if (strcmp(mode, "pool") == 0)
        return SUBJECT_START_POOL;
    return strcmp(mode, "snapshot") == 0 ? SUBJECT_START_SNAPSHOT : SUBJECT_START_COLD;
}

static void sample(struct measurement *m, const char *mode, struct outcome *outcomes)
{
    struct subject *s = m->subject;
    struct subject_instance instance = {0};
    struct flood_result result;
    struct flood *flood = NULL;
    struct error *err = NULL;

    /* The kernel takes a removed network namespace apart in the background: not to be measured in the next run. */
    poll(NULL, 0, APART_MS);
    int r = s->ops->prepare(s, start_of(mode), true, &err);

    if (r == 0)
        r = flood_start(&s->target, QUIET_MS, &flood, &err);
    if (r == 0)
        r = s->ops->create(s, &instance, &err);
    if (r < 0) {
        flood_cancel(flood);
        metric_fail(&metric_instantiation, outcomes, err);
        return;
    }
    flood_finish(flood, true, (unsigned)timeout_ms(s), &result);
    if (conclude(s, &instance, &err) < 0) {
        metric_fail(&metric_instantiation, outcomes, err);
        return;
    }
    judge(s, &outcomes[0], result.has_rst, result.rst_ns, instance.t0_ns, &result, "RST");
    judge(s, &outcomes[1], result.has_syn_ack, result.syn_ack_ns, instance.t0_ns, &result, "SYN-ACK");
}

static const char *const modes[] = {"cold", "pool", "snapshot", NULL};
static const char *const outputs[] = {"rst", "syn_ack", NULL};

const struct metric metric_instantiation = {
    .name = "instantiation",
    .unit = "ms",
    .title = "Instantiation time",
    .method =
        "From the create call (clock read just before its first byte is written; HTTP or the peer's command "
        "included) until a SYN flood from outside the instance gets its first answer, by the kernel's receive time "
        "stamp. rst: a closed port refuses, the network stack is there. syn_ack: the application's port accepts, "
        "the function serves. The flood runs on a raw packet socket beside the bridge, sends to both ports "
        "every 40 us (500 us to an emulated guest, which 40 would keep from all else), and must have been unanswered "
        "for 3 ms before the call. cold: everything is made for "
        "this call. pool: namespaces, interface and mounts, or the machine and its memory, were made ahead; a unikernel "
        "has booted and waits to be told who it is. snapshot: the guest "
        "comes from one that was booted before and written down, with an identity of its own. Runs are interleaved, 100 ms apart, so "
        "that "
        "the end of one is not measured in the next; warm-up runs are dropped.",
    .modes = modes,
    .outputs = outputs,
    .supports = supports,
    .setup = setup,
    .sample = sample,
};
