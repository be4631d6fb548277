/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the Linux platform share: event sources and socket addresses. Not for programs.
 *
 * Built against musl, statically, without kernel headers; one thread.
 */
#ifndef NF_PLATFORM_LINUX_INTERNAL_H
#define NF_PLATFORM_LINUX_INTERNAL_H

#include "../platform.h"
#include <netinet/in.h>
#include <sys/socket.h>

/* A descriptor in the epoll set; first member of every socket object. fd is -1 once it is closed. */
struct source {
    void (*ready)(struct source *source, uint32_t events);
    int fd;
    uint32_t events;      /* as registered */
    struct source *next;  /* in the list of the dead or the free */
    struct source **pool; /* where it goes after the round it was closed in */
};

/* Registers, changes or (events 0) silences a source. Returns an nf_error. */
int source_watch(struct source *source, uint32_t events);

/* Closes the descriptor and puts the object on `pool` after the current round: events under way may still name it. */
void source_close(struct source *source, struct source **pool);

/* Takes a closed object from the pool, or the next never-used one of an array; NULL when all are in use. */
struct source *source_take(struct source **pool, void *array, size_t member_size, size_t count, size_t *used);

/* The one buffer data is received into; its pages are touched by traffic only. */
enum { RECEIVE_BUFFER = 128 * 1024 };
extern uint8_t receive_buffer[RECEIVE_BUFFER];

union address {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
};

/* mapped: the socket is AF_INET6, so an IPv4 address must be given as a mapped one. Returns the length. */
socklen_t address_to_socket(const struct nf_addr *addr, bool mapped, union address *ret_address);
void address_from_socket(const union address *address, struct nf_addr *ret_addr);

/* A non-blocking socket bound to local (NULL: not bound). An address of family 0 makes one for both families. */
int socket_open(int type, const struct nf_addr *local, uint8_t family, bool *ret_mapped);

int error_from_errno(int errnum);

#endif
