/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interfaces of one instance: a veth pair for each, born with the peer in the instance's namespace, then addresses,
 * neighbours and routes; or, for a virtual machine, a tap for each, whose descriptor goes to the monitor. Called by the
 * launcher's workers and its pool thread.
 *
 * Every address of an interface is known on both sides from the start (permanent neighbours, static forwarding entry),
 * so the first packet finds its way without a question and no timer of a second stands in an instantiation.
 *
 * A host end has its bridge's hardware address, which nobody sends from: the bridge then keeps no entry for it, which
 * would be one more to go through, and a walk over all ports, for each port that comes.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/cleanup.h"
#include "launcher/fabric_private.h"

enum { TAP_HEADER_BYTES = 12 }; /* struct virtio_net_hdr_mrg_rxbuf: what every virtio 1 device uses */
enum { SWEEP_TURNS_MAX = 256 }; /* batches; more interfaces than there can be, should one refuse to go */

uint32_t fabric_host_index(const struct fabric_ports *ports, uint32_t i)
{
    return FABRIC_FIRST_INDEX + ports->number * NETWORK_PER_INSTANCE_MAX + i;
}

static void host_name(uint32_t number, uint32_t i, char name[NETLINK_NAME_SIZE])
{
    snprintf(name, NETLINK_NAME_SIZE, "v%u.%u", number, i);
}

static void peer_name(uint32_t i, char name[NETLINK_NAME_SIZE])
{
    snprintf(name, NETLINK_NAME_SIZE, "eth%u", i);
}

/* Copies what the workers need of each link and counts the interfaces as attached; all or nothing. */
static int attach(struct fabric *f, const struct fabric_ports *ports, struct fabric_link *ret_links, struct error **err)
{
    int r = 0;

    pthread_rwlock_wrlock(&f->lock);
    for (uint32_t i = 0; i < ports->count && r == 0; i++) {
        const struct fabric_link *l = fabric_find(f, ports->list[i].link);
        if (l)
            ret_links[i] = *l;
        else
            r = error_set(err, ENOENT, "NETWORK_NOT_FOUND", "there is no network %s", ports->list[i].link);
    }
    for (uint32_t i = 0; i < ports->count && r == 0; i++)
        fabric_find(f, ports->list[i].link)->attached++;
    pthread_rwlock_unlock(&f->lock);
    return r;
}

static void detach(struct fabric *f, const struct fabric_ports *ports)
{
    pthread_rwlock_wrlock(&f->lock);
    for (uint32_t i = 0; i < ports->count; i++) {
        struct fabric_link *l = fabric_find(f, ports->list[i].link);
        if (l && l->attached)
            l->attached--;
    }
    pthread_rwlock_unlock(&f->lock);
}

static int make_pairs(struct fabric *f, const struct fabric_ports *ports, const struct fabric_link *links, int netns_fd,
                      const struct plan_nic *nics, struct error **err)
{
    char name[NETLINK_NAME_SIZE], peer[NETLINK_NAME_SIZE];
    struct netlink_batch batch;
    int fd, r;

    r = fabric_socket(f, &fd, err);
    if (r < 0)
        return r;
    netlink_begin(&batch);
    for (uint32_t i = 0; i < ports->count; i++) {
        host_name(ports->number, i, name);
        peer_name(i, peer);
        netlink_veth(&batch, &(struct netlink_veth){.name = name,
                                                    .index = fabric_host_index(ports, i),
                                                    .mac = links[i].mac,
                                                    .master = links[i].index,
                                                    .up = true,
                                                    .peer_name = peer,
                                                    .peer_index = PEER_FIRST_INDEX + i,
                                                    .peer_mac = nics ? nics[i].mac : NULL,
                                                    .peer_netns_fd = netns_fd,
                                                    .mtu = links[i].link.mtu});
        netlink_port_static(&batch, fabric_host_index(ports, i));
    }
    return netlink_commit(fd, &batch, err);
}

/* Not the loopback interface: the init does that, off the way to the first packet. */
static int raise_inside(const struct fabric_ports *ports, int netns_socket, struct error **err)
{
    struct netlink_batch batch;

    netlink_begin(&batch);
    for (uint32_t i = 0; i < ports->count; i++)
        netlink_up(&batch, PEER_FIRST_INDEX + i, NULL);
    return netlink_commit(netns_socket, &batch, err);
}

