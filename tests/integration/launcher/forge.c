/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an instance with NET_RAW tries on its network, frame by frame: honest ones, marked HONESTnn at their end, and
 * forged ones, marked FORGEDnn. Part of the launcher tests' application; test_guard.c looks what arrives.
 */
#include "forge.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

struct frame {
    uint8_t bytes[256];
    size_t size;
};

static int fd;
static unsigned index_of_eth0;
static uint8_t own_mac[6], other_mac[6] = {2, 0, 0, 0, 0, 2};
static struct in_addr own4, other4, none4;
static struct in6_addr own6, other6, local6, none6;

static void add(struct frame *f, const void *bytes, size_t size)
{
    memcpy(f->bytes + f->size, bytes, size);
    f->size += size;
}

static void add16(struct frame *f, uint16_t value)
{
    value = htons(value);
    add(f, &value, 2);
}

static struct frame ethernet(const uint8_t *from, uint16_t type)
{
    struct frame f = {.size = 0};

    add(&f, "\xff\xff\xff\xff\xff\xff", 6);
    add(&f, from, 6);
    add16(&f, type);
    return f;
}

static struct frame arp(const uint8_t *from, uint16_t operation, const uint8_t *sender, struct in_addr address)
{
    struct frame f = ethernet(from, ETH_P_ARP);

    add(&f, "\0\1\x08\0\6\4", 6);
    add16(&f, operation);
    add(&f, sender, 6);
    add(&f, &address, 4);
    add(&f, "\0\0\0\0\0\0", 6);
    add(&f, &other4, 4);
    return f;
}

static void add_ipv4(struct frame *f, struct in_addr from, uint16_t source, uint16_t destination)
{
    add(f, "\x45\0\0\x24\0\0\0\0\x40\x11\0\0", 12); /* 36 bytes: 20, UDP's 8, the mark's 8 */
    add(f, &from, 4);
    add(f, "\xff\xff\xff\xff", 4);
    add16(f, source);
    add16(f, destination);
    add(f, "\0\x10\0\0", 4);
}

static struct frame ipv4(const uint8_t *mac, struct in_addr from, uint16_t source, uint16_t destination)
{
    struct frame f = ethernet(mac, ETH_P_IP);

    add_ipv4(&f, from, source, destination);
    return f;
}

static struct frame ipv6(const struct in6_addr *from, uint8_t next, uint16_t payload)
{
    struct frame f = ethernet(own_mac, ETH_P_IPV6);

    add(&f, "\x60\0\0\0", 4);
    add16(&f, (uint16_t)(payload + 8));
    add(&f, &next, 1);
    add(&f, "\xff", 1);
    add(&f, from, 16);
    add(&f, "\xff\2\0\0\0\0\0\0\0\0\0\0\0\0\0\1", 16);
    return f;
}

static struct frame udp6(const struct in6_addr *from, uint16_t source)
{
    struct frame f = ipv6(from, IPPROTO_UDP, 8);

    add16(&f, source);
    add16(&f, 546);
    add(&f, "\0\x10\0\0", 4);
    return f;
}

static void add_neighbour(struct frame *f, uint8_t type, const struct in6_addr *target)
{
    uint8_t head[8] = {type, 0, 0, 0, 0x60};

    add(f, head, 8);
    add(f, target, 16);
}

static struct frame neighbour(const struct in6_addr *from, uint8_t type, const struct in6_addr *target)
{
    struct frame f = ipv6(from, IPPROTO_ICMPV6, 24);

    add_neighbour(&f, type, target);
    return f;
}

/* The same behind a hop-by-hop header that holds nothing but padding. */
static struct frame hidden(uint8_t type)
{
    struct frame f = ipv6(&local6, IPPROTO_HOPOPTS, 32);

    add(&f, "\x3a\0\1\4\0\0\0\0", 8);
    add_neighbour(&f, type, &own6);
    return f;
}

static struct frame tagged(struct in_addr from)
{
    struct frame f = ethernet(own_mac, ETH_P_8021Q);

    add16(&f, 0);
    add16(&f, ETH_P_IP);
    add_ipv4(&f, from, 1000, 1000);
    return f;
}

/* A receiver takes off both: VLAN 0 is none. */
static struct frame tagged_twice(uint16_t outer, struct in_addr from)
{
    struct frame f = ethernet(own_mac, outer);

    add16(&f, 0);
    add16(&f, ETH_P_8021Q);
    add16(&f, 0);
    add16(&f, ETH_P_IP);
    add_ipv4(&f, from, 1000, 1000);
    return f;
}

static int send_marked(struct frame f, const char *word, int number)
{
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)index_of_eth0};
    char mark[9];

    snprintf(mark, sizeof(mark), "%s%02d", word, number);
    add(&f, mark, 8);
    return sendto(fd, f.bytes, f.size, 0, (struct sockaddr *)&to, sizeof(to)) == (ssize_t)f.size ? 0 : 1;
}

