/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The direct entry: the monitor does what a kernel's first instructions would, from outside, so that the guest's first
 * instruction already runs at CPL 3 and nothing of the guest ever runs at ring 0. On the PVM flavour of KVM that is the
 * difference between native speed and emulation; everywhere it means that guest code can change no mapping.
 * Runs once, on the vCPU's thread, before the sandbox closes.
 */
#include <cpuid.h>
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "abi/boot_tables.h"
#include "vmm/boot_direct.h"

/* Register values (Intel SDM volume 3, 2.5, 2.2.1, 10.4): protection and paging; PAE, OSFXSR, OSXMMEXCPT; SCE LME LMA
 * NXE. */
#define DIRECT_CR0       UINT64_C(0x80050033)
#define DIRECT_CR4       UINT64_C(0x620)
#define DIRECT_EFER      UINT64_C(0xd01)
#define DIRECT_APIC_BASE UINT64_C(0xfee00900)
#define DIRECT_RFLAGS    UINT64_C(0x202)
#define APIC_SVR_OFFSET  0xf0
#define APIC_SVR_ENABLED 0x1ff
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14; musl does not know it */
#endif

enum { POPULATE_BSS = 64 * 1024, POPULATE_TOP = 4 * 4096 };

/*
 * Makes pages present at once, a tenth of what it costs to meet them one by one; and KVM maps with a page that faults
 * up to eight neighbours, if they are there, writable and marked accessed (PAGE_MARKED). That is why read-only pages of
 * the image are copies of the guest's own and no mapping of the file: sharing them saved 100 KiB a guest and cost 70
 * us.
 */
static void make_present(const struct guest_memory *ram, uint64_t start, uint64_t end)
{
    const uint64_t page = TABLE_PAGE;
    void *at;

    start &= ~(page - 1);
    end = (end + page - 1) & ~(page - 1);
    at = start < end && start >= BOOT_IMAGE_ADDRESS ? guest_memory_at(ram, start, end - start) : NULL;
    if (at)
        madvise(at, end - start, MADV_POPULATE_WRITE); /* a kernel without it: slower, no more */
}

void direct_boot_hot_pages(const struct guest_memory *ram, uint64_t free_start)
{
    const struct boot_image *image = guest_memory_at(ram, BOOT_IMAGE_ADDRESS, sizeof(*image));
    const uint64_t page = TABLE_PAGE, low = guest_memory_low(ram);

    if (!image)
        return;
    make_present(ram, image->guard - POPULATE_BSS, image->guard);     /* small variables */
    make_present(ram, image->stack_top - 2 * page, image->stack_top); /* boot stack */
    make_present(ram, free_start, free_start + 2 * page);             /* the first blocks of its heap */
    make_present(ram, low - POPULATE_TOP, low);                       /* its first pages: rings */
}

static int load_segments(const struct guest_memory *ram, const struct direct_boot *boot)
{
    for (uint32_t i = 0; i < boot->image->segment_count; i++) {
        const struct elf_segment *s = &boot->image->segments[i];
        void *to = guest_memory_at(ram, s->address, s->memory_bytes);

        if (!to)
            return -EFAULT;
        /* Fresh guest memory is zero already: touching bss would only cost pages. */
        make_present(ram, s->address, s->address + s->file_bytes);
        memcpy(to, boot->file + s->file_offset, s->file_bytes);
    }
    return 0;
}

static int check_image_header(const struct guest_memory *ram, const struct direct_boot *boot, struct boot_image *ret,
                              struct error **err)
{
    const struct elf_image *image = boot->image;
    const void *header = guest_memory_at(ram, BOOT_IMAGE_ADDRESS, sizeof(*ret));

    if (!header || image->low != BOOT_IMAGE_ADDRESS)
        return error_set(err, EINVAL, "IMAGE_MALFORMED",
                         "kernel image: not linked at %#" PRIx64 " (starts at %#" PRIx64 ")", BOOT_IMAGE_ADDRESS,
                         image->low);
    memcpy(ret, header, sizeof(*ret));
    if (ret->magic != BOOT_MAGIC)
        return error_set(err, EINVAL, "IMAGE_MALFORMED",
                         "kernel image: no Coracle header; boot it through PVH instead");
    if (ret->version != BOOT_VERSION)
        return error_set(err, EINVAL, "IMAGE_MALFORMED", "kernel image: ABI version %" PRIu64 ", this monitor has %u",
                         ret->version, BOOT_VERSION);
    const uint64_t inside[] = {
        ret->entry, ret->traps, ret->stack_top - 8, ret->fault_stack_top - 8, ret->halt, ret->halt_stack_top - 8,
        ret->guard};
    for (size_t i = 0; i < sizeof(inside) / sizeof(inside[0]); i++)
        if (inside[i] < image->low || inside[i] >= image->high)
            return error_set(err, EINVAL, "IMAGE_MALFORMED",
                             "kernel image: its header points outside it (%#" PRIx64 ")", inside[i]);
    return 0;
}

