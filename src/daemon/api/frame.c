/* SPDX-License-Identifier: Apache-2.0 */
/* The frame parser: a byte-wise state machine that keeps nothing of a data frame and at most 4 KiB of a control frame.
 */
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "daemon/api/frame.h"

void frame_header(uint8_t out[FRAME_HEADER_SIZE], enum frame_stream stream, uint32_t length)
{
    const uint8_t header[FRAME_HEADER_SIZE] = {
        (uint8_t)stream, 0, 0, 0, (uint8_t)(length >> 24), (uint8_t)(length >> 16), (uint8_t)(length >> 8),
        (uint8_t)length};
    memcpy(out, header, sizeof(header));
}

const char *signal_name(int number)
{
    return sigabbrev_np(number);
}

int signal_number(const char *name)
{
    if (strncmp(name, "SIG", 3) == 0)
        name += 3;
    for (int number = 1; number < 32; number++) {
        const char *candidate = sigabbrev_np(number);
        if (candidate && strcmp(candidate, name) == 0)
            return number;
    }
    return 0;
}

static int control_resize(const json_t *size, const struct frame_sink *sink, void *context, struct error **err)
{
    const json_t *columns = json_array_get(size, 0), *rows = json_array_get(size, 1);

    if (json_array_size(size) != 2 || !json_is_integer(columns) || !json_is_integer(rows) ||
        json_integer_value(columns) < 1 || json_integer_value(columns) > UINT16_MAX || json_integer_value(rows) < 1 ||
        json_integer_value(rows) > UINT16_MAX)
        return error_set(err, EINVAL, "INVALID_VALUE", "control frame: \"resize\" is no [columns, rows]");
    return sink->resize(context, (uint16_t)json_integer_value(columns), (uint16_t)json_integer_value(rows));
}

static int control_signal(const json_t *name, const struct frame_sink *sink, void *context, struct error **err)
{
    int number = json_is_string(name) ? signal_number(json_string_value(name)) : 0;

    if (!number)
        return error_set(err, EINVAL, "INVALID_VALUE", "control frame: \"signal\" names no signal");
    return sink->signal(context, number);
}

static int control_end(struct frame_parser *parser, const struct frame_sink *sink, void *context, struct error **err)
{
    json_t *value = json_loadb(parser->control, parser->control_have, JSON_REJECT_DUPLICATES, NULL);
    const json_t *resize = json_object_get(value, "resize"), *signal = json_object_get(value, "signal");
    int r;

    if (!value || json_object_size(value) != 1 || (!resize && !signal))
        r = error_set(err, EINVAL, "PROTOCOL_ERROR",
                      "control frame: neither {\"resize\": [columns, rows]} nor {\"signal\": NAME}");
    else if (resize)
        r = control_resize(resize, sink, context, err);
    else
        r = control_signal(signal, sink, context, err);
    json_decref(value);
    return r;
}

static int header_end(struct frame_parser *parser, const struct frame_sink *sink, void *context, struct error **err)
{
    const uint8_t *h = parser->header;

    parser->header_have = 0;
    parser->stream = h[0];
    parser->left = (uint32_t)h[4] << 24 | (uint32_t)h[5] << 16 | (uint32_t)h[6] << 8 | h[7];
    if (h[1] || h[2] || h[3])
        return error_set(err, EPROTO, "PROTOCOL_ERROR", "frame: reserved bytes are not zero");
    if (parser->stream != FRAME_STDIN && parser->stream != FRAME_CONTROL)
        return error_set(err, EPROTO, "PROTOCOL_ERROR", "frame: stream %u is not one a client sends", h[0]);
    if (parser->stream == FRAME_CONTROL) {
        parser->control_have = 0;
        if (parser->left == 0 || parser->left > FRAME_CONTROL_MAX)
            return error_set(err, EPROTO, "PROTOCOL_ERROR", "control frame: %u bytes, 1 to %d are accepted",
                             parser->left, FRAME_CONTROL_MAX);
        return 0;
    }
    if (parser->left > FRAME_DATA_MAX)
        return error_set(err, EPROTO, "PROTOCOL_ERROR", "frame: %u bytes, at most %d are accepted", parser->left,
                         FRAME_DATA_MAX);
    if (parser->ended)
        return error_set(err, EPROTO, "PROTOCOL_ERROR", "frame: stdin was closed before");
    if (parser->left == 0) {
        parser->ended = 1;
        return sink->input_end(context);
    }
    return 0;
}

/* Digests payload of the present frame. Returns 0 and how much it took. */
static int payload(struct frame_parser *parser, const uint8_t *bytes, size_t n, const struct frame_sink *sink,
                   void *context, size_t *ret_taken, struct error **err)
{
    size_t take = n < parser->left ? n : parser->left;
    int r = 0;

    parser->left -= (uint32_t)take;
    if (parser->stream == FRAME_STDIN) {
        r = sink->input(context, bytes, take);
    } else {
        memcpy(parser->control + parser->control_have, bytes, take);
        parser->control_have += take;
        if (parser->left == 0)
            r = control_end(parser, sink, context, err);
    }
    *ret_taken = take;
    return r;
}

int frame_parse(struct frame_parser *parser, const void *bytes, size_t n, const struct frame_sink *sink, void *context,
                struct error **err)
{
    const uint8_t *at = bytes;
    int r = 0;

    while (n > 0 && r == 0) {
        size_t taken = 1;
        if (parser->left == 0) {
            parser->header[parser->header_have++] = *at;
            if (parser->header_have == FRAME_HEADER_SIZE)
                r = header_end(parser, sink, context, err);
        } else {
            r = payload(parser, at, n, sink, context, &taken, err);
        }
        at += taken;
        n -= taken;
    }
    return r;
}
