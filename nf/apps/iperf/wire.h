/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iperf 2's messages on the wire, as seen between peers of version 2.1.8: the test header that opens a TCP stream and
 * follows the 16-byte prefix of every datagram, the acknowledgement of a TCP header, and the receiver's final report
 * of a UDP test. Pure: no state, no I/O. All integers are big-endian.
 */
#ifndef IPERF_WIRE_H
#define IPERF_WIRE_H

#include "../../platform/platform.h"

enum {
    WIRE_HEADER = 60,      /* the header we send */
    WIRE_HEADER_MAX = 255, /* the longest whose length its field can say */
    WIRE_DATAGRAM = 16,    /* sequence number and time before it, in a datagram */
    WIRE_ACK = 28,
    WIRE_REPORT = 128, /* with the prefix */
};

/* What a client asks of a server. */
struct wire_test {
    bool both;        /* version 1: the server is to connect back as a client (-r, -d) */
    bool at_once;     /* ... while the client sends (-d), not after it */
    bool reverse;     /* the server sends on this connection (-R) */
    bool full_duplex; /* both send on this connection */
    bool udp;         /* set by a UDP client that wants the server to send on this socket */
    bool seq64;       /* sequence numbers have 64 bits */
    bool no_report;   /* UDP: no final report is waited for */
    bool wants_ack;   /* TCP: WIRE_ACK is expected */
    bool rate_is_pps; /* rate counts packets, not bits */
    uint16_t port;    /* where the client listens, for both */
    uint32_t threads;
    uint32_t length; /* of a write or a datagram; 0: the default */
    int32_t amount;  /* bytes, or when negative 1/100 s; 0: not said */
    uint64_t rate;   /* per second; 0: as fast as it goes */
};

/*
 * Looks for a header at the start of data. Returns 0 when there is one (*ret_test and *ret_size are set) or when there
 * is none (*ret_size is 0: plain data), the number of bytes needed in all when data is too short to tell, or
 * NF_INVALID when the header contradicts itself. prefix: WIRE_DATAGRAM for a datagram (counted in size), 0 for TCP.
 */
int wire_parse(const uint8_t *data, size_t size, size_t prefix, struct wire_test *ret_test, size_t *ret_size);

/* Writes prefix zero bytes (they are the caller's) and WIRE_HEADER bytes. */
void wire_build(const struct wire_test *test, size_t prefix, uint8_t *ret_header);

void wire_build_ack(uint8_t ret_ack[WIRE_ACK]);

/* The prefix of a datagram. seq counts from 1; the last datagram of a test carries -seq. */
struct wire_prefix {
    int64_t seq;
    uint64_t sent; /* wall clock, ns */
};

void wire_build_prefix(const struct wire_prefix *prefix, uint8_t ret_bytes[WIRE_DATAGRAM]);

/* seq64 false: the upper half is not looked at. data has at least WIRE_DATAGRAM bytes. */
void wire_parse_prefix(const uint8_t *data, bool seq64, struct wire_prefix *ret_prefix);

/* What the receiver of datagrams tells their sender at the end. */
struct wire_report {
    uint64_t bytes, duration; /* ns */
    uint64_t lost, out_of_order, datagrams;
    uint64_t jitter;                               /* ns */
    int64_t transit_min, transit_max, transit_sum; /* ns */
    uint64_t transit_count;
};

void wire_build_report(const struct wire_report *report, uint8_t ret_bytes[WIRE_REPORT]);

/* Returns false when it is no report. */
bool wire_parse_report(const uint8_t *data, size_t size, struct wire_report *ret_report);

#endif
