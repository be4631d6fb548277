/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vhost-user back end for tests: it maps what it is given, moves every frame sent back to the sender, and can be told
 * to answer wrongly from its n-th answer on. Runs on a thread of the test; ends when its socket does.
 */
#ifndef TESTS_VHOST_USER_PEER_H
#define TESTS_VHOST_USER_PEER_H

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "virtqueue/queue.h"
#include "vmm/devices/vhost_user.h"

enum peer_fault {
    PEER_GOOD,
    PEER_OTHER_REQUEST,
    PEER_NO_REPLY_FLAG,
    PEER_OTHER_VERSION,
    PEER_SHORT_SIZE,
    PEER_LONG_SIZE,
    PEER_HUGE_SIZE,
    PEER_CUT,  /* half an answer, then the end */
    PEER_HALF, /* half an answer, then nothing */
    PEER_SILENT,
    PEER_DESCRIPTORS,
    PEER_REFUSES, /* a value other than the right one, once */
    PEER_GARBAGE,
    PEER_CLOSES,
    PEER_FAULTS
};

enum { PEER_RINGS = 8, PEER_HEADER = 12 };

struct peer_ring {
    struct virtqueue queue;
    struct virtqueue_address address;
    uint16_t base;
    int kick, call;
    bool enabled, running;
};

struct peer {
    int fd;
    enum peer_fault fault;
    int good_answers; /* before the fault; -1: no fault */
    uint64_t features, protocol, accepted, accepted_protocol;
    unsigned queue_pairs;
    bool frozen; /* takes no chain */
    struct guest_memory memory;
    uint64_t user_base;
    int memory_fd;
    struct peer_ring rings[PEER_RINGS];
    unsigned frames, memory_tables;
    int other_fd; /* looked at too, for move; -1: none */
    void (*move)(struct peer *);
    pthread_t thread;
};

struct peer_message {
    struct vhost_user_header header;
    union {
        uint64_t number;
        struct {
            uint32_t index, value;
        } state;
        struct {
            uint32_t index, flags;
            uint64_t descriptors, used, available, log;
        } address;
        struct {
            uint32_t regions, padding;
            uint64_t guest, bytes, user, offset;
        } table;
        uint8_t bytes[256];
    };
} __attribute__((packed));

static inline int peer_receive(struct peer *p, struct peer_message *m, int *ret_fd)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(8 * sizeof(int))];
    } control;
    struct iovec part = {m, PEER_HEADER};
    struct msghdr h = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};

    *ret_fd = -1;
    if (recvmsg(p->fd, &h, MSG_WAITALL | MSG_CMSG_CLOEXEC) != PEER_HEADER || m->header.size > sizeof(m->bytes))
        return -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&h); c; c = CMSG_NXTHDR(&h, c))
        if (c->cmsg_type == SCM_RIGHTS)
            memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
    if (m->header.size > 0 && recv(p->fd, m->bytes, m->header.size, MSG_WAITALL) != (ssize_t)m->header.size)
        return -1;
    return 0;
}

static inline void peer_send(struct peer *p, const void *bytes, size_t size, unsigned fds)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(4 * sizeof(int))];
    } control = {0};
    struct iovec part = {(void *)(uintptr_t)bytes, size};
    struct msghdr h = {.msg_iov = &part, .msg_iovlen = 1};

    if (fds > 0) {
        h.msg_control = &control;
        h.msg_controllen = CMSG_SPACE(fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&h);
        c->cmsg_len = CMSG_LEN(fds * sizeof(int));
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        for (unsigned i = 0; i < fds; i++)
            memcpy(CMSG_DATA(c) + i * sizeof(int), &p->fd, sizeof(int));
    }
    if (sendmsg(p->fd, &h, MSG_NOSIGNAL) < 0) {
        /* the test ended it */
    }
}

