/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network functions against the simulated platform: text, options, the wire format as real peers send it, and the
 * server under good and bad peers. The captured bytes are what iperf 2.1.8 sent.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../nf/apps/iperf/flow.h"
#include "mock_platform.h"

static const uint8_t tcp_header[] = {0x40, 0x01, 0x00, 0x78, 0, 0, 0, 1, 0, 0, 0x13, 0x89, 0, 1, 0, 0, 0, 0, 0, 0,
                                     0,    4,    0,    0,    0, 0, 0, 0, 0, 0, 0,    0,    0, 0, 0, 0, 0, 2, 0, 1,
                                     0,    8,    0,    3,    0, 0, 0, 0, 0, 0, 0,    0,    0, 0, 0, 0, 0, 0, 0, 0};
static const uint8_t reverse_header[] = {0x44, 0x01, 0x00, 0x78, 0, 0, 0, 1, 0, 0, 0x13, 0x89, 0, 0, 0, 0, 0, 0, 0, 0,
                                         0,    4,    0,    0,    0, 0, 0, 0, 0, 0, 0,    0,    4, 0, 0, 0, 0, 2, 0, 1,
                                         0,    8,    0,    3,    0, 0, 0, 0, 0, 0, 0,    0,    0, 0, 0, 0, 0, 0, 0, 0};
static const uint8_t ack[] = {0, 0, 0, 2, 0, 0, 0, 0x1c, 0, 0, 0, 0, 0, 2, 0, 1, 0, 8, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0};
/* The report of a test of 8 datagrams, 7144 bytes, 0.048592 s, jitter 43 us. */
static const uint8_t udp_report[] = {
    0, 0, 0, 0,    0, 0, 0,    0,    0, 0, 0, 0, 0, 0, 0, 0,    0x88, 0,    0,    0,    0, 0, 0, 0, 0, 0, 0x1b, 0xe8,
    0, 0, 0, 0,    0, 0, 0xbd, 0xd0, 0, 0, 0, 0, 0, 0, 0, 0,    0,    0,    0,    8,    0, 0, 0, 0, 0, 0, 0,    0x2b,
    0, 0, 0, 0,    0, 0, 0,    0x3b, 0, 0, 0, 0, 0, 0, 1, 0x2f, 0,    0,    0,    0,    0, 0, 5, 3, 0, 0, 0,    0,
    0, 0, 0, 0xa0, 0, 0, 0xb1, 0xda, 0, 0, 0, 0, 0, 0, 0, 0,    0xff, 0xff, 0xff, 0x91, 0, 0, 0, 8, 0, 0, 0,    0xa4,
    0, 0, 0, 1,    0, 0, 0,    0,    0, 0, 0, 0, 0, 0, 0, 0};

enum { PORT = 5001 };

static struct nf_addr peer_of(unsigned n)
{
    return (struct nf_addr){.family = 4, .ip = {198, 18, (uint8_t)(n >> 8), (uint8_t)n}, .port = (uint16_t)(40000 + n)};
}

static void check_format(const char *format, ...)
{
    char ours[128], libc[128];
    va_list a, b;
    va_start(a, format);
    va_copy(b, a);
    int n = nf_vformat(ours, sizeof ours, format, a);
    int m = vsnprintf(libc, sizeof libc, format, b);
    va_end(a);
    va_end(b);
    assert_string_equal(ours, libc);
    assert_int_equal(n, m);
}

static void test_format(void **state)
{
    (void)state;
    check_format("plain %% text");
    check_format("%d %d %d %u", 0, -1, INT32_MIN, UINT32_MAX);
    check_format("%5d|%-5d|%05d|%05d|%-05d|", 42, 42, 42, -42, 42);
    check_format("%llu %lld %llu", ULLONG_MAX, LLONG_MIN, 0ULL);
    check_format("%x %08x %zu %ld", 0xdeadu, 0xbeefu, (size_t)-1, -5L);
    check_format("%s|%8s|%-8s|%.2s|%.0s|", "abc", "abc", "abc", "abc", "abc");
    check_format("%c%c %0*llu", 'a', 'b', 4, 7ULL);
    char small[4];
    assert_int_equal(nf_format(small, sizeof small, "%s", "abcdef"), 6);
    assert_string_equal(small, "abc");
    assert_int_equal(nf_format(small, 0, "%d", 12345), 5);
}

