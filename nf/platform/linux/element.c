/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets of an element in a Linux process: one AF_PACKET socket on each port, in epoll's loop. Each packet comes and
 * goes with its virtio-net header (PACKET_VNET_HDR), so that super-segments and unfinished checksums pass through as
 * they do in a VM. The kernel's own stack sees the packets too; a namespace without addresses drops them.
 */
#include "../element.h"
#include "internal.h"
#include <errno.h>
#include <net/if.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

/* linux/if_packet.h is a kernel header, which musl has not. */
enum { LEVEL_PACKET = 263, SET_AUXILIARY = 8, SET_VNET_HEADER = 15, SET_IGNORE_OUTGOING = 23, ETH_ALL = 3, ETHER_TYPE = 1 };

struct packet_address {
    uint16_t family, protocol;
    int32_t interface;
    uint16_t hardware;
    uint8_t type, length, address[8];
};

struct vnet_header {
    uint8_t flags, gso_type;
    uint16_t header_length, gso_size, checksum_start, checksum_offset;
};
enum { NEEDS_CHECKSUM = 1 };

/* What comes beside a packet: the kernel takes a VLAN's tag out of the frame. */
struct auxiliary {
    uint32_t status, length, captured;
    uint16_t mac, net, vlan, vlan_type;
};
enum { VLAN_VALID = 1 << 4, VLAN_TAG = 4 };

enum { BATCH = 32, BYTES_MAX = 65536 + 64, ROUNDS = 4 };

struct port {
    struct source source;
    uint8_t index;
};

static struct port ports[NFV_PORT_MAX];
static unsigned port_count;
static struct vnet_header headers[BATCH];
static uint8_t bytes[BATCH][BYTES_MAX]; /* touched as far as packets reach */

static void send_one(const struct nfv_packet *p, struct vnet_header *h)
{
    struct iovec parts[2] = {{h, sizeof(*h)}, {p->data, p->length}};

    h->flags &= NEEDS_CHECKSUM;
    if (p->out >= port_count || writev(ports[p->out].source.fd, parts, 2) < 0)
        element_unsent++;
}

/* Puts the tag where it was; the frame was read behind room for it. */
static uint8_t *restore_tag(struct msghdr *m, uint8_t *frame, struct vnet_header *h)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        struct auxiliary a;
        if (c->cmsg_level != LEVEL_PACKET || c->cmsg_type != SET_AUXILIARY || c->cmsg_len < CMSG_LEN(sizeof(a)))
            continue;
        memcpy(&a, CMSG_DATA(c), sizeof(a));
        if (!(a.status & VLAN_VALID))
            continue;
        memmove(frame - VLAN_TAG, frame, 12);
        frame -= VLAN_TAG;
        frame[12] = (uint8_t)(a.vlan_type >> 8);
        frame[13] = (uint8_t)a.vlan_type;
        frame[14] = (uint8_t)(a.vlan >> 8);
        frame[15] = (uint8_t)a.vlan;
        h->checksum_start = (uint16_t)(h->checksum_start + VLAN_TAG);
        break;
    }
    return frame;
}

/* The nth packet of a batch; false: there is none. */
static bool take(const struct port *port, unsigned n, struct nfv_packet *ret)
{
    struct vnet_header *h = &headers[n];
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(sizeof(struct auxiliary))];
    } control;
    struct iovec parts[2] = {{h, sizeof(*h)}, {bytes[n] + VLAN_TAG, BYTES_MAX - VLAN_TAG}};
    struct msghdr m = {.msg_iov = parts, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof(control)};
    ssize_t got = recvmsg(port->source.fd, &m, 0);

    if (got < (ssize_t)sizeof(*h))
        return false;
    uint8_t *frame = restore_tag(&m, bytes[n] + VLAN_TAG, h);
    uint32_t length = (uint32_t)(got - (ssize_t)sizeof(*h) + (bytes[n] + VLAN_TAG - frame));
    *ret = (struct nfv_packet){.data = frame, .length = length, .total = length, .segment = h->gso_type ? h->gso_size : 0,
        .in = port->index, .out = NFV_DROP, .unfinished = h->flags & NEEDS_CHECKSUM};
    return true;
}

static void on_ready(struct source *source, uint32_t events)
{
    struct port *port = (struct port *)source;
    struct nfv_packet packets[BATCH];

    (void)events;
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned n = 0;
        while (n < BATCH && take(port, n, &packets[n]))
            n++;
        if (!n)
            return;
        element_batch(packets, n);
        for (unsigned i = 0; i < n; i++)
            if (packets[i].out != NFV_DROP)
                send_one(&packets[i], &headers[i]);
        if (n < BATCH)
            return;
    }
}

static int open_port(const char *name, struct port *port, struct nfv_port *ret)
{
    static const int on = 1, room = 4 << 20;
    struct packet_address at = {.family = AF_PACKET, .protocol = htons(ETH_ALL)};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct ifreq r = {0};

    if (fd < 0)
        return -errno;
    memcpy(r.ifr_name, name, strlen(name));
    if (ioctl(fd, SIOCGIFINDEX, &r) < 0)
        return -errno;
    at.interface = r.ifr_ifindex;
    if (ioctl(fd, SIOCGIFHWADDR, &r) < 0 || r.ifr_hwaddr.sa_family != ETHER_TYPE)
        return -ENODEV;
    memcpy(ret->mac, r.ifr_hwaddr.sa_data, 6);
    if (ioctl(fd, SIOCGIFMTU, &r) < 0)
        return -errno;
    ret->mtu = (uint16_t)r.ifr_mtu;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
    if (setsockopt(fd, LEVEL_PACKET, SET_VNET_HEADER, &on, sizeof(on)) < 0 ||
        setsockopt(fd, LEVEL_PACKET, SET_AUXILIARY, &on, sizeof(on)) < 0 ||
        setsockopt(fd, LEVEL_PACKET, SET_IGNORE_OUTGOING, &on, sizeof(on)) < 0 ||
        bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
        return -errno;
    port->source.fd = fd;
    port->source.ready = on_ready;
    return 0;
}

int element_ports_open(const char *names, unsigned count, struct nfv_port *ret_ports)
{
    for (unsigned i = 0; i < count; i++) {
        char name[IF_NAMESIZE] = "eth0";
        size_t n = 0;

        name[3] = (char)('0' + i);
        if (names) {
            while (names[n] && names[n] != ',' && n + 1 < sizeof(name)) {
                name[n] = names[n];
                n++;
            }
            name[n] = '\0';
            names += names[n] == ',' ? n + 1 : n;
        }
        int r = *name ? open_port(name, &ports[i], &ret_ports[i]) : -ENODEV;
        if (r < 0) {
            nf_print(NF_LOG, "port %u, interface \"%s\": %s\n", i, name, nf_error_text(error_from_errno(-r)));
            return NF_FAILED;
        }
        ports[i].index = (uint8_t)i;
    }
    port_count = count;
    return 0;
}

void element_ports_start(void)
{
    for (unsigned i = 0; i < port_count; i++)
        source_watch(&ports[i].source, EPOLLIN);
}
