/* SPDX-License-Identifier: Apache-2.0 */
/* Balloon, console and entropy: the three small devices. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/devices/balloon.h"
#include "vmm/devices/console.h"
#include "vmm/devices/entropy.h"
#include "vmm_driver.h"

enum { INFLATE, DEFLATE, STATISTICS, REPORT = 4 };
enum { PAGE = 4096, PAGES = 0xc0000, PAGE_COUNT = 16 };

static void make_balloon(struct driver *v)
{
    driver_memory(v);
    assert_int_equal(balloon_create(&v->memory, false, &v->device, NULL), 0);
    driver_begin(v, VIRTIO_FEATURE(1) | VIRTIO_FEATURE(5));
}

static void fill(struct driver *v)
{
    memset(v->memory.base + PAGES, 0x55, PAGE_COUNT * PAGE);
}

static bool resident(struct driver *v, unsigned page)
{
    unsigned char in = 0;

    assert_int_equal(mincore(v->memory.base + PAGES + page * PAGE, PAGE, &in), 0);
    return in & 1;
}

static void give(struct driver *v, unsigned q, const uint32_t *pages, unsigned count)
{
    const struct driver_segment s = {DRIVER_DATA, count * 4, false};

    memcpy(v->memory.base + DRIVER_DATA, pages, count * 4);
    driver_offer(v, q, &s, 1);
    driver_run(v);
}

static void test_inflate(void **state)
{
    const uint32_t first = PAGES / PAGE, pages[] = {first + 3, first + 4, first + 2, first + 9};
    struct driver v;

    make_balloon(&v);
    fill(&v);
    assert_int_equal(balloon_set(v.device, 8 * PAGE + 17), 0);
    assert_int_equal(driver_get(&v, 0x100), 8);
    assert_true(driver_get(&v, 0x60) & 2);
    assert_int_equal(balloon_set(v.device, DRIVER_MEMORY + PAGE), -ERANGE);
    give(&v, INFLATE, pages, 4);
    driver_set(&v, 0x104, 4);
    assert_int_equal(balloon_actual(v.device), 4 * PAGE);
    assert_int_equal(balloon_counters(v.device).inflated_bytes, 4 * PAGE);
    for (unsigned i = 0; i < PAGE_COUNT; i++)
        assert_int_equal(resident(&v, i), !(i >= 2 && i <= 4) && i != 9);
    give(&v, DEFLATE, pages, 4);
    assert_int_equal(v.memory.base[PAGES + 3 * PAGE], 0); /* it is there again, empty */
    assert_int_equal(v.memory.base[PAGES + 5 * PAGE], 0x55);
    driver_set(&v, 0x70, 0);
    assert_int_equal(balloon_actual(v.device), 0);
    driver_end(&v);
}

static void test_reports(void **state)
{
    const struct driver_segment s[] = {{PAGES, 2 * PAGE, true}, {PAGES + 5 * PAGE + 1, 3 * PAGE, true}};
    struct driver v;

    make_balloon(&v);
    for (unsigned q = REPORT - 1; q <= REPORT; q++) { /* either number of the queue */
        fill(&v);
        driver_offer(&v, q, s, 2);
        driver_run(&v);
        for (unsigned i = 0; i < PAGE_COUNT; i++) /* of a part of a page nothing goes */
            assert_int_equal(resident(&v, i), i > 1 && i != 6 && i != 7);
    }
    assert_int_equal(balloon_counters(v.device).reported_bytes, 8 * PAGE);
    driver_end(&v);
}

static void test_statistics(void **state)
{
    const struct driver_segment s = {DRIVER_DATA, 20, false};
    struct balloon_memory m;
    struct driver v;
    uint16_t head;
    uint32_t written;

    make_balloon(&v);
    assert_false(balloon_memory(v.device, &m));
    memcpy(v.memory.base + DRIVER_DATA, "\4\0\0\0\1\0\0\0\0\0\5\0\0\0\2\0\0\0\0\0", 20);
    driver_offer(&v, STATISTICS, &s, 1);
    driver_run(&v);
    assert_false(driver_take(&v, STATISTICS, &head, &written)); /* held until somebody asks */
    assert_true(balloon_memory(v.device, &m));
    assert_int_equal(m.free, 65536);
    assert_int_equal(m.total, 131072);
    assert_int_equal(m.caches, UINT64_MAX);
    assert_true(driver_take(&v, STATISTICS, &head, &written));
    assert_true(balloon_memory(v.device, &m));
    assert_false(driver_take(&v, STATISTICS, &head, &written));
    driver_offer(&v, STATISTICS, &s, 1);
    driver_offer(&v, STATISTICS, &s, 1); /* a second one is no reason to stop */
    driver_run(&v);
    assert_true(driver_take(&v, STATISTICS, &head, &written));
    assert_false(driver_stopped(&v));
    driver_end(&v);
}

/* Pages that are none, and the guest's own rings given up: it hurts itself. */
static void hostile_14_balloon_pages(void **state)
{
    const uint32_t outside[] = {DRIVER_MEMORY / PAGE, UINT32_MAX, 1u << 20};
    const uint32_t rings[] = {DRIVER_RINGS / PAGE, DRIVER_RINGS / PAGE + 1, DRIVER_RINGS / PAGE + 2};
    struct driver v;

    make_balloon(&v);
    for (unsigned i = 0; i < 3; i++) {
        give(&v, INFLATE, &outside[i], 1);
        assert_true(driver_stopped(&v));
        assert_int_equal(balloon_counters(v.device).inflated_bytes, 0);
        driver_begin(&v, 0);
    }
    give(&v, INFLATE, rings, 3);
    give(&v, INFLATE, rings, 3);
    driver_begin(&v, 0);
    give(&v, INFLATE, rings, 0); /* a length of 0 */
    assert_true(driver_stopped(&v));
    driver_begin(&v, 0);
    const struct driver_segment odd = {DRIVER_DATA, 7, false};
    driver_offer(&v, INFLATE, &odd, 1);
    driver_run(&v);
    assert_false(driver_stopped(&v));
    driver_end(&v);
}

