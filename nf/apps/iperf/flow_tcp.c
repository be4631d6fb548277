/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flows over TCP: bulk sending from one static buffer, counting what comes in, orderly end. See flow.h.
 *
 * End of a sender: it shuts its direction and waits for the peer's end, which says that the peer has read everything.
 * A server's flow whose peer does nothing for STALL_NS is reset.
 */
#include "flow.h"

enum { WRITES_PER_ROUND = 8, DRAIN_S = 10, STALL_S = 60 };

static void check_end(struct flow *flow)
{
    if ((!flow->sends || flow->tx_done) && flow->rx_done)
        flow_finish(flow, 0);
}

static void end_sending(struct flow *flow)
{
    nf_timer_stop(&flow->pace);
    flow->tx_done = true;
    if (flow->limit.end != UINT64_MAX)
        flow->tx.last = nf_now(); /* a test by time lasts that time, also when the last write was before its end */
    nf_tcp_shutdown(flow->tcp);
    if (!flow->receives)
        nf_timer_start(&flow->guard, nf_now() + DRAIN_S * NS_PER_S);
    check_end(flow);
}

static void on_pace(struct nf_timer *timer)
{
    struct flow *flow = timer->context;
    if (nf_now() >= flow->limit.end) {
        end_sending(flow); /* also when the peer does not read: no write would notice */
    } else {
        nf_tcp_want_write(flow->tcp, true);
        nf_timer_start(timer, flow->limit.end);
    }
}

static void on_guard(struct nf_timer *timer)
{
    struct flow *flow = timer->context;
    uint64_t now = nf_now();
    uint64_t last = flow->rx.last > flow->tx.last ? flow->rx.last : flow->tx.last;
    if (flow->tx_done && !flow->receives) {
        flow_finish(flow, 0); /* all was handed over, the peer just does not end */
        return;
    }
    last = last > flow->created ? last : flow->created;
    if (now - last >= STALL_S * NS_PER_S)
        flow_finish(flow, NF_TIMED_OUT);
    else
        nf_timer_start(timer, last + STALL_S * NS_PER_S);
}

/* Returns false when nothing more goes now. */
static bool write_once(struct flow *flow)
{
    uint64_t now = nf_now(), when;
    size_t size;
    long n;
    if (flow_budget(flow, now, &size, &when)) {
        end_sending(flow);
        return false;
    }
    if (!size) {
        nf_tcp_want_write(flow->tcp, false);
        nf_timer_start(&flow->pace, when < flow->limit.end ? when : flow->limit.end);
        return false;
    }
    if (flow->header_sent < flow->header_size) {
        size_t left = flow->header_size - flow->header_sent;
        n = nf_tcp_send(flow->tcp, flow->header + flow->header_sent, left < size ? left : size, NF_COPY);
        if (n > 0)
            flow->header_sent += (size_t)n;
    } else {
        n = nf_tcp_send(flow->tcp, flow_pattern(), size, NF_STATIC);
    }
    if (n <= 0)
        return false;
    flow_count_sent(flow, now, (size_t)n);
    return (size_t)n == size || flow->header_sent < flow->header_size || flow->tx.bytes <= flow->header_size;
}

static void on_writable(struct nf_tcp *tcp, void *context)
{
    struct flow *flow = context;
    (void)tcp;
    if (!flow->sends && flow->header_sent < flow->header_size) {
        /* The receiving client of a reverse test has a header to send and nothing else. */
        long n =
            nf_tcp_send(flow->tcp, flow->header + flow->header_sent, flow->header_size - flow->header_sent, NF_COPY);
        flow->header_sent += n > 0 ? (size_t)n : 0;
        if (flow->header_sent == flow->header_size)
            nf_tcp_want_write(flow->tcp, false);
        return;
    }
    for (int i = 0; i < WRITES_PER_ROUND && write_once(flow); i++)
        ;
}

void flow_tcp_receive(struct flow *flow, size_t size)
{
    if (!flow->receives)
        return; /* an acknowledgement of the header */
    uint64_t now = nf_now();
    if (!flow->rx.bytes && !flow->rx.start)
        flow->rx.start = now;
    flow->rx.bytes += size;
    flow->rx.last = now;
}

static void on_receive(struct nf_tcp *tcp, void *context, const uint8_t *data, size_t size)
{
    (void)tcp;
    (void)data;
    flow_tcp_receive(context, size);
}

static void on_end(struct nf_tcp *tcp, void *context)
{
    struct flow *flow = context;
    (void)tcp;
    flow->rx_done = true;
    if (flow->receives && flow->rx.bytes)
        flow->rx.last = nf_now();
    if (flow->sends && !flow->tx_done && !flow->receives && !flow->evictable) {
        flow_finish(flow, NF_RESET); /* a server that ends while we send to it has given up */
        return;
    }
    check_end(flow);
}

static void on_connected(struct nf_tcp *tcp, void *context)
{
    (void)tcp;
    flow_tcp_start(context);
}

static void on_failed(struct nf_tcp *tcp, void *context, int error)
{
    struct flow *flow = context;
    (void)tcp;
    flow->tcp = NULL;
    flow_finish(flow, error);
}

const struct nf_tcp_ops flow_tcp_ops = {
    .connected = on_connected,
    .receive = on_receive,
    .writable = on_writable,
    .end = on_end,
    .failed = on_failed,
};

void flow_tcp_start(struct flow *flow)
{
    uint64_t now = nf_now();
    nf_tcp_addresses(flow->tcp, &flow->local, &flow->peer);
    flow->started = true;
    flow->pace.fire = on_pace;
    flow->guard.fire = on_guard;
    flow->tx.start = flow->tx.last = flow->tx.mark.time = now;
    flow->rx.start = flow->rx.last = flow->rx.mark.time = now;
    nf_timer_start(&flow->guard, now + STALL_S * NS_PER_S);
    report_connected(flow);
    if (flow->sends) {
        if (flow->limit.end != UINT64_MAX) {
            flow->limit.end += now;
            nf_timer_start(&flow->pace, flow->limit.end);
        }
        flow->limit.next = now;
    }
    if (flow->sends || flow->header_sent < flow->header_size)
        nf_tcp_want_write(flow->tcp, true);
}
