/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels for ring 0: what a good bzImage and a good PVH image become in guest memory, and what is refused (hostile
 * line 19: malformed ELF, bzImage, initrd, command line). The guest memory has nothing mapped behind its end. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "vmm/boot_pvh.h"
#include "vmm/firmware.h"

enum { MIB = 1 << 20, FILE_BYTES = 0x800, SETUP = 0x400, LOAD = 16 * MIB, INIT = MIB, PARAMETERS = 0x20000 };
enum { ZERO_PAGE = 0x7000, START_INFO = 0x6000 };

static uint8_t file[FILE_BYTES];
static struct guest_memory ram;

static void put(size_t at, const void *bytes, size_t count)
{
    memcpy(file + at, bytes, count);
}

static void put16(size_t at, uint16_t value)
{
    put(at, &value, sizeof(value));
}

static void put32(size_t at, uint32_t value)
{
    put(at, &value, sizeof(value));
}

static void put64(size_t at, uint64_t value)
{
    put(at, &value, sizeof(value));
}

static void good_bzimage(void)
{
    memset(file, 0x90, sizeof(file));
    memset(file, 0, SETUP);
    file[0x1f1] = 1;
    put16(0x1fe, 0xaa55);
    file[0x201] = 0x66;
    put(0x202, "HdrS", 4);
    put16(0x206, 0x20f);
    file[0x211] = 1;
    put32(0x22c, 0x7fffffff);
    put16(0x236, 1);
    put32(0x238, 2047);
    put64(0x258, LOAD);
    put32(0x260, INIT);
}

/* One segment at 2 MiB with the note in it. */
static void good_elf(void)
{
    static const uint8_t identity[16] = {0x7f, 'E', 'L', 'F', 2, 1, 1};

    memset(file, 0, sizeof(file));
    put(0, identity, sizeof(identity));
    put16(16, 2);
    put16(18, 62);
    put64(32, 64);
    put16(54, 56);
    put16(56, 2);
    put32(64, 1); /* PT_LOAD, read and execute */
    put32(68, 5);
    put64(72, 0x200);
    put64(80, 2 * MIB);
    put64(88, 2 * MIB);
    put64(96, 0x100);
    put64(104, 0x2000);
    put32(120, 4); /* PT_NOTE */
    put64(128, 0x200);
    put64(152, 24);
    put64(160, 24);
    put32(0x200, 4);
    put32(0x204, 8);
    put32(0x208, 18);
    put(0x20c, "Xen", 4);
    put64(0x210, 2 * MIB + 0x40);
}

