/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The requests themselves, as bytes in a batch. Called by coracle-launcher when it builds the fabric and an instance's
 * interfaces. No request waits for another's answer: the caller chooses interface indexes, so nothing need be asked.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include "netlink/batch.h"

enum { REQUEST_MAX = 512 }; /* bytes; the longest one, a veth pair, takes 180 */

void netlink_link_local(const uint8_t mac[6], struct in6_addr *ret)
{
    *ret = (struct in6_addr){
        .s6_addr = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]}};
}

void netlink_begin(struct netlink_batch *batch)
{
    batch->used = 0;
    batch->count = 0;
    batch->overflow = false;
}

/* Starts a request behind the others, its extra header zeroed; NULL (and overflow) when there is no room. */
static struct nlmsghdr *add(struct netlink_batch *batch, uint16_t type, uint16_t flags, size_t extra)
{
    struct nlmsghdr *h;

    if (batch->count >= NETLINK_BATCH_MAX || batch->used + REQUEST_MAX > sizeof(batch->data)) {
        batch->overflow = true;
        return NULL;
    }
    h = mnl_nlmsg_put_header(batch->data + batch->used);
    h->nlmsg_type = type;
    h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    mnl_nlmsg_put_extra_header(h, extra);
    return h;
}

static void finish(struct netlink_batch *batch, const struct nlmsghdr *h)
{
    batch->used += MNL_ALIGN(h->nlmsg_len);
    batch->count++;
}

void netlink_number(struct netlink_batch *batch)
{
    uint32_t sequence = netlink_sequences(batch->count);
    size_t at = 0;

    batch->first_sequence = sequence;
    for (unsigned i = 0; i < batch->count; i++) {
        struct nlmsghdr *h = (struct nlmsghdr *)(batch->data + at);
        h->nlmsg_seq = sequence++;
        if (i < batch->count - 1)
            h->nlmsg_flags &= (uint16_t)~NLM_F_ACK; /* a failure is told all the same, before the last one's answer */
        at += MNL_ALIGN(h->nlmsg_len);
    }
}

/* Before an interface is raised, in a request of its own: the kernel raises first and reads the mode afterwards
 * (do_setlink in net/core/rtnetlink.c), so an interface whose carrier is there already would get a second link-local
 * address, of the hardware address it had then. */
static void no_auto_address(struct netlink_batch *batch, uint32_t index)
{
    struct nlmsghdr *h = add(batch, RTM_NEWLINK, 0, sizeof(struct ifinfomsg));
    struct ifinfomsg *i;

    if (!h)
        return;
    i = mnl_nlmsg_get_payload(h);
    i->ifi_index = (int)index;
    struct nlattr *spec = mnl_attr_nest_start(h, IFLA_AF_SPEC);
    struct nlattr *inet6 = mnl_attr_nest_start(h, AF_INET6);

    mnl_attr_put_u8(h, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
    mnl_attr_nest_end(h, inet6);
    mnl_attr_nest_end(h, spec);
    finish(batch, h);
}

void netlink_bridge(struct netlink_batch *batch, const char *name, uint32_t index, const uint8_t mac[6], uint16_t mtu)
{
    struct nlmsghdr *h = add(batch, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(struct ifinfomsg));
    struct ifinfomsg *i;

    if (!h)
        return;
    i = mnl_nlmsg_get_payload(h);
    i->ifi_index = (int)index;
    mnl_attr_put_strz(h, IFLA_IFNAME, name);
    mnl_attr_put(h, IFLA_ADDRESS, 6, mac);
    if (mtu)
        mnl_attr_put_u32(h, IFLA_MTU, mtu);
    struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO);
    mnl_attr_put_strz(h, IFLA_INFO_KIND, "bridge");
    struct nlattr *data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
    mnl_attr_put_u32(h, IFLA_BR_STP_STATE, 0);
    mnl_attr_put_u32(h, IFLA_BR_FORWARD_DELAY, 0);
    mnl_attr_put_u8(h, IFLA_BR_MCAST_SNOOPING, 0); /* no querier here: snooping would only add timers */
    mnl_attr_nest_end(h, data);
    mnl_attr_nest_end(h, info);
    finish(batch, h);
}

/* The default is a queue for each possible processor, each with a folder of files in sysfs: tens of KiB for each end on
 * a large host, and nothing gained without XDP. */
