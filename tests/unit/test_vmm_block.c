/* SPDX-License-Identifier: Apache-2.0 */
/* The block device: what is on the disk is what the guest gets, and a guest that lies gets an error or stops. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/devices/block.h"
#include "vmm_driver.h"

enum { SECTORS = 64, HEADER = DRIVER_DATA, DATA = DRIVER_DATA + 0x1000, STATUS = DRIVER_DATA + 0x40000 };
enum { READ = 0, WRITE = 1, FLUSH = 4, ID = 8, DISCARD = 11, ZERO = 13 };

struct bed {
    struct driver v;
    int file; /* the test's own descriptor of the image */
};

static void make(struct bed *b, enum block_mode mode)
{
    char path[] = "/tmp/vmm-block-XXXXXX";
    uint8_t sector[512];
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    unlink(path);
    for (int i = 0; i < SECTORS; i++) {
        memset(sector, i + 1, sizeof(sector));
        assert_int_equal(write(fd, sector, sizeof(sector)), sizeof(sector));
    }
    driver_memory(&b->v);
    b->file = dup(fd);
    assert_int_equal(block_create(&b->v.memory, fd, mode, "disk0", &b->v.device, NULL), 0);
    driver_begin(&b->v, VIRTIO_F_INDIRECT);
}

static void end(struct bed *b)
{
    driver_end(&b->v);
    close(b->file);
}

/* One request of usual cut; the device's answer, or -1 when it gave none. */
static int request(struct bed *b, uint32_t type, uint64_t sector, uint32_t bytes)
{
    const struct driver_segment data = {DATA, bytes, type == READ || type == ID};
    struct driver_segment s[3] = {{HEADER, 16, false}};
    unsigned count = 1;
    uint16_t head;
    uint32_t written;

    memcpy(b->v.memory.base + HEADER, &(struct {
               uint32_t type, r;
               uint64_t sector;
           }){type, 0, sector},
           16);
    b->v.memory.base[STATUS] = 0xee;
    if (bytes)
        s[count++] = data;
    s[count++] = (struct driver_segment){STATUS, 1, true};
    driver_offer(&b->v, 0, s, count);
    driver_run(&b->v);
    if (!driver_take(&b->v, 0, &head, &written))
        return -1;
    return b->v.memory.base[STATUS];
}

static int range(struct bed *b, uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    memcpy(b->v.memory.base + DATA, &(struct {
               uint64_t s;
               uint32_t n, f;
           }){sector, sectors, flags},
           16);
    return request(b, type, 0, 16);
}

static uint8_t on_file(struct bed *b, unsigned sector)
{
    uint8_t byte = 0;

    assert_int_equal(pread(b->file, &byte, 1, sector * 512 + 100), 1);
    return byte;
}

static uint8_t in_guest(struct bed *b, unsigned sector)
{
    memset(b->v.memory.base + DATA, 0xaa, 512);
    assert_int_equal(request(b, READ, sector, 512), 0);
    return b->v.memory.base[DATA + 100];
}

static void test_reads(void **state)
{
    struct bed b;

    make(&b, BLOCK_READ_ONLY);
    assert_int_equal(driver_get(&b.v, 0x100), SECTORS);
    assert_int_equal(request(&b, READ, 3, 4096), 0);
    for (int i = 0; i < 8; i++)
        assert_int_equal(b.v.memory.base[DATA + i * 512], 4 + i);
    assert_int_equal(request(&b, ID, 0, 20), 0);
    assert_string_equal(b.v.memory.base + DATA, "disk0");
    assert_int_equal(request(&b, WRITE, 0, 512), 1);
    assert_int_equal(range(&b, DISCARD, 0, 1, 0), 2);
    assert_int_equal(on_file(&b, 0), 1);
    assert_int_equal(request(&b, 77, 0, 512), 2);
    assert_false(driver_stopped(&b.v));
    end(&b);
}