/* Returns whether to go on. */
static inline bool peer_answer(struct peer *p, struct peer_message *m, size_t size)
{
    enum peer_fault fault = p->good_answers == 0 ? p->fault : PEER_GOOD;
    size_t whole;

    if (p->good_answers > 0)
        p->good_answers--;
    m->header.flags = VHOST_USER_VERSION | VHOST_USER_REPLY;
    m->header.size = (uint32_t)size;
    m->header.request += fault == PEER_OTHER_REQUEST;
    if (fault == PEER_NO_REPLY_FLAG)
        m->header.flags = VHOST_USER_VERSION;
    if (fault == PEER_OTHER_VERSION)
        m->header.flags = 2 | VHOST_USER_REPLY;
    if (fault == PEER_SHORT_SIZE || fault == PEER_LONG_SIZE)
        m->header.size = (uint32_t)(fault == PEER_SHORT_SIZE ? size - 4 : size + 4);
    if (fault == PEER_REFUSES) {
        m->number = ~m->number;
        p->good_answers = -1; /* once */
    }
    whole = PEER_HEADER + m->header.size;
    if (fault == PEER_HUGE_SIZE)
        m->header.size = UINT32_MAX;
    if (fault == PEER_GARBAGE)
        memset(m, 0xa5, whole);
    if (fault == PEER_SILENT)
        return true;
    if (fault != PEER_CLOSES)
        peer_send(p, m, fault == PEER_CUT || fault == PEER_HALF ? whole / 2 : whole, fault == PEER_DESCRIPTORS ? 3 : 0);
    return fault != PEER_CUT && fault != PEER_CLOSES;
}

