/* SPDX-License-Identifier: Apache-2.0 */
/* What socket.c needs from codec.c beside proto.h; internal to src/proto. */
#ifndef CORACLE_PROTO_CODEC_H
#define CORACLE_PROTO_CODEC_H

#include <stdbool.h>

#include "proto/messages.h"

/* Whether a message of this type may carry that many descriptors. */
bool proto_fds_allowed(enum message_type type, size_t fd_count);

#endif
