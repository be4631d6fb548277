/* SPDX-License-Identifier: Apache-2.0 */
/* What batch.c and socket.c share; internal to src/netlink. */
#ifndef CORACLE_NETLINK_BATCH_H
#define CORACLE_NETLINK_BATCH_H

#include "netlink/netlink.h"

/* Takes count numbers nobody else has. */
uint32_t netlink_sequences(unsigned count);

/* Numbers the requests of a batch; first_sequence is the first one's. */
void netlink_number(struct netlink_batch *batch);

/* Words for one request, made from its own bytes: "adding address 198.18.0.2 to interface 70". Returns text. */
const char *netlink_describe(const struct netlink_batch *batch, unsigned which, char *text, size_t size);

#endif
