/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's network configuration: from boot parameters (docs/formats/guest-network.md) to addresses, routes and
 * neighbours of lwIP's interfaces. Called once at boot, and again after a restore from a snapshot.
 *
 * A parameter that cannot be understood is told on the console and left out: a guest without an address is found by its
 * log, one with a wrong address by nobody.
 */
#include "unikernel.h"

#include "lwip/dhcp.h"
#include "lwip/etharp.h"
#include "lwip/nd6.h"
#include "lwip/priv/nd6_priv.h"

#include "../platform.h"

/* Where packets go that are on no link of ours: lwIP asks unikernel_gateway6(); a router that advertises itself comes
 * after it. */
static struct {
    const struct netif *netif; /* NULL: no entry */
    ip6_addr_t address;
} gateways6[NET_MAX];

static void copy_value(char *to, size_t size, const char *text)
{
    size_t n = strlen(text);

    if (n >= size)
        n = 0; /* no address is that long */
    memcpy(to, text, n);
    to[n] = '\0';
}

static uint64_t hexadecimal(const char *text)
{
    uint64_t value = 0;

    for (; *text; text++)
        value = value << 4 | (unsigned)((*text & 15) + (*text > '9' ? 9 : 0));
    return value;
}

/* "key=" at the beginning of word: what stands behind it, or NULL. */
static const char *value_of(const char *word, const char *key)
{
    size_t n = strlen(key);

    return strlen(word) > n && memcmp(word, key, n) == 0 && word[n] == '=' ? word + n + 1 : NULL;
}

bool net_parameter(struct net_config config[NET_MAX], const char *word)
{
    struct net_config *c = config;
    const char *value;

    if (memcmp(word, "eth", 3) == 0 && word[3] >= '0' && word[3] < '0' + NET_MAX && word[4] == '.') {
        c = &config[word[3] - '0'];
        word += 5;
    }
    if ((value = value_of(word, "ip4")) != NULL)
        copy_value(c->ip4, sizeof(c->ip4), value);
    else if ((value = value_of(word, "gw4")) != NULL)
        copy_value(c->gateway4, sizeof(c->gateway4), value);
    else if ((value = value_of(word, "ip6")) != NULL)
        copy_value(c->ip6, sizeof(c->ip6), value);
    else if ((value = value_of(word, "gw6")) != NULL)
        copy_value(c->gateway6, sizeof(c->gateway6), value);
    else if ((value = value_of(word, "gwmac")) != NULL)
        copy_value(c->gateway_mac, sizeof(c->gateway_mac), value);
    else if ((value = value_of(word, "net.without")) != NULL)
        c->declined = hexadecimal(value);
    else
        return false;
    return true;
}

static void complain(const char *what, const char *value)
{
    nf_print(NF_LOG, "network: %s=%s is not understood and left out\n", what, value);
}

/* Copies "address" of "address/prefix"; -1 when there is no number behind the stroke. */
static int split_prefix(const char *text, char *ret, size_t size)
{
    size_t n = 0;
    int prefix = -1;

    for (; text[n] && text[n] != '/' && n + 1 < size; n++)
        ret[n] = text[n];
    ret[n] = '\0';
    if (text[n] != '/')
        return -1;
    for (const char *c = text + n + 1; *c; c++) {
        if (*c < '0' || *c > '9' || prefix > 128)
            return -1;
        prefix = (prefix < 0 ? 0 : prefix) * 10 + (*c - '0');
    }
    return prefix;
}

static void configure4(struct netif *netif, const struct net_config *c)
{
    ip4_addr_t address, mask, gateway = {0};
    char text[sizeof(c->ip4)];
    int prefix = split_prefix(c->ip4, text, sizeof(text));

    if (!*c->ip4 || strcmp(c->ip4, "dhcp") == 0)
        return;
    if (prefix < 0 || prefix > 32 || !ip4addr_aton(text, &address)) {
        complain("ip4", c->ip4);
        return;
    }
    if (*c->gateway4 && !ip4addr_aton(c->gateway4, &gateway))
        complain("gw4", c->gateway4);
    mask.addr = lwip_htonl(prefix ? 0xffffffffu << (32 - prefix) : 0);
    netif_set_addr(netif, &address, &mask, &gateway);
}

static void set_gateway6(struct netif *netif, const struct net_config *c, unsigned nic)
{
    gateways6[nic].netif = NULL;
    if (!*c->gateway6)
        return;
    if (!ip6addr_aton(c->gateway6, &gateways6[nic].address)) {
        complain("gw6", c->gateway6);
        return;
    }
    ip6_addr_assign_zone(&gateways6[nic].address, IP6_UNICAST, netif);
    gateways6[nic].netif = netif;
}

const ip6_addr_t *unikernel_gateway6(const struct netif *netif)
{
    for (unsigned i = 0; i < NET_MAX; i++)
        if (gateways6[i].netif == netif)
            return &gateways6[i].address;
    return NULL;
}

/* A reply leaves by the interface whose address it carries, when that has a gateway; what has no source yet and is on no
 * link of ours, by the first that has one. lwIP asks before it looks at its links when there is a source. */
struct netif *unikernel_route4(const ip4_addr_t *from)
{
    struct netif *netif;

