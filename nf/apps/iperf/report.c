/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prints what flows did: iperf's text, its comma-separated values, or one JSON object per line.
 *
 * No floating point: quotients are made of integers. Called by every other file of iperf, in its one thread.
 */
#include "flow.h"

static struct {
    enum iperf_style style;
    uint64_t interval;
    struct nf_timer timer;
    bool header[2]; /* the table's head was printed: without and with datagrams */
    uint64_t trouble_at;
    unsigned trouble_muted;
} report;

enum direction { TX, RX };

/* What one line says. */
struct line {
    const struct flow *flow; /* NULL: a sum */
    enum direction direction;
    uint64_t begin, end; /* since the flow's start, ns */
    uint64_t bytes, datagrams, lost, out_of_order, jitter;
    bool with_loss, is_final, from_peer;
};

/* Three digits, rounded: 1.05, 10.5, 105, and the prefix. */
static void put_scaled(char *buf, size_t size, uint64_t value, uint64_t step, const char *const units[])
{
    unsigned __int128 unit = 1;
    int i = 0;
    while (i < 4 && value >= unit * step) {
        unit *= step;
        i++;
    }
    uint64_t hundredths = (uint64_t)(((unsigned __int128)value * 100 + unit / 2) / unit);
    if (hundredths >= 9995 || i == 0)
        nf_format(buf, size, "%4llu %s", (unsigned long long)(hundredths + 50) / 100, units[i]);
    else if (hundredths >= 1000)
        nf_format(buf, size, "%llu.%llu %s", (unsigned long long)(hundredths + 5) / 100,
                  (unsigned long long)(hundredths + 5) / 10 % 10, units[i]);
    else
        nf_format(buf, size, "%llu.%02llu %s", (unsigned long long)hundredths / 100,
                  (unsigned long long)hundredths % 100, units[i]);
}

static const char *const byte_units[] = {"Bytes", "KBytes", "MBytes", "GBytes", "TBytes"};
static const char *const bit_units[] = {"bits/sec", "Kbits/sec", "Mbits/sec", "Gbits/sec", "Tbits/sec"};

/* 8e9 * bytes / ns without overflow for any run shorter than centuries. */
static uint64_t bits_per_second(uint64_t bytes, uint64_t ns)
{
    if (!ns)
        return 0;
    return (uint64_t)((unsigned __int128)bytes * 8 * NS_PER_S / ns);
}

static void put_seconds(char *buf, size_t size, uint64_t ns, int digits)
{
    uint64_t unit = NS_PER_S;
    for (int i = 0; i < digits; i++)
        unit /= 10;
    ns += unit / 2;
    nf_format(buf, size, "%llu.%0*llu", (unsigned long long)(ns / NS_PER_S), digits,
              (unsigned long long)(ns % NS_PER_S / unit));
}

static void put_ms(char *buf, size_t size, uint64_t ns)
{
    nf_format(buf, size, "%llu.%03llu", (unsigned long long)(ns / 1000000), (unsigned long long)(ns / 1000 % 1000));
}

static const char *tag(const struct line *l, char *buf, size_t size)
{
    if (!l->flow)
        return "SUM";
    bool star = l->flow->client ? l->direction == RX : l->flow->receives && l->direction == TX;
    nf_format(buf, size, "%s%u", star ? "*" : l->flow->id < 10 ? " " : "", l->flow->id);
    return buf;
}

