/* SPDX-License-Identifier: Apache-2.0 */
/* One instance as the launcher knows it, and the registry of all. See launcher.h for who may touch what. */
#ifndef CORACLE_LAUNCHER_INSTANCE_H
#define CORACLE_LAUNCHER_INSTANCE_H

#include "launcher/launcher.h"

/* NONE: a name only, while jobs for it are queued; forgotten with the last of them. */
enum instance_state { INSTANCE_NONE, INSTANCE_STARTING, INSTANCE_RUNNING, INSTANCE_ENDED };

struct execution {
    struct execution *next;
    struct runtime_exec exec;
};

struct instance {
    struct instance *next;       /* in its bucket */
    struct instance *ready_next; /* in the queue of ready ones */
    struct job *first, *last;    /* waiting */
    struct job *current;         /* a worker is at it */
    int asked_fd;                /* its monitor, whose answer that one waits for: instance_asks(); 0: none */
    uint64_t serial;             /* never used again: names it in epoll */

    char id[INSTANCE_ID_SIZE];
    char name[NAME_SIZE];
    _Atomic enum instance_state state; /* read by LIST */
    atomic_bool paused;
    struct container *container;    /* INSTANCE_RUNNING */
    struct container_record record; /* valid from INSTANCE_RUNNING on */
    uint32_t uid_slot;
    bool has_uid, has_number;  /* slots it holds */
    bool writable;             /* has a writable layer: an ended one keeps its uid range for it */
    struct fabric_ports ports; /* number valid when has_number */
    struct spec_port published[PORT_PER_INSTANCE_MAX];
    size_t published_count;
    struct container_exit exit; /* INSTANCE_ENDED */
    struct execution *executions;
    bool carrier;            /* a guest that carries a container: commands and signals go into it (machine_exec.h) */
    uint32_t last_execution; /* number of the latest command in it */
};

/* Whether text is a UUID in lower case: it becomes part of paths. */
bool instance_id_valid(const char *text);

/* All under l->lock. find_or_add: NULL when out of memory. */
struct instance *instance_find(struct launcher *l, const char *id);
struct instance *instance_find_serial(struct launcher *l, uint64_t serial);
struct instance *instance_find_or_add(struct launcher *l, const char *id);
void instance_forget(struct launcher *l, struct instance *i);
/* Calls each() for every instance until it returns false. */
void instance_each(struct launcher *l, bool (*each)(void *context, struct instance *i), void *context);

/* work.c, by the worker that has a job of i: it is about to wait for the answer of i's monitor on that connection, and
 * another does its work meanwhile. CONFLICTING_STATE when the end of i is queued already. After 0 the wait's result goes
 * through instance_asked() before the connection is closed: one that failed because the end broke it off becomes that
 * error, too. Not under the lock. */
int instance_asks(struct instance *i, int monitor, struct error **err);
int instance_asked(struct instance *i, int result, struct error **err);

/* Opens RUN/instances/ID, made when absent. */
int instance_directory(struct launcher *l, const char *id, int *ret_fd, struct error **err);

/* Its exit file, room reserved, and its socket init.sock, made anew: its init, or its machine's monitor, will write the
 * one and listen on the other (SOCK_SEQPACKET). */
int instance_files_open(int dirfd, int *ret_exit_fd, int *ret_listen_fd, struct error **err);

/* record.c: the file "record" in the instance's directory. state says whether it counts as started. */
int record_write(struct launcher *l, const struct instance *i, int dirfd, struct error **err);
/* 0 and *i filled, -ENOENT when there is none, -EINVAL for a damaged one (both without *err). */
int record_read(int dirfd, struct instance *i);

/* limits.c: puts host.conf's defaults where nothing is asked for, and checks the whole. */
int limits_settle(struct launcher *l, struct limits *limits, struct error **err);

/* Removes logs/ID and instances/ID with the files known to lie there; the record goes last. */
void instance_remove_files(struct launcher *l, const char *id);

/* The latter alone. */
void instance_remove_folder(struct launcher *l, const char *name);

/* logs/NAME with its two log files, made when absent, open for appending; and their removal. */
int logs_open(struct launcher *l, const char *name, int ret_fds[2], struct error **err);
void logs_remove(struct launcher *l, const char *name);

/* Gives back numbers, addresses and published ports; the uid range too unless keep_uid. */
void instance_release_host(struct launcher *l, struct instance *i, bool keep_uid);

#endif
