/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's end of sessions (guest/session.h): commands that the host wants executed in the container, and the way
 * out for what the application writes. One thread. */
#ifndef GUEST_SESSIONS_H
#define GUEST_SESSIONS_H

#include <poll.h>

#include "runtime/runtime.h"

enum { SESSIONS_POLL_MAX = 1 + 4 * 16 };

/* Finds the port; without one there are no commands, and output goes to the console. */
void sessions_open(struct container *container);
/* What the application wrote; error: to its standard error. */
void sessions_application_wrote(bool error, const char *bytes, size_t size);
/* Descriptors to poll; returns how many. Afterwards sessions_serve() with what came. */
int sessions_poll_set(struct pollfd set[SESSIONS_POLL_MAX]);
void sessions_serve(const struct pollfd *set, int count);

#endif