static void test_addresses(void **state)
{
    (void)state;
    static const char *const good[] = {
        "1.2.3.4",         "0.0.0.0", "255.255.255.255",   "::",        "::1",      "fd77::1",
        "1:2:3:4:5:6:7:8", "1::8",    "2001:db8::1:0:0:1", "1:0:0:2::", "fe80::1%7"};
    static const char *const bad[] = {"",
                                      "1.2.3",
                                      "1.2.3.4.5",
                                      "256.1.1.1",
                                      "1.2.3.4x",
                                      ":",
                                      ":::",
                                      "1::2::3",
                                      "1:2:3:4:5:6:7",
                                      "1:2:3:4:5:6:7:8:9",
                                      "12345::",
                                      "::g",
                                      "1:",
                                      ":1",
                                      "fe80::1%",
                                      "fe80::1%99999999999",
                                      "1.2.3.-4",
                                      "::1.2.3",
                                      "1:2:3:4:5:6:7::8:9"};
    char text[NF_ADDR_TEXT];
    struct nf_addr a = {0};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(nf_addr_parse(good[i], &a), 0);
        assert_string_equal(nf_addr_text(&a, text, sizeof text), good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (!nf_addr_parse(bad[i], &a))
            fail_msg("\"%s\" was taken", bad[i]);
    }
    srand(1);
    for (int i = 0; i < 20000; i++) {
        char libc[INET6_ADDRSTRLEN];
        struct nf_addr b = {0};
        for (int k = 0; k < 16; k++)
            a.ip[k] = rand() % 3 ? 0 : (uint8_t)rand();
        a.ip[0] |= 0x20; /* libc writes ::/96 with a dotted tail */
        a.family = 6;
        a.scope = 0;
        inet_ntop(AF_INET6, a.ip, libc, sizeof libc);
        assert_string_equal(nf_addr_text(&a, text, sizeof text), libc);
        assert_int_equal(nf_addr_parse(libc, &b), 0);
        assert_memory_equal(a.ip, b.ip, 16);
    }
    assert_int_equal(nf_addr_parse("::ffff:1.2.3.4", &a), 0);
    assert_memory_equal(a.ip, "\0\0\0\0\0\0\0\0\0\0\xff\xff\1\2\3\4", 16);
}

static bool parse(struct iperf_options *o, int *status, ...)
{
    char *argv[24] = {"iperf"};
    int argc = 1;
    va_list args;
    va_start(args, status);
    for (char *a; (a = va_arg(args, char *));)
        argv[argc++] = a;
    va_end(args);
    argv[argc] = NULL;
    mock_output_size = 0;
    mock_output[0] = 0;
    return iperf_options_parse(argc, argv, o, status);
}

