/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each virtio-net device as a lwIP interface. Theory of operation:
 *
 * The machine's network devices are eth0, eth1, ... in their order, each with queues, offloads, addresses of its own
 * (struct nic), in memory that is taken only for devices that are there. Receive buffers are all of one size and, once
 * lwIP lets go of them, anybody's.
 *
 * Offloads both ways. lwIP is told of segments of up to 65,000 bytes; what leaves here larger than the wire takes
 * carries a header that asks the host to cut it (virtio 1.2, 5.1.6.2), what comes was merged by the host. The peer must
 * not learn of such segments: the MSS option of a SYN is rewritten, to the wire's when it leaves and to lwIP's when it
 * comes, but only when the peer can take full-size segments. Checksums: the host finishes ours and has checked or will
 * not need the peer's, packet by packet as the header says; a packet that says nothing is checked by lwIP (offloads may
 * differ in the two directions). Memory: a receive buffer holds the largest packet, so that one merged packet is one
 * descriptor and one pbuf, where the guest has memory for that, and is a page where it has not. lwIP keeps a buffer as
 * long as it likes, but not for a small packet: that one is copied, and the buffer, of which one page was touched, goes
 * straight back. The ring is refilled from the heap, and when that runs out packets are dropped and their buffers go
 * back, so the ring never runs dry for good.
 */
#include "unikernel.h"

#include "lwip/dhcp.h"
#include "lwip/etharp.h"
#include "lwip/ethip6.h"
#include "lwip/inet_chksum.h"
#include "lwip/init.h"
#include "lwip/ip4_frag.h"
#include "lwip/ip6_frag.h"
#include "lwip/nd6.h"
#include "lwip/priv/nd6_priv.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/tcp.h"
#include "lwip/timeouts.h"
#include "lwip/udp.h"
#include "netif/ethernet.h"

#include "../platform.h"

/* Feature bits (virtio 1.2, 5.1.3). */
#define F_CSUM       (UINT64_C(1) << 0)
#define F_GUEST_CSUM (UINT64_C(1) << 1)
#define F_MAC        (UINT64_C(1) << 5)
#define F_GUEST_TSO4 (UINT64_C(1) << 7)
#define F_GUEST_TSO6 (UINT64_C(1) << 8)
#define F_HOST_TSO4  (UINT64_C(1) << 11)
#define F_HOST_TSO6  (UINT64_C(1) << 12)
#define F_MRG_RXBUF  (UINT64_C(1) << 15)

enum { NEEDS_CSUM = 1, DATA_VALID = 2, GSO_NONE = 0, GSO_TCPV4 = 1, GSO_TCPV6 = 4, KIND_NET = 1 };
enum { TRANSPORT_CHECKSUMS = NETIF_CHECKSUM_GEN_TCP | NETIF_CHECKSUM_GEN_UDP };
enum {
    WIRE_MTU = 1500,
    MSS4 = WIRE_MTU - 40,
    MSS6 = WIRE_MTU - 60,
    ETHERNET = 14,
    PAGE = 4096,
    RX_LARGE = 17 * PAGE,    /* header and the largest packet */
    RX_LARGE_POSTED = 32,    /* more would not stay in the processor's cache */
    RX_SMALL_POSTED = 128,   /* pages: seven largest packets, */
    RX_SMALL_LEAST = 24,     /* and not less than one: a host may wait until there is room for it */
    RX_SHARE = 4,            /* of a small guest's memory one part in so many is for large buffers */
    RX_COPY_MAX = 2048 - 64, /* up to here copying is cheaper than a buffer */
    TX_SEGMENTS_MAX = 64,
    POLL_BATCH = 64,
    REHEARSED_BUFFERS = 4,
    BULK_BYTES = 256 * 1024,
};

struct net_header {
    uint8_t flags, gso_type;
    uint16_t header_length, gso_size, checksum_start, checksum_offset, buffer_count;
};

