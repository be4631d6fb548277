/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost-user, the front end's side: a good back end moves frames, goes and is replaced; bad ones (hostile-inputs.md,
 * lines 20 to 23, as far as they concern a front end) are let go within the deadline, and leave nothing behind.
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "base/log.h"
#include "vhost_user_peer.h"
#include "vmm/devices/net.h"
#include "vmm/memory.h"
#include "vmm_driver.h"

enum { TIMEOUT_MS = 50, LOOSE_MS = 5000, RX = 0, TX = 1, LINK_UP = 1, SURPLUS_ROUNDS = 100000 };

static unsigned open_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    unsigned n = 0;

    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- the protocol ---- */

struct pair {
    int fd; /* the front end's */
    struct peer *peer;
};

static struct pair make_pair(void)
{
    int ends[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    return (struct pair){.fd = ends[0], .peer = peer_new(ends[1])};
}

static void end_pair(struct pair *p)
{
    if (p->fd >= 0)
        close(p->fd);
    peer_end(p->peer);
}

/* Everything a device does with a back end, to the first failure. */
static int whole_life(struct vhost_user *u, int fd, int timeout_ms, int memory_fd)
{
    const struct virtqueue_address a = {.descriptors = 0x1000, .available = 0x2000, .used = 0x3000, .size = 64};
    uint16_t base;
    int r = vhost_user_begin(fd, 1, timeout_ms, u, NULL);

    if (r == 0)
        r = vhost_user_set_memory(u, 1 << 20, memory_fd);
    if (r == 0)
        r = vhost_user_set_features(u, 1ull << 32);
    if (r == 0)
        r = vhost_user_start_ring(u, 0, &a, 0, memory_fd, memory_fd);
    if (r == 0)
        r = vhost_user_enable_ring(u, 0, true);
    return r < 0 ? r : vhost_user_stop_ring(u, 0, &base);
}

static int shared_memory(void)
{
    struct guest_ram ram;

    assert_int_equal(guest_ram_create(1 << 20, true, &ram, NULL), 0);
    munmap(ram.memory.base, ram.memory.bytes);
    return ram.memfd;
}

static void test_a_good_back_end(void **state)
{
    for (unsigned protocol = 0; protocol < 2; protocol++) { /* without and with acknowledged requests */
        struct pair p = make_pair();
        struct vhost_user u;
        int memory = shared_memory();

        (void)state;
        p.peer->protocol = protocol ? 9 : 0;
        peer_run(p.peer);
        assert_int_equal(whole_life(&u, p.fd, LOOSE_MS, memory), 0);
        assert_int_equal(p.peer->accepted_protocol, protocol ? 9 : 0);
        assert_int_equal(p.peer->accepted, 1ull << 32 | 1ull << 30);
        assert_null(u.broken);
        assert_false(vhost_user_is_over(&u));
        close(memory);
        end_pair(&p);
    }
}

static void test_too_few_queues_or_old_virtio(void **state)
{
    for (unsigned i = 0; i < 3; i++) {
        struct pair p = make_pair();
        struct vhost_user u;
        struct error *err = NULL;

        (void)state;
        p.peer->queue_pairs = i == 0 ? 1 : 4;
        p.peer->protocol = i == 1 ? 8 : 9;
        if (i == 2)
            p.peer->features &= ~(1ull << 32);
        peer_run(p.peer);
        assert_true(vhost_user_begin(p.fd, 2, LOOSE_MS, &u, &err) < 0);
        assert_non_null(strstr(err->message, i == 0 ? "fewer queues" : i == 1 ? "one queue pair" : "virtio 1"));
        error_free(err);
        end_pair(&p);
    }
}

/* Whatever is wrong with whichever answer: the call fails in time, nothing stays open, nothing is believed. */
static void test_hostile_20_each_answer_wrong_in_each_way(void **state)
{
    enum { ANSWERS = 12 }; /* of a whole life, with acknowledgements */
    int memory = shared_memory();

    (void)state;
    for (int fault = PEER_GOOD + 1; fault < PEER_FAULTS; fault++) {
        for (int good = 0; good < ANSWERS; good++) {
            struct pair p = make_pair();
            struct vhost_user u = {.fd = -1};
            unsigned before = open_descriptors();
            uint64_t begun = now_ms();

            p.peer->fault = (enum peer_fault)fault;
            p.peer->good_answers = good;
            peer_run(p.peer);
            int r = whole_life(&u, p.fd, TIMEOUT_MS, memory);
            /* A refused GET_FEATURES or GET_PROTOCOL_FEATURES is another set of features, which may do. */
            if (fault != PEER_REFUSES || good > 1)
                assert_true(r < 0);
            assert_true(now_ms() - begun < LOOSE_MS);
            close(p.fd);
            p.fd = -1;
            end_pair(&p);
            assert_true(open_descriptors() <= before - 2);
        }
    }
    close(memory);
}

static void test_hostile_21_answer_for_another_ring(void **state)
{
    const uint32_t answers[][2] = {{1, 0}, {UINT32_MAX, 0}, {0, 0x10000}, {0, UINT32_MAX}};

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        int ends[2];
        struct {
            struct vhost_user_header header;
            uint32_t index, value;
        } reply = {{VHOST_USER_GET_VRING_BASE, 5, 8}, answers[i][0], answers[i][1]};
        uint16_t base = 77;

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        struct vhost_user u = {.fd = ends[0], .timeout_ms = TIMEOUT_MS};
        assert_int_equal(write(ends[1], &reply, sizeof(reply)), sizeof(reply));
        assert_int_equal(vhost_user_stop_ring(&u, 0, &base), -EPROTO);
        assert_int_equal(base, 77);
        assert_int_equal(vhost_user_enable_ring(&u, 0, true), 0); /* no protocol features: nothing to say */
        assert_true(vhost_user_set_features(&u, 0) < 0);          /* over is over */
        close(ends[0]);
        close(ends[1]);
    }
}

