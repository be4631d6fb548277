/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boot of kernels in ring 0 (VT-x and SVM hosts; on PVM-KVM they would be emulated). Two ways in, by what the file is:
 * PVH for an ELF with the note (vmlinux, OSv, Nanos, our own unikernel), Linux's 64-bit entry for a bzImage, which
 * unpacks itself: the host needs no decompressor for a tenant's bytes. Both get the same memory map, tables and command
 * line. Runs once on the main thread, before the sandbox closes; every number of the files is checked before its use.
 *
 * Guest memory below 1 MiB:
 *   0x500 GDT   0x6000 PVH start information, 0x7000 zero page   0x9000 page tables of long mode, six pages
 *   0x20000 command line   0x9fc00 end of low RAM   0xe0000 firmware tables (firmware.h)
 */
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "abi/boot.h"
#include "vmm/boot_pvh.h"
#include "vmm/bzimage.h"
#include "vmm/devices/device.h"
#include "vmm/elf.h"
#include "vmm/firmware.h"
#include "vmm/vm.h"

enum {
    AT_GDT = 0x500,
    AT_START = 0x6000,
    AT_MODULE = 0x6100,
    AT_MAP = 0x6200,
    AT_ZERO_PAGE = 0x7000,
    AT_TABLES = 0x9000,
    AT_PARAMETERS = 0x20000,
    LOW_RAM_END = 0x9fc00,
    HIGH_RAM = 0x100000,
    PARAMETERS_MAX = 4096, /* with terminator */
    MEMORY_BYTES_MIN = 2 << 20,
    PAGE = 4096,
};

/* Xen, public/arch-x86/hvm/start_info.h. */
struct start_info {
    uint32_t magic, version, flags, module_count;
    uint64_t modules, parameters, rsdp, memory_map;
    uint32_t memory_count, reserved;
};
struct module {
    uint64_t address, bytes, parameters, reserved;
};
struct memory_entry {
    uint64_t address, bytes;
    uint32_t type, reserved;
};
enum { MAP_MAX = 4, TYPE_RAM = 1, TYPE_RESERVED = 2 };
#define START_MAGIC UINT32_C(0x336ec578)

/* Linux's struct boot_params ("zero page"), the offsets that are used (Documentation/arch/x86/zero-page.rst). */
enum {
    ZERO_RSDP = 0x70,
    ZERO_MAP_COUNT = 0x1e8,
    ZERO_LOADER = 0x210,
    ZERO_INITRD = 0x218,
    ZERO_INITRD_BYTES = 0x21c,
    ZERO_PARAMETERS = 0x228,
    ZERO_MAP = 0x2d0,
    ZERO_MAP_ENTRY = 20,
    LOADER_UNDEFINED = 0xff,
};

/* What is known of the kernel once it is in memory. */
struct loaded {
    uint64_t start, end;     /* memory it takes, end exclusive */
    uint64_t initrd_end_max; /* of an initrd's last byte + 1 */
    uint32_t parameters_max;
    uint64_t initrd, initrd_bytes;
};

static bool has_unikernel_header(const uint8_t *file, size_t size, const struct elf_image *image)
{
    const uint64_t magic = BOOT_MAGIC;
    const struct elf_segment *first = &image->segments[0];

    (void)size; /* elf_read() has checked that segments lie in the file */
    return first->address == BOOT_IMAGE_ADDRESS && first->file_bytes >= sizeof(struct boot_image) &&
           memcmp(file + first->file_offset, &magic, sizeof(magic)) == 0;
}

int kernel_kind(const uint8_t *file, size_t size, enum kernel_kind *ret, struct error **err)
{
    struct elf_image image;

    if (bzimage_is(file, size)) {
        *ret = KERNEL_BZIMAGE;
        return 0;
    }
    int r = elf_read(file, size, UINT64_MAX, 1, &image, err);
    if (r < 0)
        return r;
    if (has_unikernel_header(file, size, &image)) {
        *ret = KERNEL_UNIKERNEL;
    } else if (image.pvh_entry) {
        *ret = KERNEL_PVH;
    } else {
        error_set(err, EINVAL, "IMAGE_MALFORMED", "kernel image: neither Coracle's header nor a PVH note");
        error_hint(err, "Linux needs CONFIG_PVH for its vmlinux, or give its bzImage");
        return -EINVAL;
    }
    return 0;
}

