/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Uplink and published ports. The fabric gets a default route over a veth pair into the launcher's own namespace; there
 * and in the fabric one nftables table each is replaced as a whole (nft -f, atomic) whenever a link or a publication
 * changes. Only links marked `uplink` may use it; the fabric routes nothing else. Called by main thread and workers.
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
};
static const char host_address[] = "169.254.240.1", fabric_address_text[] = "169.254.240.2"; /* RFC 3927 */

struct publication {
    char id[INSTANCE_ID_SIZE];
    struct in_addr address;
    struct spec_port port;
};

struct uplink {
    struct launcher *l;
    pthread_mutex_t lock; /* guards what follows */
    int outside;          /* netlink socket in the launcher's own namespace */
    uint32_t pair_index;
    char pair[NETLINK_NAME_SIZE]; /* the host's end */
    struct publication *list;
    size_t count;
};

static const char *text4(struct in_addr a, char text[INET_ADDRSTRLEN])
{
    inet_ntop(AF_INET, &a, text, INET_ADDRSTRLEN);
    return text;
}

static struct in_addr subnet(const struct link *link)
{
    uint32_t mask = link->prefix4 ? ~0u << (32 - link->prefix4) : 0;

    return (struct in_addr){.s_addr = link->gateway4.s_addr & htonl(mask)};
}

/* One rule per published port; destination: where connections to the host are recognised. */
static void put_publications(const struct uplink *u, struct buffer *text)
{
    char a[INET_ADDRSTRLEN], host[INET_ADDRSTRLEN];
    bool any = u->l->options.publish4.s_addr == 0;

    for (size_t i = 0; i < u->count; i++) {
        const struct publication *p = &u->list[i];
        if (any)
            buffer_text(text, "    fib daddr type local ");
        else
            buffer_printf(text, "    ip daddr %s ", text4(u->l->options.publish4, host));
        buffer_printf(text, "%s dport %u dnat to %s:%u\n", p->port.protocol == IPPROTO_TCP ? "tcp" : "udp",
                      p->port.host_port, text4(p->address, a), p->port.port);
    }
}

static void put_host_table(const struct uplink *u, const struct link *links, size_t count, struct buffer *text)
{
    char a[INET_ADDRSTRLEN];

    buffer_printf(text, "table ip %s\ndelete table ip %s\ntable ip %s {\n", u->pair, u->pair, u->pair);
    buffer_text(text, "  chain out { type nat hook postrouting priority 100;\n");
    for (size_t i = 0; i < count; i++)
        buffer_printf(text, "    oifname \"%s\" ip saddr %s/%u masquerade\n", u->l->options.uplink,
                      text4(subnet(&links[i]), a), links[i].prefix4);
    buffer_text(text, "  }\n  chain in { type nat hook prerouting priority -100;\n");
    put_publications(u, text);
    buffer_text(text, "  }\n  chain local { type nat hook output priority -100;\n");
    put_publications(u, text);
    buffer_text(text, "  }\n}\n");
}

/* Between links nothing is routed; from a link marked uplink out, and back in for what was asked for or published. */
static void put_fabric_table(const struct uplink *u, const struct link *links, size_t count, struct buffer *text)
{
    char a[INET_ADDRSTRLEN];

    buffer_text(text, "table ip coracle\ndelete table ip coracle\ntable ip coracle {\n"
                      "  chain forward { type filter hook forward priority 0; policy drop;\n");
    for (size_t i = 0; i < count; i++) {
        text4(subnet(&links[i]), a);
        buffer_printf(text, "    ip saddr %s/%u oifname \"uplink0\" accept\n", a, links[i].prefix4);
        buffer_printf(text, "    iifname \"uplink0\" ip daddr %s/%u ct state established,related accept\n", a,
                      links[i].prefix4);
    }
    for (size_t i = 0; i < u->count; i++)
        buffer_printf(text, "    iifname \"uplink0\" ip daddr %s %s dport %u accept\n", text4(u->list[i].address, a),
                      u->list[i].port.protocol == IPPROTO_TCP ? "tcp" : "udp", u->list[i].port.port);
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
        if (f->links[i].link.uplink && f->links[i].link.prefix4)
            links[count++] = f->links[i].link;
    pthread_rwlock_unlock(&f->lock);
    if (!links)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the firewall's rules");
    *ret_links = links;
    *ret_count = count;
    return 0;
}