static void test_hostile_22_surplus_descriptors(void **state)
{
    struct pair p = make_pair();
    struct {
        struct vhost_user_header header;
        uint64_t value;
    } __attribute__((packed)) reply = {{VHOST_USER_GET_VRING_BASE, 5, 8}, 0};
    unsigned before = open_descriptors();
    uint8_t sent[64];
    uint16_t base;

    (void)state;
    for (unsigned i = 0; i < SURPLUS_ROUNDS; i++) {
        struct vhost_user u = {.fd = p.fd, .timeout_ms = LOOSE_MS};
        peer_send(p.peer, &reply, sizeof(reply), 1 + i % 4);
        assert_int_equal(vhost_user_stop_ring(&u, 0, &base), -EPROTO);
        assert_string_equal(u.broken, "it sent descriptors where none belong");
        while (recv(p.fd, sent, sizeof(sent), MSG_DONTWAIT) > 0) /* what is left of that answer */
            ;
        while (recv(p.peer->fd, sent, sizeof(sent), MSG_DONTWAIT) > 0)
            ;
        if (i % 10000 == 0)
            assert_int_equal(open_descriptors(), before);
    }
    assert_int_equal(open_descriptors(), before);
    peer_run(p.peer);
    end_pair(&p);
}

static void test_hostile_23_memory_cannot_be_cut(void **state)
{
    int memory = shared_memory();

    (void)state;
    assert_true(ftruncate(memory, 4096) < 0 && errno == EPERM);
    assert_true(ftruncate(memory, 2 << 20) < 0 && errno == EPERM);
    close(memory);
}

static void test_a_back_end_that_does_not_read(void **state)
{
    struct pair p = make_pair();
    struct vhost_user u = {.fd = p.fd, .timeout_ms = TIMEOUT_MS};
    uint64_t begun = now_ms();
    int r = 0;

    (void)state;
    for (unsigned i = 0; r == 0 && i < 1000000; i++)
        r = vhost_user_set_features(&u, i);
    assert_int_equal(r, -ETIMEDOUT);
    assert_true(now_ms() - begun < LOOSE_MS);
    peer_run(p.peer);
    end_pair(&p);
}

/* ---- the device ---- */

struct bed {
    struct driver driver;
    struct guest_ram ram;
    struct loop *loop;
    struct peer *peer;
    uint16_t transmitted, received;
};

static int connect_peer(struct bed *b, struct peer **ret_peer)
{
    int ends[2];

    (void)b;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    *ret_peer = peer_new(ends[1]);
    peer_run(*ret_peer);
    return ends[0];
}

