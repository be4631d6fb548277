/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's network, by rtnetlink. A static program without libraries: the host side's src/netlink stands on libmnl,
 * which Debian has for glibc only, and everything needed here is one request at a time.
 *
 * A device is found by the address that metadata gives it; else the Nth ethN is given that address. So a restored
 * guest, whose devices still carry the template's addresses, gets its own by the same words.
 */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

struct request {
    struct nlmsghdr header;
    union {
        struct ifinfomsg link;
        struct ifaddrmsg address;
        struct rtmsg route;
        struct ndmsg neighbour;
    };
    char attributes[128];
};

static int netlink = -1;

static void begin(struct request *request, unsigned type, unsigned flags, size_t size)
{
    memset(request, 0, sizeof(*request));
    request->header.nlmsg_len = (uint32_t)NLMSG_LENGTH(size);
    request->header.nlmsg_type = (uint16_t)type;
    request->header.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags);
}

/* Callers add at most four attributes of at most 16 bytes: they fit. */
static void add(struct request *request, unsigned type, const void *value, size_t size)
{
    struct rtattr *attribute = (struct rtattr *)((char *)request + NLMSG_ALIGN(request->header.nlmsg_len));

    attribute->rta_type = (uint16_t)type;
    attribute->rta_len = (uint16_t)RTA_LENGTH(size);
    memcpy(RTA_DATA(attribute), value, size);
    request->header.nlmsg_len = NLMSG_ALIGN(request->header.nlmsg_len) + (uint32_t)RTA_LENGTH(size);
}

static int ask(const struct request *request)
{
    char buffer[4096] __attribute__((aligned(NLMSG_ALIGNTO)));

    if (send(netlink, request, request->header.nlmsg_len, 0) < 0)
        return -errno;
    for (;;) {
        ssize_t n = recv(netlink, buffer, sizeof(buffer), 0);
        const struct nlmsghdr *header = (const struct nlmsghdr *)buffer;
        if (n < 0)
            return -errno;
        if (n >= (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr)) && header->nlmsg_type == NLMSG_ERROR)
            return ((const struct nlmsgerr *)NLMSG_DATA(header))->error;
    }
}

static size_t size_of(const struct config_address *address)
{
    return address->family == 4 ? 4 : 16;
}

static uint8_t family_of(const struct config_address *address)
{
    return address->family == 4 ? AF_INET : AF_INET6;
}

static int link_set(int index, const struct config_nic *nic, bool up)
{
    struct request request;

    begin(&request, RTM_NEWLINK, 0, sizeof(request.link));
    request.link.ifi_index = index;
    request.link.ifi_change = IFF_UP;
    request.link.ifi_flags = up ? IFF_UP : 0;
    if (nic && nic->has_mac)
        add(&request, IFLA_ADDRESS, nic->mac, sizeof(nic->mac));
    if (nic && nic->mtu)
        add(&request, IFLA_MTU, &nic->mtu, sizeof(nic->mtu));
    return ask(&request);
}

static int address_change(int index, const struct config_address *address, unsigned type, unsigned flags)
{
    struct request request;

    begin(&request, type, flags, sizeof(request.address));
    request.address.ifa_family = family_of(address);
    request.address.ifa_prefixlen = address->prefix;
    request.address.ifa_index = (uint32_t)index;
    /* The platform gave this address to this guest alone: nothing to find out, and a second saved. */
    request.address.ifa_flags = address->family == 6 ? IFA_F_NODAD : 0;
    add(&request, IFA_LOCAL, address->ip, size_of(address));
    add(&request, IFA_ADDRESS, address->ip, size_of(address));
    return ask(&request);
}

static int default_route(int index, const struct config_address *gateway)
{
    struct request request;

    begin(&request, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof(request.route));
    request.route.rtm_family = family_of(gateway);
    request.route.rtm_table = RT_TABLE_MAIN;
    request.route.rtm_protocol = RTPROT_STATIC;
    request.route.rtm_scope = RT_SCOPE_UNIVERSE;
    request.route.rtm_type = RTN_UNICAST;
    add(&request, RTA_GATEWAY, gateway->ip, size_of(gateway));
    add(&request, RTA_OIF, &index, sizeof(index));
    return ask(&request);
}

static int neighbour(int index, const struct config_address *address, const uint8_t mac[6])
{
    struct request request;

    begin(&request, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, sizeof(request.neighbour));
    request.neighbour.ndm_family = family_of(address);
    request.neighbour.ndm_ifindex = index;
    request.neighbour.ndm_state = NUD_PERMANENT;
    add(&request, NDA_DST, address->ip, size_of(address));
    add(&request, NDA_LLADDR, mac, 6);
    return ask(&request);
}

static bool wanted(const struct config_nic *nic, const struct config_address *address)
{
    for (unsigned i = 0; i < nic->address_count; i++) {
        if (memcmp(&nic->addresses[i], address, sizeof(*address)) == 0)
            return true;
    }
    return false;
}

/* Of a dump's message, the address when it is of interface index and not link-local. */
static bool listed(const struct nlmsghdr *header, int index, struct config_address *ret)
{
    const struct ifaddrmsg *message = NLMSG_DATA(header);
    const struct rtattr *attribute = IFA_RTA(message);
    int left = (int)IFA_PAYLOAD(header);

    memset(ret, 0, sizeof(*ret));
    if (message->ifa_index != (uint32_t)index || message->ifa_scope == RT_SCOPE_LINK)
        return false;
    ret->family = message->ifa_family == AF_INET ? 4 : 6;
    ret->prefix = message->ifa_prefixlen;
    for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
        if (attribute->rta_type == IFA_ADDRESS && RTA_PAYLOAD(attribute) == size_of(ret))
            memcpy(ret->ip, RTA_DATA(attribute), size_of(ret));
    }
    return true;
}

