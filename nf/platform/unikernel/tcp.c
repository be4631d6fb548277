/* SPDX-License-Identifier: Apache-2.0 */
/*
 * platform.h's TCP on lwIP's raw API.
 *
 * lwIP calls back with pbuf chains; the program sees plain ranges, page by page, without a copy. `writable` is not
 * called from within lwIP but from tcp_poll(), so that a program may send as much as fits in one go. An object is freed
 * only between callbacks: a program may close it from within one.
 */
#include "unikernel.h"

#include "lwip/priv/tcp_priv.h"
#include "lwip/tcp.h"

#include "address.h"

enum {
    CONNECTION_MAX = 12000,
    LARGE_SEGMENT = 16 * 1024,
    WINDOW_LEAST = 1220,         /* a packet of the smallest IPv6 link: RFC 8200, 5 */
    UNANSWERED_MAX = 512 * 1024, /* an eighth of the window */
};

struct nf_tcp {
    struct tcp_pcb *pcb; /* NULL: closed or lost */
    const struct nf_tcp_ops *ops;
    void *context;
    struct pbuf *held; /* received, not yet given to the program (it limits what it takes) */
    size_t held_offset;
    size_t receive_max;
    struct nf_addr local, peer;
    bool want_write;
    bool ended, end_told; /* the peer's direction; shut: ours */
    bool shut;
    bool in_callback, gone; /* gone: the program has let go of it */
    size_t unanswered;      /* bytes received whose acknowledgement waits for the end of the round */
    struct nf_tcp *next_owing;
    bool owing;
    bool aborted; /* its pcb is freed: lwIP must be told when that happened within its callback */
    struct nf_tcp *next_ready, *previous_ready; /* list of those that want to write or have held bytes */
    bool listed;
};

struct nf_listener {
    struct tcp_pcb *pcb;
    nf_accept_fn accept;
    void *context;
};

static struct nf_tcp *ready;
static unsigned connections;

static void list(struct nf_tcp *t)
{
    if (t->listed)
        return;
    t->next_ready = ready;
    t->previous_ready = NULL;
    if (ready)
        ready->previous_ready = t;
    ready = t;
    t->listed = true;
}

static struct nf_tcp *next_in_round; /* where tcp_poll() goes on */

static void unlist(struct nf_tcp *t)
{
    if (!t->listed)
        return;
    if (next_in_round == t)
        next_in_round = t->next_ready;
    if (t->previous_ready)
        t->previous_ready->next_ready = t->next_ready;
    else
        ready = t->next_ready;
    if (t->next_ready)
        t->next_ready->previous_ready = t->previous_ready;
    t->listed = false;
}

/* ---- acknowledgements ---- */

/*
 * lwIP acknowledges every second segment, here every 128 KiB, and each acknowledgement is a packet that the host's
 * stack must take in before it reads on. Of the large segments that come in one round only the last is acknowledged, at
 * the end of the round, and one for every UNANSWERED_MAX bytes. What lwIP does not want to answer yet is left to it.
 */
static struct nf_tcp *owing;

static void owe(struct nf_tcp *t, size_t bytes)
{
    struct tcp_pcb *pcb = t->pcb;

    t->unanswered += bytes;
    if (!(pcb->flags & TF_ACK_NOW))
        return;
    if (bytes < LARGE_SEGMENT || t->unanswered >= UNANSWERED_MAX || pcb->unsent) {
        t->unanswered = 0;
        return;
    }
    tcp_clear_flags(pcb, TF_ACK_NOW);
    tcp_set_flags(pcb, TF_ACK_DELAY);
    if (t->owing)
        return;
    t->owing = true;
    t->next_owing = owing;
    owing = t;
}

static void forget_owed(struct nf_tcp *t)
{
    struct nf_tcp **place = &owing;

    if (!t->owing)
        return;
    while (*place != t)
        place = &(*place)->next_owing;
    *place = t->next_owing;
    t->owing = false;
}

static void answer(void)
{
    while (owing) {
        struct nf_tcp *t = owing;

        forget_owed(t);
        t->unanswered = 0;
        if (!t->pcb || !(t->pcb->flags & TF_ACK_DELAY))
            continue; /* gone, or acknowledged with something else */
        tcp_ack_now(t->pcb);
        tcp_output(t->pcb);
    }
}

