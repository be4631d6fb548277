/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool of flows, their limits and their end; common to TCP and UDP, client and server. See flow.h.
 */
#include "flow.h"

enum { EVICT_SILENT_NS = 1000000000, BURST_NS = 100000000 };

static struct flow flows[MAX_FLOWS];
static size_t high; /* flows[high] and above were never used: their pages are not touched */
static size_t udp_count;
static unsigned last_id;

static uint64_t last_sign(const struct flow *f)
{
    uint64_t t = f->created;
    t = f->rx.last > t ? f->rx.last : t;
    return f->tx.last > t ? f->tx.last : t;
}

/* The one that has been silent longest; a peer that has not said yet what it wants goes before others do. */
static bool evict(bool udp)
{
    struct flow *worst = NULL;
    uint64_t now = nf_now();
    for (size_t i = 0; i < high; i++) {
        struct flow *f = &flows[i];
        bool idle =
            f->used && f->evictable && (!udp || f->udp) && (!f->started || now - last_sign(f) >= EVICT_SILENT_NS);
        if (idle && (!worst || last_sign(f) < last_sign(worst)))
            worst = f;
    }
    if (worst)
        flow_finish(worst, NF_NO_MEMORY);
    return worst;
}

static struct flow *find_unused(void)
{
    for (size_t i = 0; i < high; i++) {
        if (!flows[i].used)
            return &flows[i];
    }
    return high < MAX_FLOWS ? &flows[high++] : NULL;
}

struct flow *flow_new(bool udp)
{
    struct flow *f = udp && udp_count >= MAX_UDP_FLOWS ? NULL : find_unused();
    if (!f && (!evict(udp) || !(f = find_unused())))
        return NULL;
    memset(f, 0, sizeof *f);
    f->used = true;
    f->udp = udp;
    f->id = ++last_id;
    f->created = nf_now();
    f->limit.length = DEFAULT_LENGTH;
    f->limit.left = UINT64_MAX;
    f->pace.context = f->guard.context = f;
    udp_count += udp;
    return f;
}

struct flow *flow_next(const struct flow *flow)
{
    for (struct flow *f = flow ? (struct flow *)flow + 1 : flows; f < flows + high; f++) {
        if (f->used)
            return f;
    }
    return NULL;
}

void flow_limit(struct flow *flow, uint64_t amount, uint64_t time, uint64_t rate, bool rate_is_pps, uint32_t length)
{
    uint32_t max = flow->udp ? UDP_LENGTH_MAX : DEFAULT_LENGTH;
    uint32_t normal = !flow->udp ? DEFAULT_LENGTH : flow->peer.family == 6 ? UDP_LENGTH6 : UDP_LENGTH4;
    flow->limit.length = !length ? normal : length > max ? max : length;
    flow->limit.rate = rate;
    flow->limit.rate_is_pps = rate_is_pps;
    flow->limit.left = amount ? amount : UINT64_MAX;
    flow->limit.end = amount ? UINT64_MAX : time; /* made absolute when sending starts */
}

void flow_limit_from(struct flow *flow, const struct wire_test *test)
{
    static const uint64_t max_rate = 1000000000000ull, normal_time = 10 * NS_PER_S;
    uint64_t rate = test->rate < max_rate ? test->rate : 0;
    uint64_t time = test->amount < 0 ? (uint64_t)(-(int64_t)test->amount) * (NS_PER_S / 100) : normal_time;
    uint32_t length = test->length;
    if (flow->udp) {
        rate = rate ? rate : 1 << 20;
        length = length && length < WIRE_DATAGRAM + 4 ? WIRE_DATAGRAM + 4 : length;
    }
    flow_limit(flow, test->amount > 0 ? (uint64_t)test->amount : 0, time, rate, test->rate_is_pps, length);
}

bool flow_budget(struct flow *flow, uint64_t now, size_t *ret_size, uint64_t *ret_when)
{
    if (!flow->limit.left || now >= flow->limit.end)
        return true;
    *ret_when = flow->limit.next;
    *ret_size = 0;
    if (flow->limit.rate && flow->limit.next > now)
        return false;
    *ret_size = flow->limit.length < flow->limit.left ? flow->limit.length : (size_t)flow->limit.left;
    return false;
}

void flow_count_sent(struct flow *flow, uint64_t now, size_t size)
{
    flow->tx.bytes += size;
    flow->tx.last = now;
    if (flow->limit.left != UINT64_MAX)
        flow->limit.left -= size < flow->limit.left ? size : flow->limit.left;
    if (!flow->limit.rate)
        return;
    uint64_t units = flow->limit.rate_is_pps ? 1 : size * 8;
    if (flow->limit.next + BURST_NS < now)
        flow->limit.next = now - BURST_NS;
    flow->limit.next += units * NS_PER_S / flow->limit.rate;
}

void flow_finish(struct flow *flow, int error)
{
    nf_timer_stop(&flow->pace);
    nf_timer_stop(&flow->guard);
    flow->error = error;
    flow->evictable = false; /* `done` may make a flow, which must not end this one again */
    if (flow->tcp && error)
        nf_tcp_abort(flow->tcp);
    else if (flow->tcp)
        nf_tcp_close(flow->tcp);
    nf_udp_close(flow->sock);
    flow->tcp = NULL;
    flow->sock = NULL;
    if (flow->announced && !flow->reported)
        report_flow(flow);
    if (flow->done)
        flow->done(flow);
    flow->used = false;
    udp_count -= flow->udp;
}

const uint8_t *flow_pattern(void)
{
    static uint8_t pattern[DEFAULT_LENGTH];
    if (!pattern[0]) {
        for (size_t i = 0; i < sizeof pattern; i++)
            pattern[i] = (uint8_t)('0' + i % 10);
    }
    return pattern;
}
