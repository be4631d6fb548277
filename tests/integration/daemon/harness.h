/* SPDX-License-Identifier: Apache-2.0 */
/* A core on a loop of its own, in a directory of its own, driven step by step. Shared by the daemon's integration
 * tests. */
#ifndef CORACLE_TESTS_DAEMON_HARNESS_H
#define CORACLE_TESTS_DAEMON_HARNESS_H

#include <jansson.h>
#include <systemd/sd-event.h>

#include "daemon/core.h"

struct bed {
    char dir[64]; /* run and state below it */
    sd_event *loop;
    struct core *core;
};

/* Makes the directory (below parent, NULL: /tmp) and opens the core; asserts that it works. */
void bed_open(struct bed *, const char *parent);
/* Opens again in the same directory; returns what core_open() returns. */
int bed_reopen(struct bed *, struct error **err);
void bed_shut(struct bed *);  /* closes the core, keeps the directory */
void bed_close(struct bed *); /* and removes it */

/* Runs the loop until condition(context) or ms have passed; returns whether the condition came true. */
bool bed_run(struct bed *, bool (*condition)(void *), void *context, unsigned ms);
void bed_turn(struct bed *, unsigned ms); /* just runs it that long */

struct text_error {
    bool done;
    char code[64]; /* "" for success */
};

/* Creates, waits for the commit. "" or the error's code of either. ret_id/ret_operation: INSTANCE_ID_SIZE, may be NULL.
 */
const char *bed_create(struct bed *, const char *descriptor, bool start, char *ret_id, char *ret_operation);
const char *bed_change(struct bed *, const char *name, enum core_verb, const char *body, char *ret_operation);
const char *bed_terminate(struct bed *, const char *name, bool force, char *ret_operation);
/* Waits until the operation has ended; its JSON (caller: json_decref). */
json_t *bed_wait(struct bed *, const char *operation);
json_t *bed_instance(struct bed *, const char *name); /* NULL when there is none */
/* Waits until the instance is in the state; false after ms. */
bool bed_wait_state(struct bed *, const char *name, const char *state, unsigned ms);
const char *text_of(const json_t *object, const char *member);

#endif