static void dispose(struct nf_tcp *t)
{
    forget_owed(t);
    if (t->held)
        pbuf_free(t->held);
    connections--;
    unikernel_free(t);
}

/* The program has let go of it. Freed at once, or when the callback it is in returns: the bytes given live as long. */
static void release(struct nf_tcp *t)
{
    unlist(t);
    t->gone = true;
    if (!t->in_callback)
        dispose(t);
}

/* Brackets a callback; returns whether the object still lives. */
static bool leave(struct nf_tcp *t, bool outer)
{
    t->in_callback = outer;
    if (!t->gone)
        return true;
    if (!outer)
        dispose(t);
    return false;
}

static void remember_addresses(struct nf_tcp *t)
{
    address_from_lwip(&t->pcb->local_ip, t->pcb->local_port, &t->local);
    address_from_lwip(&t->pcb->remote_ip, t->pcb->remote_port, &t->peer);
}

static void detach(struct nf_tcp *t)
{
    if (!t->pcb)
        return;
    tcp_arg(t->pcb, NULL);
    tcp_recv(t->pcb, NULL);
    tcp_sent(t->pcb, NULL);
    tcp_err(t->pcb, NULL);
    tcp_poll(t->pcb, NULL, 0);
    t->pcb = NULL;
}

/* Both directions have ended: lwIP finishes alone, and frees a pcb in TIME_WAIT without a word to anybody. */
static void detach_ended(struct nf_tcp *t)
{
    if (t->ended && t->shut)
        detach(t);
}

/* Gives held bytes to the program, as much as it takes. Returns false when the object is gone. */
static bool deliver(struct nf_tcp *t)
{
    bool outer = t->in_callback;

    while (t->held && t->receive_max > 0 && !t->gone) {
        size_t n = t->held->len - t->held_offset;
        if (n > t->receive_max)
            n = t->receive_max;
        if (t->pcb) /* before the call: lwIP answers a close with unread bytes with a reset */
            tcp_recved(t->pcb, (u16_t)n);
        if (n > 0 && t->ops && t->ops->receive) {
            t->in_callback = true;
            t->ops->receive(t, t->context, (const uint8_t *)t->held->payload + t->held_offset, n);
            if (t->gone)
                return leave(t, outer);
            t->in_callback = outer;
        }
        t->held_offset += n;
        if (t->held_offset >= t->held->len) {
            struct pbuf *first = t->held;
            t->held = first->next;
            if (t->held)
                pbuf_ref(t->held);
            pbuf_free(first);
            t->held_offset = 0;
        }
    }
    if (!t->held && t->ended && !t->end_told) {
        t->end_told = true;
        if (t->ops && t->ops->end) {
            t->in_callback = true;
            t->ops->end(t, t->context);
            return leave(t, outer);
        }
    }
    return true;
}

/* What lwIP's callbacks return: ERR_ABRT, and nothing else, when the pcb was freed within them. */
static err_t leave_lwip(struct nf_tcp *t, bool outer)
{
    bool aborted = t->aborted;

    leave(t, outer);
    return aborted ? ERR_ABRT : ERR_OK;
}

static err_t on_receive(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t error)
{
    struct nf_tcp *t = arg;
    bool outer = t->in_callback;

    size_t bytes = p ? p->tot_len : 0;

    (void)pcb;
    (void)error;
    if (!p) {
        t->ended = true;
    } else if (t->held) {
        pbuf_cat(t->held, p);
    } else {
        t->held = p;
        t->held_offset = 0;
    }
    t->in_callback = true;
    if (deliver(t)) {
        if (t->pcb && bytes)
            owe(t, bytes);
        detach_ended(t);
    }
    return leave_lwip(t, outer);
}

/*
 * Our segments are of up to 32 KiB, and lwIP sends one whole or, when the peer's window is smaller, not before its
 * persist timer has run: 1.2 s of silence when a peer that advertises two segments' worth is a moment late to read. As
 * soon as nothing is under way the first is divided at the window's edge, which lwIP then sends; a window of less than
 * a packet is left to the timer (RFC 9293, 3.8.6.2.1: no silly windows).
 */
