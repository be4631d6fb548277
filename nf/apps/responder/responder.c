/* SPDX-License-Identifier: Apache-2.0 */
/*
 * responder: answers. TCP and UDP echo (RFC 862) on one port, HTTP 200 on another; the thing to probe for "is it up",
 * round trips and requests per second. ICMP echo is answered by the network stack below.
 *
 * Bounded: MAX_CLIENTS connections of one small buffer each; a silent one is closed after IDLE_NS, and the one silent
 * longest makes room for a new one. A connection whose answer is not read is not read from either.
 */
#include "../programs.h"

enum { MAX_CLIENTS = 128, BUFFER = 2048, LOWEST_PEER_PORT = 1024 };

#define IDLE_NS 30000000000ull

static const char http_head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n";

struct client {
    bool used, http, ended, close_after;
    unsigned matched; /* how much of an empty line was seen */
    size_t used_bytes, sent_bytes, pending_answers, line;
    uint64_t last;
    struct nf_tcp *tcp;
    struct nf_timer idle;
    char first[16]; /* of the request line's end: its version decides on keep-alive */
    uint8_t buffer[BUFFER];
};

static struct client clients[MAX_CLIENTS];
static size_t high;

static void release(struct client *c)
{
    nf_timer_stop(&c->idle);
    if (c->tcp)
        nf_tcp_close(c->tcp);
    c->tcp = NULL;
    c->used = false;
}

static void on_idle(struct nf_timer *timer)
{
    struct client *c = timer->context;
    if (nf_now() - c->last >= IDLE_NS)
        release(c);
    else
        nf_timer_start(timer, c->last + IDLE_NS);
}

/* Sends what is in the buffer; then, for HTTP, the answers that are due. */
static void flush(struct client *c)
{
    while (c->sent_bytes < c->used_bytes || c->pending_answers) {
        if (c->sent_bytes == c->used_bytes) {
            memcpy(c->buffer, http_head, sizeof http_head - 1);
            c->used_bytes = sizeof http_head - 1;
            c->sent_bytes = 0;
            c->pending_answers--;
        }
        long n = nf_tcp_send(c->tcp, c->buffer + c->sent_bytes, c->used_bytes - c->sent_bytes, NF_COPY);
        if (n <= 0) {
            nf_tcp_limit_receive(c->tcp, 0);
            nf_tcp_want_write(c->tcp, true);
            return;
        }
        c->sent_bytes += (size_t)n;
    }
    c->sent_bytes = c->used_bytes = 0;
    if (c->ended || c->close_after) {
        release(c);
        return;
    }
    nf_tcp_want_write(c->tcp, false);
    nf_tcp_limit_receive(c->tcp, BUFFER);
}

static void on_writable(struct nf_tcp *tcp, void *context)
{
    (void)tcp;
    flush(context);
}

/* Counts requests: each ends with an empty line. Bodies are not expected; what follows is the next request. */
static void parse_http(struct client *c, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size && !c->close_after; i++) {
        uint8_t b = data[i];
        if (b == '\n' && !c->matched) {
            c->matched = 1;
            /* Of the first line the last bytes are kept: HTTP/1.0 has no keep-alive unless it says so. */
            if (!memcmp(c->first + sizeof c->first - 8, "HTTP/1.0", 8))
                c->line = 1;
        } else if (b == '\n') {
            c->pending_answers++;
            c->close_after = c->line == 1;
            c->matched = 0;
            c->line = 0;
        } else if (b != '\r') {
            memmove(c->first, c->first + 1, sizeof c->first - 1);
            c->first[sizeof c->first - 1] = (char)b;
            c->matched = 0;
        }
    }
}

static void on_receive(struct nf_tcp *tcp, void *context, const uint8_t *data, size_t size)
{
    struct client *c = context;
    (void)tcp;
    c->last = nf_now();
    if (c->http) {
        parse_http(c, data, size);
    } else {
        memcpy(c->buffer, data, size); /* at most BUFFER: receiving is limited to that, and off while it is full */
        c->used_bytes = size;
        c->sent_bytes = 0;
    }
    flush(c);
}

