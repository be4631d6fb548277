/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Uplink and published ports. The fabric gets a default route over a veth pair into the launcher's own namespace; there
 * and in the fabric one nftables table for each family is replaced as a whole (nft -f, atomic) whenever a link or a
 * publication changes. Only links marked `uplink` may use it; the fabric routes nothing else. IPv6 is on when host.conf
 * says publish6 or uplink6: the instances' ULA is masqueraded as their IPv4 is, since no router outside knows it.
 * Called by main thread and workers.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "launcher/fabric_private.h"
#include "launcher/nft.h"
#include "launcher/uplink.h"

enum {
    HOST_INDEX = 262144, /* interface index of the fabric's end, above every instance's */
    PAIR_PREFIX = 30,
    PAIR_PREFIX6 = 64,
};
/* Of the two ends; link-local (RFC 3927, RFC 4291), so they collide with nobody's. */
static const char host_address[] = "169.254.240.1", fabric_address_text[] = "169.254.240.2";
static const char host_address6[] = "fe80::1", fabric_address6_text[] = "fe80::2";

struct publication {
    char id[INSTANCE_ID_SIZE];
    struct in_addr address;   /* 0: none */
    struct in6_addr address6; /* :: none */
    struct spec_port port;
};

/* What differs between the families. */
struct family {
    int domain;
    const char *word; /* nft's name of the family, and of its header */
};
static const struct family families[] = {{AF_INET, "ip"}, {AF_INET6, "ip6"}};
enum { FAMILY_COUNT = sizeof(families) / sizeof(families[0]) };

struct uplink {
    struct launcher *l;
    pthread_mutex_t lock; /* guards what follows */
    int outside;          /* netlink socket in the launcher's own namespace */
    uint32_t pair_index;
    char pair[NETLINK_NAME_SIZE]; /* the host's end */
    struct publication *list;
    size_t count;
};

static bool has_ipv6(const struct uplink *u)
{
    return u->l->options.uplink6 || u->l->options.publish6;
}

static bool in_use(const struct uplink *u, const struct family *f)
{
    return f->domain == AF_INET || has_ipv6(u);
}

static uint8_t prefix_of(const struct link *link, const struct family *f)
{
    return f->domain == AF_INET ? link->prefix4 : link->prefix6;
}

/* The link's subnet in that family. */
static struct netlink_address subnet(const struct link *link, const struct family *f)
{
    struct netlink_address a = {.family = (uint8_t)f->domain};

    if (f->domain == AF_INET) {
        a.v4.s_addr = link->gateway4.s_addr & htonl(link->prefix4 ? ~0u << (32 - link->prefix4) : 0);
        return a;
    }
    a.v6 = link->gateway6;
    for (unsigned bit = link->prefix6; bit < 128; bit++)
        a.v6.s6_addr[bit / 8] &= (uint8_t) ~(0x80 >> bit % 8);
    return a;
}

static const char *subnet_text(const struct link *link, const struct family *f, char text[INET6_ADDRSTRLEN])
{
    struct netlink_address a = subnet(link, f);

    inet_ntop(f->domain, &a.v6, text, INET6_ADDRSTRLEN); /* both begin at the same place */
    return text;
}

/* The address a port is published to in that family; NULL: none. */
static const char *target_text(const struct publication *p, const struct family *f, char text[INET6_ADDRSTRLEN])
{
    if (f->domain == AF_INET)
        return p->address.s_addr ? inet_ntop(AF_INET, &p->address, text, INET6_ADDRSTRLEN) : NULL;
    return IN6_IS_ADDR_UNSPECIFIED(&p->address6) ? NULL : inet_ntop(AF_INET6, &p->address6, text, INET6_ADDRSTRLEN);
}

static const char *protocol_text(const struct publication *p)
{
    return p->port.protocol == IPPROTO_TCP ? "tcp" : "udp";
}

