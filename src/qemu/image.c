/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks at a kernel as QEMU's loaders will: bzImage (Linux, Documentation/arch/x86/boot.rst), ELF with the note for the
 * 32-bit entry (Xen's PVH), multiboot header. Every offset of the file is checked before use.
 */
#include <elf.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "qemu/image.h"

enum {
    BZ_SETUP_SECTS = 0x1f1,
    BZ_SYSSIZE = 0x1f4,
    BZ_FLAG = 0x1fe,
    BZ_MAGIC = 0x202,
    BZ_VERSION = 0x206,
    BZ_END = 0x250,
    SECTOR = 512,
    PHYS32_ENTRY = 18, /* XEN_ELFNOTE_PHYS32_ENTRY */
    MULTIBOOT_WITHIN = 8192,
    PROGRAM_HEADER_MAX = 128,
};
#define MULTIBOOT_MAGIC 0x1badb002u
#define ARM64_MAGIC     "ARM\x64"

struct view {
    const uint8_t *bytes;
    size_t size;
};

static uint32_t get32(const struct view *v, size_t at)
{
    uint32_t value;

    memcpy(&value, v->bytes + at, sizeof(value)); /* the caller knows that it is there */
    return value;
}

static int malformed(struct error **err, const char *what)
{
    return error_set(err, EINVAL, "IMAGE_MALFORMED", "kernel: %s", what);
}

static int wrong_machine(struct error **err, const char *which)
{
    error_set(err, ENOEXEC, "IMAGE_WRONG_ARCHITECTURE", "kernel: it is for %s, this host runs x86-64", which);
    error_hint(err, "take the image's amd64 (x86_64) variant");
    return -ENOEXEC;
}

static const char *machine_name(unsigned machine)
{
    switch (machine) {
    case EM_AARCH64:
        return "aarch64";
    case EM_ARM:
        return "arm";
    case EM_RISCV:
        return "riscv";
    case EM_PPC64:
        return "ppc64";
    case EM_S390:
        return "s390x";
    default:
        return "another architecture";
    }
}

/* ---- bzImage ---- */

static bool is_bzimage(const struct view *v)
{
    return v->size >= BZ_END && v->bytes[BZ_FLAG] == 0x55 && v->bytes[BZ_FLAG + 1] == 0xaa &&
           memcmp(v->bytes + BZ_MAGIC, "HdrS", 4) == 0;
}

static int check_bzimage(const struct view *v, uint64_t memory, struct error **err)
{
    uint64_t sectors = v->bytes[BZ_SETUP_SECTS] ? v->bytes[BZ_SETUP_SECTS] : 4;
    uint64_t whole = (sectors + 1) * SECTOR + (uint64_t)get32(v, BZ_SYSSIZE) * 16;
    unsigned version = v->bytes[BZ_VERSION] | v->bytes[BZ_VERSION + 1] << 8;

    if (version < 0x0206)
        return malformed(err, "a Linux older than 2.6.22 (boot protocol below 2.06)");
    if (whole > v->size + 15) /* syssize counts paragraphs, rounded up */
        return error_set(err, EINVAL, "IMAGE_MALFORMED", "kernel: truncated: %zu of %llu bytes are there", v->size,
                         (unsigned long long)whole);
    if (whole > memory)
        return error_set(err, E2BIG, "IMAGE_TOO_LARGE", "kernel: larger than the machine's memory");
    return 0;
}

/* ---- ELF ---- */

struct segment {
    uint32_t type;
    uint64_t offset, file_bytes, address, memory_bytes;
};

static void read_segment(const struct view *v, bool wide, size_t at, struct segment *ret)
{
    if (wide) {
        Elf64_Phdr p;
        memcpy(&p, v->bytes + at, sizeof(p));
        *ret = (struct segment){p.p_type, p.p_offset, p.p_filesz, p.p_paddr, p.p_memsz};
    } else {
        Elf32_Phdr p;
        memcpy(&p, v->bytes + at, sizeof(p));
        *ret = (struct segment){p.p_type, p.p_offset, p.p_filesz, p.p_paddr, p.p_memsz};
    }
}

/* The notes of one segment, which lies within the file. */
static bool has_entry_note(const uint8_t *notes, size_t size)
{
    size_t at = 0;

    while (size - at >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr n; /* the same as Elf32_Nhdr */
        memcpy(&n, notes + at, sizeof(n));
        at += sizeof(n);
        size_t name = ((size_t)n.n_namesz + 3) & ~(size_t)3, desc = ((size_t)n.n_descsz + 3) & ~(size_t)3;
        if (name > size - at || desc > size - at - name)
            return false;
        if (n.n_type == PHYS32_ENTRY && n.n_namesz == 4 && memcmp(notes + at, "Xen", 4) == 0 && n.n_descsz >= 4)
            return true;
        at += name + desc;
    }
    return false;
}

struct headers {
    uint64_t offset;
    unsigned count, size;
    bool wide;
};

static int read_headers(const struct view *v, struct headers *ret, struct error **err)
{
    bool wide = v->bytes[EI_CLASS] == ELFCLASS64;
    struct headers h = {.wide = wide};
    unsigned machine;

    if (v->bytes[EI_DATA] != ELFDATA2LSB)
        return wrong_machine(err, "a big-endian machine");
    if (v->size < (wide ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr)))
        return malformed(err, "truncated within its ELF header");
    if (wide) {
        Elf64_Ehdr e;
        memcpy(&e, v->bytes, sizeof(e));
        h.offset = e.e_phoff, h.count = e.e_phnum, h.size = e.e_phentsize, machine = e.e_machine;
    } else {
        Elf32_Ehdr e;
        memcpy(&e, v->bytes, sizeof(e));
        h.offset = e.e_phoff, h.count = e.e_phnum, h.size = e.e_phentsize, machine = e.e_machine;
    }
    if (machine != EM_X86_64 && machine != EM_386)
        return wrong_machine(err, machine_name(machine));
    if (h.size != (wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)) || h.count == 0 || h.count > PROGRAM_HEADER_MAX)
        return malformed(err, "an ELF file without program headers");
    if (h.offset > v->size || (uint64_t)h.count * h.size > v->size - h.offset)
        return malformed(err, "truncated: its program headers lie behind its end");
    *ret = h;
    return 0;
}

