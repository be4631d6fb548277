/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ELF reader of the monitor. The file is a tenant's: every header is copied out before it is looked at, every sum is
 * checked for overflow, and nothing outside [file, file + size) is ever read. Fuzzed as tests/fuzz/elf.c.
 */
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "vmm/elf.h"

enum { NOTE_PVH_ENTRY = 18, NOTE_BYTES_MAX = 64 * 1024 };

static bool span_fits(uint64_t offset, uint64_t length, uint64_t bound)
{
    return offset <= bound && length <= bound - offset;
}

static int malformed(struct error **err, const char *what)
{
    return error_set(err, EINVAL, "IMAGE_MALFORMED", "kernel image: %s", what);
}

static int read_header(const uint8_t *file, size_t size, Elf64_Ehdr *ret, struct error **err)
{
    Elf64_Ehdr h;

    if (size < sizeof(h))
        return malformed(err, "shorter than an ELF header");
    memcpy(&h, file, sizeof(h));
    if (memcmp(h.e_ident, ELFMAG, SELFMAG) != 0)
        return malformed(err, "not an ELF file");
    if (h.e_ident[EI_CLASS] != ELFCLASS64 || h.e_ident[EI_DATA] != ELFDATA2LSB || h.e_machine != EM_X86_64)
        return error_set(err, ENOEXEC, "IMAGE_WRONG_ARCHITECTURE",
                         "kernel image: ELF class %u, machine %u; an x86-64 image is needed", h.e_ident[EI_CLASS],
                         h.e_machine);
    if (h.e_type != ET_EXEC && h.e_type != ET_DYN)
        return malformed(err, "not an executable (e_type)");
    if (h.e_phentsize != sizeof(Elf64_Phdr) || h.e_phnum == 0 || h.e_phnum > 64)
        return malformed(err, "program header table has an impossible size (e_phentsize, e_phnum)");
    if (!span_fits(h.e_phoff, (uint64_t)h.e_phnum * sizeof(Elf64_Phdr), size))
        return malformed(err, "program header table lies outside the file (e_phoff)");
    *ret = h;
    return 0;
}

static int add_segment(struct elf_image *image, const Elf64_Phdr *p, size_t size, uint64_t memory_bytes, int allow_wx,
                       struct error **err)
{
    if (p->p_memsz == 0)
        return 0;
    if (image->segment_count == ELF_SEGMENT_MAX)
        return malformed(err, "more than 16 loadable segments");
    if (p->p_filesz > p->p_memsz || !span_fits(p->p_offset, p->p_filesz, size))
        return malformed(err, "a segment lies outside the file (p_offset, p_filesz)");
    if (!span_fits(p->p_paddr, p->p_memsz, memory_bytes))
        return error_set(err, ENOMEM, "INVALID_VALUE",
                         "kernel image: a segment ends at %#" PRIx64 ", beyond the guest's %" PRIu64 " bytes of memory",
                         p->p_paddr + p->p_memsz, memory_bytes);
    if (!allow_wx && (p->p_flags & (PF_W | PF_X)) == (PF_W | PF_X))
        return malformed(err, "a segment is writable and executable");
    for (uint32_t i = 0; i < image->segment_count; i++) {
        const struct elf_segment *s = &image->segments[i];
        if (p->p_paddr < s->address + s->memory_bytes && s->address < p->p_paddr + p->p_memsz)
            return malformed(err, "two segments overlap in memory");
    }
    image->segments[image->segment_count++] = (struct elf_segment){
        .address = p->p_paddr,
        .file_offset = p->p_offset,
        .file_bytes = p->p_filesz,
        .memory_bytes = p->p_memsz,
        .flags = p->p_flags,
    };
    if (p->p_paddr < image->low)
        image->low = p->p_paddr;
    if (p->p_paddr + p->p_memsz > image->high)
        image->high = p->p_paddr + p->p_memsz;
    return 0;
}

/* Notes are 4-byte aligned triples (gABI, "Note Section"); the last of a broken list is simply not found. */
static void find_pvh_note(const uint8_t *file, size_t size, const Elf64_Phdr *p, struct elf_image *image)
{
    uint64_t at = p->p_offset, end;

    if (!span_fits(p->p_offset, p->p_filesz, size) || p->p_filesz > NOTE_BYTES_MAX)
        return;
    end = p->p_offset + p->p_filesz;
    while (end - at >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr n;

        memcpy(&n, file + at, sizeof(n));
        at += sizeof(n);
        uint64_t name = ((uint64_t)n.n_namesz + 3) & ~UINT64_C(3), desc = ((uint64_t)n.n_descsz + 3) & ~UINT64_C(3);
        if (name > end - at || desc > end - at - name)
            return;
        if (n.n_type == NOTE_PVH_ENTRY && n.n_namesz == 4 && memcmp(file + at, "Xen", 4) == 0 &&
            (n.n_descsz == 4 || n.n_descsz == 8))
            memcpy(&image->pvh_entry, file + at + name, n.n_descsz);
        at += name + desc;
    }
}

static bool in_executable_segment(const struct elf_image *image, uint64_t address)
{
    for (uint32_t i = 0; i < image->segment_count; i++) {
        const struct elf_segment *s = &image->segments[i];
        if ((s->flags & PF_X) && address >= s->address && address - s->address < s->file_bytes)
            return true;
    }
    return false;
}

int elf_read(const uint8_t *file, size_t size, uint64_t memory_bytes, int allow_wx, struct elf_image *ret,
             struct error **err)
{
    struct elf_image image = {.low = UINT64_MAX};
    Elf64_Ehdr h = {0};
    int r = read_header(file, size, &h, err);

    for (unsigned i = 0; r == 0 && i < h.e_phnum; i++) {
        Elf64_Phdr p;

        memcpy(&p, file + h.e_phoff + i * sizeof(p), sizeof(p));
        if (p.p_type == PT_LOAD)
            r = add_segment(&image, &p, size, memory_bytes, allow_wx, err);
        else if (p.p_type == PT_NOTE)
            find_pvh_note(file, size, &p, &image);
    }
    if (r < 0)
        return r;
    if (image.segment_count == 0)
        return malformed(err, "nothing to load (no PT_LOAD)");
    image.entry = h.e_entry;
    if (image.pvh_entry && !in_executable_segment(&image, image.pvh_entry))
        return malformed(err, "its PVH entry lies outside its code");
    *ret = image;
    return 0;
}
