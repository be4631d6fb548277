/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of claimed addresses, and the elements of the kernel's sets (guard_rules.c has the rules). Elements go by
 * netfilter's own messages, one transaction an instance: nft would cost milliseconds.
 *
 * A key in the sets is the port's interface index, its hardware address and, but in "hardware", an IP address; each
 * part fills whole 32-bit registers, as the kernel lays them out.
 */
#include "launcher/guard.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "launcher/nft.h"
#include "netlink/netlink.h"

#define GUARD_TABLE "coracle4"
enum { GUARD_GENERATION = 4 }; /* the number in the table's name */

enum {
    BUCKETS = 1024,
    ELEMENTS_PER_PORT = 6,
    PORTS_AT_ONCE = 16,                                          /* in one transaction */
    BATCH_BYTES = 512 + PORTS_AT_ONCE * ELEMENTS_PER_PORT * 128, /* an element takes at most 116 */
};

enum kind { HARDWARE, ADDRESS4, ADDRESS6, KIND_COUNT };

/* One address one port holds on one link. */
struct claim {
    struct claim *next;
    enum kind kind;
    struct guard_port port; /* whose; all of it */
    bool allowed;           /* in the kernel too */
};

struct guard {
    int netns_fd;
    bool holds;
    pthread_mutex_t lock; /* guards what follows */
    int socket;
    uint32_t sequence;
    struct claim *buckets[BUCKETS];
};

/* ---- the table ---- */

/* The bytes of one address of a port; 0: it has none of that kind. */
static size_t address_of(const struct guard_port *port, enum kind kind, uint8_t ret[16])
{
    static const struct in6_addr none;

    if (kind == HARDWARE) {
        memcpy(ret, port->mac, 6);
        return 6;
    }
    if (kind == ADDRESS4) {
        memcpy(ret, &port->ipv4, 4);
        return port->ipv4.s_addr ? 4 : 0;
    }
    memcpy(ret, &port->ipv6, 16);
    return memcmp(&port->ipv6, &none, sizeof(none)) ? 16 : 0;
}

static struct claim **bucket(struct guard *g, uint32_t link, const uint8_t *address, size_t size)
{
    uint32_t h = (2166136261u ^ link) * 16777619u; /* FNV-1a */

    for (size_t i = 0; i < size; i++)
        h = (h ^ address[i]) * 16777619u;
    return &g->buckets[(h ^ h >> 16) % BUCKETS];
}

/* Where the claim on this address of the port is, whoever holds it; the place is NULL when nobody does. */
static struct claim **find(struct guard *g, const struct guard_port *port, enum kind kind)
{
    uint8_t wanted[16], held[16];
    size_t size = address_of(port, kind, wanted);
    struct claim **place = bucket(g, port->link, wanted, size);

    for (; *place; place = &(*place)->next)
        if ((*place)->kind == kind && (*place)->port.link == port->link &&
            address_of(&(*place)->port, kind, held) == size && memcmp(held, wanted, size) == 0)
            break;
    return place;
}

/* Removes the claims of the port itself; another's stay. Returns whether it was allowed in the kernel. */
static bool drop(struct guard *g, const struct guard_port *port)
{
    bool allowed = false;
    uint8_t address[16];

    for (enum kind kind = 0; kind < KIND_COUNT; kind++) {
        struct claim **place = find(g, port, kind), *c = *place;
        if (!address_of(port, kind, address) || !c || c->port.index != port->index)
            continue;
        allowed |= c->allowed;
        *place = c->next;
        free(c);
    }
    return allowed;
}

static int taken(const struct guard_port *port, enum kind kind, struct error **err)
{
    char text[INET6_ADDRSTRLEN] = "its hardware address";

    if (kind == ADDRESS4)
        inet_ntop(AF_INET, &port->ipv4, text, sizeof(text));
    else if (kind == ADDRESS6)
        inet_ntop(AF_INET6, &port->ipv6, text, sizeof(text));
    error_set(err, EADDRINUSE, "ADDRESS_TAKEN", "%s is held by another running instance on that network", text);
    error_hint(err, "choose another address, or leave it to the platform");
    return -EADDRINUSE;
}

