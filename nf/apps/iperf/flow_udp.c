/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flows over UDP: paced datagrams with numbers and times, loss and jitter of what comes in, the final report.
 *
 * End of a test: the sender's last datagram carries the negated number and is repeated until the receiver's report
 * comes, or a few times when none is to come. The receiver keeps the flow for a while to answer repetitions.
 */
#include "flow.h"

enum { DATAGRAMS_PER_ROUND = 32, REPORT_TRIES = 10, BLIND_TRIES = 3, MAX_REFUSALS = 4 };

#define REPEAT_NS 250000000ull
#define BLIND_NS  100000000ull
#define LINGER_NS 2000000000ull
#define IDLE_NS   (10 * NS_PER_S)

enum { NO_TEST = 4 }; /* the zero word of a datagram that asks for nothing */

static int send_datagram(struct flow *flow, int64_t seq, size_t size)
{
    struct wire_prefix prefix = {.seq = seq, .sent = nf_wall_clock()};
    uint8_t header[WIRE_DATAGRAM + WIRE_HEADER];
    size_t header_size = WIRE_DATAGRAM + NO_TEST;
    memset(header, 0, header_size);
    if (flow->header_size && (size >= flow->header_size || flow->receives)) {
        header_size = flow->header_size;
        memcpy(header, flow->header, header_size);
    }
    wire_build_prefix(&prefix, header);
    header_size = header_size < size || flow->receives ? header_size : size;
    size_t body = size > header_size ? size - header_size : 0;
    return nf_udp_send(flow->sock, NULL, header, header_size, body ? flow_pattern() : NULL, body);
}

static void send_last(struct flow *flow);
static void push(struct flow *flow);

static void check_end(struct flow *flow)
{
    if ((!flow->sends || flow->tx_done) && (!flow->receives || flow->rx_done))
        flow_finish(flow, flow->asks_report && !flow->has_report ? NF_TIMED_OUT : 0);
}

static void on_pace(struct nf_timer *timer)
{
    struct flow *flow = timer->context;
    if (flow->tries)
        send_last(flow);
    else
        push(flow);
}

/* The first time it counts, as it does at the receiver; then it repeats. */
static void send_last(struct flow *flow)
{
    unsigned tries = flow->asks_report ? REPORT_TRIES : BLIND_TRIES;
    if (flow->tries++ >= tries) {
        flow->tx_done = true;
        check_end(flow);
        return;
    }
    int64_t seq = -(int64_t)(flow->tries > 1 ? flow->tx.datagrams : flow->tx.datagrams + 1);
    int error = send_datagram(flow, seq, flow->limit.length);
    if (flow->tries == 1) {
        flow->tx.datagrams++;
        flow->tx.bytes += flow->limit.length;
        flow->tx.last = nf_now();
    }
    if (error == NF_REFUSED && flow->tries > 1) {
        flow->tx_done = true; /* the peer has all it wanted and is gone */
        check_end(flow);
        return;
    }
    nf_timer_start(&flow->pace, nf_now() + (flow->asks_report ? REPEAT_NS : BLIND_NS));
}

/*
 * Whether to give up. A single refusal of an earlier datagram is no end: a peer that hands a new test over to a socket
 * of its own (iperf 2.1.8 does, and late when several tests begin at once) refuses for a moment.
 */
static bool refused(struct flow *flow, int error)
{
    return error != NF_REFUSED || ++flow->refusals > MAX_REFUSALS;
}

static void push(struct flow *flow)
{
    for (int i = 0; i < DATAGRAMS_PER_ROUND; i++) {
        uint64_t now = nf_now(), when;
        size_t size;
        if (flow_budget(flow, now, &size, &when)) {
            send_last(flow);
            return;
        }
        if (!size) {
            nf_timer_start(&flow->pace, when < flow->limit.end ? when : flow->limit.end);
            return;
        }
        size = size < WIRE_DATAGRAM ? WIRE_DATAGRAM : size;
        int error = send_datagram(flow, (int64_t)flow->tx.datagrams + 1, size);
        if (error == NF_AGAIN) {
            flow->blocked = true;
            nf_timer_start(&flow->pace, now + NS_PER_S); /* the end of the test must not wait for room */
            return;
        }
        if (error && refused(flow, error)) {
            flow_finish(flow, error);
            return;
        }
        flow->tx.datagrams++;
        flow_count_sent(flow, now, size);
    }
    nf_timer_start(&flow->pace, nf_now());
}

/* RFC 1889 A.8; the clocks' difference drops out. */
static void count_transit(struct traffic *rx, int64_t transit)
{
    if (rx->transits++) {
        int64_t d = transit - rx->transit;
        d = d < 0 ? -d : d;
        rx->jitter16 = rx->jitter16 + (uint64_t)d - (rx->jitter16 + 8) / 16;
    }
    rx->transit = transit;
    rx->transit_sum += transit;
    rx->transit_min = rx->transits == 1 || transit < rx->transit_min ? transit : rx->transit_min;
    rx->transit_max = rx->transits == 1 || transit > rx->transit_max ? transit : rx->transit_max;
}

static void count_datagram(struct flow *flow, uint64_t seq, size_t size)
{
    struct traffic *rx = &flow->rx;
    rx->bytes += size;
    rx->last = nf_now();
    if (seq > rx->datagrams) {
        rx->lost += seq - rx->datagrams - 1;
        rx->datagrams = seq;
    } else {
        rx->out_of_order++;
        rx->lost -= rx->lost > 0;
    }
}

