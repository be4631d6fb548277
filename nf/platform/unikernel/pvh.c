/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PVH way in: makes for itself, at ring 0, what coracle-vmm makes from outside (include/abi/boot.h), with the same
 * code for the tables. Called once by pvh.S in long mode; ends at CPL 3 for ever.
 *
 * Order matters: the monitor's structures may lie where ours will (Firecracker puts them at 0x6000), so what is wanted
 * of them is copied into the image's own memory before the first byte is written below it.
 */
#include "pvh.h"

#include "abi/boot_tables.h"
#include "unikernel.h"

#include "../platform.h"

/* Xen's public/arch-x86/hvm/start_info.h. */
#define START_MAGIC UINT32_C(0x336ec578)
struct start_info {
    uint32_t magic, version, flags, module_count;
    uint64_t modules, parameters, rsdp;
    uint64_t memory_map; /* from version 1 on */
    uint32_t memory_count, reserved;
};
struct memory_entry {
    uint64_t address, bytes;
    uint32_t type, reserved;
};
enum { MEMORY_RAM = 1, MEMORY_ENTRY_MAX = 128 };
#define MAPPED_END UINT64_C(0x100000000) /* of pvh.S's map */
#define RAM_END    UINT64_C(0xc0000000)  /* device pages and the local APIC lie in the fourth GiB */

struct __attribute__((packed)) pvh_pointers {
    uint16_t gdt_limit;
    uint64_t gdt;
    uint16_t idt_limit;
    uint64_t idt;
};

extern char image_text_end[], image_rodata_start[], image_rodata_end[], image_data_start[], image_end[];

void pvh_leave(const struct pvh_pointers *) __attribute__((noreturn));
void pvh_main(uint32_t start_address) __attribute__((noreturn));

static char parameters[BOOT_PARAMETERS_SIZE];

void pvh_say(const char *line)
{
    for (const char *c = "unikernel: "; *c; c++)
        pvh_out8(PORT_CONSOLE, (uint8_t)*c);
    for (; *line; line++)
        pvh_out8(PORT_CONSOLE, (uint8_t)*line);
    pvh_out8(PORT_CONSOLE, '\n');
}

static void __attribute__((noreturn)) give_up(const char *why)
{
    const struct pvh_pointers none = {0};

    pvh_say(why);
    for (;;) /* no handler for the trap, nor for that: a triple fault, which ends or resets the machine */
        __asm__ volatile("lidt %0; int3" ::"m"(none.idt_limit));
}

static bool mapped(uint64_t address, uint64_t bytes)
{
    return address != 0 && address < MAPPED_END && bytes <= MAPPED_END - address;
}

static void copy_parameters(uint64_t address)
{
    unsigned n = 0;

    if (address == 0)
        return;
    for (const char *from = (const char *)address;; n++) {
        if (!mapped(address + n, 1) || n == sizeof(parameters))
            give_up("the command line is longer than 4095 bytes or lies nowhere");
        if ((parameters[n] = from[n]) == '\0')
            return;
    }
}

/* Where the RAM that begins at or below address ends; address itself when there is none. */
static uint64_t ram_from(const struct start_info *start, uint64_t address)
{
    const struct memory_entry *map = (const struct memory_entry *)start->memory_map;
    uint64_t end = address;

    for (uint32_t pass = 0; pass < start->memory_count; pass++) { /* neighbours may be listed in any order */
        uint64_t before = end;
        for (uint32_t i = 0; i < start->memory_count; i++) {
            struct memory_entry e = map[i];
            if (e.type == MEMORY_RAM && e.bytes <= UINT64_MAX - e.address && e.address <= end &&
                e.address + e.bytes > end)
                end = e.address + e.bytes;
        }
        if (end == before)
            break;
    }
    return end & ~(uint64_t)(TABLE_PAGE - 1);
}

static void check_start(uint64_t address, struct start_info *ret)
{
    if (!mapped(address, sizeof(*ret)))
        give_up("no start information");
    __builtin_memcpy(ret, (const void *)address, sizeof(*ret));
    if (ret->magic != START_MAGIC)
        give_up("no PVH start information");
    if (ret->version < 1 || ret->memory_count == 0 || ret->memory_count > MEMORY_ENTRY_MAX ||
        !mapped(ret->memory_map, ret->memory_count * sizeof(struct memory_entry)))
        give_up("the monitor gives no memory map, or one that is none");
}

static void make_tables(const struct boot_info *info, uint64_t low_end)
{
    const struct boot_span spans[] = {
        {BOOT_IMAGE_ADDRESS, (uint64_t)image_text_end, 0},
        {(uint64_t)image_rodata_start, (uint64_t)image_rodata_end, PAGE_NX},
        {(uint64_t)image_data_start, (uint64_t)image_end, PAGE_NX | PAGE_WRITE},
    };
    struct boot_tables tables;
    uint8_t *zero;

    __asm__("xor %k0, %k0" : "=r"(zero)); /* address 0 is memory here, which the compiler need not know */
    tables_begin(&tables, zero, low_end);
    tables_segments(&tables, &image_header);
    tables_at(&tables, TABLE_GDT)[BOOT_SELECTOR_TSS / 8] &= ~(UINT64_C(2) << 40); /* not busy yet: LTR makes it so */
    tables_traps(&tables, &image_header, 1);
    tables_address_space(&tables, info, &image_header, spans, sizeof(spans) / sizeof(spans[0]));
    if (tables.full)
        give_up("not enough low memory for the page tables");
}

void pvh_main(uint32_t start_address)
{
    static struct boot_info info;
    static const struct pvh_pointers pointers = {TABLE_GDT_BYTES - 1, TABLE_GDT, 256 * 16 - 1, TABLE_IDT};
    struct start_info start;
    uint64_t low_end, boot_tsc = tsc();

    check_start(start_address, &start);
    copy_parameters(start.parameters);
    low_end = ram_from(&start, BOOT_INFO_ADDRESS);
    info.memory_bytes = ram_from(&start, BOOT_IMAGE_ADDRESS);
    if (info.memory_bytes > RAM_END)
        info.memory_bytes = RAM_END;
    info.free_start = (uint64_t)image_end;
    if (info.memory_bytes <= info.free_start || low_end <= TABLE_NEXT)
        give_up("too little memory");
    info.magic = BOOT_MAGIC;
    info.version = BOOT_VERSION;
    info.flags = BOOT_HAS_HALT;
    info.boot_tsc = boot_tsc;
    pvh_apic();
    pvh_clock(&info);
    pvh_seed(&info);
    pvh_devices(&info, parameters);
    make_tables(&info, low_end);
    __builtin_memcpy((void *)BOOT_INFO_ADDRESS, &info, sizeof(info));
    __builtin_memcpy((void *)BOOT_PARAMETERS_ADDRESS, parameters, sizeof(parameters));
    __builtin_memset((void *)BOOT_SHARED_ADDRESS, 0, TABLE_PAGE);
    pvh_leave(&pointers);
}
