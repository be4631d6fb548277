/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses and sockets of the Linux platform: conversion, opening, error names. Called by tcp.c and udp.c.
 */
#include "internal.h"
#include <errno.h>
#include <unistd.h>

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

socklen_t address_to_socket(const struct nf_addr *addr, bool mapped, union address *ret_address)
{
    memset(ret_address, 0, sizeof *ret_address);
    if (addr->family == 6 || mapped) {
        ret_address->in6.sin6_family = AF_INET6;
        ret_address->in6.sin6_port = htons(addr->port);
        ret_address->in6.sin6_scope_id = addr->scope;
        if (addr->family == 4) {
            memcpy(ret_address->in6.sin6_addr.s6_addr, mapped_prefix, sizeof mapped_prefix);
            memcpy(ret_address->in6.sin6_addr.s6_addr + 12, addr->ip, 4);
        } else if (addr->family == 6) {
            memcpy(ret_address->in6.sin6_addr.s6_addr, addr->ip, 16);
        }
        return sizeof ret_address->in6;
    }
    ret_address->in.sin_family = AF_INET;
    ret_address->in.sin_port = htons(addr->port);
    if (addr->family == 4)
        memcpy(&ret_address->in.sin_addr, addr->ip, 4);
    return sizeof ret_address->in;
}

void address_from_socket(const union address *address, struct nf_addr *ret_addr)
{
    memset(ret_addr, 0, sizeof *ret_addr);
    if (address->any.sa_family == AF_INET6) {
        const uint8_t *ip = address->in6.sin6_addr.s6_addr;
        ret_addr->port = ntohs(address->in6.sin6_port);
        if (!memcmp(ip, mapped_prefix, sizeof mapped_prefix)) {
            ret_addr->family = 4;
            memcpy(ret_addr->ip, ip + 12, 4);
        } else {
            ret_addr->family = 6;
            memcpy(ret_addr->ip, ip, 16);
            ret_addr->scope = address->in6.sin6_scope_id;
        }
    } else if (address->any.sa_family == AF_INET) {
        ret_addr->family = 4;
        ret_addr->port = ntohs(address->in.sin_port);
        memcpy(ret_addr->ip, &address->in.sin_addr, 4);
    }
}

int socket_open(int type, const struct nf_addr *local, uint8_t family, bool *ret_mapped)
{
    static const int off = 0, on = 1;
    bool both = local && !local->family && !family;
    int domain = both || family == 6 || (local && local->family == 6) ? AF_INET6 : AF_INET;
    int fd = socket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 && both && (errno == EAFNOSUPPORT || errno == EPERM)) {
        domain = AF_INET; /* IPv6 is switched off here */
        fd = socket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    }
    if (fd < 0)
        return error_from_errno(errno);
    if (both && domain == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (local) {
        union address address;
        socklen_t length = address_to_socket(local, domain == AF_INET6, &address);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(fd, &address.any, length) < 0) {
            int error = error_from_errno(errno);
            close(fd);
            return error;
        }
    }
    *ret_mapped = domain == AF_INET6;
    return fd;
}

int error_from_errno(int errnum)
{
    static const struct {
        int errnum, error;
    } table[] = {
        {EAGAIN, NF_AGAIN},
        {ECONNREFUSED, NF_REFUSED},
        {ECONNRESET, NF_RESET},
        {EPIPE, NF_RESET},
        {ETIMEDOUT, NF_TIMED_OUT},
        {ENOMEM, NF_NO_MEMORY},
        {ENOBUFS, NF_AGAIN},
        {EMFILE, NF_NO_MEMORY},
        {ENFILE, NF_NO_MEMORY},
        {EADDRINUSE, NF_IN_USE},
        {EADDRNOTAVAIL, NF_UNREACHABLE},
        {ENETUNREACH, NF_UNREACHABLE},
        {EHOSTUNREACH, NF_UNREACHABLE},
        {EINVAL, NF_INVALID},
        {EMSGSIZE, NF_INVALID},
        {EACCES, NF_DENIED},
        {EPERM, NF_DENIED},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (table[i].errnum == errnum)
            return table[i].error;
    }
    return NF_FAILED;
}
