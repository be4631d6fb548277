/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest for tests of coracle-qemu: boots in milliseconds, does what the byte says that it gets on its console, sleeps
 * in between. An ELF with a PVH note, and once more with a multiboot header: microvm and q35 run it.
 *
 *   c command line   k count, which lives in memory   m touch 8 MiB, M read them   f flood (for ever)   s spin   t stop
 * for ever r reset          x exit with status 3 through PORT_EXIT            p power off (q35)    n NICs' MAC
 * addresses d first and second disk: read sector 0, print 8 bytes of it    w write "written!" to sector 0 of the first
 * disk e say "exit 7" to the agent's port and reset                   R say "ready" there Says hello to the agent's
 * port, unless the command line begins with "mute". What the agent's port says is printed after "agent: ".
 */
#include <stdint.h>

enum { COM1 = 0x3f8, COM2 = 0x2f8, PIC1 = 0x20, PIC2 = 0xa0, EXIT_PORT = 0x604, VECTORS = 48 };

extern void interrupt_entry(void);
extern void reset(void);
void guest_main(const char *line);

static volatile uint32_t count;
static struct gate {
    uint16_t low, selector, type, high;
} idt[VECTORS];

static void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}

static uint8_t in8(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void put(uint16_t port, const char *text)
{
    for (; *text; text++) {
        while (!(in8(port + 5) & 0x20))
            ;
        out8(port, (uint8_t)*text);
    }
}

static void put_hex(uint32_t value, int digits)
{
    char text[9] = {0};

    for (int i = digits - 1; i >= 0; i--, value >>= 4)
        text[i] = "0123456789abcdef"[value & 15];
    put(COM1, text);
}

/* ---- virtio-mmio, as much as a test needs: QEMU's microvm has 24 slots ---- */

enum { SLOTS = 24, SLOT_BYTES = 512, RING = 8 };
#define SLOT_BASE 0xfeb00000u

static struct {
    struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } table[RING];
    uint16_t available_flags, available_index, available[RING], pad[3];
    uint16_t used_flags, used_index;
    struct {
        uint32_t id, length;
    } used[RING];
} ring __attribute__((aligned(4096)));
static struct {
    uint32_t type, reserved;
    uint64_t sector;
} request;
static uint8_t sector[512], request_status;

static volatile uint32_t *slot(unsigned i)
{
    return (volatile uint32_t *)(uintptr_t)(SLOT_BASE + i * SLOT_BYTES);
}

/* The n-th device of a kind, in the order of the slots. */
static volatile uint32_t *find(uint32_t kind, unsigned n)
{
    for (unsigned i = 0; i < SLOTS; i++)
        if (slot(i)[0] == 0x74726976 && slot(i)[2] == kind && n-- == 0)
            return slot(i);
    return 0;
}

static void start_device(volatile uint32_t *d)
{
    d[0x70 / 4] = 0;
    d[0x70 / 4] = 3;
    d[0x24 / 4] = 1; /* features: VERSION_1 */
    d[0x20 / 4] = 1;
    d[0x24 / 4] = 0;
    d[0x20 / 4] = 0;
    d[0x70 / 4] = 11;
    d[0x30 / 4] = 0;
    d[0x38 / 4] = RING;
    d[0x80 / 4] = (uint32_t)(uintptr_t)ring.table;
    d[0x90 / 4] = (uint32_t)(uintptr_t)&ring.available_flags;
    d[0xa0 / 4] = (uint32_t)(uintptr_t)&ring.used_flags;
    d[0x84 / 4] = d[0x94 / 4] = d[0xa4 / 4] = 0;
    ring.available_index = ring.used_index = 0;
    d[0x44 / 4] = 1;
    d[0x70 / 4] = 15;
}

static int transfer(volatile uint32_t *d, int write)
{
    start_device(d);
    request.type = (uint32_t)write;
    request.sector = 0;
    request_status = 255;
    ring.table[0].address = (uintptr_t)&request, ring.table[0].length = 16, ring.table[0].flags = 1;
    ring.table[0].next = 1;
    ring.table[1].address = (uintptr_t)sector, ring.table[1].length = 512;
    ring.table[1].flags = (uint16_t)(write ? 1 : 3), ring.table[1].next = 2;
    ring.table[2].address = (uintptr_t)&request_status, ring.table[2].length = 1, ring.table[2].flags = 2;
    ring.available[0] = 0;
    __asm__ volatile("" ::: "memory");
    ring.available_index = 1;
    __asm__ volatile("" ::: "memory");
    d[0x50 / 4] = 0;
    while (*(volatile uint16_t *)&ring.used_index != 1)
        ;
    d[0x70 / 4] = 0;
    return *(volatile uint8_t *)&request_status;
}

