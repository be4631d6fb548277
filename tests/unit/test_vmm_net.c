/* SPDX-License-Identifier: Apache-2.0 */
/* The network device without a wire: configuration, link, the control queue and drivers that misuse it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/virtio_net.h>

#include "base/log.h"
#include "vmm/devices/net.h"
#include "vmm_driver.h"

enum { PAIRS = 3, MTU = 9000, CONTROL = 2 * PAIRS, CONFIG = 0x100, ACK = DRIVER_DATA + 512, UNANSWERED = 77 };
#define MRG      VIRTIO_FEATURE(VIRTIO_NET_F_MRG_RXBUF)
#define CTRL     VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_VQ)
#define MQ       VIRTIO_FEATURE(VIRTIO_NET_F_MQ)
#define OFFLOADS VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS)
#define CSUM     VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_CSUM)
#define TSO4     VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_TSO4)
#define TSO6     VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_TSO6)

static int set_up(void **state)
{
    static struct driver driver;
    struct net_options o = net_options_none();

    driver_memory(&driver);
    o.pairs = PAIRS;
    o.control = true;
    o.mtu = MTU;
    memcpy(o.mac, "\2\0\0\0\0\7", 6);
    *state = &driver;
    return net_create(&driver.memory, &o, &driver.device, NULL);
}

static int tear_down(void **state)
{
    driver_end(*state);
    return 0;
}

/* Sends a command; returns the device's answer, UNANSWERED when there is none. */
static unsigned command_on(struct driver *v, unsigned queue, uint8_t class, uint8_t code, const void *data, size_t size)
{
    const struct driver_segment s[] = {
        {DRIVER_DATA, 2, false}, {DRIVER_DATA + 16, (uint32_t)size, false}, {ACK, 1, true}};
    const struct driver_segment bare[] = {s[0], s[2]};
    uint16_t head;
    uint32_t written;

    v->memory.base[DRIVER_DATA] = class;
    v->memory.base[DRIVER_DATA + 1] = code;
    memcpy(v->memory.base + DRIVER_DATA + 16, data, size);
    v->memory.base[ACK] = UNANSWERED;
    driver_offer(v, queue, size ? s : bare, size ? 3 : 2);
    driver_run(v);
    if (driver_take(v, queue, &head, &written))
        assert_int_equal(written, 1);
    return v->memory.base[ACK];
}

static unsigned set_pairs(struct driver *v, uint16_t pairs)
{
    return command_on(v, CONTROL, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, &pairs, sizeof(pairs));
}

static unsigned set_offloads(struct driver *v, uint64_t offloads)
{
    return command_on(v, CONTROL, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, &offloads,
                      sizeof(offloads));
}

/* Whether what the driver sends on a pair is taken. */
static bool sends(struct driver *v, unsigned pair)
{
    const struct driver_segment s = {DRIVER_DATA + 4096, 100, false};
    uint16_t head;
    uint32_t written;

    driver_offer(v, 2 * pair + 1, &s, 1);
    driver_run(v);
    return driver_take(v, 2 * pair + 1, &head, &written);
}

static void test_configuration(void **state)
{
    struct driver *v = *state;
    uint32_t generation;

    assert_int_equal(virtio_mmio_read(v->device, CONFIG + 5, 1), 7);
    assert_int_equal(virtio_mmio_read(v->device, CONFIG + 6, 2), VIRTIO_NET_S_LINK_UP);
    assert_int_equal(virtio_mmio_read(v->device, CONFIG + 8, 2), PAIRS);
    assert_int_equal(virtio_mmio_read(v->device, CONFIG + 10, 2), MTU);
    assert_int_equal(virtio_mmio_read(v->device, CONFIG + 4000, 4), 0);
    driver_begin(v, MRG | CTRL | MQ);
    generation = driver_get(v, 0xfc);
    net_set_link(v->device, true); /* it is up */
    assert_int_equal(driver_get(v, 0xfc), generation);
    net_set_link(v->device, false);
    assert_int_equal(virtio_mmio_read(v->device, CONFIG + 6, 2), 0);
    assert_int_equal(driver_get(v, 0xfc), generation + 1);
    assert_int_equal(driver_get(v, 0x60) & 2, 2);
    net_set_link(v->device, true);
    assert_int_equal(virtio_mmio_read(v->device, CONFIG + 6, 2), VIRTIO_NET_S_LINK_UP);
}

static void test_pairs_as_the_driver_wants(void **state)
{
    struct driver *v = *state;

    driver_begin(v, MRG | CTRL | MQ);
    assert_true(sends(v, 0));
    assert_false(sends(v, 1)); /* not before it is asked for */
    assert_int_equal(set_pairs(v, PAIRS), VIRTIO_NET_OK);
    assert_true(sends(v, 1)); /* what was offered too early */
    assert_true(sends(v, 2));
    assert_int_equal(set_pairs(v, 0), VIRTIO_NET_ERR);
    assert_int_equal(set_pairs(v, PAIRS + 1), VIRTIO_NET_ERR);
    assert_int_equal(set_pairs(v, UINT16_MAX), VIRTIO_NET_ERR);
    assert_true(sends(v, 2));
    assert_int_equal(set_pairs(v, 2), VIRTIO_NET_OK);
    assert_false(sends(v, 2));
    driver_begin(v, MRG | CTRL | MQ);
    assert_false(sends(v, 1)); /* a reset begins with one */
}

static void test_without_mq_the_control_queue_is_the_third(void **state)
{
    struct driver *v = *state;
    const uint16_t one = 1;

    driver_begin(v, MRG | CTRL);
    assert_int_equal(command_on(v, 2, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, &one, 2), VIRTIO_NET_ERR);
    assert_int_equal(set_pairs(v, 1), UNANSWERED);
}