static int too_small(struct error **err, const char *what, uint64_t needs, const struct guest_memory *ram)
{
    return error_set(err, ENOMEM, "INVALID_VALUE",
                     "memory: %s reaches to %#" PRIx64 ", the guest has %" PRIu64 " bytes", what, needs, ram->bytes);
}

static int load_elf(const struct guest_memory *ram, const struct pvh_boot *boot, struct loaded *ret,
                    struct pvh_start *start, struct error **err)
{
    struct elf_image image;
    int r = elf_read(boot->file, boot->file_bytes, guest_memory_low(ram), 1, &image, err);

    if (r < 0)
        return r;
    if (image.low < HIGH_RAM || !image.pvh_entry || image.pvh_entry > UINT32_MAX)
        return error_set(err, EINVAL, "IMAGE_MALFORMED",
                         "kernel image: it starts at %#" PRIx64 " with its PVH entry at %#" PRIx64
                         "; from 1 MiB on, below 4 GiB",
                         image.low, image.pvh_entry);
    for (uint32_t i = 0; i < image.segment_count; i++) {
        const struct elf_segment *s = &image.segments[i];
        void *to = guest_memory_at(ram, s->address, s->memory_bytes);
        if (!to)
            return too_small(err, "the kernel image", s->address + s->memory_bytes, ram);
        memcpy(to, boot->file + s->file_offset, s->file_bytes);
    }
    *ret = (struct loaded){
        .start = image.low, .end = image.high, .initrd_end_max = UINT32_MAX, .parameters_max = PARAMETERS_MAX - 1};
    *start = (struct pvh_start){.entry = image.pvh_entry, .argument = AT_START};
    return 0;
}

static int load_bzimage(const struct guest_memory *ram, const struct pvh_boot *boot, struct loaded *ret,
                        struct pvh_start *start, struct error **err)
{
    struct bzimage image;
    int r = bzimage_read(boot->file, boot->file_bytes, &image, err);

    if (r < 0)
        return r;
    void *to = guest_memory_at(ram, image.load_address, image.init_bytes);
    if (!to || image.load_address + image.init_bytes > guest_memory_low(ram))
        return too_small(err, "the kernel image", image.load_address + image.init_bytes, ram);
    memcpy(to, boot->file + image.kernel_offset, image.kernel_bytes);
    /* The parts of the header that describe the image; what is the loader's to say is written later. */
    memcpy(ram->base + AT_ZERO_PAGE + BZIMAGE_HEADER_AT, boot->file + BZIMAGE_HEADER_AT, image.header_bytes);
    *ret = (struct loaded){.start = image.load_address,
                           .end = image.load_address + image.init_bytes,
                           .initrd_end_max = image.initrd_end_max,
                           .parameters_max =
                               image.parameters_max < PARAMETERS_MAX ? image.parameters_max : PARAMETERS_MAX - 1};
    *start =
        (struct pvh_start){.entry = image.load_address + BZIMAGE_ENTRY64, .argument = AT_ZERO_PAGE, .long_mode = 1};
    return 0;
}

/* As high as the kernel and the memory below the hole allow. */
static int load_initrd(const struct guest_memory *ram, const struct pvh_boot *boot, struct loaded *l,
                       struct error **err)
{
    uint64_t end = guest_memory_low(ram) < l->initrd_end_max ? guest_memory_low(ram) : l->initrd_end_max;

    if (!boot->initrd)
        return 0;
    end &= ~(uint64_t)(PAGE - 1);
    if (end < l->end || boot->initrd_bytes > end - l->end ||
        ((end - boot->initrd_bytes) & ~(uint64_t)(PAGE - 1)) < l->end)
        return error_set(err, ENOMEM, "INVALID_VALUE",
                         "memory: the initrd of %zu bytes does not fit between the kernel's end at %#" PRIx64
                         " and %#" PRIx64,
                         boot->initrd_bytes, l->end, end);
    l->initrd = (end - boot->initrd_bytes) & ~(uint64_t)(PAGE - 1);
    l->initrd_bytes = boot->initrd_bytes;
    memcpy(guest_memory_at(ram, l->initrd, l->initrd_bytes), boot->initrd, boot->initrd_bytes);
    return 0;
}

