/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses and errors between platform.h and lwIP; used by tcp.c and udp.c. */
#ifndef UNIKERNEL_ADDRESS_H
#define UNIKERNEL_ADDRESS_H

#include "lwip/err.h"
#include "lwip/ip_addr.h"

#include "../platform.h"

void address_to_lwip(const struct nf_addr *from, ip_addr_t *ret);
void address_from_lwip(const ip_addr_t *from, uint16_t port, struct nf_addr *ret);
int error_from_lwip(err_t error);

#endif