static void put_one_queue(struct nlmsghdr *h)
{
    mnl_attr_put_u32(h, IFLA_NUM_TX_QUEUES, 1);
    mnl_attr_put_u32(h, IFLA_NUM_RX_QUEUES, 1);
}

void netlink_veth(struct netlink_batch *batch, const struct netlink_veth *v)
{
    struct nlmsghdr *h = add(batch, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(struct ifinfomsg));
    struct ifinfomsg *i;

    if (!h)
        return;
    i = mnl_nlmsg_get_payload(h);
    i->ifi_index = (int)v->index;
    i->ifi_flags = v->up ? IFF_UP : 0;
    i->ifi_change = v->up ? IFF_UP : 0;
    mnl_attr_put_strz(h, IFLA_IFNAME, v->name);
    if (v->mac)
        mnl_attr_put(h, IFLA_ADDRESS, 6, v->mac);
    if (v->master)
        mnl_attr_put_u32(h, IFLA_MASTER, v->master);
    if (v->mtu)
        mnl_attr_put_u32(h, IFLA_MTU, v->mtu);
    put_one_queue(h);
    struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO);
    mnl_attr_put_strz(h, IFLA_INFO_KIND, "veth");
    struct nlattr *data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
    struct nlattr *peer = mnl_attr_nest_start(h, VETH_INFO_PEER);
    struct ifinfomsg *p = mnl_nlmsg_put_extra_header(h, sizeof(*p));
    p->ifi_index = (int)v->peer_index;
    mnl_attr_put_strz(h, IFLA_IFNAME, v->peer_name);
    if (v->peer_mac)
        mnl_attr_put(h, IFLA_ADDRESS, 6, v->peer_mac);
    if (v->mtu)
        mnl_attr_put_u32(h, IFLA_MTU, v->mtu);
    put_one_queue(h);
    mnl_attr_put_u32(h, IFLA_NET_NS_FD, (uint32_t)v->peer_netns_fd);
    mnl_attr_nest_end(h, peer);
    mnl_attr_nest_end(h, data);
    mnl_attr_nest_end(h, info);
    finish(batch, h);
}

/* A request that raises an interface. */
static struct nlmsghdr *raise(struct netlink_batch *batch, uint32_t index)
{
    struct nlmsghdr *h = add(batch, RTM_NEWLINK, 0, sizeof(struct ifinfomsg));
    struct ifinfomsg *i;

    if (!h)
        return NULL;
    i = mnl_nlmsg_get_payload(h);
    i->ifi_index = (int)index;
    i->ifi_flags = IFF_UP;
    i->ifi_change = IFF_UP;
    return h;
}

void netlink_up(struct netlink_batch *batch, uint32_t index, const uint8_t *mac)
{
    struct nlmsghdr *h;

    if (index != 1) /* loopback keeps ::1 */
        no_auto_address(batch, index);
    h = raise(batch, index);
    if (!h)
        return;
    if (mac)
        mnl_attr_put(h, IFLA_ADDRESS, 6, mac);
    finish(batch, h);
}

void netlink_enslave(struct netlink_batch *batch, uint32_t index, uint32_t master, const uint8_t mac[6], uint16_t mtu)
{
    struct nlmsghdr *h;

    no_auto_address(batch, index);
    h = raise(batch, index);
    if (!h)
        return;
    mnl_attr_put(h, IFLA_ADDRESS, 6, mac);
    mnl_attr_put_u32(h, IFLA_MASTER, master);
    if (mtu)
        mnl_attr_put_u32(h, IFLA_MTU, mtu);
    finish(batch, h);
}

static struct nlmsghdr *begin_port(struct netlink_batch *batch, uint32_t index, struct nlattr **ret_port)
{
    struct nlmsghdr *h = add(batch, RTM_SETLINK, 0, sizeof(struct ifinfomsg));
    struct ifinfomsg *i;

    if (!h)
        return NULL;
    i = mnl_nlmsg_get_payload(h);
    i->ifi_family = AF_BRIDGE;
    i->ifi_index = (int)index;
    *ret_port = mnl_attr_nest_start(h, IFLA_PROTINFO | NLA_F_NESTED);
    return h;
}

void netlink_port_static(struct netlink_batch *batch, uint32_t index)
{
    struct nlattr *port;
    struct nlmsghdr *h = begin_port(batch, index, &port);

    if (!h)
        return;
    mnl_attr_put_u8(h, IFLA_BRPORT_LEARNING, 0);
    /* Every address has its entry: a frame to another one is nobody's, and must not reach every tenant. */
    mnl_attr_put_u8(h, IFLA_BRPORT_UNICAST_FLOOD, 0);
    mnl_attr_nest_end(h, port);
    finish(batch, h);
}

