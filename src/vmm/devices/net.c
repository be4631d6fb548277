/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net (virtio 1.2, 5.1). Theory of operation:
 *
 * The tap speaks the same 12-byte header as virtio-net, so a packet is one readv() or writev() straight between the
 * kernel and guest memory; the monitor looks at no byte of it. With mergeable buffers a packet may fill several chains:
 * as many are taken as the largest packet needs, the unneeded ones are put back. A packet that finds no buffer stays in
 * the tap's queue, and the guest's notification that it added buffers starts the reading again: no freeze, no drop
 * here. Runs on the device thread, except creation and configuration reads.
 */
#include <errno.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/cleanup.h"
#include "vmm/devices/net.h"

enum {
    QUEUE_RX = 0,
    QUEUE_TX = 1,
    HEADER_BYTES = sizeof(struct virtio_net_hdr_mrg_rxbuf),
    PACKET_BYTES_MAX = HEADER_BYTES + 14 + 65535 + 4, /* one TSO frame with a VLAN tag */
    BATCH = 64,                                       /* packets before the other direction gets its turn */
    RX_CHAINS_MAX = 64,
};

struct net {
    struct device device;
    int tap_fd;
    uint8_t mac[6];
    bool rx_starved;
    struct net_counters counters;
};

static struct net *net_of(struct device *d)
{
    return (struct net *)d;
}

static bool merges(const struct device *d)
{
    return (d->accepted & VIRTIO_FEATURE(VIRTIO_NET_F_MRG_RXBUF)) != 0;
}

/* Offloads the guest takes from the tap, no more than it negotiated (virtio 1.2, 5.1.6.4). */
static int activate(struct device *d)
{
    static const struct {
        unsigned feature, offload;
    } table[] = {
        {VIRTIO_NET_F_GUEST_CSUM, TUN_F_CSUM},
        {VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4},
        {VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6},
        {VIRTIO_NET_F_GUEST_ECN, TUN_F_TSO_ECN},
    };
    unsigned long offloads = 0;

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (d->accepted & VIRTIO_FEATURE(table[i].feature))
            offloads |= table[i].offload;
    net_of(d)->rx_starved = true; /* a packet may be waiting since before there were buffers */
    if (net_of(d)->tap_fd < 0)
        return 0;
    return ioctl(net_of(d)->tap_fd, TUNSETOFFLOAD, offloads) < 0 ? -errno : 0;
}

static void transmit(struct device *d)
{
    struct net *n = net_of(d);
    struct virtqueue *q = &d->queues[QUEUE_TX].ring;
    struct virtqueue_chain chain;
    int r = 0;

    for (unsigned i = 0; i < BATCH && (r = virtqueue_pop(q, &chain)) > 0; i++) {
        bool fits = chain.readable_bytes > HEADER_BYTES && chain.readable_bytes <= PACKET_BYTES_MAX;
        ssize_t sent = fits && n->tap_fd >= 0 ? writev(n->tap_fd, chain.segments, chain.readable) : -1;

        if (sent < 0) {
            n->counters.tx_dropped++; /* a full tap queue, or a header the kernel refuses: as a wire would */
        } else {
            n->counters.tx_packets++;
            n->counters.tx_bytes += (uint64_t)sent - HEADER_BYTES;
        }
        virtqueue_push(q, chain.head, 0);
    }
    device_publish(d, QUEUE_TX);
    if (r < 0)
        device_fail(d, q->broken);
}

/* Buffers for one packet of any size: segments of up to RX_CHAINS_MAX chains. */
struct receive_buffers {
    struct iovec segments[VIRTQUEUE_SEGMENT_MAX];
    unsigned segment_count;
    struct {
        uint16_t head;
        uint64_t bytes;
    } chains[RX_CHAINS_MAX];
    unsigned chain_count;
    uint64_t bytes;
    bool full; /* no more segments fit */
};

static uint64_t packet_bytes_max(const struct device *d)
{
    const uint64_t merged = VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_TSO4) | VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_TSO6);

    return d->accepted & merged ? PACKET_BYTES_MAX : HEADER_BYTES + 14 + 1500 + 4;
}

/* A tap cuts a packet to the buffers it is given. They are enough when the largest packet fits, or when the driver
 * cannot do better: one chain a packet, or its whole ring. */
static bool enough(const struct device *d, const struct receive_buffers *b)
{
    return b->bytes > HEADER_BYTES &&
           (b->bytes >= packet_bytes_max(d) || !merges(d) || b->full || b->chain_count == RX_CHAINS_MAX ||
            b->chain_count == d->queues[QUEUE_RX].ring.address.size);
}

static int gather(struct device *d, struct receive_buffers *b)
{
    struct virtqueue *q = &d->queues[QUEUE_RX].ring;
    const uint64_t wanted = packet_bytes_max(d);
    struct virtqueue_chain chain;

    b->segment_count = b->chain_count = 0;
    b->bytes = 0;
    b->full = false;
    while (b->bytes < wanted && b->chain_count < RX_CHAINS_MAX && (b->chain_count == 0 || merges(d))) {
        int r = virtqueue_pop(q, &chain);
        if (r < 0)
            return r;
        if (r == 0)
            break;
        if (chain.readable || b->segment_count + chain.writable > VIRTQUEUE_SEGMENT_MAX) {
            if (chain.readable)
                return device_fail(d, "a receive buffer the device may not write"), -EPROTO;
            virtqueue_unpop(q);
            b->full = true;
            break;
        }
        memcpy(&b->segments[b->segment_count], chain.segments, chain.writable * sizeof(struct iovec));
        b->segment_count += chain.writable;
        b->chains[b->chain_count].head = chain.head;
        b->chains[b->chain_count++].bytes = chain.writable_bytes;
        b->bytes += chain.writable_bytes;
    }
    return 0;
}