/* A buffer in the receive ring, and afterwards a pbuf of lwIP: the bookkeeping has its own little block. */
struct rx_buffer {
    struct pbuf_custom pbuf;
    uint8_t *bytes;
    struct rx_buffer *next;
};

struct tx_slot {
    struct net_header header;
    struct pbuf *packet;
    struct tx_slot *next;
};

struct nic {
    struct netif netif; /* its state is this */
    struct virtio device;
    unsigned index;              /* N of ethN */
    unsigned header_bytes;       /* of struct net_header: a legacy device without mergeable buffers has no count */
    uint16_t software_checksums; /* lwIP's flags for what the device does not do */
    unsigned rx_posted;          /* buffers in the ring */
    struct virtq rx, tx;
    struct tx_slot *free_slots;
    struct tx_slot slots[VQ_SIZE];
};

static struct nic *nics[NET_MAX];
static unsigned nic_count;
static struct rx_buffer *spare_buffers;
static unsigned rx_wanted; /* buffers in each ring, */
static uint32_t rx_bytes;  /* of this size */
static uint64_t packet_time;
static uint64_t recent_bytes; /* received; halved by each net_rested() */

uint64_t net_received_at(void)
{
    return packet_time;
}

bool net_is_bulk(void)
{
    return recent_bytes >= BULK_BYTES;
}

void net_rested(void)
{
    recent_bytes /= 2;
}

/* ---- receive ---- */

static void rx_free(struct pbuf *p)
{
    struct rx_buffer *buffer = (struct rx_buffer *)(void *)p;

    buffer->next = spare_buffers;
    spare_buffers = buffer;
}

static struct rx_buffer *rx_new(void)
{
    struct rx_buffer *buffer = spare_buffers;

    if (buffer) {
        spare_buffers = buffer->next;
        return buffer;
    }
    buffer = unikernel_malloc(sizeof(*buffer));
    if (!buffer)
        return NULL;
    buffer->bytes = heap_pages(rx_bytes / PAGE);
    buffer->pbuf.custom_free_function = rx_free;
    if (buffer->bytes)
        return buffer;
    unikernel_free(buffer);
    return NULL;
}

static bool rx_post(struct nic *n, struct rx_buffer *buffer)
{
    const struct virtq_segment segment = {buffer->bytes, rx_bytes, true};

    if (!virtq_add(&n->rx, &segment, 1, buffer))
        return false;
    n->rx_posted++;
    return true;
}

static void rx_refill(struct nic *n)
{
    while (n->rx_posted < rx_wanted) {
        struct rx_buffer *buffer = rx_new();
        if (!buffer)
            break;
        if (!rx_post(n, buffer)) {
            rx_free(&buffer->pbuf.pbuf);
            break;
        }
    }
    virtq_publish(&n->rx);
}

/* Each device has an equal part of the share. */
static void rx_choose_size(void)
{
    uint64_t share = heap_left() / RX_SHARE / nic_count, large = share / RX_LARGE, small = share / PAGE;

    rx_bytes = large < 8 ? PAGE : RX_LARGE;
    if (large < 8)
        rx_wanted = small > RX_SMALL_POSTED  ? RX_SMALL_POSTED
                    : small < RX_SMALL_LEAST ? RX_SMALL_LEAST
                                             : (unsigned)small;
    else
        rx_wanted = large < RX_LARGE_POSTED ? (unsigned)large : RX_LARGE_POSTED;
}

static struct pbuf *as_pbuf(struct rx_buffer *buffer, uint32_t length, unsigned skip)
{
    struct pbuf *p = pbuf_alloced_custom(PBUF_RAW, 0, PBUF_REF, &buffer->pbuf, buffer->bytes, 0);

    p->payload = buffer->bytes + skip;
    p->len = p->tot_len = (u16_t)(length - skip);
    return p;
}

static void drop(struct nic *n, struct rx_buffer *buffer)
{
    if (!rx_post(n, buffer))
        rx_free(&buffer->pbuf.pbuf);
}