void netlink_port_flood(struct netlink_batch *batch, uint32_t index, bool on)
{
    struct nlattr *port;
    struct nlmsghdr *h = begin_port(batch, index, &port);

    if (!h)
        return;
    mnl_attr_put_u8(h, IFLA_BRPORT_BCAST_FLOOD, on);
    mnl_attr_put_u8(h, IFLA_BRPORT_MCAST_FLOOD, on);
    mnl_attr_nest_end(h, port);
    finish(batch, h);
}

static size_t address_size(const struct netlink_address *a)
{
    return a->family == AF_INET ? sizeof(a->v4) : sizeof(a->v6);
}

void netlink_address(struct netlink_batch *batch, uint32_t index, const struct netlink_address *a, uint8_t prefix)
{
    struct nlmsghdr *h = add(batch, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof(struct ifaddrmsg));
    struct ifaddrmsg *i;

    if (!h)
        return;
    i = mnl_nlmsg_get_payload(h);
    i->ifa_family = a->family;
    i->ifa_prefixlen = prefix;
    i->ifa_flags = IFA_F_NODAD;
    i->ifa_index = index;
    mnl_attr_put(h, IFA_LOCAL, address_size(a), &a->v6);
    mnl_attr_put(h, IFA_ADDRESS, address_size(a), &a->v6);
    finish(batch, h);
}

/* prefix NULL: the default route. gateway NULL: any (removal). */
static void route(struct netlink_batch *batch, uint16_t type, uint16_t flags, uint32_t index,
                  const struct netlink_address *prefix, uint8_t length, const struct netlink_address *gateway)
{
    struct nlmsghdr *h = add(batch, type, flags, sizeof(struct rtmsg));
    struct rtmsg *r;

    if (!h)
        return;
    r = mnl_nlmsg_get_payload(h);
    r->rtm_family = prefix ? prefix->family : gateway->family;
    r->rtm_dst_len = length;
    r->rtm_table = RT_TABLE_MAIN;
    r->rtm_protocol = RTPROT_STATIC;
    r->rtm_scope = RT_SCOPE_UNIVERSE;
    r->rtm_type = RTN_UNICAST;
    r->rtm_flags = gateway ? RTNH_F_ONLINK : 0;
    if (prefix)
        mnl_attr_put(h, RTA_DST, address_size(prefix), &prefix->v6);
    if (gateway)
        mnl_attr_put(h, RTA_GATEWAY, address_size(gateway), &gateway->v6);
    mnl_attr_put_u32(h, RTA_OIF, index);
    finish(batch, h);
}

void netlink_default_route(struct netlink_batch *batch, uint32_t index, const struct netlink_address *gateway)
{
    route(batch, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, index, NULL, 0, gateway);
}

void netlink_route(struct netlink_batch *batch, uint32_t index, const struct netlink_address *prefix, uint8_t length,
                   const struct netlink_address *gateway)
{
    route(batch, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, index, prefix, length, gateway);
}

void netlink_route_remove(struct netlink_batch *batch, uint32_t index, const struct netlink_address *prefix,
                          uint8_t length)
{
    route(batch, RTM_DELROUTE, 0, index, prefix, length, NULL);
}

static void neighbour(struct netlink_batch *batch, uint16_t type, uint16_t flags, const struct ndmsg *from,
                      const struct netlink_address *address, const uint8_t *mac)
{
    struct nlmsghdr *h = add(batch, type, flags, sizeof(struct ndmsg));
    struct ndmsg *n;

    if (!h)
        return;
    n = mnl_nlmsg_get_payload(h);
    *n = *from;
    if (address)
        mnl_attr_put(h, NDA_DST, address_size(address), &address->v6);
    if (mac)
        mnl_attr_put(h, NDA_LLADDR, 6, mac);
    finish(batch, h);
}

void netlink_neighbour(struct netlink_batch *batch, uint32_t index, const struct netlink_address *address,
                       const uint8_t mac[6])
{
    struct ndmsg n = {.ndm_family = address->family, .ndm_ifindex = (int)index, .ndm_state = NUD_PERMANENT};

    neighbour(batch, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &n, address, mac);
}

