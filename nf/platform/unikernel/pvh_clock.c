/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time and entropy of the PVH entry, at ring 0. The rate of the time-stamp counter, from the best source there is:
 * what the processor says (CPUID 0x15; 0x40000010, as VMware defined it), KVM's clock (Linux,
 * Documentation/virt/kvm/x86/msr.rst), else measured against the PIT (QEMU TCG has nothing better). All waits are
 * bounded by a count of reads, so a machine without the device is slower to start but does not hang.
 */
#include "pvh.h"

#include "unikernel.h"

#include "../platform.h"

enum { CPUID_HYPERVISOR = 0x40000000, KVM_WALL_CLOCK = 0x4b564d00, KVM_SYSTEM_TIME = 0x4b564d01 };
enum { PIT_HZ = 1193182, PIT_TICKS = 5966 /* 5 ms */, PIT_READS_MAX = 300000, PIT_READS_MIN = 8 };
enum { APIC_TIMER = 0x320 / 4, APIC_INITIAL = 0x380 / 4, APIC_CURRENT = 0x390 / 4, APIC_DIVIDE = 0x3e0 / 4 };
enum { APIC_DIVIDE_BY_16 = 3, APIC_KHZ_USUAL = 1000000, APIC_WAIT_MS = 2 };

struct kvm_system_time {
    uint32_t version, reserved;
    uint64_t tsc, ns;
    uint32_t tsc_to_ns;
    int8_t shift;
    uint8_t flags, reserved2[2];
};

struct kvm_wall_clock {
    uint32_t version, seconds, nanoseconds;
};

static uint32_t hypervisor_leaves(char ret_name[13])
{
    struct pvh_cpuid r = {0};

    if (pvh_cpuid(1).c >> 31)
        r = pvh_cpuid(CPUID_HYPERVISOR);
    __builtin_memcpy(ret_name, &r.b, 4);
    __builtin_memcpy(ret_name + 4, &r.c, 4);
    __builtin_memcpy(ret_name + 8, &r.d, 4);
    ret_name[12] = '\0';
    return r.a;
}

static uint64_t khz_from_cpuid(uint32_t leaves)
{
    if (pvh_cpuid(0).a >= 0x15) {
        struct pvh_cpuid r = pvh_cpuid(0x15);
        if (r.a && r.b && r.c)
            return (uint64_t)r.c * r.b / r.a / 1000;
    }
    return leaves >= CPUID_HYPERVISOR + 0x10 && leaves < CPUID_HYPERVISOR + 0x10000
               ? pvh_cpuid(CPUID_HYPERVISOR + 0x10).a
               : 0;
}

/* Rate and wall clock from KVM's shared pages; they are switched off again, since nothing reads them later. */
static void from_kvm(struct boot_info *info)
{
    static volatile struct kvm_system_time time __attribute__((aligned(64)));
    static volatile struct kvm_wall_clock wall __attribute__((aligned(64)));

    pvh_set_msr(KVM_WALL_CLOCK, (uint64_t)&wall);
    pvh_set_msr(KVM_SYSTEM_TIME, (uint64_t)&time | 1);
    if (time.version != 0 && !(time.version & 1) && time.tsc_to_ns != 0) {
        uint64_t khz = (UINT64_C(1000000) << 32) / time.tsc_to_ns;
        if (info->tsc_khz == 0)
            info->tsc_khz = time.shift < 0 ? khz << -time.shift : khz >> time.shift;
        info->wall_clock_tsc = time.tsc;
        info->wall_clock_ns = (uint64_t)wall.seconds * 1000000000 + wall.nanoseconds + time.ns;
    }
    pvh_set_msr(KVM_SYSTEM_TIME, 0);
}

/* Ticks of the TSC while channel 2 of the PIT counts PIT_TICKS down (Intel 8254, mode 0); 0: no PIT. */
static uint64_t pit_interval(void)
{
    uint64_t begin;
    unsigned reads = 0;

    pvh_out8(0x61, (uint8_t)((pvh_in8(0x61) & ~2) | 1)); /* gate on, speaker off */
    pvh_out8(0x43, 0xb0);
    pvh_out8(0x42, PIT_TICKS & 0xff);
    pvh_out8(0x42, PIT_TICKS >> 8);
    begin = tsc();
    while (!(pvh_in8(0x61) & 0x20) && reads < PIT_READS_MAX)
        reads++;
    return reads >= PIT_READS_MIN && reads < PIT_READS_MAX ? tsc() - begin : 0;
}

/* The shortest of three: a host that was busy elsewhere makes an interval longer, never shorter. */
static uint64_t khz_from_pit(void)
{
    uint64_t best = 0;

    for (unsigned i = 0; i < 3; i++) {
        uint64_t ticks = pit_interval();
        if (ticks && (!best || ticks < best))
            best = ticks;
    }
    return best * PIT_HZ / PIT_TICKS / 1000;
}