static err_t on_acknowledged(void *arg, struct tcp_pcb *pcb, u16_t bytes)
{
    const struct tcp_seg *first = pcb->unsent;

    (void)arg;
    (void)bytes;
    if (first && !pcb->unacked && pcb->snd_wnd < first->len && pcb->snd_wnd >= WINDOW_LEAST)
        tcp_split_unsent_seg(pcb, (u16_t)pcb->snd_wnd); /* no memory: the timer's turn */
    return ERR_OK;
}

/* lwIP has freed the pcb already. ERR_CLSD: in good order, after both sides ended; the program still has its object. */
static void on_error(void *arg, err_t error)
{
    struct nf_tcp *t = arg;
    bool outer = t->in_callback;

    t->pcb = NULL;
    if (error == ERR_CLSD)
        return;
    t->in_callback = true;
    if (t->ops)
        t->ops->failed(t, t->context, error_from_lwip(error));
    if (!t->gone)
        release(t);
    leave(t, outer);
}

static err_t on_connected(void *arg, struct tcp_pcb *pcb, err_t error)
{
    struct nf_tcp *t = arg;
    bool outer = t->in_callback;

    (void)pcb;
    (void)error;
    remember_addresses(t);
    t->in_callback = true;
    if (t->ops->connected)
        t->ops->connected(t, t->context);
    return leave_lwip(t, outer);
}

static struct nf_tcp *wrap(struct tcp_pcb *pcb)
{
    struct nf_tcp *t = connections < CONNECTION_MAX ? unikernel_calloc(1, sizeof(*t)) : NULL;

    if (!t)
        return NULL;
    connections++;
    t->pcb = pcb;
    t->receive_max = SIZE_MAX;
    tcp_arg(pcb, t);
    tcp_recv(pcb, on_receive);
    tcp_sent(pcb, on_acknowledged);
    tcp_err(pcb, on_error);
    tcp_nagle_disable(pcb);
    return t;
}

static err_t on_accept(void *arg, struct tcp_pcb *pcb, err_t error)
{
    struct nf_listener *l = arg;
    struct nf_tcp *t;

    if (error != ERR_OK || !pcb)
        return ERR_VAL;
    t = l ? wrap(pcb) : NULL;
    if (!t) {
        tcp_abort(pcb);
        return ERR_ABRT;
    }
    remember_addresses(t);
    t->in_callback = true;
    if (!l->accept(t, &t->peer, l->context) && !t->gone)
        nf_tcp_abort(t);
    return leave_lwip(t, false);
}

int nf_tcp_listen(const struct nf_addr *local, nf_accept_fn accept, void *context, struct nf_listener **ret_listener)
{
    uint8_t type = local->family == 4 ? IPADDR_TYPE_V4 : local->family == 6 ? IPADDR_TYPE_V6 : IPADDR_TYPE_ANY;
    struct nf_listener *l;
    struct tcp_pcb *pcb;
    ip_addr_t address;
    err_t r = ERR_MEM;

    net_start();
    l = unikernel_calloc(1, sizeof(*l));
    pcb = l ? tcp_new_ip_type(type) : NULL;

    if (pcb) {
        address_to_lwip(local, &address);
        ip_set_option(pcb, SOF_REUSEADDR); /* connections of an earlier listener do not hold the port */
        r = tcp_bind(pcb, &address, local->port);
        if (r == ERR_OK)
            l->pcb = tcp_listen_with_backlog_and_err(pcb, 255, &r);
        if (!l->pcb)
            tcp_close(pcb);
    }
    if (!l || !l->pcb) {
        unikernel_free(l);
        return error_from_lwip(r);
    }
    l->accept = accept;
    l->context = context;
    tcp_arg(l->pcb, l);
    tcp_accept(l->pcb, on_accept);
    *ret_listener = l;
    return 0;
}

void nf_listener_close(struct nf_listener *listener)
{
    if (!listener)
        return;
    tcp_close(listener->pcb);
    unikernel_free(listener);
}

int nf_tcp_connect(const struct nf_addr *peer, const struct nf_addr *local, const struct nf_tcp_ops *ops, void *context,
                   struct nf_tcp **ret_tcp)
{
    struct tcp_pcb *pcb;
    struct nf_tcp *t;
    ip_addr_t address;
    err_t r = ERR_MEM;