static void print_text(const struct line *l)
{
    char id[16], begin[32], end[32], bytes[32], rate[32], jitter[32];
    if (!report.header[l->with_loss]) {
        report.header[l->with_loss] = true;
        report.header[!l->with_loss] = false;
        nf_print(NF_OUTPUT, "[ ID] Interval       Transfer     Bandwidth%s\n",
                 l->with_loss ? "        Jitter   Lost/Total Datagrams" : "");
    }
    put_seconds(begin, sizeof begin, l->begin, 4);
    put_seconds(end, sizeof end, l->end, 4);
    put_scaled(bytes, sizeof bytes, l->bytes, 1024, byte_units);
    put_scaled(rate, sizeof rate, bits_per_second(l->bytes, l->end - l->begin), 1000, bit_units);
    nf_print(NF_OUTPUT, "[%3s] %s-%s sec  %s  %s", tag(l, id, sizeof id), begin, end, bytes, rate);
    if (l->with_loss) {
        put_ms(jitter, sizeof jitter, l->jitter);
        uint64_t permille = l->datagrams ? (uint64_t)((unsigned __int128)l->lost * 1000 / l->datagrams) : 0;
        nf_print(NF_OUTPUT, "   %s ms %llu/%llu (%llu", jitter, (unsigned long long)l->lost,
                 (unsigned long long)l->datagrams, (unsigned long long)permille / 10);
        nf_print(NF_OUTPUT, l->lost ? ".%llu%%)" : "%%)", (unsigned long long)permille % 10);
    }
    nf_print(NF_OUTPUT, "\n");
    if (!l->is_final || !l->flow)
        return;
    if (l->with_loss && l->out_of_order)
        nf_print(NF_OUTPUT, "[%3s] %llu datagrams received out-of-order\n", tag(l, id, sizeof id),
                 (unsigned long long)l->out_of_order);
    if (l->flow->udp && l->direction == TX && !l->from_peer)
        nf_print(NF_OUTPUT, "[%3s] Sent %llu datagrams\n", tag(l, id, sizeof id), (unsigned long long)l->datagrams);
}

/* YYYYMMDDhhmmss in UTC, by the days-from-civil arithmetic. */
static void put_date(char *buf, size_t size)
{
    uint64_t t = nf_wall_clock() / NS_PER_S;
    uint64_t days = t / 86400 + 719468, s = t % 86400;
    uint64_t era = days / 146097, doe = days % 146097;
    uint64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    uint64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    uint64_t mp = (5 * doy + 2) / 153;
    uint64_t month = mp < 10 ? mp + 3 : mp - 9;
    nf_format(buf, size, "%04llu%02llu%02llu%02llu%02llu%02llu", (unsigned long long)(yoe + era * 400 + (month <= 2)),
              (unsigned long long)month, (unsigned long long)(doy - (153 * mp + 2) / 5 + 1),
              (unsigned long long)(s / 3600), (unsigned long long)(s / 60 % 60), (unsigned long long)(s % 60));
}

static void print_csv(const struct line *l)
{
    char date[24], local[NF_ADDR_TEXT] = "", peer[NF_ADDR_TEXT] = "", begin[32], end[32], jitter[32];
    const struct flow *f = l->flow;
    put_date(date, sizeof date);
    if (f) {
        nf_addr_text(&f->local, local, sizeof local);
        nf_addr_text(&f->peer, peer, sizeof peer);
    }
    put_seconds(begin, sizeof begin, l->begin, 1);
    put_seconds(end, sizeof end, l->end, 1);
    nf_print(NF_OUTPUT, "%s,%s,%u,%s,%u,%d,%s-%s,%llu,%llu", date, local, f ? f->local.port : 0, peer,
             f ? f->peer.port : 0, f ? (int)f->id : -1, begin, end, (unsigned long long)l->bytes,
             (unsigned long long)bits_per_second(l->bytes, l->end - l->begin));
    if (l->with_loss) {
        uint64_t permille = l->datagrams ? (uint64_t)((unsigned __int128)l->lost * 1000 / l->datagrams) : 0;
        put_ms(jitter, sizeof jitter, l->jitter);
        nf_print(NF_OUTPUT, ",%s,%llu,%llu,%llu.%03llu,%llu", jitter, (unsigned long long)l->lost,
                 (unsigned long long)l->datagrams, (unsigned long long)permille / 10,
                 (unsigned long long)permille % 10 * 100, (unsigned long long)l->out_of_order);
    }
    nf_print(NF_OUTPUT, "\n");
}

