/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the PVH entry give each other. All of it runs once, at ring 0, before the unikernel's first
 * instruction at CPL 3; nothing here is called afterwards. */
#ifndef UNIKERNEL_PVH_H
#define UNIKERNEL_PVH_H

#include <stdbool.h>
#include <stdint.h>

#include "abi/boot.h"

struct pvh_cpuid {
    uint32_t a, b, c, d;
};

static inline struct pvh_cpuid pvh_cpuid(uint32_t leaf)
{
    struct pvh_cpuid r;

    __asm__ volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(0));
    return r;
}

static inline void pvh_out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port) : "memory");
}

static inline uint8_t pvh_in8(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline uint64_t pvh_msr(uint32_t msr)
{
    uint32_t low, high;

    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return (uint64_t)high << 32 | low;
}

static inline void pvh_set_msr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr" ::"a"((uint32_t)value), "d"((uint32_t)(value >> 32)), "c"(msr) : "memory");
}

/* pvh.c */
void pvh_say(const char *line);

/* pvh_clock.c: tsc_khz, apic_khz, wall clock and seed of *info; flags for what is missing. */
void pvh_clock(struct boot_info *info);
void pvh_seed(struct boot_info *info);

/* pvh_devices.c: local APIC on, lines routed, *info's devices. parameters: the monitor's command line. */
void pvh_apic(void);
void pvh_devices(struct boot_info *info, const char *parameters);

#endif
