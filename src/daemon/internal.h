/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The core's own data, shared by the files of src/daemon beside api/ and images*; nobody else includes this.
 *
 * Memory is the working set: requests change it, core_flush() writes what became dirty in one transaction. What ended
 * and is written leaves memory (operations, events); instances and networks stay.
 */
#ifndef CORACLE_DAEMON_INTERNAL_H
#define CORACLE_DAEMON_INTERNAL_H

#include <systemd/sd-event.h>

#include "base/strmap.h"
#include "daemon/core.h"
#include "model/ipam.h"
#include "model/lifecycle.h"
#include "model/restart.h"
#include "model/spec.h"

struct store;

/* What the user asked an instance to be. */
enum wanted { WANTED_CREATED, WANTED_STARTED, WANTED_PAUSED, WANTED_STOPPED, WANTED_GONE };

struct instance {
    struct instance *next, *previous; /* creation order */
    struct instance *next_dirty;
    char id[INSTANCE_ID_SIZE];
    char name[NAME_SIZE];
    const struct technology *technology;
    char *image;        /* as the user wrote it, "" for a technology without images */
    char *image_digest; /* NULL: none */
    char *spec_json;    /* the descriptor as it was given */
    struct spec_pair *labels;
    size_t label_count;
    struct limits limits; /* as in force: the descriptor's and later updates */
    struct plan_nic *nics;
    size_t nic_count;
    struct spec_port *ports;
    size_t port_count;
    struct restart_rule restart;
    int stop_signal;
    uint32_t stop_grace_ms;
    bool tty, open_stdin;
    enum wanted wanted;
    enum instance_state state;
    const char *reason_code; /* NULL: none */
    char *reason_message;
    int32_t pid;
    uint32_t uid_base;
    enum start_origin origin; /* of its latest start */
    char snapshot[INSTANCE_ID_SIZE]; /* its first start comes from it; "": from the image */
    bool exited; /* the fields below hold */
    bool exit_known, exit_oom;
    int32_t exit_status; /* as of waitpid(2) */
    uint64_t exited_at_ns;
    uint32_t restarts, restarts_in_a_row;
    uint64_t created_ns, started_ns; /* CLOCK_REALTIME */
    uint64_t running_since_ns;       /* CLOCK_MONOTONIC; 0: not since this daemon started */
    struct operation *operation;     /* under way, or NULL */
    bool held;                       /* the executor may hold something for it: to be released before it is gone */
    bool seen;                       /* listed by the executor in the adoption under way */
    bool dirty, stored;
};

enum stage {
    STAGE_BACKOFF, /* waits for its time (HEAL) */
    STAGE_STOP,
    STAGE_KILL,
    STAGE_START,
    STAGE_PAUSE,
    STAGE_RESUME,
    STAGE_UPDATE,
    STAGE_RELEASE,
    STAGE_UNDO_RELEASE, /* rolling back an INSTANTIATE */
    STAGE_UNDO_KILL,    /* rolling back another start */
    STAGE_FOREIGN,      /* carried out elsewhere (PULL) */
};

struct operation {
    struct operation *next, **link; /* all in memory */
    struct operation *next_dirty;
    struct core *core;
    char id[INSTANCE_ID_SIZE];
    enum operation_kind kind;
    enum operation_state state;
    const char *change_to; /* "STARTED", "STOPPED", "PAUSED" or NULL */
    bool is_restart, automatic, cancel_pending, timed_out;
    struct instance *instance;          /* NULL: none, or gone */
    char instance_id[INSTANCE_ID_SIZE]; /* "" when none */
    char instance_name[NAME_SIZE];
    uint64_t arrived_ns, ended_ns;      /* CLOCK_MONOTONIC */
    uint64_t start_time_ns, entered_ns; /* CLOCK_REALTIME */
    struct steps steps;
    struct error *error;
    enum stage stage;
    bool sent;        /* this stage's request is with the executor */
    uint32_t request; /* its number, for CANCEL */
    uint64_t sent_ns;
    uint32_t outstanding; /* answers still to come with this operation as their context */
    uint32_t grace_ms, retries;
    struct executor_slot *orphan_slot; /* undone before it was stored: where to release what its start may make */
    sd_event_source *timer;
    enum wanted wanted_before; /* to be restored when the store fails */
    enum instance_state state_before;
    struct limits limits_before;
    struct spec_pair *labels_before; /* owned */
    size_t label_count_before;
    bool uncommitted; /* its request is not on the disk yet */
    bool dirty, stored;
    void (*cancel)(void *context); /* STAGE_FOREIGN */
    void *cancel_context;
};

struct network {
    struct network *next;
    char name[NAME_SIZE];
    struct subnet subnet;
    uint16_t mtu;
    bool uplink;
    struct ipam *ipam;
    size_t instances;
    bool dirty, stored, removed; /* removed: waits for its commit */
};

