/* SPDX-License-Identifier: Apache-2.0 */
/* The device side of a virtqueue under drivers that keep the rules and drivers that break each of them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "virtqueue/queue.h"

enum { SIZE = 8, MEMORY = 65536, TABLE = 0x1000, AVAILABLE = 0x2000, USED = 0x3000, DATA = 0x8000, INDIRECT = 0x4000 };
enum { NEXT = 1, WRITE = 2, TABLE_FLAG = 4 };

struct bed {
    struct guest_memory memory;
    struct virtqueue queue;
    struct virtqueue_chain chain;
    uint16_t index; /* the driver's */
};

static void put16(struct bed *b, uint64_t at, uint16_t value)
{
    memcpy(b->memory.base + at, &value, sizeof(value));
}

static uint16_t get16(const struct bed *b, uint64_t at)
{
    uint16_t value;

    memcpy(&value, b->memory.base + at, sizeof(value));
    return value;
}

static void describe_at(struct bed *b, uint64_t table, unsigned i, uint64_t address, uint32_t length, uint16_t flags,
                        uint16_t next)
{
    uint8_t *d = b->memory.base + table + 16 * i;

    memcpy(d, &address, 8);
    memcpy(d + 8, &length, 4);
    memcpy(d + 12, &flags, 2);
    memcpy(d + 14, &next, 2);
}

static void describe(struct bed *b, unsigned i, uint64_t address, uint32_t length, uint16_t flags, uint16_t next)
{
    describe_at(b, TABLE, i, address, length, flags, next);
}

static void offer(struct bed *b, uint16_t head)
{
    put16(b, AVAILABLE + 4 + 2 * (b->index % SIZE), head);
    b->index++;
    put16(b, AVAILABLE + 2, b->index);
}

static int set_up_with(void **state, bool event_index)
{
    struct bed *b = calloc(1, sizeof(*b));
    const struct virtqueue_address address = {.descriptors = TABLE, .available = AVAILABLE, .used = USED, .size = SIZE};

    b->memory = (struct guest_memory){.base = calloc(1, MEMORY), .bytes = MEMORY};
    *state = b;
    return virtqueue_enable(&b->queue, &b->memory, &address, event_index);
}

static int set_up(void **state)
{
    return set_up_with(state, false);
}

static int set_up_event(void **state)
{
    return set_up_with(state, true);
}

static int tear_down(void **state)
{
    struct bed *b = *state;

    free(b->memory.base);
    free(b);
    return 0;
}

static void expect_broken(struct bed *b, const char *why)
{
    assert_int_equal(virtqueue_pop(&b->queue, &b->chain), -EPROTO);
    assert_non_null(b->queue.broken);
    assert_string_equal(b->queue.broken, why);
    assert_int_equal(virtqueue_pop(&b->queue, &b->chain), -EPROTO); /* for good */
    assert_false(virtqueue_has_work(&b->queue));
}

static void test_chain(void **state)
{
    struct bed *b = *state;

    describe(b, 2, DATA, 100, NEXT, 5);
    describe(b, 5, DATA + 512, 28, NEXT | WRITE, 1);
    describe(b, 1, MEMORY - 4, 4, WRITE, 0);
    assert_int_equal(virtqueue_pop(&b->queue, &b->chain), 0);
    offer(b, 2);
    assert_true(virtqueue_has_work(&b->queue));
    assert_int_equal(virtqueue_pop(&b->queue, &b->chain), 1);
    assert_int_equal(b->chain.head, 2);
    assert_int_equal(b->chain.readable, 1);
    assert_int_equal(b->chain.writable, 2);
    assert_int_equal(b->chain.readable_bytes, 100);
    assert_int_equal(b->chain.writable_bytes, 32);
    assert_ptr_equal(b->chain.segments[2].iov_base, b->memory.base + MEMORY - 4);
    virtqueue_push(&b->queue, b->chain.head, 32);
    assert_int_equal(get16(b, USED + 2), 0);
    virtqueue_publish(&b->queue);
    assert_int_equal(get16(b, USED + 2), 1);
    assert_int_equal(get16(b, USED + 4), 2);
    assert_int_equal(get16(b, USED + 8), 32);
    assert_true(virtqueue_wants_interrupt(&b->queue));
    assert_false(virtqueue_wants_interrupt(&b->queue));
}

static void test_unpop_gives_the_same_again(void **state)
{
    struct bed *b = *state;

    describe(b, 3, DATA, 1, 0, 0);
    offer(b, 3);
    assert_int_equal(virtqueue_pop(&b->queue, &b->chain), 1);
    virtqueue_unpop(&b->queue);
    memset(&b->chain, 0, sizeof(b->chain));
    assert_int_equal(virtqueue_pop(&b->queue, &b->chain), 1);
    assert_int_equal(b->chain.head, 3);
}

