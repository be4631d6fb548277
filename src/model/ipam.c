/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Address bookkeeping with one growing bitmap a family; the daemon calls it while it answers a create.
 *
 * Theory of operation: an address is its number within the subnet. Numbers below POOL_MAX live in a bitmap whose first
 * `full` words are known to be all ones, so that finding the lowest free one is one step after any run of takes.
 * An IPv6 address asked for beyond POOL_MAX is kept in a short sorted-by-nothing list: such requests are by hand.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "model/ipam.h"

enum { POOL_MAX = 1 << 24, WORD_BITS = 64 };

struct bitmap {
    uint64_t *words;
    size_t word_count;
    size_t full;    /* all words before it are full */
    uint32_t limit; /* numbers from 0 to limit - 1 */
};

struct ipam {
    struct subnet subnet;
    struct bitmap v4, v6;
    struct in6_addr *far;
    size_t far_count;
};

static bool bitmap_has(const struct bitmap *map, uint32_t n)
{
    return n / WORD_BITS < map->word_count && map->words[n / WORD_BITS] >> n % WORD_BITS & 1;
}

static int bitmap_set(struct bitmap *map, uint32_t n)
{
    if (n / WORD_BITS >= map->word_count) {
        size_t count = map->word_count ? map->word_count : 4;
        while (count <= n / WORD_BITS)
            count *= 2;
        uint64_t *words = realloc(map->words, count * sizeof(*words));
        if (!words)
            return -ENOMEM;
        memset(words + map->word_count, 0, (count - map->word_count) * sizeof(*words));
        map->words = words;
        map->word_count = count;
    }
    map->words[n / WORD_BITS] |= 1ull << n % WORD_BITS;
    return 0;
}

static void bitmap_clear(struct bitmap *map, uint32_t n)
{
    if (n / WORD_BITS >= map->word_count)
        return;
    map->words[n / WORD_BITS] &= ~(1ull << n % WORD_BITS);
    if (n / WORD_BITS < map->full)
        map->full = n / WORD_BITS;
}

/* The lowest free number, or -1. */
static int64_t bitmap_lowest(struct bitmap *map)
{
    while (map->full < map->word_count && map->words[map->full] == UINT64_MAX)
        map->full++;
    uint64_t n = (uint64_t)map->full * WORD_BITS;
    if (map->full < map->word_count)
        n += (uint64_t)__builtin_ctzll(~map->words[map->full]);
    return n < map->limit ? (int64_t)n : -1;
}

/* ---- subnets */

/* Splits "ADDRESS/PREFIX". */
static int parse_cidr(const char *cidr, int family, void *ret_address, uint8_t *ret_prefix, struct error **err)
{
    const char *slash = strchr(cidr, '/');
    char text[INET6_ADDRSTRLEN];
    char *end = NULL;
    unsigned long prefix = slash && slash[1] ? strtoul(slash + 1, &end, 10) : 0;

    if (!slash || !end || *end || slash[1] < '0' || slash[1] > '9' || (size_t)(slash - cidr) >= sizeof(text) ||
        prefix > 128)
        goto malformed;
    memcpy(text, cidr, (size_t)(slash - cidr));
    text[slash - cidr] = '\0';
    if (inet_pton(family, text, ret_address) != 1)
        goto malformed;
    *ret_prefix = (uint8_t)prefix;
    return 0;
malformed:
    error_set(err, EINVAL, "INVALID_VALUE", "\"%.64s\" is not an IPv%d network", cidr, family == AF_INET ? 4 : 6);
    error_hint(err, "write %s", family == AF_INET ? "198.18.5.0/24" : "fd00:1::/64");
    return -EINVAL;
}

