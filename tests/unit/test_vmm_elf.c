/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor's ELF reader: one good image, and one rule broken at a time. */
#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/elf.h"

enum { MEMORY = 4 << 20, LOAD = 0x100000, TEXT = 0x200, BYTES = 0x300 };

struct image {
    Elf64_Ehdr header;
    Elf64_Phdr segments[3];
    uint8_t rest[BYTES - sizeof(Elf64_Ehdr) - 3 * sizeof(Elf64_Phdr)];
};

static struct image good(void)
{
    struct image i = {
        .header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                   .e_type = ET_EXEC,
                   .e_machine = EM_X86_64,
                   .e_entry = LOAD,
                   .e_phoff = sizeof(Elf64_Ehdr),
                   .e_phentsize = sizeof(Elf64_Phdr),
                   .e_phnum = 3},
        .segments = {{.p_type = PT_LOAD,
                      .p_flags = PF_R | PF_X,
                      .p_offset = TEXT,
                      .p_paddr = LOAD,
                      .p_filesz = 0x100,
                      .p_memsz = 0x100},
                     {.p_type = PT_LOAD,
                      .p_flags = PF_R | PF_W,
                      .p_offset = TEXT,
                      .p_paddr = LOAD + 0x1000,
                      .p_filesz = 0x10,
                      .p_memsz = 0x2000},
                     {.p_type = PT_NOTE, .p_offset = TEXT, .p_filesz = 0x20}},
    };

    _Static_assert(sizeof(i) == BYTES, "no padding");
    return i;
}

static int read_image(const struct image *i, size_t size, struct elf_image *ret, struct error **err)
{
    uint8_t *exact = malloc(size ? size : 1); /* so that a sanitizer sees one byte too far */
    memcpy(exact, i, size);
    int r = elf_read(exact, size, MEMORY, 0, ret, err);

    free(exact);
    return r;
}

static void test_good(void **state)
{
    struct image i = good();
    struct elf_image e;

    assert_int_equal(read_image(&i, sizeof(i), &e, NULL), 0);
    assert_int_equal(e.segment_count, 2);
    assert_int_equal(e.low, LOAD);
    assert_int_equal(e.high, LOAD + 0x3000);
    assert_int_equal(e.pvh_entry, 0);
}

static void test_pvh_note(void **state)
{
    struct image i = good();
    const uint32_t note[5] = {4, 4, 18, 0x006e6558, LOAD + 16};
    uint32_t outside[5];
    struct elf_image e;

    memcpy((uint8_t *)&i + TEXT, note, sizeof(note));
    assert_int_equal(read_image(&i, sizeof(i), &e, NULL), 0);
    assert_int_equal(e.pvh_entry, LOAD + 16);
    memcpy(outside, note, sizeof(note));
    outside[4] = LOAD + 0x1000; /* data */
    memcpy((uint8_t *)&i + TEXT, outside, sizeof(outside));
    assert_int_equal(read_image(&i, sizeof(i), &e, NULL), -EINVAL);
}

static void test_every_length(void **state)
{
    struct image i = good();
    struct elf_image e;

    for (size_t size = 0; size < TEXT + 0x100; size++)
        assert_int_equal(read_image(&i, size, &e, NULL), -EINVAL);
    assert_int_equal(read_image(&i, TEXT + 0x100, &e, NULL), 0);
}

/* One field of the good image replaced. */
struct broken {
    const char *name;
    size_t offset, bytes;
    uint64_t value;
    int errnum;
    const char *code;
};
#define FIELD(f) offsetof(struct image, f), sizeof(((struct image *)0)->f)

static const struct broken table[] = {
    {"magic", FIELD(header.e_ident[1]), 'X', EINVAL, "IMAGE_MALFORMED"},
    {"32 bit", FIELD(header.e_ident[EI_CLASS]), ELFCLASS32, ENOEXEC, "IMAGE_WRONG_ARCHITECTURE"},
    {"big endian", FIELD(header.e_ident[EI_DATA]), ELFDATA2MSB, ENOEXEC, "IMAGE_WRONG_ARCHITECTURE"},
    {"machine", FIELD(header.e_machine), EM_AARCH64, ENOEXEC, "IMAGE_WRONG_ARCHITECTURE"},
    {"type", FIELD(header.e_type), ET_CORE, EINVAL, "IMAGE_MALFORMED"},
    {"phentsize", FIELD(header.e_phentsize), 32, EINVAL, "IMAGE_MALFORMED"},
    {"phnum 0", FIELD(header.e_phnum), 0, EINVAL, "IMAGE_MALFORMED"},
    {"phnum", FIELD(header.e_phnum), 65, EINVAL, "IMAGE_MALFORMED"},
    {"phoff", FIELD(header.e_phoff), BYTES - 10, EINVAL, "IMAGE_MALFORMED"},
    {"phoff overflow", FIELD(header.e_phoff), UINT64_MAX - 10, EINVAL, "IMAGE_MALFORMED"},
    {"offset", FIELD(segments[0].p_offset), BYTES, EINVAL, "IMAGE_MALFORMED"},
    {"offset overflow", FIELD(segments[0].p_offset), UINT64_MAX, EINVAL, "IMAGE_MALFORMED"},
    {"filesz", FIELD(segments[0].p_filesz), 0x101, EINVAL, "IMAGE_MALFORMED"},
    {"memsz", FIELD(segments[1].p_memsz), MEMORY, ENOMEM, "INVALID_VALUE"},
    {"memsz overflow", FIELD(segments[1].p_memsz), UINT64_MAX, ENOMEM, "INVALID_VALUE"},
    {"paddr", FIELD(segments[0].p_paddr), MEMORY - 1, ENOMEM, "INVALID_VALUE"},
    {"paddr overflow", FIELD(segments[0].p_paddr), UINT64_MAX - 1, ENOMEM, "INVALID_VALUE"},
    {"overlap", FIELD(segments[1].p_paddr), LOAD + 0xff, EINVAL, "IMAGE_MALFORMED"},
    {"writable text", FIELD(segments[0].p_flags), PF_R | PF_W | PF_X, EINVAL, "IMAGE_MALFORMED"},
};

static void test_broken(void **state)
{
    for (size_t n = 0; n < sizeof(table) / sizeof(table[0]); n++) {
        struct image i = good();
        struct elf_image e = {.entry = 77};
        struct error *err = NULL;

        memcpy((uint8_t *)&i + table[n].offset, &table[n].value, table[n].bytes);
        int r = read_image(&i, sizeof(i), &e, &err);
        if (r != -table[n].errnum || !err || strcmp(err->code, table[n].code) != 0)
            fail_msg("%s: %d %s", table[n].name, r, err ? err->code : "");
        assert_int_equal(e.entry, 77); /* outputs are untouched on failure */
        error_free(err);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_pvh_note),
        cmocka_unit_test(test_every_length),
        cmocka_unit_test(test_broken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
