/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sending and receiving the messages of messages.h: one packet a message, descriptors beside it.
 *
 * Called by coracled and coracle-launcher, each end from one thread at a time (a send is one system call, so several
 * threads may send on one socket). A packet that is not exactly one well-formed message is an error of its sender.
 */
#ifndef CORACLE_PROTO_PROTO_H
#define CORACLE_PROTO_PROTO_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "proto/messages.h"

/* One received message. body is a heap block holding the struct that messages.h names for type, NULL for a type that
 * carries nothing. For MESSAGE_FAILED it is a struct error that take_ptr() may move out (error_free() it later). */
struct proto_message {
    enum message_type type;
    uint32_t request;
    void *body;
    int fds[PROTO_FD_MAX]; /* owned; set to -1 what is kept */
    size_t fd_count;
};

/* The word for a type ("START"), "UNKNOWN" for a number that is none. */
const char *proto_type_name(enum message_type type);

/* Bytes of the struct a type carries, 0 when it carries none. */
size_t proto_body_size(enum message_type type);

/* Frees what a decode allocated inside *message (the struct itself is the caller's); accepts a zeroed one and NULL. */
void proto_message_clear(enum message_type type, void *message);

/* Frees body with its contents and closes what is left of the descriptors; accepts a zeroed struct. */
void proto_message_end(struct proto_message *message);

/* message: the struct of the type, NULL for none. On success *ret_data is a heap block. -EMSGSIZE, -EBADMSG (a field
 * beyond its bounds), -ENOMEM. */
int proto_encode(enum message_type type, uint32_t request, const void *message, uint8_t **ret_data, size_t *ret_size,
                 struct error **err);

/* The reverse; fds are not looked at. -EPROTO with PROTOCOL_ERROR, or -ENOMEM. */
int proto_decode(const uint8_t *data, size_t size, struct proto_message *ret, struct error **err);

/* Sends one message; fds are borrowed. Returns 0, -EAGAIN (a non-blocking socket is full; nothing was sent), -EPIPE or
 * another -errno; *err is set for all but -EAGAIN. */
int proto_send(int fd, enum message_type type, uint32_t request, const void *message, const int *fds, size_t fd_count,
               struct error **err);

/* Receives one message. Returns 1 with *ret filled, 0 when the peer has closed, -EAGAIN when a non-blocking socket has
 * nothing, -EPROTO with *err when the packet is not a message or its descriptors are not those its type carries (they
 * are closed; close the connection), or another -errno with *err. */
int proto_receive(int fd, struct proto_message *ret, struct error **err);

#endif