/* One rule per published port; destination: where connections to the host are recognised. */
static void put_publications(const struct uplink *u, const struct family *f, struct buffer *text)
{
    const struct options *o = &u->l->options;
    bool four = f->domain == AF_INET, any = four ? o->publish4.s_addr == 0 : IN6_IS_ADDR_UNSPECIFIED(&o->publish6_on);
    char a[INET6_ADDRSTRLEN], host[INET6_ADDRSTRLEN];

    for (size_t i = 0; (four ? o->publish : o->publish6) && i < u->count; i++) {
        const struct publication *p = &u->list[i];
        if (!target_text(p, f, a))
            continue;
        inet_ntop(f->domain, four ? (const void *)&o->publish4 : &o->publish6_on, host, sizeof(host));
        if (any)
            buffer_text(text, "    fib daddr type local ");
        else
            buffer_printf(text, "    %s daddr %s ", f->word, host);
        buffer_printf(text, "%s dport %u dnat to %s%s%s:%u\n", protocol_text(p), p->port.host_port, four ? "" : "[", a,
                      four ? "" : "]", p->port.port);
    }
}

static void put_host_table(const struct uplink *u, const struct family *f, const struct link *links, size_t count,
                           struct buffer *text)
{
    char a[INET6_ADDRSTRLEN];

    buffer_printf(text, "table %s %s\ndelete table %s %s\n", f->word, u->pair, f->word, u->pair);
    if (!in_use(u, f))
        return;
    buffer_printf(text, "table %s %s {\n  chain out { type nat hook postrouting priority 100;\n", f->word, u->pair);
    for (size_t i = 0; i < count; i++)
        if (prefix_of(&links[i], f))
            buffer_printf(text, "    oifname \"%s\" %s saddr %s/%u masquerade\n", u->l->options.uplink, f->word,
                          subnet_text(&links[i], f, a), prefix_of(&links[i], f));
    buffer_text(text, "  }\n  chain in { type nat hook prerouting priority -100;\n");
    put_publications(u, f, text);
    buffer_text(text, "  }\n  chain local { type nat hook output priority -100;\n");
    put_publications(u, f, text);
    buffer_text(text, "  }\n}\n");
}

/* Between links nothing is routed; from a link marked uplink out, and back in for what was asked for or published. */
static void put_fabric_table(const struct uplink *u, const struct family *f, const struct link *links, size_t count,
                             struct buffer *text)
{
    char a[INET6_ADDRSTRLEN];

    buffer_printf(text, "table %s coracle\ndelete table %s coracle\ntable %s coracle {\n", f->word, f->word, f->word);
    buffer_text(text, "  chain forward { type filter hook forward priority 0; policy drop;\n");
    for (size_t i = 0; i < count && in_use(u, f); i++) {
        if (!prefix_of(&links[i], f))
            continue;
        subnet_text(&links[i], f, a);
        buffer_printf(text, "    %s saddr %s/%u oifname \"uplink0\" accept\n", f->word, a, prefix_of(&links[i], f));
        buffer_printf(text, "    iifname \"uplink0\" %s daddr %s/%u ct state established,related accept\n", f->word, a,
                      prefix_of(&links[i], f));
    }
    for (size_t i = 0; i < u->count && in_use(u, f); i++)
        if (target_text(&u->list[i], f, a))
            buffer_printf(text, "    iifname \"uplink0\" %s daddr %s %s dport %u accept\n", f->word, a,
                          protocol_text(&u->list[i]), u->list[i].port.port);
    /* answers of published ports leave by the way they came, from whatever link */
    buffer_text(text, "    oifname \"uplink0\" ct state established,related accept\n  }\n}\n");
}

