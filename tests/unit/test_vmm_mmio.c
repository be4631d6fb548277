/* SPDX-License-Identifier: Apache-2.0 */
/* The virtio-mmio transport: a driver's way through it, and registers written in the wrong state. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/devices/device.h"

enum { MEMORY = 65536, ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8, NEEDS_RESET = 64 };
enum {
    MAGIC = 0x0,
    VERSION = 0x4,
    TYPE = 0x8,
    FEATURES = 0x10,
    FEATURES_SELECT = 0x14,
    ACCEPT = 0x20,
    ACCEPT_SELECT = 0x24,
    SELECT = 0x30,
    SIZE_MAX_ = 0x34,
    SIZE = 0x38,
    READY = 0x44,
    NOTIFY = 0x50,
    INTERRUPT = 0x60,
    INTERRUPT_ACK = 0x64,
    STATUS = 0x70,
    TABLE = 0x80,
    AVAILABLE = 0x90,
    USED = 0xa0,
    CONFIG = 0x100,
};

struct bed {
    struct device device;
    struct guest_memory memory;
    unsigned activated;
};

static int activate(struct device *d)
{
    ((struct bed *)d)->activated++;
    return 0;
}

static void config(struct device *d, void *to, unsigned offset, unsigned length)
{
    static const uint8_t bytes[4] = {1, 2, 3, 4};

    (void)d;
    if (offset < sizeof(bytes))
        memcpy(to, bytes + offset, length < sizeof(bytes) - offset ? length : sizeof(bytes) - offset);
}

static void destroy(struct device *d)
{
    free(((struct bed *)d)->memory.base);
    free(d);
}

static const struct device_ops ops = {.name = "test",
                                      .type = VIRTIO_ENTROPY,
                                      .queue_count = 2,
                                      .activate = activate,
                                      .config = config,
                                      .destroy = destroy};

static int set_up(void **state)
{
    struct bed *b = calloc(1, sizeof(*b));

    b->memory = (struct guest_memory){.base = calloc(1, MEMORY), .bytes = MEMORY};
    *state = b;
    return device_init(&b->device, &ops, &b->memory, VIRTIO_F_EVENT | VIRTIO_FEATURE(3), NULL);
}

static int tear_down(void **state)
{
    device_destroy(*state);
    return 0;
}

static uint32_t get(struct bed *b, uint64_t offset)
{
    return (uint32_t)virtio_mmio_read(&b->device, offset, 4);
}

static void set(struct bed *b, uint64_t offset, uint32_t value)
{
    virtio_mmio_write(&b->device, offset, 4, value);
}

static void negotiate(struct bed *b, uint64_t features)
{
    set(b, STATUS, 0);
    set(b, STATUS, ACKNOWLEDGE | DRIVER);
    for (uint32_t half = 0; half < 2; half++) {
        set(b, ACCEPT_SELECT, half);
        set(b, ACCEPT, (uint32_t)(features >> (32 * half)));
    }
    set(b, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
}

static void set_queue(struct bed *b, uint32_t index, uint64_t table)
{
    set(b, SELECT, index);
    set(b, SIZE, 8);
    set(b, TABLE, (uint32_t)table);
    set(b, TABLE + 4, (uint32_t)(table >> 32));
    set(b, AVAILABLE, 0x2000);
    set(b, USED, 0x3000);
    set(b, READY, 1);
}

static void test_driver(void **state)
{
    struct bed *b = *state;

    assert_int_equal(get(b, MAGIC), 0x74726976);
    assert_int_equal(get(b, VERSION), 2);
    assert_int_equal(get(b, TYPE), VIRTIO_ENTROPY);
    set(b, FEATURES_SELECT, 1);
    assert_int_equal(get(b, FEATURES), 1); /* VERSION_1 */
    set(b, FEATURES_SELECT, 2);
    assert_int_equal(get(b, FEATURES), 0);
    negotiate(b, VIRTIO_F_VERSION | VIRTIO_F_EVENT);
    assert_true(get(b, STATUS) & FEATURES_OK);
    set_queue(b, 1, 0x1000);
    assert_int_equal(get(b, READY), 1);
    assert_true(b->device.queues[1].ring.event_index);
    set(b, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    assert_int_equal(b->activated, 1);
    set(b, STATUS, 0);
    assert_int_equal(get(b, READY), 0);
    assert_null(b->device.queues[1].ring.available);
}