static void begin_bed(struct bed *b, unsigned pairs)
{
    struct net_options o = net_options_none();

    memset(b, 0, sizeof(*b));
    assert_int_equal(guest_ram_create(DRIVER_MEMORY, true, &b->ram, NULL), 0);
    b->driver.memory = b->ram.memory;
    o.pairs = pairs;
    o.control = pairs > 1;
    o.user_fd = connect_peer(b, &b->peer);
    o.memory_fd = b->ram.memfd;
    assert_int_equal(net_create(&b->driver.memory, &o, &b->driver.device, NULL), 0);
    assert_int_equal(loop_create(&b->loop, NULL), 0);
    assert_int_equal(net_attach(b->driver.device, b->loop, NULL), 0);
    assert_int_equal(loop_start(b->loop, NULL), 0);
}

static void end_bed(struct bed *b)
{
    loop_destroy(b->loop);
    device_destroy(b->driver.device);
    peer_end(b->peer);
    guest_ram_destroy(&b->ram);
}

static void kick(struct bed *b, unsigned queue)
{
    const uint64_t one = 1;

    assert_int_equal(write(b->driver.device->queues[queue].notify_fd, &one, sizeof(one)), sizeof(one));
}

static void offer_frame(struct bed *b, unsigned pair, uint32_t number)
{
    const uint64_t at = DRIVER_DATA + (uint64_t)(number % 32) * 4096;
    const struct driver_segment rx = {at + 2048, 2048, true}, tx = {at, 100, false};

    memcpy(b->driver.memory.base + at + 12, &number, sizeof(number));
    driver_offer(&b->driver, 2 * pair + RX, &rx, 1);
    driver_offer(&b->driver, 2 * pair + TX, &tx, 1);
    kick(b, 2 * pair + TX);
}

static bool wait_frame(struct bed *b, unsigned pair, unsigned milliseconds)
{
    uint16_t head;
    uint32_t written;

    for (unsigned i = 0; i < milliseconds; i++) {
        if (driver_take(&b->driver, 2 * pair + RX, &head, &written)) {
            assert_int_equal(written, 100);
            return true;
        }
        usleep(1000);
    }
    return false;
}

static bool wait_link(struct bed *b, bool up)
{
    for (unsigned i = 0; i < LOOSE_MS; i++) {
        if (((virtio_mmio_read(b->driver.device, 0x106, 2) & LINK_UP) != 0) == up)
            return true;
        usleep(1000);
    }
    return false;
}

static uint32_t interrupts(struct bed *b)
{
    uint64_t count = 0;

    return read(b->driver.device->irq_fd, &count, sizeof(count)) > 0 ? (uint32_t)count : 0;
}

static void test_frames_go_through_the_back_end(void **state)
{
    struct bed b;

    (void)state;
    begin_bed(&b, 1);
    driver_set(&b.driver, 0x14, 0);
    assert_int_equal(driver_get(&b.driver, 0x10) & (1 << 8), 0); /* the peer has no GUEST_TSO6 */
    assert_int_equal(driver_get(&b.driver, 0x10) & (1 << 7), 1 << 7);
    driver_begin(&b.driver, VIRTIO_FEATURE(15));
    for (uint32_t i = 0; i < 100; i++) {
        offer_frame(&b, 0, i);
        assert_true(wait_frame(&b, 0, LOOSE_MS));
    }
    assert_true(interrupts(&b) > 0);
    assert_int_equal(driver_get(&b.driver, 0x60) & 1, 1); /* a line nobody of ours raised: it may be the back end's */
    driver_begin(&b.driver, VIRTIO_FEATURE(15));          /* a driver that starts anew */
    offer_frame(&b, 0, 7);
    assert_true(wait_frame(&b, 0, LOOSE_MS));
    end_bed(&b);
}

