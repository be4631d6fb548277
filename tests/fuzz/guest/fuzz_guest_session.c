/* SPDX-License-Identifier: Apache-2.0 */
/* Frames of sessions, as either side may send them. First byte: in pieces of how many bytes the rest comes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "guest/session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile size_t sum;

static void take(void *context, const struct session_frame *f, const char *payload)
{
    char *vector[SESSION_STRINGS_MAX + 4];
    struct session_process p;

    (void)context;
    if (f->session > SESSION_MAX || f->size > SESSION_PAYLOAD_MAX)
        abort();
    for (uint32_t i = 0; i < f->size; i++)
        sum += (unsigned char)payload[i];
    if (f->type == SESSION_FAILED && strlen(payload) + strlen(payload + strlen(payload) + 1) + 2 > f->size)
        abort();
    if (f->type != SESSION_OPEN || session_parse_open(payload, f->size, vector, &p) < 0)
        return;
    sum += strlen(p.user) + strlen(p.directory);
    for (char **a = p.arguments; *a; a++)
        sum += strlen(*a);
    for (char **e = p.env; *e; e++)
        sum += strlen(*e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct session_reader reader;

    reader.used = 0;
    for (size_t at = 1, piece = size ? data[0] + 1u : 1; at < size; at += piece) {
        char *to;
        size_t n = size - at < piece ? size - at : piece;

        if (session_room(&reader, &to) < n)
            n = session_room(&reader, &to);
        if (n == 0)
            abort(); /* a frame that never is whole would stand still */
        memcpy(to, data + at, n);
        if (session_feed(&reader, n, take, NULL) < 0)
            return 0;
    }
    return 0;
}