struct event {
    struct event *next;
    uint64_t seq;
    const char *type; /* static */
    char instance[INSTANCE_ID_SIZE];
    char operation[INSTANCE_ID_SIZE];
    char *json;
    size_t length;
    bool told;
};

struct listener {
    struct listener *next;
    char instance[INSTANCE_ID_SIZE]; /* "": all */
    core_event_seen seen;
    void *context; /* NULL seen: forgotten, freed after the walk */
};

/* Somebody waits for a commit or an operation. */
struct waiter {
    struct waiter *next;
    struct core *core;
    core_done done;
    void *context;
    struct operation *operation; /* NULL for a commit, or when it has ended */
    sd_event_source *timer;
    struct error *error; /* owned; what done gets */
};

/* A request to an executor on a client's behalf. */
struct call {
    struct call *next, **link;
    struct core *core;
    void *context; /* for core_forget() */
    bool forgotten;
    char instance[INSTANCE_ID_SIZE];
    core_done done;
    core_fds_done fds_done;
    core_stats_done stats_done;
    struct core_exec_callbacks exec;
    uint32_t exec_number;
    bool exec_started;
    struct stats_round *round;
};

struct write_job {
    struct write_job *next;
    int (*write)(struct sqlite3 *, void *);
    core_done cleanup;
    void *context;
};

/* One per executor: the launcher and each driver that has its own. */
struct executor_slot {
    struct core *core;
    const char *name;
    struct executor *executor;
    bool connected;
    bool ready; /* adoption is through: requests may be sent */
};

enum { SLOT_LAUNCHER, SLOT_DRIVERS, SLOT_MAX = 8 };

struct counters {
    uint64_t created, removed, starts, starts_failed, exits, heals, commits, commits_failed, lost;
};

struct core {
    sd_event *loop;
    struct core_options options;
    char *run_dir, *state_dir, *ipv4_pool, *ipv6_pool;
    struct store *store;
    struct instance *instances, *last_instance;
    size_t instance_count;
    struct strmap by_id, by_name;
    struct network *networks;
    struct snapshot *snapshots;
    struct operation *operations;
    struct executor_slot slots[SLOT_MAX];
    size_t slot_count;
    struct host_facts facts;
    bool facts_known;
    const struct image_ops *images;
    void *images_context;
    /* to be written */
    struct instance *dirty_instances;
    struct operation *dirty_operations;
    char (*removed)[INSTANCE_ID_SIZE];
    size_t removed_count, removed_capacity;
    bool networks_dirty;
    struct event *events, **events_tail;
    size_t event_count;
    struct write_job *writes, **writes_tail;
    struct waiter *commit_waiters, **commit_tail;
    sd_event_source *flush_soon, *flush_later;
    uint64_t flush_asked_ns;
    bool flushing, opened;
    bool store_failing; /* the last transaction could not be written */
    /* waiting clients */
    struct waiter *operation_waiters;
    struct waiter *ready;
    sd_event_source *ready_source;
    struct listener *listeners;
    struct call *calls;
    uint64_t next_seq, reserved_seq;
    uint64_t operations_written, events_written;
    struct counters counters;
    uint8_t random[512];
    size_t random_used;
};

/* core.c */
void core_random(struct core *, void *ret, size_t n);
void core_new_id(struct core *, char ret[INSTANCE_ID_SIZE]);
uint64_t realtime_ns(void);
void waiter_finish(struct core *, struct waiter *, const struct error *err); /* done comes next turn */
struct executor_slot *instance_slot(struct core *, const struct instance *);
bool filter_instance(const struct core_filter *, const struct instance *);
bool filter_operation(const struct core_filter *, const char *instance_id, const char *instance_name, const char *kind,
                      const char *state);
struct error *error_copy(const struct error *);

/* drivers.c */
extern const struct technology technologies[];
extern const size_t technology_count;
const struct technology *technology_find(const char *name);
/* UNKNOWN_TECHNOLOGY with a "did you mean". */
int technology_get(const char *name, const struct technology **ret, struct error **err);
/* The launcher's slot or the driver's own. */
size_t technology_slot(const struct technology *);
/* The image that technology.carrier names; IMAGE_NOT_FOUND, IMAGE_WRONG_GUEST. */
int technology_carrier(const struct core *, const struct technology *, struct image_view *ret, struct error **err);
/* probe() with the facts known; says so when the launcher was never there. */
void technology_probe(const struct core *, const struct technology *, struct technology_state *ret);

/* instances.c */
struct instance *instance_new(const struct vnf_spec *, const struct technology *); /* NULL: out of memory */
void instance_free(struct instance *);
int core_add_instance(struct core *, struct instance *);   /* -ENOMEM */
void core_drop_instance(struct core *, struct instance *); /* out of every table, addresses given back; frees it */
void instance_event(struct core *, struct instance *, enum instance_event);
void instance_reason(struct instance *, const struct error *or_null);
int instance_spec(const struct instance *, struct vnf_spec *ret,
                  struct error **err); /* the descriptor with the limits in force */

