/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-vsock (virtio 1.2, 5.10), stream sockets. Theory of operation:
 *
 * A fixed table of streams, each with its buffer, made at the start: after the sandbox is closed nothing is allocated.
 * What the guest is to be told is not queued but owed: a bit in its stream, paid when there is a receive buffer. Only
 * resets for streams that are none have a list; when it is full, what the guest sends waits until it takes some, so a
 * guest that does not receive cannot make the monitor grow. Sockets are watched by an epoll of the device's own, which
 * the device thread watches. Device thread with the lock, except creation and what the header says.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/devices/vsock.h"
#include "vmm/devices/vsock_stream.h"

enum { QUEUE_RX, QUEUE_TX, QUEUE_EVENT, QUEUE_COUNT };
enum { BATCH = 64, RESET_MAX = 64, LISTENER = VSOCK_STREAM_MAX, DATA_MAX = 65536 };
enum { FIRST_HOST_PORT = 1 << 30, EVENT_TRANSPORT_RESET = 0 };

static const uint32_t calls[] = {
    SYS_epoll_ctl, SYS_epoll_pwait, SYS_accept4, SYS_shutdown, SYS_socketpair /* control.c */, SYS_close, 0};

struct vsock {
    struct device device;
    uint32_t cid;
    int listen_fd, epoll_fd;
    bool accept_waits; /* somebody knocked when the table was full */
    bool owed_event;   /* after a restore: all streams of before are gone */
    uint32_t next_port;
    unsigned turn; /* stream to be served first */
    struct stream streams[VSOCK_STREAM_MAX];
    struct {
        uint32_t host_port, guest_port;
    } resets[RESET_MAX];
    unsigned reset_count;
    struct vsock_counters counters;
    uint8_t *buffers;
};

static struct vsock *vsock_of(struct device *d)
{
    return (struct vsock *)d;
}

/* ---- the table ---- */

/* A free stream, or one whose end the guest has been told of and does not confirm. */
static struct stream *free_stream(struct vsock *v)
{
    for (unsigned i = 0; i < VSOCK_STREAM_MAX; i++)
        if (v->streams[i].state == STREAM_FREE)
            return &v->streams[i];
    for (unsigned i = 0; i < VSOCK_STREAM_MAX; i++)
        if (v->streams[i].state == STREAM_ENDED && v->streams[i].owed == 0)
            return &v->streams[i];
    return NULL;
}

static struct stream *find(struct vsock *v, uint32_t host_port, uint32_t guest_port)
{
    for (unsigned i = 0; i < VSOCK_STREAM_MAX; i++) {
        struct stream *s = &v->streams[i];
        if (s->state >= STREAM_REQUESTED && s->host_port == host_port && s->guest_port == guest_port)
            return s;
    }
    return NULL;
}

static struct stream *find_waiting(struct vsock *v, uint32_t host_port)
{
    for (unsigned i = 0; i < VSOCK_STREAM_MAX; i++)
        if (v->streams[i].state == STREAM_WAITING && v->streams[i].host_port == host_port)
            return &v->streams[i];
    return NULL;
}

/* No port twice: a number comes again after 2^30 streams, when it is long free, or it is taken and the next is tried.
 */
static uint32_t new_port(struct vsock *v)
{
    bool taken = true;

    while (taken) {
        v->next_port =
            v->next_port < FIRST_HOST_PORT || v->next_port == UINT32_MAX ? FIRST_HOST_PORT : v->next_port + 1;
        taken = false;
        for (unsigned i = 0; i < VSOCK_STREAM_MAX; i++)
            taken |= v->streams[i].state != STREAM_FREE && v->streams[i].host_port == v->next_port;
    }
    return v->next_port;
}

static void request(struct vsock *v, struct stream *s, uint32_t guest_port)
{
    s->state = STREAM_REQUESTED;
    s->host_port = new_port(v);
    s->guest_port = guest_port;
    s->owed = OWED_REQUEST;
}