static void print_json(const struct line *l)
{
    char local[NF_ADDR_TEXT], peer[NF_ADDR_TEXT], begin[32], end[32], jitter[32];
    const struct flow *f = l->flow;
    put_seconds(begin, sizeof begin, l->begin, 6);
    put_seconds(end, sizeof end, l->end, 6);
    nf_print(NF_OUTPUT, "{\"event\": \"%s\"",
             !f             ? "sum"
             : l->from_peer ? "server_report"
             : l->is_final  ? "end"
                            : "interval");
    if (f)
        nf_print(NF_OUTPUT,
                 ", \"id\": %u, \"role\": \"%s\", \"protocol\": \"%s\", \"local\": \"%s\", \"local_port\": %u, "
                 "\"peer\": \"%s\", \"peer_port\": %u",
                 f->id, f->client ? "client" : "server", f->udp ? "udp" : "tcp",
                 nf_addr_text(&f->local, local, sizeof local), f->local.port, nf_addr_text(&f->peer, peer, sizeof peer),
                 f->peer.port);
    nf_print(NF_OUTPUT,
             ", \"direction\": \"%s\", \"begin_s\": %s, \"end_s\": %s, \"bytes\": %llu, "
             "\"bits_per_second\": %llu",
             l->direction == TX ? "tx" : "rx", begin, end, (unsigned long long)l->bytes,
             (unsigned long long)bits_per_second(l->bytes, l->end - l->begin));
    if (f && f->udp)
        nf_print(NF_OUTPUT, ", \"datagrams\": %llu", (unsigned long long)l->datagrams);
    if (l->with_loss) {
        put_ms(jitter, sizeof jitter, l->jitter);
        nf_print(NF_OUTPUT, ", \"lost\": %llu, \"out_of_order\": %llu, \"jitter_ms\": %s", (unsigned long long)l->lost,
                 (unsigned long long)l->out_of_order, jitter);
    }
    if (f && l->is_final)
        nf_print(NF_OUTPUT, ", \"error\": %s%s%s", f->error ? "\"" : "", f->error ? nf_error_text(f->error) : "null",
                 f->error ? "\"" : "");
    nf_print(NF_OUTPUT, "}\n");
}

static void print_line(const struct line *l)
{
    static void (*const printers[])(const struct line *) = {
        [STYLE_TEXT] = print_text, [STYLE_CSV] = print_csv, [STYLE_JSON] = print_json};
    printers[report.style](l);
}

static void report_direction(const struct flow *f, enum direction direction)
{
    const struct traffic *t = direction == TX ? &f->tx : &f->rx;
    struct line l = {.flow = f,
                     .direction = direction,
                     .end = t->last - t->start,
                     .bytes = t->bytes,
                     .datagrams = t->datagrams,
                     .lost = t->lost,
                     .out_of_order = t->out_of_order,
                     .jitter = t->jitter16 / 16,
                     .with_loss = f->udp && direction == RX,
                     .is_final = true};
    print_line(&l);
}

static void report_interval(struct flow *f, enum direction direction, uint64_t now)
{
    struct traffic *t = direction == TX ? &f->tx : &f->rx;
    struct line l = {.flow = f,
                     .direction = direction,
                     .begin = t->mark.time - t->start,
                     .end = now - t->start,
                     .bytes = t->bytes - t->mark.bytes,
                     .datagrams = t->datagrams - t->mark.datagrams,
                     .lost = t->lost > t->mark.lost ? t->lost - t->mark.lost : 0,
                     .jitter = t->jitter16 / 16,
                     .with_loss = f->udp && direction == RX};
    print_line(&l);
    t->mark.bytes = t->bytes;
    t->mark.datagrams = t->datagrams;
    t->mark.lost = t->lost;
    t->mark.time = now;
}