static int parse_v4(const char *cidr, struct subnet *s, struct error **err)
{
    int r = parse_cidr(cidr, AF_INET, &s->ipv4, &s->prefix4, err);
    uint32_t host = ntohl(s->ipv4.s_addr);

    if (r < 0)
        return r;
    if (s->prefix4 < 8 || s->prefix4 > 30)
        return error_set(err, EINVAL, "INVALID_VALUE", "\"%s\": the prefix must be 8 to 30", cidr);
    if (host & (UINT32_MAX >> s->prefix4))
        return error_set(err, EINVAL, "INVALID_VALUE", "\"%s\" has bits set beyond its prefix", cidr);
    if (host >> 28 >= 14 || host >> 24 == 127 || host >> 24 == 0)
        return error_set(err, EINVAL, "INVALID_VALUE", "\"%s\" is not a network for hosts", cidr);
    s->gateway4.s_addr = htonl(host + 1);
    return 0;
}

static bool bits_beyond(const struct in6_addr *a, unsigned prefix)
{
    for (unsigned i = prefix; i < 128; i++)
        if (a->s6_addr[i / 8] >> (7 - i % 8) & 1)
            return true;
    return false;
}

static int parse_v6(const char *cidr, struct subnet *s, struct error **err)
{
    int r = parse_cidr(cidr, AF_INET6, &s->ipv6, &s->prefix6, err);

    if (r < 0)
        return r;
    if (s->prefix6 < 48 || s->prefix6 > 120)
        return error_set(err, EINVAL, "INVALID_VALUE", "\"%s\": the prefix must be 48 to 120", cidr);
    if (bits_beyond(&s->ipv6, s->prefix6))
        return error_set(err, EINVAL, "INVALID_VALUE", "\"%s\" has bits set beyond its prefix", cidr);
    if (IN6_IS_ADDR_MULTICAST(&s->ipv6) || IN6_IS_ADDR_LINKLOCAL(&s->ipv6) || !bits_beyond(&s->ipv6, 0))
        return error_set(err, EINVAL, "INVALID_VALUE", "\"%s\" is not a network for hosts", cidr);
    s->gateway6 = s->ipv6;
    s->gateway6.s6_addr[15] |= 1;
    return 0;
}

int subnet_parse(const char *ipv4_cidr, const char *ipv6_cidr, struct subnet *ret, struct error **err)
{
    struct subnet s = {0};
    int r = ipv4_cidr ? parse_v4(ipv4_cidr, &s, err) : 0;

    if (r == 0 && ipv6_cidr)
        r = parse_v6(ipv6_cidr, &s, err);
    if (r < 0)
        return r;
    *ret = s;
    return 0;
}

/* The first `bits` bits are the same. */
static bool same_prefix(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    for (unsigned i = 0; i < bits; i++)
        if ((a[i / 8] ^ b[i / 8]) >> (7 - i % 8) & 1)
            return false;
    return true;
}

bool subnet_overlaps(const struct subnet *a, const struct subnet *b)
{
    unsigned p4 = a->prefix4 < b->prefix4 ? a->prefix4 : b->prefix4;
    unsigned p6 = a->prefix6 < b->prefix6 ? a->prefix6 : b->prefix6;

    return (p4 && same_prefix((const uint8_t *)&a->ipv4, (const uint8_t *)&b->ipv4, p4)) ||
           (p6 && same_prefix(a->ipv6.s6_addr, b->ipv6.s6_addr, p6));
}

/* ---- pools */

static uint32_t pool_limit(unsigned host_bits, bool has_broadcast)
{
    uint32_t size = host_bits >= 24 ? POOL_MAX : 1u << host_bits;
    return has_broadcast && host_bits < 24 ? size - 1 : size - (has_broadcast && host_bits == 24);
}

int ipam_new(const struct subnet *subnet, struct ipam **ret, struct error **err)
{
    struct ipam *ipam = calloc(1, sizeof(*ipam));
    int r = ipam ? 0 : -ENOMEM;

    if (ipam) {
        ipam->subnet = *subnet;
        ipam->v4.limit = subnet->prefix4 ? pool_limit(32u - subnet->prefix4, true) : 0;
        ipam->v6.limit = subnet->prefix6 ? pool_limit(128u - subnet->prefix6, false) : 0;
        /* number 0 is the network itself (IPv6: the subnet-router anycast address), 1 the gateway */
        for (uint32_t i = 0; r == 0 && i < 2; i++)
            if ((subnet->prefix4 && bitmap_set(&ipam->v4, i) < 0) || (subnet->prefix6 && bitmap_set(&ipam->v6, i) < 0))
                r = -ENOMEM;
    }
    if (r < 0) {
        ipam_free(ipam);
        return error_set(err, ENOMEM, "NO_MEMORY", "address pool: out of memory");
    }
    *ret = ipam;
    return 0;
}