static inline void peer_map(struct peer *p, const struct peer_message *m, int fd)
{
    p->memory_tables++;
    if (p->memory.base)
        return;
    p->memory.bytes = m->table.bytes;
    p->user_base = m->table.user;
    p->memory.base = mmap(NULL, m->table.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    p->memory_fd = dup(fd);
}

static inline void peer_start(struct peer *p, struct peer_ring *r)
{
    if (virtqueue_enable(&r->queue, &p->memory, &r->address, (p->accepted >> 29) & 1) < 0)
        return;
    r->queue.next_available = r->queue.next_used = r->base;
    r->running = true;
}

/* Every frame that was sent comes back. */
static inline void peer_echo(struct peer *p)
{
    const uint64_t one = 1;

    for (unsigned i = 0; !p->frozen && i + 1 < PEER_RINGS; i += 2) {
        struct peer_ring *rx = &p->rings[i], *tx = &p->rings[i + 1];
        struct virtqueue_chain from, to;
        unsigned moved = 0;

        if (!rx->running || !tx->running || !rx->enabled || !tx->enabled)
            continue;
        while (virtqueue_pop(&tx->queue, &from) > 0) {
            size_t n = 0;
            if (virtqueue_pop(&rx->queue, &to) > 0) {
                uint8_t frame[2048];
                n = virtqueue_chain_read(&from, 0, frame, sizeof(frame));
                n = virtqueue_chain_write(&to, 0, frame, n);
                virtqueue_push(&rx->queue, to.head, (uint32_t)n);
            }
            virtqueue_push(&tx->queue, from.head, 0);
            moved++;
        }
        p->frames += moved;
        virtqueue_publish(&tx->queue);
        virtqueue_publish(&rx->queue);
        if (moved && (write(rx->call, &one, sizeof(one)) < 0 || write(tx->call, &one, sizeof(one)) < 0))
            abort();
    }
}

/* Returns whether to go on. */
static inline bool peer_serve(struct peer *p, struct peer_message *m, int fd)
{
    const uint64_t base = p->user_base;
    struct peer_ring *ring = &p->rings[m->state.index % PEER_RINGS];
    bool wants = (m->header.flags & VHOST_USER_NEED_REPLY) != 0;

    switch (m->header.request) {
    case VHOST_USER_GET_FEATURES:
        m->number = p->features;
        return peer_answer(p, m, 8);
    case VHOST_USER_GET_PROTOCOL_FEATURES:
        m->number = p->protocol;
        return peer_answer(p, m, 8);
    case VHOST_USER_GET_QUEUE_NUM:
        m->number = p->queue_pairs;
        return peer_answer(p, m, 8);
    case VHOST_USER_GET_VRING_BASE:
        ring->running = false;
        m->state.value = ring->queue.next_available;
        return peer_answer(p, m, 8);
    case VHOST_USER_SET_FEATURES:
        p->accepted = m->number;
        break;
    case VHOST_USER_SET_PROTOCOL_FEATURES:
        p->accepted_protocol = m->number;
        break;
    case VHOST_USER_SET_MEM_TABLE:
        peer_map(p, m, fd);
        break;
    case VHOST_USER_SET_VRING_NUM:
        ring->address.size = (uint16_t)m->state.value;
        break;
    case VHOST_USER_SET_VRING_BASE:
        ring->base = (uint16_t)m->state.value;
        break;
    case VHOST_USER_SET_VRING_ADDR:
        ring->address.descriptors = m->address.descriptors - base;
        ring->address.available = m->address.available - base;
        ring->address.used = m->address.used - base;
        break;
    case VHOST_USER_SET_VRING_CALL:
        p->rings[m->number % PEER_RINGS].call = dup(fd);
        break;
    case VHOST_USER_SET_VRING_KICK:
        p->rings[m->number % PEER_RINGS].kick = dup(fd);
        peer_start(p, &p->rings[m->number % PEER_RINGS]);
        break;
    case VHOST_USER_SET_VRING_ENABLE:
        ring->enabled = m->state.value != 0;
        break;
    default:
        break;
    }
    if (fd >= 0)
        close(fd);
    m->number = 0;
    return wants ? peer_answer(p, m, 8) : true;
}

static inline void *peer_thread(void *argument)
{
    struct peer *p = argument;
    struct peer_message m;
    bool on = true;
    int fd;

    while (on) {
        struct pollfd polled[2 + PEER_RINGS] = {{.fd = p->fd, .events = POLLIN},
                                                [1 + PEER_RINGS] = {.fd = p->other_fd, .events = POLLIN}};
        for (unsigned i = 0; i < PEER_RINGS; i++)
            polled[1 + i] = (struct pollfd){.fd = p->rings[i].running ? p->rings[i].kick : -1, .events = POLLIN};
        poll(polled, 2 + PEER_RINGS, -1);
        for (unsigned i = 0; i < PEER_RINGS; i++) {
            uint64_t value;
            if ((polled[1 + i].revents & POLLIN) && read(p->rings[i].kick, &value, sizeof(value)) < 0)
                continue;
        }
        if (polled[0].revents)
            on = peer_receive(p, &m, &fd) == 0 && peer_serve(p, &m, fd);
        p->move(p);
    }
    shutdown(p->fd, SHUT_RDWR);
    return NULL;
}

static inline struct peer *peer_new(int fd)
{
    struct peer *p = calloc(1, sizeof(*p));

    p->fd = fd;
    p->good_answers = -1;
    p->features = 1ull << 32 | 1ull << 30 | 1 << 29 | 1 << 28 | 1 << 15 | 1 << 0 | 1 << 1 | 1 << 7 | 1 << 11;
    p->protocol = 1 << 0 | 1 << 3;
    p->queue_pairs = 4;
    p->memory_fd = p->other_fd = -1;
    p->move = peer_echo;
    for (unsigned i = 0; i < PEER_RINGS; i++)
        p->rings[i].kick = p->rings[i].call = -1;
    return p;
}

static inline void peer_run(struct peer *p)
{
    if (pthread_create(&p->thread, NULL, peer_thread, p) != 0)
        abort();
}

/* Its socket has ended, or ends here. */
static inline void peer_end(struct peer *p)
{
    shutdown(p->fd, SHUT_RDWR);
    pthread_join(p->thread, NULL);
    close(p->fd);
    for (unsigned i = 0; i < PEER_RINGS; i++) {
        if (p->rings[i].kick >= 0)
            close(p->rings[i].kick);
        if (p->rings[i].call >= 0)
            close(p->rings[i].call);
    }
    if (p->memory.base)
        munmap(p->memory.base, p->memory.bytes);
    if (p->memory_fd >= 0)
        close(p->memory_fd);
    free(p);
}

#endif
