/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of protocol.h as they come and go: received, checked and with their descriptors, or refused with the reason.
 * What monitor_receive() hands out needs no further check of lengths, counts, flags or strings.
 */
#ifndef CORACLE_MONITOR_MESSAGE_H
#define CORACLE_MONITOR_MESSAGE_H

#include <stddef.h>

#include "base/error.h"
#include "monitor/protocol.h"

/* One message with the descriptors that came beside it. Large: static, or on a stack that can hold it. */
struct monitor_message {
    union {
        struct monitor_header header;
        struct monitor_prepare prepare;
        struct monitor_load load;
        struct monitor_identity identity;
        struct monitor_memory memory;
        struct monitor_vsock vsock;
        struct monitor_net net;
        struct monitor_resize resize;
        struct monitor_exec exec;
        struct monitor_signal signal;
        struct monitor_ended ended;
        struct monitor_reply reply;
        struct monitor_status status;
        uint8_t bytes[MONITOR_MESSAGE_MAX];
    };
    unsigned fd_count;
    int fds[MONITOR_FD_MAX]; /* owned; those not taken are closed by monitor_message_end() */
};

/* Where each descriptor of a LOAD stands in fds; -1: there is none. */
struct monitor_load_fds {
    int exit, listen, log /* and log + 1 */, kernel /* or the snapshot */, initrd;
    int nics[MONITOR_NIC_MAX]; /* the first of each */
    int disks[MONITOR_DISK_MAX];
    unsigned count;
};

/* How many descriptors a network device brings: 0 for MONITOR_NET_NONE. */
unsigned monitor_nic_fds(const struct monitor_nic *nic);

/* load is checked, or made by this side. */
void monitor_load_layout(const struct monitor_load *load, struct monitor_load_fds *ret);

/* The string behind a checked LOAD. */
const char *monitor_parameters(const struct monitor_load *load);

/* The string behind a checked IDENTITY. */
const char *monitor_identity_parameters(const struct monitor_identity *identity);

/* The NUL-terminated name of a type, for words. */
const char *monitor_type_name(unsigned type);

/* Checks size bytes that came with fd_count descriptors (-EPROTO says what is wrong), without touching descriptors.
 * *ret_fds: how many the message has; a surplus is the caller's to close. bytes are aligned as a message is. */
int monitor_check(const void *bytes, size_t size, unsigned fd_count, unsigned *ret_fds, struct error **err);

/* 1: a message, to be ended with monitor_message_end(). 0: the other side is gone. -EAGAIN: nothing there, no error
 * set. -EPROTO: what came is no message; its descriptors are closed. */
int monitor_receive(int socket, struct monitor_message *ret, struct error **err);
void monitor_message_end(struct monitor_message *message);

/* message->header.type and what follows are filled; protocol and size are set here, size bytes are sent. */
int monitor_send(int socket, struct monitor_header *message, size_t size, const int *fds, unsigned fd_count,
                 struct error **err);

/* Answers. stage and the error's words (NULL: none) make a FAILED. Whether the other side still listens is no matter.
 */
void monitor_send_failed(int socket, enum monitor_stage stage, const struct error *why);
void monitor_send_done(int socket, const uint64_t times[MONITOR_TIMES], int fd); /* times NULL, fd -1: none */

#endif
