/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An instance's addresses on its links: checked against each link and taken in the table of guard.c, so that a plan can
 * neither name what a living instance holds nor what lies outside. Workers at a start and an end; the main thread when
 * it adopts.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "launcher/fabric_private.h"
#include "model/ipam.h"

static int outside(const char *link, const char *what, struct error **err)
{
    error_set(err, EINVAL, "LAUNCHER_REFUSED", "the plan's %s is none of network %s", what, link);
    error_hint(err, "addresses come from the daemon's own allocator: report this");
    return -EINVAL;
}

static int check4(const struct link *link, const struct plan_nic *nic, struct error **err)
{
    uint32_t mask = link->prefix4 ? ~0u << (32 - link->prefix4) : 0, gateway = ntohl(link->gateway4.s_addr);
    uint32_t address = ntohl(nic->ipv4.s_addr);
    bool edges = link->prefix4 < 31 && ((address & ~mask) == 0 || (address & ~mask) == ~mask);

    if (nic->gateway4.s_addr && nic->gateway4.s_addr != link->gateway4.s_addr)
        return outside(link->name, "IPv4 gateway", err);
    if (!nic->prefix4)
        return 0;
    if (nic->prefix4 != link->prefix4 || ((address ^ gateway) & mask) || address == gateway || edges)
        return outside(link->name, "IPv4 address", err);
    return 0;
}

static bool same_prefix(const struct in6_addr *a, const struct in6_addr *b, unsigned length)
{
    unsigned whole = length / 8, rest = length % 8;

    return memcmp(a, b, whole) == 0 && (!rest || ((a->s6_addr[whole] ^ b->s6_addr[whole]) >> (8 - rest)) == 0);
}

static int check6(const struct link *link, const struct plan_nic *nic, struct error **err)
{
    if (!IN6_IS_ADDR_UNSPECIFIED(&nic->gateway6) && memcmp(&nic->gateway6, &link->gateway6, 16) != 0)
        return outside(link->name, "IPv6 gateway", err);
    if (!nic->prefix6)
        return 0;
    if (nic->prefix6 != link->prefix6 || !same_prefix(&nic->ipv6, &link->gateway6, link->prefix6) ||
        memcmp(&nic->ipv6, &link->gateway6, 16) == 0 || IN6_IS_ADDR_MULTICAST(&nic->ipv6))
        return outside(link->name, "IPv6 address", err);
    return 0;
}

struct guard_port fabric_guard_port(const struct fabric_ports *ports, uint32_t i, const struct fabric_link *link)
{
    const struct fabric_port *p = &ports->list[i];
    struct guard_port g = {.index = fabric_host_index(ports, i), .link = link->index, .ipv4 = p->ipv4, .ipv6 = p->ipv6};

    memcpy(g.mac, p->mac, sizeof(g.mac));
    return g;
}

static int claim_one(struct fabric *f, struct fabric_ports *ports, uint32_t i, const struct plan_nic *nic,
                     const struct fabric_link *link, struct error **err)
{
    struct fabric_port *p = &ports->list[i];
    int r = check4(&link->link, nic, err);

    if (r == 0)
        r = check6(&link->link, nic, err);
    if (r == 0 && memcmp(nic->mac, link->mac, sizeof(nic->mac)) == 0)
        r = outside(link->link.name, "hardware address", err);
    if (r < 0)
        return r;
    memcpy(p->link, nic->link, LINK_NAME_SIZE);
    p->ipv4 = nic->prefix4 ? nic->ipv4 : (struct in_addr){0};
    p->ipv6 = nic->prefix6 ? nic->ipv6 : (struct in6_addr){0};
    memcpy(p->mac, nic->mac, sizeof(p->mac));
    struct guard_port g = fabric_guard_port(ports, i, link);

    r = guard_claim(f->guard, &g, err);
    if (r < 0)
        memset(p, 0, sizeof(*p)); /* not ours: nothing of it may be taken back */
    return r;
}

int fabric_claim(struct fabric *f, struct fabric_ports *ports, const struct plan_nic *nics, uint32_t count,
                 struct error **err)
{
    struct fabric_link link = {.index = 0};
    int r = 0;

    for (uint32_t i = 0; i < count && r == 0; i++) {
        r = fabric_copy_link(f, nics[i].link, &link, err);
        if (r == 0)
            r = claim_one(f, ports, i, &nics[i], &link, err);
    }
    if (r < 0)
        fabric_unclaim(f, ports);
    return r;
}

/* What a record names; one of an older version leaves the hardware address to be worked out. */
void fabric_reclaim(struct fabric *f, struct fabric_ports *ports)
{
    static const uint8_t none[6];
    struct fabric_link link;

    for (uint32_t i = 0; i < ports->count; i++) {
        struct fabric_port *p = &ports->list[i];
        if (fabric_copy_link(f, p->link, &link, NULL) < 0)
            continue;
        if (memcmp(p->mac, none, sizeof(none)) == 0)
            ipam_mac(p->link, p->ipv4, &p->ipv6, p->mac);
        struct guard_port g = fabric_guard_port(ports, i, &link);
        guard_claim(f->guard, &g, NULL); /* the first of two that claim the same keeps it */
    }
}

void fabric_unclaim(struct fabric *f, struct fabric_ports *ports)
{
    struct guard_port held[NETWORK_PER_INSTANCE_MAX];
    static const uint8_t none[6];
    struct fabric_link link;
    uint32_t count = 0;

    for (uint32_t i = 0; i < NETWORK_PER_INSTANCE_MAX; i++) {
        struct fabric_port *p = &ports->list[i];
        if (memcmp(p->mac, none, sizeof(none)) != 0 && fabric_copy_link(f, p->link, &link, NULL) == 0)
            held[count++] = fabric_guard_port(ports, i, &link);
        memset(p->mac, 0, sizeof(p->mac));
    }
    guard_forget(f->guard, held, count);
}

bool fabric_guarded(const struct fabric *f)
{
    return guard_holds(f->guard);
}

int fabric_settle(struct fabric *f, struct error **err)
{
    return guard_settle(f->guard, err);
}