static void test_writes(void **state)
{
    struct bed b;

    make(&b, BLOCK_WRITABLE);
    memset(b.v.memory.base + DATA, 0x77, 1024);
    assert_int_equal(request(&b, WRITE, 5, 1024), 0);
    assert_int_equal(request(&b, FLUSH, 0, 0), 0);
    assert_int_equal(on_file(&b, 4), 5);
    assert_int_equal(on_file(&b, 5), 0x77);
    assert_int_equal(on_file(&b, 6), 0x77);
    assert_int_equal(on_file(&b, 7), 8);
    assert_int_equal(range(&b, ZERO, 8, 8, 1), 0);
    assert_int_equal(on_file(&b, 7), 8);
    assert_int_equal(on_file(&b, 8), 0);
    assert_int_equal(on_file(&b, 16), 17);
    assert_int_equal(range(&b, DISCARD, 24, 8, 0), 0);
    assert_int_equal(range(&b, DISCARD, 24, 8, 1), 2);
    end(&b);
}

/* What a private disk's guest writes it reads again; the file never changes. */
static void test_private(void **state)
{
    struct bed b;

    make(&b, BLOCK_PRIVATE);
    memset(b.v.memory.base + DATA, 0x77, 512);
    assert_int_equal(request(&b, WRITE, 5, 512), 0);
    assert_int_equal(request(&b, WRITE, 63, 512), 0);
    static struct device_state saved;
    assert_int_equal(device_save(b.v.device, &saved, NULL), -ENOTSUP); /* it would be lost */
    assert_int_equal(request(&b, FLUSH, 0, 0), 0);
    assert_int_equal(range(&b, ZERO, 9, 2, 0), 0);
    assert_int_equal(range(&b, DISCARD, 12, 1, 0), 0);
    assert_int_equal(in_guest(&b, 4), 5);
    assert_int_equal(in_guest(&b, 5), 0x77);
    assert_int_equal(in_guest(&b, 6), 7);
    assert_int_equal(in_guest(&b, 9), 0);
    assert_int_equal(in_guest(&b, 10), 0);
    assert_int_equal(in_guest(&b, 11), 12);
    assert_int_equal(in_guest(&b, 12), 0);
    assert_int_equal(in_guest(&b, 63), 0x77);
    assert_int_equal(request(&b, READ, 0, SECTORS * 512), 0); /* both files in one request */
    for (int i = 0; i < SECTORS; i++)
        assert_int_equal(b.v.memory.base[DATA + i * 512], i == 5 || i == 63              ? 0x77
                                                          : i == 9 || i == 10 || i == 12 ? 0
                                                                                         : i + 1);
    for (unsigned i = 0; i < SECTORS; i++)
        assert_int_equal(on_file(&b, i), i + 1);
    end(&b);
}

/* The same request cut at odd places. */
static void test_framing(void **state)
{
    const struct driver_segment s[] = {
        {HEADER, 3, false}, {HEADER + 3, 13, false}, {DATA, 1, true}, {DATA + 1, 700, true}, {DATA + 701, 324, true}};
    struct bed b;
    uint16_t head;
    uint32_t written;

    make(&b, BLOCK_PRIVATE);
    memset(b.v.memory.base + HEADER, 0, 16);
    b.v.memory.base[HEADER + 8] = 2;
    driver_offer(&b.v, 0, s, 5); /* 1,025 bytes: two sectors and, as the last byte, the status */
    driver_run(&b.v);
    assert_true(driver_take(&b.v, 0, &head, &written));
    assert_int_equal(written, 1025);
    assert_int_equal(b.v.memory.base[DATA + 511], 3);
    assert_int_equal(b.v.memory.base[DATA + 512], 4);
    assert_int_equal(b.v.memory.base[DATA + 1023], 4);
    assert_int_equal(b.v.memory.base[DATA + 1024], 0);
    end(&b);
}