static void hostile_15_balloon_request_too_long(void **state)
{
    struct driver_segment s[60];
    struct driver v;

    make_balloon(&v);
    for (unsigned i = 0; i < 60; i++)                                    /* the same memory, again and again */
        s[i] = (struct driver_segment){PAGES, PAGE_COUNT * PAGE, false}; /* zeroes: page 0, a million times */
    driver_offer(&v, INFLATE, s, 60);
    driver_run(&v);
    assert_true(driver_stopped(&v));
    driver_end(&v);
}

/* ---- console ---- */

static char shown[256];
static size_t shown_bytes;

static void show(void *context, const void *bytes, size_t size)
{
    size_t room = sizeof(shown) - shown_bytes;

    memcpy(shown + shown_bytes, bytes, size < room ? size : room);
    shown_bytes += size;
}

static int make_console(struct driver *v)
{
    const struct console_output output = {.write = show};
    int ends[2];

    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    driver_memory(v);
    memset(shown, 0, sizeof(shown));
    shown_bytes = 0;
    assert_int_equal(console_create(&v->memory, &output, ends[0], &v->device, NULL), 0);
    driver_begin(v, 0);
    return ends[1];
}

static void test_console(void **state)
{
    const struct driver_segment out[] = {{DRIVER_DATA, 6, false}, {DRIVER_DATA + 6, 5, false}};
    const struct driver_segment in = {DRIVER_DATA + 0x1000, 3, true};
    struct driver v;
    uint16_t head;
    uint32_t written;
    int input = make_console(&v);

    memcpy(v.memory.base + DRIVER_DATA, "Hello world", 11);
    driver_offer(&v, 1, out, 2);
    driver_run(&v);
    assert_string_equal(shown, "Hello world");
    assert_true(driver_take(&v, 1, &head, &written));
    assert_int_equal(write(input, "type", 4), 4);
    driver_run(&v); /* no buffer: it stays in the pipe */
    driver_offer(&v, 0, &in, 1);
    driver_offer(&v, 0, &in, 1);
    driver_offer(&v, 0, &in, 1);
    driver_run(&v);
    assert_true(driver_take(&v, 0, &head, &written));
    assert_int_equal(written, 3);
    assert_true(driver_take(&v, 0, &head, &written));
    assert_int_equal(written, 1);
    assert_false(driver_take(&v, 0, &head, &written));
    close(input);
    driver_run(&v);
    assert_false(driver_take(&v, 0, &head, &written));
    driver_end(&v);
}

static void hostile_15_console(void **state)
{
    struct driver_segment s[60];
    struct driver v;
    uint16_t head;
    uint32_t written;
    int input = make_console(&v);

    for (unsigned i = 0; i < 60; i++)
        s[i] = (struct driver_segment){0, DRIVER_MEMORY, false};
    driver_offer(&v, 1, s, 60);
    driver_run(&v);
    assert_int_equal(shown_bytes, 65536);
    assert_int_equal(write(input, "x", 1), 1);
    driver_offer(&v, 0, s, 1); /* a buffer that may only be read */
    driver_run(&v);
    assert_true(driver_take(&v, 0, &head, &written));
    assert_int_equal(written, 0);
    close(input);
    driver_end(&v);
}

/* ---- entropy ---- */

static void test_entropy(void **state)
{
    const struct driver_segment s[] = {{DRIVER_DATA, 40, true}, {DRIVER_DATA + 0x1000, PAGE, true}};
    static const uint8_t none[40];
    struct driver v;
    uint16_t head;
    uint32_t written;

    driver_memory(&v);
    assert_int_equal(entropy_create(&v.memory, &v.device, NULL), 0);
    driver_begin(&v, 0);
    driver_offer(&v, 0, s, 1);
    driver_offer(&v, 0, s, 2); /* more than it gives at once */
    driver_run(&v);
    assert_true(driver_take(&v, 0, &head, &written));
    assert_int_equal(written, 40);
    assert_true(driver_take(&v, 0, &head, &written));
    assert_int_equal(written, 256);
    assert_memory_not_equal(v.memory.base + DRIVER_DATA, none, 40);
    assert_memory_not_equal(v.memory.base + DRIVER_DATA + 0x1000, none, 40);
    assert_int_equal(v.memory.base[DRIVER_DATA + 0x1000 + 216], 0);
    driver_offer(&v, 0, (struct driver_segment[]){{DRIVER_DATA, 8, false}}, 1); /* nowhere to put it */
    driver_run(&v);
    assert_true(driver_take(&v, 0, &head, &written));
    assert_int_equal(written, 0);
    driver_end(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inflate),
        cmocka_unit_test(test_reports),
        cmocka_unit_test(test_statistics),
        cmocka_unit_test(hostile_14_balloon_pages),
        cmocka_unit_test(hostile_15_balloon_request_too_long),
        cmocka_unit_test(test_console),
        cmocka_unit_test(hostile_15_console),
        cmocka_unit_test(test_entropy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