int fabric_wire(struct fabric *f, const struct fabric_ports *ports, int netns_fd, const struct plan_nic *nics,
                int *ret_netns_socket, struct error **err)
{
    struct fabric_link links[NETWORK_PER_INSTANCE_MAX];
    auto_fd int inside = -1;
    int r;

    r = netlink_open(netns_fd, &inside, err);
    if (r < 0)
        return r;
    r = attach(f, ports, links, err);
    if (r < 0)
        return r;
    r = make_pairs(f, ports, links, netns_fd, nics, err);
    if (r == 0)
        r = raise_inside(ports, inside, err);
    if (r < 0) {
        detach(f, ports);
        return r;
    }
    *ret_netns_socket = take_fd(&inside);
    return 0;
}

/* ---- taps ---- */

/* The namespace of a tap is the one its file was opened in. */
static int open_tun(const struct fabric *f, struct error **err)
{
    auto_fd int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    int fd, e;

    if (home < 0 || setns(f->netns_fd, CLONE_NEWNET) < 0)
        return error_set_errno(err, errno, "START_FAILED", "entering the fabric");
    fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    e = errno;
    if (setns(home, CLONE_NEWNET) < 0)
        abort(); /* a worker that stays in the fabric would make everything there */
    if (fd >= 0)
        return fd;
    error_set_errno(err, e, "TECHNOLOGY_UNAVAILABLE", "/dev/net/tun");
    error_hint(err, "modprobe tun");
    return -e;
}

static int make_tap(struct fabric *f, const struct fabric_ports *ports, uint32_t i, int *ret_fd, struct error **err)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    const unsigned index = fabric_host_index(ports, i);
    const int header = TAP_HEADER_BYTES;
    auto_fd int fd = open_tun(f, err);

    if (fd < 0)
        return fd;
    host_name(ports->number, i, request.ifr_name);
    /* Most drivers will ask for these offloads. A change then would make the bridge ask all of its ports for their own
     * (0.5 ms with 900); before the tap is a port it costs nothing. */
    if (ioctl(fd, TUNSETIFINDEX, &index) < 0 || ioctl(fd, TUNSETIFF, &request) < 0 ||
        ioctl(fd, TUNSETVNETHDRSZ, &header) < 0 || ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) < 0)
        return error_set_errno(err, errno, "START_FAILED", "making tap %s", request.ifr_name);
    *ret_fd = take_fd(&fd);
    return 0;
}

static int raise_taps(struct fabric *f, const struct fabric_ports *ports, const struct fabric_link *links,
                      struct error **err)
{
    struct netlink_batch batch;
    int fd, r;

    r = fabric_socket(f, &fd, err);
    if (r < 0)
        return r;
    netlink_begin(&batch);
    for (uint32_t i = 0; i < ports->count; i++) {
        netlink_enslave(&batch, fabric_host_index(ports, i), links[i].index, links[i].mac, links[i].link.mtu);
        netlink_port_static(&batch, fabric_host_index(ports, i));
        netlink_port_flood(&batch, fabric_host_index(ports, i), false); /* nobody is there yet: fabric_announce() */
    }
    return netlink_commit(fd, &batch, err);
}

int fabric_tap(struct fabric *f, const struct fabric_ports *ports, int *ret_fds, struct error **err)
{
    struct fabric_link links[NETWORK_PER_INSTANCE_MAX];
    int fds[NETWORK_PER_INSTANCE_MAX];
    uint32_t made = 0;
    int r;

    r = attach(f, ports, links, err);
    if (r < 0)
        return r;
    while (r == 0 && made < ports->count) {
        r = make_tap(f, ports, made, &fds[made], err);
        made += r == 0;
    }
    if (r == 0)
        r = raise_taps(f, ports, links, err);
    if (r == 0) {
        memcpy(ret_fds, fds, made * sizeof(fds[0]));
        return 0;
    }
    while (made > 0)
        close(fds[--made]);
    detach(f, ports);
    return r;
}

static struct netlink_address v4(struct in_addr a)
{
    return (struct netlink_address){.family = AF_INET, .v4 = a};
}

static struct netlink_address v6(struct in6_addr a)
{
    return (struct netlink_address){.family = AF_INET6, .v6 = a};
}

static struct netlink_address link_local(const uint8_t mac[6])
{
    struct in6_addr a;

    netlink_link_local(mac, &a);
    return v6(a);
}

/* From now on the guard lets the ports send from the addresses they claimed. */
static int let_through(struct fabric *f, const struct fabric_ports *ports, const struct fabric_link *links,
                       struct error **err)
{
    struct guard_port allowed[NETWORK_PER_INSTANCE_MAX];

