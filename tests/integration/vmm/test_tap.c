/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network device over real taps, in a network namespace of its own: offloads as the driver asked for them, in the
 * packets that waited too, and flows on the queues in use. The kernel sends UDP to a neighbour it believes to be there.
 * Exit 77: no root, no namespace or no tun.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../unit/vmm_driver.h"
#include "base/log.h"
#include "vmm/devices/net.h"

enum {
    PAIRS = 2,
    BUFFERS = 48,
    BUFFER = 2048,
    FLOWS = 40,
    FRAME_UDP = 14 + 20,
    LOOSE_MS = 3000,
    LARGE = 20000,
    ROUNDS = 20
};
#define MRG  VIRTIO_FEATURE(VIRTIO_NET_F_MRG_RXBUF)
#define CSUM VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_CSUM)
#define TSO4 VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_TSO4)
#define MQ   (VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_VQ) | VIRTIO_FEATURE(VIRTIO_NET_F_MQ))

static struct driver driver;
static struct loop *loop;
static int control, taps[PAIRS];

static void configure(unsigned long request, struct ifreq *r)
{
    if (ioctl(control, request, r) < 0)
        exit(77);
}

static void set_address(struct sockaddr *to, const char *text)
{
    struct sockaddr_in a = {.sin_family = AF_INET};

    inet_aton(text, &a.sin_addr);
    memcpy(to, &a, sizeof(a));
}

static int open_queue(void)
{
    struct ifreq r = {.ifr_name = "t0", .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE};
    const int header = 12, fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0 || ioctl(fd, TUNSETIFF, &r) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &header) < 0)
        exit(77);
    return fd;
}

static int set_up(void **state)
{
    struct ifreq r = {.ifr_name = "t0"};
    struct arpreq neighbour = {.arp_ha = {.sa_family = ARPHRD_ETHER, .sa_data = {2, 0, 0, 0, 0, 2}},
                               .arp_flags = ATF_PERM | ATF_COM,
                               .arp_dev = "t0"};
    struct net_options o = net_options_none();

    (void)state;
    for (unsigned i = 0; i < PAIRS; i++)
        taps[i] = open_queue();
    set_address(&r.ifr_addr, "198.18.248.1");
    configure(SIOCSIFADDR, &r);
    set_address(&r.ifr_netmask, "255.255.255.0");
    configure(SIOCSIFNETMASK, &r);
    r.ifr_flags = IFF_UP | IFF_RUNNING;
    configure(SIOCSIFFLAGS, &r);
    set_address(&neighbour.arp_pa, "198.18.248.2");
    if (ioctl(control, SIOCSARP, &neighbour) < 0)
        exit(77);
    driver_memory(&driver);
    o.pairs = PAIRS;
    o.control = true;
    memcpy(o.tap_fds, taps, sizeof(taps));
    return net_create(&driver.memory, &o, &driver.device, NULL) < 0 || loop_create(&loop, NULL) < 0 ||
           net_attach(driver.device, loop, NULL) < 0 || loop_start(loop, NULL) < 0;
}

static int tear_down(void **state)
{
    (void)state;
    loop_destroy(loop);
    driver_end(&driver);
    return 0;
}

static void kick(unsigned queue)
{
    const uint64_t one = 1;

    assert_int_equal(write(driver.device->queues[queue].notify_fd, &one, sizeof(one)), sizeof(one));
}

static void begin(uint64_t features, unsigned pairs)
{
    driver_begin(&driver, features);
    for (unsigned p = 0; p < pairs; p++) {
        for (unsigned i = 0; i < BUFFERS; i++) {
            const struct driver_segment s = {DRIVER_DATA + (uint64_t)(p * BUFFERS + i) * BUFFER, BUFFER, true};
            driver_offer(&driver, 2 * p, &s, 1);
        }
        kick(2 * p);
    }
}

static void send_bytes(uint16_t port, const char *bytes, size_t size)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    inet_aton("198.18.248.2", &to.sin_addr);
    assert_int_equal(sendto(fd, bytes, size, 0, (struct sockaddr *)&to, sizeof(to)), size);
    close(fd);
}

static void send_datagram(uint16_t port)
{
    send_bytes(port, "datagram", 8);
}

static void send_flows(void)
{
    for (unsigned i = 0; i < FLOWS; i++)
        send_datagram((uint16_t)(2000 + i));
}

/* The next UDP frame of a pair behind its header; NULL: none came. The namespace's own chatter is passed over. */
static const uint8_t *next_frame(unsigned pair, unsigned milliseconds)
{
    for (unsigned i = 0; i < milliseconds; i++, usleep(1000)) {
        uint16_t head;
        uint32_t written;
        while (driver_take(&driver, 2 * pair, &head, &written)) {
            const uint8_t *at = driver.memory.base + driver_descriptors(&driver, 2 * pair)[head].address;
            if (at[12 + 12] == 0x08 && at[12 + 13] == 0 && at[12 + 23] == IPPROTO_UDP)
                return at;
        }
    }
    return NULL;
}