static int check_elf(const struct view *v, uint64_t memory, bool *ret_note, struct error **err)
{
    struct headers h = {0};
    bool note = false;
    int r = read_headers(v, &h, err);

    for (unsigned i = 0; i < h.count && r == 0; i++) {
        struct segment s;
        read_segment(v, h.wide, (size_t)(h.offset + (uint64_t)i * h.size), &s);
        if (s.type != PT_LOAD && s.type != PT_NOTE)
            continue;
        if (s.offset > v->size || s.file_bytes > v->size - s.offset)
            r = malformed(err, "truncated: a segment lies behind its end");
        else if (s.type == PT_LOAD && (s.memory_bytes > memory || s.address > memory - s.memory_bytes))
            r = error_set(err, E2BIG, "IMAGE_TOO_LARGE", "kernel: does not fit into the machine's memory");
        else if (s.type == PT_NOTE)
            note = note || has_entry_note(v->bytes + s.offset, (size_t)s.file_bytes);
    }
    if (r == 0)
        *ret_note = note;
    return r;
}

/* ---- multiboot ---- */

static bool has_multiboot(const struct view *v)
{
    size_t end = v->size < MULTIBOOT_WITHIN ? v->size : MULTIBOOT_WITHIN;

    for (size_t at = 0; at + 12 <= end; at += 4)
        if (get32(v, at) == MULTIBOOT_MAGIC && get32(v, at) + get32(v, at + 4) + get32(v, at + 8) == 0)
            return true;
    return false;
}

static int no_entry(enum monitor_boot boot, struct error **err)
{
    switch (boot) {
    case MONITOR_BOOT_LINUX:
        malformed(err, "neither a bzImage nor an ELF file with a PVH entry (CONFIG_PVH=y)");
        error_hint(err, "take /boot/vmlinuz-VERSION of an amd64 distribution");
        break;
    case MONITOR_BOOT_MULTIBOOT:
        malformed(err, "neither a multiboot header nor a PVH entry note");
        break;
    default:
        malformed(err, "no PVH entry note (XEN_ELFNOTE_PHYS32_ENTRY)");
        error_hint(err, "build it for PVH or Firecracker, or give it as a multiboot kernel or as a disk");
    }
    return -EINVAL;
}

int image_check_kernel(const uint8_t *bytes, size_t size, enum monitor_boot boot, uint64_t memory, struct error **err)
{
    const struct view v = {bytes, size};
    bool note = false;

    if (size < EI_NIDENT)
        return malformed(err, size ? "too short to be one" : "empty");
    if (boot == MONITOR_BOOT_LINUX && is_bzimage(&v))
        return check_bzimage(&v, memory, err);
    if (size > 60 && memcmp(bytes + 56, ARM64_MAGIC, 4) == 0)
        return wrong_machine(err, "aarch64");
    if (memcmp(bytes, ELFMAG, SELFMAG) == 0) {
        int r = check_elf(&v, memory, &note, err);
        if (r < 0)
            return r;
    }
    if (note || (boot == MONITOR_BOOT_MULTIBOOT && has_multiboot(&v)))
        return 0;
    return no_entry(boot, err);
}

int image_check_boot_sector(const uint8_t *bytes, size_t size, struct error **err)
{
    if (size < SECTOR)
        return error_set(err, EINVAL, "IMAGE_MALFORMED", "disk: truncated: shorter than one sector");
    if (memcmp(bytes, "QFI\xfb", 4) == 0) {
        error_set(err, EINVAL, "IMAGE_MALFORMED", "disk: it is a qcow2 image, not raw");
        error_hint(err, "say that it is qcow2, or convert it: qemu-img convert -O raw IN OUT");
        return -EINVAL;
    }
    if (bytes[510] != 0x55 || bytes[511] != 0xaa) {
        error_set(err, EINVAL, "IMAGE_MALFORMED", "disk: not bootable: no boot sector");
        error_hint(err, "the firmware here is a BIOS: install a boot loader for it (grub-pc, extlinux)");
        return -EINVAL;
    }
    return 0;
}