    for (uint32_t i = 0; i < ports->count; i++)
        allowed[i] = fabric_guard_port(ports, i, &links[i]);
    return guard_allow(f->guard, allowed, ports->count, err);
}

static int address_outside(struct fabric *f, const struct fabric_ports *ports, const struct fabric_link *links,
                           const struct plan_nic *nics, bool taps, struct error **err)
{
    struct netlink_batch batch;
    int fd, r;

    r = fabric_socket(f, &fd, err);
    if (r == 0)
        r = let_through(f, ports, links, err);
    if (r < 0)
        return r;
    netlink_begin(&batch);
    for (uint32_t i = 0; i < ports->count; i++) {
        struct netlink_address a4 = v4(nics[i].ipv4), a6 = v6(nics[i].ipv6);
        netlink_fdb(&batch, fabric_host_index(ports, i), nics[i].mac);
        if (nics[i].prefix4)
            netlink_neighbour(&batch, links[i].index, &a4, nics[i].mac);
        if (nics[i].prefix6)
            netlink_neighbour(&batch, links[i].index, &a6, nics[i].mac);
        if (taps)
            netlink_port_flood(&batch, fabric_host_index(ports, i), true);
    }
    return netlink_commit(fd, &batch, err);
}

static void address_nic(struct netlink_batch *batch, uint32_t index, const struct plan_nic *nic, const uint8_t *gateway,
                        bool *routed4, bool *routed6)
{
    struct netlink_address a4 = v4(nic->ipv4), a6 = v6(nic->ipv6), g4 = v4(nic->gateway4), g6 = v6(nic->gateway6);
    struct netlink_address local = link_local(nic->mac);

    if (nic->prefix4) {
        netlink_address(batch, index, &a4, nic->prefix4);
        if (g4.v4.s_addr)
            netlink_neighbour(batch, index, &g4, gateway);
        if (g4.v4.s_addr && !*routed4)
            netlink_default_route(batch, index, &g4);
        *routed4 |= g4.v4.s_addr != 0;
    }
    if (nic->prefix6) {
        bool has_gateway = !IN6_IS_ADDR_UNSPECIFIED(&nic->gateway6);
        netlink_address(batch, index, &local, 64);
        netlink_address(batch, index, &a6, nic->prefix6);
        if (has_gateway)
            netlink_neighbour(batch, index, &g6, gateway);
        if (has_gateway && !*routed6)
            netlink_default_route(batch, index, &g6);
        *routed6 |= has_gateway;
    }
}

int fabric_copy_link(struct fabric *f, const char *name, struct fabric_link *ret_link, struct error **err)
{
    const struct fabric_link *l;

    pthread_rwlock_rdlock(&f->lock);
    l = fabric_find(f, name);
    if (l)
        *ret_link = *l;
    pthread_rwlock_unlock(&f->lock);
    return l ? 0 : error_set(err, ENOENT, "NETWORK_NOT_FOUND", "there is no network %s", name);
}

static int copy_links(struct fabric *f, const struct fabric_ports *ports, struct fabric_link *ret_links,
                      struct error **err)
{
    int r = 0;

    pthread_rwlock_rdlock(&f->lock);
    for (uint32_t i = 0; i < ports->count && r == 0; i++) {
        const struct fabric_link *l = fabric_find(f, ports->list[i].link);
        if (l)
            ret_links[i] = *l;
        else
            r = error_set(err, ENOENT, "NETWORK_NOT_FOUND", "network %s is gone", ports->list[i].link);
    }
    pthread_rwlock_unlock(&f->lock);
    return r;
}

int fabric_set_macs(const struct fabric_ports *ports, int netns_socket, const struct plan_nic *nics, struct error **err)
{
    int r = 0;

    for (uint32_t i = 0; i < ports->count && r == 0; i++) {
        char name[NETLINK_NAME_SIZE];
        peer_name(i, name);
        r = netlink_set_mac(netns_socket, name, nics[i].mac, err);
    }
    return r;
}

int fabric_address(struct fabric *f, const struct fabric_ports *ports, int netns_socket, const struct plan_nic *nics,
                   struct error **err)
{
    struct fabric_link links[NETWORK_PER_INSTANCE_MAX];
    bool routed4 = false, routed6 = false;
    struct netlink_batch batch;
    int r;