static int watch(struct vsock *v, int fd, unsigned index)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u32 = index};

    return epoll_ctl(v->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static struct stream *new_stream(struct vsock *v, int fd, enum stream_state state)
{
    struct stream *s = free_stream(v);

    if (!s || watch(v, fd, (unsigned)(s - v->streams)) < 0)
        return NULL;
    stream_begin(s, fd, state);
    return s;
}

/* ---- guest to host ---- */

static void refuse(struct vsock *v, const struct vsock_header *h)
{
    v->resets[v->reset_count].host_port = h->target_port;
    v->resets[v->reset_count++].guest_port = h->source_port;
    v->counters.resets++;
}

static void guest_connects(struct vsock *v, const struct vsock_header *h)
{
    struct stream *s = find_waiting(v, h->target_port);

    if (!s) {
        refuse(v, h);
        return;
    }
    s->state = STREAM_OPEN;
    s->guest_port = h->source_port;
    s->owed = OWED_RESPONSE;
    s->readable = true;
    stream_take_credit(s, h);
    v->counters.streams++;
    if (stream_welcome(s, h->source_port) < 0)
        stream_fail(s);
}

static void guest_answers(struct vsock *v, struct stream *s, const struct vsock_header *h)
{
    if (s->state != STREAM_REQUESTED || (s->owed & OWED_REQUEST)) {
        stream_fail(s);
        return;
    }
    s->state = STREAM_OPEN;
    s->readable = true;
    v->counters.streams++;
    if (stream_welcome(s, h->target_port) < 0)
        stream_fail(s);
}

static void guest_sends(struct vsock *v, struct stream *s, const struct vsock_header *h,
                        const struct virtqueue_chain *chain)
{
    struct iovec segments[VIRTQUEUE_SEGMENT_MAX];
    unsigned count = virtqueue_chain_slice(chain, false, sizeof(*h), h->length, segments);

    if (s->state == STREAM_ENDED)
        return; /* sent before it knew */
    if (s->state != STREAM_OPEN || (s->guest_ends & VSOCK_NO_MORE_SEND) ||
        stream_deliver(s, segments, count, h->length) < 0)
        stream_fail(s);
    else
        v->counters.to_host_bytes += h->length;
}

static void take_packet(struct vsock *v, const struct vsock_header *h, const struct virtqueue_chain *chain)
{
    struct stream *s = find(v, h->target_port, h->source_port);

    if (!s) {
        if (h->operation == VSOCK_REQUEST)
            guest_connects(v, h);
        else if (h->operation != VSOCK_RESET)
            refuse(v, h);
        return;
    }
    stream_take_credit(s, h);
    switch (h->operation) {
    case VSOCK_RESPONSE:
        guest_answers(v, s, h);
        return;
    case VSOCK_RESET:
        stream_close_socket(s);
        s->state = STREAM_FREE;
        return;
    case VSOCK_SHUTDOWN:
        s->guest_ends |= h->flags & (VSOCK_NO_MORE_RECEIVE | VSOCK_NO_MORE_SEND);
        if (s->state == STREAM_ENDED)
            s->owed |= OWED_RESET;
        else if (s->state == STREAM_OPEN)
            stream_drain(s);
        return;
    case VSOCK_DATA:
        guest_sends(v, s, h, chain);
        return;
    case VSOCK_CREDIT_REQUEST:
        s->owed |= OWED_CREDIT;
        return;
    case VSOCK_CREDIT_UPDATE:
        return;
    default: /* a second request */
        stream_fail(s);
        return;
    }
}

static bool transmit(struct device *d)
{
    struct vsock *v = vsock_of(d);
    struct virtqueue *q = &d->queues[QUEUE_TX].ring;
    struct virtqueue_chain chain;
    struct vsock_header h;
    unsigned taken = 0;

    for (; taken < BATCH && v->reset_count < RESET_MAX && virtqueue_pop(q, &chain) > 0; taken++) {
        enum vsock_verdict verdict = vsock_parse(&chain, v->cid, &h);
        if (verdict == VSOCK_BROKEN)
            q->broken = "a vsock packet shorter than its header";
        else if (verdict == VSOCK_GOOD)
            take_packet(v, &h, &chain);
        else if (verdict == VSOCK_REFUSE)
            refuse(v, &h);
        virtqueue_push(q, chain.head, 0);
    }
    if (taken)
        device_publish(d, QUEUE_TX);
    if (q->broken)
        device_fail(d, q->broken);
    return taken > 0;
}

/* ---- host to guest ---- */

static void give(struct vsock *v, const struct virtqueue_chain *chain, const struct stream *s, enum vsock_operation op,
                 uint32_t flags, uint32_t length)
{
    const struct vsock_header h = {
        .source_cid = VSOCK_CID_HOST,
        .target_cid = v->cid,
        .source_port = s->host_port,
        .target_port = s->guest_port,
        .length = length,
        .type = VSOCK_TYPE_STREAM,
        .operation = (uint16_t)op,
        .flags = flags,
        .buffer = op == VSOCK_RESET ? 0 : STREAM_BUFFER,
        .forwarded = s->forwarded,
    };

    virtqueue_chain_write(chain, 0, &h, sizeof(h));
    virtqueue_push(&v->device.queues[QUEUE_RX].ring, chain->head, (uint32_t)sizeof(h) + length);
}

/* Pays one debt other than data and the end that comes behind it. */
static void pay(struct vsock *v, struct stream *s, const struct virtqueue_chain *chain)
{
    unsigned debt = s->owed & -s->owed;
    static const enum vsock_operation operations[] = {VSOCK_RESET,         VSOCK_REQUEST,        VSOCK_RESPONSE,
                                                      VSOCK_CREDIT_UPDATE, VSOCK_CREDIT_REQUEST, VSOCK_SHUTDOWN};
    uint32_t flags = debt == OWED_SHUTDOWN ? VSOCK_NO_MORE_SEND | (s->hung_up ? VSOCK_NO_MORE_RECEIVE : 0) : 0;

    give(v, chain, s, operations[__builtin_ctz(debt)], flags, 0);
    s->owed &= ~debt;
    s->advertised = s->forwarded;
    s->owed &= ~(unsigned)OWED_CREDIT; /* each packet tells of it */
    if (debt == OWED_RESET) {
        v->counters.resets++;
        s->state = STREAM_FREE;
    } else if (debt == OWED_SHUTDOWN && s->hung_up) {
        stream_close_socket(s);
        s->state = STREAM_ENDED;
    }
}

/* Reads from the socket into the chain. True: the chain is used. */
static bool give_data(struct vsock *v, struct stream *s, const struct virtqueue_chain *chain)
{
    struct iovec segments[VIRTQUEUE_SEGMENT_MAX];
    uint64_t room = chain->writable_bytes - VSOCK_HEADER_BYTES;
    uint32_t credit = stream_credit(s);

    room = room < credit ? room : credit;
    unsigned count =
        virtqueue_chain_slice(chain, true, VSOCK_HEADER_BYTES, room < DATA_MAX ? room : DATA_MAX, segments);
    ssize_t got = readv(s->fd, segments, (int)count);
    if (got < 0 && errno != EAGAIN) {
        stream_fail(s);
        return false;
    }
    if (got <= 0) {
        s->readable = false;
        s->host_ended |= got == 0;
        s->owed |= got == 0 ? OWED_SHUTDOWN : 0;
        return false;
    }
    give(v, chain, s, VSOCK_DATA, 0, (uint32_t)got);
    s->sent += (uint32_t)got;
    s->advertised = s->forwarded;
    s->owed &= ~(unsigned)OWED_CREDIT;
    v->counters.to_guest_bytes += (uint64_t)got;
    return true;
}

static bool may_read(const struct stream *s)
{
    return s->state == STREAM_OPEN && s->readable && !s->host_ended && !(s->guest_ends & VSOCK_NO_MORE_RECEIVE);
}

/* The next stream that has something for the guest, in turn. */
static struct stream *next_stream(struct vsock *v)
{
    for (unsigned i = 0; i < VSOCK_STREAM_MAX; i++) {
        struct stream *s = &v->streams[(v->turn + i) % VSOCK_STREAM_MAX];
        if (may_read(s) && stream_credit(s) == 0 && !s->asked) {
            s->asked = true;
            s->owed |= OWED_CREDIT_REQUEST;
        }
        if (s->owed || (may_read(s) && stream_credit(s) > 0))
            return s;
    }
    return NULL;
}

static void pay_refusal(struct vsock *v, const struct virtqueue_chain *chain)
{
    v->reset_count--;
    const struct stream nobody = {.host_port = v->resets[v->reset_count].host_port,
                                  .guest_port = v->resets[v->reset_count].guest_port};
    give(v, chain, &nobody, VSOCK_RESET, 0, 0);
}

/* One packet into one buffer. False: nothing to send, or no buffer. */
static bool receive_one(struct device *d)
{
    struct vsock *v = vsock_of(d);
    struct virtqueue *q = &d->queues[QUEUE_RX].ring;
    struct virtqueue_chain chain;
    struct stream *s = NULL;

    if (!q->available || q->broken || (v->reset_count == 0 && !(s = next_stream(v))))
        return false;
    int r = virtqueue_pop(q, &chain);
    if (r > 0 && chain.writable_bytes < VSOCK_HEADER_BYTES)
        q->broken = "a vsock receive buffer smaller than a header";
    if (q->broken)
        device_fail(d, q->broken);
    if (r <= 0 || q->broken)
        return false;
    if (v->reset_count > 0) {
        pay_refusal(v, &chain);
        return true;
    }
    v->turn = (unsigned)(s - v->streams) + 1;
    if (s->owed)
        pay(v, s, &chain);
    else if (!give_data(v, s, &chain))
        virtqueue_unpop(q);
    return true;
}

static void tell_event(struct device *d)
{
    static const uint32_t event = EVENT_TRANSPORT_RESET;
    struct virtqueue *q = &d->queues[QUEUE_EVENT].ring;
    struct virtqueue_chain chain;

    if (!vsock_of(d)->owed_event || virtqueue_pop(q, &chain) <= 0)
        return;
    vsock_of(d)->owed_event = false;
    virtqueue_push(q, chain.head, (uint32_t)virtqueue_chain_write(&chain, 0, &event, sizeof(event)));
    device_publish(d, QUEUE_EVENT);
}

static bool receive(struct device *d)
{
    unsigned packets = 0;

    while (packets < BATCH && receive_one(d))
        packets++;
    if (packets)
        device_publish(d, QUEUE_RX);
    tell_event(d);
    return packets > 0;
}

/* ---- sockets ---- */

static bool accept_streams(struct vsock *v)
{
    bool any = false;

    while (v->accept_waits && free_stream(v)) {
        int fd = accept4(v->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            v->accept_waits = errno == ECONNABORTED || errno == EINTR;
            continue;
        }
        struct stream *s = new_stream(v, fd, STREAM_HELLO);
        if (!s)
            close(fd);
        else
            s->by_line = true;
        any = true;
    }
    return any;
}

static void read_line(struct vsock *v, struct stream *s)
{
    bool connect;
    uint32_t port;
    int r = stream_hello(s, &connect, &port);

    if (r < 0) {
        stream_fail(s);
    } else if (r > 0 && connect) {
        request(v, s, port);
    } else if (r > 0) {
        s->state = STREAM_WAITING;
        s->host_port = port;
    }
}

static void socket_event(struct vsock *v, struct stream *s, uint32_t events)
{
    s->hung_up |= (events & (EPOLLHUP | EPOLLERR)) != 0;
    if (s->state == STREAM_HELLO)
        read_line(v, s);
    if (s->hung_up && s->state != STREAM_OPEN && s->state != STREAM_FREE && s->state != STREAM_ENDED) {
        stream_fail(s); /* gave up before the stream stood */
        return;
    }
    if (s->state != STREAM_OPEN)
        return;
    s->readable |= (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    if (s->hung_up && (s->guest_ends & VSOCK_NO_MORE_RECEIVE)) {
        stream_fail(s); /* nobody reads what is left */
        return;
    }
    if (s->hung_up && s->host_ended)
        s->owed |= OWED_SHUTDOWN; /* it had ended one direction, now it is gone */
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
        stream_drain(s);
}

static bool ready(struct device *d, unsigned index)
{
    (void)index;
    struct vsock *v = vsock_of(d);
    struct epoll_event events[BATCH];
    int n = epoll_pwait(v->epoll_fd, events, BATCH, 0, NULL);

    for (int i = 0; i < n; i++) {
        if (events[i].data.u32 == LISTENER)
            v->accept_waits = true;
        else
            socket_event(v, &v->streams[events[i].data.u32], events[i].events);
    }
    bool worked = accept_streams(v);
    return receive(d) || worked || n > 0;
}

static bool notified(struct device *d, unsigned queue)
{
    if (queue == QUEUE_TX) {
        bool worked = transmit(d);
        worked |= receive(d);
        return accept_streams(vsock_of(d)) || worked;
    }
    return receive(d);
}

/* ---- the device ---- */

/* A program that waits, and one whose request the guest has not seen, wait on: the driver is just starting. */
static void reset(struct device *d)
{
    struct vsock *v = vsock_of(d);

    v->reset_count = 0;
    v->owed_event = false;
    for (unsigned i = 0; i < VSOCK_STREAM_MAX; i++) {
        struct stream *s = &v->streams[i];
        if (s->state == STREAM_OPEN || s->state == STREAM_ENDED ||
            (s->state == STREAM_REQUESTED && !(s->owed & OWED_REQUEST))) {
            stream_close_socket(s);
            s->state = STREAM_FREE;
            s->owed = 0;
        }
    }
}

static int restore(struct device *d, const void *from, size_t size)
{
    if (size != 0)
        return -EINVAL;
    vsock_of(d)->owed_event = true;
    return 0;
}

static void config(struct device *d, void *to, unsigned offset, unsigned length)
{
    const uint64_t cid = vsock_of(d)->cid;

    if (offset < sizeof(cid))
        memcpy(to, (const uint8_t *)&cid + offset, length < sizeof(cid) - offset ? length : sizeof(cid) - offset);
}

static void destroy(struct device *d)
{
    struct vsock *v = vsock_of(d);

    for (unsigned i = 0; i < VSOCK_STREAM_MAX; i++)
        if (v->streams[i].state != STREAM_FREE)
            close_fd(v->streams[i].fd);
    close_fd(v->listen_fd);
    close_fd(v->epoll_fd);
    free(v->buffers);
    free(v);
}

static const struct device_ops vsock_ops = {
    .name = "vsock",
    .type = VIRTIO_VSOCK,
    .queue_count = QUEUE_COUNT,
    .patient = true,
    .reset = reset,
    .notified = notified,
    .config = config,
    .restore = restore,
    .destroy = destroy,
};

static int make_table(struct vsock *v, struct error **err)
{
    v->buffers = calloc(VSOCK_STREAM_MAX, STREAM_BUFFER);
    v->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!v->buffers || v->epoll_fd < 0)
        return error_set_errno(err, errno, "NO_MEMORY", "vsock: cannot make its table");
    for (unsigned i = 0; i < VSOCK_STREAM_MAX; i++) {
        v->streams[i].fd = -1;
        v->streams[i].buffer = v->buffers + (size_t)i * STREAM_BUFFER;
    }
    if (v->listen_fd >= 0 && watch(v, v->listen_fd, LISTENER) < 0)
        return error_set_errno(err, errno, "INTERNAL", "vsock: cannot watch its socket");
    return 0;
}

int vsock_create(const struct guest_memory *memory, uint32_t cid, int listen_fd, struct device **ret,
                 struct error **err)
{
    struct vsock *v;

    if (cid < VSOCK_CID_MIN || cid == UINT32_MAX)
        return error_set(err, EINVAL, "INVALID_VALUE", "vsock: %u is no guest's CID", cid);
    v = calloc(1, sizeof(*v));
    if (!v)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a vsock device");
    v->cid = cid;
    v->listen_fd = listen_fd;
    v->epoll_fd = -1;
    int r = device_init(&v->device, &vsock_ops, memory, VIRTIO_F_INDIRECT | VIRTIO_F_EVENT, err);
    if (r == 0)
        r = make_table(v, err);
    if (r < 0) {
        v->listen_fd = -1; /* the caller's */
        close_fd(v->epoll_fd);
        free(v->buffers);
        free(v);
        return r;
    }
    v->device.calls = calls;
    *ret = &v->device;
    return 0;
}

int vsock_attach(struct device *d, struct loop *loop, struct error **err)
{
    return loop_add(loop, d, vsock_of(d)->epoll_fd, ready, err);
}

int vsock_connect(struct device *d, int fd, uint32_t port)
{
    struct vsock *v = vsock_of(d);

    pthread_mutex_lock(&d->lock);
    struct stream *s = new_stream(v, fd, STREAM_REQUESTED); /* writable at once: that wakes the device thread */
    if (s)
        request(v, s, port);
    pthread_mutex_unlock(&d->lock);
    return s ? 0 : -ENOSPC;
}

struct vsock_counters vsock_counters(struct device *d)
{
    pthread_mutex_lock(&d->lock);
    struct vsock_counters counters = vsock_of(d)->counters;
    pthread_mutex_unlock(&d->lock);
    return counters;
}