void ipam_free(struct ipam *ipam)
{
    if (!ipam)
        return;
    free(ipam->v4.words);
    free(ipam->v6.words);
    free(ipam->far);
    free(ipam);
}

/* The number of an IPv6 address when it is below POOL_MAX, else -1. */
static int64_t number6(const struct ipam *ipam, const struct in6_addr *a)
{
    for (unsigned i = ipam->subnet.prefix6; i < 104; i++)
        if (a->s6_addr[i / 8] >> (7 - i % 8) & 1)
            return -1;
    uint32_t low = (uint32_t)a->s6_addr[13] << 16 | (uint32_t)a->s6_addr[14] << 8 | a->s6_addr[15];
    if (ipam->subnet.prefix6 > 104)
        low &= (1u << (128 - ipam->subnet.prefix6)) - 1;
    return low;
}

static struct in6_addr address6(const struct ipam *ipam, uint32_t n)
{
    struct in6_addr a = ipam->subnet.ipv6;

    a.s6_addr[13] |= (uint8_t)(n >> 16);
    a.s6_addr[14] |= (uint8_t)(n >> 8);
    a.s6_addr[15] |= (uint8_t)n;
    return a;
}

static size_t far_find(const struct ipam *ipam, const struct in6_addr *a)
{
    size_t i = 0;

    while (i < ipam->far_count && memcmp(&ipam->far[i], a, sizeof(*a)) != 0)
        i++;
    return i;
}

static int far_add(struct ipam *ipam, const struct in6_addr *a)
{
    struct in6_addr *list = realloc(ipam->far, (ipam->far_count + 1) * sizeof(*list));

    if (!list)
        return -ENOMEM;
    ipam->far = list;
    list[ipam->far_count++] = *a;
    return 0;
}

static int address_error(struct error **err, int errnum, const char *code, int family, const void *a, const char *what)
{
    char text[INET6_ADDRSTRLEN];

    return error_set(err, errnum, code, "%s %s", inet_ntop(family, a, text, sizeof(text)), what);
}

static int exhausted(struct error **err, int family)
{
    error_set(err, ENOSPC, "ADDRESS_POOL_EXHAUSTED", "no IPv%d address of this network is free", family);
    error_hint(err, "remove instances, or add a network with a shorter prefix");
    return -ENOSPC;
}

/* Works out the IPv4 number to take; nothing is changed. */
static int choose4(struct ipam *ipam, struct in_addr asked, uint32_t *ret, struct error **err)
{
    uint32_t host = ntohl(asked.s_addr), base = ntohl(ipam->subnet.ipv4.s_addr);
    int64_t n;

    if (!asked.s_addr) {
        n = bitmap_lowest(&ipam->v4);
        if (n < 0)
            return exhausted(err, 4);
    } else {
        n = (int64_t)host - base;
        if (!ipam->subnet.prefix4 || n < 0 || n >= (int64_t)ipam->v4.limit || n == 0)
            return address_error(err, EINVAL, "INVALID_VALUE", AF_INET, &asked, "is no host address of this network");
        if (bitmap_has(&ipam->v4, (uint32_t)n))
            return address_error(err, EADDRINUSE, "ADDRESS_TAKEN", AF_INET, &asked, "is taken");
    }
    *ret = (uint32_t)n;
    return 0;
}

/* Works out the IPv6 address to take; prefer is the IPv4 number. */
static int choose6(struct ipam *ipam, const struct in6_addr *asked, uint32_t prefer, struct in6_addr *ret,
                   struct error **err)
{
    int64_t n;