static uint64_t page_flags(uint32_t segment_flags)
{
    return (segment_flags & PF_W ? PAGE_WRITE : 0) | (segment_flags & PF_X ? 0 : PAGE_NX);
}

static uint64_t page_up(uint64_t address)
{
    return (address + TABLE_PAGE - 1) & ~(uint64_t)(TABLE_PAGE - 1);
}

static void map_everything(struct boot_tables *t, const struct direct_boot *boot, const struct boot_info *info,
                           const struct boot_image *header)
{
    struct boot_span spans[ELF_SEGMENT_MAX];

    for (uint32_t i = 0; i < boot->image->segment_count; i++) {
        const struct elf_segment *s = &boot->image->segments[i];
        spans[i] = (struct boot_span){.start = s->address & ~(uint64_t)(TABLE_PAGE - 1),
                                      .end = page_up(s->address + s->memory_bytes),
                                      .flags = page_flags(s->flags)};
    }
    tables_address_space(t, info, header, spans, boot->image->segment_count);
}

int direct_boot_memory(const struct guest_memory *ram, const struct direct_boot *boot, struct error **err)
{
    struct boot_tables tables;
    struct boot_image header;
    struct boot_info info = boot->info;
    int r;

    if (ram->bytes > guest_memory_low(ram))
        return error_set(err, EINVAL, "INVALID_VALUE", "memory: %" PRIu64 " bytes; a unikernel has at most 3 GiB",
                         ram->bytes);
    if (strlen(boot->parameters) >= BOOT_PARAMETERS_SIZE)
        return error_set(err, E2BIG, "INVALID_VALUE", "boot parameters: %zu bytes, at most %u fit",
                         strlen(boot->parameters), BOOT_PARAMETERS_SIZE - 1);
    if (load_segments(ram, boot) < 0)
        return error_set(err, EFAULT, "IMAGE_MALFORMED", "kernel image: a segment lies outside the guest's memory");
    r = check_image_header(ram, boot, &header, err);
    if (r < 0)
        return r;
    info.magic = BOOT_MAGIC;
    info.version = BOOT_VERSION;
    info.flags |= BOOT_DIRECT;
    info.memory_bytes = ram->bytes;
    info.free_start = page_up(boot->image->high);
    memcpy(ram->base + BOOT_INFO_ADDRESS, &info, sizeof(info));
    memcpy(ram->base + BOOT_PARAMETERS_ADDRESS, boot->parameters, strlen(boot->parameters) + 1);
    tables_begin(&tables, ram->base, BOOT_IMAGE_ADDRESS);
    tables_segments(&tables, &header);
    tables_traps(&tables, &header, 0);
    map_everything(&tables, boot, &info, &header);
    direct_boot_hot_pages(ram, info.free_start);
    if (tables.full)
        return error_set(err, ENOMEM, "INVALID_VALUE", "memory: %" PRIu64 " bytes need more page tables than fit",
                         ram->bytes);
    return 0;
}

static struct kvm_segment segment(uint16_t selector, uint8_t type, uint8_t dpl, bool code)
{
    return (struct kvm_segment){.limit = 0xffffffff,
                                .selector = selector,
                                .type = type,
                                .present = 1,
                                .dpl = dpl,
                                .db = !code,
                                .s = 1,
                                .l = code,
                                .g = 1};
}

/*
 * Loaded task registers are busy ones, and VT-x enters no guest with another. SVM does not look (AMD APM volume 2,
 * 15.5.1), and its emulation by QEMU looks into the I/O bitmap of an available one only (check_io() in
 * target/i386/tcg/seg_helper.c): there every port of a guest at CPL 3 would fault. KVM shows it as busy all the same.
 */
uint8_t direct_tss_type(void)
{
    unsigned a, b, c = 0, d;

    return __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & 1u << 2) ? 9 : 11;
}

