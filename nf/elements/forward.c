/* SPDX-License-Identifier: Apache-2.0 */
/*
 * forward: a router's data path between two ports, for IPv4 and IPv6.
 *
 * For each packet: is it addressed to this port; is its IP header sound (RFC 1812 5.2.2, RFC 8200); may it be forwarded
 * at all; the longest prefix that holds its destination says port and next hop; TTL or hop limit goes down by one, the
 * IPv4 checksum with it (RFC 1624), Ethernet gets its new addresses. Neighbours are told, not asked for: routes name
 * the next hop's MAC address, as the platform knows all of them. Nothing is answered: what cannot be forwarded is dropped
 * and counted by its reason.
 *
 * The table is a trie of 4 bits a step in nodes of one cache line: a /24 is found in six. A node holds for each of its
 * 16 branches the next node and the best route so far; routes are put in by ascending length, so a longer one overrides.
 */
#include "forward.h"

enum {
    ROUTE_MAX = 250,
    NODE_MAX = 1024,
    ETHERNET = 14,
    IP4_HEADER = 20,
    IP6_HEADER = 40,
    OPTION_END = 0,
    OPTION_NOP = 1,
    OPTION_LOOSE_ROUTE = 131,
    OPTION_STRICT_ROUTE = 137,
};

enum counter {
    RECEIVED,
    BYTES,
    FORWARDED, /* outcomes from here on */
    TRUNCATED,
    OTHER_HOST,
    NOT_IP,
    MALFORMED,
    CHECKSUM,
    SOURCE_ROUTE,
    MARTIAN,
    TTL,
    NO_ROUTE,
    TOO_BIG,
    COUNTER_COUNT
};

static const char *const names[COUNTER_COUNT] = {
    [RECEIVED] = "received",     [BYTES] = "bytes",      [FORWARDED] = "forwarded", [TRUNCATED] = "truncated",
    [OTHER_HOST] = "other-host", [NOT_IP] = "not-ip",    [MALFORMED] = "malformed", [CHECKSUM] = "checksum",
    [SOURCE_ROUTE] = "source-route", [MARTIAN] = "martian", [TTL] = "ttl",          [NO_ROUTE] = "no-route",
    [TOO_BIG] = "too-big",
};

struct route {
    uint8_t prefix[16]; /* as it is walked: IPv4 in the first four bytes */
    uint8_t family, length, port, mac[6];
};

struct node {
    uint16_t next[16]; /* 0: none */
    uint8_t route[16]; /* index + 1; 0: none */
    uint8_t unused[16];
};
_Static_assert(sizeof(struct node) == 64, "a cache line");

struct state {
    struct node nodes[NODE_MAX]; /* 1 and 2 are the roots of IPv4 and IPv6 */
    struct route routes[ROUTE_MAX];
    struct nfv_port ports[2];
    uint64_t counters[COUNTER_COUNT];
    unsigned node_count, route_count;
};

/* ---- arguments ---- */

static int digit_of(char c, unsigned base)
{
    int d = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;

    return d < (int)base ? d : -1;
}

/* A number of at most max; moves *at behind it. */
static int take_number(const char **at, unsigned base, unsigned max, unsigned *ret)
{
    unsigned value = 0, digits = 0;

    for (int d; (d = digit_of(**at, base)) >= 0; (*at)++, digits++) {
        value = value * base + (unsigned)d;
        if (value > max)
            return -1;
    }
    *ret = value;
    return digits ? 0 : -1;
}

static int take_ip4(const char **at, uint8_t *ret)
{
    unsigned value;

    for (unsigned i = 0; i < 4; i++) {
        if ((i && *(*at)++ != '.') || take_number(at, 10, 255, &value) < 0)
            return -1;
        ret[i] = (uint8_t)value;
    }
    return 0;
}

/* RFC 4291 2.2 without its dotted form. */
static int take_ip6(const char **at, uint8_t *ret)
{
    uint8_t words[16] = {0};
    unsigned count = 0, gap = 99, value;

    if ((*at)[0] == ':' && (*at)[1] == ':') {
        gap = 0;
        *at += 2;
    }
    while (count < 8 && digit_of(**at, 16) >= 0) {
        if (take_number(at, 16, 0xffff, &value) < 0)
            return -1;
        words[2 * count] = (uint8_t)(value >> 8);
        words[2 * count + 1] = (uint8_t)value;
        count++;
        if (**at != ':')
            break;
        if ((*at)[1] == ':') {
            if (gap != 99)
                return -1;
            gap = count;
            *at += 2;
        } else {
            ++*at;
            if (digit_of(**at, 16) < 0)
                return -1;
        }
    }
    if (gap == 99 ? count != 8 : count > 7)
        return -1;
    for (unsigned i = 0; i < 16; i++)
        ret[i] = 0;
    for (unsigned i = 0; i < 2 * count; i++)
        ret[i < 2 * gap || gap == 99 ? i : i + 16 - 2 * count] = words[i];
    return 0;
}