/* A small packet in memory of its own; its buffer is back in the ring. */
static struct pbuf *rx_copy(struct nic *n, struct rx_buffer *buffer, unsigned length, unsigned skip)
{
    struct pbuf *p = pbuf_alloc(PBUF_RAW, (u16_t)(length - skip), PBUF_RAM);

    if (p)
        memcpy(p->payload, buffer->bytes + skip, length - skip);
    drop(n, buffer);
    return p;
}

/* The rest of a packet that fills several buffers, behind first; what does not fit into a pbuf is cut, which IP
 * notices. */
static void rx_take_rest(struct nic *n, struct pbuf *first, unsigned count)
{
    struct pbuf *last = first;
    uint32_t length;

    for (unsigned i = 1; i < count; i++) {
        struct rx_buffer *buffer = virtq_take(&n->rx, &length);
        if (!buffer)
            return;
        n->rx_posted--;
        if (first->tot_len + length > UINT16_MAX) {
            drop(n, buffer);
            continue;
        }
        last->next = as_pbuf(buffer, length, 0);
        for (struct pbuf *p = first; p != last->next; p = p->next)
            p->tot_len = (u16_t)(p->tot_len + length);
        last = last->next;
    }
}

/* One packet, as one chain. NULL: there was none; *ret_more: there may be more. */
static struct pbuf *rx_take(struct nic *n, struct net_header *ret_header, bool *ret_more)
{
    const unsigned skip = n->header_bytes;
    uint32_t length;
    struct rx_buffer *buffer = virtq_take(&n->rx, &length);
    struct pbuf *first;

    *ret_more = buffer != NULL;
    if (!buffer)
        return NULL;
    n->rx_posted--;
    __builtin_memcpy(ret_header, buffer->bytes, sizeof(*ret_header));
    if (!(n->device.features & F_MRG_RXBUF))
        ret_header->buffer_count = 1;
    if (length <= skip || length - skip > UINT16_MAX) {
        drop(n, buffer);
        return NULL;
    }
    if (ret_header->buffer_count <= 1 && length <= RX_COPY_MAX)
        return rx_copy(n, buffer, length, skip);
    first = as_pbuf(buffer, length, skip);
    rx_take_rest(n, first, ret_header->buffer_count);
    return first;
}

/* Offset of the TCP header behind Ethernet and IP without extension headers, 0 when it is not TCP or is a fragment. */
static unsigned tcp_offset(const uint8_t *frame, unsigned length, bool *ret_v6)
{
    if (length >= ETHERNET + 40 && frame[12] == 0x08 && frame[13] == 0x00) {
        unsigned header = (frame[14] & 15) * 4u;
        bool fragment = (frame[20] & 0x3f) != 0 || frame[21] != 0;
        *ret_v6 = false;
        return frame[23] == IP_PROTO_TCP && !fragment && header >= 20 && length >= ETHERNET + header + 20
                   ? ETHERNET + header
                   : 0;
    }
    *ret_v6 = true;
    return length >= ETHERNET + 60 && frame[12] == 0x86 && frame[13] == 0xdd && frame[20] == IP_PROTO_TCP
               ? ETHERNET + 40
               : 0;
}

/* The MSS option's value of a SYN (RFC 9293, 3.2), or NULL. */
static uint8_t *mss_option(uint8_t *tcp, unsigned length)
{
    unsigned end = (tcp[12] >> 4) * 4u;

    if (!(tcp[13] & TCP_SYN) || end > length)
        return NULL;
    for (unsigned i = 20; i + 1 < end && tcp[i] != 0;) {
        if (tcp[i] == 1) {
            i++;
            continue;
        }
        if (tcp[i] == 2 && tcp[i + 1] == 4 && i + 4 <= end)
            return tcp + i + 2;
        if (tcp[i + 1] < 2)
            return NULL;
        i += tcp[i + 1];
    }
    return NULL;
}

