/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets between rings and taps, one tap queue a pair. Theory of operation:
 *
 * The tap speaks the same 12-byte header as virtio-net, so a packet is one readv() or writev() straight between the
 * kernel and guest memory; of what comes in only that header is looked at, for offloads the driver did not ask for:
 * packets may have waited in the tap since before it said what it takes. With mergeable buffers a packet may fill
 * several chains: as many are taken as the largest packet needs, the unneeded ones are put back. A packet that finds no
 * buffer stays in the tap's queue, and the guest's notification that it added buffers starts the reading again: no
 * freeze, no drop here.
 *
 * Waking a sleeping guest costs more than it takes to read a large packet, and a guest that does not sleep but looks
 * costs a core that the sender may need. So the driver is told of large packets together: of half its buffers, or when
 * the first has waited for HOLD_NS, or before the device thread sleeps. It sees them at once if it looks. A small
 * packet is never held, nor what came before it. Queues the driver does not use are detached, so that the kernel steers
 * no flow to them. All on the device thread but start, stop and creation.
 */
#include <errno.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <time.h>

#include "base/cleanup.h"
#include "vmm/devices/net_internal.h"

enum {
    HEADER_BYTES = NET_HEADER_BYTES,
    PACKET_BYTES_MAX = HEADER_BYTES + 14 + 65535 + 4, /* one TSO frame with a VLAN tag */
    BATCH = 64,                                       /* packets before the other direction gets its turn */
    RX_CHAINS_MAX = 64,
    HOLD_BYTES_MIN = 16384, /* smaller packets are told at once */
    HOLD_PACKETS = 16,
    HOLD_NS = 30000,
    GSO_UDP_L4 = 5, /* VIRTIO_NET_HDR_GSO_UDP_L4 */
    TUN_USO4 = 0x20,
    TUN_USO6 = 0x40,
};

static bool merges(const struct net *n)
{
    return (n->device.accepted & NET_F(MRG_RXBUF)) != 0;
}

/* ---- offloads ---- */

static const struct {
    uint64_t feature;
    unsigned offload;
} offload_table[] = {
    {NET_F(GUEST_CSUM), TUN_F_CSUM},   {NET_F(GUEST_TSO4), TUN_F_TSO4}, {NET_F(GUEST_TSO6), TUN_F_TSO6},
    {NET_F(GUEST_ECN), TUN_F_TSO_ECN}, {NET_F(GUEST_UFO), TUN_F_UFO},   {NET_F_GUEST_USO4, TUN_USO4},
    {NET_F_GUEST_USO6, TUN_USO6},
};

uint64_t net_tap_features(int tap_fd)
{
    const uint64_t all = NET_F(CSUM) | NET_F(GUEST_CSUM) | NET_F(GUEST_TSO4) | NET_F(GUEST_TSO6) | NET_F(GUEST_ECN) |
                         NET_F(GUEST_UFO) | NET_F(HOST_TSO4) | NET_F(HOST_TSO6) | NET_F(HOST_ECN) | NET_F(HOST_UFO);
    const uint64_t uso = NET_F_GUEST_USO4 | NET_F_GUEST_USO6 | NET_F_HOST_USO;

    if (tap_fd < 0) /* what every tap has */
        return all;
    if (ioctl(tap_fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_USO4 | TUN_USO6) == 0)
        return all | uso;
    return all;
}

/* What depends on a feature that is missing is missing too (virtio 1.2, 5.1.3.1); the kernel refuses it otherwise. */
static unsigned long tap_offloads(uint64_t features)
{
    unsigned long offloads = 0;

    for (size_t i = 0; i < sizeof(offload_table) / sizeof(offload_table[0]); i++)
        if (features & offload_table[i].feature)
            offloads |= offload_table[i].offload;
    if (!(offloads & TUN_F_CSUM))
        return 0;
    if (!(offloads & (TUN_F_TSO4 | TUN_F_TSO6)))
        offloads &= ~(unsigned long)TUN_F_TSO_ECN;
    if ((offloads & (TUN_USO4 | TUN_USO6)) != (TUN_USO4 | TUN_USO6)) /* the kernel knows them together only */
        offloads &= ~(unsigned long)(TUN_USO4 | TUN_USO6);
    return offloads;
}

static int set_offloads(struct net *n)
{
    if (n->tap_fds[0] < 0)
        return 0;
    return ioctl(n->tap_fds[0], TUNSETOFFLOAD, tap_offloads(n->offloads)) < 0 ? -errno
                                                                              : 0; /* the device's, not a queue's */
}

