/* SPDX-License-Identifier: Apache-2.0 */
/* A well-behaved driver of each device. What it prints, the test reads. */
#include "guest.h"

static struct virtio device;
static struct virtq queues[5];

/* Offers segments and waits until the device has them; the bytes it wrote. */
static uint32_t exchange(struct virtq *q, const struct virtq_segment *segments, unsigned count)
{
    uint64_t end = cpu_ns() + 3000000000;
    uint32_t length = 0;

    if (!virtq_add(q, segments, count, q))
        fail("no room in the ring");
    virtq_publish(q);
    while (!virtq_take(q, &length))
        if (cpu_ns() > end)
            fail("the device does not answer");
    return length;
}

static void begin(uint32_t kind, uint64_t wanted, unsigned count)
{
    if (!virtio_find(&device, kind, wanted))
        fail("no such device");
    for (uint16_t i = 0; i < count; i++)
        if (!virtio_queue(&device, &queues[i], i))
            fail("no such queue");
    virtio_ready(&device);
}

static uint64_t config64(unsigned offset)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < 8; i++)
        value |= (uint64_t)virtio_config(&device, offset + i) << (8 * i);
    return value;
}

static uint32_t config32(unsigned offset)
{
    return *(volatile uint32_t *)((volatile uint8_t *)device.registers + 0x100 + offset);
}

/* ---- block ---- */

static uint8_t data[8 * 512];

static uint8_t block(uint32_t type, uint64_t sector, void *bytes, uint32_t length, bool device_writes)
{
    static struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header;
    static uint8_t status;
    struct virtq_segment s[3] = {{&header, 16, false}, {bytes, length, device_writes}, {&status, 1, true}};

    header.type = type;
    header.sector = sector;
    status = 0xee;
    if (!length)
        s[1] = s[2];
    exchange(&queues[0], s, length ? 3 : 2);
    return status;
}

static unsigned sum(void)
{
    unsigned total = 0;

    for (unsigned i = 0; i < sizeof(data); i++)
        total = total * 31 + data[i];
    return total;
}

void drive_block(void)
{
    uint64_t capacity;
    unsigned before;

    begin(KIND_BLOCK, ~0ull & 0xffffff, 1);
    capacity = config64(0);
    say("capacity %llu\n", (unsigned long long)capacity);
    int status = block(8, 0, data, 20, true);
    say("serial %d %s\n", status, (const char *)data);
    status = block(0, 8, data, sizeof(data), true);
    before = sum();
    say("read %d sum %u\n", status, before);
    for (unsigned i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7);
    unsigned ours = sum();
    say("write %d\n", block(1, 16, data, sizeof(data), false));
    say("flush %d\n", block(4, 0, NULL, 0, false));
    memset(data, 0, sizeof(data));
    status = block(0, 16, data, sizeof(data), true);
    say("again %d %s\n", status, sum() == ours ? "ours" : "not ours");
    status = block(0, 8, data, sizeof(data), true);
    say("neighbour %d %s\n", status, sum() == before ? "unchanged" : "changed");
    say("beyond %d\n", block(0, capacity, data, 512, true));
    for (uint64_t i = 0; i < parameter("many", 0); i++)
        if (block(0, i * 8 % (capacity - 8), data, sizeof(data), true) != 0)
            fail("a read");
}

/* ---- console, entropy ---- */

void drive_console(void)
{
    static char line[64];
    char last = 0;

    begin(VIRTIO_CONSOLE, 0, 2);
    while (last != 'q') {
        const struct virtq_segment in = {line, sizeof(line), true};
        uint32_t got = exchange(&queues[0], &in, 1);
        const struct virtq_segment out[2] = {{"got ", 4, false}, {line, got, false}};
        exchange(&queues[1], out, 2);
        last = got ? line[0] : 'q';
    }
}

void drive_entropy(void)
{
    static uint8_t bytes[1024];
    const struct virtq_segment s = {bytes, sizeof(bytes), true};

    begin(VIRTIO_ENTROPY, 0, 1);
    for (unsigned round = 0; round < 2; round++) {
        say("entropy %u ", exchange(&queues[0], &s, 1));
        for (unsigned i = 0; i < 16; i++)
            say("%x", bytes[i]);
        say("\n");
    }
}

/* ---- balloon ---- */

enum { PAGE = 4096, AT_ONCE = 256 };

