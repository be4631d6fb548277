/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The launcher's own world: what its files share. One struct launcher a process, made by main().
 *
 * Threads: the main thread owns the sockets and hands out jobs; workers carry them out, one instance's jobs one after
 * the other; the pool thread fills shells, another makes snapshots to start from; two take parts
 * of starts (base/beside.h); a confined thread per unpacking.
 * `lock` guards the registry and the queues and is never held over a system call that can wait. An instance's other
 * fields belong to whoever runs its job.
 */
#ifndef CORACLE_LAUNCHER_LAUNCHER_H
#define CORACLE_LAUNCHER_LAUNCHER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "launcher/fabric.h"
#include "launcher/options.h"
#include "launcher/slots.h"
#include "proto/proto.h"
#include "runtime/runtime.h"

enum {
    UID_FIRST = 1 << 30, /* first instance range; range i begins at UID_FIRST + i * RUNTIME_ID_COUNT */
    IMAGE_UID_FIRST = 1 << 29,
    JOBS_MAX = 4096, /* waiting at one time; more are refused (TOO_MANY_REQUESTS) */
    REGISTRY_BUCKETS = 1024,
};

struct beside;
struct pool;
struct uplink;
struct templates;
struct host;
struct instance;

/* Something to do, mostly a request; queued on its instance. */
struct job {
    struct job *next;
    struct instance *instance;
    uint64_t connection;          /* generation that asked; its answer goes nowhere else */
    struct proto_message message; /* type 0: the instance or one of its execs ended (exec below) */
    uint32_t exec;                /* 0: the instance itself */
    atomic_bool cancelled;
};

struct launcher {
    struct options options;
    int snapshots_fd; /* STATE/snapshots */
    int run_fd, instances_fd, logs_fd, layers_fd,
        tmp_fd, packed_fd; /* RUN, RUN/instances, STATE/logs, images/layers, images/tmp, images/packed */
    struct runtime *runtime;
    struct fabric *fabric;
    struct pool *pool;
    struct templates *templates;
    struct host *host;
    struct beside *beside;      /* threads that take a part of a start; NULL: none to be had */
    struct uplink *uplink;      /* NULL: not configured */
    int own_netns_fd;           /* where the launcher was started */
    struct slots uids, numbers; /* uid ranges; names of host interfaces */

    pthread_mutex_t lock;
    pthread_cond_t work; /* a job is ready, or stopping */
    struct instance *registry[REGISTRY_BUCKETS];
    struct instance *ready_first, *ready_last; /* instances whose next job may run */
    unsigned jobs, busy_workers;               /* waiting; running */
    uint64_t next_serial;
    bool stopping;

    int epoll_fd;
    pthread_mutex_t connection_lock; /* guards the two below; held while sending */
    int connection_fd;               /* -1: nobody */
    uint64_t connection;             /* generation */
    atomic_uint confined;            /* unpackings and removals under way */
};

/* Answers and events (server.c). Nothing happens when the connection that asked is gone. */
void reply(struct launcher *l, const struct job *job, enum message_type type, const void *message, const int *fds,
           size_t fd_count);
void reply_error(struct launcher *l, const struct job *job, const struct error *err);
void send_event(struct launcher *l, enum message_type type, const void *message);

/* Makes epoll tell of fd with (serial, exec); once only (watch.c). */
int watch(struct launcher *l, int fd, uint64_t serial, uint32_t exec, bool again);
void unwatch(struct launcher *l, int fd);

/* Workers (work.c). */
int workers_start(struct launcher *l, struct error **err);
void workers_stop(struct launcher *l);
/* On a worker: a wait that may be long begins, or is over. Another worker does its work in the meantime. */
void worker_waits(bool begins);

/* Main thread: takes over the message and queues it on the instance of that id. TOO_MANY_REQUESTS, NO_MEMORY. */
int job_queue(struct launcher *l, const char *id, struct proto_message *message, uint64_t connection,
              struct error **err);
/* An ended instance or exec; serial unknown: it is gone already. */
void job_queue_ended(struct launcher *l, uint64_t serial, uint32_t exec);
/* Marks a START as cancelled. Returns whether it was found. */
bool job_cancel(struct launcher *l, uint64_t connection, uint32_t request);
/* Whether no worker has anything to do; the pool fills then. */
bool workers_idle(struct launcher *l);

/* What jobs do: start.c, and operations.c for all the rest. */
void job_start(struct launcher *l, struct job *job);
void job_operate(struct launcher *l, struct job *job);
void job_ended(struct launcher *l, struct job *job);

/* Unpacking and removal of layers, each on a thread of its own (layers.c); they answer by themselves. */
void layers_unpack(struct launcher *l, struct proto_message *message, uint64_t connection);
void layers_remove(struct launcher *l, struct proto_message *message, uint64_t connection);
/* Empties images/tmp; at start. */
int layers_sweep(struct launcher *l, struct error **err);

/* After a start: adopts what runs, removes what belongs to nobody (recover.c). */
int recover(struct launcher *l, struct error **err);

/* Gives up privileges (narrow.c). Called once everything is open, before the first thread. */
int narrow(struct error **err);

/* The connection and the loop (server.c). Returns when asked to stop by a signal. */
int server_run(struct launcher *l, int listen_fd, struct error **err);
int server_listen(struct launcher *l, int *ret_fd, struct error **err);

/* systemd: ready, watchdog, listening sockets; nothing without it (service.c). */
void service_notify(const char *state);
uint64_t service_watchdog_us(void);
int service_listen_fd(void); /* -1: none was passed */

#endif
