/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes the unikernel's descriptor tables and page tables (Intel SDM volume 3, chapters 3 to 6) into memory.
 *
 * One source for both makers of the environment: coracle-vmm, which writes through its mapping of guest memory, and the
 * guest's PVH stub, which writes to itself. So: no libc, no allocation, memory is named by an offset-to-pointer base.
 *
 * Layout from BOOT_TABLES_ADDRESS: page 0 GDT, pages 1-3 TSS with its I/O bitmap, page 4 IDT, page 5 PML4, page 6 PDPT,
 * then page directories and page tables in the order they are needed, up to BOOT_IMAGE_ADDRESS or the end of low
 * memory.
 */
#ifndef CORACLE_ABI_BOOT_TABLES_H
#define CORACLE_ABI_BOOT_TABLES_H

#include "abi/boot.h"

enum {
    TABLE_PAGE = 4096,
    TABLE_GDT = 0x4000,
    TABLE_TSS = 0x5000,
    TABLE_IDT = 0x8000,
    TABLE_PML4 = 0x9000,
    TABLE_PDPT = 0xa000,
    TABLE_NEXT = 0xb000,
    TABLE_GDT_BYTES = 10 * 8,
    TABLE_TSS_BYTES = 0x68 + 8192 + 1,
    TABLE_DEVICE_SLOT_LAST = 3, /* directories of the fourth GiB hold the device pages */
};

#define PAGE_PRESENT  UINT64_C(1)
#define PAGE_WRITE    UINT64_C(2)
#define PAGE_USER     UINT64_C(4)
#define PAGE_UNCACHED UINT64_C(0x18)
#define PAGE_MARKED   UINT64_C(0x60) /* accessed, dirty: nothing has to be noted, so a table is never written again */
#define PAGE_LARGE    UINT64_C(0x80)
#define PAGE_NX       (UINT64_C(1) << 63)
#define PAGE_ADDRESS  UINT64_C(0x000ffffffffff000)

struct boot_tables {
    uint8_t *memory; /* where guest physical 0 is */
    uint64_t next;   /* next free table page (guest physical) */
    uint64_t limit;  /* where the space for them ends */
    int full;        /* it did not suffice */
};

#define BOOT_APIC_ADDRESS UINT64_C(0xfee00000)

/* A part of the image: whole pages, and what CPL 3 may do there (PAGE_WRITE, PAGE_NX). */
struct boot_span {
    uint64_t start, end, flags;
};

static inline uint64_t *tables_at(const struct boot_tables *t, uint64_t address)
{
    return (uint64_t *)(void *)(t->memory + address);
}

static inline void tables_zero(const struct boot_tables *t, uint64_t address, uint64_t bytes)
{
    uint64_t *word = tables_at(t, address);

    for (uint64_t i = 0; i < bytes / 8; i++)
        word[i] = 0;
}

static inline void tables_begin(struct boot_tables *t, uint8_t *memory, uint64_t limit)
{
    t->memory = memory;
    t->next = TABLE_NEXT;
    t->limit = limit < BOOT_IMAGE_ADDRESS ? limit : BOOT_IMAGE_ADDRESS;
    t->full = 0;
    tables_zero(t, TABLE_GDT, TABLE_NEXT - TABLE_GDT);
    tables_at(t, TABLE_PML4)[0] = TABLE_PDPT | PAGE_MARKED | PAGE_PRESENT | PAGE_WRITE | PAGE_USER;
}

/* The table that entry points to, made when there is none yet; NULL when the space is used up, or a large page is there
 * already (segments of one image that share it). */
static inline uint64_t *tables_below(struct boot_tables *t, uint64_t *entry)
{
    if (*entry & PAGE_LARGE)
        return (uint64_t *)0;
    if (!(*entry & PAGE_PRESENT)) {
        if (t->next + TABLE_PAGE > t->limit) {
            t->full = 1;
            return (uint64_t *)0;
        }
        tables_zero(t, t->next, TABLE_PAGE);
        *entry = t->next | PAGE_MARKED | PAGE_PRESENT | PAGE_WRITE | PAGE_USER;
        t->next += TABLE_PAGE;
    }
    return tables_at(t, *entry & PAGE_ADDRESS);
}

/* Maps [address, end) to itself; flags without PAGE_PRESENT. Large pages where both ends allow. Below 512 GiB. */
static inline void tables_map(struct boot_tables *t, uint64_t address, uint64_t end, uint64_t flags)
{
    const uint64_t large = UINT64_C(1) << 21;

    while (address < end && !t->full) {
        uint64_t *directory = tables_below(t, &tables_at(t, TABLE_PDPT)[address >> 30 & 511]);
        if (!directory)
            return;
        uint64_t *entry = &directory[address >> 21 & 511];
        if (address % large == 0 && end - address >= large && !(*entry & PAGE_PRESENT)) {
            *entry = address | flags | PAGE_LARGE | PAGE_MARKED | PAGE_PRESENT;
            address += large;
            continue;
        }
        uint64_t *table = tables_below(t, entry);
        if (!table)
            return;
        table[address >> 12 & 511] = address | flags | PAGE_MARKED | PAGE_PRESENT;
        address += TABLE_PAGE;
    }
}