/* Changes a 16-bit word and the checksum that covers it (RFC 1624). The word may stand at an odd offset. */
static void replace_word(uint8_t *tcp, uint8_t *word, uint16_t value, bool fix_checksum)
{
    uint8_t before[2] = {word[0], word[1]};
    uint32_t sum;

    word[0] = (uint8_t)(value >> 8);
    word[1] = (uint8_t)value;
    if (!fix_checksum)
        return;
    bool odd = ((word - tcp) & 1) != 0;
    uint16_t old_word = (uint16_t)(odd ? before[1] << 8 | before[0] : before[0] << 8 | before[1]);
    uint16_t new_word = (uint16_t)(odd ? word[1] << 8 | word[0] : word[0] << 8 | word[1]);
    sum = (uint16_t) ~(tcp[16] << 8 | tcp[17]);
    sum += (uint16_t)~old_word;
    sum += new_word;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    tcp[16] = (uint8_t)(~sum >> 8);
    tcp[17] = (uint8_t)~sum;
}

static void rx_rewrite_mss(const struct nic *n, struct pbuf *p, bool checked)
{
    uint8_t *frame = p->payload, *mss;
    bool v6;
    unsigned at = tcp_offset(frame, p->len, &v6);

    if (!at || !(n->device.features & (v6 ? F_HOST_TSO6 : F_HOST_TSO4)))
        return;
    mss = mss_option(frame + at, p->len - at);
    if (mss && (mss[0] << 8 | mss[1]) >= (v6 ? MSS6 : MSS4))
        replace_word(frame + at, mss, TCP_MSS, !checked);
}

/* Nothing is left to fill the ring with: what comes is dropped until lwIP lets go of buffers. */
static bool rx_exhausted(const struct nic *n)
{
    return n->rx_posted < rx_wanted / 3 && !spare_buffers && heap_left() < rx_bytes + PAGE;
}

static void rx_give(struct nic *n, struct pbuf *p, const struct net_header *header)
{
    bool checked = (header->flags & (NEEDS_CSUM | DATA_VALID)) != 0;

    rx_rewrite_mss(n, p, checked);
    NETIF_SET_CHECKSUM_CTRL(&n->netif,
                            checked ? NETIF_CHECKSUM_CHECK_IP | NETIF_CHECKSUM_CHECK_ICMP | NETIF_CHECKSUM_CHECK_ICMP6 |
                                          NETIF_CHECKSUM_GEN_IP | NETIF_CHECKSUM_GEN_ICMP | NETIF_CHECKSUM_GEN_ICMP6 |
                                          n->software_checksums
                                    : (NETIF_CHECKSUM_ENABLE_ALL & ~TRANSPORT_CHECKSUMS) | n->software_checksums);
    if (ethernet_input(p, &n->netif) != ERR_OK)
        pbuf_free(p);
}

static bool receive(struct nic *n)
{
    struct net_header header;
    bool more = true;
    unsigned i;

    for (i = 0; i < POLL_BATCH; i++) {
        struct pbuf *p = rx_take(n, &header, &more);

        if (!more)
            break;
        if (!p)
            continue;
        packet_time = nf_wall_clock();
        recent_bytes += p->tot_len;
        if (rx_exhausted(n))
            pbuf_free(p); /* its buffers are spare ones now; the wire is asked again by whoever cares */
        else
            rx_give(n, p, &header);
        virtq_publish(&n->tx); /* an answer does not wait for what came behind its question */
        if (n->rx_posted < rx_wanted / 2)
            rx_refill(n);
    }
    if (i)
        rx_refill(n);
    return i > 0;
}

/* ---- transmit ---- */

static bool reap(struct nic *n)
{
    struct tx_slot *slot;
    uint32_t length;
    bool worked = false;

    while ((slot = virtq_take(&n->tx, &length)) != NULL) {
        pbuf_free(slot->packet);
        slot->next = n->free_slots;
        n->free_slots = slot;
        worked = true;
    }
    return worked;
}