static void test_options(void **state)
{
    (void)state;
    struct iperf_options o;
    int status = -1;
    assert_true(parse(&o, &status, "-c", "198.18.0.1", "-uRt2.5", "-b", "10m", "-l1K", "-P", "4", "--json", NULL));
    assert_true(o.client && o.udp && o.reverse && !o.server);
    assert_true(o.time == 2500000000ull && o.rate == 10000000 && o.length == 1024 && o.parallel == 4);
    assert_int_equal(o.style, STYLE_JSON);
    assert_int_equal(o.peer.port, PORT);
    assert_true(parse(&o, &status, "-c", "fd00::1", "-p", "6000", "-n", "1.5K", "--interval=0.5", "-y", "C", NULL));
    assert_true(o.amount == 1536 && o.interval == 500000000 && o.peer.port == 6000 && o.listen_port == 6000);
    assert_true(parse(&o, &status, "-s", NULL));
    assert_true(o.server && o.port == PORT);
    assert_true(parse(&o, &status, "-uc", "198.18.0.1", "-b", "100pps", NULL));
    assert_true(o.rate == 100 && o.rate_is_pps && o.length == UDP_LENGTH4);
    assert_false(parse(&o, &status, "--help", NULL));
    assert_int_equal(status, 0);
    static char *const bad[][6] = {
        {NULL},
        {"-s", "-c", "1.2.3.4"},
        {"-c"},
        {"-c", "host.example"},
        {"-s", "-p", "0"},
        {"-s", "-p", "65536"},
        {"-s", "-p", "-1"},
        {"-s", "-p", ""},
        {"-s", "-Q"},
        {"-s", "--nonsense"},
        {"-s", "--json=1"},
        {"-c", "1.2.3.4", "-t", "0"},
        {"-c", "1.2.3.4", "-t", "1x"},
        {"-c", "1.2.3.4", "-t", "99999999999999999999"},
        {"-c", "1.2.3.4", "-n", "99999999999G"},
        {"-c", "1.2.3.4", "-l", "17M"},
        {"-c", "1.2.3.4", "-b", "0"},
        {"-c", "1.2.3.4", "-b", "1mpps2"},
        {"-c", "1.2.3.4", "-P", "101"},
        {"-c", "1.2.3.4", "-r", "-d"},
        {"-c", "1.2.3.4", "-V"},
        {"-c", "1.2.3.4", "-B", "::1"},
        {"-c", "1.2.3.4", "-R", "-n", "3G"},
        {"-c", "1.2.3.4", "-u", "-l", "70000"},
        {"-c", "1.2.3.4", "-ur", "-l", "60"},
        {"word"},
        {"--"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        status = -1;
        if (parse(&o, &status, bad[i][0], bad[i][1], bad[i][2], bad[i][3], bad[i][4], bad[i][5], NULL))
            fail_msg("bad command line %zu was taken", i);
        assert_int_equal(status, 2);
        assert_non_null(strstr(mock_output, "iperf: "));
    }
}

static void test_wire_as_captured(void **state)
{
    (void)state;
    struct wire_test t;
    uint8_t bytes[WIRE_DATAGRAM + WIRE_HEADER], ours[WIRE_REPORT];
    size_t size;
    for (size_t n = 0; n < sizeof tcp_header; n++)
        assert_in_range(wire_parse(tcp_header, n, 0, &t, &size), n + 1, sizeof tcp_header);
    assert_int_equal(wire_parse(tcp_header, sizeof tcp_header, 0, &t, &size), 0);
    assert_int_equal(size, sizeof tcp_header);
    assert_true(t.amount == 0x40000 && t.length == 0x10000 && t.port == PORT && t.wants_ack && !t.both && !t.reverse);
    wire_build(&t, 0, bytes);
    assert_memory_equal(bytes, tcp_header, sizeof tcp_header);
    assert_int_equal(wire_parse(reverse_header, sizeof reverse_header, 0, &t, &size), 0);
    assert_true(t.reverse && !t.wants_ack && !t.full_duplex);
    wire_build(&t, 0, bytes);
    assert_memory_equal(bytes, reverse_header, sizeof reverse_header);
    wire_build_ack(ours);
    assert_memory_equal(ours, ack, sizeof ack);

    struct wire_report r;
    assert_true(wire_parse_report(udp_report, sizeof udp_report, &r));
    assert_true(r.bytes == 7144 && r.datagrams == 8 && r.lost == 0 && r.duration == 48592000 && r.jitter == 43000);
    assert_false(wire_parse_report(udp_report, 20, &r));
    wire_build_report(&r, ours);
    assert_memory_equal(ours, udp_report, 56); /* up to the jitter; what follows is statistics of transit times */
}

static void test_wire_plain_and_malformed(void **state)
{
    (void)state;
    struct wire_test t = {0};
    size_t size = 9;
    assert_int_equal(wire_parse((const uint8_t *)"0123456789", 10, 0, &t, &size), 0);
    assert_int_equal(size, 0);
    /* A header that says it is shorter than its fixed part, and one with an impossible port. */
    static const uint8_t tiny[60] = {0x40, 0x01, 0x00, 0x02};
    assert_int_equal(wire_parse(tiny, sizeof tiny, 0, &t, &size), NF_INVALID);
    uint8_t port[60];
    memcpy(port, tcp_header, sizeof port);
    port[8] = 0xff;
    assert_int_equal(wire_parse(port, sizeof port, 0, &t, &size), NF_INVALID);
    /* The longest that can be said is waited for, not more. */
    static const uint8_t longest[4] = {0xff, 0xff, 0xff, 0xff};
    assert_int_equal(wire_parse(longest, sizeof longest, 0, &t, &size), 255);
}

static void test_prefix(void **state)
{
    (void)state;
    static const int64_t numbers[] = {1, -1, INT32_MAX, (int64_t)1 << 40, -((int64_t)1 << 40), INT64_MIN, INT64_MAX};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        struct wire_prefix p = {.seq = numbers[i], .sent = 1234567890123456000ull}, q;
        uint8_t bytes[WIRE_DATAGRAM];
        wire_build_prefix(&p, bytes);
        wire_parse_prefix(bytes, true, &q);
        assert_true(q.seq == p.seq && q.sent == p.sent);
        wire_parse_prefix(bytes, false, &q);
        assert_true(q.seq == (int32_t)p.seq);
    }
}