/* Of UDP and its pseudo-header: 0xffff when it is right. */
static uint16_t sum(const uint8_t *ip)
{
    const unsigned length = (unsigned)(ip[24] << 8 | ip[25]);
    uint32_t s = IPPROTO_UDP + length;

    for (unsigned i = 12; i < 20 + length; i += 2)
        s += (uint32_t)(ip[i] << 8 | ip[i + 1]);
    s = (s & 0xffff) + (s >> 16);
    return (uint16_t)((s & 0xffff) + (s >> 16));
}

static void test_a_driver_without_checksums_gets_whole_ones(void **state)
{
    (void)state;
    assert_int_equal(ioctl(taps[0], TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4), 0); /* as a former driver left it */
    send_flows();                                                                /* some of them to the first queue */
    begin(MRG, 1);
    for (unsigned i = 0; i < LOOSE_MS && net_counters(driver.device).rx_dropped == 0; i++)
        usleep(1000);
    assert_true(net_counters(driver.device).rx_dropped > 0);
    send_datagram(1001);
    const uint8_t *frame = next_frame(0, LOOSE_MS);
    assert_non_null(frame);
    assert_int_equal(frame[12 + FRAME_UDP + 2] << 8 | frame[12 + FRAME_UDP + 3], 1001);
    assert_int_equal(frame[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM, 0);
    assert_int_equal(sum(frame + 12 + 14), 0xffff);
}

static void test_a_driver_with_checksums_is_left_them(void **state)
{
    (void)state;
    begin(MRG | CSUM, 1);
    send_datagram(1002);
    const uint8_t *frame = next_frame(0, LOOSE_MS);
    assert_non_null(frame);
    assert_int_equal(frame[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_F_NEEDS_CSUM);
    assert_true(sum(frame + 12 + 14) != 0xffff);
}

static uint64_t interrupts(void)
{
    pthread_mutex_lock(&driver.device->lock);
    uint64_t n = driver.device->interrupts;
    pthread_mutex_unlock(&driver.device->lock);
    return n;
}

/* Large packets are held back for company: the driver, which may sleep, is told all the same when none comes. */
static void test_a_large_packet_alone_is_told(void **state)
{
    static const char large[LARGE];
    struct ifreq r = {.ifr_name = "t0", .ifr_mtu = LARGE + 28};

    (void)state;
    configure(SIOCSIFMTU, &r);
    for (unsigned round = 0; round < ROUNDS; round++) {
        begin(MRG | CSUM | TSO4, 1); /* buffers for the largest packet, whatever the namespace chattered */
        uint64_t before = interrupts();
        send_bytes(1003, large, sizeof(large));
        for (unsigned i = 0; i < LOOSE_MS && interrupts() == before; i++)
            usleep(1000);
        assert_true(interrupts() > before);
        assert_non_null(next_frame(0, LOOSE_MS));
    }
}

static void set_pairs(uint16_t pairs)
{
    const struct driver_segment s[] = {{DRIVER_DATA - 64, 4, false}, {DRIVER_DATA - 32, 1, true}};
    const uint8_t command[4] = {VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, (uint8_t)pairs, 0};
    uint16_t head;
    uint32_t written = 0;

    memcpy(driver.memory.base + DRIVER_DATA - 64, command, sizeof(command));
    driver.memory.base[DRIVER_DATA - 32] = 0xff;
    driver_offer(&driver, 2 * PAIRS, s, 2);
    kick(2 * PAIRS);
    for (unsigned i = 0; i < LOOSE_MS && !driver_take(&driver, 2 * PAIRS, &head, &written); i++)
        usleep(1000);
    assert_int_equal(written, 1);
    assert_int_equal(driver.memory.base[DRIVER_DATA - 32], VIRTIO_NET_OK);
}

static unsigned count(unsigned pair)
{
    unsigned n = 0;

    while (next_frame(pair, 100))
        n++;
    return n;
}

static void test_flows_go_to_the_queues_in_use(void **state)
{
    (void)state;
    begin(MRG | MQ, PAIRS);
    send_flows();
    assert_int_equal(count(0), FLOWS);
    assert_int_equal(count(1), 0);
    begin(MRG | MQ, PAIRS);
    set_pairs(2);
    send_flows();
    unsigned first = count(0), second = count(1);
    assert_true(first > 0 && second > 0);
    assert_int_equal(first + second, FLOWS);
    set_pairs(1);
    begin(MRG | MQ, PAIRS);
    send_flows();
    assert_int_equal(count(0), FLOWS);
}

static void test_a_link_that_is_down_carries_nothing(void **state)
{
    (void)state;
    begin(MRG, 1);
    net_set_link(driver.device, false);
    send_datagram(3000);
    assert_null(next_frame(0, 100));
    net_set_link(driver.device, true);
    send_datagram(3001);
    assert_non_null(next_frame(0, LOOSE_MS));
}

#define with_tap(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_tap(test_a_driver_without_checksums_gets_whole_ones),
        with_tap(test_a_driver_with_checksums_is_left_them),
        with_tap(test_a_large_packet_alone_is_told),
        with_tap(test_flows_go_to_the_queues_in_use),
        with_tap(test_a_link_that_is_down_carries_nothing),
    };

    log_open("test", LOG_LEVEL_ERROR);
    if (unshare(CLONE_NEWNET) < 0 || (control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) < 0) {
        printf("skipped: no network namespace of its own (root is needed)\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
