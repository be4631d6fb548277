/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Codec of iperf 2's messages. Every byte of the peer's goes through this file; it is the fuzzer's first target.
 * Called by server.c, client.c and flow_udp.c.
 */
#include "wire.h"

/* First word of a test header. */
#define FLAG_VERSION1 0x80000000u
#define FLAG_EXTENDED 0x40000000u
#define FLAG_UDP      0x20000000u
#define FLAG_SEQ64    0x08000000u
#define FLAG_VERSION2 0x04000000u
#define FLAG_LENGTH   0x00010000u
#define LENGTH_MASK   0x000001feu /* bytes, prefix included, shifted left by one */
#define FLAG_AT_ONCE  0x00000001u

/* Upper half of the extension's flag word. */
#define UPPER_NO_REPORT   0x0008u
#define UPPER_PPS         0x0080u
#define UPPER_REVERSE     0x0400u
#define UPPER_FULL_DUPLEX 0x0800u

/* We speak as 2.1.8 does: major, minor; revision, release. */
#define VERSION_UPPER 0x00020001u
#define VERSION_LOWER 0x00080003u

enum { V1_SIZE = 24, TYPE_ACK = 2, NS_PER_US = 1000 };

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static void parse_extension(const uint8_t *h, struct wire_test *t)
{
    uint32_t upper = get32(h + 32) >> 16;
    t->reverse = upper & UPPER_REVERSE;
    t->full_duplex = upper & UPPER_FULL_DUPLEX;
    t->no_report = upper & UPPER_NO_REPORT;
    t->rate_is_pps = upper & UPPER_PPS;
    t->rate = (uint64_t)get32(h + 52) << 32 | get32(h + 48);
}

int wire_parse(const uint8_t *data, size_t size, size_t prefix, struct wire_test *ret_test, size_t *ret_size)
{
    struct wire_test t = {0};
    if (size < prefix + 4)
        return (int)prefix + 4;
    const uint8_t *h = data + prefix;
    uint32_t flags = get32(h);
    if (!(flags & (FLAG_VERSION1 | FLAG_EXTENDED))) {
        *ret_size = 0;
        return 0;
    }
    size_t total = flags & FLAG_LENGTH ? (flags & LENGTH_MASK) >> 1 : prefix + V1_SIZE;
    if (total < prefix + V1_SIZE)
        return NF_INVALID;
    if (size < total)
        return (int)total;
    uint32_t port = get32(h + 8);
    if (port > UINT16_MAX)
        return NF_INVALID;
    t.both = flags & FLAG_VERSION1;
    t.at_once = flags & FLAG_AT_ONCE;
    t.seq64 = flags & FLAG_SEQ64;
    t.udp = flags & FLAG_UDP;
    t.threads = get32(h + 4);
    t.port = (uint16_t)port;
    t.length = get32(h + 12);
    t.amount = (int32_t)get32(h + 20);
    if (flags & FLAG_EXTENDED && total >= prefix + WIRE_HEADER)
        parse_extension(h, &t);
    /* The band field of the old header is the rate where there is no extension. */
    if (!(flags & FLAG_EXTENDED))
        t.rate = get32(h + 16);
    t.wants_ack = flags & FLAG_EXTENDED && !t.reverse && !t.full_duplex;
    *ret_test = t;
    *ret_size = total;
    return 0;
}

void wire_build(const struct wire_test *t, size_t prefix, uint8_t *ret_header)
{
    uint8_t *h = ret_header + prefix;
    bool backward = t->reverse || t->full_duplex;
    uint32_t flags = FLAG_EXTENDED | FLAG_LENGTH | (uint32_t)(prefix + WIRE_HEADER) << 1;
    uint32_t upper = 0;
    flags |= t->both ? FLAG_VERSION1 : 0;
    flags |= t->both && t->at_once ? FLAG_AT_ONCE : 0;
    flags |= t->seq64 ? FLAG_SEQ64 : 0;
    flags |= backward ? FLAG_VERSION2 : 0;
    flags |= t->udp && backward ? FLAG_UDP : 0;
    upper |= t->reverse ? UPPER_REVERSE : 0;
    upper |= t->full_duplex ? UPPER_FULL_DUPLEX : 0;
    upper |= t->no_report ? UPPER_NO_REPORT : 0;
    upper |= t->rate_is_pps ? UPPER_PPS : 0;
    memset(ret_header, 0, prefix + WIRE_HEADER);
    put32(h, flags);
    put32(h + 4, t->threads);
    put32(h + 8, t->port);
    put32(h + 12, t->length);
    put32(h + 20, (uint32_t)t->amount);
    put32(h + 32, upper << 16);
    put32(h + 36, VERSION_UPPER);
    put32(h + 40, VERSION_LOWER);
    put32(h + 48, (uint32_t)t->rate);
    put32(h + 52, (uint32_t)(t->rate >> 32));
}

