/* SPDX-License-Identifier: Apache-2.0 */
/* The framed stream of exec and attach: codec (pure) and the loop between it and this process's standard streams. */
#ifndef CORACLE_CLI_STREAM_H
#define CORACLE_CLI_STREAM_H

#include "base/buffer.h"
#include "cli/api.h"

enum { FRAME_HEADER = 8, FRAME_PAYLOAD_MAX = 1 << 20 };
enum frame_stream { FRAME_STDIN = 0, FRAME_STDOUT = 1, FRAME_STDERR = 2, FRAME_CONTROL = 3 };

struct frame {
    enum frame_stream stream;
    const char *data; /* borrowed from the input buffer */
    size_t size;
};

void frame_header(unsigned char out[FRAME_HEADER], enum frame_stream stream, uint32_t size);

/* Takes the first whole frame of data. Returns bytes used, 0 when more is needed, -EPROTO for what no frame is. */
ssize_t frame_parse(const char *data, size_t size, struct frame *ret);

struct session {
    struct cli *cli;
    bool tty; /* raw mode, window size, detach keys */
    bool send_stdin;
    bool detachable;                          /* Ctrl-P Ctrl-Q ends the session and leaves the process running */
    struct buffer *collect_out, *collect_err; /* NULL: to stdout and stderr */
    json_t *exit;                             /* result: the server's "exit" member; NULL when detached */
    bool detached;
};

/* Runs until the process ended, the user detached or the connection broke. Owns channel. The terminal is restored. */
int session_run(struct session *session, struct api_channel *channel, struct error **err);

#endif