static void reset_output(void)
{
    mock_output_size = 0;
    mock_output[0] = 0;
}

static void assert_output(const char *text)
{
    if (!strstr(mock_output, text))
        fail_msg("no \"%s\" in: %s", text, mock_output);
}

static int start_server(void **state)
{
    static char *argv[] = {"/iperf", "-s", "--json", NULL};
    (void)state;
    return nf_main(3, argv) == NF_RUN ? 0 : -1;
}

static void assert_quiet(void)
{
    mock_advance(200 * NS_PER_S);
    assert_int_equal(mock_count_tcp(), 0);
    assert_int_equal(mock_count_udp(), 1); /* the listening one */
    assert_null(flow_next(NULL));
}

/* The header comes byte by byte; all that came is counted, the acknowledgement is the real one's. */
static void test_server_counts(void **state)
{
    (void)state;
    struct nf_addr peer = peer_of(1);
    struct nf_tcp *t = mock_accept(PORT, &peer);
    assert_non_null(t);
    reset_output();
    for (size_t i = 0; i < sizeof tcp_header; i++) {
        assert_int_equal(t->sent, 0);
        mock_deliver(t, tcp_header + i, 1);
    }
    assert_int_equal(t->sent, sizeof ack);
    assert_memory_equal(t->kept, ack, sizeof ack);
    uint8_t data[1000] = {0};
    for (int i = 0; i < 10; i++)
        mock_deliver(t, data, sizeof data);
    mock_advance(NS_PER_S);
    mock_end(t);
    assert_false(t->used);
    assert_output("\"direction\": \"rx\"");
    assert_output("\"bytes\": 10060,");
    assert_output("\"error\": null");
    assert_quiet();
}

static void test_server_plain_stream(void **state)
{
    (void)state;
    struct nf_addr peer = peer_of(2);
    struct nf_tcp *t = mock_accept(PORT, &peer);
    reset_output();
    mock_deliver(t, (const uint8_t *)"01234567890", 11);
    mock_end(t);
    assert_output("\"bytes\": 11,");
    assert_int_equal(t->sent, 0);
    assert_quiet();
}

static void test_server_reverse(void **state)
{
    (void)state;
    struct nf_addr peer = peer_of(3);
    struct nf_tcp *t = mock_accept(PORT, &peer);
    reset_output();
    mock_deliver(t, reverse_header, sizeof reverse_header);
    t->room = 100000; /* a receiver that stops reading half way */
    mock_advance(NS_PER_S);
    assert_int_equal(t->sent, 100000);
    assert_false(t->shut);
    t->room = SIZE_MAX;
    mock_advance(NS_PER_S);
    assert_int_equal(t->sent, 0x40000);
    assert_true(t->shut);
    assert_memory_equal(t->kept, "0123456789", 10);
    mock_end(t);
    assert_output("\"bytes\": 262144,");
    assert_quiet();
}

