/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames of the `coracle-stream` protocol (docs/formats/rest-api.md, "Stream"): header bytes in and out.
 *
 * Pure: tested and fuzzed alone. Used by stream.c for exec and attach.
 */
#ifndef CORACLE_DAEMON_API_FRAME_H
#define CORACLE_DAEMON_API_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    FRAME_HEADER_SIZE = 8,
    FRAME_CONTROL_MAX = 4096, /* bytes of one control frame */
    FRAME_DATA_MAX = 1 << 20, /* bytes one data frame may announce */
};

enum frame_stream { FRAME_STDIN = 0, FRAME_STDOUT = 1, FRAME_STDERR = 2, FRAME_CONTROL = 3 };

/* What a client's frames mean. A callback's non-zero return ends the parsing and is handed on. */
struct frame_sink {
    int (*input)(void *context, const void *bytes, size_t n); /* a piece of stdin */
    int (*input_end)(void *context);                          /* stdin is closed; comes once, no input follows */
    int (*resize)(void *context, uint16_t columns, uint16_t rows);
    int (*signal)(void *context, int number);
};

struct frame_parser {
    uint8_t header[FRAME_HEADER_SIZE];
    size_t header_have;
    uint32_t left; /* payload bytes of the present frame still to come */
    char control[FRAME_CONTROL_MAX + 1];
    size_t control_have;
    uint8_t stream;
    uint8_t ended; /* stdin was closed */
};

/* Digests n bytes as they came. PROTOCOL_ERROR or INVALID_VALUE with *err; the connection is of no use then. */
int frame_parse(struct frame_parser *parser, const void *bytes, size_t n, const struct frame_sink *sink, void *context,
                struct error **err);

/* Writes a frame's header. */
void frame_header(uint8_t out[FRAME_HEADER_SIZE], enum frame_stream stream, uint32_t length);

/* "SIGTERM" or "TERM" to its number; 0 for an unknown word. */
int signal_number(const char *name);

/* "SIGTERM" for SIGTERM; NULL for a number without a name. Static or the C library's string, without "SIG": abbrev. */
const char *signal_name(int number);

#endif