static uint16_t pseudo_sum(const uint8_t *frame, bool v6, unsigned protocol, unsigned length)
{
    const uint8_t *from = frame + ETHERNET + (v6 ? 8 : 12);
    uint32_t sum = protocol + length;

    for (unsigned i = 0; i < (v6 ? 32u : 8u); i += 2)
        sum += (uint32_t)(from[i] << 8 | from[i + 1]);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)((sum & 0xffff) + (sum >> 16));
}

/* Where the transport header is and of which kind; 0 when the checksum is none of ours (fragments, ICMP, ARP). */
static unsigned transport_offset(const uint8_t *frame, unsigned length, bool *ret_v6, unsigned *ret_protocol)
{
    unsigned at = tcp_offset(frame, length, ret_v6);

    *ret_protocol = IP_PROTO_TCP;
    if (at)
        return at;
    *ret_protocol = IP_PROTO_UDP;
    if (length >= ETHERNET + 28 && frame[12] == 0x08 && frame[13] == 0 && frame[23] == IP_PROTO_UDP &&
        (frame[20] & 0x3f) == 0 && frame[21] == 0)
        return *ret_v6 = false, ETHERNET + (frame[14] & 15) * 4u;
    if (length >= ETHERNET + 48 && frame[12] == 0x86 && frame[13] == 0xdd && frame[20] == IP_PROTO_UDP)
        return *ret_v6 = true, ETHERNET + 40u;
    return 0;
}

static void tx_fill_header(const struct nic *n, struct net_header *h, struct pbuf *p)
{
    uint8_t *frame = p->payload, *mss;
    unsigned protocol;
    bool v6 = false;
    unsigned at = transport_offset(frame, p->len, &v6, &protocol);

    __builtin_memset(h, 0, sizeof(*h));
    if (!at)
        return;
    if (protocol == IP_PROTO_TCP && (mss = mss_option(frame + at, p->len - at)) != NULL) {
        uint16_t wire = v6 ? MSS6 : MSS4;
        replace_word(frame + at, mss, wire, n->software_checksums != 0);
    }
    if (n->software_checksums)
        return;
    unsigned field = at + (protocol == IP_PROTO_TCP ? 16u : 6u);
    uint16_t sum = pseudo_sum(frame, v6, protocol, p->tot_len - at);
    frame[field] = (uint8_t)(sum >> 8);
    frame[field + 1] = (uint8_t)sum;
    h->flags = NEEDS_CSUM;
    h->checksum_start = (uint16_t)at;
    h->checksum_offset = (uint16_t)(field - at);
    if (protocol == IP_PROTO_TCP && p->tot_len > ETHERNET + WIRE_MTU) {
        h->gso_type = v6 ? GSO_TCPV6 : GSO_TCPV4;
        h->gso_size = v6 ? MSS6 : MSS4;
        h->header_length = (uint16_t)(at + (frame[at + 12] >> 4) * 4u);
    }
}

static err_t transmit(struct netif *netif, struct pbuf *p)
{
    struct virtq_segment segments[TX_SEGMENTS_MAX];
    struct nic *n = netif->state;
    struct tx_slot *slot;
    unsigned count = 1;

    if (!n->free_slots || n->tx.free_count < TX_SEGMENTS_MAX)
        reap(n);
    slot = n->free_slots;
    if (!slot)
        return ERR_MEM;
    for (struct pbuf *q = p; q; q = q->next) {
        if (q->len == 0)
            continue;
        if (count == TX_SEGMENTS_MAX)
            return ERR_BUF;
        segments[count++] = (struct virtq_segment){q->payload, q->len, false};
    }
    tx_fill_header(n, &slot->header, p);
    segments[0] = (struct virtq_segment){&slot->header, n->header_bytes, false};
    if (!virtq_add(&n->tx, segments, count, slot))
        return ERR_MEM;
    pbuf_ref(p);
    slot->packet = p;
    n->free_slots = slot->next;
    return ERR_OK;
}

