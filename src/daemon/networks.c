/* SPDX-License-Identifier: Apache-2.0 */
/* Networks: their address pools, who is on them, and telling the launcher of them. Daemon's thread. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/suggest.h"
#include "daemon/internal.h"
#include "daemon/store/store.h"
#include "model/json_read.h"
#include "model/units.h"

#define DEFAULT_NETWORK   "default"
#define DEFAULT_IPV4_POOL "198.18.0.0/15"

enum { MTU_MIN = 1280, MTU_MAX = 65535, CIDR_SIZE = INET6_ADDRSTRLEN + 5 };

void network_free(struct network *network)
{
    if (!network)
        return;
    ipam_free(network->ipam);
    free(network);
}

static struct network *find(struct core *core, const char *name)
{
    for (struct network *n = core->networks; n; n = n->next)
        if (!n->removed && strcmp(n->name, name) == 0)
            return n;
    return NULL;
}

struct network *core_network_find(struct core *core, const char *name, struct error **err)
{
    struct network *network = find(core, name);
    const char *nearest = NULL;

    if (network)
        return network;
    for (struct network *n = core->networks; n; n = n->next)
        suggest_offer(name, n->name, &nearest);
    error_set(err, ENOENT, "NETWORK_NOT_FOUND", "there is no network \"%.64s\"", name);
    if (nearest)
        error_hint(err, "did you mean \"%s\"?", nearest);
    error_hint(err, "GET /v1/networks (coracle network ls) lists them");
    return NULL;
}

static int add(struct core *core, const char *name, const struct subnet *subnet, uint16_t mtu, bool uplink,
               struct network **ret, struct error **err)
{
    struct network *network = calloc(1, sizeof(*network));
    int r;

    if (!network)
        return error_set(err, ENOMEM, "NO_MEMORY", "network: out of memory");
    snprintf(network->name, sizeof(network->name), "%s", name);
    network->subnet = *subnet;
    network->mtu = mtu;
    network->uplink = uplink;
    r = ipam_new(subnet, &network->ipam, err);
    if (r < 0) {
        network_free(network);
        return r;
    }
    struct network **end = &core->networks;
    while (*end)
        end = &(*end)->next;
    *end = network;
    *ret = network;
    return 0;
}

int network_load(struct core *core, const char *name, const char *ipv4, const char *ipv6, uint16_t mtu, bool uplink,
                 struct error **err)
{
    struct network *network;
    struct subnet subnet;
    int r = subnet_parse(ipv4 && *ipv4 ? ipv4 : NULL, ipv6 && *ipv6 ? ipv6 : NULL, &subnet, err);

    if (r == 0)
        r = add(core, name, &subnet, mtu, uplink, &network, err);
    if (r == 0)
        network->stored = true;
    return r;
}

void network_cidr(const struct network *network, char *ret4, char *ret6)
{
    char text[INET6_ADDRSTRLEN];

    *ret4 = *ret6 = '\0';
    if (network->subnet.prefix4)
        snprintf(ret4, CIDR_SIZE, "%s/%u", inet_ntop(AF_INET, &network->subnet.ipv4, text, sizeof(text)),
                 network->subnet.prefix4);
    if (network->subnet.prefix6)
        snprintf(ret6, CIDR_SIZE, "%s/%u", inet_ntop(AF_INET6, &network->subnet.ipv6, text, sizeof(text)),
                 network->subnet.prefix6);
}

/* ---- pools to take new networks from */

/* fdXX:XXXX:XXXX::/48 (RFC 4193) from the machine's id, so that two hosts differ and one host stays the same. */
static void ula_of_machine(struct core *core, struct subnet *ret)
{
    auto_fd int fd = open("/etc/machine-id", O_RDONLY | O_CLOEXEC);
    char id[33] = "";
    uint64_t hash = 14695981039346656037u;

    if (fd < 0 || read(fd, id, 32) != 32)
        core_random(core, id, 32); /* no machine id: random, kept by the store from now on */
    for (size_t i = 0; i < 32; i++)
        hash = (hash ^ (unsigned char)id[i]) * 1099511628211u;
    *ret = (struct subnet){.prefix6 = 48};
    ret->ipv6.s6_addr[0] = 0xfd;
    for (int i = 0; i < 5; i++)
        ret->ipv6.s6_addr[1 + i] = (uint8_t)(hash >> (8 * i));
}

