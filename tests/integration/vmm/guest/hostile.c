/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attacks on the monitor from inside, one a line of shared/reference/hostile-inputs.md, against every device there is.
 * Registers and rings are written by hand. A device may refuse, stop (DEVICE_NEEDS_RESET) or do nothing; after a reset
 * it must work, which `revive` shows, and the monitor must still be there to say so.
 */
#include "guest.h"

enum { RING = 8, NEEDS_RESET = 64, NEXT = 1, WRITE = 2, INDIRECT = 4, QUEUES = 5, PAGE = 4096 };

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

static struct target {
    volatile uint32_t *r;
    uint32_t kind;
    unsigned queues;
    struct {
        struct descriptor *table;
        volatile uint16_t *available, *used;
        uint16_t next;
    } q[QUEUES];
} target;

static uint8_t *scratch; /* two pages */

static unsigned queue_count(uint32_t kind)
{
    static const uint8_t counts[KIND_MAX] = {[KIND_NET] = 2,       [KIND_BLOCK] = 1,   [VIRTIO_CONSOLE] = 2,
                                             [VIRTIO_ENTROPY] = 1, [KIND_BALLOON] = 5, [VIRTIO_VSOCK] = 3};

    return kind < KIND_MAX ? counts[kind] : 0;
}

static void set_ring(unsigned i, uint64_t table, uint64_t available, uint64_t used, uint32_t size)
{
    volatile uint32_t *r = target.r;

    r[0x30 / 4] = i;
    r[0x38 / 4] = size;
    r[0x80 / 4] = (uint32_t)table;
    r[0x84 / 4] = (uint32_t)(table >> 32);
    r[0x90 / 4] = (uint32_t)available;
    r[0x94 / 4] = (uint32_t)(available >> 32);
    r[0xa0 / 4] = (uint32_t)used;
    r[0xa4 / 4] = (uint32_t)(used >> 32);
    r[0x44 / 4] = 1;
}

static void negotiate(void)
{
    volatile uint32_t *r = target.r;

    r[0x70 / 4] = 0;
    r[0x70 / 4] = 3;
    r[0x24 / 4] = 0;
    r[0x20 / 4] = 1u << 28;
    r[0x24 / 4] = 1;
    r[0x20 / 4] = 1;
    r[0x70 / 4] = 11;
}

static void revive(void)
{
    static uint8_t *pages;

    if (!pages)
        pages = heap_pages(QUEUES);
    negotiate();
    for (unsigned i = 0; i < target.queues; i++) {
        uint8_t *page = pages + i * PAGE;
        memset(page, 0, PAGE);
        target.q[i].table = (struct descriptor *)page;
        target.q[i].available = (volatile uint16_t *)(page + 1024);
        target.q[i].used = (volatile uint16_t *)(page + 2048);
        target.q[i].next = 0;
        set_ring(i, (uint64_t)page, (uint64_t)page + 1024, (uint64_t)page + 2048, RING);
    }
    target.r[0x70 / 4] = 15;
    if (target.r[0x70 / 4] != 15)
        fail("a device does not come back after a reset");
}

static void choose(unsigned i)
{
    target.r = (volatile uint32_t *)boot.devices[i].address;
    target.kind = boot.devices[i].kind;
    target.queues = queue_count(target.kind);
    if (!scratch)
        scratch = heap_pages(2);
    revive();
}

static void notify(unsigned q, uint16_t head)
{
    target.q[q].available[2 + target.q[q].next % RING] = head;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    target.q[q].available[1] = ++target.q[q].next;
    target.r[0x50 / 4] = q;
}

/* Whether the device looks at that queue whenever it is notified; others wait for the outside to say something. */
static bool looked_at(unsigned q)
{
    return !(q == 0 && (target.kind == KIND_NET || target.kind == VIRTIO_CONSOLE || target.kind == VIRTIO_VSOCK)) &&
           !(q == 2 && target.kind == VIRTIO_VSOCK);
}

static bool stopped(uint64_t ms)
{
    uint64_t end = cpu_ns() + ms * 1000000;

    while (cpu_ns() < end)
        if (target.r[0x70 / 4] & NEEDS_RESET)
            return true;
    return false;
}