    NETIF_FOREACH(netif) {
        if (netif_is_up(netif) && !ip4_addr_isany(netif_ip4_gw(netif)) &&
            (!from || ip4_addr_cmp(from, netif_ip4_addr(netif))))
            return netif;
    }
    return NULL;
}

/* Of IPv6, where lwIP knows one default: the first with a gateway, or else the first. */
static void choose_default6(struct netif *netif)
{
    if (!netif_default || (!unikernel_gateway6(netif_default) && unikernel_gateway6(netif)))
        netif_set_default(netif);
}

static void configure6(struct netif *netif, const struct net_config *c)
{
    ip6_addr_t address;
    char text[sizeof(c->ip6)];
    int prefix = split_prefix(c->ip6, text, sizeof(text));
    bool automatic = strcmp(c->ip6, "auto") == 0;
    s8_t slot;

    if (strcmp(c->ip6, "none") == 0)
        return;
    netif_create_ip6_linklocal_address(netif, 1);
    netif_ip6_addr_set_state(netif, 0, IP6_ADDR_PREFERRED);
    netif_set_ip6_autoconfig_enabled(netif, automatic);
    if (automatic || !*c->ip6)
        return;
    /* lwIP takes what begins with the same 64 bits for the link's own (nd6.c); no other length can be kept. */
    if (prefix != 64 || !ip6addr_aton(text, &address)) {
        complain("ip6", c->ip6);
        return;
    }
    if (netif_add_ip6_address(netif, &address, &slot) == ERR_OK)
        netif_ip6_addr_set_state(netif, slot, IP6_ADDR_PREFERRED);
}

static bool parse_mac(const char *c, struct eth_addr *ret)
{
    for (unsigned i = 0; i < 6; i++) {
        unsigned value = 0, digits = 0;
        for (; *c && *c != ':'; c++, digits++) {
            unsigned digit = *c <= '9' ? (unsigned)(*c - '0') : (unsigned)(*c | 32) - 'a' + 10;
            if (digit > 15)
                return false;
            value = value * 16 + digit;
        }
        if (digits != 2 || (i < 5 && *c++ != ':'))
            return false;
        ret->addr[i] = (uint8_t)value;
    }
    return *c == '\0';
}

/* lwIP has no permanent neighbours for IPv6: an entry that is reachable for 49 days, and afterwards used while it is
 * asked for, is as good. */
static void add_neighbour6(struct netif *netif, const ip6_addr_t *address, const struct eth_addr *mac)
{
    for (unsigned i = 0; i < LWIP_ND6_NUM_NEIGHBORS; i++) {
        struct nd6_neighbor_cache_entry *e = &neighbor_cache[i];

        if (e->state != ND6_NO_ENTRY)
            continue;
        ip6_addr_copy(e->next_hop_address, *address);
        memcpy(e->lladdr, mac->addr, 6);
        e->netif = netif;
        e->isrouter = 1;
        e->counter.reachable_time = UINT32_MAX;
        e->state = ND6_REACHABLE;
        return;
    }
}

/* The gateways' hardware address, when the boot parameters give it: the first packet needs no ARP and no neighbour
 * solicitation. */
static void configure_neighbours(struct netif *netif, const struct net_config *c, unsigned nic)
{
    struct eth_addr mac;
    ip4_addr_t gateway;

    if (!*c->gateway_mac)
        return;
    if (!parse_mac(c->gateway_mac, &mac)) {
        complain("gwmac", c->gateway_mac);
        return;
    }
    if (*c->gateway4 && ip4addr_aton(c->gateway4, &gateway))
        etharp_add_static_entry(&gateway, &mac);
    if (gateways6[nic].netif)
        add_neighbour6(netif, &gateways6[nic].address, &mac);
}

/* A platform that gives the gateway's hardware address makes the guest known by itself. Such a guest raises its
 * interface without a word (netif_set_up() would announce it and look for routers): on a bridge with a thousand others
 * each word of one wakes them all. */
static void raise_interface(struct netif *netif, const struct net_config *c)
{
    if (*c->gateway_mac && net_is_static(c)) {
        netif->flags |= NETIF_FLAG_UP;
        netif->rs_count = 0;
    } else {
        netif_set_up(netif);
    }
}

bool net_is_static(const struct net_config *c)
{
    return strcmp(c->ip4, "dhcp") != 0 && strcmp(c->ip6, "auto") != 0;
}

bool net_is_configured(const struct net_config *c)
{
    return *c->ip4 || *c->ip6 || *c->gateway4 || *c->gateway6 || *c->gateway_mac;
}

void net_configure(struct netif *netif, const struct net_config *config, unsigned nic)
{
    netif->flags &= (u8_t)~NETIF_FLAG_UP; /* nothing is announced while it changes */
    configure4(netif, config);
    configure6(netif, config);
    raise_interface(netif, config);
    if (strcmp(config->ip4, "dhcp") == 0 && dhcp_start(netif) != ERR_OK)
        nf_print(NF_LOG, "network: no memory for DHCP\n");
    set_gateway6(netif, config, nic);
    choose_default6(netif);
    configure_neighbours(netif, config, nic);
}
