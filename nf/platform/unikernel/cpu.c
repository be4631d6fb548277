/* SPDX-License-Identifier: Apache-2.0 */
/* Clock, idle, panic and entropy of the unikernel, the same under every monitor but for how it sleeps. */
#include "unikernel.h"

#include "../platform.h"

struct boot_info boot;
static struct boot_panic panic_record;
static uint64_t ns_per_tsc_shifted; /* nanoseconds per 2^32 ticks */
static uint64_t tsc_per_ns_shifted; /* ticks per 2^32 nanoseconds */
static uint64_t tsc_start;
static uint64_t last_ns;    /* the clock as it was last read */
static uint64_t generation; /* of the boot information that was taken */
static uint64_t random_state[4];
uint64_t isn_key[2];

static uint64_t rotate(uint64_t x, int k)
{
    return x << k | x >> (64 - k);
}

/* xoshiro256** (Blackman and Vigna 2018), seeded by the host for each boot and restore: for sequence numbers and ports.
 */
uint32_t unikernel_random(void)
{
    uint64_t *s = random_state, result = rotate(s[1] * 5, 7) * 9, t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return (uint32_t)(result >> 32);
}

static void siphash_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[0] = rotate(v[0], 32);
    v[2] += v[3];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[2] = rotate(v[2], 32);
}