static void test_features_never_offered(void **state)
{
    struct bed *b = *state;

    negotiate(b, VIRTIO_F_VERSION | VIRTIO_FEATURE(4));
    assert_false(get(b, STATUS) & FEATURES_OK);
    set(b, STATUS, get(b, STATUS) | DRIVER_OK);
    assert_int_equal(b->activated, 0);
}

static void test_features_without_version_1(void **state)
{
    struct bed *b = *state;

    negotiate(b, VIRTIO_F_EVENT);
    assert_false(get(b, STATUS) & FEATURES_OK);
}

static void test_features_stay_once_agreed(void **state)
{
    struct bed *b = *state;

    negotiate(b, VIRTIO_F_VERSION);
    set(b, ACCEPT_SELECT, 0);
    set(b, ACCEPT, UINT32_MAX);
    assert_int_equal(b->device.accepted, VIRTIO_F_VERSION);
}

static void hostile_14_ring_outside_memory(void **state)
{
    struct bed *b = *state;

    negotiate(b, VIRTIO_F_VERSION);
    set_queue(b, 0, UINT64_MAX - 15);
    assert_int_equal(get(b, READY), 0);
    assert_true(get(b, STATUS) & NEEDS_RESET);
    assert_int_equal(get(b, INTERRUPT), 2);
    set(b, INTERRUPT_ACK, 2);
    assert_int_equal(get(b, INTERRUPT), 0);
    set_queue(b, 0, 0x1000); /* not before a reset */
    assert_int_equal(get(b, READY), 0);
    set(b, STATUS, 0);
    negotiate(b, VIRTIO_F_VERSION);
    set_queue(b, 0, 0x1000);
    assert_int_equal(get(b, READY), 1);
}

static void hostile_18_ring_in_use_does_not_move(void **state)
{
    struct bed *b = *state;

    negotiate(b, VIRTIO_F_VERSION);
    set_queue(b, 0, 0x1000);
    set(b, TABLE, 0x5000);
    set(b, SIZE, 4096);
    assert_int_equal(b->device.queues[0].address.descriptors, 0x1000);
    assert_int_equal(b->device.queues[0].address.size, 8);
    set(b, READY, 0);
    assert_null(b->device.queues[0].ring.available);
}

static void hostile_18_queue_beyond_the_last(void **state)
{
    struct bed *b = *state;
    const uint64_t one = 1;
    uint64_t value;

    negotiate(b, VIRTIO_F_VERSION);
    set_queue(b, 2, 0x1000);
    set_queue(b, UINT32_MAX, 0x1000);
    assert_int_equal(get(b, SIZE_MAX_), 0);
    assert_int_equal(get(b, READY), 0);
    set(b, NOTIFY, 2);
    set(b, NOTIFY, UINT32_MAX);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(read(b->device.queues[i].notify_fd, &value, sizeof(value)), -1);
    set(b, NOTIFY, 1);
    assert_int_equal(read(b->device.queues[1].notify_fd, &value, sizeof(value)), sizeof(value));
    assert_int_equal(value, one);
}

static void hostile_18_odd_accesses(void **state)
{
    struct bed *b = *state;

    assert_int_equal(virtio_mmio_read(&b->device, MAGIC, 1), 0);
    assert_int_equal(virtio_mmio_read(&b->device, MAGIC + 2, 4), 0);
    virtio_mmio_write(&b->device, STATUS, 8, ACKNOWLEDGE);
    virtio_mmio_write(&b->device, STATUS + 1, 4, ACKNOWLEDGE);
    assert_int_equal(get(b, STATUS), 0);
    assert_int_equal(virtio_mmio_read(&b->device, CONFIG + 1, 2), 0x0302);
    assert_int_equal(virtio_mmio_read(&b->device, CONFIG + 3, 8), 4);
    assert_int_equal(virtio_mmio_read(&b->device, 4095, 8), 0);
}

#define MMIO_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        MMIO_TEST(test_driver),
        MMIO_TEST(test_features_never_offered),
        MMIO_TEST(test_features_without_version_1),
        MMIO_TEST(test_features_stay_once_agreed),
        MMIO_TEST(hostile_14_ring_outside_memory),
        MMIO_TEST(hostile_18_ring_in_use_does_not_move),
        MMIO_TEST(hostile_18_queue_beyond_the_last),
        MMIO_TEST(hostile_18_odd_accesses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