/* "198.18.1.0/24=1@02:00:00:00:00:01" */
static const char *take_route(const char *at, struct route *ret)
{
    unsigned value, bits;
    int colons = 0;

    for (const char *p = at; *p && *p != '/'; p++)
        colons += *p == ':';
    *ret = (struct route){.family = colons ? 6 : 4};
    if (colons ? take_ip6(&at, ret->prefix) < 0 : take_ip4(&at, ret->prefix) < 0)
        return "is no address";
    bits = colons ? 128 : 32;
    if (*at++ != '/' || take_number(&at, 10, bits, &value) < 0)
        return "has no prefix length of this address family";
    ret->length = (uint8_t)value;
    for (unsigned i = value; i < bits; i++)
        if (ret->prefix[i / 8] & 0x80 >> i % 8)
            return "has address bits beyond its prefix length";
    if (*at++ != '=' || take_number(&at, 10, 1, &value) < 0)
        return "names no port, 0 or 1";
    ret->port = (uint8_t)value;
    for (unsigned i = 0; i < 6; i++) {
        if (*at++ != (i ? ':' : '@') || take_number(&at, 16, 255, &value) < 0)
            return "names no next hop's MAC address";
        ret->mac[i] = (uint8_t)value;
    }
    return *at ? "has something behind it" : NULL;
}

/* ---- the table ---- */

static unsigned nibble(const uint8_t *address, unsigned step)
{
    return step % 2 ? address[step / 2] & 15u : address[step / 2] >> 4;
}

/* Routes come by ascending length. False: no room. */
static int insert(struct state *s, unsigned index)
{
    const struct route *r = &s->routes[index];
    struct node *n = &s->nodes[r->family == 4 ? 1 : 2];
    unsigned step = 0;

    for (; 4 * (step + 1) < r->length; step++) {
        uint16_t *next = &n->next[nibble(r->prefix, step)];
        if (!*next) {
            if (s->node_count == NODE_MAX)
                return 0;
            *next = (uint16_t)s->node_count++;
        }
        n = &s->nodes[*next];
    }
    unsigned known = r->length - 4 * step, first = nibble(r->prefix, step), count = 1u << (4 - known);
    for (unsigned i = 0; i < count; i++)
        n->route[first + i] = (uint8_t)(index + 1);
    return 1;
}

static const struct route *find(const struct state *s, unsigned root, const uint8_t *address, unsigned steps)
{
    const struct route *best = NULL;
    unsigned at = root;

    for (unsigned step = 0; at && step < steps; step++) {
        const struct node *n = &s->nodes[at];
        unsigned branch = nibble(address, step);
        if (n->route[branch])
            best = &s->routes[n->route[branch] - 1];
        at = n->next[branch];
    }
    return best;
}

static int init(void *state, const struct nfv_port *ports, int argc, char *const *argv, const char **ret_problem)
{
    struct state *s = state;

    s->ports[0] = ports[0];
    s->ports[1] = ports[1];
    s->node_count = 3;
    if (argc < 2)
        return *ret_problem = "is missing: a route", argc;
    if (argc - 1 > ROUTE_MAX)
        return *ret_problem = "is one route too many, 250 are taken", ROUTE_MAX + 1;
    for (int i = 1; i < argc; i++) {
        *ret_problem = take_route(argv[i], &s->routes[s->route_count]);
        if (*ret_problem)
            return i;
        s->route_count++;
    }
    for (unsigned length = 0; length <= 128; length++)
        for (unsigned i = 0; i < s->route_count; i++)
            if (s->routes[i].length == length && !insert(s, i))
                return *ret_problem = "finds no room in the table any more", (int)i + 1;
    return 0;
}

/* ---- packets ---- */