/* One timer against the other, over APIC_WAIT_MS of the TSC if that is known, else of the usual APIC. */
static void compare_timers(struct boot_info *info)
{
    volatile uint32_t *apic = (volatile uint32_t *)UINT64_C(0xfee00000);
    uint64_t begin, ticks, ns;

    apic[APIC_DIVIDE] = APIC_DIVIDE_BY_16;
    apic[APIC_TIMER] = 1u << 16; /* masked */
    apic[APIC_INITIAL] = UINT32_MAX;
    begin = tsc();
    for (unsigned i = 0; i < PIT_READS_MAX; i++) {
        ns = (uint64_t)(UINT32_MAX - apic[APIC_CURRENT]) * 16;
        ticks = tsc() - begin;
        if (info->tsc_khz ? ticks >= info->tsc_khz * APIC_WAIT_MS : ns >= APIC_WAIT_MS * 1000000)
            break;
    }
    apic[APIC_INITIAL] = 0;
    if (!ns || !ticks)
        return;
    if (info->tsc_khz)
        info->apic_khz = (uint32_t)(ns * info->tsc_khz / ticks);
    else
        info->tsc_khz = ticks * APIC_KHZ_USUAL / ns;
}

static unsigned cmos(uint8_t index, bool binary)
{
    uint8_t value;

    pvh_out8(0x70, index);
    value = pvh_in8(0x71);
    return binary ? value : (unsigned)(value >> 4) * 10 + (value & 15);
}

/* Days from 1970-01-01 to a day of the Gregorian calendar, years from March on. */
static uint64_t days(unsigned year, unsigned month, unsigned day)
{
    year -= month < 3;
    month = month < 3 ? month + 9 : month - 3;
    return UINT64_C(365) * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719468;
}

/* The MC146818's seconds; it is read again when it ticked in between. */
static uint64_t rtc_seconds(void)
{
    unsigned second, minute, hour, day, month, year, again = 0;
    bool binary;

    pvh_out8(0x70, 0x0b);
    uint8_t mode = pvh_in8(0x71);
    if (mode == 0xff || !(mode & 2)) /* nobody there, or twelve hours, which nobody sets */
        return 0;
    binary = (mode & 4) != 0;
    do {
        second = cmos(0, binary), minute = cmos(2, binary), hour = cmos(4, binary);
        day = cmos(7, binary), month = cmos(8, binary), year = cmos(9, binary);
    } while (second != cmos(0, binary) && again++ < 4);
    if (second > 60 || minute > 59 || hour > 23 || day < 1 || day > 31 || month < 1 || month > 12 || year > 99)
        return 0;
    return ((days(2000 + year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
}

void pvh_clock(struct boot_info *info)
{
    char name[13];
    uint32_t leaves = hypervisor_leaves(name);
    bool kvm = strcmp(name, "KVMKVMKVM") == 0; /* NUL-padded */

    info->tsc_khz = khz_from_cpuid(leaves);
    if (kvm && pvh_cpuid(CPUID_HYPERVISOR + 1).a & 8)
        from_kvm(info);
    if (info->tsc_khz == 0)
        info->tsc_khz = khz_from_pit();
    if (kvm || strcmp(name, "TCGTCGTCGTCG") == 0)
        info->apic_khz = APIC_KHZ_USUAL;
    if (info->tsc_khz == 0 || info->apic_khz == 0)
        compare_timers(info);
    if (info->tsc_khz == 0)
        pvh_say("the rate of the time-stamp counter is unknown: 1 GHz is assumed");
    if (info->wall_clock_ns == 0) {
        info->wall_clock_ns = rtc_seconds() * 1000000000;
        info->wall_clock_tsc = tsc();
    }
    if (info->wall_clock_ns == 0)
        pvh_say("the time of day is unknown");
}

/* RDSEED, else RDRAND, ten tries each as Intel advises; false: the processor has neither, or it gives none. */
static bool hardware_random(uint64_t *ret)
{
    bool seed = pvh_cpuid(0).a >= 7 && (pvh_cpuid(7).b >> 18 & 1), rand = pvh_cpuid(1).c >> 30 & 1, ok = false;

    for (unsigned i = 0; i < 10 && seed && !ok; i++)
        __asm__ volatile("rdseed %0; setc %1" : "=r"(*ret), "=qm"(ok)::"cc");
    for (unsigned i = 0; i < 10 && rand && !ok; i++)
        __asm__ volatile("rdrand %0; setc %1" : "=r"(*ret), "=qm"(ok)::"cc");
    return ok;
}

void pvh_seed(struct boot_info *info)
{
    const uint64_t key[2] = {tsc(), info->wall_clock_ns};
    uint64_t words[4];
    bool weak = false;

    for (unsigned i = 0; i < 4; i++) {
        if (hardware_random(&words[i]))
            continue;
        weak = true;
        words[i] = tsc() + i;
        words[i] = siphash(key, &words[i], 1);
    }
    __builtin_memcpy(info->seed, words, sizeof(info->seed));
    if (weak)
        info->flags |= BOOT_WEAK_SEED;
}