/* The interface's MTU is that of super-segments; what is not TCP is cut here to the wire's. */
static err_t output4(struct netif *netif, struct pbuf *p, const ip4_addr_t *to)
{
    const struct ip_hdr *h = p->payload;
    err_t r;

    if (p->tot_len <= WIRE_MTU || IPH_PROTO(h) == IP_PROTO_TCP)
        return etharp_output(netif, p, to);
    netif->mtu = WIRE_MTU;
    r = ip4_frag(p, netif, to);
    netif->mtu = UINT16_MAX;
    return r;
}

/* A datagram to be cut has its checksum now: the host finishes those of whole packets only. */
static void finish_checksum6(struct pbuf *p)
{
    struct ip6_hdr *h = p->payload;
    ip6_addr_t from, to;
    uint16_t sum;

    if (IP6H_NEXTH(h) != IP6_NEXTH_UDP || p->len < IP6_HLEN + 8)
        return;
    ip6_addr_copy_from_packed(from, h->src);
    ip6_addr_copy_from_packed(to, h->dest);
    uint8_t *field = (uint8_t *)p->payload + IP6_HLEN + 6;
    field[0] = field[1] = 0;
    pbuf_remove_header(p, IP6_HLEN);
    sum = ip6_chksum_pseudo(p, IP6_NEXTH_UDP, p->tot_len, &from, &to);
    pbuf_add_header(p, IP6_HLEN);
    sum = sum ? sum : 0xffff;
    memcpy(field, &sum, sizeof(sum));
}

/* lwIP keeps the interface's MTU of super-segments for each destination, and would cut to that. */
static void forget_path_mtu(const ip6_addr_t *to)
{
    for (unsigned i = 0; i < LWIP_ND6_NUM_DESTINATIONS; i++)
        if (ip6_addr_cmp(to, &destination_cache[i].destination_addr))
            destination_cache[i].pmtu = 0;
}

/* lwIP remembers by the destination alone whom a packet is handed to: that may be a neighbour of another interface. */
static void forget_other_hop(const struct netif *netif, const ip6_addr_t *to)
{
    for (unsigned i = 0; i < LWIP_ND6_NUM_DESTINATIONS; i++) {
        struct nd6_destination_cache_entry *e = &destination_cache[i];

        for (unsigned j = 0; ip6_addr_cmp(to, &e->destination_addr) && j < LWIP_ND6_NUM_NEIGHBORS; j++)
            if (neighbor_cache[j].netif != netif &&
                ip6_addr_cmp(&e->next_hop_addr, &neighbor_cache[j].next_hop_address))
                ip6_addr_set_any(&e->destination_addr);
    }
}

static err_t output6(struct netif *netif, struct pbuf *p, const ip6_addr_t *to)
{
    const struct ip6_hdr *h = p->payload;
    err_t r;

    if (nic_count > 1)
        forget_other_hop(netif, to);
    if (p->tot_len <= WIRE_MTU || IP6H_NEXTH(h) == IP_PROTO_TCP)
        return ethip6_output(netif, p, to);
    finish_checksum6(p);
    forget_path_mtu(to);
    netif->mtu = netif->mtu6 = WIRE_MTU;
    r = ip6_frag(p, netif, to);
    netif->mtu = netif->mtu6 = UINT16_MAX;
    return r;
}

/* ---- life ---- */

static err_t interface_init(struct netif *netif)
{
    const struct nic *n = netif->state;

    netif->name[0] = 'e';
    netif->name[1] = 't';
    netif->num = (u8_t)n->index;
    netif->output = output4;
    netif->output_ip6 = output6;
    netif->linkoutput = transmit;
    netif->mtu = UINT16_MAX;
    netif->mtu6 = UINT16_MAX;
    NETIF_SET_CHECKSUM_CTRL(netif, (NETIF_CHECKSUM_ENABLE_ALL & ~TRANSPORT_CHECKSUMS) | n->software_checksums);
    netif->hwaddr_len = 6;
    netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET | NETIF_FLAG_LINK_UP;
    return ERR_OK;
}

