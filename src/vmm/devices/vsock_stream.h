/* SPDX-License-Identifier: Apache-2.0 */
/* One stream of a vsock device: a unix socket on this side, ports and credit on the guest's. No queue is known here. */
#ifndef CORACLE_VMM_VSOCK_STREAM_H
#define CORACLE_VMM_VSOCK_STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vmm/devices/vsock_packet.h"

enum { STREAM_BUFFER = 65536, STREAM_LINE = 24 };

enum stream_state {
    STREAM_FREE,
    STREAM_HELLO,     /* its first line is being read */
    STREAM_WAITING,   /* for the guest to connect to host_port */
    STREAM_REQUESTED, /* the guest is asked */
    STREAM_OPEN,
    STREAM_ENDED, /* the socket is closed; the guest is told, and may tell us */
};

/* Packets the guest is yet to be sent, most urgent first. */
enum stream_owed {
    OWED_RESET = 1,
    OWED_REQUEST = 2,
    OWED_RESPONSE = 4,
    OWED_CREDIT = 8,
    OWED_CREDIT_REQUEST = 16,
    OWED_SHUTDOWN = 32, /* after the last data */
};

struct stream {
    enum stream_state state;
    int fd;
    uint32_t host_port, guest_port;
    unsigned owed;
    bool by_line;        /* its program spoke a line and gets "OK" */
    bool readable;       /* the socket may have bytes: until it says EAGAIN */
    bool hung_up;        /* the program is gone altogether */
    bool host_ended;     /* it sends no more */
    bool write_ended;    /* it was told that the guest sends no more */
    bool asked;          /* for credit, since the guest last gave some */
    uint32_t guest_ends; /* VSOCK_NO_MORE_... of the guest */

    uint32_t received, forwarded, advertised; /* bytes from the guest: taken, passed on, and told so */
    uint32_t sent, peer_buffer, peer_forwarded;

    uint8_t *buffer; /* STREAM_BUFFER bytes: taken and not yet passed on, a ring */
    uint32_t head, used;

    char line[STREAM_LINE];
    unsigned line_used;
};

void stream_begin(struct stream *s, int fd, enum stream_state state); /* keeps its buffer */
void stream_close_socket(struct stream *s);
/* Nothing more comes of it; the guest is told when it knows of the stream. */
void stream_fail(struct stream *s);

/* Bytes the guest has room for. */
uint32_t stream_credit(const struct stream *s);
void stream_take_credit(struct stream *s, const struct vsock_header *h);

/* Data from the guest: length bytes in segments, which may change while they are read. -EPROTO: beyond its credit;
 * another error: the socket's. */
int stream_deliver(struct stream *s, const struct iovec *segments, unsigned count, uint32_t length);
/* Passes on what is held, and the guest's end behind it. True when something moved. */
bool stream_drain(struct stream *s);

/* Reads on in the first line. 1: whole, *ret_connect and *ret_port say what it wants; 0: not yet; -errno: to be closed.
 */
int stream_hello(struct stream *s, bool *ret_connect, uint32_t *ret_port);
/* The program's stream stands: it is told. */
int stream_welcome(struct stream *s, uint32_t port);

#endif