static void test_indirect(void **state)
{
    struct bed *b = *state;

    describe(b, 0, INDIRECT, 32, TABLE_FLAG, 0);
    describe_at(b, INDIRECT, 0, DATA, 10, NEXT, 1);
    describe_at(b, INDIRECT, 1, DATA + 10, 20, WRITE, 0);
    offer(b, 0);
    assert_int_equal(virtqueue_pop(&b->queue, &b->chain), 1);
    assert_int_equal(b->chain.readable_bytes, 10);
    assert_int_equal(b->chain.writable_bytes, 20);
}

static void hostile_12_loop(void **state)
{
    struct bed *b = *state;

    describe(b, 0, DATA, 1, NEXT, 1);
    describe(b, 1, DATA, 1, NEXT, 0);
    offer(b, 0);
    expect_broken(b, "a loop of descriptors");
}

static void hostile_12_loop_in_indirect(void **state)
{
    struct bed *b = *state;

    describe(b, 0, INDIRECT, 16, TABLE_FLAG, 0);
    describe_at(b, INDIRECT, 0, DATA, 1, NEXT, 0);
    offer(b, 0);
    expect_broken(b, "a loop of descriptors");
}

static void hostile_12_next_outside(void **state)
{
    struct bed *b = *state;

    describe(b, 0, DATA, 1, NEXT, SIZE);
    offer(b, 0);
    expect_broken(b, "a descriptor's successor outside the table");
}

static void hostile_12_head_outside(void **state)
{
    struct bed *b = *state;

    offer(b, SIZE);
    expect_broken(b, "an available entry outside the table");
}

static void hostile_12_nested_indirect(void **state)
{
    struct bed *b = *state;

    describe(b, 0, INDIRECT, 16, TABLE_FLAG, 0);
    describe_at(b, INDIRECT, 0, INDIRECT, 16, TABLE_FLAG, 0);
    offer(b, 0);
    expect_broken(b, "an indirect descriptor inside a table or with a successor");
}

static void hostile_12_indirect_of_odd_size(void **state)
{
    struct bed *b = *state;

    describe(b, 0, INDIRECT, 17, TABLE_FLAG, 0);
    offer(b, 0);
    expect_broken(b, "an indirect table of impossible size or place");
}

static void hostile_14_indirect_outside(void **state)
{
    struct bed *b = *state;

    describe(b, 0, MEMORY - 16, 32, TABLE_FLAG, 0);
    offer(b, 0);
    expect_broken(b, "an indirect table of impossible size or place");
}

static void hostile_12_zero_length(void **state)
{
    struct bed *b = *state;

    describe(b, 0, DATA, 0, 0, 0);
    offer(b, 0);
    expect_broken(b, "a descriptor of length 0");
}

static void hostile_13_index_jump(void **state)
{
    struct bed *b = *state;

    put16(b, AVAILABLE + 2, SIZE + 1);
    expect_broken(b, "the available index jumped beyond the ring");
}

static void hostile_13_index_backwards(void **state)
{
    struct bed *b = *state;

    describe(b, 0, DATA, 1, 0, 0);
    offer(b, 0);
    assert_int_equal(virtqueue_pop(&b->queue, &b->chain), 1);
    put16(b, AVAILABLE + 2, 0);
    expect_broken(b, "the available index jumped beyond the ring");
}

static void hostile_14_sum_overflow(void **state)
{
    struct bed *b = *state;

    describe(b, 0, UINT64_MAX - 15, 32, 0, 0);
    offer(b, 0);
    expect_broken(b, "a descriptor outside memory");
}

static void hostile_14_one_byte_beyond(void **state)
{
    struct bed *b = *state;

    describe(b, 0, MEMORY - 4, 5, 0, 0);
    offer(b, 0);
    expect_broken(b, "a descriptor outside memory");
}

static void hostile_14_length_of_4_gib(void **state)
{
    struct bed *b = *state;

    describe(b, 0, 0, UINT32_MAX, 0, 0);
    offer(b, 0);
    expect_broken(b, "a descriptor outside memory");
}

static void hostile_12_readable_behind_writable(void **state)
{
    struct bed *b = *state;

    describe(b, 0, DATA, 1, NEXT | WRITE, 1);
    describe(b, 1, DATA, 1, 0, 0);
    offer(b, 0);
    expect_broken(b, "a readable descriptor behind a writable one");
}

static void hostile_15_chain_too_long(void **state)
{
    struct bed *b = *state;

    describe(b, 0, INDIRECT, 16 * (VIRTQUEUE_SEGMENT_MAX + 1), TABLE_FLAG, 0);
    for (unsigned i = 0; i <= VIRTQUEUE_SEGMENT_MAX; i++)
        describe_at(b, INDIRECT, i, DATA, 1, NEXT, (uint16_t)(i + 1));
    offer(b, 0);
    expect_broken(b, "a chain of too many descriptors");
}

