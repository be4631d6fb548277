/* SPDX-License-Identifier: Apache-2.0 */
/* The vsock device: streams both ways, credit on both sides, and guests that keep to neither. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/devices/vsock.h"
#include "vmm/devices/vsock_packet.h"
#include "vmm_driver.h"

enum { CID = 7, RX = 0, TX = 1, EVENTS = 2, SENT = DRIVER_DATA, RECEIVED = DRIVER_DATA + 0x20000, SLOT = 0x1000 };
enum { BUFFER = 65536 };

struct bed {
    struct driver v;
    struct loop *loop;
    char path[64];
    unsigned buffers;         /* receive buffers offered so far */
    struct vsock_header last; /* what the guest received last */
    const uint8_t *data;
    uint32_t buffer, forwarded; /* the guest's credit words */
};

static int listen_at(struct bed *b)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    snprintf(b->path, sizeof(b->path), "/tmp/vmm-vsock-%d", getpid());
    unlink(b->path);
    memcpy(a.sun_path, b->path, sizeof(b->path));
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(fd, 128), 0);
    return fd;
}

static void make(struct bed *b, bool listening)
{
    *b = (struct bed){.buffer = BUFFER};
    driver_memory(&b->v);
    assert_int_equal(vsock_create(&b->v.memory, CID, listening ? listen_at(b) : -1, &b->v.device, NULL), 0);
    assert_int_equal(loop_create(&b->loop, NULL), 0);
    assert_int_equal(vsock_attach(b->v.device, b->loop, NULL), 0);
    driver_begin(&b->v, VIRTIO_F_EVENT);
}

static void end(struct bed *b)
{
    loop_destroy(b->loop);
    driver_end(&b->v);
    if (b->path[0])
        unlink(b->path);
}

static int knock(struct bed *b, const char *line)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    memcpy(a.sun_path, b->path, sizeof(b->path));
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    if (line)
        assert_int_equal(write(fd, line, strlen(line)), (ssize_t)strlen(line));
    return fd;
}

/* A receive buffer of the guest's, of length bytes, cut in two. */
static void offer(struct bed *b, uint32_t length)
{
    uint64_t at = RECEIVED + (uint64_t)(b->buffers++ % 32) * SLOT;
    const struct driver_segment s[] = {{at, 20, true}, {at + 20, length - 20, true}};

    if (length > 20)
        driver_offer(&b->v, RX, s, 2);
    else
        driver_offer(&b->v, RX, (struct driver_segment[]){{at, length, true}}, 1);
}

/* The device's thread for a moment: loop_settle() looks at each source, sockets too. */
static void run(struct bed *b)
{
    loop_settle(b->loop);
}

/* Offers one buffer and expects that packet in it. */
static void expect(struct bed *b, enum vsock_operation op)
{
    uint16_t head = 0;
    uint32_t written = 0;

    offer(b, 1024);
    run(b);
    assert_true(driver_take(&b->v, RX, &head, &written));
    const uint8_t *at = b->v.memory.base + driver_descriptors(&b->v, RX)[head].address;
    memcpy(&b->last, at, sizeof(b->last));
    b->data = at + sizeof(b->last);
    assert_int_equal(b->last.operation, op);
    assert_int_equal(b->last.source_cid, VSOCK_CID_HOST);
    assert_int_equal(b->last.target_cid, CID);
    assert_int_equal(written, sizeof(b->last) + b->last.length);
}

static void expect_silence(struct bed *b)
{
    uint16_t head;
    uint32_t written;

    offer(b, 1024);
    run(b);
    assert_false(driver_take(&b->v, RX, &head, &written));
    b->v.available[RX]--; /* the buffer is taken back: nobody looked at it */
    driver_available(&b->v, RX)[1]--;
    b->v.next_descriptor[RX] -= 2;
}

static void send_raw(struct bed *b, const struct vsock_header *h, uint32_t header_bytes, uint32_t data_bytes)
{
    const struct driver_segment s[] = {{SENT, header_bytes, false}, {SENT + 0x1000, data_bytes, false}};

    memcpy(b->v.memory.base + SENT, h, sizeof(*h));
    driver_offer(&b->v, TX, s, data_bytes ? 2 : 1);
    run(b);
}

static struct vsock_header header(struct bed *b, enum vsock_operation op, uint32_t guest, uint32_t host,
                                  uint32_t length)
{
    return (struct vsock_header){CID, VSOCK_CID_HOST, guest,       host, length, VSOCK_TYPE_STREAM, (uint16_t)op,
                                 0,   b->buffer,      b->forwarded};
}