/* SipHash-2-4 (Aumasson and Bernstein 2012) of whole words. */
uint64_t siphash(const uint64_t key[2], const uint64_t *words, unsigned count)
{
    uint64_t v[4] = {key[0] ^ UINT64_C(0x736f6d6570736575), key[1] ^ UINT64_C(0x646f72616e646f6d),
                     key[0] ^ UINT64_C(0x6c7967656e657261), key[1] ^ UINT64_C(0x7465646279746573)};

    for (unsigned i = 0; i <= count; i++) {
        uint64_t word = i < count ? words[i] : (uint64_t)(count * 8) << 56;
        v[3] ^= word;
        siphash_round(v);
        siphash_round(v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for (unsigned i = 0; i < 4; i++)
        siphash_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* One half of the host's seed makes the generator's state, which its output gives away; the other half is the key of
 * the sequence numbers (RFC 6528), which nothing does. */
static void seed_random(void)
{
    uint64_t half[2];

    __builtin_memcpy(isn_key, boot.seed, sizeof(isn_key));
    __builtin_memcpy(half, boot.seed + sizeof(isn_key), sizeof(half));
    for (uint64_t i = 0; i < 4; i++)
        random_state[i] = siphash(half, &i, 1);
}

static void take_boot(const struct boot_info *info)
{
    boot = *info;
    if (boot.tsc_khz == 0)
        boot.tsc_khz = 1000000;
    ns_per_tsc_shifted = (UINT64_C(1000000) << 32) / boot.tsc_khz;
    tsc_per_ns_shifted = (boot.tsc_khz << 32) / 1000000;
    seed_random();
}

void cpu_init(const struct boot_info *info)
{
    take_boot(info);
    tsc_start = tsc();
    generation = boot_shared()->generation;
}

void cpu_stir(const uint8_t bytes[32])
{
    for (unsigned i = 0; i < sizeof(boot.seed); i++)
        boot.seed[i] ^= bytes[i];
    seed_random();
}

static uint64_t ticks_to_ns(uint64_t ticks)
{
    return (uint64_t)((unsigned __int128)ticks * ns_per_tsc_shifted >> 32);
}

uint64_t cpu_ns(void)
{
    return last_ns = ticks_to_ns(tsc() - tsc_start);
}

/* The clock goes on where it stood: what was to happen in a second will. The counter is another host's, or has counted
 * for a year meanwhile. */
bool cpu_restored(void)
{
    uint64_t now = __atomic_load_n(&boot_shared()->generation, __ATOMIC_ACQUIRE);

    if (now == generation)
        return false;
    generation = now;
    take_boot((const struct boot_info *)BOOT_INFO_ADDRESS);
    tsc_start = tsc() - (uint64_t)((unsigned __int128)last_ns * tsc_per_ns_shifted >> 32);
    return true;
}

uint64_t nf_now(void)
{
    return cpu_ns() + 1; /* never 0, which means "no time" in places */
}

uint64_t nf_wall_clock(void)
{
    return boot.wall_clock_ns + ticks_to_ns(tsc() - boot.wall_clock_tsc);
}

static void idle_direct(uint64_t interrupts, uint64_t until_ns)
{
    struct boot_shared *shared = boot_shared();

    shared->sleep_until_tsc =
        until_ns ? tsc_start + (uint64_t)((unsigned __int128)until_ns * tsc_per_ns_shifted >> 32) : 0;
    shared->idle_count++;
    port_out(PORT_IDLE, (uint32_t)interrupts);
}

/* Of the page, not of the copy: a fault may come before there is one. */
static bool has_halt(void)
{
    return (((const struct boot_info *)BOOT_INFO_ADDRESS)->flags & BOOT_HAS_HALT) != 0;
}

/* Vector 3 under a PVH monitor; the argument says what (abi/boot.h). */
static uint64_t halt(uint64_t what)
{
    __asm__ volatile("int3" : "+a"(what)::"memory");
    return what;
}

/* Local APIC one-shot timer (Intel SDM volume 3, 11.5.4), then the ring-0 halt. */
static void idle_halt(uint64_t interrupts, uint64_t until_ns)
{
    volatile uint32_t *apic = (volatile uint32_t *)0xfee00000;
    uint64_t now = cpu_ns(), wait = until_ns > now ? until_ns - now : 1000, longest = 1000000000;

    if (!until_ns || wait > longest)
        wait = longest;
    apic[0x320 / 4] = BOOT_VECTOR_TIMER;
    apic[0x3e0 / 4] = 3; /* divide by 16 */
    apic[0x380 / 4] = (uint32_t)(wait * (boot.apic_khz / 16) / 1000000) + 1;
    boot_shared()->idle_count++;
    halt(interrupts);
}

void cpu_idle(uint64_t interrupts, uint64_t until_ns)
{
    if (boot.flags & BOOT_DIRECT)
        idle_direct(interrupts, until_ns);
    else
        idle_halt(interrupts, until_ns);
}

static struct {
    char text[1024];
    size_t used;
    uint64_t since;
} gathered;

static void write_out(const char *text, size_t size)
{
    const struct boot_text whole = {(uint64_t)text, size};

    if (size && !console_send(text, size))
        port_out(PORT_TEXT, (uint32_t)(uint64_t)&whole);
}

void console_flush(void)
{
    size_t size = gathered.used;

    gathered.used = 0; /* first: a fault on the way would come back here */
    write_out(gathered.text, size);
}

bool console_is_due(void)
{
    return gathered.used && cpu_ns() - gathered.since > 1000000;
}

void console_write(const char *text, size_t size)
{
    if (!(boot.flags & BOOT_DIRECT) && !console_send("", 0)) {
        for (size_t i = 0; i < size; i++)
            __asm__ volatile("outb %0, %1" ::"a"(text[i]), "Nd"(PORT_CONSOLE) : "memory");
        return;
    }
    if (size > sizeof(gathered.text) - gathered.used)
        console_flush();
    while (size > sizeof(gathered.text)) { /* too long to be gathered */
        size_t part = size < BOOT_TEXT_MAX ? size : BOOT_TEXT_MAX;
        write_out(text, part);
        text += part;
        size -= part;
    }
    if (gathered.used == 0)
        gathered.since = cpu_ns();
    __builtin_memcpy(gathered.text + gathered.used, text, size);
    gathered.used += size;
}

static void __attribute__((noreturn)) stop(uint16_t port, uint32_t value)
{
    console_flush();
    console_settle();
    for (;;) {
        port_out(port, value);
        if (has_halt()) /* QEMU without a device at that port */
            halt(BOOT_HALT_RESET);
    }
}

void nf_exit(int status)
{
    if (has_halt()) /* who reads the console learns what the port may not tell */
        nf_print(NF_LOG, "unikernel: exit status %d\n", status);
    stop(PORT_EXIT, (uint32_t)status);
}

/* The lines that coracle-vmm writes about a record, for monitors that know none; tools/trace-unikernel reads both. */
static void tell_panic(void)
{
    const struct boot_panic *p = &panic_record;

    nf_print(NF_LOG, "panic: rflags %llx cr2 %llx\npanic: registers:", (unsigned long long)p->rflags,
             (unsigned long long)p->cr2);
    for (unsigned i = 0; i < sizeof(p->registers) / sizeof(p->registers[0]); i++)
        nf_print(NF_LOG, " %llx", (unsigned long long)p->registers[i]);
    nf_print(NF_LOG, "\npanic: stack:");
    for (unsigned i = 0; i < BOOT_PANIC_WORDS; i++)
        nf_print(NF_LOG, " %llx", (unsigned long long)p->stack[i]);
    nf_print(NF_LOG, "\n");
}

static void __attribute__((noreturn)) panic(const char *message)
{
    size_t n = 0;
    uint64_t word = panic_record.rsp & ~UINT64_C(7);

    while (message[n] && n < sizeof(panic_record.message) - 1)
        n++;
    __builtin_memcpy(panic_record.message, message, n);
    for (unsigned i = 0; i < BOOT_PANIC_WORDS && word >= image_header.guard + 4096 && word < image_header.stack_top;
         i++, word += 8)
        panic_record.stack[i] = *(const uint64_t *)word;
    boot_shared()->panic = (uint64_t)&panic_record;
    nf_print(NF_LOG, "panic: %s: vector %llu error %llx rip %llx rsp %llx\n", message,
             (unsigned long long)panic_record.vector, (unsigned long long)panic_record.error,
             (unsigned long long)panic_record.rip, (unsigned long long)panic_record.rsp);
    if (has_halt()) /* nobody outside reads the record */
        tell_panic();
    stop(PORT_PANIC, 1);
}

void unikernel_panic(const char *message)
{
    panic_record.rip = (uint64_t)__builtin_return_address(0);
    panic_record.rsp = (uint64_t)__builtin_frame_address(0);
    panic(message);
}

void __stack_chk_fail(void);
void __stack_chk_fail(void)
{
    unikernel_panic("stack smashed");
}

/* What start.S pushed: 15 registers, then vector, error code and the processor's frame. */
struct exception_frame {
    uint64_t registers[15]; /* rax rbx rcx rdx rsi rdi rbp r8..r15 */
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

void exception(const struct exception_frame *f);
void exception(const struct exception_frame *f)
{
    static const char *const names[] = {[0] = "divide error",
                                        [6] = "invalid opcode",
                                        [8] = "double fault",
                                        [13] = "general protection fault",
                                        [14] = "page fault"};
    static bool again;

    if (again) /* a fault while telling of one */
        stop(PORT_PANIC, 2);
    again = true;
    panic_record.vector = f->vector;
    panic_record.error = f->error;
    panic_record.rip = f->rip;
    panic_record.rsp = f->rsp;
    panic_record.rflags = f->rflags;
    if (has_halt())
        panic_record.cr2 = halt(BOOT_HALT_FAULT_WHERE);
    __builtin_memcpy(panic_record.registers, f->registers, sizeof(f->registers));
    panic(f->vector < sizeof(names) / sizeof(names[0]) && names[f->vector] ? names[f->vector] : "exception");
}