/* What is asked of a device that offers `offered`. Merged packets need buffers that merge; the host's segmentation
 * needs its checksums (virtio 1.2, 5.1.3.1). */
static uint64_t choose_features(uint64_t offered)
{
    uint64_t wanted =
        F_CSUM | F_GUEST_CSUM | F_MAC | F_GUEST_TSO4 | F_GUEST_TSO6 | F_HOST_TSO4 | F_HOST_TSO6 | F_MRG_RXBUF;

    if (!(offered & F_MRG_RXBUF) || !(offered & F_GUEST_CSUM))
        wanted &= ~(F_GUEST_TSO4 | F_GUEST_TSO6);
    if (!(offered & F_CSUM))
        wanted &= ~(F_HOST_TSO4 | F_HOST_TSO6);
    return wanted & offered;
}

static bool nic_begin(struct nic *n, uint64_t address, uint64_t offered)
{
    if (!virtio_begin(&n->device, address, KIND_NET, choose_features(offered)) ||
        !virtio_queue(&n->device, &n->rx, 0) || !virtio_queue(&n->device, &n->tx, 1))
        return false;
    n->device.acknowledge = !(boot.flags & BOOT_DIRECT);
    n->header_bytes = n->device.legacy && !(n->device.features & F_MRG_RXBUF) ? 10 : sizeof(struct net_header);
    n->software_checksums = n->device.features & F_CSUM ? 0 : TRANSPORT_CHECKSUMS;
    for (unsigned i = 0; i < VQ_SIZE; i++) {
        n->slots[i].next = n->free_slots;
        n->free_slots = &n->slots[i];
    }
    return true;
}

/* A device that cannot be used keeps its number: the next one is not taken for it. */
static void find_devices(const struct net_config config[NET_MAX])
{
    unsigned index = 0;

    for (uint32_t i = 0; i < boot.device_count && i < BOOT_DEVICE_MAX && index < NET_MAX; i++) {
        uint64_t address = boot.devices[i].address, offered = virtio_offers(address, KIND_NET);
        struct nic *n;

        if (!offered)
            continue;
        n = unikernel_calloc(1, sizeof(*n));
        if (n && nic_begin(n, address, offered & ~config[index].declined)) {
            n->index = index;
            nics[nic_count++] = n;
        } else {
            nf_print(NF_LOG, "eth%u: the device cannot be used\n", index);
            unikernel_free(n);
        }
        index++;
    }
}

/* Addresses for all; those that nothing is there for are told. */
static void configure(const struct net_config config[NET_MAX])
{
    for (unsigned i = 0, k = 0; i < NET_MAX; i++) {
        if (k < nic_count && nics[k]->index == i) {
            for (unsigned j = 0; j < 6; j++)
                nics[k]->netif.hwaddr[j] = virtio_config(&nics[k]->device, j);
            net_configure(&nics[k++]->netif, &config[i], i);
        } else if (nic_count && net_is_configured(&config[i])) {
            nf_print(NF_LOG, "network: eth%u is configured, but there is no such device\n", i);
        }
    }
}

bool net_init(const struct net_config config[NET_MAX])
{
    lwip_init();
    find_devices(config);
    if (!nic_count)
        return false;
    rx_choose_size();
    /* lwIP puts each before the others, and looks at eth0 first then. */
    for (unsigned i = nic_count; i-- > 0;) {
        struct nic *n = nics[i];

        rx_refill(n);
        virtio_ready(&n->device);
        virtq_interrupts(&n->tx, false);
        netif_add_noaddr(&n->netif, n, interface_init, ethernet_input);
    }
    configure(config);
    return true;
}

/* Whoever was known is forgotten; connections of the former address end with it (netif_set_addr), listening sockets
 * of any address stay. */