static int pools(struct core *core, struct subnet *ret, struct error **err)
{
    struct subnet six = {0};
    int r = subnet_parse(core->ipv4_pool ? core->ipv4_pool : DEFAULT_IPV4_POOL, NULL, ret, err);

    if (r < 0)
        return error_wrap(err, "INVALID_VALUE", "ipv4_pool of coracled.conf");
    if (core->ipv6_pool)
        r = subnet_parse(NULL, core->ipv6_pool, &six, err);
    else
        ula_of_machine(core, &six);
    if (r < 0)
        return error_wrap(err, "INVALID_VALUE", "ipv6_pool of coracled.conf");
    ret->ipv6 = six.ipv6;
    ret->prefix6 = six.prefix6;
    return 0;
}

static bool overlaps_any(struct core *core, const struct subnet *subnet)
{
    for (struct network *n = core->networks; n; n = n->next)
        if (subnet_overlaps(&n->subnet, subnet))
            return true;
    return false;
}

/* The first /prefix4 of the pool that no network uses. */
static int next_ipv4(struct core *core, const struct subnet *pool, uint8_t prefix4, struct subnet *ret,
                     struct error **err)
{
    uint8_t prefix = prefix4 > pool->prefix4 ? prefix4 : pool->prefix4;
    uint32_t base = ntohl(pool->ipv4.s_addr), count = 1u << (prefix - pool->prefix4);

    for (uint32_t i = 0; i < count; i++) {
        struct subnet try = {.prefix4 = prefix};
        try.ipv4.s_addr = htonl(base + (i << (32 - prefix)));
        if (overlaps_any(core, &try))
            continue;
        ret->ipv4 = try.ipv4;
        ret->prefix4 = prefix;
        ret->gateway4.s_addr = htonl(ntohl(try.ipv4.s_addr) + 1);
        return 0;
    }
    error_set(err, ENOSPC, "ADDRESS_POOL_EXHAUSTED", "no /%u of the IPv4 pool is free for another network", prefix);
    error_hint(err, "name one: \"ipv4\": \"10.1.0.0/24\", or set ipv4_pool in coracled.conf");
    return -ENOSPC;
}

/* The first /64 of the pool that no network uses. */
static int next_ipv6(struct core *core, const struct subnet *pool, struct subnet *ret, struct error **err)
{
    unsigned count = pool->prefix6 >= 64 ? 1 : pool->prefix6 >= 48 ? 1u << (64 - pool->prefix6) : 65536;

    for (unsigned i = 0; i < count; i++) {
        struct subnet try = {.ipv6 = pool->ipv6, .prefix6 = pool->prefix6 > 64 ? pool->prefix6 : 64};
        try.ipv6.s6_addr[6] |= (uint8_t)(i >> 8);
        try.ipv6.s6_addr[7] |= (uint8_t)i;
        if (overlaps_any(core, &try))
            continue;
        ret->ipv6 = ret->gateway6 = try.ipv6;
        ret->prefix6 = try.prefix6;
        ret->gateway6.s6_addr[15] |= 1;
        return 0;
    }
    error_set(err, ENOSPC, "ADDRESS_POOL_EXHAUSTED", "no /64 of the IPv6 pool is free for another network");
    error_hint(err, "name one: \"ipv6\": \"fd00:1::/64\"");
    return -ENOSPC;
}

int networks_open(struct core *core, struct error **err)
{
    struct subnet pool, subnet = {0};
    struct network *network;
    int r;

    if (core->networks)
        return 0;
    r = pools(core, &pool, err);
    if (r == 0)
        r = next_ipv4(core, &pool, 16, &subnet, err);
    if (r == 0)
        r = next_ipv6(core, &pool, &subnet, err);
    if (r == 0)
        r = add(core, DEFAULT_NETWORK, &subnet, 0, true, &network, err);
    if (r < 0)
        return r;
    network->dirty = true;
    core->networks_dirty = true;
    flush_soon(core);
    return 0;
}

/* ---- addresses of instances */

static int take_one(struct core *core, const struct spec_network *asked, struct plan_nic *nic, struct error **err)
{
    struct network *network = core_network_find(core, asked->name, err);
    int r;

    if (!network)
        return -ENOENT;
    r = ipam_take(network->ipam, asked->ipv4, &asked->ipv6, &nic->ipv4, &nic->ipv6, err);
    if (r < 0)
        return error_wrap(err, *err ? (*err)->code : "INTERNAL", "networks: \"%s\"", asked->name);
    memcpy(nic->link, network->name, sizeof(nic->link));
    nic->gateway4 = network->subnet.gateway4;
    nic->prefix4 = network->subnet.prefix4;
    nic->gateway6 = network->subnet.gateway6;
    nic->prefix6 = network->subnet.prefix6;
    ipam_mac(network->name, nic->ipv4, &nic->ipv6, nic->mac);
    network->instances++;
    return 0;
}

