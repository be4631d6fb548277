/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses and errors between platform.h and lwIP, and what lwIP asks of addresses. */
#include "unikernel.h"

#include "address.h"

void address_to_lwip(const struct nf_addr *from, ip_addr_t *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (from->family == 6) {
        IP_SET_TYPE(ret, IPADDR_TYPE_V6);
        memcpy(ip_2_ip6(ret)->addr, from->ip, 16);
        if (ip6_addr_islinklocal(ip_2_ip6(ret))) {
            ip6_addr_set_zone(ip_2_ip6(ret), from->scope ? (u8_t)from->scope : 1);
        }
    } else if (from->family == 4) {
        IP_SET_TYPE(ret, IPADDR_TYPE_V4);
        memcpy(&ip_2_ip4(ret)->addr, from->ip, 4);
    } else {
        IP_SET_TYPE(ret, IPADDR_TYPE_ANY);
    }
}

void address_from_lwip(const ip_addr_t *from, uint16_t port, struct nf_addr *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->port = port;
    if (IP_IS_V6(from)) {
        ret->family = 6;
        memcpy(ret->ip, ip_2_ip6(from)->addr, 16);
        ret->scope = ip6_addr_zone(ip_2_ip6(from));
    } else {
        ret->family = 4;
        memcpy(ret->ip, &ip_2_ip4(from)->addr, 4);
    }
}

int error_from_lwip(err_t error)
{
    switch (error) {
    case ERR_OK:
        return 0;
    case ERR_MEM:
    case ERR_BUF:
        return NF_NO_MEMORY;
    case ERR_TIMEOUT:
        return NF_TIMED_OUT;
    case ERR_RTE:
        return NF_UNREACHABLE;
    case ERR_VAL:
    case ERR_ARG:
        return NF_INVALID;
    case ERR_WOULDBLOCK:
        return NF_AGAIN;
    case ERR_USE:
        return NF_IN_USE;
    case ERR_ABRT:
    case ERR_RST:
    case ERR_CLSD:
        return NF_RESET;
    default:
        return NF_FAILED;
    }
}

/* RFC 6528: a clock of 4 microseconds plus a keyed hash of the connection's ends. lwIP's hook, typed by its port. */
uint32_t unikernel_isn(const void *local, uint16_t local_port, const void *remote, uint16_t remote_port)
{
    struct nf_addr ends[2];
    uint64_t words[5];

    address_from_lwip(local, local_port, &ends[0]);
    address_from_lwip(remote, remote_port, &ends[1]);
    memcpy(&words[0], ends[0].ip, 16);
    memcpy(&words[2], ends[1].ip, 16);
    words[4] = (uint64_t)local_port << 16 | remote_port;
    return (uint32_t)siphash(isn_key, words, 5) + (uint32_t)(cpu_ns() / 4000);
}
