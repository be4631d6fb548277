/* SPDX-License-Identifier: Apache-2.0 */
/* The program nft, for rules that change seldom (guard.c, uplink.c); what changes with each instance does not use it.
 */
#ifndef CORACLE_LAUNCHER_NFT_H
#define CORACLE_LAUNCHER_NFT_H

#include "base/buffer.h"
#include "base/error.h"

/* Runs nft on the text, in the network namespace netns_fd (-1: the caller's own). whose: for messages. */
int nft_run(int netns_fd, const struct buffer *text, const char *whose, struct error **err);

#endif