/* The kernel's own words first, then our devices (Linux's virtio_mmio.device=, for kernels without ACPI). */
static int write_parameters(const struct guest_memory *ram, const struct pvh_boot *boot, uint32_t max,
                            struct error **err)
{
    char *to = (char *)ram->base + AT_PARAMETERS;
    size_t used = strlen(boot->parameters);
    const char *separator = strstr(boot->parameters, " -- ");
    char added[BOOT_DEVICE_MAX * 48 + 32] = "";
    int n = 0;

    if (!strstr(boot->parameters, "reboot="))
        n += snprintf(added, sizeof(added), "reboot=k ");
    for (unsigned i = 0; i < boot->devices && i < BOOT_DEVICE_MAX; i++)
        n += snprintf(added + n, sizeof(added) - (size_t)n, "virtio_mmio.device=4K@%#" PRIx64 ":%u ",
                      VM_DEVICE_ADDRESS + (uint64_t)i * DEVICE_PAGE, VM_LINE_FIRST + i);
    if (used + (size_t)n > max)
        return error_set(err, E2BIG, "INVALID_VALUE",
                         "command line: %zu bytes, and %d for devices; this kernel takes %u", used, n, max);
    /* Behind "--" words are init's: ours go in front. */
    size_t front = separator ? (size_t)(separator - boot->parameters) + 1 : used;
    memcpy(to, boot->parameters, front);
    if (!separator && used)
        to[front++] = ' ', used++;
    memcpy(to + front, added, (size_t)n);
    if (separator)
        memcpy(to + front + n, separator + 1, strlen(separator + 1));
    to[used + (size_t)n] = '\0';
    return 0;
}

static uint32_t memory_map(const struct guest_memory *ram, struct memory_entry map[MAP_MAX])
{
    uint64_t low = guest_memory_low(ram);
    uint32_t n = 0;

    map[n++] = (struct memory_entry){0, LOW_RAM_END, TYPE_RAM, 0};
    map[n++] = (struct memory_entry){FIRMWARE_ADDRESS, FIRMWARE_END - FIRMWARE_ADDRESS, TYPE_RESERVED, 0};
    map[n++] = (struct memory_entry){HIGH_RAM, low - HIGH_RAM, TYPE_RAM, 0};
    if (ram->bytes > low)
        map[n++] = (struct memory_entry){GUEST_MEMORY_HIGH, ram->bytes - low, TYPE_RAM, 0};
    return n;
}

static void write_start_info(const struct guest_memory *ram, const struct loaded *l, uint64_t rsdp)
{
    struct memory_entry map[MAP_MAX];
    const struct module initrd = {.address = l->initrd, .bytes = l->initrd_bytes};
    const struct start_info info = {
        .magic = START_MAGIC,
        .version = 1,
        .module_count = l->initrd_bytes ? 1 : 0,
        .modules = l->initrd_bytes ? AT_MODULE : 0,
        .parameters = AT_PARAMETERS,
        .rsdp = rsdp,
        .memory_map = AT_MAP,
        .memory_count = memory_map(ram, map),
    };

    memcpy(ram->base + AT_START, &info, sizeof(info));
    memcpy(ram->base + AT_MODULE, &initrd, sizeof(initrd));
    memcpy(ram->base + AT_MAP, map, sizeof(map[0]) * info.memory_count);
}

static void put32(uint8_t *page, unsigned at, uint64_t value)
{
    const uint32_t word = (uint32_t)value;

    memcpy(page + at, &word, sizeof(word));
}

static void write_zero_page(const struct guest_memory *ram, const struct loaded *l, uint64_t rsdp)
{
    uint8_t *page = ram->base + AT_ZERO_PAGE;
    struct memory_entry map[MAP_MAX];
    uint32_t count = memory_map(ram, map);

    memcpy(page + ZERO_RSDP, &rsdp, sizeof(rsdp));
    page[ZERO_MAP_COUNT] = (uint8_t)count;
    for (uint32_t i = 0; i < count; i++)
        memcpy(page + ZERO_MAP + i * ZERO_MAP_ENTRY, &map[i], ZERO_MAP_ENTRY);
    page[ZERO_LOADER] = LOADER_UNDEFINED;
    put32(page, ZERO_INITRD, l->initrd);
    put32(page, ZERO_INITRD_BYTES, l->initrd_bytes);
    put32(page, ZERO_PARAMETERS, AT_PARAMETERS);
}

