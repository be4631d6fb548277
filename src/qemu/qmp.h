/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small QMP client (QEMU's docs/interop/qmp-spec). One command at a time, each with an end in time.
 *
 * QEMU works for a guest that may have taken it over: a line is bounded, must be one JSON object of a known form, and
 * anything else ends the conversation (-EPROTO). Used by the supervisor's one thread.
 */
#ifndef CORACLE_QEMU_QMP_H
#define CORACLE_QEMU_QMP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { QMP_LINE_MAX = 64 * 1024, QMP_TIMEOUT_MS = 5000 };

enum qmp_kind { QMP_GREETING = 1, QMP_RETURN, QMP_ERROR, QMP_EVENT };

/* One line of QEMU's. Strings are borrowed from body. */
struct qmp_message {
    enum qmp_kind kind;
    json_t *body;     /* owned: json_decref() */
    uint64_t id;      /* RETURN, ERROR; 0: an error without one (QEMU could not read what it was sent) */
    json_t *value;    /* borrowed: what was returned, an event's data (NULL: none) */
    const char *text; /* EVENT: its name. ERROR: QEMU's words. GREETING: version, "7.2.22" with package */
};

/* Pure. -EPROTO: no message of QMP. */
int qmp_message_parse(const char *line, size_t size, struct qmp_message *ret);

typedef void (*qmp_event)(void *context, const char *name, const json_t *data);
/* Waits at most timeout_ms for anything to happen and calls qmp_read() if it was QMP. -errno: QEMU is gone. */
typedef int (*qmp_pump)(void *context, int timeout_ms);

struct qmp {
    int fd;          /* owned, non-blocking; -1: none */
    qmp_event event; /* context's */
    qmp_pump pump;
    void *context;
    uint64_t last_id;  /* of the last command sent */
    uint64_t asked_ns; /* when the oldest unanswered command was sent; 0: none is open */
    uint64_t heard_ns; /* when anything came last */
    uint64_t waiting;  /* id that qmp_call() waits for; 0: nobody waits */
    uint64_t beat;     /* id of the open heartbeat; 0: none */
    bool greeted;
    struct qmp_message answer; /* body NULL: none yet */
    char version[96];
    size_t used;
    char in[QMP_LINE_MAX];
};

void qmp_open(struct qmp *q, int fd, qmp_event event, qmp_pump pump, void *context);
void qmp_close(struct qmp *q);

/* Waits for the greeting and leaves the negotiation. */
int qmp_greet(struct qmp *q, int timeout_ms, struct error **err);

/* arguments: a new reference (taken), NULL: none. fd: goes along (getfd), -1: none. ret: the returned value, a new
 * reference; may be NULL. -EREMOTEIO: QEMU said no, its words are in *err. -ETIMEDOUT: silent. -EPIPE: gone. */
int qmp_call(struct qmp *q, const char *command, json_t *arguments, int fd, int timeout_ms, json_t **ret,
             struct error **err);

/* Asks for a sign of life, unless one is open. */
int qmp_beat(struct qmp *q);

/* Takes what there is, at most one buffer of it. 0, -EPIPE (the end) or -EPROTO. */
int qmp_read(struct qmp *q);

uint64_t now_ns(void);

#endif
