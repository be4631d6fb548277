/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for what may never come: an init's answer, the end of a process. What an image brings may hang there (an exec
 * that blocks on a file), so the process that uses the library is told when a wait is a long one and can put another
 * thread to work meanwhile. Used by every file of the library that waits; any thread.
 */
#include <errno.h>
#include <poll.h>

#include "runtime/internal.h"

enum { PATIENCE_MS = 5 }; /* longer than a start takes when nothing is wrong, shorter than anybody notices */

static runtime_waiting told;

void runtime_on_waiting(runtime_waiting waiting)
{
    told = waiting;
}

void wait_long(bool begins)
{
    if (told)
        told(begins);
}

static int wait_once(int fd, int timeout_ms)
{
    struct pollfd wait = {fd, POLLIN, 0};
    int ready;

    do
        ready = poll(&wait, 1, timeout_ms);
    while (ready < 0 && errno == EINTR);
    return ready < 0 ? -errno : ready;
}

int wait_readable(int fd, int timeout_ms)
{
    bool short_wait = timeout_ms >= 0 && timeout_ms <= PATIENCE_MS;
    int ready = wait_once(fd, short_wait ? timeout_ms : PATIENCE_MS);

    if (ready || short_wait)
        return ready;
    wait_long(true);
    ready = wait_once(fd, timeout_ms < 0 ? timeout_ms : timeout_ms - PATIENCE_MS);
    wait_long(false);
    return ready;
}

int runtime_wait_readable(int fd, int timeout_ms)
{
    return wait_readable(fd, timeout_ms);
}
