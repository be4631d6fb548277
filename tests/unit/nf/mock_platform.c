/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated platform; see mock_platform.h. Used by the unit tests, the fuzzer and the freestanding check. */
#include "mock_platform.h"

enum { MOCK_LISTENERS = 4 };

struct nf_listener {
    bool used;
    struct nf_addr local;
    nf_accept_fn accept;
    void *context;
};

uint64_t mock_time = 1000000000;
size_t mock_room = SIZE_MAX;
char mock_output[MOCK_OUTPUT];
size_t mock_output_size;
void (*mock_exit)(int status);
void (*mock_stop)(void *context);
void *mock_stop_context;

static struct nf_tcp connections[MOCK_CONNECTIONS];
static size_t high; /* connections[high] and above were never used */
static struct nf_udp sockets[MOCK_SOCKETS];
static struct nf_listener listeners[MOCK_LISTENERS];
static struct nf_timer *timers;

uint64_t nf_now(void)
{
    return mock_time;
}

uint64_t nf_wall_clock(void)
{
    return mock_time + 1600000000000000000ull;
}

void nf_timer_stop(struct nf_timer *timer)
{
    if (!timer->link)
        return;
    *timer->link = timer->next;
    if (timer->next)
        timer->next->link = timer->link;
    timer->link = NULL;
}

void nf_timer_start(struct nf_timer *timer, uint64_t due)
{
    nf_timer_stop(timer);
    timer->due = due;
    struct nf_timer **at = &timers;
    while (*at && (*at)->due <= due)
        at = &(*at)->next;
    timer->next = *at;
    timer->link = at;
    if (timer->next)
        timer->next->link = &timer->next;
    *at = timer;
}

void mock_pump(void)
{
    for (size_t i = 0; i < high; i++) {
        struct nf_tcp *t = &connections[i];
        if (t->used && !t->connecting && t->want_write && t->room && t->ops->writable)
            t->ops->writable(t, t->context);
    }
}

void mock_advance(uint64_t ns)
{
    uint64_t end = mock_time + ns;
    unsigned fired = 0;
    mock_pump();
    while (timers && timers->due <= end) {
        struct nf_timer *timer = timers;
        nf_timer_stop(timer);
        /* At least a little passes, so that a timer that is always restarted for now does not stop the clock; more
         * after many, so that a sender without a limit costs the test no more than a slow one. */
        uint64_t least = mock_time + (fired++ < 1000 ? 1000 : 10000000);
        mock_time = timer->due > least ? timer->due : least;
        timer->fire(timer);
        mock_pump();
    }
    mock_time = end > mock_time ? end : mock_time;
    mock_pump();
}

void nf_exit(int status)
{
    if (mock_exit)
        mock_exit(status);
    __builtin_trap();
}

void nf_on_stop(void (*hook)(void *context), void *context)
{
    mock_stop = hook;
    mock_stop_context = context;
}

void *nf_alloc(size_t size)
{
    (void)size;
    return NULL;
}

void nf_free(void *memory)
{
    (void)memory;
}

void nf_write(enum nf_stream stream, const char *text, size_t size)
{
    (void)stream;
    for (size_t i = 0; i < size && mock_output_size < MOCK_OUTPUT - 1; i++)
        mock_output[mock_output_size++] = text[i];
    mock_output[mock_output_size] = 0;
}

static struct nf_tcp *new_tcp(const struct nf_addr *peer)
{
    for (size_t i = 0; i < MOCK_CONNECTIONS; i++) {
        struct nf_tcp *t = &connections[i];
        if (t->used)
            continue;
        high = i >= high ? i + 1 : high;
        memset(t, 0, sizeof *t);
        t->used = true;
        t->peer = *peer;
        t->limit = SIZE_MAX;
        t->room = mock_room;
        t->local = *peer;
        return t;
    }
    return NULL;
}

int nf_tcp_listen(const struct nf_addr *local, nf_accept_fn accept, void *context, struct nf_listener **ret_listener)
{
    for (size_t i = 0; i < MOCK_LISTENERS; i++) {
        if (!listeners[i].used) {
            listeners[i] = (struct nf_listener){true, *local, accept, context};
            *ret_listener = &listeners[i];
            return 0;
        }
    }
    return NF_NO_MEMORY;
}

void nf_listener_close(struct nf_listener *listener)
{
    listener->used = false;
}

int nf_tcp_connect(const struct nf_addr *peer, const struct nf_addr *local, const struct nf_tcp_ops *ops, void *context,
                   struct nf_tcp **ret_tcp)
{
    struct nf_tcp *t = new_tcp(peer);
    (void)local;
    if (!t)
        return NF_NO_MEMORY;
    t->connecting = true;
    nf_tcp_attach(t, ops, context);
    *ret_tcp = t;
    return 0;
}

void nf_tcp_attach(struct nf_tcp *tcp, const struct nf_tcp_ops *ops, void *context)
{
    tcp->ops = ops;
    tcp->context = context;
}

long nf_tcp_send(struct nf_tcp *tcp, const void *data, size_t size, enum nf_lifetime lifetime)
{
    (void)lifetime;
    size_t n = size < tcp->room ? size : tcp->room;
    if (!n)
        return NF_AGAIN;
    for (size_t i = 0; i < n && tcp->sent + i < MOCK_KEPT; i++)
        tcp->kept[tcp->sent + i] = ((const uint8_t *)data)[i];
    tcp->sent += n;
    if (tcp->room != SIZE_MAX)
        tcp->room -= n;
    return (long)n;
}