    net_start();
    pcb = tcp_new_ip_type(peer->family == 6 ? IPADDR_TYPE_V6 : IPADDR_TYPE_V4);
    t = pcb ? wrap(pcb) : NULL;

    if (t) {
        t->ops = ops;
        t->context = context;
        r = ERR_OK;
        if (local) {
            address_to_lwip(local, &address);
            r = tcp_bind(pcb, &address, local->port);
        }
        address_to_lwip(peer, &address);
        if (r == ERR_OK)
            r = tcp_connect(pcb, &address, peer->port, on_connected);
    }
    if (r == ERR_OK) {
        *ret_tcp = t;
        return 0;
    }
    if (t) {
        detach(t);
        release(t);
    }
    if (pcb)
        tcp_abort(pcb);
    return error_from_lwip(r);
}

void nf_tcp_attach(struct nf_tcp *tcp, const struct nf_tcp_ops *ops, void *context)
{
    tcp->ops = ops;
    tcp->context = context;
}

long nf_tcp_send(struct nf_tcp *tcp, const void *data, size_t size, enum nf_lifetime lifetime)
{
    size_t room = tcp->pcb ? tcp->pcb->snd_buf : 0, taken = 0;
    u8_t flags = (u8_t)(lifetime == NF_COPY ? TCP_WRITE_FLAG_COPY : 0);

    while (taken < size && room > 0) {
        size_t n = size - taken;
        if (n > room)
            n = room;
        if (n > TCP_MSS)
            n = TCP_MSS;
        if (tcp_write(tcp->pcb, (const uint8_t *)data + taken, (u16_t)n, flags) != ERR_OK)
            break;
        taken += n;
        room -= n;
    }
    if (taken == 0)
        return NF_AGAIN;
    tcp_output(tcp->pcb);
    return (long)taken;
}

void nf_tcp_want_write(struct nf_tcp *tcp, bool on)
{
    tcp->want_write = on;
    if (on)
        list(tcp);
}

void nf_tcp_limit_receive(struct nf_tcp *tcp, size_t max)
{
    tcp->receive_max = max;
    if (tcp->held)
        list(tcp);
}

void nf_tcp_shutdown(struct nf_tcp *tcp)
{
    if (!tcp->pcb || tcp->shut)
        return;
    tcp_shutdown(tcp->pcb, 0, 1);
    tcp->shut = true;
    detach_ended(tcp);
}

void nf_tcp_close(struct nf_tcp *tcp)
{
    struct tcp_pcb *pcb = tcp->pcb;

    detach(tcp);
    if (pcb && tcp_close(pcb) != ERR_OK) {
        tcp_abort(pcb);
        tcp->aborted = true;
    }
    release(tcp);
}

void nf_tcp_abort(struct nf_tcp *tcp)
{
    struct tcp_pcb *pcb = tcp->pcb;

    detach(tcp);
    if (pcb) {
        tcp_abort(pcb);
        tcp->aborted = true;
    }
    release(tcp);
}

void nf_tcp_addresses(const struct nf_tcp *tcp, struct nf_addr *ret_local, struct nf_addr *ret_peer)
{
    *ret_local = tcp->local;
    *ret_peer = tcp->peer;
}

static bool may_write(const struct nf_tcp *t)
{
    return t->want_write && t->pcb && !t->shut && t->pcb->state >= ESTABLISHED && t->pcb->snd_buf >= TCP_SNDLOWAT &&
           tcp_sndqueuelen(t->pcb) < TCP_SNDQUEUELOWAT;
}

bool tcp_round(void)
{
    bool worked = false;

    answer();
    for (struct nf_tcp *t = ready; t; t = next_in_round) {
        next_in_round = t->next_ready;
        if (t->held && t->receive_max > 0) {
            worked = true; /* what the program did then may concern those already passed */
            if (!deliver(t))
                continue;
        }
        if (may_write(t)) {
            worked = true;
            t->in_callback = true;
            if (t->ops->writable)
                t->ops->writable(t, t->context);
            if (!leave(t, false))
                continue;
        }
        if (!t->want_write && (!t->held || t->receive_max == 0))
            unlist(t);
    }
    next_in_round = NULL;
    return worked;
}