static void send_packet(struct bed *b, enum vsock_operation op, uint32_t guest, uint32_t host, uint32_t length)
{
    struct vsock_header h = header(b, op, guest, host, length);

    send_raw(b, &h, sizeof(h), length);
}

static void pair(int ends[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
}

/* A stream that stands, to port 9 of the guest; returns the program's end. */
static int open_stream(struct bed *b, uint32_t *ret_host_port)
{
    int ends[2];

    pair(ends);
    assert_int_equal(vsock_connect(b->v.device, ends[1], 9), 0);
    expect(b, VSOCK_REQUEST);
    assert_int_equal(b->last.target_port, 9);
    assert_int_equal(b->last.buffer, BUFFER);
    *ret_host_port = b->last.source_port;
    send_packet(b, VSOCK_RESPONSE, 9, *ret_host_port, 0);
    return ends[0];
}

static void expect_end(int fd)
{
    char byte;
    ssize_t got = read(fd, &byte, 1);

    assert_true(got == 0 || (got < 0 && errno == ECONNRESET)); /* that, when bytes were left unread */
    close(fd);
}

static void test_stream(void **state)
{
    uint32_t port;
    char text[16] = {0};
    struct bed b;

    make(&b, false);
    int fd = open_stream(&b, &port);
    assert_int_equal(write(fd, "to the guest", 12), 12);
    expect(&b, VSOCK_DATA);
    assert_int_equal(b.last.length, 12);
    assert_memory_equal(b.data, "to the guest", 12);
    memcpy(b.v.memory.base + SENT + 0x1000, "to the host", 11);
    send_packet(&b, VSOCK_DATA, 9, port, 11);
    assert_int_equal(read(fd, text, sizeof(text)), 11);
    assert_string_equal(text, "to the host");
    send_packet(&b, VSOCK_CREDIT_REQUEST, 9, port, 0);
    expect(&b, VSOCK_CREDIT_UPDATE);
    assert_int_equal(b.last.forwarded, 11);
    assert_int_equal(shutdown(fd, SHUT_WR), 0); /* a half close, host first */
    expect(&b, VSOCK_SHUTDOWN);
    assert_int_equal(b.last.flags, VSOCK_NO_MORE_SEND);
    send_packet(&b, VSOCK_DATA, 9, port, 11);
    assert_int_equal(read(fd, text, sizeof(text)), 11);
    struct vsock_header h = header(&b, VSOCK_SHUTDOWN, 9, port, 0);
    h.flags = VSOCK_NO_MORE_SEND;
    send_raw(&b, &h, sizeof(h), 0);
    expect(&b, VSOCK_RESET);
    expect_end(fd);
    expect_silence(&b);
    assert_int_equal(vsock_counters(b.v.device).to_host_bytes, 22);
    end(&b);
}

static void test_program_goes_away(void **state)
{
    uint32_t port;
    struct bed b;

    make(&b, false);
    int fd = open_stream(&b, &port);
    assert_int_equal(write(fd, "last", 4), 4);
    close(fd);
    expect(&b, VSOCK_DATA);
    expect(&b, VSOCK_SHUTDOWN);
    assert_int_equal(b.last.flags, VSOCK_NO_MORE_SEND | VSOCK_NO_MORE_RECEIVE);
    send_packet(&b, VSOCK_DATA, 9, port, 5); /* sent before it knew */
    expect_silence(&b);
    send_packet(&b, VSOCK_RESET, 9, port, 0);
    send_packet(&b, VSOCK_DATA, 9, port, 5);
    expect(&b, VSOCK_RESET); /* nothing is there any more */
    end(&b);
}

static void test_refused(void **state)
{
    int ends[2];
    struct bed b;

    make(&b, false);
    pair(ends);
    assert_int_equal(vsock_connect(b.v.device, ends[1], 5), 0);
    driver_begin(&b.v, VIRTIO_F_EVENT); /* a driver that starts: the request waits for it */
    expect(&b, VSOCK_REQUEST);
    send_packet(&b, VSOCK_RESET, 5, b.last.source_port, 0);
    expect_end(ends[0]);
    send_packet(&b, VSOCK_REQUEST, 1000, 22, 0); /* nobody waits for it */
    expect(&b, VSOCK_RESET);
    assert_int_equal(b.last.target_port, 1000);
    assert_int_equal(b.last.source_port, 22);
    end(&b);
}

static void test_lines(void **state)
{
    static const char *const bad[] = {"CONNECT\n",
                                      "CONNECT x\n",
                                      "CONNECT 4294967296\n",
                                      "GET / HTTP/1.1\n",
                                      "ACCEPT \n",
                                      "CONNECT 1 2\n",
                                      "CONNECT 111111111111111111111111111",
                                      "\n"};
    char text[32];
    struct bed b;

    make(&b, true);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int fd = knock(&b, bad[i]);
        run(&b);
        expect_end(fd);
    }
    int out = knock(&b, "CONN"), in = knock(&b, "ACCEPT 1234\nearly");
    run(&b);
    assert_int_equal(write(out, "ECT 80\n", 7), 7);
    expect(&b, VSOCK_REQUEST);
    assert_int_equal(b.last.target_port, 80);
    uint32_t port = b.last.source_port;
    send_packet(&b, VSOCK_RESPONSE, 80, port, 0);
    ssize_t got = read(out, text, sizeof(text) - 1);
    text[got > 0 ? got : 0] = '\0';
    char wanted[32];
    snprintf(wanted, sizeof(wanted), "OK %u\n", port);
    assert_string_equal(text, wanted);
    send_packet(&b, VSOCK_REQUEST, 5000, 1234, 0);
    expect(&b, VSOCK_RESPONSE);
    expect(&b, VSOCK_DATA);
    assert_int_equal(b.last.source_port, 1234);
    assert_int_equal(b.last.target_port, 5000);
    assert_memory_equal(b.data, "early", 5);
    got = read(in, text, sizeof(text) - 1);
    assert_int_equal(got, 8);
    assert_memory_equal(text, "OK 5000\n", 8);
    driver_set(&b.v, 0x70, 0); /* the device is reset: streams end */
    expect_end(in);
    expect_end(out);
    end(&b);
}