/* Asked for a time, an unread connection ends at that time all the same. */
static void test_server_reverse_timed(void **state)
{
    (void)state;
    uint8_t header[sizeof reverse_header];
    memcpy(header, reverse_header, sizeof header);
    memcpy(header + 20, "\xff\xff\xff\x9c", 4); /* 1 s */
    for (int stuck = 0; stuck < 2; stuck++) {
        struct nf_addr peer = peer_of(4);
        mock_room = stuck ? 5 : SIZE_MAX;
        struct nf_tcp *t = mock_accept(PORT, &peer);
        mock_room = SIZE_MAX;
        memcpy(header + 12, "\0\0\x04\xe2", 4);   /* in writes of 1250 bytes */
        memcpy(header + 48, "\0\x0f\x42\x40", 4); /* 1 Mbit/s */
        mock_deliver(t, header, sizeof header);
        mock_advance(NS_PER_S * 99 / 100);
        assert_false(t->shut);
        mock_advance(NS_PER_S / 50);
        assert_true(t->shut);
        if (!stuck)
            assert_in_range(t->sent, 125000 - 1250, 125000 + 1250);
        mock_fail(t, NF_RESET);
    }
    assert_quiet();
}

static void test_server_connects_back(void **state)
{
    (void)state;
    uint8_t header[sizeof tcp_header];
    memcpy(header, tcp_header, sizeof header);
    header[0] = 0xc0;
    for (int at_once = 0; at_once < 2; at_once++) {
        struct nf_addr peer = peer_of(5);
        header[3] = (uint8_t)(0x78 | at_once);
        struct nf_tcp *t = mock_accept(PORT, &peer);
        mock_deliver(t, header, sizeof header);
        assert_true((mock_outgoing(PORT) != NULL) == at_once);
        mock_end(t);
        struct nf_tcp *back = mock_outgoing(PORT);
        assert_non_null(back);
        assert_memory_equal(back->peer.ip, peer.ip, 4);
        mock_connected(back);
        mock_advance(NS_PER_S);
        assert_int_equal(back->sent, 0x40000);
        mock_end(back);
    }
    assert_quiet();
}

/* The client's listener comes up late: refused for a while, then there. Never there: given up, and said. */
static void test_server_connects_back_late(void **state)
{
    (void)state;
    uint8_t header[sizeof tcp_header];
    memcpy(header, tcp_header, sizeof header);
    header[0] = 0xc0;
    header[3] = 0x79;
    for (int ever = 0; ever < 2; ever++) {
        struct nf_addr peer = peer_of(12);
        struct nf_tcp *t = mock_accept(PORT, &peer), *back;
        unsigned refused = 0;
        mock_deliver(t, header, sizeof header);
        reset_output();
        while ((back = mock_outgoing(PORT)) && !(ever && refused == 3)) {
            mock_fail(back, NF_REFUSED);
            assert_null(mock_outgoing(PORT)); /* not at once */
            mock_advance(60000000);
            refused++;
        }
        assert_true((back != NULL) == ever);
        assert_int_equal(refused, ever ? 3 : 41);
        if (ever) {
            mock_connected(back);
            mock_advance(NS_PER_S);
            assert_int_equal(back->sent, 0x40000);
            mock_end(back);
        } else {
            assert_output("cannot connect back");
        }
        mock_end(t);
    }
    assert_quiet();
}

