/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon behind its REST layer: every question and every request the API can put, and nothing about HTTP.
 *
 * Called by src/daemon/api on the daemon's one thread (an sd_event loop); nothing here blocks but the store's commit.
 * Pointers to instances, networks and operations are borrowed and valid until control returns to the event loop.
 * A callback never comes from within the call that registered it. Each comes once, unless core_forget() was called.
 *
 * The rule for answers: a request changes memory and starts the work at once; it is acknowledged only from
 * core_commit_then(), when it is on the disk. On failure of the store the change is undone before that callback.
 */
#ifndef CORACLE_DAEMON_CORE_H
#define CORACLE_DAEMON_CORE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"
#include "nfv/driver.h"

struct core;
struct instance;
struct network;
struct snapshot;
struct operation;
struct sd_event;

struct core_options {
    const char *run_dir;
    const char *state_dir;
    const char *ipv4_pool;      /* CIDR; NULL: 198.18.0.0/15 */
    const char *ipv6_pool;      /* CIDR; NULL: a ULA /48 made from the machine's id */
    uint32_t operation_history; /* ended operations kept; 0: 10,000 */
};

/* Opens the store, loads everything, starts looking for the launcher. A damaged store is an error, never emptied. */
int core_open(struct sd_event *, const struct core_options *, struct core **ret, struct error **err);

/* Commits what is pending and lets everything go; instances run on. Accepts NULL. */
void core_close(struct core *);

/* ------------------------------------------------------------------ finding */

/* A name, an id, or a unique prefix (>= 4 characters) of an id. NULL with *err: INSTANCE_NOT_FOUND with a "did you
 * mean", AMBIGUOUS_NAME. */
struct instance *core_instance_find(struct core *, const char *name_or_id, struct error **err);
struct network *core_network_find(struct core *, const char *name, struct error **err);
const char *core_instance_id(const struct instance *);
const char *core_instance_name(const struct instance *);
const char *core_network_name(const struct network *);
const char *core_operation_id(const struct operation *);
/* The id of the operation an instance is in, NULL when none. */
const char *core_instance_operation(const struct instance *);
/* The instance's application is on the host (STARTED, PAUSED, STOPPING). */
bool core_instance_running(const struct instance *);
bool core_instance_tty(const struct instance *);

/* A list's conditions: keys combine with "and", values of one key with "or", a leading '-' negates. */
struct core_filter;
struct core_filter *core_filter_new(void);
/* Keys for instances: name technology state label image; for operations: instance operation state.
 * UNKNOWN_PARAMETER or INVALID_VALUE (with "did you mean") otherwise. */
int core_filter_add(struct core_filter *, const char *key, const char *value, struct error **err);
void core_filter_free(struct core_filter *);

/* ------------------------------------------------------------------ showing: JSON as docs/formats/rest-api.md,
 * appended to out */

void core_render_version(struct buffer *out);
void core_render_health(struct core *, struct buffer *out);
void core_render_instance(struct core *, const struct instance *, struct buffer *out);
void core_render_instances(struct core *, const struct core_filter *or_null, struct buffer *out); /* {"items": [...]} */
void core_render_operation(struct core *, const struct operation *, struct buffer *out);
/* By id, ended ones included (they are read from the store). OPERATION_NOT_FOUND. A unique prefix does. */
int core_render_operation_id(struct core *, const char *id, struct buffer *out, struct error **err);
int core_render_operations(struct core *, const struct core_filter *or_null, struct buffer *out, struct error **err);
void core_render_network(struct core *, const struct network *, struct buffer *out);
void core_render_networks(struct core *, struct buffer *out);
/* List of EVENT with seq > since, instance NULL or an id or name; at most the newest 10,000 are kept. */
int core_render_events(struct core *, uint64_t since, const char *instance, struct buffer *out, struct error **err);
/* PROBLEM (RFC 7807): status, code, title, detail, hint. */
void core_render_problem(const struct error *, struct buffer *out);
void core_render_stats(const struct instance *, const struct instance_stats *, struct buffer *out);
/* Prometheus text exposition format 0.0.4 of everything the core counts. */
void core_render_metrics(struct core *, struct buffer *out);

/* ------------------------------------------------------------------ requests */

/* For step times: when the request's first byte came and when its body was complete and parsed (monotonic_ns). */
struct core_times {
    uint64_t arrived_ns;
    uint64_t parsed_ns; /* 0: nothing was parsed */
};