static int claim_locked(struct guard *g, const struct guard_port *port, struct error **err)
{
    uint8_t address[16];

    for (enum kind kind = 0; kind < KIND_COUNT; kind++)
        if (address_of(port, kind, address) && *find(g, port, kind))
            return taken(port, kind, err);
    for (enum kind kind = 0; kind < KIND_COUNT; kind++) {
        struct claim **place, *c;
        if (!address_of(port, kind, address))
            continue;
        c = malloc(sizeof(*c));
        if (!c) {
            drop(g, port);
            return error_set(err, ENOMEM, "NO_MEMORY", "no memory for an address");
        }
        place = find(g, port, kind);
        *c = (struct claim){.kind = kind, .port = *port};
        *place = c;
    }
    return 0;
}

int guard_claim(struct guard *g, const struct guard_port *port, struct error **err)
{
    int r;

    pthread_mutex_lock(&g->lock);
    r = claim_locked(g, port, err);
    pthread_mutex_unlock(&g->lock);
    return r;
}

/* ---- the kernel's sets ---- */

struct batch {
    _Alignas(8) uint8_t data[BATCH_BYTES];
    size_t used;
    uint32_t first, last; /* sequence numbers of the elements */
};

static struct nlmsghdr *put(struct guard *g, struct batch *b, uint16_t type, uint16_t flags, uint8_t family,
                            uint16_t resource)
{
    struct nlmsghdr *h = mnl_nlmsg_put_header(b->data + b->used);
    struct nfgenmsg *n;

    h->nlmsg_type = type;
    h->nlmsg_flags = NLM_F_REQUEST | flags;
    h->nlmsg_seq = ++g->sequence;
    n = mnl_nlmsg_put_extra_header(h, sizeof(*n));
    n->nfgen_family = family;
    n->version = NFNETLINK_V0;
    n->res_id = htons(resource);
    return h;
}

static void put_edge(struct guard *g, struct batch *b, uint16_t type)
{
    b->used += put(g, b, type, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES)->nlmsg_len;
}

/* key NULL: every element (only to be removed). */
static void put_element(struct guard *g, struct batch *b, bool add, const char *set, const void *key, size_t size)
{
    struct nlmsghdr *h = put(g, b, NFNL_SUBSYS_NFTABLES << 8 | (add ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM),
                             NLM_F_ACK | (add ? NLM_F_CREATE : 0), NFPROTO_BRIDGE, 0);
    struct nlattr *list, *element, *value;

    mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_TABLE, GUARD_TABLE);
    mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_SET, set);
    if (key) {
        list = mnl_attr_nest_start(h, NFTA_SET_ELEM_LIST_ELEMENTS);
        element = mnl_attr_nest_start(h, NFTA_LIST_ELEM);
        value = mnl_attr_nest_start(h, NFTA_SET_ELEM_KEY);
        mnl_attr_put(h, NFTA_DATA_VALUE, size, key);
        mnl_attr_nest_end(h, value);
        mnl_attr_nest_end(h, element);
        mnl_attr_nest_end(h, list);
    }
    b->used += MNL_ALIGN(h->nlmsg_len);
    b->last = h->nlmsg_seq;
}

struct key { /* as in the registers */
    uint32_t index;
    uint8_t mac[8];
    uint8_t address[16];
};

static void put_port(struct guard *g, struct batch *b, bool add, const struct guard_port *port)
{
    struct key key = {.index = port->index};
    const size_t bare = offsetof(struct key, address);

    memcpy(key.mac, port->mac, sizeof(port->mac));
    put_element(g, b, add, "hardware", &key, bare);
    if (address_of(port, ADDRESS4, key.address))
        put_element(g, b, add, "sources4", &key, bare + 4);
    if (address_of(port, ADDRESS6, key.address)) {
        put_element(g, b, add, "sources6", &key, sizeof(key));
        put_element(g, b, add, "targets", &key, sizeof(key));
    }
    /* every interface may have its link-local address, asked for or not */
    netlink_link_local(port->mac, (struct in6_addr *)(void *)key.address);
    put_element(g, b, add, "sources6", &key, sizeof(key));
    put_element(g, b, add, "targets", &key, sizeof(key));
}