static void test_server_bad_peers(void **state)
{
    (void)state;
    static const uint8_t tiny[4] = {0x40, 0x01, 0x00, 0x02};
    struct nf_addr peer = peer_of(6);
    struct nf_tcp *t = mock_accept(PORT, &peer);
    mock_deliver(t, tiny, sizeof tiny);
    assert_false(t->used);
    assert_true(t->aborted);
    /* Half a header, then silence. */
    t = mock_accept(PORT, &peer);
    mock_deliver(t, tcp_header, 30);
    mock_advance(4 * NS_PER_S);
    assert_true(t->used);
    mock_advance(2 * NS_PER_S);
    assert_false(t->used);
    /* Half a header, then the end, or a reset. */
    t = mock_accept(PORT, &peer);
    mock_deliver(t, tcp_header, 30);
    mock_end(t);
    assert_false(t->used);
    t = mock_accept(PORT, &peer);
    mock_deliver(t, tcp_header, 30);
    mock_fail(t, NF_RESET);
    /* A header and then silence: a minute. */
    t = mock_accept(PORT, &peer);
    mock_deliver(t, tcp_header, sizeof tcp_header);
    mock_advance(59 * NS_PER_S);
    assert_true(t->used);
    mock_advance(2 * NS_PER_S);
    assert_false(t->used);
    assert_quiet();
}

/* A thousand silent connections: the newest always gets in, a busy one is not thrown out for them. */
static void test_server_flood(void **state)
{
    (void)state;
    uint8_t data[100] = {0};
    struct nf_addr peer = peer_of(7);
    struct nf_tcp *busy = mock_accept(PORT, &peer);
    mock_deliver(busy, tcp_header, sizeof tcp_header);
    for (unsigned i = 0; i < 1000; i++) {
        peer = peer_of(1000 + i);
        assert_non_null(mock_accept(PORT, &peer));
        mock_advance(1000000);
        mock_deliver(busy, data, sizeof data);
        assert_in_range(mock_count_tcp(), 1, MAX_FLOWS);
    }
    assert_int_equal(mock_count_tcp(), MAX_FLOWS);
    assert_true(busy->used);
    reset_output();
    mock_end(busy);
    assert_output("\"bytes\": 100060,");
    assert_quiet();
}

/* The same by peers that do send a header: whoever is silent for a second makes room. */
static void test_server_flood_with_headers(void **state)
{
    (void)state;
    for (unsigned i = 0; i < MAX_FLOWS; i++) {
        struct nf_addr peer = peer_of(3000 + i);
        struct nf_tcp *t = mock_accept(PORT, &peer);
        mock_deliver(t, tcp_header, sizeof tcp_header);
    }
    struct nf_addr peer = peer_of(8);
    assert_null(mock_accept(PORT, &peer)); /* all are active */
    mock_advance(NS_PER_S + 1);
    assert_non_null(mock_accept(PORT, &peer));
    assert_quiet();
}

static size_t datagram(uint8_t *buf, int64_t seq, size_t size)
{
    struct wire_prefix p = {.seq = seq, .sent = nf_wall_clock()};
    struct wire_test t = {.seq64 = true, .port = PORT, .amount = -100, .threads = 1};
    memset(buf, 0, size);
    wire_build(&t, WIRE_DATAGRAM, buf);
    wire_build_prefix(&p, buf);
    return size;
}

static void test_udp_counts(void **state)
{
    (void)state;
    static const int64_t order[] = {1, 2, 5, 4, 6, 9, -10, -10, -10};
    struct nf_addr peer = peer_of(9);
    struct wire_report r;
    uint8_t buf[1000];
    reset_output();
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        /* Every second one is 1.6 ms late: D is 1.6 ms each time, so the jitter rises towards it. */
        uint64_t late = i % 2 ? 1600000 : 0;
        datagram(buf, order[i], sizeof buf);
        mock_time += late;
        mock_datagram(PORT, &peer, buf, sizeof buf);
        mock_time -= late;
        mock_advance(10000000);
    }
    struct nf_udp *u = mock_socket(&peer);
    assert_non_null(u);
    assert_int_equal(u->sent, 3); /* the report, for each repetition of the last */
    assert_true(wire_parse_report(u->last, u->last_size, &r));
    /* 3, 4 missing at 5; 4 came late; 7, 8 missing: lost 3, one out of order. */
    assert_int_equal(r.lost, 3);
    assert_int_equal(r.out_of_order, 1);
    assert_int_equal(r.datagrams, 10);
    assert_int_equal(r.bytes, 7000);
    double jitter = 0;
    for (int i = 0; i < 6; i++)
        jitter += (1.6e6 - jitter) / 16;
    assert_in_range(r.jitter, (uint64_t)(jitter - 2000), (uint64_t)(jitter + 2000));
    assert_output("\"lost\": 3, \"out_of_order\": 1");
    assert_quiet();
}