static void on_end(struct nf_tcp *tcp, void *context)
{
    struct client *c = context;
    (void)tcp;
    c->ended = true;
    flush(c);
}

static void on_failed(struct nf_tcp *tcp, void *context, int error)
{
    struct client *c = context;
    (void)tcp;
    (void)error;
    c->tcp = NULL;
    release(c);
}

static const struct nf_tcp_ops tcp_ops = {
    .receive = on_receive, .writable = on_writable, .end = on_end, .failed = on_failed};

static struct client *find_room(void)
{
    struct client *oldest = NULL;
    for (size_t i = 0; i < high; i++) {
        if (!clients[i].used)
            return &clients[i];
        if (!oldest || clients[i].last < oldest->last)
            oldest = &clients[i];
    }
    if (high < MAX_CLIENTS)
        return &clients[high++];
    nf_tcp_abort(oldest->tcp);
    oldest->tcp = NULL;
    release(oldest);
    return oldest;
}

static bool on_accept(struct nf_tcp *tcp, const struct nf_addr *peer, void *context)
{
    struct client *c = find_room();
    (void)peer;
    memset(c, 0, sizeof *c);
    c->used = true;
    c->http = context != NULL;
    c->tcp = tcp;
    c->last = nf_now();
    c->idle.fire = on_idle;
    c->idle.context = c;
    nf_timer_start(&c->idle, c->last + IDLE_NS);
    nf_tcp_attach(tcp, &tcp_ops, c);
    nf_tcp_limit_receive(tcp, BUFFER);
    return true;
}

/* Datagrams from well-known ports are not answered: two echo services would keep each other busy for ever. */
static void on_datagram(struct nf_udp *udp, void *context, const struct nf_addr *from, const uint8_t *data, size_t size,
                        uint64_t received)
{
    (void)context;
    (void)received;
    if (from->port >= LOWEST_PEER_PORT)
        nf_udp_send(udp, from, data, size, NULL, 0);
}

static const struct nf_udp_ops udp_ops = {.receive = on_datagram};

static bool parse_port(const char *text, uint16_t *ret_port)
{
    unsigned value = 0;
    for (const char *t = text; *t; t++) {
        if (*t < '0' || *t > '9' || value > UINT16_MAX)
            return false;
        value = value * 10 + (unsigned)(*t - '0');
    }
    *ret_port = (uint16_t)value;
    return *text && value <= UINT16_MAX;
}

int responder_main(int argc, char **argv)
{
    static bool http_mark;
    struct nf_addr echo = {.port = 7}, http = {.port = 80};
    for (int i = 1; i < argc; i += 2) {
        struct nf_addr *which = !strcmp(argv[i], "-e") ? &echo : !strcmp(argv[i], "-w") ? &http : NULL;
        if (!which || !argv[i + 1] || !parse_port(argv[i + 1], &which->port)) {
            nf_print(NF_LOG, "Usage: responder [-e ECHO_PORT] [-w HTTP_PORT]   (defaults 7 and 80; 0: none)\n");
            return 2;
        }
    }
    struct nf_listener *listener;
    struct nf_udp *udp;
    int error = echo.port ? nf_tcp_listen(&echo, on_accept, NULL, &listener) : 0;
    if (!error && echo.port)
        error = nf_udp_open(&echo, NULL, &udp_ops, NULL, &udp);
    if (!error && http.port)
        error = nf_tcp_listen(&http, on_accept, &http_mark, &listener);
    if (error) {
        nf_print(NF_LOG, "responder: cannot listen: %s\n", nf_error_text(error));
        return 1;
    }
    nf_print(NF_OUTPUT, "responder: echo on port %u, HTTP on port %u\n", echo.port, http.port);
    return NF_RUN;
}