/* The back end goes with chains it has not given back: its successor does them, and each exactly once. */
static void test_a_new_back_end_goes_on(void **state)
{
    struct bed b;
    struct peer *gone;
    uint32_t generation;

    (void)state;
    begin_bed(&b, 1);
    driver_begin(&b.driver, VIRTIO_FEATURE(15));
    for (uint32_t i = 0; i < 70; i++) { /* past the end of the ring */
        offer_frame(&b, 0, i);
        assert_true(wait_frame(&b, 0, LOOSE_MS));
    }
    b.peer->frozen = true;
    for (uint32_t i = 0; i < 5; i++)
        offer_frame(&b, 0, i);
    assert_false(wait_frame(&b, 0, 20));
    generation = driver_get(&b.driver, 0xfc);
    interrupts(&b);
    gone = b.peer;
    shutdown(gone->fd, SHUT_RDWR);
    assert_true(wait_link(&b, false));
    assert_true(driver_get(&b.driver, 0xfc) != generation && (driver_get(&b.driver, 0x60) & 2));
    assert_true(interrupts(&b) > 0);
    offer_frame(&b, 0, 5); /* meanwhile the guest goes on sending */
    assert_false(driver_stopped(&b.driver));
    int fd = connect_peer(&b, &b.peer);
    assert_int_equal(net_reconnect(b.driver.device, fd, NULL), 0);
    assert_true(wait_link(&b, true));
    for (uint32_t i = 0; i < 6; i++)
        assert_true(wait_frame(&b, 0, LOOSE_MS));
    assert_false(wait_frame(&b, 0, 20));
    assert_int_equal(b.peer->frames, 6);
    peer_end(gone);
    struct peer *spare; /* one is enough */
    fd = connect_peer(&b, &spare);
    assert_int_equal(net_reconnect(b.driver.device, fd, NULL), -EBUSY);
    peer_end(spare);
    end_bed(&b);
}

static void test_a_back_end_without_the_features_in_use(void **state)
{
    struct bed b;
    struct peer *gone, *poor;
    int ends[2];

    (void)state;
    begin_bed(&b, 1);
    driver_begin(&b.driver, VIRTIO_FEATURE(15));
    gone = b.peer;
    shutdown(gone->fd, SHUT_RDWR);
    assert_true(wait_link(&b, false));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    poor = peer_new(ends[1]);
    poor->features &= ~(1ull << 15);
    peer_run(poor);
    unsigned before = open_descriptors();
    assert_true(net_reconnect(b.driver.device, ends[0], NULL) < 0);
    assert_true(open_descriptors() < before);
    assert_true(wait_link(&b, false));
    b.peer = gone;
    peer_end(poor);
    end_bed(&b);
}

static void test_a_back_end_that_speaks_unasked_is_let_go(void **state)
{
    struct bed b;

    (void)state;
    begin_bed(&b, 1);
    driver_begin(&b.driver, VIRTIO_FEATURE(15));
    peer_send(b.peer, "hello", 5, 3);
    assert_true(wait_link(&b, false));
    assert_false(driver_stopped(&b.driver));     /* the guest has done nothing wrong */
    driver_begin(&b.driver, VIRTIO_FEATURE(15)); /* and may reset its device without a back end */
    assert_false(driver_stopped(&b.driver));
    end_bed(&b);
}

static void test_pairs(void **state)
{
    struct bed b;
    const struct driver_segment command[] = {{DRIVER_DATA, 4, false}, {DRIVER_DATA + 64, 1, true}};
    uint16_t head;
    uint32_t written;

    (void)state;
    begin_bed(&b, 2);
    driver_begin(&b.driver, VIRTIO_FEATURE(15) | VIRTIO_FEATURE(17) | VIRTIO_FEATURE(22));
    assert_true(b.peer->rings[1].enabled && !b.peer->rings[3].enabled);
    memcpy(b.driver.memory.base + DRIVER_DATA, "\4\0\2\0", 4); /* MQ, VQ_PAIRS_SET, 2 */
    driver_offer(&b.driver, 4, command, 2);
    kick(&b, 4);
    for (unsigned i = 0; i < LOOSE_MS && !driver_take(&b.driver, 4, &head, &written); i++)
        usleep(1000);
    assert_int_equal(b.driver.memory.base[DRIVER_DATA + 64], 0);
    assert_true(b.peer->rings[3].enabled);
    offer_frame(&b, 1, 3);
    assert_true(wait_frame(&b, 1, LOOSE_MS));
    end_bed(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_good_back_end),
        cmocka_unit_test(test_too_few_queues_or_old_virtio),
        cmocka_unit_test(test_hostile_20_each_answer_wrong_in_each_way),
        cmocka_unit_test(test_hostile_21_answer_for_another_ring),
        cmocka_unit_test(test_hostile_22_surplus_descriptors),
        cmocka_unit_test(test_hostile_23_memory_cannot_be_cut),
        cmocka_unit_test(test_a_back_end_that_does_not_read),
        cmocka_unit_test(test_frames_go_through_the_back_end),
        cmocka_unit_test(test_a_new_back_end_goes_on),
        cmocka_unit_test(test_a_back_end_without_the_features_in_use),
        cmocka_unit_test(test_a_back_end_that_speaks_unasked_is_let_go),
        cmocka_unit_test(test_pairs),
    };

    log_open("test", LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