static void on_interval(struct nf_timer *timer)
{
    uint64_t now = nf_now();
    for (struct flow *f = flow_next(NULL); f; f = flow_next(f)) {
        if (!f->announced || f->reported)
            continue;
        if (f->sends && !f->tx_done)
            report_interval(f, TX, now);
        if (f->receives && !f->rx_done)
            report_interval(f, RX, now);
    }
    nf_timer_start(timer, timer->due + report.interval > now ? timer->due + report.interval : now + report.interval);
}

void report_open(const struct iperf_options *options)
{
    report.style = options->style;
    report.interval = options->interval;
    report.timer.fire = on_interval;
}

void report_listening(bool udp, uint16_t port)
{
    if (report.style == STYLE_TEXT)
        nf_print(NF_OUTPUT, "Server listening on %s port %u\n", udp ? "UDP" : "TCP", port);
}

void report_connected(const struct flow *flow)
{
    char local[NF_ADDR_TEXT], peer[NF_ADDR_TEXT];
    ((struct flow *)flow)->announced = true;
    if (report.interval && !report.timer.link)
        nf_timer_start(&report.timer, nf_now() + report.interval);
    if (report.style != STYLE_TEXT)
        return;
    nf_print(NF_OUTPUT, "[%3u] local %s port %u connected with %s port %u%s%s%s\n", flow->id,
             nf_addr_text(&flow->local, local, sizeof local), flow->local.port,
             nf_addr_text(&flow->peer, peer, sizeof peer), flow->peer.port, flow->note ? " (" : "",
             flow->note ? flow->note : "", flow->note ? ")" : "");
}

static void report_from_peer(const struct flow *f)
{
    struct line l = {.flow = f,
                     .direction = TX,
                     .end = f->report.duration,
                     .bytes = f->report.bytes,
                     .datagrams = f->report.datagrams,
                     .lost = f->report.lost,
                     .out_of_order = f->report.out_of_order,
                     .jitter = f->report.jitter,
                     .with_loss = true,
                     .is_final = true,
                     .from_peer = true};
    if (report.style == STYLE_TEXT)
        nf_print(NF_OUTPUT, "[%3u] Server Report:\n", f->id);
    print_line(&l);
}

/* What ended tests of this client did, for their sum. */
static struct {
    struct line line;
    unsigned count;
} sums[2];

static void add_to_sum(const struct flow *f, enum direction direction)
{
    const struct traffic *t = direction == TX ? &f->tx : &f->rx;
    struct line *s = &sums[direction].line;
    sums[direction].count++;
    s->direction = direction;
    s->bytes += t->bytes;
    s->end = t->last - t->start > s->end ? t->last - t->start : s->end;
}

void report_flow(struct flow *flow)
{
    flow->reported = true;
    if (flow->sends)
        report_direction(flow, TX);
    if (flow->receives)
        report_direction(flow, RX);
    if (flow->has_report)
        report_from_peer(flow);
    if (flow->error && flow->error != NF_NO_MEMORY && report.style == STYLE_TEXT)
        nf_print(NF_LOG, "iperf: [%3u] ended early: %s\n", flow->id, nf_error_text(flow->error));
    if (flow->client && flow->sends)
        add_to_sum(flow, TX);
    if (flow->client && flow->receives)
        add_to_sum(flow, RX);
}

void report_sum(void)
{
    for (int i = TX; i <= RX; i++) {
        if (sums[i].count > 1)
            print_line(&sums[i].line);
    }
    memset(sums, 0, sizeof sums);
}

void report_trouble(const char *what, const struct nf_addr *peer)
{
    char text[NF_ADDR_TEXT];
    uint64_t now = nf_now();
    if (report.trouble_at && now - report.trouble_at < NS_PER_S) {
        report.trouble_muted++;
        return;
    }
    nf_print(NF_LOG, "iperf: %s port %u: %s", nf_addr_text(peer, text, sizeof text), peer->port, what);
    if (report.trouble_muted)
        nf_print(NF_LOG, " (and %u more)", report.trouble_muted);
    nf_print(NF_LOG, "\n");
    report.trouble_at = now;
    report.trouble_muted = 0;
}