/* The header's num_buffers lies at the start of the first chain, which a guest may have split at any byte. */
static void write_buffer_count(struct receive_buffers *b, uint16_t count)
{
    const uint8_t bytes[2] = {(uint8_t)count, (uint8_t)(count >> 8)};
    size_t offset = offsetof(struct virtio_net_hdr_mrg_rxbuf, num_buffers);

    for (unsigned i = 0, written = 0; i < b->segment_count && written < sizeof(bytes); i++) {
        while (offset < b->segments[i].iov_len && written < sizeof(bytes))
            ((uint8_t *)b->segments[i].iov_base)[offset++] = bytes[written++];
        offset -= offset < b->segments[i].iov_len ? offset : b->segments[i].iov_len;
    }
}

static void give_back(struct device *d, struct receive_buffers *b, uint64_t length)
{
    struct virtqueue *q = &d->queues[QUEUE_RX].ring;
    unsigned used = 0;

    while (used < b->chain_count && length > 0) {
        uint64_t part = length < b->chains[used].bytes ? length : b->chains[used].bytes;
        virtqueue_push(q, b->chains[used++].head, (uint32_t)part);
        length -= part;
    }
    write_buffer_count(b, (uint16_t)used);
    for (unsigned i = used; i < b->chain_count; i++)
        virtqueue_unpop(q);
}

static bool receive(struct device *d)
{
    struct net *n = net_of(d);
    struct virtqueue *q = &d->queues[QUEUE_RX].ring;
    struct receive_buffers buffers;
    unsigned packets = 0;

    n->rx_starved = false;
    virtqueue_unstall(q);
    while (n->tap_fd >= 0 && packets < BATCH && q->available && !q->broken) {
        if (gather(d, &buffers) < 0)
            break;
        if (!enough(d, &buffers)) {
            n->rx_starved = true;
            virtqueue_stall(q);
            give_back(d, &buffers, 0);
            break;
        }
        ssize_t got = readv(n->tap_fd, buffers.segments, (int)buffers.segment_count);
        give_back(d, &buffers, got > 0 ? (uint64_t)got : 0);
        if (got <= 0)
            break;
        n->counters.rx_packets++;
        n->counters.rx_bytes += (uint64_t)got - HEADER_BYTES;
        packets++;
        device_publish(d, QUEUE_RX); /* each: the guest works on it while the next is read */
    }
    if (n->rx_starved && packets == 0)
        n->counters.rx_waits++;
    if (q->broken)
        device_fail(d, q->broken);
    return packets > 0;
}

static bool notified(struct device *d, unsigned queue)
{
    if (queue == QUEUE_RX)
        return net_of(d)->rx_starved && receive(d);
    transmit(d);
    return true;
}

static void config(struct device *d, void *to, unsigned offset, unsigned length)
{
    struct virtio_net_config c = {.status = VIRTIO_NET_S_LINK_UP, .max_virtqueue_pairs = 1};

    memcpy(c.mac, net_of(d)->mac, sizeof(c.mac));
    if (offset < sizeof(c))
        memcpy(to, (const uint8_t *)&c + offset, length < sizeof(c) - offset ? length : sizeof(c) - offset);
}

static void destroy(struct device *d)
{
    close_fd(net_of(d)->tap_fd);
    free(d);
}

static const struct device_ops net_ops = {
    .name = "net",
    .type = VIRTIO_NET,
    .queue_count = 2,
    .activate = activate,
    .notified = notified,
    .config = config,
    .destroy = destroy,
};

int net_create(const struct guest_memory *memory, int tap_fd, const uint8_t mac[6], struct device **ret,
               struct error **err)
{
    const uint64_t features = VIRTIO_F_INDIRECT | VIRTIO_F_EVENT | VIRTIO_FEATURE(VIRTIO_NET_F_CSUM) |
                              VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_CSUM) | VIRTIO_FEATURE(VIRTIO_NET_F_MAC) |
                              VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_TSO4) | VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_TSO6) |
                              VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_ECN) | VIRTIO_FEATURE(VIRTIO_NET_F_HOST_TSO4) |
                              VIRTIO_FEATURE(VIRTIO_NET_F_HOST_TSO6) | VIRTIO_FEATURE(VIRTIO_NET_F_HOST_ECN) |
                              VIRTIO_FEATURE(VIRTIO_NET_F_MRG_RXBUF) | VIRTIO_FEATURE(VIRTIO_NET_F_STATUS);
    struct net *n = calloc(1, sizeof(*n));

    if (!n)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a network device");
    int r = device_init(&n->device, &net_ops, memory, features, err);
    if (r < 0) {
        free(n);
        return r;
    }
    n->tap_fd = tap_fd;
    memcpy(n->mac, mac, sizeof(n->mac));
    *ret = &n->device;
    return 0;
}

int net_attach(struct device *d, struct loop *loop, struct error **err)
{
    return loop_add(loop, d, net_of(d)->tap_fd, receive, err);
}

struct net_counters net_counters(struct device *d)
{
    pthread_mutex_lock(&d->lock);
    struct net_counters counters = net_of(d)->counters;
    pthread_mutex_unlock(&d->lock);
    return counters;
}