/* snapshots.c */
int snapshots_open(struct core *, struct error **err);
void snapshots_close(struct core *);
void snapshots_sweep(struct core *); /* the launcher is there: files nobody names go */
size_t snapshots_of_image(struct core *, const char *digest, const char **ret_name);

/* requests.c: core_create() of an instance whose first start comes from a snapshot's file. */
int core_create_from(struct core *, const json_t *descriptor, const char *snapshot, const struct core_times *,
                     struct instance **ret, struct operation **ret_op, struct error **err);

/* networks.c */
int networks_open(struct core *, struct error **err); /* makes "default" at the first start */
int network_load(struct core *, const char *name, const char *ipv4, const char *ipv6, uint16_t mtu, bool uplink,
                 struct error **err);
void network_free(struct network *);
/* Addresses for every network of the spec; *ret is a heap block. Nothing is taken on failure. */
int networks_take(struct core *, const struct vnf_spec *, struct plan_nic **ret, struct error **err);
void networks_give(struct core *, const struct plan_nic *nics, size_t count);
/* Marks a stored address taken; completes gateway and prefix. */
int network_reserve(struct core *, struct plan_nic *, struct error **err);
void networks_announce(struct core *);                             /* LINK_ADD of all to the launcher */
void network_cidr(const struct network *, char *ret4, char *ret6); /* INET6_ADDRSTRLEN + 5 bytes each; "" for none */
void networks_committed(struct core *);
void networks_undo(struct core *);

/* operations.c */
struct operation *operation_new(struct core *, enum operation_kind, struct instance *, const struct core_times *);
void operation_enter(struct core *, struct operation *, enum operation_state);
void operation_end(struct core *, struct operation *, enum operation_state, const struct error *or_null);
void operation_free(struct operation *);
struct operation *operation_find(struct core *, const char *id);
/* Frees it when it has ended, is stored and nobody owes it an answer. */
void operation_settle(struct operation *);
void operation_timer(struct operation *, uint64_t delay_ms, sd_event_time_handler_t);

/* reconcile.c */
/* Sends what the operation's stage needs, when it is not sent and the executor is ready; else waits. */
int operation_advance(struct core *, struct operation *, const struct launch_plan *or_null, struct error **err);
/* The same, and the operation ends when it cannot be sent. */
int operation_proceed(struct operation *);
void operation_send_cancel(struct operation *); /* of a START under way */
/* The start is to be taken back: cancelled, timed out, or never stored. running: the executor did start it. */
void operation_undo_start(struct operation *, bool running);
void operation_take_back_update(struct operation *);
void operation_committed(struct core *, struct operation *);
int instance_plan(struct core *, struct instance *, const struct vnf_spec *, struct launch_plan *ret,
                  struct error **err);
void instance_exited(struct core *, struct instance *, const struct message_exited *);
void instance_lost(struct core *, struct instance *);
void instance_runs(struct core *, struct instance *, const struct message_started *);
void operation_fail_start(struct core *, struct operation *, const struct error *);
void release_unknown(struct core *, struct executor_slot *, const char *id);

/* undo.c */
void operation_undo(struct core *, struct operation *, const struct error *);
int operation_request_cancel(struct core *, struct operation *, struct error **err);

/* adopt.c */
void slot_event(void *slot, enum message_type, const void *message);
void slot_adopt(struct executor_slot *);
void slot_lost(struct executor_slot *);

/* calls.c */
void calls_exec_exited(struct core *, const struct message_exec_exited *);
void calls_instance_gone(struct core *, const char *instance_id);

/* events.c */
void event_instance(struct core *, const char *type, const struct instance *, const char *detail_json);
void event_operation(struct core *, const char *type, const struct operation *);
void events_tell(struct core *);
void event_free(struct event *);
void events_drop(struct core *, const char *instance_id, const char *operation_id);

/* persist.c */
int persist_load(struct core *, struct error **err);
void mark_instance(struct core *, struct instance *);
void mark_operation(struct core *, struct operation *);
int mark_removed(struct core *, const char *id); /* -ENOMEM */
void unmark_instance(struct core *, struct instance *);
void flush_soon(struct core *);  /* at the end of this turn */
void flush_later(struct core *); /* within 10 ms: observed state */
void core_flush(struct core *);

/* launcher_client.c */
typedef void (*launcher_changed)(void *context, const struct host_facts *connected_or_null);
int launcher_client_new(sd_event *, const char *path, launcher_changed changed, void *context, struct executor **ret,
                        struct error **err);
int32_t launcher_client_pid(const struct executor *); /* 0: not connected */

#endif