/* The answer to the last element comes last. */
static int read_answers(struct guard *g, const struct batch *b)
{
    _Alignas(8) uint8_t answer[8192];
    int failure = 0;

    for (;;) {
        ssize_t n = recv(g->socket, answer, sizeof(answer), 0);
        int left = (int)n;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        for (struct nlmsghdr *h = (struct nlmsghdr *)answer; mnl_nlmsg_ok(h, left); h = mnl_nlmsg_next(h, &left)) {
            const struct nlmsgerr *e = mnl_nlmsg_get_payload(h);
            if (h->nlmsg_type != NLMSG_ERROR || h->nlmsg_seq - b->first > b->last - b->first)
                continue;
            failure = failure ? failure : e->error;
            if (h->nlmsg_seq == b->last)
                return failure;
        }
    }
}

static void begin(struct guard *g, struct batch *b)
{
    b->used = 0;
    put_edge(g, b, NFNL_MSG_BATCH_BEGIN);
    b->first = g->sequence;
    b->last = g->sequence;
}

/* Only the last element is acknowledged: failures are told all the same, before it. */
static void ask_once(struct batch *b)
{
    size_t left = b->used;

    for (struct nlmsghdr *h = (struct nlmsghdr *)b->data; left >= sizeof(*h) && h->nlmsg_len >= sizeof(*h);) {
        size_t size = MNL_ALIGN(h->nlmsg_len);
        if (h->nlmsg_seq != b->last)
            h->nlmsg_flags &= (uint16_t)~NLM_F_ACK;
        if (size >= left)
            break;
        left -= size;
        h = (struct nlmsghdr *)((uint8_t *)h + size);
    }
}

static int commit(struct guard *g, struct batch *b)
{
    if (b->last == b->first)
        return 0;
    ask_once(b);
    put_edge(g, b, NFNL_MSG_BATCH_END);
    if (send(g->socket, b->data, b->used, 0) < 0)
        return -errno;
    return read_answers(g, b);
}

/* Marks the port's own claims; under the lock. */
static void mark(struct guard *g, const struct guard_port *port)
{
    uint8_t address[16];

    for (enum kind kind = 0; kind < KIND_COUNT; kind++) {
        struct claim *c = address_of(port, kind, address) ? *find(g, port, kind) : NULL;
        if (c && c->port.index == port->index)
            c->allowed = true;
    }
}

int guard_allow(struct guard *g, const struct guard_port *ports, uint32_t count, struct error **err)
{
    struct batch b;
    int r;

    if (!g->holds)
        return 0;
    pthread_mutex_lock(&g->lock);
    begin(g, &b);
    for (uint32_t i = 0; i < count && i < PORTS_AT_ONCE; i++)
        put_port(g, &b, true, &ports[i]);
    r = commit(g, &b);
    for (uint32_t i = 0; i < count && r == 0; i++)
        mark(g, &ports[i]);
    pthread_mutex_unlock(&g->lock);
    return r < 0
               ? error_set_errno(err, -r, r == -ENOMEM ? "NO_MEMORY" : "START_FAILED", "letting its addresses through")
               : 0;
}

void guard_forget(struct guard *g, const struct guard_port *ports, uint32_t count)
{
    struct batch b;

    pthread_mutex_lock(&g->lock);
    begin(g, &b);
    for (uint32_t i = 0; i < count && i < PORTS_AT_ONCE; i++)
        if (drop(g, &ports[i]) && g->holds)
            put_port(g, &b, false, &ports[i]);
    commit(g, &b); /* what is not there is as good as removed */
    pthread_mutex_unlock(&g->lock);
}

/* ---- all of them at once ---- */

static void text_key(struct buffer *text, const struct guard_port *p)
{
    buffer_printf(text, "%u . %02x:%02x:%02x:%02x:%02x:%02x", p->index, p->mac[0], p->mac[1], p->mac[2], p->mac[3],
                  p->mac[4], p->mac[5]);
}

static void text_element(struct buffer *text, const char *set, const struct guard_port *port, const char *address)
{
    buffer_printf(text, "add element bridge " GUARD_TABLE " %s { ", set);
    text_key(text, port);
    buffer_printf(text, "%s%s }\n", *address ? " . " : "", address);
}

static void text_address6(struct buffer *text, const struct guard_port *port, const struct in6_addr *address)
{
    char words[INET6_ADDRSTRLEN], number[40] = "0x";

    inet_ntop(AF_INET6, address, words, sizeof(words));
    for (int i = 0; i < 16; i++)
        snprintf(number + 2 + 2 * i, 3, "%02x", address->s6_addr[i]);
    text_element(text, "sources6", port, words);
    text_element(text, "targets", port, number);
}