    if (ports->count == 0)
        return 0;
    r = copy_links(f, ports, links, err);
    if (r == 0)
        r = address_outside(f, ports, links, nics, false, err);
    if (r < 0)
        return r;
    netlink_begin(&batch);
    for (uint32_t i = 0; i < ports->count; i++)
        address_nic(&batch, PEER_FIRST_INDEX + i, &nics[i], links[i].mac, &routed4, &routed6);
    return netlink_commit(netns_socket, &batch, err);
}

int fabric_announce(struct fabric *f, const struct fabric_ports *ports, const struct plan_nic *nics, struct error **err)
{
    struct fabric_link links[NETWORK_PER_INSTANCE_MAX];
    int r;

    if (ports->count == 0)
        return 0;
    r = copy_links(f, ports, links, err);
    return r < 0 ? r : address_outside(f, ports, links, nics, true, err);
}

/* Neighbour entries of one interface; those of a link that is gone went with its bridge. */
static void forget_addresses(struct fabric *f, const struct fabric_ports *ports)
{
    struct netlink_batch batch;
    int fd;

    netlink_begin(&batch);
    pthread_rwlock_rdlock(&f->lock);
    for (uint32_t i = 0; i < ports->count; i++) {
        const struct fabric_port *p = &ports->list[i];
        const struct fabric_link *l = fabric_find(f, p->link);
        struct netlink_address a4 = v4(p->ipv4), a6 = v6(p->ipv6);
        if (l && p->ipv4.s_addr)
            netlink_neighbour_remove(&batch, l->index, &a4);
        if (l && !IN6_IS_ADDR_UNSPECIFIED(&p->ipv6))
            netlink_neighbour_remove(&batch, l->index, &a6);
    }
    pthread_rwlock_unlock(&f->lock);
    if (batch.count && fabric_socket(f, &fd, NULL) == 0)
        netlink_commit(fd, &batch, NULL); /* an entry that was never made is no failure */
}

void fabric_unwire(struct fabric *f, const struct fabric_ports *ports)
{
    forget_addresses(f, ports);
    detach(f, ports);
}

void fabric_adopt(struct fabric *f, const struct fabric_ports *ports)
{
    struct fabric_link links[NETWORK_PER_INSTANCE_MAX];

    attach(f, ports, links, NULL);
}

int fabric_stats(struct fabric *f, const struct fabric_ports *ports, struct netlink_stats *ret_stats,
                 struct error **err)
{
    struct netlink_stats sum = {0}, one;
    int fd, r;

    r = fabric_socket(f, &fd, err);
    for (uint32_t i = 0; i < ports->count && r == 0; i++) {
        r = netlink_stats(fd, fabric_host_index(ports, i), &one, err);
        if (r < 0)
            break;
        /* what the host end received the instance sent */
        sum.rx_packets += one.tx_packets;
        sum.rx_bytes += one.tx_bytes;
        sum.rx_dropped += one.tx_dropped;
        sum.tx_packets += one.rx_packets;
        sum.tx_bytes += one.rx_bytes;
        sum.tx_dropped += one.rx_dropped;
    }
    if (r < 0)
        return r;
    *ret_stats = sum;
    return 0;
}

struct strays {
    bool (*keep)(void *context, uint32_t number);
    void *context;
    struct netlink_batch *batch;
};

static void note_stray(void *context, uint32_t index, const char *name, const char *kind)
{
    struct strays *s = context;
    unsigned number, i;

    if (strcmp(kind, "veth") == 0 && sscanf(name, "v%u.%u", &number, &i) == 2 && !s->keep(s->context, number))
        netlink_delete(s->batch, index);
}

int fabric_sweep(struct fabric *f, bool (*keep)(void *context, uint32_t number), void *context, unsigned *ret_removed,
                 struct error **err)
{
    unsigned removed = 0;
    int fd, r;

    r = fabric_socket(f, &fd, err);
    for (unsigned turn = 0; r == 0 && turn < SWEEP_TURNS_MAX; turn++) {
        struct netlink_batch batch;
        struct strays strays = {keep, context, &batch};
        netlink_begin(&batch);
        r = netlink_list(fd, note_stray, &strays, err);
        if (r < 0 || batch.count == 0)
            break;
        batch.overflow = false;           /* the rest is found by the next turn */
        netlink_commit(fd, &batch, NULL); /* one may have died with its namespace in the meantime */
        removed += batch.count;
    }
    if (r == 0)
        *ret_removed = removed;
    return r;
}