static void set_memory(uint64_t bytes)
{
    if (ram.base)
        munmap(ram.base - 4096, ram.bytes + 8192);
    uint8_t *base =
        mmap(NULL, bytes + 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(base != MAP_FAILED);
    mprotect(base, 4096, PROT_NONE);
    mprotect(base + 4096 + bytes, 4096, PROT_NONE);
    ram = (struct guest_memory){.base = base + 4096, .bytes = bytes};
}

static struct pvh_boot boot_of(const char *parameters)
{
    return (struct pvh_boot){
        .file = file, .file_bytes = sizeof(file), .parameters = parameters, .vcpus = 2, .devices = 1};
}

static uint32_t word(uint64_t at)
{
    uint32_t value;

    memcpy(&value, ram.base + at, sizeof(value));
    return value;
}

static void refused(const struct pvh_boot *boot, const char *code, const char *words)
{
    struct error *err = NULL;
    struct pvh_start start = {.entry = 1};

    assert_true(pvh_boot_memory(&ram, boot, &start, &err) < 0);
    assert_non_null(err);
    assert_string_equal(err->code, code);
    if (!strstr(err->message, words))
        fail_msg("\"%s\" does not say \"%s\"", err->message, words);
    assert_int_equal(start.entry, 1);
    error_free(err);
}

static void test_bzimage(void **state)
{
    static const uint8_t initrd[5000] = {1, 2, 3};
    struct pvh_boot boot = boot_of("console=ttyS0 -- single");
    struct pvh_start start;

    good_bzimage();
    set_memory(64 * MIB);
    boot.initrd = initrd;
    boot.initrd_bytes = sizeof(initrd);
    assert_int_equal(pvh_boot_memory(&ram, &boot, &start, NULL), 0);
    assert_int_equal(start.entry, LOAD + 0x200);
    assert_true(start.long_mode && start.argument == ZERO_PAGE);
    assert_memory_equal(ram.base + LOAD, file + SETUP, FILE_BYTES - SETUP);
    assert_string_equal((char *)ram.base + PARAMETERS,
                        "console=ttyS0 reboot=k virtio_mmio.device=4K@0xd0000000:16 -- single");
    assert_int_equal(word(ZERO_PAGE + 0x228), PARAMETERS);
    assert_int_equal(word(ZERO_PAGE + 0x21c), sizeof(initrd));
    assert_memory_equal(ram.base + word(ZERO_PAGE + 0x218), initrd, sizeof(initrd));
    assert_int_equal(word(ZERO_PAGE + 0x218), 64 * MIB - 8192);
    assert_int_equal(ram.base[ZERO_PAGE + 0x1e8], 3);
    assert_memory_equal(ram.base + word(ZERO_PAGE + 0x70), "RSD PTR ", 8);
    assert_memory_equal(ram.base + 0xf0000, "_MP_", 4);
}

static void test_pvh(void **state)
{
    struct pvh_boot boot = boot_of("");
    struct pvh_start start;
    enum kernel_kind kind;

    good_elf();
    set_memory(16 * MIB);
    assert_int_equal(kernel_kind(file, sizeof(file), &kind, NULL), 0);
    assert_int_equal(kind, KERNEL_PVH);
    assert_int_equal(pvh_boot_memory(&ram, &boot, &start, NULL), 0);
    assert_int_equal(start.entry, 2 * MIB + 0x40);
    assert_true(!start.long_mode && start.argument == START_INFO);
    assert_int_equal(word(START_INFO), 0x336ec578);
    assert_int_equal(word(START_INFO + 12), 0); /* no module */
    assert_string_equal((char *)ram.base + PARAMETERS, "reboot=k virtio_mmio.device=4K@0xd0000000:16 ");
    put64(0x210, 0); /* no entry in the note */
    assert_true(kernel_kind(file, sizeof(file), &kind, NULL) < 0);
}

/* Every byte of a table counts: both descriptions of the machine are whole. */
static void test_firmware_sums(void **state)
{
    uint64_t rsdp;

    set_memory(16 * MIB);
    assert_int_equal(firmware_write(&ram, 64, 8, &rsdp, NULL), 0);
    uint8_t sum = 0;
    for (unsigned i = 0; i < 36; i++)
        sum = (uint8_t)(sum + ram.base[rsdp + i]);
    assert_int_equal(sum, 0);
    uint64_t xsdt = word(rsdp + 24);
    assert_memory_equal(ram.base + xsdt, "XSDT", 4);
    for (unsigned t = 0; t < 2; t++) {
        uint64_t table = word(xsdt + 36 + 8 * t);
        sum = 0;
        for (uint32_t i = 0; i < word(table + 4); i++)
            sum = (uint8_t)(sum + ram.base[table + i]);
        assert_int_equal(sum, 0);
    }
    assert_int_equal(word(word(xsdt + 36) + 4), 268);
    assert_memory_equal(ram.base + word(word(xsdt + 36) + 40), "DSDT", 4);
}

/* More than 3 GiB: the rest is at 4 GiB, nothing in between, and no sum runs over. */
static void test_memory_hole(void **state)
{
    set_memory(UINT64_C(5) << 30);
    assert_ptr_equal(guest_memory_at(&ram, GUEST_MEMORY_HOLE - 1, 1), ram.base + GUEST_MEMORY_HOLE - 1);
    assert_null(guest_memory_at(&ram, GUEST_MEMORY_HOLE - 1, 2));
    assert_null(guest_memory_at(&ram, GUEST_MEMORY_HOLE, 1));
    assert_null(guest_memory_at(&ram, GUEST_MEMORY_HIGH - 1, 2));
    assert_ptr_equal(guest_memory_at(&ram, GUEST_MEMORY_HIGH, 1), ram.base + GUEST_MEMORY_HOLE);
    assert_non_null(guest_memory_at(&ram, UINT64_C(6) << 30, 0));
    assert_null(guest_memory_at(&ram, UINT64_C(6) << 30, 1));
    assert_null(guest_memory_at(&ram, UINT64_MAX, 2));
    assert_null(guest_memory_at(&ram, GUEST_MEMORY_HIGH, UINT64_MAX));
    good_bzimage();
    struct pvh_boot boot = boot_of("");
    struct pvh_start start;
    assert_int_equal(pvh_boot_memory(&ram, &boot, &start, NULL), 0);
    assert_int_equal(ram.base[ZERO_PAGE + 0x1e8], 4);
    set_memory(MIB);
}

static void hostile_19_bzimage(void **state)
{
    const struct {
        size_t at;
        uint64_t value;
        const char *code, *words;
    } bad[] = {
        {0x1f1, 255, "IMAGE_MALFORMED", "setup_sects"},
        {0x1fe, 0, "IMAGE_MALFORMED", "boot flag"},
        {0x201, 0xff, "IMAGE_MALFORMED", "jump"},
        {0x201, 0, "IMAGE_MALFORMED", "jump"},
        {0x207, 1, "IMAGE_WRONG_ARCHITECTURE", "64-bit entry"},
        {0x211, 0, "IMAGE_MALFORMED", "loadflags"},
        {0x236, 0, "IMAGE_WRONG_ARCHITECTURE", "64-bit entry"},
        {0x25b, 0, "IMAGE_MALFORMED", "pref_address"},
        {0x25f, 0xff, "IMAGE_MALFORMED", "pref_address"},
        {0x258, 1, "IMAGE_MALFORMED", "pref_address"},
        {0x25c, 1, "INVALID_VALUE", "the kernel image"}, /* at 4 GiB and more */
        {0x263, 0xff, "INVALID_VALUE", "the kernel image"},
        {0x262, 0, "IMAGE_MALFORMED", "init_size"},
    };
    struct pvh_boot boot = boot_of("");

    set_memory(32 * MIB);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        good_bzimage();
        file[bad[i].at] = (uint8_t)bad[i].value;
        refused(&boot, bad[i].code, bad[i].words);
    }
    good_bzimage();
    for (size_t size = 0; size <= SETUP + 0x200; size++) {
        boot.file_bytes = size;
        struct pvh_start start;
        assert_true(pvh_boot_memory(&ram, &boot, &start, NULL) < 0);
    }
}