/* All of it but the guard page, which is cut out before a large page could cover it. */
static inline void tables_map_span(struct boot_tables *t, const struct boot_span *span, uint64_t guard)
{
    uint64_t start = span->start;

    if (guard >= start && guard < span->end) {
        tables_map(t, start, guard, span->flags | PAGE_USER);
        start = guard + TABLE_PAGE;
    }
    tables_map(t, start, span->end, span->flags | PAGE_USER);
}

/* The address space of abi/boot.h: everything that info, the image's header and its spans say. */
static inline void tables_address_space(struct boot_tables *t, const struct boot_info *info,
                                        const struct boot_image *image, const struct boot_span *spans, unsigned count)
{
    const uint64_t data = PAGE_USER | PAGE_WRITE | PAGE_NX, page = ~(uint64_t)(TABLE_PAGE - 1);

    /* The processor reads descriptors by linear address: mapped, but not for CPL 3. Page tables are not mapped at all.
     */
    tables_map(t, TABLE_GDT, TABLE_PML4, PAGE_WRITE | PAGE_NX);
    tables_map(t, BOOT_INFO_ADDRESS, BOOT_SHARED_ADDRESS, PAGE_USER | PAGE_NX);
    tables_map(t, BOOT_SHARED_ADDRESS, BOOT_SHARED_ADDRESS + TABLE_PAGE, data);
    for (unsigned i = 0; i < count; i++)
        tables_map_span(t, &spans[i], image->guard & page);
    tables_map(t, info->free_start, info->memory_bytes, data);
    for (uint32_t i = 0; i < info->device_count && i < BOOT_DEVICE_MAX; i++)
        tables_map(t, info->devices[i].address & page, (info->devices[i].address & page) + TABLE_PAGE,
                   data | PAGE_UNCACHED);
    tables_map(t, BOOT_APIC_ADDRESS, BOOT_APIC_ADDRESS + TABLE_PAGE, data | PAGE_UNCACHED);
}

/* GDT and TSS. Every I/O port is forbidden but those of the ABI: another one is a general protection fault. */
static inline void tables_segments(struct boot_tables *t, const struct boot_image *image)
{
    uint64_t *gdt = tables_at(t, TABLE_GDT);
    uint8_t *tss = t->memory + TABLE_TSS;
    static const uint16_t ports[] = {PORT_IDLE, PORT_EXIT, PORT_PANIC, PORT_READY, PORT_TEXT, PORT_DEVICE, PORT_CONSOLE};

    gdt[BOOT_SELECTOR_KERNEL_CODE / 8] = UINT64_C(0x00af9b000000ffff);
    gdt[BOOT_SELECTOR_KERNEL_DATA / 8] = UINT64_C(0x00cf93000000ffff);
    gdt[BOOT_SELECTOR_USER_DATA / 8] = UINT64_C(0x00cff3000000ffff);
    gdt[BOOT_SELECTOR_USER_CODE / 8] = UINT64_C(0x00affb000000ffff);
    gdt[BOOT_SELECTOR_TSS / 8] = (uint64_t)(TABLE_TSS_BYTES - 1) | (uint64_t)TABLE_TSS << 16 | UINT64_C(0x8b) << 40;
    gdt[BOOT_SELECTOR_TSS / 8 + 1] = 0;
    __builtin_memcpy(tss + 4, &image->halt_stack_top, 8);     /* RSP0 */
    __builtin_memcpy(tss + 0x24, &image->fault_stack_top, 8); /* IST1 */
    tss[0x66] = 0x68;                                         /* I/O map base */
    for (unsigned i = 0x68; i < TABLE_TSS_BYTES; i++)
        tss[i] = 0xff;
    for (unsigned i = 0; i < sizeof(ports) / sizeof(ports[0]); i++)
        for (unsigned byte = 0; byte < 4; byte++)
            tss[0x68 + (ports[i] + byte) / 8] &= (uint8_t) ~(1u << ((ports[i] + byte) % 8));
}

/*
 * Exceptions: trap gates to the image's handlers at CPL 3 (an interrupt gate would clear IF for ever: IRETQ at CPL 3
 * cannot set it). Vector 3 leads to the ring-0 halt. Interrupts: at CPL 3 too when the guest never waits at ring 0
 * (BOOT_DIRECT); else (ring0) at ring 0, since a processor that halts there can take an interrupt to no outer ring.
 */
static inline void tables_traps(struct boot_tables *t, const struct boot_image *image, int ring0)
{
    uint64_t *idt = tables_at(t, TABLE_IDT);

    for (unsigned vector = 0; vector < 256; vector++) {
        int halt = vector == 3, inside = halt || (ring0 && vector >= 32), faults = vector == 8 || vector == 14;
        uint64_t handler = halt ? image->halt : image->traps + vector * BOOT_TRAP_STRIDE;
        uint64_t selector = inside ? BOOT_SELECTOR_KERNEL_CODE : BOOT_SELECTOR_USER_CODE;
        uint64_t type = halt ? 0xee : inside ? 0x8e : 0xef; /* for CPL 3 to enter; for the processor; trap */

        idt[2 * vector] = (handler & 0xffff) | selector << 16 | (uint64_t)(faults ? 1 : 0) << 32 | type << 40 |
                          (handler >> 16 & 0xffff) << 48;
        idt[2 * vector + 1] = handler >> 32;
    }
}

#endif