static void text_port(struct buffer *text, const struct guard_port *port)
{
    char words[INET_ADDRSTRLEN];
    struct in6_addr local;
    uint8_t address[16];

    text_element(text, "hardware", port, "");
    if (address_of(port, ADDRESS4, address)) {
        inet_ntop(AF_INET, &port->ipv4, words, sizeof(words));
        text_element(text, "sources4", port, words);
    }
    if (address_of(port, ADDRESS6, address))
        text_address6(text, port, &port->ipv6);
    netlink_link_local(port->mac, &local);
    text_address6(text, port, &local);
}

/* By nft, as one transaction: no packet of a running instance is refused in between. */
int guard_settle(struct guard *g, struct error **err)
{
    static const char *const sets[] = {"hardware", "sources4", "sources6", "targets"};
    auto_buffer struct buffer text = {0};
    int r = 0;

    if (!g->holds)
        return 0;
    pthread_mutex_lock(&g->lock);
    for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++)
        buffer_printf(&text, "flush set bridge " GUARD_TABLE " %s\n", sets[i]);
    for (unsigned i = 0; i < BUCKETS; i++)
        for (struct claim *c = g->buckets[i]; c; c = c->next) {
            c->allowed = true;
            if (c->kind == HARDWARE)
                text_port(&text, &c->port);
        }
    r = nft_run(g->netns_fd, &text, "fabric's addresses", err);
    pthread_mutex_unlock(&g->lock);
    return r;
}

/* ---- opening ---- */

/* The rules are there when their table is. */
static bool present(struct guard *g)
{
    _Alignas(8) uint8_t data[256];
    struct nlmsghdr *h = mnl_nlmsg_put_header(data);
    const struct nlmsgerr *e;
    struct nfgenmsg *n;

    h->nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE;
    h->nlmsg_flags = NLM_F_REQUEST;
    h->nlmsg_seq = ++g->sequence;
    n = mnl_nlmsg_put_extra_header(h, sizeof(*n));
    n->nfgen_family = NFPROTO_BRIDGE;
    mnl_attr_put_strz(h, NFTA_TABLE_NAME, GUARD_TABLE);
    if (send(g->socket, h, h->nlmsg_len, 0) < 0 || recv(g->socket, data, sizeof(data), 0) < (ssize_t)sizeof(*h))
        return false;
    h = (struct nlmsghdr *)data;
    e = mnl_nlmsg_get_payload(h);
    return h->nlmsg_type != NLMSG_ERROR || e->error == 0;
}

/* Tables of former releases would go on dropping what they do not know: they go in the same transaction. Declared
 * before, so that one that is not there is no error. */
static void drop_former(struct buffer *text)
{
    for (int n = 1; n < GUARD_GENERATION; n++)
        buffer_printf(text, "table bridge coracle%d {\n}\ndelete table bridge coracle%d\n", n, n);
}

int guard_open(int netns_fd, struct guard **ret_guard, struct error **err)
{
    auto_error struct error *refused = NULL;
    auto_buffer struct buffer text = {0};
    struct guard *g = calloc(1, sizeof(*g));
    int r;

    if (!g)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the table of addresses");
    pthread_mutex_init(&g->lock, NULL);
    g->netns_fd = netns_fd;
    r = netlink_open_netfilter(netns_fd, &g->socket, err);
    if (r < 0) {
        free(g);
        return r;
    }
    drop_former(&text);
    buffer_text(&text, guard_rules);
    g->holds = present(g) || nft_run(netns_fd, &text, "fabric", &refused) == 0;
    if (!g->holds)
        log_error(NULL, refused,
                  "bridge ports cannot be locked to their addresses: instances get neither NET_RAW nor NET_ADMIN");
    *ret_guard = g;
    return 0;
}

void guard_close(struct guard *g)
{
    if (!g)
        return;
    for (unsigned i = 0; i < BUCKETS; i++)
        while (g->buckets[i]) {
            struct claim *c = g->buckets[i];
            g->buckets[i] = c->next;
            free(c);
        }
    close_fd(g->socket);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

bool guard_holds(const struct guard *g)
{
    return g->holds;
}