static int copy_uplink_links(struct fabric *f, struct link **ret_links, size_t *ret_count, struct error **err)
{
    struct link *links;
    size_t count = 0;

    pthread_rwlock_rdlock(&f->lock);
    links = calloc(f->link_count + 1, sizeof(*links));
    for (size_t i = 0; links && i < f->link_count; i++)
        if (f->links[i].link.uplink)
            links[count++] = f->links[i].link;
    pthread_rwlock_unlock(&f->lock);
    if (!links)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the firewall's rules");
    *ret_links = links;
    *ret_count = count;
    return 0;
}

static struct netlink_address address(int domain, const char *text)
{
    struct netlink_address a = {.family = (uint8_t)domain};

    inet_pton(domain, text, &a.v6);
    return a;
}

static struct netlink_address fabric_end(int domain)
{
    return address(domain, domain == AF_INET ? fabric_address_text : fabric_address6_text);
}

static struct netlink_address host_end(int domain)
{
    return address(domain, domain == AF_INET ? host_address : host_address6);
}

/* The host's routes to what may answer: each uplink subnet by way of the pair. */
static int add_routes(const struct uplink *u, const struct link *links, size_t count, struct error **err)
{
    struct netlink_batch batch;
    int r = 0;

    for (size_t i = 0; i < count * FAMILY_COUNT && r == 0; i++) {
        const struct family *f = &families[i % FAMILY_COUNT];
        const struct link *link = &links[i / FAMILY_COUNT];
        struct netlink_address to = subnet(link, f), gateway = fabric_end(f->domain);
        if (!prefix_of(link, f) || !in_use(u, f))
            continue;
        netlink_begin(&batch);
        netlink_route(&batch, u->pair_index, &to, prefix_of(link, f), &gateway);
        r = netlink_commit(u->outside, &batch, err);
    }
    return r;
}

static void forget_route(const struct uplink *u, const struct link *link)
{
    struct netlink_batch batch;

    for (size_t i = 0; i < FAMILY_COUNT && link->uplink; i++) {
        struct netlink_address to = subnet(link, &families[i]);
        if (!prefix_of(link, &families[i]) || !in_use(u, &families[i]))
            continue;
        netlink_begin(&batch);
        netlink_route_remove(&batch, u->pair_index, &to, prefix_of(link, &families[i]));
        netlink_commit(u->outside, &batch, NULL); /* gone already is as good */
    }
}

/* Under the lock: brings routes and both tables in line with the links and publications of now. */
static int apply(struct uplink *u, struct error **err)
{
    auto_buffer struct buffer host = {0}, fabric = {0};
    auto_free struct link *links = NULL;
    size_t count = 0;
    int r;

    r = copy_uplink_links(u->l->fabric, &links, &count, err);
    if (r < 0)
        return r;
    r = add_routes(u, links, count, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < FAMILY_COUNT; i++) {
        put_host_table(u, &families[i], links, count, &host);
        put_fabric_table(u, &families[i], links, count, &fabric);
    }
    r = nft_run(fabric_netns_fd(u->l->fabric), &fabric, "fabric", err);
    return r < 0 ? r : nft_run(-1, &host, "uplink", err);
}

int uplink_refresh(struct uplink *u, const struct link *gone, struct error **err)
{
    int r;

    pthread_mutex_lock(&u->lock);
    if (gone)
        forget_route(u, gone);
    r = apply(u, err);
    pthread_mutex_unlock(&u->lock);
    return r;
}

/* ---- the pair ---- */

static int set(const char *path, const char *value, struct error **err)
{
    auto_fd int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, value, 1) != 1)
        return error_set_errno(err, errno, "START_FAILED", "uplink: writing %s to %s", value, path);
    return 0;
}

/* A host that forwards IPv6 no longer listens to routers, unless told to: its own default route may come from one. */
static int allow_forwarding(const struct uplink *u, bool outside, struct error **err)
{
    char path[96];
    int r = set("/proc/sys/net/ipv4/ip_forward", "1", err);

    if (r < 0 || !has_ipv6(u))
        return r;
    snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/accept_ra", u->l->options.uplink);
    if (outside)
        r = set(path, "2", err);
    return r < 0 ? r : set("/proc/sys/net/ipv6/conf/all/forwarding", "1", err);
}

