/* SPDX-License-Identifier: Apache-2.0 */
/* Reader of an event stream (WHATWG HTML, server-sent events): bytes in any pieces, whole events out. Pure. */
#ifndef CORACLE_CLI_SSE_H
#define CORACLE_CLI_SSE_H

#include "base/buffer.h"

struct sse {
    struct buffer line, data;
    int (*event)(void *context, const char *data); /* data lines joined by newlines; non-zero ends the reading */
    void *context;
};

/* Returns what event() returned when it was not 0. */
int sse_feed(struct sse *sse, const char *bytes, size_t size);
void sse_clear(struct sse *sse);

#endif