static int set_special(int vcpu, struct error **err)
{
    struct kvm_sregs s;

    if (ioctl(vcpu, KVM_GET_SREGS, &s) < 0)
        return error_set_errno(err, errno, "START_FAILED", "KVM_GET_SREGS");
    s.cr0 = DIRECT_CR0;
    s.cr3 = TABLE_PML4;
    s.cr4 = DIRECT_CR4;
    s.efer = DIRECT_EFER;
    s.apic_base = DIRECT_APIC_BASE;
    s.cs = segment(BOOT_SELECTOR_USER_CODE, 11, 3, true);
    s.ss = s.ds = s.es = s.fs = s.gs = segment(BOOT_SELECTOR_USER_DATA, 3, 3, false);
    s.tr = (struct kvm_segment){.base = TABLE_TSS,
                                .limit = TABLE_TSS_BYTES - 1,
                                .selector = BOOT_SELECTOR_TSS,
                                .type = direct_tss_type(),
                                .present = 1};
    s.gdt = (struct kvm_dtable){.base = TABLE_GDT, .limit = TABLE_GDT_BYTES - 1};
    s.idt = (struct kvm_dtable){.base = TABLE_IDT, .limit = 256 * 16 - 1};
    if (ioctl(vcpu, KVM_SET_SREGS, &s) < 0)
        return error_set_errno(err, errno, "START_FAILED", "KVM_SET_SREGS");
    return 0;
}

static int enable_apic(int vcpu, struct error **err)
{
    struct kvm_lapic_state apic;
    const uint32_t svr = APIC_SVR_ENABLED;

    if (ioctl(vcpu, KVM_GET_LAPIC, &apic) < 0)
        return error_set_errno(err, errno, "START_FAILED", "KVM_GET_LAPIC");
    memcpy(apic.regs + APIC_SVR_OFFSET, &svr, sizeof(svr));
    if (ioctl(vcpu, KVM_SET_LAPIC, &apic) < 0)
        return error_set_errno(err, errno, "START_FAILED", "KVM_SET_LAPIC");
    return 0;
}

int direct_boot_processor(int vcpu, struct error **err)
{
    int r = set_special(vcpu, err);

    return r < 0 ? r : enable_apic(vcpu, err);
}

static int run_at(int vcpu, struct kvm_run *run, uint64_t tables, uint64_t code)
{
    struct kvm_regs regs = {.rflags = DIRECT_RFLAGS, .rip = code};
    struct kvm_sregs s;

    if (ioctl(vcpu, KVM_GET_SREGS, &s) < 0)
        return -errno;
    s.tr.type = direct_tss_type(); /* KVM shows a busy one whatever it was given */
    s.cr3 = tables;
    if (ioctl(vcpu, KVM_SET_SREGS, &s) < 0 || ioctl(vcpu, KVM_SET_REGS, &regs) < 0)
        return -errno;
    int r = ioctl(vcpu, KVM_RUN, 0) < 0 ? -errno : 0;
    run->immediate_exit = 1; /* what the exit left undone is finished, no instruction follows */
    ioctl(vcpu, KVM_RUN, 0);
    run->immediate_exit = 0;
    s.cr3 = TABLE_PML4;
    return ioctl(vcpu, KVM_SET_SREGS, &s) < 0 ? -errno : r;
}

void direct_boot_warm_up(int vcpu, struct kvm_run *run, const struct guest_memory *ram)
{
    enum { PAGES = 5 };
    static const uint8_t code[] = {0xe6, 0x80, 0x0f, 0x0b}; /* out 0x80, al; ud2 */
    const uint64_t at = BOOT_IMAGE_ADDRESS - PAGES * TABLE_PAGE, end = at + 4 * TABLE_PAGE;
    const uint64_t flags = PAGE_MARKED | PAGE_PRESENT | PAGE_USER | PAGE_WRITE;
    uint8_t *base = guest_memory_at(ram, at, PAGES * TABLE_PAGE);

    if (!base)
        return;
    for (unsigned level = 0; level < 4; level++) { /* each table's one entry leads to the next page */
        uint64_t entry = (at + (level + 1) * TABLE_PAGE) | flags;
        memcpy(base + level * TABLE_PAGE + (end >> (39 - 9 * level) & 511) * 8, &entry, sizeof(entry));
    }
    memcpy(base + 4 * TABLE_PAGE, code, sizeof(code));
    run_at(vcpu, run, at, end);
    madvise(base, PAGES * TABLE_PAGE, MADV_DONTNEED);
}

int direct_boot_registers(int vcpu, const struct guest_memory *ram, struct error **err)
{
    struct boot_image header;
    struct kvm_regs regs = {.rflags = DIRECT_RFLAGS, .rdi = BOOT_INFO_ADDRESS};

    memcpy(&header, ram->base + BOOT_IMAGE_ADDRESS, sizeof(header));
    regs.rip = header.entry;
    regs.rsp = header.stack_top - 8; /* as after a call: the ABI's alignment, a zero return address above */
    if (ioctl(vcpu, KVM_SET_REGS, &regs) < 0)
        return error_set_errno(err, errno, "START_FAILED", "KVM_SET_REGS");
    return 0;
}