static int look_up(void)
{
    struct ifaddrs *list, *a;
    struct ifreq request = {.ifr_name = "eth0"};

    index_of_eth0 = if_nametoindex("eth0");
    if (getifaddrs(&list) || ioctl(fd, SIOCGIFHWADDR, &request))
        return 1;
    memcpy(own_mac, request.ifr_hwaddr.sa_data, 6);
    for (a = list; a; a = a->ifa_next) {
        if (!a->ifa_addr || strcmp(a->ifa_name, "eth0") != 0)
            continue;
        if (a->ifa_addr->sa_family == AF_INET)
            own4 = ((struct sockaddr_in *)(void *)a->ifa_addr)->sin_addr;
        if (a->ifa_addr->sa_family != AF_INET6)
            continue;
        struct in6_addr *six = &((struct sockaddr_in6 *)(void *)a->ifa_addr)->sin6_addr;
        *(IN6_IS_ADDR_LINKLOCAL(six) ? &local6 : &own6) = *six;
    }
    freeifaddrs(list);
    return 0;
}

int forge(const char *victim4, const char *victim6)
{
    struct in_addr gateway;
    int e = 0, h = 0, n = 0;

    fd = socket(AF_PACKET, SOCK_RAW, 0);
    if (fd < 0 || look_up() || inet_pton(AF_INET, victim4, &other4) != 1 || inet_pton(AF_INET6, victim6, &other6) != 1)
        return 2;
    inet_pton(AF_INET, "198.18.0.1", &gateway);
    e |= send_marked(arp(own_mac, 1, own_mac, own4), "HONEST", h++);
    e |= send_marked(arp(own_mac, 1, own_mac, none4), "HONEST", h++);
    e |= send_marked(ipv4(own_mac, own4, 1000, 1000), "HONEST", h++);
    e |= send_marked(ipv4(own_mac, none4, 68, 67), "HONEST", h++);
    e |= send_marked(udp6(&own6, 1000), "HONEST", h++);
    e |= send_marked(udp6(&local6, 1000), "HONEST", h++);
    e |= send_marked(neighbour(&own6, ND_NEIGHBOR_SOLICIT, &other6), "HONEST", h++);
    e |= send_marked(neighbour(&own6, ND_NEIGHBOR_ADVERT, &own6), "HONEST", h++);
    e |= send_marked(neighbour(&local6, ND_NEIGHBOR_ADVERT, &local6), "HONEST", h++);
    e |= send_marked(neighbour(&none6, ND_NEIGHBOR_SOLICIT, &own6), "HONEST", h++);
    e |= send_marked(ethernet(own_mac, 0x88b5 /* for experiments */), "HONEST", h++);
    e |= send_marked(tagged(own4), "HONEST", h++);

    e |= send_marked(arp(own_mac, 2, own_mac, other4), "FORGED", n++);
    e |= send_marked(arp(own_mac, 2, other_mac, own4), "FORGED", n++);
    e |= send_marked(arp(other_mac, 2, other_mac, other4), "FORGED", n++);
    e |= send_marked(arp(own_mac, 2, own_mac, gateway), "FORGED", n++);
    e |= send_marked(ipv4(own_mac, other4, 1000, 1000), "FORGED", n++);
    e |= send_marked(ipv4(own_mac, gateway, 1000, 1000), "FORGED", n++);
    e |= send_marked(ipv4(other_mac, own4, 1000, 1000), "FORGED", n++);
    e |= send_marked(ipv4(own_mac, none4, 1000, 1000), "FORGED", n++);
    e |= send_marked(ipv4(own_mac, own4, 67, 68), "FORGED", n++);
    e |= send_marked(tagged(other4), "FORGED", n++);
    e |= send_marked(udp6(&other6, 1000), "FORGED", n++);
    e |= send_marked(udp6(&own6, 547), "FORGED", n++);
    e |= send_marked(neighbour(&own6, ND_NEIGHBOR_ADVERT, &other6), "FORGED", n++);
    e |= send_marked(neighbour(&other6, ND_NEIGHBOR_ADVERT, &other6), "FORGED", n++);
    e |= send_marked(neighbour(&none6, ND_NEIGHBOR_SOLICIT, &other6), "FORGED", n++);
    e |= send_marked(neighbour(&local6, ND_ROUTER_ADVERT, &own6), "FORGED", n++);
    e |= send_marked(neighbour(&local6, ND_REDIRECT, &own6), "FORGED", n++);
    e |= send_marked(hidden(ND_ROUTER_ADVERT), "FORGED", n++);
    e |= send_marked(hidden(ND_REDIRECT), "FORGED", n++);
    e |= send_marked(ethernet(other_mac, 0x88b5), "FORGED", n++);
    e |= send_marked(neighbour(&local6, 143 /* MLDv2 report: everybody would get it */, &none6), "FORGED", n++);
    e |= send_marked(tagged_twice(ETH_P_8021Q, gateway), "FORGED", n++);
    e |= send_marked(tagged_twice(ETH_P_8021AD, gateway), "FORGED", n++);
    e |= send_marked(neighbour(&local6, ND_ROUTER_SOLICIT, &none6), "FORGED", n++); /* as above */
    usleep(300000); /* what is under way would end with this network namespace */
    close(fd);
    printf("sent %d honest and %d forged frames%s\n", h, n, e ? ", not all" : "");
    return e;
}
