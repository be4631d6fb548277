/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets of an element in the unikernel: from the receive ring of one virtio-net device to the element and into the
 * transmit ring of another, in the buffers they came in; lwIP is not there at all. Called from the loop of main.c, which
 * knows of this file only when a program refers to it.
 *
 * Offloads pass through: a super-segment or an unfinished checksum leaves with the header it came with. So each is
 * asked for only when every device can do it both ways. A buffer holds the largest packet where the guest has memory for
 * that, so that a packet is one descriptor, and is a page where it has not. It is in a receive ring, in a packet that is
 * being looked at, in a transmit ring, or spare. What could not be sent is not received: while a transmit ring is full,
 * or no buffer is spare, the host keeps what comes, and drops it when its own queue is full.
 */
#include "unikernel.h"

#include "../element.h"

#define F_CSUM       (UINT64_C(1) << 0)
#define F_GUEST_CSUM (UINT64_C(1) << 1)
#define F_MAC        (UINT64_C(1) << 5)
#define F_GUEST_TSO4 (UINT64_C(1) << 7)
#define F_GUEST_TSO6 (UINT64_C(1) << 8)
#define F_HOST_TSO4  (UINT64_C(1) << 11)
#define F_HOST_TSO6  (UINT64_C(1) << 12)
#define F_MRG_RXBUF  (UINT64_C(1) << 15)
#define CHECKSUMS    (F_CSUM | F_GUEST_CSUM)
#define SEGMENTS4    (F_HOST_TSO4 | F_GUEST_TSO4)
#define SEGMENTS6    (F_HOST_TSO6 | F_GUEST_TSO6)

enum {
    NEEDS_CSUM = 1,
    KIND_NET = 1,
    WIRE_MTU = 1500,
    PAGE = 4096,
    LARGE = 17 * PAGE, /* header and the largest packet */
    POSTED_MAX = 96,   /* buffers in each receive ring */
    POOL_MAX = 448,    /* buffers in all */
    LARGE_MIN = 16,    /* large ones for each port, or small ones are better */
    CHAIN_MAX = 20,
};

struct net_header {
    uint8_t flags, gso_type;
    uint16_t header_length, gso_size, checksum_start, checksum_offset, buffer_count;
};

/* A buffer, or the first of a packet's chain of them. */
struct page {
    uint8_t *bytes;
    uint32_t length; /* used, the header included */
    struct page *next;
};

struct port {
    struct virtio device;
    struct virtq rx, tx;
    unsigned posted;
};

static struct port ports[NFV_PORT_MAX];
static unsigned port_count, page_count;
static unsigned posted_wanted, pool_max; /* buffers, of */
static uint32_t buffer_bytes;            /* this size */
static struct page *spare;
static bool started, waiting; /* waiting: for room in a transmit ring */

static void give_back(struct page *first)
{
    while (first) {
        struct page *next = first->next;
        first->next = spare;
        spare = first;
        first = next;
    }
}

static struct page *take_page(void)
{
    struct page *p = spare;

    if (p) {
        spare = p->next;
    } else {
        if (page_count == pool_max || !(p = unikernel_malloc(sizeof(*p))) ||
            !(p->bytes = heap_pages(buffer_bytes / PAGE)))
            return pool_max = page_count, NULL; /* the end of memory: no block is asked for in vain again */
        page_count++;
    }
    p->next = NULL;
    return p;
}

static void rx_fill(struct port *port)
{
    while (port->posted < posted_wanted) {
        struct page *p = take_page();
        struct virtq_segment segment = {p ? p->bytes : NULL, buffer_bytes, true};
        if (!p)
            break;
        if (!virtq_add(&port->rx, &segment, 1, p)) {
            give_back(p);
            break;
        }
        port->posted++;
    }
    virtq_publish(&port->rx);
}

/* The whole of a packet whose first page is here. */
static void rx_gather(struct port *port, struct page *first, uint32_t length, struct nfv_packet *ret)
{
    const struct net_header *h = (const struct net_header *)first->bytes;
    struct page *last = first;
    uint32_t total = length;

    first->length = length;
    for (unsigned i = 1; i < h->buffer_count && i < CHAIN_MAX; i++) {
        struct page *p = virtq_take(&port->rx, &length);
        if (!p)
            break;
        port->posted--;
        p->length = length;
        p->next = NULL;
        last = last->next = p;
        total += length;
    }
    *ret = (struct nfv_packet){.data = first->bytes + sizeof(*h), .length = first->length - (uint32_t)sizeof(*h),
        .total = total - (uint32_t)sizeof(*h), .segment = h->gso_type ? h->gso_size : 0,
        .in = (uint8_t)(port - ports), .out = NFV_DROP, .unfinished = h->flags & NEEDS_CSUM};
}

/* As many packets as every transmit ring has room for, whichever they will leave by. */
static unsigned room(void)
{
    unsigned n = NFV_BATCH_MAX, each = buffer_bytes == LARGE ? 1 : CHAIN_MAX;

    for (unsigned i = 0; i < port_count; i++)
        if (ports[i].tx.free_count / each < n)
            n = ports[i].tx.free_count / each;
    return n;
}

static unsigned receive(struct port *port, unsigned most, struct nfv_packet *packets, struct page **chains)
{
    unsigned n = 0;
    uint32_t length;
    struct page *first;

    while (n < most && (first = virtq_take(&port->rx, &length)) != NULL) {
        port->posted--;
        first->next = NULL;
        if (length < sizeof(struct net_header) || length > buffer_bytes) {
            give_back(first);
            continue;
        }
        rx_gather(port, first, length, &packets[n]);
        chains[n++] = first;
    }
    return n;
}

