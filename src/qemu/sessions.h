/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's end of a guest's sessions (guest/session.h): commands executed in the container that a guest carries, the
 * output of its application, signals to both. What comes from the guest is checked frame by frame; what it may make
 * this process keep is bounded by the window of each stream.
 */
#ifndef CORACLE_QEMU_SESSIONS_H
#define CORACLE_QEMU_SESSIONS_H

#include <stdbool.h>

#include "guest/session.h"
#include "monitor/message.h"

struct supervisor;

/* Bytes of one output stream that its reader has not taken yet. */
struct session_pending {
    size_t from, used;
    char bytes[SESSION_WINDOW];
};

struct session {
    bool open, running, ended, terminal;
    bool input_over; /* nothing more comes from the input, and the guest was told */
    int connection;  /* whom its end is told; -1: nobody */
    int *fds; /* input, output, errors; -1: closed. Of a terminal the first two are one. Borrowed: struct sessions */
    int32_t wait_status;
    size_t given; /* bytes of input that the guest has not taken */
    struct session_size size;
    struct session_pending output[2];
};

struct sessions {
    int port;                          /* -1: the guest has none, or said what is no frame */
    struct session *list[SESSION_MAX]; /* NULL: free. Number i + 1 */
    int fds[SESSION_MAX][3];           /* of each; here, for the loop still looks at those of one that just ended */
    struct session_reader reader;
    size_t queued; /* frames for the guest that the port did not take */
    char queue[4 * SESSION_PAYLOAD_MAX];
};

/* Whether the loop has room for another poll: how many places sessions want at most. */
enum { SESSION_PLACES = 1 + SESSION_MAX * 4 };

/* Connections to the monitor's socket that belong to commands are served here. */
int sessions_exec(struct supervisor *s, int connection, struct monitor_message *m, struct error **err);
int sessions_signal(struct supervisor *s, int connection, int signal, struct error **err);
/* Whether the connection is a command's: then what comes on it is of the sessions. */
bool sessions_own(const struct supervisor *s, int connection);
/* The peer went: the command runs on, its end is nobody's business. */
void sessions_forget(struct supervisor *s, int connection);

/* The loop: calls add() for every descriptor and what to wait for; afterwards happened() with what came. */
typedef void sessions_add(void *context, int *place, short events);
void sessions_collect(struct supervisor *s, sessions_add *add, void *context);
/* False: the place is none of ours. */
bool sessions_happened(struct supervisor *s, int *place, short events);
/* Now and then: whether somebody's terminal has another size. */
void sessions_look_at_sizes(struct supervisor *s);
/* The guest is gone. */
void sessions_close(struct supervisor *s);

#endif
