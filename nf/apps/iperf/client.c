/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The asking side: opens -P flows, says in their headers what the server is to do, ends the program when all is over.
 */
#include "flow.h"

enum { BACK_S = 10 };

static struct {
    struct iperf_options options;
    unsigned running, incoming, failed;
    bool both;
    struct nf_timer patience; /* for the server's connecting back */
} client;

static void check_end(void)
{
    if (client.running || (client.both && client.incoming))
        return;
    nf_exit(client.failed ? 1 : 0);
}

static void on_impatient(struct nf_timer *timer)
{
    (void)timer;
    nf_print(NF_LOG, "iperf: the server did not connect back to port %u, or did not finish\n",
             client.options.listen_port);
    nf_exit(1);
}

static void on_done(struct flow *flow)
{
    const struct iperf_options *o = &client.options;
    char text[NF_ADDR_TEXT];
    if (flow->error && !flow->announced)
        nf_print(NF_LOG, "iperf: cannot connect to %s port %u: %s\n", nf_addr_text(&o->peer, text, sizeof text),
                 o->port, nf_error_text(flow->error));
    client.failed += flow->error != 0;
    if (--client.running)
        return;
    report_sum();
    if (client.failed)
        nf_exit(1);
    if (client.both)
        nf_timer_start(&client.patience, nf_now() + (o->amount ? 600 * NS_PER_S : o->time + BACK_S * NS_PER_S));
    check_end();
}

static void on_incoming_done(struct flow *flow)
{
    client.failed += flow->error != 0;
    if (client.incoming)
        client.incoming--;
    check_end();
}

static void build_test(const struct iperf_options *o, struct wire_test *ret_test)
{
    uint64_t hundredths = o->time / (NS_PER_S / 100);
    *ret_test = (struct wire_test){
        .both = o->tradeoff || o->dual,
        .at_once = o->dual,
        .reverse = o->reverse,
        .full_duplex = o->full_duplex,
        .udp = o->udp,
        .seq64 = o->udp,
        .no_report = o->udp && o->full_duplex,
        .rate_is_pps = o->rate_is_pps,
        .port = o->listen_port,
        .threads = o->parallel,
        .length = o->length,
        .amount = o->amount ? (int32_t)(o->amount < INT32_MAX ? o->amount : INT32_MAX)
                            : -(int32_t)(hundredths < INT32_MAX ? hundredths : INT32_MAX),
        .rate = o->rate,
    };
}

/* A server that makes a socket for each new peer needs a moment between them, see flow_udp.c. */
#define UDP_STAGGER_NS 5000000ull

static void on_udp_turn(struct nf_timer *timer)
{
    flow_udp_start(timer->context);
}

static int start_flow(const struct iperf_options *o, uint32_t index)
{
    struct flow *f = flow_new(o->udp);
    struct wire_test test;
    if (!f)
        return NF_NO_MEMORY;
    build_test(o, &test);
    f->client = true;
    f->peer = o->peer;
    f->sends = !o->reverse;
    f->receives = o->reverse || o->full_duplex;
    f->note = o->full_duplex ? "full-duplex" : o->reverse ? "reverse" : NULL;
    f->seq64 = true;
    f->asks_report = o->udp && !f->receives;
    f->done = on_done;
    f->header_size = (o->udp ? WIRE_DATAGRAM : 0) + WIRE_HEADER;
    wire_build(&test, o->udp ? WIRE_DATAGRAM : 0, f->header);
    if (f->sends)
        flow_limit(f, o->amount, o->time, o->rate, o->rate_is_pps, o->length);
    client.running++;
    const struct nf_addr *bind = o->bind.family ? &o->bind : NULL;
    int error = o->udp ? nf_udp_open(bind, &o->peer, &flow_udp_ops, f, &f->sock)
                       : nf_tcp_connect(&o->peer, bind, &flow_tcp_ops, f, &f->tcp);
    f->guard.fire = on_udp_turn;
    if (error)
        flow_finish(f, error);
    else if (o->udp)
        nf_timer_start(&f->guard, nf_now() + index * UDP_STAGGER_NS);
    return 0;
}

int client_start(const struct iperf_options *options)
{
    client.options = *options;
    client.both = options->tradeoff || options->dual;
    client.patience.fire = on_impatient;
    if (client.both) {
        client.incoming = options->parallel;
        if (server_listen(options, !options->udp, options->udp, on_incoming_done))
            return 1;
    }
    client.running = 1; /* so that an early failure of one does not end the program before the others started */
    for (uint32_t i = 0; i < options->parallel; i++) {
        if (start_flow(options, i)) {
            nf_print(NF_LOG, "iperf: no room for %u flows\n", options->parallel);
            return 1;
        }
    }
    client.running--;
    if (!client.running)
        return 1;
    return NF_RUN;
}