void netlink_neighbour_remove(struct netlink_batch *batch, uint32_t index, const struct netlink_address *address)
{
    struct ndmsg n = {.ndm_family = address->family, .ndm_ifindex = (int)index};

    neighbour(batch, RTM_DELNEIGH, 0, &n, address, NULL);
}

void netlink_fdb(struct netlink_batch *batch, uint32_t index, const uint8_t mac[6])
{
    /* As if a switch had learned it: it does not age. For a static one the kernel would go through all ports. */
    struct ndmsg n = {.ndm_family = AF_BRIDGE,
                      .ndm_ifindex = (int)index,
                      .ndm_state = NUD_REACHABLE,
                      .ndm_flags = NTF_MASTER | NTF_EXT_LEARNED};

    neighbour(batch, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &n, NULL, mac);
}

void netlink_delete(struct netlink_batch *batch, uint32_t index)
{
    struct nlmsghdr *h = add(batch, RTM_DELLINK, 0, sizeof(struct ifinfomsg));
    struct ifinfomsg *i;

    if (!h)
        return;
    i = mnl_nlmsg_get_payload(h);
    i->ifi_index = (int)index;
    finish(batch, h);
}

static const struct nlmsghdr *request_at(const struct netlink_batch *batch, unsigned which)
{
    size_t at = 0;

    for (unsigned i = 0; i < which; i++)
        at += MNL_ALIGN(((const struct nlmsghdr *)(batch->data + at))->nlmsg_len);
    return (const struct nlmsghdr *)(batch->data + at);
}

/* Text of the address (or name) that attribute type of the request holds, "" when it has none. */
static void attribute_text(const struct nlmsghdr *h, size_t header, uint16_t type, int family, char *text, size_t size)
{
    const struct nlattr *a;

    text[0] = '\0';
    mnl_attr_for_each(a, h, header)
    {
        if (mnl_attr_get_type(a) != type)
            continue;
        if (family == AF_UNSPEC)
            snprintf(text, size, "%s", mnl_attr_get_str(a));
        else
            inet_ntop(family, mnl_attr_get_payload(a), text, (socklen_t)size);
    }
}

static int index_of_route(const struct nlmsghdr *h)
{
    const struct nlattr *a;

    mnl_attr_for_each(a, h, sizeof(struct rtmsg)) if (mnl_attr_get_type(a) == RTA_OIF) return (int)mnl_attr_get_u32(a);
    return 0;
}

const char *netlink_describe(const struct netlink_batch *batch, unsigned which, char *text, size_t size)
{
    const struct nlmsghdr *h = request_at(batch, which);
    const void *extra = mnl_nlmsg_get_payload(h);
    const struct ifinfomsg *link = extra;
    const struct ifaddrmsg *address = extra;
    const struct ndmsg *n = extra;
    const struct rtmsg *r = extra;
    char what[INET6_ADDRSTRLEN];

    switch (h->nlmsg_type) {
    case RTM_NEWLINK:
        attribute_text(h, sizeof(*link), IFLA_IFNAME, AF_UNSPEC, what, sizeof(what));
        if (what[0])
            snprintf(text, size, "creating interface %s", what);
        else
            snprintf(text, size, "raising interface %d", link->ifi_index);
        break;
    case RTM_SETLINK:
        snprintf(text, size, "setting up bridge port %d", link->ifi_index);
        break;
    case RTM_DELLINK:
        snprintf(text, size, "deleting interface %d", link->ifi_index);
        break;
    case RTM_NEWADDR:
        attribute_text(h, sizeof(*address), IFA_LOCAL, address->ifa_family, what, sizeof(what));
        snprintf(text, size, "adding address %s/%u to interface %u", what, address->ifa_prefixlen, address->ifa_index);
        break;
    case RTM_NEWROUTE:
        attribute_text(h, sizeof(*r), RTA_GATEWAY, r->rtm_family, what, sizeof(what));
        snprintf(text, size, "adding a route by way of %s", what);
        break;
    case RTM_DELROUTE:
        snprintf(text, size, "removing a route from interface %d", index_of_route(h));
        break;
    default:
        attribute_text(h, sizeof(*n), NDA_DST, n->ndm_family == AF_BRIDGE ? AF_UNSPEC : n->ndm_family, what,
                       sizeof(what));
        snprintf(text, size, "%s %s %s on interface %d", h->nlmsg_type == RTM_DELNEIGH ? "removing" : "adding",
                 n->ndm_family == AF_BRIDGE ? "a forwarding entry" : "neighbour", what, n->ndm_ifindex);
        break;
    }
    return text;
}