static void show_disks(void)
{
    char text[9] = {0};

    for (unsigned i = 0; i < 2; i++) {
        volatile uint32_t *d = find(2, i);
        if (!d)
            continue;
        int status = transfer(d, 0);
        for (unsigned j = 0; j < 8; j++)
            text[j] = (char)sector[j];
        put(COM1, "disk ");
        put_hex(i, 1);
        put(COM1, status ? " error" : " ");
        put(COM1, text);
        put(COM1, "\n");
    }
}

static void write_disk(void)
{
    volatile uint32_t *d = find(2, 0);

    for (unsigned j = 0; j < 8; j++)
        sector[j] = (uint8_t) "written!"[j];
    put(COM1, d && transfer(d, 1) == 0 ? "disk written\n" : "disk not written\n");
}

static void show_nics(void)
{
    for (unsigned i = 0; i < 8; i++) {
        volatile uint8_t *d = (volatile uint8_t *)find(1, i);
        if (!d)
            return;
        put(COM1, "nic ");
        for (unsigned j = 0; j < 6; j++)
            put_hex(d[0x100 + j], 2);
        put(COM1, "\n");
    }
}

/* ---- interrupts only end a hlt ---- */

static void set_up(void)
{
    struct {
        uint16_t bytes;
        uint32_t address;
    } __attribute__((packed)) pointer = {sizeof(idt) - 1, (uint32_t)(uintptr_t)idt};
    const uint32_t entry = (uint32_t)(uintptr_t)interrupt_entry;

    for (unsigned i = 32; i < VECTORS; i++)
        idt[i] = (struct gate){(uint16_t)entry, 8, 0x8e00, (uint16_t)(entry >> 16)};
    __asm__ volatile("lidt %0" ::"m"(pointer));
    *(volatile uint32_t *)0xfee000f0u = 0x1ff; /* local APIC on, and the PICs behind its LINT0: no firmware did that */
    *(volatile uint32_t *)0xfee00350u = 0x700;
    out8(PIC1, 0x11), out8(PIC2, 0x11);
    out8(PIC1 + 1, 32), out8(PIC2 + 1, 40);
    out8(PIC1 + 1, 4), out8(PIC2 + 1, 2);
    out8(PIC1 + 1, 1), out8(PIC2 + 1, 1);
    out8(PIC1 + 1, 0xe7), out8(PIC2 + 1, 0xff); /* IRQ 3 and 4: the serial ports */
    for (unsigned i = 0; i < 2; i++) {
        uint16_t port = i ? COM2 : COM1;
        out8(port + 1, 1);   /* received data */
        out8(port + 4, 0xb); /* DTR, RTS, interrupts on */
    }
}

static void touch(void)
{
    volatile uint8_t *at = (volatile uint8_t *)0x800000;

    for (unsigned i = 0; i < 8u << 20; i += 4096)
        at[i] = 1;
    put(COM1, "touched\n");
}

static void look(void)
{
    volatile uint8_t *at = (volatile uint8_t *)0x800000;
    uint32_t sum = 0;

    for (unsigned i = 0; i < 8u << 20; i += 4096)
        sum += at[i];
    put(COM1, "sum ");
    put_hex(sum, 8);
    put(COM1, "\n");
}

static void obey(uint8_t what, const char *line)
{
    switch (what) {
    case 'c':
        put(COM1, "line: ");
        put(COM1, line);
        put(COM1, "\n");
        break;
    case 'k':
        put(COM1, "count ");
        put_hex(++count, 4);
        put(COM1, "\n");
        break;
    case 'm':
        touch();
        break;
    case 'M':
        look();
        break;
    case 'f':
        for (;;)
            put(COM1, "0123456789012345678901234567890123456789012345678901234567890123\n");
    case 's':
        for (;;)
            ;
    case 't':
        __asm__ volatile("cli; hlt");
        break;
    case 'r':
        reset();
        break;
    case 'x':
        __asm__ volatile("outl %0, %1" ::"a"(3), "Nd"((uint16_t)EXIT_PORT));
        break;
    case 'p': /* QEMU's q35 without ACPI tables read: PM1a control, S5 */
        __asm__ volatile("outw %0, %1" ::"a"((uint16_t)0x2000), "Nd"((uint16_t)0x604));
        break;
    case 'n':
        show_nics();
        break;
    case 'd':
        show_disks();
        break;
    case 'w':
        write_disk();
        break;
    case 'e':
        put(COM2, "exit 7\n");
        reset();
        break;
    case 'R':
        put(COM2, "ready\n");
        break;
    }
}

void guest_main(const char *line)
{
    int fresh = 1;

    set_up();
    if (line[0] != 'm' || line[1] != 'u' || line[2] != 't' || line[3] != 'e')
        put(COM2, "hello 1\n");
    put(COM1, "guest up\n");
    for (;;) {
        while (in8(COM1 + 5) & 1)
            obey(in8(COM1), line);
        while (in8(COM2 + 5) & 1) {
            char text[2] = {(char)in8(COM2), 0};
            if (fresh)
                put(COM1, "agent: ");
            put(COM1, text);
            fresh = text[0] == '\n';
        }
        __asm__ volatile("sti; hlt; cli");
    }
}