static void must_stop(unsigned q, const char *why)
{
    if (stopped(looked_at(q) ? 2000 : 5))
        revive();
    else if (looked_at(q)) {
        say("device %u queue %u: ", target.kind, q);
        fail(why);
    }
    revive();
}

static void put(unsigned q, unsigned i, uint64_t address, uint32_t length, uint16_t flags, uint16_t next)
{
    target.q[q].table[i] = (struct descriptor){address, length, flags, next};
}

#define FOR_ALL(q)                                                                                                     \
    for (unsigned device_ = 0; device_ < boot.device_count && (choose(device_), 1); device_++)                         \
        for (unsigned q = 0; q < target.queues; q++)

/* Descriptor loop, next >= size, nested indirect, zero length. */
void hostile_12(void)
{
    const uint64_t at = (uint64_t)scratch;

    FOR_ALL(q)
    {
        struct descriptor *inner = (struct descriptor *)scratch;

        for (unsigned i = 0; i < RING; i++)
            put(q, i, (uint64_t)scratch + PAGE, 16, NEXT, (uint16_t)((i + 1) % RING));
        notify(q, 0);
        must_stop(q, "a loop");
        put(q, 0, (uint64_t)scratch, 16, NEXT, RING);
        notify(q, 0);
        must_stop(q, "next beyond the table");
        put(q, 0, (uint64_t)scratch, 16, NEXT, 0xffff);
        notify(q, 0);
        must_stop(q, "next far beyond");
        notify(q, RING);
        must_stop(q, "a head beyond the table");
        inner[0] = (struct descriptor){(uint64_t)scratch, 16, INDIRECT, 0};
        put(q, 0, (uint64_t)scratch, 16, INDIRECT, 0);
        notify(q, 0);
        must_stop(q, "nested indirect");
        for (unsigned i = 0; i < 4; i++)
            inner[i] = (struct descriptor){(uint64_t)scratch + PAGE, 16, NEXT, (uint16_t)((i + 1) % 4)};
        put(q, 0, (uint64_t)scratch, 64, INDIRECT, 0);
        notify(q, 0);
        must_stop(q, "a loop in an indirect table");
        put(q, 0, (uint64_t)scratch, 17, INDIRECT, 0);
        notify(q, 0);
        must_stop(q, "an indirect table of 17 bytes");
        put(q, 0, (uint64_t)scratch, 0, 0, 0);
        notify(q, 0);
        must_stop(q, "length 0");
        put(q, 0, (uint64_t)scratch, 16, WRITE | NEXT, 1);
        put(q, 1, (uint64_t)scratch, 16, 0, 0);
        notify(q, 0);
        must_stop(q, "readable behind writable");
    }
    (void)at;
}

/* The available index jumps; the same chain again and again without a look at what came back. */
void hostile_13(void)
{
    FOR_ALL(q)
    {
        put(q, 0, (uint64_t)scratch, 64, WRITE, 0);
        target.q[q].next += 1000;
        notify(q, 0);
        must_stop(q, "an index 1,000 ahead");
        put(q, 0, (uint64_t)scratch, 64, WRITE, 0);
        target.q[q].next = 0xfffe;
        notify(q, 0);
        must_stop(q, "an index backwards");
        for (unsigned i = 0; i < 5000; i++) {
            put(q, 0, (uint64_t)scratch, 64, i & 1 ? WRITE : 0, 0);
            notify(q, 0);
        }
        stopped(5);
        revive();
    }
}