static void hostile_19_command_line(void **state)
{
    char parameters[5000];
    struct pvh_boot boot = boot_of(parameters);
    struct pvh_start start;

    good_bzimage();
    set_memory(32 * MIB);
    memset(parameters, 'x', sizeof(parameters));
    parameters[sizeof(parameters) - 1] = '\0';
    refused(&boot, "INVALID_VALUE", "command line");
    parameters[2047] = '\0';
    refused(&boot, "INVALID_VALUE", "2047");
    parameters[1900] = '\0';
    assert_int_equal(pvh_boot_memory(&ram, &boot, &start, NULL), 0);
    put32(0x238, UINT32_MAX); /* an image that claims more than there is room for */
    parameters[1900] = 'x';
    parameters[2047] = 'x';
    refused(&boot, "INVALID_VALUE", "4095");
    good_elf();
    refused(&boot, "INVALID_VALUE", "4095");
}

static void hostile_19_initrd(void **state)
{
    uint8_t *large = calloc(1, 20 * MIB);
    struct pvh_boot boot = boot_of("");

    good_bzimage();
    set_memory(32 * MIB);
    boot.initrd = large;
    boot.initrd_bytes = 15 * MIB + 1; /* one byte over what the kernel leaves */
    refused(&boot, "INVALID_VALUE", "initrd");
    boot.initrd_bytes = 15 * MIB;
    struct pvh_start start;
    assert_int_equal(pvh_boot_memory(&ram, &boot, &start, NULL), 0);
    put32(0x22c, 0x1000);
    refused(&boot, "INVALID_VALUE", "initrd");
    good_elf();
    boot.initrd_bytes = SIZE_MAX;
    refused(&boot, "INVALID_VALUE", "initrd");
    free(large);
}

static void hostile_19_elf(void **state)
{
    struct pvh_boot boot = boot_of("");

    set_memory(16 * MIB);
    good_elf();
    put64(88, 0x7000); /* over the zero page */
    put64(0x210, 0x7040);
    refused(&boot, "IMAGE_MALFORMED", "from 1 MiB on");
    good_elf();
    put64(104, 15 * MIB);
    refused(&boot, "INVALID_VALUE", "beyond");
    good_elf();
    put64(0x210, UINT64_C(1) << 32 | (2 * MIB + 0x40));
    refused(&boot, "IMAGE_MALFORMED", "PVH entry");
    set_memory(MIB);
    good_elf();
    refused(&boot, "INVALID_VALUE", "boot area");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bzimage),       cmocka_unit_test(test_pvh),
        cmocka_unit_test(test_firmware_sums), cmocka_unit_test(test_memory_hole),
        cmocka_unit_test(hostile_19_bzimage), cmocka_unit_test(hostile_19_command_line),
        cmocka_unit_test(hostile_19_initrd),  cmocka_unit_test(hostile_19_elf),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