static void test_offloads_at_run_time(void **state)
{
    struct driver *v = *state;

    driver_begin(v, MRG | CTRL | MQ | OFFLOADS | CSUM | TSO4);
    assert_int_equal(set_offloads(v, CSUM), VIRTIO_NET_OK);
    assert_int_equal(set_offloads(v, CSUM | TSO4), VIRTIO_NET_OK);
    assert_int_equal(set_offloads(v, 0), VIRTIO_NET_OK);
    assert_int_equal(set_offloads(v, CSUM | TSO6), VIRTIO_NET_ERR); /* offered, not accepted */
    assert_int_equal(set_offloads(v, CSUM | MRG), VIRTIO_NET_ERR);  /* none that can be switched */
    assert_int_equal(set_offloads(v, UINT64_MAX), VIRTIO_NET_ERR);
    driver_begin(v, MRG | CTRL | MQ | CSUM);
    assert_int_equal(set_offloads(v, 0), VIRTIO_NET_ERR);
}

static void test_commands_that_are_none(void **state)
{
    struct driver *v = *state;
    const uint8_t bytes[64] = {1};
    const struct driver_segment half[] = {{DRIVER_DATA, 1, false}, {ACK, 1, true}};
    const struct driver_segment deaf = {DRIVER_DATA, 4, false};

    driver_begin(v, MRG | CTRL | MQ | OFFLOADS);
    for (unsigned class = 0; class < 256; class++)
        for (unsigned code = 0; code < 4; code++)
            if ((class != VIRTIO_NET_CTRL_MQ && class != VIRTIO_NET_CTRL_GUEST_OFFLOADS) || code != 0)
                assert_int_equal(command_on(v, CONTROL, (uint8_t)class, (uint8_t)code, bytes, sizeof(bytes)),
                                 VIRTIO_NET_ERR);
    assert_int_equal(command_on(v, CONTROL, VIRTIO_NET_CTRL_MQ, 0, bytes, 1), VIRTIO_NET_ERR); /* half a number */
    assert_int_equal(command_on(v, CONTROL, VIRTIO_NET_CTRL_MQ, 0, bytes, 0), VIRTIO_NET_ERR);
    assert_int_equal(command_on(v, CONTROL, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, bytes, 7), VIRTIO_NET_ERR);
    driver_offer(v, CONTROL, half, 2);
    driver_offer(v, CONTROL, &deaf, 1);
    driver_run(v);
    assert_int_equal(driver_used_ring(v, CONTROL)[1], v->available[CONTROL]);
    assert_false(driver_stopped(v));
}

static void test_hostile_12_control_chain_that_loops(void **state)
{
    struct driver *v = *state;
    const struct driver_segment s[] = {{DRIVER_DATA, 2, false}, {ACK, 1, false}};

    driver_begin(v, MRG | CTRL | MQ);
    driver_offer(v, CONTROL, s, 2);
    driver_descriptors(v, CONTROL)[1].flags = SEGMENT_NEXT;
    driver_descriptors(v, CONTROL)[1].next = 0;
    driver_run(v);
    assert_true(driver_stopped(v));
    driver_begin(v, MRG | CTRL | MQ);
    assert_int_equal(set_pairs(v, 2), VIRTIO_NET_OK);
}

static void test_state_in_a_snapshot(void **state)
{
    static struct device_state saved, changed;
    struct driver *v = *state;

    driver_begin(v, MRG | CTRL | MQ | OFFLOADS | CSUM | TSO4);
    assert_int_equal(set_pairs(v, 2), VIRTIO_NET_OK);
    assert_int_equal(set_offloads(v, CSUM), VIRTIO_NET_OK);
    assert_int_equal(device_save(v->device, &saved, NULL), 0);
    device_destroy(v->device);
    for (unsigned i = 0; i < 4; i++) {
        struct net_options o = net_options_none();

        o.pairs = PAIRS;
        o.control = true;
        o.mtu = MTU;
        assert_int_equal(net_create(&v->memory, &o, &v->device, NULL), 0);
        changed = saved;
        if (i == 1)
            changed.own[8] = PAIRS + 1;
        if (i == 2)
            changed.own[0] = 0xff; /* offloads never accepted */
        if (i == 3)
            changed.own_size = 3;
        assert_int_equal(device_restore(v->device, &changed, NULL) == 0, i == 0);
        if (i == 0) {
            assert_true(sends(v, 1));
            assert_false(sends(v, 2));
        }
        if (i < 3)
            device_destroy(v->device);
    }
}

static void test_impossible_options(void **state)
{
    struct driver *v = *state;
    struct device *d;

    for (unsigned i = 0; i < 4; i++) {
        struct net_options o = net_options_none();
        o.control = i != 2;
        o.pairs = i == 0 ? 0 : i == 1 ? NET_PAIR_MAX + 1 : i == 2 ? 2 : 1;
        if (i == 3)
            o.user_fd = 0; /* without memory to share */
        assert_int_equal(net_create(&v->memory, &o, &d, NULL), -EINVAL);
    }
}

#define with_device(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_device(test_configuration),
        with_device(test_pairs_as_the_driver_wants),
        with_device(test_without_mq_the_control_queue_is_the_third),
        with_device(test_offloads_at_run_time),
        with_device(test_commands_that_are_none),
        with_device(test_hostile_12_control_chain_that_loops),
        with_device(test_state_in_a_snapshot),
        with_device(test_impossible_options),
    };

    log_open("test", LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