int networks_take(struct core *core, const struct vnf_spec *spec, struct plan_nic **ret, struct error **err)
{
    struct plan_nic *nics = calloc(spec->network_count + 1, sizeof(*nics));
    struct error *local = NULL;

    if (!nics)
        return error_set(err, ENOMEM, "NO_MEMORY", "networks: out of memory");
    for (size_t i = 0; i < spec->network_count; i++) {
        int r = take_one(core, &spec->networks[i], &nics[i], err ? err : &local);
        if (r < 0) {
            error_free(local);
            networks_give(core, nics, i);
            free(nics);
            return r;
        }
    }
    *ret = nics;
    return 0;
}

void networks_give(struct core *core, const struct plan_nic *nics, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct network *network = find(core, nics[i].link);
        if (!network)
            continue;
        ipam_give(network->ipam, nics[i].ipv4, &nics[i].ipv6);
        network->instances--;
    }
}

int network_reserve(struct core *core, struct plan_nic *nic, struct error **err)
{
    struct spec_network asked = {.ipv4 = nic->ipv4, .ipv6 = nic->ipv6};

    memcpy(asked.name, nic->link, sizeof(asked.name));
    return take_one(core, &asked, nic, err);
}

/* ---- the launcher's side */

static void on_link_done(void *context, enum message_type type, const void *message, int *fds, size_t fd_count,
                         const struct error *err)
{
    /* a lost launcher is told again when it is back */
    if (err && strcmp(err->code, "LAUNCHER_UNAVAILABLE") != 0)
        log_error(NULL, err, "the launcher could not change a link");
}

static void announce(struct core *core, const struct network *network)
{
    struct link link = {.gateway4 = network->subnet.gateway4,
                        .prefix4 = network->subnet.prefix4,
                        .gateway6 = network->subnet.gateway6,
                        .prefix6 = network->subnet.prefix6,
                        .mtu = network->mtu,
                        /* "may reach the outside": means nothing on a host whose profile has no uplink */
                        .uplink = network->uplink && core->facts.uplink[0] != '\0'};
    auto_error struct error *err = NULL;

    memcpy(link.name, network->name, sizeof(link.name));
    if (core->slots[SLOT_LAUNCHER].connected &&
        core_launcher_request(core, MESSAGE_LINK_ADD, &link, NULL, 0, on_link_done, core, &err) < 0)
        log_error(NULL, err, "link %s", network->name);
}

void networks_announce(struct core *core)
{
    for (struct network *n = core->networks; n; n = n->next)
        if (!n->removed)
            announce(core, n);
}

/* ---- requests */

struct network_body {
    char name[NAME_SIZE];
    const char *ipv4, *ipv6;
    uint64_t mtu;
    bool uplink;
};

static int body_name(void *target, const json_t *v, const char *path, struct error **err)
{
    const char *text;
    int r = json_read_string(v, path, &text, err);

    if (r < 0)
        return r;
    if (!units_is_name(text)) {
        error_set(err, EINVAL, "INVALID_VALUE", "%s: \"%.80s\" is not a name", path, text);
        error_hint(err, "1 to 63 of a-z 0-9 -, not beginning or ending with -");
        return -EINVAL;
    }
    memcpy(((struct network_body *)target)->name, text, strlen(text) + 1);
    return 0;
}

static int body_ipv4(void *target, const json_t *v, const char *path, struct error **err)
{
    return json_read_string(v, path, &((struct network_body *)target)->ipv4, err);
}

static int body_ipv6(void *target, const json_t *v, const char *path, struct error **err)
{
    return json_read_string(v, path, &((struct network_body *)target)->ipv6, err);
}

static int body_mtu(void *target, const json_t *v, const char *path, struct error **err)
{
    return json_read_u64(v, path, MTU_MIN, MTU_MAX, &((struct network_body *)target)->mtu, err);
}

static int body_uplink(void *target, const json_t *v, const char *path, struct error **err)
{
    return json_read_bool(v, path, &((struct network_body *)target)->uplink, err);
}