static void hostile_14_bad_rings(void **state)
{
    static const struct virtqueue_address bad[] = {
        {TABLE, AVAILABLE, USED, 0},          {TABLE, AVAILABLE, USED, 3},
        {TABLE, AVAILABLE, USED, 2048},       {TABLE + 8, AVAILABLE, USED, SIZE},
        {TABLE, AVAILABLE + 1, USED, SIZE},   {TABLE, AVAILABLE, USED + 2, SIZE},
        {MEMORY - 16, AVAILABLE, USED, SIZE}, {TABLE, MEMORY - 4, USED, SIZE},
        {TABLE, AVAILABLE, MEMORY - 8, SIZE}, {UINT64_MAX - 15, AVAILABLE, USED, SIZE},
    };
    struct bed *b = *state;
    struct virtqueue fresh = {0};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(virtqueue_enable(&fresh, &b->memory, &bad[i], true), -EINVAL);
        assert_null(fresh.available);
    }
    assert_int_equal(virtqueue_pop(&fresh, &b->chain), 0); /* a queue that was never enabled */
}

/* virtio 1.2, 2.7.7.2: an interrupt only when the used index passes used_event. */
static void test_event_index(void **state)
{
    struct bed *b = *state;

    describe(b, 0, DATA, 1, 0, 0);
    put16(b, AVAILABLE + 4 + 2 * SIZE, 1); /* used_event: with the second */
    for (unsigned i = 0; i < 4; i++) {
        offer(b, 0);
        assert_int_equal(virtqueue_pop(&b->queue, &b->chain), 1);
        virtqueue_push(&b->queue, 0, 0);
        virtqueue_publish(&b->queue);
        assert_int_equal(virtqueue_wants_interrupt(&b->queue), i == 1);
    }
    virtqueue_notify_enable(&b->queue);
    assert_int_equal(get16(b, USED + 4 + 8 * SIZE), 4);
}

/* Too few receive buffers for a packet: no work and no notification until there are more. */
static void test_stall(void **state)
{
    struct bed *b = *state;

    describe(b, 0, DATA, 1, WRITE, 0);
    offer(b, 0);
    offer(b, 0);
    assert_int_equal(virtqueue_pop(&b->queue, &b->chain), 1);
    assert_int_equal(virtqueue_pop(&b->queue, &b->chain), 1);
    virtqueue_stall(&b->queue);
    virtqueue_unpop(&b->queue);
    virtqueue_unpop(&b->queue);
    assert_false(virtqueue_has_work(&b->queue));
    virtqueue_notify_enable(&b->queue);
    assert_int_equal(get16(b, USED + 4 + 8 * SIZE), 2); /* avail_event: the third */
    offer(b, 0);
    assert_true(virtqueue_has_work(&b->queue));
    virtqueue_unstall(&b->queue);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(virtqueue_pop(&b->queue, &b->chain), 1);
    assert_false(virtqueue_has_work(&b->queue));
}

static void test_indices_wrap(void **state)
{
    struct bed *b = *state;

    describe(b, 1, DATA, 1, 0, 0);
    for (unsigned i = 0; i < 70000; i++) {
        offer(b, 1);
        assert_int_equal(virtqueue_pop(&b->queue, &b->chain), 1);
        virtqueue_push(&b->queue, 1, 0);
        virtqueue_publish(&b->queue);
    }
    assert_int_equal(get16(b, USED + 2), (uint16_t)70000);
}

#define QUEUE_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        QUEUE_TEST(test_chain),
        QUEUE_TEST(test_unpop_gives_the_same_again),
        QUEUE_TEST(test_indirect),
        QUEUE_TEST(hostile_12_loop),
        QUEUE_TEST(hostile_12_loop_in_indirect),
        QUEUE_TEST(hostile_12_next_outside),
        QUEUE_TEST(hostile_12_head_outside),
        QUEUE_TEST(hostile_12_nested_indirect),
        QUEUE_TEST(hostile_12_indirect_of_odd_size),
        QUEUE_TEST(hostile_14_indirect_outside),
        QUEUE_TEST(hostile_12_zero_length),
        QUEUE_TEST(hostile_13_index_jump),
        QUEUE_TEST(hostile_13_index_backwards),
        QUEUE_TEST(hostile_14_sum_overflow),
        QUEUE_TEST(hostile_14_one_byte_beyond),
        QUEUE_TEST(hostile_14_length_of_4_gib),
        QUEUE_TEST(hostile_12_readable_behind_writable),
        QUEUE_TEST(hostile_15_chain_too_long),
        QUEUE_TEST(hostile_14_bad_rings),
        QUEUE_TEST(test_indices_wrap),
        cmocka_unit_test_setup_teardown(test_stall, set_up_event, tear_down),
        cmocka_unit_test_setup_teardown(test_event_index, set_up_event, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