/* Whether the driver takes a packet with this header. */
static bool acceptable(const struct net *n, const struct virtio_net_hdr *h)
{
    const uint64_t on = n->offloads;

    if ((h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) && !(on & NET_F(GUEST_CSUM)))
        return false;
    switch (h->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
    case VIRTIO_NET_HDR_GSO_NONE:
        return true;
    case VIRTIO_NET_HDR_GSO_TCPV4:
        return on & NET_F(GUEST_TSO4);
    case VIRTIO_NET_HDR_GSO_TCPV6:
        return on & NET_F(GUEST_TSO6);
    case VIRTIO_NET_HDR_GSO_UDP:
        return on & NET_F(GUEST_UFO);
    case GSO_UDP_L4:
        return on & (NET_F_GUEST_USO4 | NET_F_GUEST_USO6);
    default:
        return false;
    }
}

/* ---- pairs ---- */

static int set_pairs(struct net *n)
{
    for (unsigned i = 0; n->pairs > 1 && i < n->pairs; i++) {
        struct ifreq request = {.ifr_flags = i < n->active ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE};
        if (n->tap_fds[i] >= 0 && ioctl(n->tap_fds[i], TUNSETQUEUE, &request) < 0 && errno != EINVAL)
            return -errno; /* EINVAL: it is in that state already */
    }
    return 0;
}

static int start(struct net *n)
{
    int r = set_offloads(n);

    for (unsigned i = 0; i < n->pairs; i++)
        n->rx_starved[i] = true; /* a packet may be waiting since before there were buffers */
    return r < 0 ? r : set_pairs(n);
}

static void stop(struct net *n)
{
    memset(n->rx_starved, 0, sizeof(n->rx_starved));
    memset(n->held, 0, sizeof(n->held));
    set_pairs(n);
}

/* ---- data ---- */