/* One address that the interface has and config does not name; -ENOENT: there is none. */
static int find_stale(int index, const struct config_nic *nic, struct config_address *ret)
{
    char buffer[8192] __attribute__((aligned(NLMSG_ALIGNTO)));
    struct request request;
    bool found = false;

    begin(&request, RTM_GETADDR, 0, sizeof(request.address));
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    if (send(netlink, &request, request.header.nlmsg_len, 0) < 0)
        return -errno;
    for (;;) {
        ssize_t got = recv(netlink, buffer, sizeof(buffer), 0);
        if (got < 0)
            return -errno;
        unsigned left = (unsigned)got;
        const struct nlmsghdr *header = (const struct nlmsghdr *)buffer;
        for (; NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
            struct config_address address;
            if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR)
                return found ? 0 : -ENOENT;
            if (header->nlmsg_type == RTM_NEWADDR && !found && listed(header, index, &address) &&
                !wanted(nic, &address)) {
                *ret = address;
                found = true;
            }
        }
    }
}

static void forget_stale(int index, const struct config_nic *nic)
{
    struct config_address address;

    for (int rounds = 0; rounds < 64 && find_stale(index, nic, &address) == 0; rounds++) {
        if (address_change(index, &address, RTM_DELADDR, 0) < 0)
            return;
    }
}

/* Interface number N of metadata: the device that has its MAC, else ethN. 0: there is none. */
static int find_device(const struct config_nic *nic, unsigned number)
{
    struct if_nameindex *all = if_nameindex();
    struct ifreq request;
    int found = 0;

    for (struct if_nameindex *at = all; nic->has_mac && at && at->if_index; at++) {
        memset(&request, 0, sizeof(request));
        snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", at->if_name);
        if (ioctl(netlink, SIOCGIFHWADDR, &request) == 0 && memcmp(request.ifr_hwaddr.sa_data, nic->mac, 6) == 0)
            found = (int)at->if_index;
    }
    if_freenameindex(all);
    if (!found) {
        snprintf(request.ifr_name, sizeof(request.ifr_name), "eth%u", number);
        found = (int)if_nametoindex(request.ifr_name);
    }
    return found;
}

static void note(int *status, int result, unsigned number, const char *what)
{
    if (result >= 0)
        return;
    say("eth%u: %s: %s", number, what, strerror(-result));
    if (*status == 0)
        *status = result;
}

static void apply_gateway(int *status, int index, unsigned number, const struct config_nic *nic,
                          const struct config_address *gateway)
{
    if (gateway->family == 0)
        return;
    if (nic->has_gateway_mac)
        note(status, neighbour(index, gateway, nic->gateway_mac), number, "the gateway's neighbour entry");
    note(status, default_route(index, gateway), number, "default route");
}

static int apply_one(const struct config_nic *nic, unsigned number)
{
    int index = find_device(nic, number), status = 0;
    bool told = nic->address_count || nic->has_mac || nic->mtu;

    if (!index) {
        if (told)
            note(&status, -ENODEV, number, "no such network device");
        return status;
    }
    note(&status, link_set(index, nic, true), number, "cannot be set up");
    forget_stale(index, nic);
    for (unsigned i = 0; i < nic->address_count; i++) {
        int result = address_change(index, &nic->addresses[i], RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE);
        note(&status, result, number, "address");
    }
    apply_gateway(&status, index, number, nic, &nic->gateway4);
    apply_gateway(&status, index, number, nic, &nic->gateway6);
    return status;
}

/* Written once, before a device is up. Missing files (a kernel without IPv6) are no matter. */
static void set_defaults(void)
{
    static const char *const settings[][2] = {
        {"/proc/sys/net/ipv6/conf/default/accept_dad", "0"},
        /* Addresses are the platform's to give: no neighbour on the link may add one, or a route. */
        {"/proc/sys/net/ipv6/conf/default/accept_ra", "0"},
        {"/proc/sys/net/ipv6/conf/all/accept_ra", "0"},
    };

    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        int fd = open(settings[i][0], O_WRONLY | O_CLOEXEC);
        if (fd >= 0) {
            (void)!write(fd, settings[i][1], 1);
            close(fd);
        }
    }
}

int network_apply(const struct config *config)
{
    int status = 0;

    if (netlink < 0) {
        netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
        if (netlink < 0) {
            say("no rtnetlink: %s", strerror(errno));
            return -errno;
        }
        set_defaults();
        link_set((int)if_nametoindex("lo"), NULL, true);
    }
    for (unsigned i = 0; i < CONFIG_NIC_MAX; i++) {
        int result = apply_one(&config->nics[i], i);
        if (status == 0)
            status = result;
    }
    return status;
}

static int move_link(int index, int namespace_fd)
{
    struct request request;

    begin(&request, RTM_NEWLINK, 0, sizeof(request.link));
    request.link.ifi_family = AF_UNSPEC;
    request.link.ifi_index = index;
    add(&request, IFLA_NET_NS_FD, &namespace_fd, sizeof(namespace_fd));
    return ask(&request);
}

int network_enter(int namespace_fd)
{
    struct if_nameindex *all = if_nameindex();
    int status = 0;

    netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (netlink < 0)
        status = -errno;
    for (struct if_nameindex *at = all; status == 0 && at && at->if_index; at++)
        if (strcmp(at->if_name, "lo") != 0)
            status = move_link((int)at->if_index, namespace_fd);
    if_freenameindex(all);
    if (netlink >= 0)
        close(netlink);
    netlink = -1; /* the next one is of that namespace */
    if (status == 0 && setns(namespace_fd, CLONE_NEWNET) < 0)
        status = -errno;
    return status;
}
