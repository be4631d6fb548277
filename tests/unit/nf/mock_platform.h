/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A platform without a machine: time, connections and datagrams are what the test says. Implements
 * nf/platform/platform.h with freestanding code only, so that linking the programs against it and nothing else proves
 * that they need nothing else.
 */
#ifndef TEST_NF_MOCK_PLATFORM_H
#define TEST_NF_MOCK_PLATFORM_H

#include "../../../nf/platform/platform.h"

enum { MOCK_KEPT = 512, MOCK_CONNECTIONS = 1024, MOCK_SOCKETS = 256, MOCK_OUTPUT = 1 << 16 };

struct nf_tcp {
    bool used, connecting, want_write, shut, aborted;
    const struct nf_tcp_ops *ops;
    void *context;
    struct nf_addr local, peer;
    size_t limit;
    uint64_t sent;           /* bytes taken from the program */
    size_t room;             /* how many more are taken; SIZE_MAX: without end */
    uint8_t kept[MOCK_KEPT]; /* the first of them */
};

struct nf_udp {
    bool used, connected;
    const struct nf_udp_ops *ops;
    void *context;
    struct nf_addr local, peer, last_to;
    uint64_t sent;
    size_t last_size;
    uint8_t last[MOCK_KEPT]; /* the last datagram's beginning */
    int answer;              /* what nf_udp_send() returns */
};

extern uint64_t mock_time;
extern size_t mock_room;              /* given to new connections */
extern char mock_output[MOCK_OUTPUT]; /* both streams; emptied by the test */
extern size_t mock_output_size;
extern void (*mock_stop)(void *context); /* the program's, or NULL */
extern void *mock_stop_context;
extern void (*mock_exit)(int status); /* must not return */

/* Lets time pass, firing timers in order and calling `writable` of those who want it before each. */
void mock_advance(uint64_t ns);
/* One call of `writable` for each that wants it. */
void mock_pump(void);

/* A connection to the listener on port; NULL when there is none or it was refused. */
struct nf_tcp *mock_accept(uint16_t port, const struct nf_addr *peer);
/* Delivers in pieces the program's limit allows; stops when the connection is gone. Returns the bytes delivered. */
size_t mock_deliver(struct nf_tcp *tcp, const uint8_t *data, size_t size);
void mock_end(struct nf_tcp *tcp);
void mock_fail(struct nf_tcp *tcp, int error);
/* To the socket with that peer, else to the one without on that port. */
void mock_datagram(uint16_t port, const struct nf_addr *from, const uint8_t *data, size_t size);
struct nf_udp *mock_socket(const struct nf_addr *peer);
/* The outgoing connection under way to that port, or NULL. */
struct nf_tcp *mock_outgoing(uint16_t port);
void mock_connected(struct nf_tcp *tcp);
size_t mock_count_tcp(void);
size_t mock_count_udp(void);

#endif
