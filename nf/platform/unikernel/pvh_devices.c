/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds the virtio-mmio devices of a PVH monitor and lets their interrupts through, at ring 0, once.
 *
 * Where devices are:
 * 1. "virtio_mmio.device=SIZE@ADDRESS:LINE" on the command line, as Linux defines it (Documentation/admin-guide/
 *    kernel-parameters.txt). Firecracker writes it, and QEMU microvm without ACPI (hw/i386/microvm.c).
 * 2. Else QEMU microvm's window: 24 register blocks of 512 bytes from 0xfeb00000 (include/hw/i386/microvm.h,
 *    docs/system/i386/microvm.rst). A block is a device when it has the magic and a device id that is not 0 (virtio
 *    1.2, 4.2.2); an empty one has id 0.
 * Which line a block of the window has depends on QEMU's options (from 5 on; with ACPI from 16 or, with a second
 * IO-APIC at 0xfec10000, from 24), so then all lines from 5 on are let through to one vector: an interrupt tells this
 * guest only that something happened. Lines are edges: an interrupt stays asserted until its driver acknowledges,
 * which the guest does before it sleeps (virtio_acknowledge), and a level would come back at once until then.
 */
#include "pvh.h"

#include "unikernel.h"

#include "../platform.h"

enum { WINDOW = 0xfeb00000, WINDOW_STEP = 512, WINDOW_COUNT = 24, LINE_FIRST = 5, LINE_NONE = 0xffff };
enum { IO_APIC = 0xfec00000, IO_APIC_SECOND = 0xfec10000, IO_APIC_MASKED = 1 << 16 };
enum { APIC_BASE_MSR = 0x1b, APIC_ID = 0x20 / 4, APIC_SVR = 0xf0 / 4, APIC_TPR = 0x80 / 4, APIC_LINT0 = 0x350 / 4 };
#define APIC_BASE_ON  (UINT64_C(1) << 11)
#define APIC_BASE_X2  (UINT64_C(1) << 10)
#define DEVICE_LOWEST UINT64_C(0xc0000000) /* below, memory may be */
#define DEVICE_END    UINT64_C(0x100000000)

static volatile uint32_t *registers(uint64_t address)
{
    return (volatile uint32_t *)address;
}

void pvh_apic(void)
{
    volatile uint32_t *apic = registers(0xfee00000);
    uint64_t base = pvh_msr(APIC_BASE_MSR) & ~UINT64_C(0xfffff000) & ~APIC_BASE_X2;

    if (pvh_msr(APIC_BASE_MSR) & APIC_BASE_X2) /* the way back leads over "off" (Intel SDM volume 3, 11.12.5) */
        pvh_set_msr(APIC_BASE_MSR, base & ~APIC_BASE_ON);
    pvh_set_msr(APIC_BASE_MSR, base | APIC_BASE_ON | 0xfee00000);
    pvh_out8(0x21, 0xff); /* no interrupt from the old controllers */
    pvh_out8(0xa1, 0xff);
    apic[APIC_LINT0] = 1u << 16;
    apic[APIC_TPR] = 0;
    apic[APIC_SVR] = 0x1ff;
}

/* Line `only` of this controller, which has those from `first` on; LINE_NONE: all from LINE_FIRST. Returns the next
 * controller's first line. */
static unsigned io_apic_route(uint64_t address, unsigned first, unsigned only, uint32_t vector)
{
    volatile uint32_t *io = registers(address);
    uint32_t self = registers(0xfee00000)[APIC_ID], version, pins;

    io[0] = 1;
    version = io[4];
    pins = (version >> 16 & 0xff) + 1;
    if ((version & 0xff) < 0x10 || (version & 0xff) > 0x2f || pins > 240) /* 82489DX and nobody are out */
        return first;
    for (uint32_t pin = 0; pin < pins; pin++) {
        bool wanted = only == LINE_NONE ? first + pin >= LINE_FIRST : first + pin == only;
        if (!wanted && only != LINE_NONE)
            continue;
        io[0] = 0x11 + 2 * pin;
        io[4] = self; /* the processor's number, in the highest byte of both */
        io[0] = 0x10 + 2 * pin;
        io[4] = wanted ? vector : IO_APIC_MASKED; /* fixed, active high, edge */
    }
    return first + pins;
}

static void route(unsigned only, uint32_t vector)
{
    unsigned first = io_apic_route(IO_APIC, 0, only, vector);

    if (first && (only == LINE_NONE || only >= first))
        io_apic_route(IO_APIC_SECOND, first, only, vector);
}

static bool is_device(uint64_t address)
{
    volatile uint32_t *r = registers(address);

    return r[0] == 0x74726976 && (r[1] == 1 || r[1] == 2) && r[2] != 0;
}

static bool add(struct boot_info *info, uint64_t address)
{
    uint32_t n = info->device_count;

    if (n == BOOT_DEVICE_MAX || !is_device(address))
        return false;
    info->devices[n] = (struct boot_device){address, registers(address)[2], BOOT_VECTOR_DEVICE + n};
    info->device_count++;
    return true;
}

/* A number in C's notation with a unit; *text is moved behind it. */
static uint64_t number(const char **text)
{
    uint64_t value = 0, base = 10;
    const char *c = *text;

    if (c[0] == '0' && (c[1] | 32) == 'x')
        base = 16, c += 2;
    for (;; c++) {
        unsigned letter = (unsigned)(*c | 32) - 'a', digit = (unsigned)*c - '0';
        if (digit > 9)
            digit = base == 16 && letter < 6 ? letter + 10 : 16;
        if (digit >= base || value >> 56)
            break;
        value = value * base + digit;
    }
    if ((*c | 32) == 'k')
        value <<= 10, c++;
    else if ((*c | 32) == 'm')
        value <<= 20, c++;
    *text = c;
    return value;
}

/* Returns whether word is a device of ours. One that is malformed or lies in memory is passed over, with a word. */
static bool take_device(struct boot_info *info, const char *word)
{
    static const char prefix[] = "virtio_mmio.device=";
    uint64_t address, line;

    if (memcmp(word, prefix, sizeof(prefix) - 1) != 0)
        return false;
    word += sizeof(prefix) - 1;
    number(&word);
    address = *word == '@' ? (word++, number(&word)) : 0;
    line = *word == ':' ? (word++, number(&word)) : LINE_NONE;
    if (address < DEVICE_LOWEST || address > DEVICE_END - WINDOW_STEP || address % 4 != 0 || line >= LINE_NONE) {
        pvh_say("a virtio_mmio.device= of the command line is none");
        return false;
    }
    if (!add(info, address))
        return false;
    route((unsigned)line, info->devices[info->device_count - 1].vector);
    return true;
}

/* Behind "--" too: QEMU appends its devices to whatever it was given. */
static bool from_parameters(struct boot_info *info, const char *text)
{
    bool found = false;

    while (*text) {
        found |= take_device(info, text);
        while (*text && *text != ' ')
            text++;
        while (*text == ' ')
            text++;
    }
    return found;
}

void pvh_devices(struct boot_info *info, const char *parameters)
{
    if (from_parameters(info, parameters))
        return;
    for (unsigned i = 0; i < WINDOW_COUNT; i++)
        add(info, WINDOW + i * WINDOW_STEP);
    if (info->device_count)
        route(LINE_NONE, BOOT_VECTOR_DEVICE);
    for (uint32_t i = 0; i < info->device_count; i++)
        info->devices[i].vector = BOOT_VECTOR_DEVICE;
}
