/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may use which address on a virtual link. Two things at once: a table of what living instances hold, so that a
 * plan cannot announce another's address (the daemon may be compromised); and the same in the kernel, so that no
 * instance can send under another's name, whatever capabilities it was given. Any thread of the launcher.
 */
#ifndef CORACLE_LAUNCHER_GUARD_H
#define CORACLE_LAUNCHER_GUARD_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct guard;

/* One interface of an instance. */
struct guard_port {
    uint32_t index; /* of the port in the fabric */
    uint32_t link;  /* index of its bridge */
    uint8_t mac[6];
    struct in_addr ipv4;  /* 0: none */
    struct in6_addr ipv6; /* :: none */
};

extern const char guard_rules[];

/* Puts the rules into the network namespace unless they are there. Where the kernel or nft is missing, *ret_guard still
 * keeps the table, and guard_holds() is false. */
int guard_open(int netns_fd, struct guard **ret_guard, struct error **err);
void guard_close(struct guard *guard); /* accepts NULL; the rules stay in force */

/* Whether the kernel enforces it. */
bool guard_holds(const struct guard *guard);

/* Takes the port's addresses, all or none. ADDRESS_TAKEN names which. */
int guard_claim(struct guard *guard, const struct guard_port *port, struct error **err);
/* Lets the port send from them; guard_claim() came before. Nothing before this gets through. */
int guard_allow(struct guard *guard, const struct guard_port *ports, uint32_t count, struct error **err);
/* Gives back what guard_claim() and guard_allow() took. No error when it was not taken. */
void guard_forget(struct guard *guard, const struct guard_port *ports, uint32_t count);
/* Makes the kernel's sets hold exactly what is claimed: after a predecessor's end. */
int guard_settle(struct guard *guard, struct error **err);

#endif
