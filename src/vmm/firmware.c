/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Firmware tables for kernels in ring 0, written once before the guest runs. Two descriptions of the same machine:
 * distributions' kernels want ACPI (Debian's has no MP table parser and takes no virtio devices from its command line),
 * the smallest kernels have no ACPI (ACPI 6.4; Intel MultiProcessor Specification 1.4; virtio-mmio's ACPI id LNRO0005
 * is Linux's, drivers/virtio/virtio_mmio.c).
 */
#include <errno.h>
#include <string.h>

#include "vmm/devices/device.h"
#include "vmm/firmware.h"
#include "vmm/vm.h"

#define LOCAL_APIC UINT32_C(0xfee00000)
#define IO_APIC    UINT32_C(0xfec00000)
enum { MP_TABLE = 0xf0000, IO_APIC_PINS = 24, SCI_LINE = 9, HEADER_BYTES = 36, FADT_BYTES = 268 };

struct writer {
    uint8_t *base; /* of the guest address `address` */
    uint64_t address;
    uint32_t at, size;
    bool full;
};

static void put(struct writer *w, const void *bytes, uint32_t count)
{
    if (count > w->size - w->at) {
        w->full = true;
        return;
    }
    memcpy(w->base + w->at, bytes, count);
    w->at += count;
}

static void put8(struct writer *w, uint8_t value)
{
    put(w, &value, 1);
}

static void put16(struct writer *w, uint16_t value)
{
    put(w, &value, 2);
}

static void put32(struct writer *w, uint32_t value)
{
    put(w, &value, 4);
}

static void put64(struct writer *w, uint64_t value)
{
    put(w, &value, 8);
}

static void put_zeroes(struct writer *w, uint32_t count)
{
    while (count--)
        put8(w, 0);
}

static void align(struct writer *w, uint32_t to)
{
    while (w->at % to)
        put8(w, 0);
}

/* All bytes of a table sum to 0. */
static void set_checksum(struct writer *w, uint32_t start, uint32_t end, uint32_t at)
{
    uint8_t sum = 0;

    if (w->full)
        return;
    for (uint32_t i = start; i < end; i++)
        sum = (uint8_t)(sum + w->base[i]);
    w->base[at] = (uint8_t)(w->base[at] - sum);
}

/* ---- ACPI ---- */

static uint32_t begin_table(struct writer *w, const char *signature, uint8_t revision)
{
    align(w, 64); /* FACS needs it, the others like it */
    uint32_t start = w->at;
    put(w, signature, 4);
    put32(w, 0);
    put8(w, revision);
    put8(w, 0);
    put(w, "CRACLE", 6);
    put(w, "COREVMM ", 8);
    put32(w, 1);
    put(w, "CRCL", 4);
    put32(w, 1);
    return start;
}

static uint64_t end_table(struct writer *w, uint32_t start)
{
    uint32_t bytes = w->at - start;

    if (!w->full)
        memcpy(w->base + start + 4, &bytes, 4);
    set_checksum(w, start, w->at, start + 9);
    return w->address + start;
}

static uint64_t write_facs(struct writer *w)
{
    align(w, 64);
    uint32_t start = w->at;
    put(w, "FACS", 4);
    put32(w, 64);
    put_zeroes(w, 24);
    put8(w, 2);
    put_zeroes(w, 31);
    return w->address + start;
}

static void put_port(struct writer *w, uint8_t bits, uint64_t port)
{
    put8(w, 1); /* I/O space */
    put8(w, bits);
    put8(w, 0);
    put8(w, bits / 8); /* 1: bytes, 2: words */
    put64(w, port);
}

/* Fields the machine does not have are 0. Written front to back as ACPI 6.4, table 5.9, revision 5. */
static uint64_t write_fadt(struct writer *w, uint64_t facs, uint64_t dsdt)
{
    uint32_t start = begin_table(w, "FACP", 5);

    put32(w, (uint32_t)facs);
    put32(w, (uint32_t)dsdt);
    put16(w, 0);
    put16(w, SCI_LINE);
    put_zeroes(w, 8); /* no SMI: ACPI is always on */
    put32(w, PC_PORT_POWER_EVENT);
    put32(w, 0);
    put32(w, PC_PORT_POWER_CONTROL);
    put_zeroes(w, 20);
    put8(w, 4); /* bytes of the event ports */
    put8(w, 2); /* of the control port */
    put_zeroes(w, 6);
    put16(w, 0xfff); /* no C2 */
    put16(w, 0xfff); /* no C3 */
    put_zeroes(w, 9);
    put16(w, 1 | 4 | 32); /* there are legacy devices; no VGA, no CMOS clock; no 8042 */
    put8(w, 0);
    put32(w, 1 | 4 | 16 | 32 | 64 | 1024); /* WBINVD, C1, no buttons, no alarm by fixed hardware, reset port */
    put_port(w, 8, PC_PORT_RESET);
    put8(w, PC_RESET_VALUE);
    put_zeroes(w, 3);
    put64(w, 0); /* the 32-bit one is used */
    put64(w, dsdt);
    put_port(w, 32, PC_PORT_POWER_EVENT);
    put_zeroes(w, 12);
    put_port(w, 16, PC_PORT_POWER_CONTROL);
    put_zeroes(w, FADT_BYTES - (w->at - start));
    return end_table(w, start);
}

static uint64_t write_madt(struct writer *w, unsigned vcpus)
{
    uint32_t start = begin_table(w, "APIC", 3);

    put32(w, LOCAL_APIC);
    put32(w, 1); /* there are the old controllers too */
    for (unsigned i = 0; i < vcpus; i++) {
        const uint8_t processor[] = {0, 8, (uint8_t)i, (uint8_t)i, 1, 0, 0, 0};
        put(w, processor, sizeof(processor));
    }
    const uint8_t controller[] = {1, 12, (uint8_t)vcpus, 0};
    put(w, controller, sizeof(controller));
    put32(w, IO_APIC);
    put32(w, 0);
    const uint8_t level[] = {2, 10, 0, SCI_LINE, SCI_LINE, 0, 0, 0, 0xd, 0}; /* active high, level */
    put(w, level, sizeof(level));
    const uint8_t nmi[] = {4, 6, 0xff, 0, 0, 1};
    put(w, nmi, sizeof(nmi));
    return end_table(w, start);
}

/* AML's length in two bytes, itself included (ACPI 6.4, 20.2.4); filled by end_package(). */
static uint32_t begin_package(struct writer *w)
{
    uint32_t at = w->at;

    put16(w, 0);
    return at;
}

static void end_package(struct writer *w, uint32_t at)
{
    uint32_t length = w->at - at;

    if (w->full)
        return;
    w->base[at] = (uint8_t)(0x40 | (length & 15));
    w->base[at + 1] = (uint8_t)(length >> 4);
}

/* Device (Vnnn) { Name (_HID, "LNRO0005") Name (_UID, n) Name (_CRS, registers and line) } */
static void put_device(struct writer *w, unsigned index)
{
    const uint8_t name[] = {'V', '0', (uint8_t)('0' + index / 10), (uint8_t)('0' + index % 10)};

    put(w, "\x5b\x82", 2);
    uint32_t package = begin_package(w);
    put(w, name, sizeof(name));
    put(w, "\x08_HID\x0dLNRO0005", 15); /* with its NUL */
    put(w, "\x08_UID\x0a", 6);
    put8(w, (uint8_t)index);
    put(w, "\x08_CRS\x11", 6);
    uint32_t buffer = begin_package(w);
    put(w, "\x0a\x17", 2); /* 23 bytes */
    put(w, "\x86\x09\x00\x01", 4);
    put32(w, (uint32_t)(VM_DEVICE_ADDRESS + (uint64_t)index * DEVICE_PAGE));
    put32(w, DEVICE_PAGE);
    put(w, "\x89\x06\x00\x03\x01", 5); /* consumer, edge, active high */
    put32(w, VM_LINE_FIRST + index);
    put(w, "\x79\x00", 2);
    end_package(w, buffer);
    end_package(w, package);
}

static uint64_t write_dsdt(struct writer *w, unsigned devices)
{
    uint32_t start = begin_table(w, "DSDT", 2);
    const uint8_t off[] = {0x08, '_', 'S', '5', '_', 0x12, 7, 4, 0x0a, PC_POWER_OFF, 0, 0, 0};

    put(w, off, sizeof(off));
    put8(w, 0x10);
    uint32_t scope = begin_package(w);
    put(w, "\\_SB_", 5);
    for (unsigned i = 0; i < devices; i++)
        put_device(w, i);
    end_package(w, scope);
    return end_table(w, start);
}

static uint64_t write_root(struct writer *w, uint64_t fadt, uint64_t madt)
{
    uint32_t start = begin_table(w, "XSDT", 1);
    put64(w, fadt);
    put64(w, madt);
    uint64_t xsdt = end_table(w, start);

    align(w, 64);
    start = w->at;
    put(w, "RSD PTR \0CRACLE\2", 16);
    put32(w, 0);
    put32(w, HEADER_BYTES);
    put64(w, xsdt);
    put32(w, 0);
    set_checksum(w, start, start + 20, start + 8);
    set_checksum(w, start, start + HEADER_BYTES, start + 32);
    return w->address + start;
}

/* ---- MP table ---- */

static void put_mp_interrupt(struct writer *w, uint8_t type, uint8_t kind, uint8_t line, uint8_t to, uint8_t pin)
{
    const uint8_t entry[] = {type, kind, 0, 0, 0, line, to, pin};

    put(w, entry, sizeof(entry));
}

/* Each line of the old bus is the pin of the same number, as KVM routes them. */
static unsigned put_mp_entries(struct writer *w, unsigned vcpus)
{
    for (unsigned i = 0; i < vcpus; i++) {
        const uint8_t processor[] = {0, (uint8_t)i, 0x14, i == 0 ? 3 : 1, 0, 6, 0, 0, 1, 2, 0, 0};
        put(w, processor, sizeof(processor));
        put64(w, 0);
    }
    put(w, "\1\0ISA   ", 8);
    const uint8_t controller[] = {2, (uint8_t)vcpus, 0x11, 1};
    put(w, controller, sizeof(controller));
    put32(w, IO_APIC);
    for (uint8_t i = 0; i < IO_APIC_PINS; i++)
        put_mp_interrupt(w, 3, 0, i, (uint8_t)vcpus, i);
    put_mp_interrupt(w, 4, 3, 0, 0, 0);    /* the old controllers at LINT0 */
    put_mp_interrupt(w, 4, 1, 0, 0xff, 1); /* NMI at LINT1 of all */
    return vcpus + 2 + IO_APIC_PINS + 2;
}

static void write_mp_table(struct writer *w, unsigned vcpus)
{
    put(w, "_MP_", 4);
    put32(w, MP_TABLE + 16);
    put(w, "\1\4\0\0\0\0\0\0", 8);
    set_checksum(w, 0, 16, 10);
    uint32_t start = w->at;
    put(w, "PCMP\0\0\4\0CORACLE COREVMM     ", 28);
    put_zeroes(w, 6);
    uint32_t count_at = w->at;
    put16(w, 0);
    put32(w, LOCAL_APIC);
    put32(w, 0);
    uint16_t count = (uint16_t)put_mp_entries(w, vcpus), bytes = (uint16_t)(w->at - start);
    if (w->full)
        return;
    memcpy(w->base + count_at, &count, 2);
    memcpy(w->base + start + 4, &bytes, 2);
    set_checksum(w, start, w->at, start + 7);
}

int firmware_write(const struct guest_memory *ram, unsigned vcpus, unsigned devices, uint64_t *ret_rsdp,
                   struct error **err)
{
    uint8_t *base = guest_memory_at(ram, FIRMWARE_ADDRESS, FIRMWARE_END - FIRMWARE_ADDRESS);
    struct writer acpi = {.base = base, .address = FIRMWARE_ADDRESS, .size = MP_TABLE - FIRMWARE_ADDRESS};
    struct writer mp = {.address = MP_TABLE, .size = FIRMWARE_END - MP_TABLE};

    if (!base)
        return error_set(err, EINVAL, "INVALID_VALUE", "memory: too little for the firmware's tables");
    mp.base = base + (MP_TABLE - FIRMWARE_ADDRESS);
    uint64_t dsdt = write_dsdt(&acpi, devices), facs = write_facs(&acpi), madt = write_madt(&acpi, vcpus);
    uint64_t fadt = write_fadt(&acpi, facs, dsdt), rsdp = write_root(&acpi, fadt, madt);
    write_mp_table(&mp, vcpus);
    if (acpi.full || mp.full)
        return error_set(err, ENOSPC, "INTERNAL", "the firmware's tables do not fit");
    *ret_rsdp = rsdp;
    return 0;
}