    if (IN6_IS_ADDR_UNSPECIFIED(asked)) {
        n = prefer && prefer < ipam->v6.limit && !bitmap_has(&ipam->v6, prefer) ? prefer : bitmap_lowest(&ipam->v6);
        if (n < 0)
            return exhausted(err, 6);
        *ret = address6(ipam, (uint32_t)n);
        return 0;
    }
    if (!ipam->subnet.prefix6 || !same_prefix(asked->s6_addr, ipam->subnet.ipv6.s6_addr, ipam->subnet.prefix6) ||
        memcmp(asked, &ipam->subnet.ipv6, sizeof(*asked)) == 0)
        return address_error(err, EINVAL, "INVALID_VALUE", AF_INET6, asked, "is no host address of this network");
    n = number6(ipam, asked);
    if (n >= 0 ? bitmap_has(&ipam->v6, (uint32_t)n) : far_find(ipam, asked) < ipam->far_count)
        return address_error(err, EADDRINUSE, "ADDRESS_TAKEN", AF_INET6, asked, "is taken");
    *ret = *asked;
    return 0;
}

int ipam_take(struct ipam *ipam, struct in_addr asked4, const struct in6_addr *asked6, struct in_addr *ret4,
              struct in6_addr *ret6, struct error **err)
{
    struct in6_addr address = {0};
    uint32_t number = 0;
    int r = 0;

    if (ipam->subnet.prefix4 || asked4.s_addr)
        r = choose4(ipam, asked4, &number, err);
    if (r == 0 && (ipam->subnet.prefix6 || !IN6_IS_ADDR_UNSPECIFIED(asked6)))
        r = choose6(ipam, asked6, number, &address, err);
    if (r < 0)
        return r;
    if (ipam->subnet.prefix6) {
        int64_t n = number6(ipam, &address);
        r = n >= 0 ? bitmap_set(&ipam->v6, (uint32_t)n) : far_add(ipam, &address);
    }
    if (r == 0 && ipam->subnet.prefix4 && bitmap_set(&ipam->v4, number) < 0) {
        ipam_give(ipam, (struct in_addr){0}, &address);
        r = -ENOMEM;
    }
    if (r < 0)
        return error_set(err, ENOMEM, "NO_MEMORY", "address pool: out of memory");
    ret4->s_addr = ipam->subnet.prefix4 ? htonl(ntohl(ipam->subnet.ipv4.s_addr) + number) : 0;
    *ret6 = address;
    return 0;
}

void ipam_give(struct ipam *ipam, struct in_addr ipv4, const struct in6_addr *ipv6)
{
    uint32_t n4 = ntohl(ipv4.s_addr) - ntohl(ipam->subnet.ipv4.s_addr);

    if (ipv4.s_addr && n4 > 1 && n4 < ipam->v4.limit)
        bitmap_clear(&ipam->v4, n4);
    if (!ipam->subnet.prefix6 || IN6_IS_ADDR_UNSPECIFIED(ipv6))
        return;
    int64_t n6 = number6(ipam, ipv6);
    if (n6 > 1)
        bitmap_clear(&ipam->v6, (uint32_t)n6);
    else if (n6 < 0) {
        size_t i = far_find(ipam, ipv6);
        if (i < ipam->far_count)
            ipam->far[i] = ipam->far[--ipam->far_count];
    }
}

void ipam_mac(const char *network, struct in_addr ipv4, const struct in6_addr *ipv6, uint8_t ret_mac[6])
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    const uint8_t *low = ipv4.s_addr ? (const uint8_t *)&ipv4 : ipv6->s6_addr + 12;

    for (const unsigned char *p = (const unsigned char *)network; *p; p++)
        hash = (hash ^ *p) * 16777619u;
    ret_mac[0] = 0x02;
    ret_mac[1] = (uint8_t)(hash ^ hash >> 8 ^ hash >> 16 ^ hash >> 24);
    memcpy(ret_mac + 2, low, 4);
}