static void send(struct page *first, unsigned out)
{
    struct net_header *h = (struct net_header *)first->bytes;
    struct virtq_segment segments[CHAIN_MAX];
    unsigned count = 0;

    h->flags &= NEEDS_CSUM;
    h->buffer_count = 0;
    for (struct page *p = first; p; p = p->next)
        segments[count++] = (struct virtq_segment){p->bytes, p->length, false};
    if (out < port_count && virtq_add(&ports[out].tx, segments, count, first))
        return;
    element_unsent++;
    give_back(first);
}

static bool reap(struct port *port)
{
    uint32_t length;
    struct page *first;
    bool worked = false;

    while ((first = virtq_take(&port->tx, &length)) != NULL) {
        give_back(first);
        worked = true;
    }
    return worked;
}

bool element_poll(void)
{
    struct nfv_packet packets[NFV_BATCH_MAX];
    struct page *chains[NFV_BATCH_MAX];
    bool worked = false;

    if (!started)
        return false;
    for (unsigned i = 0; i < port_count; i++)
        worked |= reap(&ports[i]);
    waiting = false;
    for (unsigned i = 0; i < port_count; i++) {
        unsigned most = room(), n = receive(&ports[i], most, packets, chains);

        waiting |= most < NFV_BATCH_MAX && n == most;
        if (n)
            element_batch(packets, n);
        for (unsigned j = 0; j < n; j++) {
            if (packets[j].out == NFV_DROP)
                give_back(chains[j]);
            else
                send(chains[j], packets[j].out);
        }
        rx_fill(&ports[i]);
        worked |= n > 0;
    }
    for (unsigned i = 0; i < port_count; i++)
        virtq_publish(&ports[i].tx);
    return worked;
}

void element_interrupts(bool on)
{
    for (unsigned i = 0; started && i < port_count; i++) {
        virtio_acknowledge(&ports[i].device);
        virtq_interrupts(&ports[i].rx, on);
        /* sent packets matter only to what waits for their room or their buffers */
        virtq_interrupts(&ports[i].tx, on && (waiting || ports[i].posted < posted_wanted));
    }
}

bool element_active(void)
{
    return started;
}

/* What every device can do in both directions. */
static uint64_t choose_features(const uint64_t *addresses, unsigned count)
{
    uint64_t common = ~UINT64_C(0), wanted = F_MAC | F_MRG_RXBUF;

    for (unsigned i = 0; i < count; i++)
        common &= virtio_offers(addresses[i], KIND_NET);
    if ((common & CHECKSUMS) != CHECKSUMS)
        return wanted;
    wanted |= CHECKSUMS;
    if ((common & SEGMENTS4) == SEGMENTS4)
        wanted |= SEGMENTS4;
    if ((common & SEGMENTS6) == SEGMENTS6)
        wanted |= SEGMENTS6;
    return wanted;
}

static bool open_port(struct port *port, uint64_t address, uint64_t features, struct nfv_port *ret)
{
    if (!virtio_begin(&port->device, address, KIND_NET, features) || !(port->device.features & F_MRG_RXBUF) ||
        !virtio_queue(&port->device, &port->rx, 0) || !virtio_queue(&port->device, &port->tx, 1))
        return false;
    port->device.acknowledge = !(boot.flags & BOOT_DIRECT);
    for (unsigned i = 0; i < 6; i++)
        ret->mac[i] = virtio_config(&port->device, i);
    ret->mtu = WIRE_MTU;
    return true;
}

int element_ports_open(const char *names, unsigned count, struct nfv_port *ret_ports)
{
    uint64_t addresses[BOOT_DEVICE_MAX], features;
    unsigned found = 0;

    if (names)
        nf_print(NF_LOG, "--ports: in a machine ports have no names, they are its network devices in order\n");
    for (uint32_t i = 0; i < boot.device_count && i < BOOT_DEVICE_MAX; i++)
        if (virtio_offers(boot.devices[i].address, KIND_NET))
            addresses[found++] = boot.devices[i].address;
    if (found < count) {
        nf_print(NF_LOG, "%u ports are needed, the machine has %u network devices\n", count, found);
        return NF_FAILED;
    }
    features = choose_features(addresses, count);
    for (unsigned i = 0; i < count; i++)
        if (!open_port(&ports[i], addresses[i], features, &ret_ports[i])) {
            nf_print(NF_LOG, "port %u: the device has no merged receive buffers, or no two queues\n", i);
            return NF_FAILED;
        }
    port_count = count;
    return 0;
}

/* Half of the buffers are in the receive rings, the others on their way out. */
static void choose_buffers(void)
{
    uint64_t large = heap_left() / 4 * 3 / LARGE;

    buffer_bytes = large < LARGE_MIN * port_count ? PAGE : LARGE;
    pool_max = buffer_bytes == PAGE || large > POOL_MAX ? POOL_MAX : (unsigned)large;
    posted_wanted = pool_max / 2 / port_count;
    if (posted_wanted > POSTED_MAX)
        posted_wanted = POSTED_MAX;
}

void element_ports_start(void)
{
    choose_buffers();
    started = true;
    for (unsigned i = 0; i < port_count; i++) {
        rx_fill(&ports[i]);
        virtq_interrupts(&ports[i].tx, false);
        virtio_ready(&ports[i].device);
    }
}