void wire_build_ack(uint8_t ret_ack[WIRE_ACK])
{
    memset(ret_ack, 0, WIRE_ACK);
    put32(ret_ack, TYPE_ACK);
    put32(ret_ack + 4, WIRE_ACK);
    put32(ret_ack + 12, VERSION_UPPER);
    put32(ret_ack + 16, VERSION_LOWER);
}

void wire_build_prefix(const struct wire_prefix *prefix, uint8_t ret_bytes[WIRE_DATAGRAM])
{
    put32(ret_bytes, (uint32_t)prefix->seq);
    put32(ret_bytes + 4, (uint32_t)(prefix->sent / 1000000000));
    put32(ret_bytes + 8, (uint32_t)(prefix->sent % 1000000000 / NS_PER_US));
    put32(ret_bytes + 12, (uint32_t)((uint64_t)prefix->seq >> 32));
}

void wire_parse_prefix(const uint8_t *data, bool seq64, struct wire_prefix *ret_prefix)
{
    uint32_t low = get32(data);
    ret_prefix->seq = seq64 ? (int64_t)((uint64_t)get32(data + 12) << 32 | low) : (int32_t)low;
    ret_prefix->sent = get32(data + 4) * 1000000000ull + (uint64_t)get32(data + 8) * NS_PER_US;
}

/* A time as seconds and microseconds; a negative one has both parts negative. */
static void put_time(uint8_t *p, int64_t ns)
{
    int64_t us = ns / NS_PER_US;
    put32(p, (uint32_t)(us / 1000000));
    put32(p + 4, (uint32_t)(us % 1000000));
}

static void put_split(uint8_t *low, uint8_t *high, uint64_t v)
{
    put32(low, (uint32_t)v);
    put32(high, (uint32_t)(v >> 32));
}

void wire_build_report(const struct wire_report *r, uint8_t ret_bytes[WIRE_REPORT])
{
    uint8_t *b = ret_bytes;
    int64_t mean = r->transit_count ? r->transit_sum / (int64_t)r->transit_count : 0;
    uint64_t ms = r->duration / 1000000;
    memset(b, 0, WIRE_REPORT);
    put32(b + 16, FLAG_VERSION1 | FLAG_SEQ64);
    put_split(b + 24, b + 20, r->bytes);
    put_time(b + 28, (int64_t)r->duration);
    put_split(b + 36, b + 116, r->lost);
    put_split(b + 40, b + 120, r->out_of_order);
    put_split(b + 44, b + 124, r->datagrams);
    put_time(b + 48, (int64_t)r->jitter);
    put_time(b + 56, r->transit_min);
    put_time(b + 64, r->transit_max);
    put_time(b + 72, r->transit_sum);
    put_time(b + 80, mean);
    put32(b + 104, (uint32_t)r->transit_count);
    put32(b + 108, (uint32_t)(ms ? r->datagrams * 1000 / ms : 0));
    put32(b + 112, 1);
}

static uint64_t get_split(const uint8_t *low, const uint8_t *high)
{
    return (uint64_t)get32(high) << 32 | get32(low);
}

static uint64_t get_time(const uint8_t *p)
{
    return get32(p) * 1000000000ull + (uint64_t)get32(p + 4) * NS_PER_US;
}

bool wire_parse_report(const uint8_t *b, size_t size, struct wire_report *ret_report)
{
    struct wire_report r = {0};
    enum { OLD_REPORT = 56 };
    if (size < OLD_REPORT)
        return false;
    uint32_t flags = get32(b + 16);
    if (!(flags & FLAG_VERSION1))
        return false;
    bool wide = flags & FLAG_SEQ64 && size >= WIRE_REPORT;
    static const uint8_t zero[4];
    r.bytes = get_split(b + 24, b + 20);
    r.duration = get_time(b + 28);
    r.lost = get_split(b + 36, wide ? b + 116 : zero);
    r.out_of_order = get_split(b + 40, wide ? b + 120 : zero);
    r.datagrams = get_split(b + 44, wide ? b + 124 : zero);
    r.jitter = get_time(b + 48);
    *ret_report = r;
    return true;
}