/* POST /v1/instances. descriptor is a JSON value (YAML already converted). ret_operation is NULL when start is false.
 * Returns after the launcher was sent the START. */
int core_create(struct core *, const json_t *descriptor, bool start, const struct core_times *,
                struct instance **ret_instance, struct operation **ret_operation, struct error **err);

/* POST /v1/plan: everything core_create() would refuse, and nothing done. A name that is taken is no error but told:
 * ret_present is the instance of that name, NULL when there is none. Its addresses are not held against it. */
int core_check(struct core *, const json_t *descriptor, struct instance **ret_present, struct error **err);

enum core_verb { CORE_START, CORE_STOP, CORE_RESTART, CORE_PAUSE, CORE_RESUME };

/* POST /v1/instances/{id}/VERB. body: {"grace_ms": N} for stop and restart, NULL or {} else. */
int core_change(struct core *, struct instance *, enum core_verb, const json_t *body_or_null, const struct core_times *,
                struct operation **ret_operation, struct error **err);
/* PATCH /v1/instances/{id}. */
int core_update(struct core *, struct instance *, const json_t *body, const struct core_times *,
                struct operation **ret_operation, struct error **err);
/* DELETE /v1/instances/{id}. */
int core_terminate(struct core *, struct instance *, bool force, const struct core_times *,
                   struct operation **ret_operation, struct error **err);
/* POST /v1/operations/{id}/cancel. OPERATION_NOT_FOUND; CONFLICTING_STATE when it has ended or cannot be cancelled. */
int core_cancel(struct core *, const char *operation_id, struct operation **ret_operation, struct error **err);

/* Snapshots users keep. create: {"name"} or NULL; an operation. restore: {"name"} or NULL; a new instance, started. */
struct snapshot *core_snapshot_find(struct core *, const char *name, struct error **err);
int core_snapshot_create(struct core *, struct instance *, const json_t *body, const struct core_times *,
                         struct operation **ret, struct error **err);
int core_snapshot_remove(struct core *, struct snapshot *, struct error **err); /* gone when it is committed */
int core_snapshot_restore(struct core *, struct snapshot *, const json_t *body, const struct core_times *,
                          struct instance **ret, struct operation **ret_op, struct error **err);
void core_render_snapshot(const struct snapshot *, struct buffer *out);
void core_render_snapshots(struct core *, struct buffer *out);

int core_network_add(struct core *, const json_t *body, struct network **ret, struct error **err);
int core_network_remove(struct core *, struct network *, struct error **err);

/* Calls done when everything requested so far is committed (err NULL), or could not be and was undone (NO_SPACE,
 * STORE_FAILED). All callers of one turn of the loop share one commit. */
typedef void (*core_done)(void *context, const struct error *err);
int core_commit_then(struct core *, core_done done, void *context, struct error **err);

/* Calls done when the operation has ended or after timeout_ms; at once (next turn) when it already has. Then render
 * it by id. */
int core_operation_wait(struct core *, const char *operation_id, uint32_t timeout_ms, core_done done, void *context,
                        struct error **err);

/* No callback with this context comes any more (its client has left). An exec goes on, its result is dropped. */
void core_forget(struct core *, void *context);

/* ------------------------------------------------------------------ requests to a running instance; nothing is stored
 */

/* POST signal: {"signal": "SIGHUP"}. */
int core_signal(struct core *, struct instance *, const json_t *body, core_done done, void *context,
                struct error **err);
/* Signal by number. */
int core_signal_number(struct core *, struct instance *, int signal, core_done done, void *context, struct error **err);

typedef void (*core_stats_done)(void *context, const struct instance *, const struct instance_stats *,
                                const struct error *err);
int core_stats(struct core *, struct instance *, core_stats_done done, void *context, struct error **err);
/* STATS of every running instance; out is {"items": [...]}, borrowed by the callback. */
typedef void (*core_stats_all_done)(void *context, const struct buffer *out);
int core_stats_all(struct core *, core_stats_all_done done, void *context, struct error **err);

/* Descriptors that come back: the callback closes or keeps them (keeps: sets the entry to -1). */
typedef void (*core_fds_done)(void *context, int *fds, size_t count, const struct error *err);
/* Two read-only files: log.0 and log.1. Also after the instance ended, until it is removed. */
int core_logs(struct core *, struct instance *, core_fds_done done, void *context, struct error **err);
/* The pty's master, or the write end of stdin (open_stdin without tty). */
int core_console(struct core *, struct instance *, core_fds_done done, void *context, struct error **err);

