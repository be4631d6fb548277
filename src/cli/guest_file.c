/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recognises kernels and disks by what their formats put where: ELF notes (PVH: Xen's type 18), the multiboot magic, the
 * setup header of a bzImage, qcow2's and tar's magics, a boot sector's last two bytes. Bounded reads, nothing executed.
 */
#include <elf.h>
#include <string.h>
#include <unistd.h>

#include "cli/guest_file.h"

enum { HEAD_SIZE = 8192, NOTE_MAX = 65536, XEN_ELFNOTE_PHYS32_ENTRY = 18, MULTIBOOT_MAGIC = 0x1badb002 };

struct head {
    unsigned char bytes[HEAD_SIZE];
    size_t size;
};

static bool has(const struct head *h, size_t at, const void *bytes, size_t size)
{
    return h->size >= at + size && memcmp(h->bytes + at, bytes, size) == 0;
}

static bool is_multiboot(const struct head *h)
{
    uint32_t word[3];

    for (size_t i = 0; i + sizeof(word) <= h->size; i += 4) {
        memcpy(word, h->bytes + i, sizeof(word));
        if (word[0] == MULTIBOOT_MAGIC && word[0] + word[1] + word[2] == 0)
            return true;
    }
    return false;
}

/* A note of the given type whose owner is "Xen". */
static bool note_is_pvh(const unsigned char *notes, size_t size)
{
    Elf64_Nhdr n; /* the 32-bit one is the same */
    size_t at = 0, next;

    while (size - at >= sizeof(n)) {
        memcpy(&n, notes + at, sizeof(n));
        next = at + sizeof(n) + (((size_t)n.n_namesz + 3) & ~(size_t)3) + (((size_t)n.n_descsz + 3) & ~(size_t)3);
        if (next > size)
            return false;
        if (n.n_type == XEN_ELFNOTE_PHYS32_ENTRY && n.n_namesz == 4 && memcmp(notes + at + sizeof(n), "Xen", 4) == 0)
            return true;
        at = next;
    }
    return false;
}

static bool has_pvh_note(int fd, uint64_t offset, uint64_t size)
{
    static unsigned char notes[NOTE_MAX];
    ssize_t n = size > NOTE_MAX || offset > INT64_MAX ? -1 : pread(fd, notes, size, (off_t)offset);

    return n > 0 && note_is_pvh(notes, (size_t)n);
}

static bool is_coracle(int fd, uint64_t offset)
{
    char magic[8];

    return offset <= INT64_MAX && pread(fd, magic, 8, (off_t)offset) == 8 && memcmp(magic, "Coracle1", 8) == 0;
}

static enum guest_file elf64_kind(int fd, const struct head *h)
{
    enum guest_file kind = FILE_ELF;
    bool first = true;
    Elf64_Ehdr e;
    Elf64_Phdr p;

    memcpy(&e, h->bytes, sizeof(e));
    for (unsigned i = 0; i < e.e_phnum && i < 64 && e.e_phentsize == sizeof(p) && e.e_phoff < INT64_MAX / 2; i++) {
        if (pread(fd, &p, sizeof(p), (off_t)(e.e_phoff + i * sizeof(p))) != sizeof(p))
            break;
        if (p.p_type == PT_LOAD && first && is_coracle(fd, p.p_offset))
            return FILE_CORACLE;
        first &= p.p_type != PT_LOAD;
        if (p.p_type == PT_NOTE && has_pvh_note(fd, p.p_offset, p.p_filesz))
            kind = FILE_PVH;
    }
    return kind;
}

static enum guest_file elf32_kind(int fd, const struct head *h)
{
    Elf32_Ehdr e;
    Elf32_Phdr p;

    memcpy(&e, h->bytes, sizeof(e));
    for (unsigned i = 0; i < e.e_phnum && i < 64 && e.e_phentsize == sizeof(p); i++) {
        if (pread(fd, &p, sizeof(p), (off_t)(e.e_phoff + i * sizeof(p))) != sizeof(p))
            break;
        if (p.p_type == PT_NOTE && has_pvh_note(fd, p.p_offset, p.p_filesz))
            return FILE_PVH;
    }
    return FILE_ELF;
}

static bool is_archive(const struct head *h)
{
    return has(h, 257, "ustar", 5) || has(h, 0, "\x1f\x8b", 2) || has(h, 0, "\xfd" "7zXZ", 6) ||
           has(h, 0, "\x28\xb5\x2f\xfd", 4) || has(h, 0, "BZh", 3);
}

enum guest_file guest_file_kind(int fd)
{
    static struct head h;
    ssize_t n = pread(fd, h.bytes, sizeof(h.bytes), 0);
    enum guest_file kind = FILE_UNKNOWN;

    h.size = n > 0 ? (size_t)n : 0;
    if (has(&h, 0, ELFMAG, SELFMAG) && h.size >= sizeof(Elf64_Ehdr))
        kind = h.bytes[EI_CLASS] == ELFCLASS64 ? elf64_kind(fd, &h) : elf32_kind(fd, &h);
    if ((kind == FILE_UNKNOWN || kind == FILE_ELF) && is_multiboot(&h))
        return FILE_MULTIBOOT;
    if (kind != FILE_UNKNOWN)
        return kind;
    if (has(&h, 0, "QFI\xfb", 4))
        return FILE_QCOW2;
    if (is_archive(&h))
        return FILE_ARCHIVE;
    if (has(&h, 0x202, "HdrS", 4))
        return FILE_BZIMAGE;
    return has(&h, 510, "\x55\xaa", 2) ? FILE_DISK : FILE_UNKNOWN;
}

const char *guest_file_boot(enum guest_file kind, enum image_variant variant)
{
    static const char *const boots[] = {
        [FILE_CORACLE] = "unikernel", [FILE_PVH] = "pvh",    [FILE_MULTIBOOT] = "multiboot",
        [FILE_BZIMAGE] = "linux",     [FILE_QCOW2] = "disk", [FILE_DISK] = "disk",
        [FILE_ELF] = NULL,            [FILE_ARCHIVE] = NULL, [FILE_UNKNOWN] = NULL,
    };
    const char *boot = variant == VARIANT_DISK ? "disk" : boots[kind];

    return boot ? boot_find(variant, boot) : NULL;
}