/* Lengths and places beyond the disk, sums that wrap, sizes that are no sectors: an error each, no byte moved. */
static void hostile_15_beyond_the_disk(void **state)
{
    static const struct {
        uint64_t sector;
        uint32_t bytes;
    } bad[] = {
        {SECTORS, 512}, {SECTORS - 1, 1024},      {UINT64_MAX, 512},     {UINT64_MAX / 512 + 1, 512}, {1ull << 55, 512},
        {0, 511},       {0, SECTORS * 512 + 512}, {UINT64_MAX - 1, 1536}};
    struct bed b;

    make(&b, BLOCK_WRITABLE);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        memset(b.v.memory.base + DATA, 0xaa, 512);
        assert_int_equal(request(&b, READ, bad[i].sector, bad[i].bytes), 1);
        assert_int_equal(b.v.memory.base[DATA], 0xaa);
        assert_int_equal(request(&b, WRITE, bad[i].sector, bad[i].bytes), 1);
    }
    for (uint32_t type = DISCARD; type <= ZERO; type += 2) {
        assert_int_equal(range(&b, type, SECTORS - 1, 2, 0), 1);
        assert_int_equal(range(&b, type, UINT64_MAX, 2, 0), 1);
        assert_int_equal(range(&b, type, 0, UINT32_MAX, 0), 1);
        assert_int_equal(range(&b, type, 0, 0, 0), 1);
        assert_int_equal(range(&b, type, 0, 1, 2), 2);
        assert_int_equal(request(&b, type, 0, 15), 1);
        assert_int_equal(request(&b, type, 0, 32), 1);
    }
    assert_int_equal(lseek(b.file, 0, SEEK_END), SECTORS * 512);
    for (unsigned i = 0; i < SECTORS; i++)
        assert_int_equal(on_file(&b, i), i + 1);
    assert_false(driver_stopped(&b.v));
    end(&b);
}

static void hostile_15_no_place_for_the_answer(void **state)
{
    const struct driver_segment only_header = {HEADER, 16, false},
                                short_header[] = {{HEADER, 15, false}, {DATA, 1, true}};
    struct bed b;
    uint16_t head;
    uint32_t written;

    make(&b, BLOCK_WRITABLE);
    driver_offer(&b.v, 0, short_header, 2);
    driver_run(&b.v);
    assert_true(driver_take(&b.v, 0, &head, &written));
    assert_int_equal(b.v.memory.base[DATA], 1);
    driver_offer(&b.v, 0, &only_header, 1);
    driver_run(&b.v);
    assert_false(driver_take(&b.v, 0, &head, &written));
    assert_true(driver_stopped(&b.v));
    driver_begin(&b.v, 0); /* after a reset it works again */
    assert_int_equal(in_guest(&b, 1), 2);
    end(&b);
}

/* The file shrinks under the guest: an I/O error of the guest's, no signal. */
static void hostile_15_file_shrinks(void **state)
{
    struct bed b;

    make(&b, BLOCK_PRIVATE);
    assert_int_equal(ftruncate(b.file, 700), 0);
    assert_int_equal(request(&b, READ, 0, 512), 0);
    assert_int_equal(request(&b, READ, 1, 512), 1);
    assert_int_equal(request(&b, READ, 40, 512), 1);
    assert_false(driver_stopped(&b.v));
    end(&b);
}

static void test_state(void **state)
{
    static struct device_state saved;
    struct bed b;
    uint16_t head;
    uint32_t written;

    make(&b, BLOCK_READ_ONLY);
    assert_int_equal(in_guest(&b, 1), 2);
    assert_int_equal(device_save(b.v.device, &saved, NULL), 0);
    device_destroy(b.v.device);
    assert_int_equal(block_create(&b.v.memory, dup(b.file), BLOCK_READ_ONLY, "disk0", &b.v.device, NULL), 0);
    assert_int_equal(device_restore(b.v.device, &saved, NULL), 0);
    assert_int_equal(in_guest(&b, 2), 3); /* the driver goes on where it was */
    assert_false(driver_take(&b.v, 0, &head, &written));
    saved.type = VIRTIO_NET;
    assert_true(device_restore(b.v.device, &saved, NULL) < 0);
    saved.type = VIRTIO_BLOCK;
    saved.queues[0].used = UINT64_MAX - 7;
    device_destroy(b.v.device);
    assert_int_equal(block_create(&b.v.memory, dup(b.file), BLOCK_READ_ONLY, "disk0", &b.v.device, NULL), 0);
    assert_true(device_restore(b.v.device, &saved, NULL) < 0);
    end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads),
        cmocka_unit_test(test_writes),
        cmocka_unit_test(test_private),
        cmocka_unit_test(test_framing),
        cmocka_unit_test(hostile_15_beyond_the_disk),
        cmocka_unit_test(hostile_15_no_place_for_the_answer),
        cmocka_unit_test(hostile_15_file_shrinks),
        cmocka_unit_test(test_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
