/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The core as the image store sees it, without a daemon: the real store, a commit at each turn of the loop, and
 * a launcher that starts the real coracle-unpack and moves layers as the real one does. Test code only.
 */
#ifndef CORACLE_TESTS_FAKE_CORE_H
#define CORACLE_TESTS_FAKE_CORE_H

#include <systemd/sd-event.h>

#include "daemon/core.h"
#include "daemon/store/store.h"

struct core {
    sd_event *loop;
    struct store *store; /* real, so that the tables are the real ones */
    struct sqlite3 *db;
    struct core_options options;
    const char *unpacker; /* path of coracle-unpack */
    const struct image_ops *ops;
    void *ops_context;
    /* faults to act out */
    bool launcher_away; /* requests are refused */
    bool launcher_dies; /* the next request is answered LAUNCHER_UNAVAILABLE, later */
    const char *answer; /* instead of unpacking: what the result pipe says */
    bool answer_failed; /* and the launcher says FAILED */
    int commit_result;  /* SQLite code of the next commit; 0: commits */
    const char *user;   /* an instance that uses every image; NULL: none */
    /* what happened */
    size_t unpacks, removals, running, running_max;
    char events[4096];           /* "type " of each */
    const char *operation_error; /* code, "" when it completed */
    char operation_message[1024];
    bool operation_ended;
    char steps[256];
    void (*cancel)(void *);
    void *cancel_context;
};

void fake_core_open(struct core *, const char *state_dir, const char *unpacker);
void fake_core_close(struct core *);
/* Runs the loop until *flag or for at most 20 seconds. */
bool fake_core_run(struct core *, const bool *flag);

#endif