/* Addresses that overflow, that lie outside, that span the end. */
void hostile_14(void)
{
    const uint64_t end = boot.memory_bytes;
    const struct {
        uint64_t address;
        uint32_t length;
    } bad[] = {
        {end, 1},         {end - 1, 2},          {end - PAGE, PAGE + 1}, {~0ull, 1},       {~0ull - 7, 16},
        {1ull << 63, 64}, {end / 2, 0xffffffff}, {0xd0000000, 64},       {0xfee00000, 64}, {~0ull - 0xfffff, 0x200000}};

    FOR_ALL(q)
    {
        for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
            for (unsigned flags = 0; flags <= WRITE; flags += WRITE) {
                put(q, 0, bad[i].address, bad[i].length, (uint16_t)flags, 0);
                notify(q, 0);
                must_stop(q, "an address outside memory");
            }
            put(q, 0, bad[i].address, 16, INDIRECT, 0);
            if (bad[i].address < end && end - bad[i].address >= 16)
                continue;
            notify(q, 0);
            must_stop(q, "an indirect table outside memory");
        }
        negotiate();
        for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
            if (bad[i].address == end / 2)
                continue;
            for (unsigned part = 0; part < 3; part++) {
                uint64_t where[3] = {(uint64_t)scratch, (uint64_t)scratch + 1024, (uint64_t)scratch + 2048};
                where[part] = bad[i].address & ~15ull;
                if (where[part] < end && end - where[part] >= 16 * RING)
                    continue;
                negotiate();
                set_ring(q, where[0], where[1], where[2], RING);
                if (!(target.r[0x70 / 4] & NEEDS_RESET) || target.r[0x44 / 4])
                    fail("a ring outside memory was taken");
            }
        }
        revive();
    }
}

/* Lengths beyond every buffer a device has: the whole of memory, many times. */
void hostile_15(void)
{
    FOR_ALL(q)
    {
        for (unsigned flags = 0; flags <= WRITE; flags += WRITE) {
            /* never writable memory of our own: an answer would overwrite this program */
            uint64_t from = flags ? (uint64_t)scratch : 0, length = flags ? 2 * PAGE : boot.memory_bytes;
            for (unsigned i = 0; i < RING; i++)
                put(q, i, from, (uint32_t)length, (uint16_t)(flags | (i + 1 < RING ? NEXT : 0)), (uint16_t)(i + 1));
            notify(q, 0);
            stopped(20);
            revive();
        }
        put(q, 0, (uint64_t)scratch, 1, 0, 0);
        notify(q, 0);
        stopped(5);
        revive();
        put(q, 0, (uint64_t)scratch, 1, WRITE, 0);
        notify(q, 0);
        stopped(5);
        revive();
    }
}

/* vsock headers that say more than there is, from others, to others. */
void hostile_16(void)
{
    static const uint32_t lengths[] = {0, 1, 16, 17, 4096, 65536, 0x7fffffff, 0xffffffff};

    for (unsigned i = 0; i < boot.device_count; i++) {
        if (boot.devices[i].kind != VIRTIO_VSOCK)
            continue;
        choose(i);
        for (unsigned n = 0; n < 2000; n++) {
            uint32_t *h = (uint32_t *)scratch;

            for (unsigned w = 0; w < 11; w++)
                h[w] = unikernel_random();
            if (n & 1) { /* almost right */
                h[0] = 3, h[1] = 0, h[2] = 2, h[3] = 0, h[7] = 1 | (unikernel_random() % 9) << 16;
                h[4] %= 4, h[5] %= 4;
            }
            h[6] = lengths[n % 8];
            put(1, 0, (uint64_t)scratch, 20, NEXT, 1);
            put(1, 1, (uint64_t)scratch + 20, 24 + 16, 0, 0);
            put(0, 0, (uint64_t)scratch + PAGE, n % 3 ? 256 : 44, WRITE, 0);
            notify(0, 0);
            notify(1, 0);
            if (target.r[0x70 / 4] & NEEDS_RESET)
                revive();
        }
        revive();
        put(1, 0, (uint64_t)scratch, 43, 0, 0);
        notify(1, 0);
        must_stop(1, "a packet shorter than its header");
    }
}

/* A full receive ring while the wire floods, and recovery: the test floods. */
void hostile_17(void)
{
    enum { BUFFERS = 64, BUFFER = 2048, ENOUGH = 2000 };
    static struct virtio net;
    static struct virtq rx;
    uint8_t *memory = heap_pages(BUFFERS * BUFFER / PAGE);
    unsigned early = 0, late = 0;
    uint32_t length;
    uint8_t *p;

    if (!virtio_find(&net, KIND_NET, 1u << 15) || !virtio_queue(&net, &rx, 0))
        fail("no network device");
    for (unsigned i = 0; i < BUFFERS; i++) {
        const struct virtq_segment s = {memory + i * BUFFER, BUFFER, true};
        virtq_add(&rx, &s, 1, memory + i * BUFFER);
    }
    virtq_publish(&rx);
    virtio_ready(&net);
    say("full\n");
    wait_ms(parameter("pause", 500)); /* nobody takes anything */
    for (uint64_t end = cpu_ns() + 5000000000; late < ENOUGH && cpu_ns() < end;) {
        if (!(p = virtq_take(&rx, &length)))
            continue;
        const struct virtq_segment s = {p, BUFFER, true};
        virtq_add(&rx, &s, 1, p);
        virtq_publish(&rx);
        early < BUFFERS ? early++ : late++;
    }
    say("early %u late %u\n", early, late);
    if (early != BUFFERS || late != ENOUGH)
        fail("reception did not recover");
}