static void test_udp_bad_peers(void **state)
{
    (void)state;
    uint8_t buf[1470] = {0};
    struct nf_addr peer = peer_of(10);
    mock_datagram(PORT, &peer, buf, 0);
    memset(buf, 0, sizeof buf);
    mock_datagram(PORT, &peer, buf, 15);
    datagram(buf, -5, sizeof buf); /* the end of what never began */
    mock_datagram(PORT, &peer, buf, sizeof buf);
    datagram(buf, 1, sizeof buf);
    buf[18] = 0;
    buf[19] = 2; /* a header that says it is two bytes long */
    mock_datagram(PORT, &peer, buf, sizeof buf);
    assert_int_equal(mock_count_udp(), 1);
    /* Numbers at the edge of what there is. */
    static const int64_t edges[] = {INT64_MAX, 1, INT64_MAX, 0, INT64_MIN};
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
        datagram(buf, edges[i], sizeof buf);
        mock_datagram(PORT, &peer, buf, sizeof buf);
    }
    assert_quiet();
    /* A flood of forged senders: bounded, and silent. */
    reset_output();
    for (unsigned i = 0; i < 1000; i++) {
        struct nf_addr forged = peer_of(5000 + i);
        datagram(buf, 1, sizeof buf);
        mock_datagram(PORT, &forged, buf, sizeof buf);
        mock_advance(20000000);
        assert_in_range(mock_count_udp(), 1, 1 + MAX_UDP_FLOWS);
    }
    assert_int_equal(mock_output_size, 0);
    assert_quiet();
}

static void test_udp_reverse_ends(void **state)
{
    (void)state;
    struct nf_addr peer = peer_of(11);
    uint8_t buf[100];
    struct wire_test t = {.seq64 = true, .reverse = true, .udp = true, .amount = -100, .rate = 1000000, .length = 1250};
    struct wire_prefix p = {.seq = 1}, last;
    wire_build(&t, WIRE_DATAGRAM, buf);
    wire_build_prefix(&p, buf);
    mock_datagram(PORT, &peer, buf, WIRE_DATAGRAM + WIRE_HEADER);
    struct nf_udp *u = mock_socket(&peer);
    assert_non_null(u);
    mock_advance(NS_PER_S / 2);
    assert_in_range(u->sent, 48, 53);
    u->answer = NF_AGAIN; /* no room, and none comes: the end must not wait for it */
    mock_advance(NS_PER_S);
    u->answer = 0;
    mock_advance(2 * NS_PER_S);
    assert_false(u->used);
    wire_parse_prefix(u->last, true, &last);
    assert_true(last.seq < 0);
    assert_quiet();
}

int main(void)
{
    const struct CMUnitTest pure[] = {
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_wire_as_captured),
        cmocka_unit_test(test_wire_plain_and_malformed),
        cmocka_unit_test(test_prefix),
    };
    const struct CMUnitTest server[] = {
        cmocka_unit_test(test_server_counts),
        cmocka_unit_test(test_server_plain_stream),
        cmocka_unit_test(test_server_reverse),
        cmocka_unit_test(test_server_reverse_timed),
        cmocka_unit_test(test_server_connects_back),
        cmocka_unit_test(test_server_connects_back_late),
        cmocka_unit_test(test_server_bad_peers),
        cmocka_unit_test(test_server_flood),
        cmocka_unit_test(test_server_flood_with_headers),
        cmocka_unit_test(test_udp_counts),
        cmocka_unit_test(test_udp_bad_peers),
        cmocka_unit_test(test_udp_reverse_ends),
    };
    return cmocka_run_group_tests(pure, NULL, NULL) + cmocka_run_group_tests(server, start_server, NULL);
}