static struct netlink_address address(const char *text)
{
    struct netlink_address a = {.family = AF_INET};

    inet_pton(AF_INET, text, &a.v4);
    return a;
}

/* The host's routes to what may answer: each uplink subnet by way of the pair. */
static int add_routes(const struct uplink *u, const struct link *links, size_t count, struct error **err)
{
    struct netlink_address gateway = address(fabric_address_text);
    struct netlink_batch batch;
    int r = 0;

    for (size_t i = 0; i < count && r == 0; i++) {
        struct netlink_address to = {.family = AF_INET, .v4 = subnet(&links[i])};
        netlink_begin(&batch);
        netlink_route(&batch, u->pair_index, &to, links[i].prefix4, &gateway);
        r = netlink_commit(u->outside, &batch, err);
    }
    return r;
}

static void forget_route(const struct uplink *u, const struct link *link)
{
    struct netlink_address to = {.family = AF_INET, .v4 = subnet(link)};
    struct netlink_batch batch;

    if (!link->uplink || !link->prefix4)
        return;
    netlink_begin(&batch);
    netlink_route_remove(&batch, u->pair_index, &to, link->prefix4);
    netlink_commit(u->outside, &batch, NULL); /* gone already is as good */
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
    put_host_table(u, links, count, &host);
    put_fabric_table(u, links, count, &fabric);
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

static int allow_forwarding(struct error **err)
{
    auto_fd int fd = open("/proc/sys/net/ipv4/ip_forward", O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, "1", 1) != 1)
        return error_set_errno(err, errno, "START_FAILED", "uplink: turning on IPv4 forwarding");
    return 0;
}

static int forward_in_fabric(struct uplink *u, struct error **err)
{
    auto_fd int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    int r;

    if (home < 0 || setns(fabric_netns_fd(u->l->fabric), CLONE_NEWNET) < 0)
        return error_set_errno(err, errno, "START_FAILED", "uplink: entering the fabric");
    r = allow_forwarding(err);
    if (setns(home, CLONE_NEWNET) < 0)
        return error_set_errno(err, errno, "INTERNAL", "uplink: leaving the fabric");
    return r;
}

static int make_pair(struct uplink *u, struct error **err)
{
    struct netlink_address mine = address(host_address), theirs = address(fabric_address_text);
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
    if (r < 0)
        return r;
    netlink_begin(&batch);
    netlink_up(&batch, HOST_INDEX, NULL);
    netlink_address(&batch, HOST_INDEX, &theirs, PAIR_PREFIX);
    netlink_default_route(&batch, HOST_INDEX, &mine);
    r = netlink_commit(fabric, &batch, err);
    if (r < 0)
        return r;
    netlink_begin(&batch);
    netlink_up(&batch, u->pair_index, NULL);
    netlink_address(&batch, u->pair_index, &mine, PAIR_PREFIX);
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
        r = allow_forwarding(err);
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
    if (!l->uplink || !l->options.publish) {
        error_set(err, EOPNOTSUPP, "UNSUPPORTED_BY_TECHNOLOGY", "published ports are not configured on this host");
        error_hint(err, "set uplink and publish in host.conf and restart the launcher");
        return -EOPNOTSUPP;
    }
    if (!plan->nic_count || !plan->nics[0].prefix4 || fabric_link_get(l->fabric, plan->nics[0].link, &link) < 0)
        return error_set(err, EINVAL, "INVALID_VALUE", "ports: the first network needs an IPv4 address");
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

static int note(struct uplink *u, const char *id, struct in_addr to, const struct spec_port *ports, size_t count,
                struct error **err)
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
        u->list[u->count] = (struct publication){.address = to, .port = ports[i]};
        memcpy(u->list[u->count++].id, id, INSTANCE_ID_SIZE);
    }
    return 0;
}

int uplink_restore(struct uplink *u, const char *id, struct in_addr to, const struct spec_port *ports, size_t count,
                   struct error **err)
{
    int r;

    pthread_mutex_lock(&u->lock);
    r = note(u, id, to, ports, count, err);
    pthread_mutex_unlock(&u->lock);
    return r;
}

int uplink_publish(struct uplink *u, const char *id, struct in_addr to, const struct spec_port *ports, size_t count,
                   struct error **err)
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