static void give_report(struct flow *flow)
{
    const struct traffic *rx = &flow->rx;
    struct wire_report r = {.bytes = rx->bytes,
                            .duration = rx->last - rx->start,
                            .lost = rx->lost,
                            .out_of_order = rx->out_of_order,
                            .datagrams = rx->datagrams,
                            .jitter = rx->jitter16 / 16,
                            .transit_min = rx->transit_min,
                            .transit_max = rx->transit_max,
                            .transit_sum = rx->transit_sum,
                            .transit_count = rx->transits};
    uint8_t bytes[WIRE_REPORT];
    wire_build_report(&r, bytes);
    nf_udp_send(flow->sock, NULL, bytes, sizeof bytes, NULL, 0);
}

/* A receiver that answers repetitions is reported when it ends, freed later. */
static void end_receiving(struct flow *flow)
{
    flow->rx_done = true;
    if (flow->gives_report) {
        give_report(flow);
        if (flow->announced)
            report_flow(flow);
        flow->reported = true;
        nf_timer_start(&flow->guard, nf_now() + LINGER_NS);
        return;
    }
    check_end(flow);
}

void flow_udp_receive(struct flow *flow, const uint8_t *data, size_t size, uint64_t received)
{
    struct wire_prefix prefix;
    if (flow->asks_report && flow->tries && wire_parse_report(data, size, &flow->report)) {
        flow->has_report = flow->tx_done = true;
        nf_timer_stop(&flow->pace);
        check_end(flow);
        return;
    }
    if (!flow->receives || size < WIRE_DATAGRAM)
        return;
    wire_parse_prefix(data, flow->seq64, &prefix);
    bool last = prefix.seq < 0;
    uint64_t seq = last ? 0 - (uint64_t)prefix.seq : (uint64_t)prefix.seq;
    if (flow->rx_done) {
        if (last && flow->gives_report)
            give_report(flow);
        else if (seq == 1 && flow->gives_report)
            flow_finish(flow, 0); /* a new test from the same port: its next datagram opens a new flow */
        return;
    }
    if (!flow->rx.bytes)
        flow->rx.start = flow->rx.mark.time = nf_now();
    if (!flow->sends)
        flow->header_sent = flow->header_size; /* the server has heard the request */
    count_transit(&flow->rx, (int64_t)(received - prefix.sent));
    count_datagram(flow, seq, size);
    if (!flow->announced && flow->rx.transits > 1)
        report_connected(flow); /* not for one datagram, whose sender may be forged */
    if (last)
        end_receiving(flow);
}

static void on_receive(struct nf_udp *udp, void *context, const struct nf_addr *from, const uint8_t *data, size_t size,
                       uint64_t received)
{
    (void)udp;
    (void)from;
    flow_udp_receive(context, data, size, received);
}

static void on_writable(struct nf_udp *udp, void *context)
{
    struct flow *flow = context;
    (void)udp;
    if (!flow->blocked)
        return;
    flow->blocked = false;
    if (!flow->tries)
        push(flow);
}

static void on_failed(struct nf_udp *udp, void *context, int error)
{
    struct flow *flow = context;
    (void)udp;
    if (flow->rx_done && flow->gives_report)
        return; /* it has got its report and left */
    if (flow->tries && !flow->asks_report)
        flow->tx_done = true;
    if (!flow->tx_done && flow->client && !refused(flow, error))
        return;
    flow_finish(flow, flow->tx_done && (!flow->receives || flow->rx_done) ? 0 : error);
}

const struct nf_udp_ops flow_udp_ops = {
    .receive = on_receive,
    .writable = on_writable,
    .failed = on_failed,
};

/* A request that got no answer is repeated; a receiver that hears nothing for long gives up. */
static void on_guard(struct nf_timer *timer)
{
    struct flow *flow = timer->context;
    uint64_t now = nf_now();
    if (flow->rx_done && flow->gives_report) {
        flow_finish(flow, 0);
        return;
    }
    if (!flow->sends && flow->header_sent < flow->header_size) {
        if (flow->tries++ < REPORT_TRIES) {
            send_datagram(flow, 1, flow->header_size);
            nf_timer_start(timer, now + REPEAT_NS);
        } else {
            flow_finish(flow, NF_TIMED_OUT);
        }
        return;
    }
    uint64_t due = flow->rx.last + IDLE_NS;
    if (now >= due && flow->receives)
        flow_finish(flow, NF_TIMED_OUT);
    else if (flow->receives)
        nf_timer_start(timer, due);
}

void flow_udp_start(struct flow *flow)
{
    uint64_t now = nf_now();
    nf_udp_address(flow->sock, &flow->local);
    flow->started = true;
    flow->pace.fire = on_pace;
    flow->guard.fire = on_guard;
    flow->tx.start = flow->tx.last = flow->tx.mark.time = now;
    flow->rx.start = flow->rx.last = flow->rx.mark.time = now;
    if (flow->sends || flow->header_size)
        report_connected(flow);
    if (flow->sends) {
        if (flow->limit.end != UINT64_MAX)
            flow->limit.end += now;
        flow->limit.next = now;
        nf_timer_start(&flow->pace, now);
    }
    if (!flow->sends && flow->header_size)
        nf_timer_start(&flow->guard, now);
    else if (flow->receives)
        nf_timer_start(&flow->guard, now + IDLE_NS);
}