/* Memory is touched, given up as the host asks, and a part reported as free. The test watches what it costs. */
void drive_balloon(void)
{
    static uint32_t numbers[AT_ONCE];
    uint64_t pages = parameter("touch", 8) << 8, target;
    uint8_t *memory = heap_pages(pages);
    uint64_t end = cpu_ns() + 3000000000;

    begin(KIND_BALLOON, 1u << 1 | 1u << 5, 5);
    if (!memory)
        fail("no memory");
    for (uint64_t i = 0; i < pages; i++)
        memory[i * PAGE] = 1;
    say("touched\n");
    wait_ms(parameter("pause", 0));
    while ((target = config32(0)) == 0)
        if (cpu_ns() > end)
            fail("nothing was asked for");
    target = target < pages / 2 ? target : pages / 2;
    for (uint64_t done = 0; done < target; done += AT_ONCE) {
        for (unsigned i = 0; i < AT_ONCE; i++)
            numbers[i] = (uint32_t)((uint64_t)memory / PAGE + done + i);
        const struct virtq_segment s = {numbers, sizeof(numbers), false};
        exchange(&queues[0], &s, 1);
    }
    *(volatile uint32_t *)((volatile uint8_t *)device.registers + 0x104) = (uint32_t)target;
    say("inflated %llu\n", (unsigned long long)target);
    wait_ms(parameter("pause", 0));
    const struct virtq_segment free_half = {memory + pages / 2 * PAGE, (uint32_t)(pages / 2 * PAGE), true};
    exchange(&queues[4], &free_half, 1);
    say("reported %llu\n", (unsigned long long)pages / 2);
    wait_ms(parameter("pause", 0));
    for (uint64_t i = 0; i < pages; i++)
        if (memory[i * PAGE] != (i < target || i >= pages / 2 ? 0 : 1))
            fail("a page is not what it should be");
}

/* ---- vsock: echoes what comes to any port; says hello to port 2000 of the host ---- */

enum {
    REQUEST = 1,
    RESPONSE,
    RESET,
    SHUTDOWN,
    DATA,
    CREDIT_UPDATE,
    CREDIT_REQUEST,
    ROOM = 4096,
    RX_BUFFERS = 32,
    RX_CREDIT = 8 * ROOM,
    PORTS = 128
};

struct packet {
    uint64_t source_cid, target_cid;
    uint32_t source_port, target_port;
    uint32_t length;
    uint16_t type, operation;
    uint32_t flags;
    uint32_t buffer, forwarded;
    uint8_t data[ROOM];
} __attribute__((packed));

static struct packet received[RX_BUFFERS], sent;
static struct stream { /* of each port */
    uint32_t taken, sent, host_buffer, host_forwarded;
} streams[PORTS];
static struct packet *held[RX_BUFFERS]; /* data that waits for the host to have room for its echo, in order */
static unsigned held_count;
static const struct packet hello = {.target_port = 4000, .source_port = 2000};

static void packet(const struct packet *to, uint16_t operation, const void *bytes, uint32_t length)
{
    sent = (struct packet){.source_cid = config64(0),
                           .target_cid = 2,
                           .source_port = to->target_port,
                           .target_port = to->source_port,
                           .length = length,
                           .type = 1,
                           .operation = operation,
                           .flags = operation == SHUTDOWN ? 3 : 0,
                           .buffer = RX_CREDIT,
                           .forwarded = streams[to->target_port % PORTS].taken};
    memcpy(sent.data, bytes, length);
    const struct virtq_segment s = {&sent, 44 + length, false};
    exchange(&queues[1], &s, 1);
}

static void give(struct packet *p)
{
    const struct virtq_segment s = {p, sizeof(*p), true};

    virtq_add(&queues[0], &s, 1, p);
    virtq_publish(&queues[0]);
}

static bool greeted;

/* False: the host has no room for it yet. */
static bool echo(const struct packet *p)
{
    struct stream *s = &streams[p->target_port % PORTS];

    if (s->sent - s->host_forwarded + p->length > s->host_buffer)
        return false;
    s->sent += p->length;
    s->taken += p->length;
    packet(p, DATA, p->data, p->length);
    return true;
}

/* False: a stream to port 99, the end. */
static bool serve(struct packet *p)
{
    struct stream *stream = &streams[p->target_port % PORTS];

    stream->host_buffer = p->buffer;
    stream->host_forwarded = p->forwarded;
    switch (p->operation) {
    case REQUEST:
        *stream = (struct stream){.host_buffer = p->buffer};
        packet(p, RESPONSE, NULL, 0);
        return p->target_port != 99;
    case RESPONSE:
        greeted = true;
        packet(p, DATA, "hello host", 10);
        packet(p, SHUTDOWN, NULL, 0);
        return true;
    case DATA:
        if (held_count > 0 || !echo(p))
            held[held_count++] = p;
        return true;
    case SHUTDOWN:
        packet(p, RESET, NULL, 0);
        return true;
    case RESET:
        if (p->target_port == hello.target_port && !greeted) { /* nobody waits yet */
            wait_ms(5);
            packet(&hello, REQUEST, NULL, 0);
        }
        return true;
    case CREDIT_REQUEST:
        packet(p, CREDIT_UPDATE, NULL, 0);
        return true;
    default:
        return true;
    }
}

void drive_vsock(void)
{
    struct packet *p;
    uint32_t length;

    begin(VIRTIO_VSOCK, 0, 3);
    for (unsigned i = 0; i < RX_BUFFERS; i++)
        give(&received[i]);
    say("cid %llu\n", (unsigned long long)config64(0));
    if (parameter("hello", 0))
        packet(&hello, REQUEST, NULL, 0);
    for (bool on = true; on;) {
        while (held_count > 0 && echo(held[0])) {
            give(held[0]);
            memmove(held, held + 1, --held_count * sizeof(held[0]));
        }
        if (!(p = virtq_take(&queues[0], &length)))
            continue;
        unsigned before = held_count;
        on = serve(p);
        if (held_count == before)
            give(p);
    }
}
