/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The serving side: accepts connections and datagrams, reads what the peer asks, makes flows. Also what a client
 * listens with for -r and -d. Everything here is reachable by anyone who can send a packet.
 */
#include "flow.h"

enum { HEADER_S = 5, BACK_TRIES = 40 };

#define BACK_PAUSE_NS 50000000ull

static struct {
    struct nf_addr local;
    struct nf_listener *listener;
    struct nf_udp *udp;
    void (*done)(struct flow *flow);
} server;

static void connect_back(const struct flow *asked, unsigned tries);

/*
 * A client may ask before its listener stands (iperf 2.1.8 starts both at once, in two threads), and waits for ever
 * when we give up: so a refusal is tried again for a while.
 */
static void on_back_done(struct flow *flow)
{
    if (!flow->error || flow->announced)
        return;
    if (flow->error == NF_REFUSED && flow->tries < BACK_TRIES)
        connect_back(flow, flow->tries + 1);
    else
        report_trouble("cannot connect back for -r or -d", &flow->peer);
}

static void start_back(struct flow *f)
{
    int error = f->udp ? nf_udp_open(NULL, &f->peer, &flow_udp_ops, f, &f->sock)
                       : nf_tcp_connect(&f->peer, NULL, &flow_tcp_ops, f, &f->tcp);
    f->tries = f->udp ? 0 : f->tries; /* flow_udp.c counts repetitions with it */
    if (error)
        flow_finish(f, error);
    else if (f->udp)
        flow_udp_start(f);
}

static void on_back_turn(struct nf_timer *timer)
{
    start_back(timer->context);
}

/* The second half of -r and -d: we become the client's client. */
static void connect_back(const struct flow *asked, unsigned tries)
{
    struct nf_addr peer = asked->peer;
    peer.port = asked->test.port;
    struct flow *f = peer.port ? flow_new(asked->udp) : NULL;
    if (!f) {
        report_trouble("cannot connect back for -r or -d: no room, or port 0", &peer);
        return;
    }
    f->peer = peer;
    f->test = asked->test;
    f->sends = true;
    f->evictable = true;
    f->note = "reverse";
    f->asks_report = f->udp;
    f->done = on_back_done;
    f->tries = tries;
    flow_limit_from(f, &f->test);
    /* Datagrams are not repeated: the client's listener must stand before the first. */
    if (!tries && !(f->udp && f->test.at_once)) {
        start_back(f);
        return;
    }
    f->guard.fire = on_back_turn;
    nf_timer_start(&f->guard, nf_now() + BACK_PAUSE_NS);
}

static void on_done(struct flow *flow)
{
    if (flow->test.both && !flow->test.at_once && !flow->error)
        connect_back(flow, 0);
    if (server.done && flow->announced)
        server.done(flow);
}

/* Which way a test goes, from what the peer asked. */
static void set_directions(struct flow *flow, const struct wire_test *test)
{
    flow->test = *test;
    flow->sends = test->reverse || test->full_duplex;
    flow->receives = !test->reverse || test->full_duplex;
    flow->note = test->full_duplex ? "full-duplex" : test->reverse ? "reverse" : NULL;
    if (flow->sends)
        flow_limit_from(flow, test);
}

static void begin_tcp(struct flow *flow, const struct wire_test *test, size_t size)
{
    set_directions(flow, test);
    flow->header_size = 0;
    nf_tcp_attach(flow->tcp, &flow_tcp_ops, flow);
    flow_tcp_start(flow);
    if (test->wants_ack) {
        uint8_t ack[WIRE_ACK];
        wire_build_ack(ack);
        if (nf_tcp_send(flow->tcp, ack, sizeof ack, NF_COPY) < 0)
            return; /* `failed` follows */
    }
    flow_tcp_receive(flow, size);
    if (test->both && test->at_once)
        connect_back(flow, 0);
}

/* Gathers the header byte by byte if need be; what follows it, and itself, is counted as received. */
static void on_header(struct nf_tcp *tcp, void *context, const uint8_t *data, size_t size)
{
    struct flow *flow = context;
    (void)tcp;
    for (;;) {
        struct wire_test test = {0};
        size_t header;
        int need = wire_parse(flow->header, flow->header_size, 0, &test, &header);
        if (need < 0) {
            report_trouble("malformed header", &flow->peer);
            flow_finish(flow, need);
            return;
        }
        if (need == 0) {
            begin_tcp(flow, &test, flow->header_size + size);
            return;
        }
        size_t take = (size_t)need - flow->header_size;
        take = take < size ? take : size;
        if (!take)
            return;
        memcpy(flow->header + flow->header_size, data, take);
        flow->header_size += take;
        data += take;
        size -= take;
    }
}

