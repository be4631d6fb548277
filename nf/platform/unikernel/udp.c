/* SPDX-License-Identifier: Apache-2.0 */
/* platform.h's UDP on lwIP's raw API. Objects with a peer come first in lwIP's own demultiplexing when connected. */
#include "unikernel.h"

#include "lwip/udp.h"

#include "address.h"

struct nf_udp {
    struct udp_pcb *pcb;
    const struct nf_udp_ops *ops;
    void *context;
    bool blocked, gone, in_callback;
    struct nf_udp *next;
};

static struct nf_udp *all;

static void sweep(struct nf_udp *u)
{
    if (u->gone && !u->in_callback) {
        for (struct nf_udp **at = &all; *at; at = &(*at)->next) {
            if (*at == u) {
                *at = u->next;
                break;
            }
        }
        unikernel_free(u);
    }
}

static void on_receive(void *arg, struct udp_pcb *pcb, struct pbuf *p, const ip_addr_t *from, u16_t port)
{
    static uint8_t whole[UINT16_MAX];
    struct nf_udp *u = arg;
    struct nf_addr peer;
    const uint8_t *bytes = p->payload;

    (void)pcb;
    if (p->next) {
        pbuf_copy_partial(p, whole, p->tot_len, 0);
        bytes = whole;
    }
    address_from_lwip(from, port, &peer);
    u->in_callback = true;
    if (u->ops->receive)
        u->ops->receive(u, u->context, &peer, bytes, p->tot_len, net_received_at());
    u->in_callback = false;
    pbuf_free(p);
    sweep(u);
}

/* lwIP shares a port among all that ask; objects without a peer must not. */
static bool taken(const struct nf_addr *local)
{
    for (struct nf_udp *u = all; u; u = u->next)
        if (!u->gone && local->port && !(u->pcb->flags & UDP_FLAGS_CONNECTED) && u->pcb->local_port == local->port)
            return true;
    return false;
}

int nf_udp_open(const struct nf_addr *local, const struct nf_addr *peer, const struct nf_udp_ops *ops, void *context,
                struct nf_udp **ret_udp)
{
    struct nf_udp *u;
    struct udp_pcb *pcb;
    ip_addr_t address;
    err_t r = ERR_MEM;

    net_start();
    if (!peer && taken(local))
        return NF_IN_USE;
    u = unikernel_calloc(1, sizeof(*u));
    pcb = u ? udp_new_ip_type(IPADDR_TYPE_ANY) : NULL;
    if (pcb) {
        address_to_lwip(local, &address);
        ip_set_option(pcb, SOF_REUSEADDR);
        r = udp_bind(pcb, &address, local->port);
        if (r == ERR_OK && peer) {
            address_to_lwip(peer, &address);
            r = udp_connect(pcb, &address, peer->port);
        }
    }
    if (r != ERR_OK) {
        if (pcb)
            udp_remove(pcb);
        unikernel_free(u);
        return error_from_lwip(r);
    }
    *u = (struct nf_udp){.pcb = pcb, .ops = ops, .context = context, .next = all};
    all = u;
    udp_recv(pcb, on_receive, u);
    *ret_udp = u;
    return 0;
}

int nf_udp_send(struct nf_udp *udp, const struct nf_addr *to, const void *header, size_t header_size, const void *body,
                size_t body_size)
{
    struct pbuf *p, *rest = NULL;
    ip_addr_t address;
    err_t r;

    if (header_size + body_size > UINT16_MAX - 28)
        return NF_INVALID;
    p = pbuf_alloc(PBUF_TRANSPORT, (u16_t)header_size, PBUF_RAM);
    if (p && body_size)
        rest = pbuf_alloc(PBUF_RAW, (u16_t)body_size, PBUF_ROM);
    if (!p || (body_size && !rest)) {
        if (p)
            pbuf_free(p);
        udp->blocked = true;
        return NF_AGAIN;
    }
    memcpy(p->payload, header, header_size);
    if (rest) {
        ((struct pbuf_rom *)(void *)rest)->payload = body;
        pbuf_cat(p, rest);
    }
    if (to) {
        address_to_lwip(to, &address);
        r = udp_sendto(udp->pcb, p, &address, to->port);
    } else {
        r = udp_send(udp->pcb, p);
    }
    pbuf_free(p);
    if (r == ERR_MEM || r == ERR_BUF) {
        udp->blocked = true;
        return NF_AGAIN;
    }
    return error_from_lwip(r);
}

void nf_udp_address(const struct nf_udp *udp, struct nf_addr *ret_local)
{
    const struct udp_pcb *pcb = udp->pcb;
    struct netif *netif = pcb->flags & UDP_FLAGS_CONNECTED ? ip_route(&pcb->local_ip, &pcb->remote_ip) : NULL;
    const ip_addr_t *routed = netif ? ip_netif_get_local_ip(netif, &pcb->remote_ip) : NULL;

    address_from_lwip(ip_addr_isany(&pcb->local_ip) && routed ? routed : &pcb->local_ip, pcb->local_port, ret_local);
}

void nf_udp_close(struct nf_udp *udp)
{
    if (!udp)
        return;
    udp_remove(udp->pcb);
    udp->gone = true;
    sweep(udp);
}

bool udp_round(void)
{
    bool worked = false;

    for (struct nf_udp *u = all, *next; u; u = next) {
        next = u->next;
        if (!u->blocked || u->gone)
            continue;
        u->blocked = false;
        worked = true;
        if (!u->ops->writable)
            continue;
        u->in_callback = true;
        u->ops->writable(u, u->context);
        u->in_callback = false;
        next = u->next;
        sweep(u);
    }
    return worked;
}
