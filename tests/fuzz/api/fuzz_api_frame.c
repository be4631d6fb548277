/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the coracle-stream parser: fed at once and byte by byte it must see the same, and end alike. Built for
 * libFuzzer, or as a replay program.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/api/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A running digest of what the parser reported, so that two runs compare. */
struct digest {
    uint64_t hash;
    bool ended;
};

static void mix(struct digest *digest, const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        digest->hash = (digest->hash ^ ((const uint8_t *)bytes)[i]) * UINT64_C(0x100000001b3);
}

static int on_input(void *context, const void *bytes, size_t n)
{
    struct digest *digest = context;

    if (digest->ended || n == 0)
        abort();
    mix(digest, bytes, n);
    return 0;
}

static int on_end(void *context)
{
    struct digest *digest = context;

    if (digest->ended)
        abort();
    digest->ended = true;
    return 0;
}

static int on_resize(void *context, uint16_t columns, uint16_t rows)
{
    if (!columns || !rows)
        abort();
    mix(context, &columns, sizeof(columns));
    mix(context, &rows, sizeof(rows));
    return 0;
}

static int on_signal(void *context, int number)
{
    if (number < 1 || number > 31)
        abort();
    mix(context, &number, sizeof(number));
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct frame_sink sink = {on_input, on_end, on_resize, on_signal};
    struct frame_parser whole = {0}, bytewise = {0};
    struct digest a = {1, false}, b = {1, false};
    struct error *err = NULL;
    int r = frame_parse(&whole, data, size, &sink, &a, &err), s = 0;

    for (size_t i = 0; i < size && s == 0; i++)
        s = frame_parse(&bytewise, data + i, 1, &sink, &b, NULL);
    if (r != s || a.hash != b.hash || a.ended != b.ended || (r < 0) != (err != NULL))
        abort();
    error_free(err);
    return 0;
}
