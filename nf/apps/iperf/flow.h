/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A flow: one connection (TCP) or one peer (UDP) of a test, on either side, sending, receiving or both.
 *
 * Theory of operation
 *   server.c and client.c make flows and say which directions they have; flow_tcp.c and flow_udp.c move the bytes;
 *   report.c prints them. A flow ends when every direction it has is over, or its peer is lost: then it is reported,
 *   its maker's `done` is called, and it returns to a pool of fixed size. When the pool is empty the flow that has been
 *   silent longest makes room, so that peers which connect and say nothing cannot lock others out.
 */
#ifndef IPERF_FLOW_H
#define IPERF_FLOW_H

#include "../programs.h"
#include "options.h"
#include "wire.h"

#define NS_PER_S 1000000000ull

enum { MAX_FLOWS = 256, MAX_UDP_FLOWS = 100, DEFAULT_LENGTH = 128 * 1024, HEADER_ROOM = 256 };

/* One direction's counters. Times are nf_now()'s. */
struct traffic {
    uint64_t bytes, start, last;
    uint64_t datagrams, lost, out_of_order; /* UDP; datagrams: sent, or the highest number seen */
    uint64_t jitter16;                      /* 16 times the jitter of RFC 1889 A.8, ns */
    int64_t transit, transit_min, transit_max, transit_sum;
    uint64_t transits;
    struct {
        uint64_t bytes, datagrams, lost, time;
    } mark; /* at the last interval report */
};

struct flow {
    bool used, udp, sends, receives, started, tx_done, rx_done, announced, reported, evictable;
    bool seq64, asks_report, gives_report, blocked;
    unsigned id;
    struct nf_tcp *tcp;
    struct nf_udp *sock;
    struct nf_addr local, peer;
    bool client;      /* made by client.c */
    const char *note; /* for the reader of the report: "reverse" ... */
    int error;
    uint64_t created;
    struct traffic tx, rx;
    struct {
        uint64_t end, left, rate, next; /* ns; bytes; per second, 0: unlimited; when the next may go */
        uint32_t length;
        bool rate_is_pps;
    } limit;
    struct nf_timer pace, guard; /* the next write; a deadline */
    unsigned tries, refusals;
    void (*done)(struct flow *flow);
    struct wire_test test;
    bool has_report;
    struct wire_report report; /* UDP sender: what the receiver told */
    size_t header_size, header_sent;
    uint8_t header[HEADER_ROOM]; /* to be sent first; on a server, being received */
};

/* NULL when there is no room and nobody to evict. */
struct flow *flow_new(bool udp);

/* Every flow in use, in no order: pass NULL, then the last one. */
struct flow *flow_next(const struct flow *flow);

/* Sets what is sent: bytes (amount > 0) or for a time; length 0: the default. */
void flow_limit(struct flow *flow, uint64_t amount, uint64_t time, uint64_t rate, bool rate_is_pps, uint32_t length);

/* The same from a peer's header, made harmless. */
void flow_limit_from(struct flow *flow, const struct wire_test *test);

/* True when nothing more is to be sent; false sets how much may go now, or 0 and when. */
bool flow_budget(struct flow *flow, uint64_t now, size_t *ret_size, uint64_t *ret_when);
void flow_count_sent(struct flow *flow, uint64_t now, size_t size);

/* Reports, tells the maker, frees. error 0: it ended as it should. */
void flow_finish(struct flow *flow, int error);

/* The bytes that are sent: the digits, over and over. */
const uint8_t *flow_pattern(void);

/* ---- TCP ---- */
extern const struct nf_tcp_ops flow_tcp_ops;

/* The connection stands and it is known which directions it has. */
void flow_tcp_start(struct flow *flow);
void flow_tcp_receive(struct flow *flow, size_t size);

/* ---- UDP ---- */
extern const struct nf_udp_ops flow_udp_ops;
void flow_udp_start(struct flow *flow);
void flow_udp_receive(struct flow *flow, const uint8_t *data, size_t size, uint64_t received);

/* ---- reports (report.c) ---- */
void report_open(const struct iperf_options *options);
void report_listening(bool udp, uint16_t port);
void report_connected(const struct flow *flow);
void report_flow(struct flow *flow);
void report_sum(void);
/* Text only, and at most once a second: a flood of bad peers must not become a flood of lines. */
void report_trouble(const char *what, const struct nf_addr *peer);

/* ---- the two sides ---- */
int server_listen(const struct iperf_options *options, bool tcp, bool udp, void (*done)(struct flow *flow));
int client_start(const struct iperf_options *options);

#endif