/* What the guest has room for, and no byte more. */
static void test_credit_to_guest(void **state)
{
    static const uint8_t bytes[5000] = {1};
    uint32_t port;
    struct bed b;

    make(&b, false);
    b.buffer = 1500;
    int fd = open_stream(&b, &port);
    assert_int_equal(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
    expect(&b, VSOCK_DATA);
    assert_int_equal(b.last.length, 1024 - sizeof(struct vsock_header));
    expect(&b, VSOCK_DATA);
    assert_int_equal(b.last.length, 1500 - 980);
    expect(&b, VSOCK_CREDIT_REQUEST);
    expect_silence(&b);
    b.forwarded = 100;
    send_packet(&b, VSOCK_CREDIT_UPDATE, 9, port, 0);
    expect(&b, VSOCK_DATA);
    assert_int_equal(b.last.length, 100);
    expect(&b, VSOCK_CREDIT_REQUEST);
    b.forwarded = 77777; /* more than it was ever sent: no credit */
    send_packet(&b, VSOCK_CREDIT_UPDATE, 9, port, 0);
    expect_silence(&b);
    b.buffer = 0;
    send_packet(&b, VSOCK_CREDIT_UPDATE, 9, port, 0);
    expect_silence(&b);
    close(fd);
    end(&b);
}

/* A program that does not read holds the guest back at STREAM_BUFFER bytes; what was held arrives. */
static void test_credit_to_host(void **state)
{
    static uint8_t got[65536];
    uint32_t port, sent = 0;
    size_t total = 0;
    struct bed b;

    make(&b, false);
    int fd = open_stream(&b, &port);
    uint32_t forwarded = 0;
    while (sent - forwarded + 1000 <= BUFFER && sent < 10000000) { /* the socket's own buffer fills first */
        memset(b.v.memory.base + SENT + 0x1000, (int)(sent / 1000), 1000);
        send_packet(&b, VSOCK_DATA, 9, port, 1000);
        sent += 1000;
        if (sent - forwarded + 1000 > BUFFER) { /* asks before it stops */
            send_packet(&b, VSOCK_CREDIT_REQUEST, 9, port, 0);
            expect(&b, VSOCK_CREDIT_UPDATE);
            forwarded = b.last.forwarded;
        }
    }
    assert_true(sent < 10000000);
    for (ssize_t n; (n = read(fd, got, sizeof(got))) > 0 || total < sent; run(&b)) {
        for (ssize_t i = 0; i < n; i++, total++)
            assert_int_equal(got[i], (uint8_t)(total / 1000));
        if (n <= 0 && errno != EAGAIN)
            break;
    }
    assert_int_equal(total, sent);
    expect(&b, VSOCK_CREDIT_UPDATE);
    assert_int_equal(b.last.forwarded, sent);
    close(fd);
    end(&b);
}

static void hostile_16_length_mismatch(void **state)
{
    uint32_t port;
    struct bed b;

    make(&b, false);
    int fd = open_stream(&b, &port);
    struct vsock_header h = header(&b, VSOCK_DATA, 9, port, 4096); /* CVE-2019-18960: 16 bytes are there */
    send_raw(&b, &h, sizeof(h), 16);
    char byte;
    assert_int_equal(read(fd, &byte, 1), -1); /* not one of them was believed */
    expect(&b, VSOCK_RESET);
    h.length = UINT32_MAX;
    send_raw(&b, &h, sizeof(h), 16);
    expect(&b, VSOCK_RESET);
    h = header(&b, VSOCK_CREDIT_UPDATE, 9, port, 16); /* data where none belongs */
    send_raw(&b, &h, sizeof(h), 16);
    expect(&b, VSOCK_RESET);
    assert_false(driver_stopped(&b.v));
    send_raw(&b, &h, 43, 0); /* not even a header */
    assert_true(driver_stopped(&b.v));
    driver_begin(&b.v, VIRTIO_F_EVENT);
    b.buffers = 0;
    close(fd);
    fd = open_stream(&b, &port);
    close(fd);
    end(&b);
}

static void hostile_16_headers(void **state)
{
    struct bed b;

    make(&b, false);
    struct vsock_header h = header(&b, VSOCK_REQUEST, 1, 2, 0), bad;
    bad = h, bad.source_cid = CID + 1;
    send_raw(&b, &bad, sizeof(bad), 0);
    bad = h, bad.source_cid = CID | 1ull << 32;
    send_raw(&b, &bad, sizeof(bad), 0);
    bad = h, bad.target_cid = 3;
    send_raw(&b, &bad, sizeof(bad), 0);
    bad = h, bad.operation = VSOCK_RESET;
    send_raw(&b, &bad, sizeof(bad), 0);
    expect_silence(&b);
    bad = h, bad.type = 2;
    send_raw(&b, &bad, sizeof(bad), 0);
    expect(&b, VSOCK_RESET);
    uint32_t port;
    int fd = open_stream(&b, &port);
    bad = header(&b, VSOCK_DATA, 9, port, 4), bad.type = 2; /* a stream's data as something else */
    send_raw(&b, &bad, sizeof(bad), 4);
    expect(&b, VSOCK_RESET);
    char byte;
    assert_int_equal(read(fd, &byte, 1), -1);
    close(fd);
    expect(&b, VSOCK_SHUTDOWN);
    for (unsigned op = 0; op < 70000; op += 13) {
        bad = h, bad.operation = (uint16_t)op;
        if (bad.operation == VSOCK_RESET)
            continue;
        send_raw(&b, &bad, sizeof(bad), 0);
        expect(&b, VSOCK_RESET);
    }
    assert_false(driver_stopped(&b.v));
    end(&b);
}

static void hostile_15_receive_buffer_too_small(void **state)
{
    uint32_t port;
    struct bed b;

    make(&b, false);
    int fd = open_stream(&b, &port);
    assert_int_equal(write(fd, "x", 1), 1);
    offer(&b, 43);
    run(&b);
    assert_true(driver_stopped(&b.v));
    driver_begin(&b.v, VIRTIO_F_EVENT);
    expect_end(fd);
    fd = open_stream(&b, &port);
    assert_int_equal(write(fd, "xyz", 3), 3);
    offer(&b, 44); /* a header and nothing more: no byte fits, none is lost */
    run(&b);
    close(fd);
    end(&b);
}

/* Beyond the credit, data on a stream that is not open, an answer nobody asked for. */
static void hostile_16_beyond_credit(void **state)
{
    uint32_t port;
    int ends[2], size = 1;
    struct bed b;

    make(&b, false);
    int fd = open_stream(&b, &port);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    for (unsigned i = 0; i < 2000 && vsock_counters(b.v.device).resets == 0; i++) {
        send_packet(&b, VSOCK_DATA, 9, port, 4000);
        offer(&b, 1024);
        run(&b);
    }
    assert_int_equal(vsock_counters(b.v.device).resets, 1);
    close(fd);
    driver_begin(&b.v, VIRTIO_F_EVENT);
    pair(ends);
    assert_int_equal(vsock_connect(b.v.device, ends[1], 9), 0);
    expect(&b, VSOCK_REQUEST);
    send_packet(&b, VSOCK_DATA, 9, b.last.source_port, 10); /* before it answered */
    expect(&b, VSOCK_RESET);
    expect_end(ends[0]);
    fd = open_stream(&b, &port);
    send_packet(&b, VSOCK_RESPONSE, 9, port, 0); /* twice */
    expect(&b, VSOCK_RESET);
    expect_end(fd);
    fd = open_stream(&b, &port);
    send_packet(&b, VSOCK_REQUEST, 9, port, 0); /* on a stream that stands */
    expect(&b, VSOCK_RESET);
    expect_end(fd);
    end(&b);
}

/* A guest that asks for resets and takes none: what it sends waits, and goes on when it receives. */
static void hostile_17_no_receive_buffers(void **state)
{
    uint16_t head;
    uint32_t written;
    unsigned taken = 0, answers = 0;
    struct bed b;

    make(&b, false);
    struct vsock_header h = header(&b, VSOCK_REQUEST, 1, 2, 0);
    memcpy(b.v.memory.base + SENT, &h, sizeof(h));
    for (unsigned i = 0; i < 300; i++) {
        while (driver_take(&b.v, TX, &head, &written))
            taken++;
        if (b.v.available[TX] - (uint16_t)taken < 32)
            driver_offer(&b.v, TX, (struct driver_segment[]){{SENT, sizeof(h), false}}, 1);
        run(&b);
    }
    while (driver_take(&b.v, TX, &head, &written))
        taken++;
    assert_int_equal(taken, 64); /* RESET_MAX: then it waits */
    for (; answers < 64 + 32; answers++)
        expect(&b, VSOCK_RESET);
    expect_silence(&b);
    end(&b);
}

static void test_table_full(void **state)
{
    int ends[2], fds[VSOCK_STREAM_MAX];
    struct bed b;

    make(&b, true);
    for (unsigned i = 0; i < VSOCK_STREAM_MAX; i++) {
        pair(ends);
        fds[i] = ends[0];
        assert_int_equal(vsock_connect(b.v.device, ends[1], i), 0);
    }
    pair(ends);
    assert_int_equal(vsock_connect(b.v.device, ends[1], 1), -ENOSPC);
    close(ends[0]);
    close(ends[1]);
    int waits = knock(&b, "CONNECT 500\n");
    run(&b);
    for (unsigned i = 0; i < VSOCK_STREAM_MAX; i++) {
        expect(&b, VSOCK_REQUEST);
        assert_int_equal(b.last.target_port, i);
    }
    close(fds[0]); /* gives up: the guest is told, then the next has its place */
    expect(&b, VSOCK_RESET);
    expect(&b, VSOCK_REQUEST);
    assert_int_equal(b.last.target_port, 500);
    for (unsigned i = 1; i < VSOCK_STREAM_MAX; i++)
        close(fds[i]);
    close(waits);
    end(&b);
}

static void test_restored(void **state)
{
    static struct device_state saved;
    uint16_t head;
    uint32_t written, port;
    struct bed b;

    make(&b, false);
    int fd = open_stream(&b, &port);
    driver_offer(&b.v, EVENTS, (struct driver_segment[]){{SENT + 0x3000, 4, true}}, 1);
    run(&b);
    assert_false(driver_take(&b.v, EVENTS, &head, &written));
    assert_int_equal(device_save(b.v.device, &saved, NULL), 0);
    loop_destroy(b.loop);
    device_destroy(b.v.device);
    expect_end(fd);
    assert_int_equal(vsock_create(&b.v.memory, CID + 1, -1, &b.v.device, NULL), 0);
    assert_int_equal(loop_create(&b.loop, NULL), 0);
    assert_int_equal(vsock_attach(b.v.device, b.loop, NULL), 0);
    memset(b.v.memory.base + SENT + 0x3000, 0xee, 4);
    assert_int_equal(device_restore(b.v.device, &saved, NULL), 0);
    run(&b);
    assert_true(driver_take(&b.v, EVENTS, &head, &written)); /* the guest learns that its streams are gone */
    assert_int_equal(written, 4);
    assert_memory_equal(b.v.memory.base + SENT + 0x3000, "\0\0\0\0", 4);
    assert_int_equal(driver_get(&b.v, 0x100), CID + 1);
    end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_program_goes_away),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_credit_to_guest),
        cmocka_unit_test(test_credit_to_host),
        cmocka_unit_test(hostile_16_length_mismatch),
        cmocka_unit_test(hostile_16_headers),
        cmocka_unit_test(hostile_15_receive_buffer_too_small),
        cmocka_unit_test(hostile_16_beyond_credit),
        cmocka_unit_test(hostile_17_no_receive_buffers),
        cmocka_unit_test(test_table_full),
        cmocka_unit_test(test_restored),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
