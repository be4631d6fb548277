/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The QEMU process of a supervisor: started warm, told what to be, watched, ended. It never outlives the supervisor, by
 * PR_SET_PDEATHSIG and, where the launcher made one, by their pid namespace.
 */
#ifndef CORACLE_QEMU_CHILD_H
#define CORACLE_QEMU_CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buffer.h"
#include "base/error.h"
#include "qemu/preload.h"

enum { CHILD_WORDS_KEPT = 1024 };

struct child {
    pid_t pid;  /* 0: none */
    int start;  /* owned: to the preloaded library until launch; -1 */
    int errors; /* owned, non-blocking: QEMU's stderr; -1 */
    bool ended; /* status is wait(2)'s */
    int status;
    size_t kept; /* the end of what QEMU wrote to stderr, for an error message */
    char words[CHILD_WORDS_KEPT];
};

/* Descriptors that QEMU will get: borrowed until launch. */
struct child_fds {
    int fds[PRELOAD_FD_MAX];
    unsigned count;
    int kvm; /* QEMU's number of what it shall take for /dev/kvm; 0: none */
};

/* Adds one, -1 stays -1; returns the number that QEMU will know it by. */
int child_fds_add(struct child_fds *list, int fd);

/* The program: $CORACLE_QEMU, else the first there is of the usual places. NULL: not installed. */
const char *child_program(void);

/* Starts QEMU up to where it must know its machine. */
int child_start(struct child *c, struct error **err);

/* words: what machine_words() made. */
int child_launch(struct child *c, const struct buffer *words, int word_count, const struct child_fds *fds,
                 struct error **err);

/* Takes what is on stderr. */
void child_read_errors(struct child *c);

/* Whether it has ended; does not wait. */
bool child_has_ended(struct child *c);

/* Waits that long for its end. */
bool child_wait(struct child *c, int timeout_ms);

/* SIGKILL, and waits for its end. */
void child_kill(struct child *c);

/* The last line QEMU wrote, "" for none; for people. In c's memory. */
const char *child_last_words(struct child *c);

/* How long the threads of QEMU ran, and how long they were ready to run and did not, in ns, ever; 0: unknown. */
struct child_times {
    uint64_t ran_ns, starved_ns;
};
struct child_times child_times(const struct child *c);

#endif