static void forget(struct netif *netif)
{
    dhcp_release_and_stop(netif);
    etharp_cleanup_netif(netif);
    nd6_cleanup_netif(netif);
    netif_set_addr(netif, IP4_ADDR_ANY4, IP4_ADDR_ANY4, IP4_ADDR_ANY4);
    for (s8_t i = 0; i < LWIP_IPV6_NUM_ADDRESSES; i++) {
        netif_ip6_addr_set_state(netif, i, IP6_ADDR_INVALID);
        netif_ip6_addr_set(netif, i, IP6_ADDR_ANY6);
    }
}

void net_restored(const struct net_config config[NET_MAX])
{
    netif_set_default(NULL);
    for (unsigned i = 0; i < nic_count; i++)
        forget(&nics[i]->netif);
    configure(config);
    for (unsigned i = 0; i < nic_count; i++)
        virtq_notify(&nics[i]->rx); /* packets may have come before the guest was somebody */
}

/* A SYN that somebody's neighbour sends to a port where nobody listens (discard, RFC 863). */
static void rehearse_packet(struct nic *n, const uint8_t from[6])
{
    static const uint8_t packet[40] = {0x45, 0,       0,    40,   0,   0, 0, 0, 64, IP_PROTO_TCP,
                                       0,    0, /* a header without options, one without its sum */
                                       192,  0,       2,    1,    192, 0, 2, 2, /* from, to */
                                       0,    9,       0,    9,    0,   0, 0, 0, 0,  0,
                                       0,    0, /* ports, sequence numbers */
                                       0x50, TCP_SYN, 0xff, 0xff, 0,   0, 0, 0};
    const struct net_header checked = {.flags = DATA_VALID};
    uint8_t frame[ETHERNET + sizeof(packet)] = {[12] = 0x08};
    struct pbuf *p;
    uint16_t sum;

    memcpy(frame, n->netif.hwaddr, 6);
    memcpy(frame + 6, from, 6);
    memcpy(frame + ETHERNET, packet, sizeof(packet));
    sum = inet_chksum(frame + ETHERNET, 20);
    memcpy(frame + ETHERNET + 10, &sum, sizeof(sum));
    p = pbuf_alloc(PBUF_RAW, sizeof(frame), PBUF_RAM);
    if (!p)
        return;
    memcpy(p->payload, frame, sizeof(frame));
    rx_give(n, p, &checked);
}

/* Nothing comes in meanwhile, so the buffers are the driver's to write to. */
static void rehearse_buffers(struct nic *n)
{
    for (unsigned i = 0; i < REHEARSED_BUFFERS; i++) {
        const struct rx_buffer *buffer = n->rx.tokens[i];
        if (buffer)
            *(volatile uint8_t *)buffer->bytes = 0;
    }
}

/* Addresses of nobody (RFC 5737), and a gateway that need not be asked for. */
void net_rehearse(const struct net_config config[NET_MAX])
{
    static const struct net_config somebody = {
        .ip4 = "192.0.2.2/24", .gateway4 = "192.0.2.1", .ip6 = "none", .gateway_mac = "02:00:00:00:00:01"};
    static const uint8_t gateway[6] = {2, 0, 0, 0, 0, 1};
    struct net_config other[NET_MAX] = {0};

    for (unsigned i = 0; i < nic_count; i++)
        other[nics[i]->index] = somebody;
    net_restored(other);
    for (unsigned i = 0; i < nic_count; i++) {
        rehearse_buffers(nics[i]);
        rehearse_packet(nics[i], gateway);
    }
    net_flush();
    net_restored(config);
}

bool net_poll(void)
{
    bool worked = false;

    for (unsigned i = 0; i < nic_count; i++) {
        worked |= receive(nics[i]);
        worked |= reap(nics[i]);
    }
    net_flush();
    return worked;
}

void net_flush(void)
{
    for (unsigned i = 0; i < nic_count; i++)
        virtq_publish(&nics[i]->tx);
}

void net_interrupts(bool on)
{
    for (unsigned i = 0; i < nic_count; i++) {
        virtq_interrupts(&nics[i]->rx, on);
        if (on)
            virtio_acknowledge(&nics[i]->device);
    }
}