static const struct json_field body_fields[] = {
    {"name", body_name}, {"ipv4", body_ipv4}, {"ipv6", body_ipv6}, {"mtu", body_mtu}, {"uplink", body_uplink}};

/* What was not named comes from the pools. */
static int choose_subnet(struct core *core, const struct network_body *body, struct subnet *ret, struct error **err)
{
    struct subnet pool;
    int r = subnet_parse(body->ipv4, body->ipv6, ret, err);

    if (r == 0)
        r = pools(core, &pool, err);
    if (r == 0 && !body->ipv4)
        r = next_ipv4(core, &pool, 24, ret, err);
    if (r == 0 && !body->ipv6)
        r = next_ipv6(core, &pool, ret, err);
    if (r < 0)
        return r;
    for (struct network *n = core->networks; n; n = n->next) {
        if (!subnet_overlaps(&n->subnet, ret))
            continue;
        error_set(err, EADDRINUSE, "ADDRESS_TAKEN", "the addresses overlap those of network \"%s\"", n->name);
        error_hint(err, "choose others, or leave ipv4 and ipv6 out and the next free ones are taken");
        return -EADDRINUSE;
    }
    return 0;
}

static void tell(struct core *core, const char *type, const struct network *network)
{
    auto_buffer struct buffer detail = {0};

    buffer_printf(&detail, "{\"name\":\"%s\"}", network->name);
    core_event_add(core, type, NULL, NULL, NULL, detail.data);
}

int core_network_add(struct core *core, const json_t *json, struct network **ret, struct error **err)
{
    struct network_body body = {0};
    struct subnet subnet;
    int r = json_read_object(json, "", body_fields, sizeof(body_fields) / sizeof(body_fields[0]), &body, err);

    if (r < 0)
        return r;
    if (!body.name[0])
        return error_set(err, EINVAL, "MISSING_FIELD", "name: a network needs one");
    for (struct network *n = core->networks; n; n = n->next)
        if (strcmp(n->name, body.name) == 0)
            return error_set(err, EEXIST, "NAME_TAKEN", "there is a network \"%s\" already", body.name);
    if (body.uplink && core->facts_known && !core->facts.uplink[0]) {
        r = error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "uplink: this host has no uplink");
        error_hint(err, "set uplink in host.conf and restart the launcher, or leave uplink out");
        return r;
    }
    r = choose_subnet(core, &body, &subnet, err);
    if (r == 0)
        r = add(core, body.name, &subnet, (uint16_t)body.mtu, body.uplink, ret, err);
    if (r < 0)
        return r;
    (*ret)->dirty = true;
    core->networks_dirty = true;
    tell(core, "network.added", *ret);
    flush_soon(core);
    return 0;
}

int core_network_remove(struct core *core, struct network *network, struct error **err)
{
    if (network->instances) {
        error_set(err, EBUSY, "NETWORK_IN_USE", "network \"%s\" holds %zu instances", network->name,
                  network->instances);
        error_hint(err, "remove them first (coracle ps --all)");
        return -EBUSY;
    }
    network->removed = network->dirty = true;
    core->networks_dirty = true;
    tell(core, "network.removed", network);
    flush_soon(core);
    return 0;
}

/* After a commit: new links are made, removed ones go. */
void networks_committed(struct core *core)
{
    for (struct network **n = &core->networks; *n;) {
        struct network *network = *n;
        bool was_dirty = network->dirty;

        network->dirty = false;
        if (network->removed) {
            struct message_link_remove m;
            memcpy(m.name, network->name, sizeof(m.name));
            if (core->slots[SLOT_LAUNCHER].connected)
                core_launcher_request(core, MESSAGE_LINK_REMOVE, &m, NULL, 0, on_link_done, core, NULL);
            *n = network->next;
            network_free(network);
            continue;
        }
        if (was_dirty && !network->stored)
            announce(core, network);
        network->stored = true;
        n = &network->next;
    }
    core->networks_dirty = false;
}

/* After a commit that failed: as if nothing had been asked. "default" stays, it will be written later. */
void networks_undo(struct core *core)
{
    core->networks_dirty = false;
    for (struct network **n = &core->networks; *n;) {
        struct network *network = *n;
        network->removed = false;
        if (network->stored || strcmp(network->name, DEFAULT_NETWORK) == 0) {
            network->dirty = !network->stored;
            core->networks_dirty |= network->dirty;
            n = &network->next;
            continue;
        }
        *n = network->next;
        network_free(network);
    }
}