static void transmit(struct net *n, unsigned pair)
{
    struct device *d = &n->device;
    struct virtqueue *q = net_tx(n, pair);
    struct virtqueue_chain chain;
    int r = 0;

    for (unsigned i = 0; i < BATCH && (r = virtqueue_pop(q, &chain)) > 0; i++) {
        bool fits = n->link_up && !n->cut && n->tap_fds[pair] >= 0 && chain.readable_bytes > HEADER_BYTES &&
                    chain.readable_bytes <= PACKET_BYTES_MAX;
        ssize_t sent = fits ? writev(n->tap_fds[pair], chain.segments, chain.readable) : -1;

        if (sent < 0) {
            n->counters.tx_dropped++; /* a full tap queue, or a header the kernel refuses: as a wire would */
        } else {
            n->counters.tx_packets++;
            n->counters.tx_bytes += (uint64_t)sent - HEADER_BYTES;
        }
        virtqueue_push(q, chain.head, 0);
    }
    device_publish(d, 2 * pair + 1);
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

static uint64_t packet_bytes_max(const struct net *n)
{
    const uint64_t merged =
        NET_F(GUEST_TSO4) | NET_F(GUEST_TSO6) | NET_F(GUEST_UFO) | NET_F_GUEST_USO4 | NET_F_GUEST_USO6;

    return n->offloads & merged || n->mtu > 1500 ? PACKET_BYTES_MAX : HEADER_BYTES + 14 + 1500 + 4;
}

/* A tap cuts a packet to the buffers it is given. They are enough when the largest packet fits, or when the driver
 * cannot do better: one chain a packet, or its whole ring. */
static bool enough(struct net *n, unsigned pair, const struct receive_buffers *b)
{
    return b->bytes > HEADER_BYTES &&
           (b->bytes >= packet_bytes_max(n) || !merges(n) || b->full || b->chain_count == RX_CHAINS_MAX ||
            b->chain_count == net_rx(n, pair)->address.size);
}

static int gather(struct net *n, unsigned pair, struct receive_buffers *b)
{
    struct virtqueue *q = net_rx(n, pair);
    const uint64_t wanted = packet_bytes_max(n);
    struct virtqueue_chain chain;

    b->segment_count = b->chain_count = 0;
    b->bytes = 0;
    b->full = false;
    while (b->bytes < wanted && b->chain_count < RX_CHAINS_MAX && (b->chain_count == 0 || merges(n))) {
        int r = virtqueue_pop(q, &chain);
        if (r < 0)
            return r;
        if (r == 0)
            break;
        if (chain.readable || b->segment_count + chain.writable > VIRTQUEUE_SEGMENT_MAX) {
            if (chain.readable)
                return device_fail(&n->device, "a receive buffer the device may not write"), -EPROTO;
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

/* Returns how many chains the packet filled. */
static unsigned give_back(struct virtqueue *q, struct receive_buffers *b, uint64_t length)
{
    unsigned used = 0;

    while (used < b->chain_count && length > 0) {
        uint64_t part = length < b->chains[used].bytes ? length : b->chains[used].bytes;
        virtqueue_push(q, b->chains[used++].head, (uint32_t)part);
        length -= part;
    }
    write_buffer_count(b, (uint16_t)used);
    for (unsigned i = used; i < b->chain_count; i++)
        virtqueue_unpop(q);
    return used;
}

/* The header as the kernel just wrote it, wherever the driver cut its buffers. */
static void read_header(const struct receive_buffers *b, struct virtio_net_hdr *ret)
{
    size_t done = 0;

    for (unsigned i = 0; i < b->segment_count && done < sizeof(*ret); i++) {
        size_t part = b->segments[i].iov_len;
        if (part > sizeof(*ret) - done)
            part = sizeof(*ret) - done;
        memcpy((uint8_t *)ret + done, b->segments[i].iov_base, part);
        done += part;
    }
    __asm__ volatile("" ::: "memory"); /* read once */
}

/* Reads one packet into *b. Returns the bytes for the driver, 0 when the packet is not for it, -1 when there is none.
 */
static ssize_t read_packet(struct net *n, unsigned pair, struct receive_buffers *b)
{
    ssize_t got = readv(n->tap_fds[pair], b->segments, (int)b->segment_count);
    struct virtio_net_hdr header;

    if (got <= HEADER_BYTES)
        return -1;
    read_header(b, &header);
    if (n->link_up && acceptable(n, &header)) {
        n->counters.rx_packets++;
        n->counters.rx_bytes += (uint64_t)got - HEADER_BYTES;
        return got;
    }
    n->counters.rx_dropped++;
    return 0;
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void tell(struct net *n, unsigned pair)
{
    n->held[pair].packets = n->held[pair].chains = 0;
    device_publish(&n->device, 2 * pair);
}

/* A packet of so many bytes in so many chains is in the ring: seen by a guest that looks, told one that sleeps. */
static void publish(struct net *n, unsigned pair, size_t bytes, unsigned chains)
{
    struct virtqueue *q = net_rx(n, pair);
    unsigned held = ++n->held[pair].packets;

    n->held[pair].chains += chains;
    if (bytes < HOLD_BYTES_MIN || held >= HOLD_PACKETS || virtqueue_left(q) <= n->held[pair].chains) {
        tell(n, pair);
        return;
    }
    virtqueue_publish(q);
    if (held == 1)
        n->held[pair].since_ns = now_ns();
}

static void settle(struct net *n)
{
    for (unsigned i = 0; i < n->pairs; i++)
        if (n->held[i].packets)
            tell(n, i);
}

static bool receive(struct net *n, unsigned pair)
{
    struct virtqueue *q = net_rx(n, pair);
    struct receive_buffers buffers;
    unsigned packets = 0;

    if (n->cut) /* what comes waits in the tap */
        return false;
    n->rx_starved[pair] = false;
    virtqueue_unstall(q);
    while (packets < BATCH && q->available && !q->broken && n->tap_fds[pair] >= 0) {
        if (gather(n, pair, &buffers) < 0)
            break;
        if (!enough(n, pair, &buffers)) {
            n->rx_starved[pair] = true;
            virtqueue_stall(q);
            give_back(q, &buffers, 0);
            break;
        }
        ssize_t got = read_packet(n, pair, &buffers);
        unsigned chains = give_back(q, &buffers, got > 0 ? (uint64_t)got : 0);
        if (got < 0)
            break;
        packets++;
        if (got > 0)
            publish(n, pair, (size_t)got, chains); /* each: the guest works on it while the next is read */
    }
    if (n->held[pair].packets && (n->rx_starved[pair] || now_ns() - n->held[pair].since_ns >= HOLD_NS))
        tell(n, pair);
    if (n->rx_starved[pair] && packets == 0)
        n->counters.rx_waits++;
    if (q->broken)
        device_fail(&n->device, q->broken);
    return packets > 0;
}

static void destroy(struct net *n)
{
    for (unsigned i = 0; i < n->pairs; i++)
        close_fd(n->tap_fds[i]);
}

const struct net_back_end net_tap = {
    .name = "tap",
    .moves_data = true,
    .start = start,
    .stop = stop,
    .set_offloads = set_offloads,
    .set_pairs = set_pairs,
    .transmit = transmit,
    .receive = receive,
    .settle = settle,
    .destroy = destroy,
};