/* A probe, or a plain stream shorter than a header's first word. */
static void on_header_end(struct nf_tcp *tcp, void *context)
{
    (void)tcp;
    flow_finish(context, 0);
}

static void on_header_failed(struct nf_tcp *tcp, void *context, int error)
{
    struct flow *flow = context;
    (void)tcp;
    flow->tcp = NULL;
    flow_finish(flow, error);
}

static void on_header_late(struct nf_timer *timer)
{
    flow_finish(timer->context, NF_TIMED_OUT);
}

static const struct nf_tcp_ops header_ops = {
    .receive = on_header,
    .end = on_header_end,
    .failed = on_header_failed,
};

static bool on_accept(struct nf_tcp *tcp, const struct nf_addr *peer, void *context)
{
    struct flow *flow = flow_new(false);
    (void)context;
    if (!flow) {
        report_trouble("refused, all flows are in use", peer);
        return false;
    }
    flow->tcp = tcp;
    flow->peer = *peer;
    flow->evictable = true;
    flow->done = on_done;
    flow->guard.fire = on_header_late;
    nf_timer_start(&flow->guard, flow->created + HEADER_S * NS_PER_S);
    nf_tcp_attach(tcp, &header_ops, flow);
    return true;
}

static struct flow *find_udp(const struct nf_addr *peer)
{
    for (struct flow *f = flow_next(NULL); f; f = flow_next(f)) {
        if (f->udp && f->done == on_done && nf_addr_equal(&f->peer, peer))
            return f;
    }
    return NULL;
}

static void begin_udp(const struct nf_addr *from, const struct wire_test *test, const uint8_t *data, size_t size,
                      uint64_t received)
{
    struct flow *flow = flow_new(true);
    if (!flow) {
        report_trouble("ignored, all UDP flows are in use", from);
        return;
    }
    flow->peer = *from;
    flow->evictable = true;
    flow->done = on_done;
    flow->seq64 = test->seq64;
    set_directions(flow, test);
    flow->gives_report = flow->receives && !test->no_report && !test->full_duplex;
    int error = nf_udp_open(&server.local, from, &flow_udp_ops, flow, &flow->sock);
    if (error) {
        report_trouble(nf_error_text(error), from);
        flow_finish(flow, error);
        return;
    }
    flow_udp_start(flow);
    flow_udp_receive(flow, data, size, received);
    if (test->both && test->at_once)
        connect_back(flow, 0);
}

static void on_datagram(struct nf_udp *udp, void *context, const struct nf_addr *from, const uint8_t *data, size_t size,
                        uint64_t received)
{
    struct wire_test test = {0};
    struct wire_prefix prefix;
    size_t header;
    (void)udp;
    (void)context;
    struct flow *flow = find_udp(from);
    if (flow) {
        flow_udp_receive(flow, data, size, received);
        return;
    }
    if (size < WIRE_DATAGRAM || !from->port)
        return;
    if (wire_parse(data, size, WIRE_DATAGRAM, &test, &header) < 0) {
        report_trouble("malformed header in a datagram", from);
        return;
    }
    wire_parse_prefix(data, test.seq64, &prefix);
    if (prefix.seq >= 0) /* the last datagram of a test we know nothing of opens nothing */
        begin_udp(from, &test, data, size, received);
}

static const struct nf_udp_ops datagram_ops = {.receive = on_datagram};

int server_listen(const struct iperf_options *options, bool tcp, bool udp, void (*done)(struct flow *flow))
{
    int error = 0;
    server.local = options->bind;
    server.local.port = options->client ? options->listen_port : options->port;
    if (options->ipv6 && !server.local.family)
        server.local.family = 6;
    server.done = done;
    if (tcp)
        error = nf_tcp_listen(&server.local, on_accept, NULL, &server.listener);
    if (!error && udp)
        error = nf_udp_open(&server.local, NULL, &datagram_ops, NULL, &server.udp);
    if (error) {
        nf_print(NF_LOG, "iperf: cannot listen on port %u: %s\n", server.local.port, nf_error_text(error));
        return error;
    }
    if (tcp)
        report_listening(false, server.local.port);
    if (udp)
        report_listening(true, server.local.port);
    return 0;
}