static int forward_in_fabric(struct uplink *u, struct error **err)
{
    auto_fd int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    int r;

    if (home < 0 || setns(fabric_netns_fd(u->l->fabric), CLONE_NEWNET) < 0)
        return error_set_errno(err, errno, "START_FAILED", "uplink: entering the fabric");
    r = allow_forwarding(u, false, err);
    if (setns(home, CLONE_NEWNET) < 0)
        return error_set_errno(err, errno, "INTERNAL", "uplink: leaving the fabric");
    return r;
}

static int make_pair(struct uplink *u, struct error **err)
{
    auto_error struct error *absent = NULL;
    struct netlink_batch batch;
    int fabric, r;

    r = fabric_socket(u->l->fabric, &fabric, err);
    if (r < 0)
        return r;
    if (netlink_find(u->outside, u->pair, &u->pair_index, &absent) < 0) {
        netlink_begin(&batch);
        netlink_veth(&batch, &(struct netlink_veth){.name = "uplink0",
                                                    .index = HOST_INDEX,
                                                    .up = false,
                                                    .peer_name = u->pair,
                                                    .peer_index = 0,
                                                    .peer_netns_fd = u->l->own_netns_fd});
        r = netlink_commit(fabric, &batch, err);
        if (r == 0)
            r = netlink_find(u->outside, u->pair, &u->pair_index, err);
    }
    if (r == 0 && has_ipv6(u))
        r = fabric_allow_ipv6(u->l->fabric, "uplink0", err);
    if (r < 0)
        return r;
    netlink_begin(&batch);
    netlink_up(&batch, HOST_INDEX, NULL);
    for (size_t i = 0; i < FAMILY_COUNT; i++) {
        struct netlink_address mine = host_end(families[i].domain), theirs = fabric_end(families[i].domain);
        if (!in_use(u, &families[i]))
            continue;
        netlink_address(&batch, HOST_INDEX, &theirs, families[i].domain == AF_INET ? PAIR_PREFIX : PAIR_PREFIX6);
        netlink_default_route(&batch, HOST_INDEX, &mine);
    }
    r = netlink_commit(fabric, &batch, err);
    if (r < 0)
        return r;
    netlink_begin(&batch);
    netlink_up(&batch, u->pair_index, NULL);
    for (size_t i = 0; i < FAMILY_COUNT; i++) {
        struct netlink_address mine = host_end(families[i].domain);
        if (in_use(u, &families[i]))
            netlink_address(&batch, u->pair_index, &mine, families[i].domain == AF_INET ? PAIR_PREFIX : PAIR_PREFIX6);
    }
    return netlink_commit(u->outside, &batch, err);
}

int uplink_open(struct launcher *l, struct uplink **ret_uplink, struct error **err)
{
    struct uplink *u = calloc(1, sizeof(*u));
    uint32_t index;
    int r;

    if (!u)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the uplink");
    u->l = l;
    u->outside = -1;
    pthread_mutex_init(&u->lock, NULL);
    snprintf(u->pair, sizeof(u->pair), "%.11s-up", l->options.cgroup);
    r = netlink_open(-1, &u->outside, err);
    if (r == 0 && netlink_find(u->outside, l->options.uplink, &index, err) < 0)
        r = error_wrap(err, "INVALID_VALUE", "host.conf names an uplink %s that this host lacks", l->options.uplink);
    if (r == 0)
        r = make_pair(u, err);
    if (r == 0)
        r = allow_forwarding(u, true, err);
    if (r == 0)
        r = forward_in_fabric(u, err);
    if (r < 0) {
        uplink_close(u);
        return r;
    }
    *ret_uplink = u;
    return 0;
}

void uplink_close(struct uplink *u)
{
    if (!u)
        return;
    close_fd(u->outside);
    free(u->list);
    free(u);
}

