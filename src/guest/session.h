/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What coracle-qemu and guest-container say to each other over a virtio-serial port (docs/formats/guest-sessions.md):
 * frames of a header and a payload, of several sessions side by side. Session 0 is the container's application, the
 * others are commands executed in it. Both sides check every frame: to the host the guest is hostile, and the guest
 * does not fall over a host of another release.
 *
 * A byte stream without loss and without messages; a side that does not take its bytes holds up all sessions. So
 * whoever sends data sends no more than SESSION_WINDOW bytes of one stream that the other has not taken, and whoever
 * receives has room for as many.
 */
#ifndef CORACLE_GUEST_SESSION_H
#define CORACLE_GUEST_SESSION_H

#include <stddef.h>
#include <stdint.h>

#define SESSION_PORT "coracle.sessions" /* the port's name */

enum {
    SESSION_MAX = 16, /* commands at one time; numbers are 1 to 16 */
    SESSION_APPLICATION = 0,
    SESSION_WINDOW = 32 * 1024,
    SESSION_PAYLOAD_MAX = 16 * 1024,
    SESSION_DATA_MAX = 4096,
    SESSION_STRINGS_MAX = 512, /* arguments and environment together */
};

enum session_type {
    /* from the host */
    SESSION_OPEN = 1,  /* struct session_open and strings: begin a command */
    SESSION_INPUT,     /* bytes */
    SESSION_INPUT_END, /* of a terminal: it hangs up */
    SESSION_SIGNAL,    /* int32: to the command, or the application */
    SESSION_RESIZE,    /* struct session_size: of its terminal */
    /* from the guest */
    SESSION_OPENED,
    SESSION_FAILED, /* what was wrong and what to do, each with its 0 */
    SESSION_OUTPUT, /* bytes; a terminal's too */
    SESSION_ERRORS, /* bytes */
    SESSION_ENDED,  /* int32 as wait(2) has it; the session is free again */
    /* from both */
    SESSION_TAKEN, /* struct session_taken */
    SESSION_TYPE_COUNT
};

struct session_frame {
    uint16_t type;
    uint16_t session;
    uint32_t size; /* of the payload */
};

/* Behind it: user, directory, arguments, environment, each with its 0. */
struct session_open {
    uint32_t terminal; /* 1, or 0 */
    uint32_t argc, envc;
};

struct session_size {
    uint16_t columns, rows;
};

struct session_taken {
    uint32_t stream; /* SESSION_INPUT, SESSION_OUTPUT or SESSION_ERRORS */
    uint32_t bytes;
};

/* Bytes as they come, until a frame is whole. */
struct session_reader {
    size_t used;
    _Alignas(8) char bytes[sizeof(struct session_frame) + SESSION_PAYLOAD_MAX];
};

/* A whole frame. payload has size bytes and is aligned for the structs above. */
typedef void session_take(void *context, const struct session_frame *frame, const char *payload);

/* Where the next bytes go, and how many fit: never 0 after session_feed(). */
size_t session_room(struct session_reader *reader, char **ret_at);
/* n bytes were put there: takes what is whole. -EPROTO: what came is no frame; nothing more can be understood. */
int session_feed(struct session_reader *reader, size_t n, session_take *take, void *context);

/* The strings of a checked SESSION_OPEN: pointers into the payload. vector has room for SESSION_STRINGS_MAX + 4. */
struct session_process {
    const char *user, *directory; /* user "": root */
    char **arguments, **env;      /* NULL-terminated, in vector */
};
/* -EPROTO: they are not what the header says. */
int session_parse_open(const char *payload, size_t size, char **vector, struct session_process *ret);

#endif