/* GDT as both entries want it, and the first 4 GiB mapped to themselves in pages of 2 MiB. */
static void write_tables(const struct guest_memory *ram)
{
    const uint64_t gdt[] = {0, 0, UINT64_C(0x00af9b000000ffff), UINT64_C(0x00cf93000000ffff)};
    uint64_t *table = (uint64_t *)(void *)(ram->base + AT_TABLES);

    memcpy(ram->base + AT_GDT, gdt, sizeof(gdt));
    table[0] = (AT_TABLES + PAGE) | 3;
    for (uint64_t i = 0; i < 4; i++)
        table[512 + i] = (AT_TABLES + (2 + i) * PAGE) | 3;
    for (uint64_t i = 0; i < 2048; i++)
        table[1024 + i] = i << 21 | 0x83;
}

int pvh_boot_memory(const struct guest_memory *ram, const struct pvh_boot *boot, struct pvh_start *ret,
                    struct error **err)
{
    bool bzimage = bzimage_is(boot->file, boot->file_bytes);
    struct pvh_start start;
    struct loaded l;
    uint64_t rsdp = 0;

    if (ram->bytes < MEMORY_BYTES_MIN)
        return too_small(err, "the boot area", MEMORY_BYTES_MIN, ram);
    int r = (bzimage ? load_bzimage : load_elf)(ram, boot, &l, &start, err);
    if (r == 0)
        r = load_initrd(ram, boot, &l, err);
    if (r == 0)
        r = write_parameters(ram, boot, l.parameters_max, err);
    if (r == 0)
        r = firmware_write(ram, boot->vcpus, boot->devices, &rsdp, err);
    if (r < 0)
        return r;
    if (bzimage)
        write_zero_page(ram, &l, rsdp);
    else
        write_start_info(ram, &l, rsdp);
    write_tables(ram);
    *ret = start;
    return 0;
}

/* Flat: all of the first 4 GiB. */
static struct kvm_segment segment(uint16_t selector, uint8_t type, bool long_mode)
{
    return (struct kvm_segment){.limit = 0xffffffff,
                                .selector = selector,
                                .type = type,
                                .present = 1,
                                .db = !long_mode,
                                .s = 1,
                                .l = long_mode,
                                .g = 1};
}

int pvh_boot_registers(int vcpu, const struct pvh_start *start, struct error **err)
{
    struct kvm_regs regs = {.rflags = 2, .rip = start->entry, .rbx = start->argument, .rsi = start->argument};
    struct kvm_sregs s;

    if (ioctl(vcpu, KVM_GET_SREGS, &s) < 0)
        return error_set_errno(err, errno, "START_FAILED", "KVM_GET_SREGS");
    s.cr0 = 0x11; /* protection, and the bit that is always there */
    s.cs = segment(0x10, 11, start->long_mode);
    s.ds = s.es = s.fs = s.gs = s.ss = segment(0x18, 3, false);
    s.tr = (struct kvm_segment){.limit = 0x67, .type = 11, .present = 1};
    s.gdt = (struct kvm_dtable){.base = AT_GDT, .limit = 4 * 8 - 1};
    s.idt = (struct kvm_dtable){0};
    if (start->long_mode) {
        s.cr0 |= UINT32_C(1) << 31;
        s.cr3 = AT_TABLES;
        s.cr4 |= 0x20;   /* PAE */
        s.efer |= 0x500; /* long mode, active */
    }
    if (ioctl(vcpu, KVM_SET_SREGS, &s) < 0)
        return error_set_errno(err, errno, "START_FAILED", "KVM_SET_SREGS");
    if (ioctl(vcpu, KVM_SET_REGS, &regs) < 0)
        return error_set_errno(err, errno, "START_FAILED", "KVM_SET_REGS");
    return 0;
}