/* POST exec. body: EXEC request of rest-api.md. Without tty fds are the instance's ends of stdin, stdout, stderr
 * (borrowed); with tty none are given and started() brings the pty's master. started() comes once; after a good one
 * exited() comes once with the status of waitpid(2), or with err when the instance was lost. */
struct core_exec_callbacks {
    void (*started)(void *context, uint32_t exec, int *fds, size_t count, const struct error *err);
    void (*exited)(void *context, int wait_status, const struct error *err);
};
int core_exec(struct core *, struct instance *, const json_t *body, const int *fds, size_t count,
              const struct core_exec_callbacks *, void *context, struct error **err);
/* {"tty": true} in an exec's body, without checking the rest; so that the caller knows whether to make pipes. */
bool core_exec_wants_tty(const json_t *body);
int core_exec_signal(struct core *, const char *instance_id, uint32_t exec, int signal, struct error **err);

/* GET /v1/host: asks the launcher's pool, so it comes later. */
typedef void (*core_text_done)(void *context, const struct buffer *out);
int core_host(struct core *, core_text_done done, void *context, struct error **err);

/* ------------------------------------------------------------------ events */

struct core_event {
    uint64_t seq;
    const char *type;
    const char *instance; /* id or NULL */
    const char *json;     /* EVENT */
    size_t length;
};
typedef void (*core_event_seen)(void *context, const struct core_event *);
/* First every kept event with seq > since (from within this call: the one exception to the rule above), then each new
 * one when it is committed. since UINT64_MAX: only new ones. instance: NULL or a name or id. Ends with core_forget().
 */
int core_events_follow(struct core *, uint64_t since, const char *instance, core_event_seen seen, void *context,
                       struct error **err);

/* ------------------------------------------------------------------ for src/daemon/images.c */

/* What the image store tells the core. reference: a name as the user wrote it, or a digest recorded earlier. Whatever
 * *ret points to lives until control returns to the event loop. */
struct image_view {
    const char *reference; /* full, as in IMAGE */
    const char *digest;    /* names this content for ever: "sha256:HEX" */
    const struct image_config *config;
};
struct image_ops {
    /* The variant this technology can run. IMAGE_NOT_FOUND with a "did you mean"; IMAGE_WRONG_GUEST says what is there
     * and how to make the missing one. */
    int (*find)(void *context, const char *reference, const struct technology *, struct image_view *ret,
                struct error **err);
};
void core_set_images(struct core *, const struct image_ops *, void *context);

/* How many instances were made from this digest; the name of one of them in *ret_name when any (may be NULL). */
size_t core_image_users(struct core *, const char *digest, const char **ret_name);

/* The database: make own tables (with own names, from a schema step in images.c), read at will. Write only from a
 * core_write callback: it runs inside the next commit's transaction; returns an SQLite result code. cleanup always
 * follows, with the commit's error or NULL. */
struct sqlite3;
struct sqlite3 *core_database(struct core *);
int core_write(struct core *, int (*write)(struct sqlite3 *, void *context), core_done cleanup, void *context,
               struct error **err);

/* The launcher, for MESSAGE_UNPACK and MESSAGE_LAYER_REMOVE; LAUNCHER_UNAVAILABLE while it is not connected. */
int core_launcher_request(struct core *, enum message_type type, const void *message, const int *fds, size_t fd_count,
                          executor_done done, void *context, struct error **err);

/* An operation without an instance (PULL). Ended with core_operation_end (err NULL: COMPLETED). */
struct operation *core_operation_begin(struct core *, const char *kind, const struct core_times *, struct error **err);
void core_operation_step(struct operation *, const char *name, uint64_t start_ns, uint64_t end_ns);
void core_operation_end(struct core *, const char *operation_id, const struct error *err);
/* Called when the user cancels it; NULL (default): cannot be cancelled. */
void core_operation_on_cancel(struct operation *, void (*cancel)(void *context), void *context);

/* Records and tells an event. detail: JSON object text or NULL. */
void core_event_add(struct core *, const char *type, const char *instance_id, const char *instance_name,
                    const char *operation_id, const char *detail_json);

struct sd_event *core_loop(struct core *);
const struct core_options *core_get_options(struct core *);

#endif
