/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bzImage reader of the monitor, called once before the guest runs. Only the 64-bit entry is used: the image unpacks
 * itself inside the guest, so no decompressor ever sees a tenant's bytes on the host. Fuzzed as tests/fuzz/vmm.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "vmm/bzimage.h"

/* Offsets in the file (boot.rst, "Details of Header Fields"). */
enum {
    AT_SETUP_SECTORS = 0x1f1,
    AT_BOOT_FLAG = 0x1fe,
    AT_JUMP_LENGTH = 0x201,
    AT_MAGIC = 0x202,
    AT_VERSION = 0x206,
    AT_LOAD_FLAGS = 0x211,
    AT_INITRD_MAX = 0x22c,
    AT_EXTENDED_FLAGS = 0x236,
    AT_PARAMETERS_MAX = 0x238,
    AT_PREFERRED = 0x258,
    AT_INIT_BYTES = 0x260,
    AT_END = 0x264,
    SECTOR = 512,
    VERSION_MIN = 0x20c,                          /* has the extended flags */
    HEADER_BYTES_MAX = 0x290 - BZIMAGE_HEADER_AT, /* what the zero page has room for */
};
#define ADDRESS_MAX (UINT64_C(1) << 40)

static uint16_t word16(const uint8_t *at)
{
    uint16_t value;

    memcpy(&value, at, sizeof(value));
    return value;
}

static uint32_t word32(const uint8_t *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof(value));
    return value;
}

static int malformed(struct error **err, const char *what)
{
    return error_set(err, EINVAL, "IMAGE_MALFORMED", "kernel image: bzImage: %s", what);
}

bool bzimage_is(const uint8_t *file, size_t size)
{
    return size >= AT_END && memcmp(file + AT_MAGIC, "HdrS", 4) == 0;
}

static int check_version(const uint8_t *file, struct error **err)
{
    if (word16(file + AT_BOOT_FLAG) != 0xaa55)
        return malformed(err, "no boot flag at 0x1fe");
    if (word16(file + AT_VERSION) < VERSION_MIN || !(word16(file + AT_EXTENDED_FLAGS) & 1))
        return error_set(
            err, ENOEXEC, "IMAGE_WRONG_ARCHITECTURE",
            "kernel image: a bzImage of boot protocol %u.%u without a 64-bit entry; 2.12 or newer is needed",
            file[AT_VERSION + 1], file[AT_VERSION]);
    if (!(file[AT_LOAD_FLAGS] & 1))
        return malformed(err, "not to be loaded high (loadflags)");
    return 0;
}

int bzimage_read(const uint8_t *file, size_t size, struct bzimage *ret, struct error **err)
{
    struct bzimage image = {0};

    if (!bzimage_is(file, size))
        return malformed(err, "no \"HdrS\" at 0x202");
    int r = check_version(file, err);
    if (r < 0)
        return r;
    uint64_t sectors = file[AT_SETUP_SECTORS] ? file[AT_SETUP_SECTORS] : 4;
    image.kernel_offset = (sectors + 1) * SECTOR;
    if (image.kernel_offset + BZIMAGE_ENTRY64 >= size)
        return malformed(err, "shorter than its own setup part (setup_sects)");
    image.kernel_bytes = size - image.kernel_offset;
    memcpy(&image.load_address, file + AT_PREFERRED, sizeof(image.load_address));
    image.init_bytes = word32(file + AT_INIT_BYTES);
    if (image.load_address < 0x100000 || image.load_address > ADDRESS_MAX || image.load_address % 4096 != 0)
        return malformed(err, "impossible address (pref_address)");
    if (image.init_bytes < image.kernel_bytes)
        return malformed(err, "needs less memory than it is long (init_size)");
    image.initrd_end_max = (uint64_t)word32(file + AT_INITRD_MAX) + 1;
    image.parameters_max = word32(file + AT_PARAMETERS_MAX);
    image.header_bytes = AT_MAGIC + file[AT_JUMP_LENGTH] - BZIMAGE_HEADER_AT;
    if (image.header_bytes < AT_END - BZIMAGE_HEADER_AT || image.header_bytes > HEADER_BYTES_MAX ||
        BZIMAGE_HEADER_AT + (uint64_t)image.header_bytes > size)
        return malformed(err, "its header has an impossible length (jump)");
    *ret = image;
    return 0;
}