static unsigned word(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static void put_word(uint8_t *p, unsigned value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

/* The sum of a sound header is 0xffff (RFC 791 3.1, RFC 1071). */
static unsigned header_sum(const uint8_t *p, unsigned bytes)
{
    uint32_t sum = 0;

    for (unsigned i = 0; i < bytes; i += 2)
        sum += word(p + i);
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

/* Source routing is refused (RFC 7126 4.3, 4.4); other options go on unchanged. */
static enum counter check_options(const uint8_t *ip, unsigned header)
{
    for (unsigned i = IP4_HEADER; i < header && ip[i] != OPTION_END;) {
        if (ip[i] == OPTION_NOP) {
            i++;
            continue;
        }
        if (i + 1 >= header || ip[i + 1] < 2 || i + ip[i + 1] > header)
            return MALFORMED;
        if (ip[i] == OPTION_LOOSE_ROUTE || ip[i] == OPTION_STRICT_ROUTE)
            return SOURCE_ROUTE;
        i += ip[i + 1];
    }
    return FORWARDED;
}

/* Addresses no router forwards: this network, loopback, link-local, multicast, reserved and broadcast. */
static int is_martian4(const uint8_t *a)
{
    return a[0] == 0 || a[0] == 127 || a[0] >= 224 || (a[0] == 169 && a[1] == 254);
}

static int is_martian6(const uint8_t *a)
{
    uint8_t some = 0;

    if (a[0] == 0xff || (a[0] == 0xfe && (a[1] & 0xc0) == 0x80))
        return 1;
    for (unsigned i = 0; i < 15; i++)
        some |= a[i];
    return !some && a[15] <= 1;
}

static enum counter check4(const uint8_t *ip, uint32_t here, uint32_t total)
{
    unsigned header, whole;

    if (here < IP4_HEADER)
        return TRUNCATED;
    header = (ip[0] & 15u) * 4;
    whole = word(ip + 2);
    if (ip[0] >> 4 != 4 || header < IP4_HEADER || whole < header)
        return MALFORMED;
    if (here < header || total < whole)
        return TRUNCATED;
    if (header_sum(ip, header) != 0xffff)
        return CHECKSUM;
    if (header > IP4_HEADER) {
        enum counter c = check_options(ip, header);
        if (c != FORWARDED)
            return c;
    }
    if (is_martian4(ip + 12) || is_martian4(ip + 16))
        return MARTIAN;
    return ip[8] <= 1 ? TTL : FORWARDED;
}

static enum counter check6(const uint8_t *ip, uint32_t here, uint32_t total, unsigned segment)
{
    if (here < IP6_HEADER)
        return TRUNCATED;
    if (ip[0] >> 4 != 6)
        return MALFORMED;
    /* a super-segment beyond 64 KiB has no length (RFC 2675's jumbogram without its option) */
    if (total < IP6_HEADER + word(ip + 4) && !(segment && word(ip + 4) == 0))
        return TRUNCATED;
    if (is_martian6(ip + 8) || is_martian6(ip + 24))
        return MARTIAN;
    return ip[7] <= 1 ? TTL : FORWARDED;
}

/* The TTL is the high byte of a word that the checksum covers: HC' = ~(~HC + ~m + m') (RFC 1624, equation 3). */
static void lower_ttl4(uint8_t *ip)
{
    unsigned before = word(ip + 8), after = before - 0x100;
    uint32_t sum = (~word(ip + 10) & 0xffff) + (~before & 0xffff) + after;

    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    put_word(ip + 8, after);
    put_word(ip + 10, ~sum & 0xffff);
}

static int same_mac(const uint8_t *a, const uint8_t *b)
{
    uint8_t differs = 0;

    for (unsigned i = 0; i < 6; i++)
        differs |= a[i] ^ b[i];
    return !differs;
}

static enum counter forward_one(const struct state *s, struct nfv_packet *p)
{
    uint8_t *frame = p->data, *ip = frame + ETHERNET;
    const struct route *route;
    enum counter result;
    unsigned type;

    if (p->length < ETHERNET || p->in > 1)
        return TRUNCATED;
    if (!same_mac(frame, s->ports[p->in].mac))
        return OTHER_HOST;
    type = word(frame + 12);
    if (type == 0x0800)
        result = check4(ip, p->length - ETHERNET, p->total - ETHERNET);
    else if (type == 0x86dd)
        result = check6(ip, p->length - ETHERNET, p->total - ETHERNET, p->segment);
    else
        result = NOT_IP;
    if (result != FORWARDED)
        return result;
    route = type == 0x0800 ? find(s, 1, ip + 16, 8) : find(s, 2, ip + 24, 32);
    if (!route)
        return NO_ROUTE;
    if (!p->segment && (type == 0x0800 ? word(ip + 2) : IP6_HEADER + word(ip + 4)) > s->ports[route->port].mtu)
        return TOO_BIG;
    if (type == 0x0800)
        lower_ttl4(ip);
    else
        ip[7]--;
    for (unsigned i = 0; i < 6; i++) {
        frame[i] = route->mac[i];
        frame[6 + i] = s->ports[route->port].mac[i];
    }
    p->out = route->port;
    return FORWARDED;
}

static void process(void *state, struct nfv_packet *packets, unsigned count)
{
    struct state *s = state;

    for (unsigned i = 0; i < count; i++) {
        packets[i].out = NFV_DROP;
        s->counters[RECEIVED]++;
        s->counters[BYTES] += packets[i].total;
        s->counters[forward_one(s, &packets[i])]++;
    }
}

static const uint64_t *read_counters(const void *state)
{
    return ((const struct state *)state)->counters;
}

const struct nfv_element nfv_forward = {
    .version = NFV_ELEMENT_VERSION,
    .ports = 2,
    .name = "forward",
    .usage = "PREFIX/LENGTH=PORT@MAC...   (packets to PREFIX leave by PORT, 0 or 1, to the next hop MAC)",
    .state_size = sizeof(struct state),
    .init = init,
    .process = process,
    .counter_count = COUNTER_COUNT,
    .first_outcome = FORWARDED,
    .counter_names = names,
    .read = read_counters,
};