/* ---- published ports ---- */

int uplink_check(const struct launcher *l, const struct launch_plan *plan, struct error **err)
{
    struct link link;

    if (!plan->port_count)
        return 0;
    if (!l->uplink || !(l->options.publish || l->options.publish6)) {
        error_set(err, EOPNOTSUPP, "UNSUPPORTED_BY_TECHNOLOGY", "published ports are not configured on this host");
        error_hint(err, "set uplink and publish in host.conf and restart the launcher");
        return -EOPNOTSUPP;
    }
    bool four = plan->nic_count && l->options.publish && plan->nics[0].prefix4;
    bool six = plan->nic_count && l->options.publish6 && plan->nics[0].prefix6;
    if (!(four || six) || fabric_link_get(l->fabric, plan->nics[0].link, &link) < 0)
        return error_set(err, EINVAL, "INVALID_VALUE", "ports: the first network needs an IPv%s address",
                         !l->options.publish6  ? "4"
                         : !l->options.publish ? "6"
                                               : "4 or IPv6");
    if (!link.uplink) {
        error_set(err, EOPNOTSUPP, "UNSUPPORTED_BY_TECHNOLOGY", "ports: network %s has no uplink", link.name);
        error_hint(err, "put a network made with uplink first");
        return -EOPNOTSUPP;
    }
    return 0;
}

static const struct publication *find_port(const struct uplink *u, const struct spec_port *port)
{
    for (size_t i = 0; i < u->count; i++)
        if (u->list[i].port.host_port == port->host_port && u->list[i].port.protocol == port->protocol)
            return &u->list[i];
    return NULL;
}

static void drop_publications(struct uplink *u, const char *id)
{
    size_t kept = 0;

    for (size_t i = 0; i < u->count; i++)
        if (strcmp(u->list[i].id, id) != 0)
            u->list[kept++] = u->list[i];
    u->count = kept;
}

static int note(struct uplink *u, const char *id, const struct fabric_port *to, const struct spec_port *ports,
                size_t count, struct error **err)
{
    struct publication *more = reallocarray(u->list, u->count + count, sizeof(*more));
    int r;

    if (!more)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for published ports");
    u->list = more;
    for (size_t i = 0; i < count; i++) {
        const struct publication *other = find_port(u, &ports[i]);
        if (other) {
            r = error_set(err, EADDRINUSE, "ADDRESS_TAKEN", "host port %u is published by instance %s",
                          ports[i].host_port, other->id);
            drop_publications(u, id);
            return r;
        }
        u->list[u->count] = (struct publication){.address = to->ipv4, .address6 = to->ipv6, .port = ports[i]};
        memcpy(u->list[u->count++].id, id, INSTANCE_ID_SIZE);
    }
    return 0;
}

int uplink_restore(struct uplink *u, const char *id, const struct fabric_port *to, const struct spec_port *ports,
                   size_t count, struct error **err)
{
    int r;

    pthread_mutex_lock(&u->lock);
    r = note(u, id, to, ports, count, err);
    pthread_mutex_unlock(&u->lock);
    return r;
}

int uplink_publish(struct uplink *u, const char *id, const struct fabric_port *to, const struct spec_port *ports,
                   size_t count, struct error **err)
{
    int r;

    pthread_mutex_lock(&u->lock);
    r = note(u, id, to, ports, count, err);
    if (r == 0 && (r = apply(u, err)) < 0)
        drop_publications(u, id);
    pthread_mutex_unlock(&u->lock);
    return r;
}

void uplink_unpublish(struct uplink *u, const char *id)
{
    auto_error struct error *err = NULL;

    if (!u)
        return;
    pthread_mutex_lock(&u->lock);
    drop_publications(u, id);
    if (apply(u, &err) < 0)
        log_error(id, err, "withdrawing its published ports");
    pthread_mutex_unlock(&u->lock);
}