/* Registers of any offset and width, values of any kind, during resets too; the ports of the ABI with any value. */
void hostile_18(void)
{
    static const uint16_t ports[] = {PORT_READY, PORT_TEXT, PORT_DEVICE};
    uint64_t rounds = parameter("rounds", 3000);

    for (unsigned d = 0; d < boot.device_count; d++) {
        choose(d);
        for (uint64_t n = 0; n < rounds; n++) {
            uint32_t x = unikernel_random(), value = unikernel_random();
            volatile uint8_t *at = (volatile uint8_t *)target.r + (x & 1 ? x >> 8 & 0x1ff : x >> 8 & 0xff8);
            if (x >> 4 & 1)
                value &= 0xff;
            switch (x >> 1 & 7) {
            case 0:
                *at = (uint8_t)value;
                break;
            case 1:
                *(volatile uint16_t *)at = (uint16_t)value;
                break;
            case 2:
                *(volatile uint64_t *)at = value | (uint64_t)x << 32;
                break;
            case 3:
                (void)*(volatile uint64_t *)at;
                break;
            case 4:
                (void)*at;
                break;
            case 5:
                target.r[0x70 / 4] = x & 0x100 ? 0 : value & 15;
                break;
            default:
                *(volatile uint32_t *)((uint64_t)at & ~3ull) = value;
                break;
            }
        }
        revive();
    }
    for (uint64_t n = 0; n < rounds; n++) {
        uint32_t x = unikernel_random();
        uint16_t port = ports[x % 3];
        uint32_t value = x & 64 ? unikernel_random() : unikernel_random() % (uint32_t)boot.memory_bytes;
        if (x & 128)
            __asm__ volatile("outb %0, %1" ::"a"((uint8_t)value), "d"(port));
        else if (x & 256)
            __asm__ volatile("inl %1, %0" : "=a"(value) : "d"(port));
        else
            __asm__ volatile("outw %0, %1" ::"a"((uint16_t)value), "d"(port));
    }
    for (unsigned d = 0; d < boot.device_count; d++)
        choose(d);
}

/* Notifications as fast as they go, for queues that are and that are not, with nothing behind them. */
void hostile_storm(void)
{
    uint64_t end = cpu_ns() + parameter("ms", 1000) * 1000000, count = 0;

    while (cpu_ns() < end)
        FOR_ALL(q)
    for (unsigned i = 0; i < 200; i++, count++)
        target.r[0x50 / 4] = i % 16 ? q : unikernel_random();
    say("%llu notifications\n", (unsigned long long)count);
    FOR_ALL(q)
    revive();
}

/* Rings rewritten, moved, disabled and given up while the device works on them. */
void hostile_rings(void)
{
    FOR_ALL(q)
    {
        for (unsigned n = 0; n < 300; n++) {
            put(q, 0, (uint64_t)scratch, 64, NEXT, 1);
            put(q, 1, (uint64_t)scratch + 64, 64, WRITE, 0);
            notify(q, 0);
            for (unsigned i = 0; i < 8; i++) {
                put(q, 0, unikernel_random(), unikernel_random(), (uint16_t)unikernel_random(),
                    (uint16_t)unikernel_random());
                target.q[q].available[1] = (uint16_t)unikernel_random();
                target.q[q].available[2 + i % RING] = (uint16_t)unikernel_random();
            }
            set_ring(q, n & 1 ? 0 : ~0ull, (uint64_t)scratch, (uint64_t)scratch, n & 2 ? RING : 0xffffffff);
            target.r[0x30 / 4] = q;
            if (n & 4)
                target.r[0x44 / 4] = 0;
            if (n % 8 == 7)
                revive();
            target.q[q].next = 0;
        }
        revive();
    }
}