void nf_tcp_want_write(struct nf_tcp *tcp, bool on)
{
    tcp->want_write = on;
}

void nf_tcp_limit_receive(struct nf_tcp *tcp, size_t max)
{
    tcp->limit = max;
}

void nf_tcp_shutdown(struct nf_tcp *tcp)
{
    tcp->shut = true;
    tcp->want_write = false;
}

void nf_tcp_close(struct nf_tcp *tcp)
{
    if (!tcp->used)
        __builtin_trap(); /* closed twice, or after `failed` */
    tcp->used = false;
}

void nf_tcp_abort(struct nf_tcp *tcp)
{
    nf_tcp_close(tcp);
    tcp->aborted = true;
}

void nf_tcp_addresses(const struct nf_tcp *tcp, struct nf_addr *ret_local, struct nf_addr *ret_peer)
{
    *ret_local = tcp->local;
    *ret_peer = tcp->peer;
}

int nf_udp_open(const struct nf_addr *local, const struct nf_addr *peer, const struct nf_udp_ops *ops, void *context,
                struct nf_udp **ret_udp)
{
    for (size_t i = 0; i < MOCK_SOCKETS; i++) {
        struct nf_udp *u = &sockets[i];
        if (u->used)
            continue;
        memset(u, 0, sizeof *u);
        u->used = true;
        u->ops = ops;
        u->context = context;
        if (local)
            u->local = *local;
        if (peer)
            u->peer = *peer;
        u->connected = peer;
        *ret_udp = u;
        return 0;
    }
    return NF_NO_MEMORY;
}

int nf_udp_send(struct nf_udp *udp, const struct nf_addr *to, const void *header, size_t header_size, const void *body,
                size_t body_size)
{
    if (udp->answer)
        return udp->answer;
    if (to)
        udp->last_to = *to;
    udp->sent++;
    udp->last_size = header_size + body_size;
    for (size_t i = 0; i < udp->last_size && i < MOCK_KEPT; i++)
        udp->last[i] = i < header_size ? ((const uint8_t *)header)[i] : ((const uint8_t *)body)[i - header_size];
    return 0;
}

void nf_udp_address(const struct nf_udp *udp, struct nf_addr *ret_local)
{
    *ret_local = udp->local;
}

void nf_udp_close(struct nf_udp *udp)
{
    if (!udp)
        return;
    if (!udp->used)
        __builtin_trap();
    udp->used = false;
}

struct nf_tcp *mock_accept(uint16_t port, const struct nf_addr *peer)
{
    for (size_t i = 0; i < MOCK_LISTENERS; i++) {
        if (!listeners[i].used || listeners[i].local.port != port)
            continue;
        struct nf_tcp *t = new_tcp(peer);
        if (!t)
            return NULL;
        if (listeners[i].accept(t, peer, listeners[i].context))
            return t;
        nf_tcp_abort(t);
        return NULL;
    }
    return NULL;
}

size_t mock_deliver(struct nf_tcp *tcp, const uint8_t *data, size_t size)
{
    size_t done = 0;
    while (done < size && tcp->used && tcp->limit) {
        size_t n = size - done < tcp->limit ? size - done : tcp->limit;
        if (tcp->ops->receive)
            tcp->ops->receive(tcp, tcp->context, data + done, n);
        done += n;
    }
    return done;
}

void mock_end(struct nf_tcp *tcp)
{
    if (tcp->used && tcp->ops->end)
        tcp->ops->end(tcp, tcp->context);
}

void mock_fail(struct nf_tcp *tcp, int error)
{
    if (!tcp->used)
        return;
    tcp->used = false;
    tcp->ops->failed(tcp, tcp->context, error);
}

struct nf_udp *mock_socket(const struct nf_addr *peer)
{
    for (size_t i = 0; i < MOCK_SOCKETS; i++) {
        if (sockets[i].used && sockets[i].connected && nf_addr_equal(&sockets[i].peer, peer))
            return &sockets[i];
    }
    return NULL;
}

void mock_datagram(uint16_t port, const struct nf_addr *from, const uint8_t *data, size_t size)
{
    struct nf_udp *u = mock_socket(from);
    for (size_t i = 0; !u && i < MOCK_SOCKETS; i++) {
        if (sockets[i].used && !sockets[i].connected && sockets[i].local.port == port)
            u = &sockets[i];
    }
    if (u)
        u->ops->receive(u, u->context, from, data, size, nf_wall_clock());
}

struct nf_tcp *mock_outgoing(uint16_t port)
{
    for (size_t i = 0; i < MOCK_CONNECTIONS; i++) {
        if (connections[i].used && connections[i].connecting && connections[i].peer.port == port)
            return &connections[i];
    }
    return NULL;
}

void mock_connected(struct nf_tcp *tcp)
{
    tcp->connecting = false;
    if (tcp->ops->connected)
        tcp->ops->connected(tcp, tcp->context);
}

size_t mock_count_tcp(void)
{
    size_t n = 0;
    for (size_t i = 0; i < MOCK_CONNECTIONS; i++)
        n += connections[i].used;
    return n;
}

size_t mock_count_udp(void)
{
    size_t n = 0;
    for (size_t i = 0; i < MOCK_SOCKETS; i++)
        n += sockets[i].used;
    return n;
}
