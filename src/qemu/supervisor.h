/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of coracle-qemu: one machine, one QEMU, one thread. Files of this folder that take a struct supervisor are
 * parts of one program; what is pure or stands alone (machine, image, snapshot, overlay, qmp, child) does not know it.
 */
#ifndef CORACLE_QEMU_SUPERVISOR_H
#define CORACLE_QEMU_SUPERVISOR_H

#include "monitor/log_file.h"
#include "monitor/message.h"
#include "monitor/protocol.h"
#include "qemu/child.h"
#include "qemu/machine.h"
#include "qemu/qmp.h"
#include "qemu/sessions.h"
#include "qemu/snapshot.h"

enum {
    CONNECTION_MAX = 8 + SESSION_MAX, /* each command in the guest has one */
    INPUT_MAX = 4,                    /* people at the console */
    AGENT_LINE_MAX = 256,
    READY_LINE_MAX = 64,
    EXIT_GUEST_FAILED = 126, /* it panicked, was reset, or QEMU came to no good end; as coracle-vmm's */
};

enum phase { PHASE_EMPTY, PHASE_PREPARED, PHASE_RUNNING };

/* The guest's output line by line, as far as somebody must look at it. */
struct line_watch {
    size_t used;
    char text[AGENT_LINE_MAX];
};

struct supervisor {
    enum phase phase;
    int setup;   /* socket to the launcher; -1 when LOAD is answered */
    int signals; /* signalfd */
    int listen;
    int exit_file;
    int connections[CONNECTION_MAX];
    /* the guest's outside */
    int console, virtio_console, agent;
    int inputs[INPUT_MAX]; /* read ends of what people type */
    size_t typed;          /* waiting for the guest to take it */
    char typing[512];
    struct line_watch console_line, agent_line;
    struct sessions sessions;
    struct log_file log;
    int log_fds[2];

    /* QEMU */
    struct child child;
    struct qmp qmp;
    uint64_t starved_base; /* child_times() at the last heartbeat */
    uint64_t beaten_ns;
    bool beating;     /* off while QEMU's main loop may be busy for good reason (restoring) */
    const char *hung; /* words, when QEMU was ended for its silence */
    /* the machine */
    struct machine machine; /* descriptors in it are QEMU's numbers */
    char name[64], id[40];
    char parameters[MONITOR_PARAMETERS_MAX];
    int kvm; /* the host's device, until QEMU has it; -1 */
    int ram; /* the memory's file; -1: private to QEMU */
    int overlays[MONITOR_DISK_MAX];
    int snapshot; /* file restored from; -1 */
    uint32_t generation;
    uint64_t plugged_bytes; /* added as it runs, resize.c */
    uint32_t plugged_vcpus;
    uint64_t tsc_base, tsc_base_ns;
    uint64_t times[MONITOR_TIMES];
    /* how it goes */
    bool moved; /* to another supervisor: nothing is left to tell */
    bool share_memory, wait_ready, paused, ready, panicked, agent_there;
    uint64_t ready_ns;
    uint64_t calm_since_ns, calm_base; /* of the guest that LOAD still waits for: calm.. below, in supervisor.c */
    int stop_signal;                   /* came and was not looked at yet; 0 */
    int stopping;                      /* what the launcher ended it with; 0 */
    int agent_status;                  /* the guest's own word for how it ends; -1: none */
    const char *why;                   /* QEMU's reason of the last SHUTDOWN event; static */
};

/* main.c's one call: serves until the machine has ended. Returns the process's exit status. */
int supervisor_run(struct supervisor *s);
void supervisor_init(struct supervisor *s);

/* supervisor.c: one turn of the loop. requests: also what comes on sockets of the protocol. -EPIPE: QEMU has ended. */
int supervisor_turn(struct supervisor *s, int timeout_ms, bool requests);
/* supervisor.c: speaks with the QEMU that was launched, over this end. */
void supervisor_connect(struct supervisor *s, int qmp);

/* load.c: the setup socket. The answer is sent. False: this monitor has no future. */
bool load_prepare(struct supervisor *s, const struct monitor_prepare *prepare, int *kvm); /* taken; -1: emulation */
bool load_guest(struct supervisor *s, struct monitor_message *m);
void load_answer_ready(struct supervisor *s);

/* request.c: connections to the listening socket. False: close it. */
bool request_serve(struct supervisor *s, int connection);

/* resize.c: adds processors and memory until there is so much in all; what was added stays on failure. */
int resize_machine(struct supervisor *s, uint32_t vcpus, uint64_t memory_bytes, struct error **err);
/* Refuses what a machine with plugged parts cannot do. */
int resize_refuse(const struct supervisor *s, const char *what, struct error **err);

/* save.c */
int save_snapshot(struct supervisor *s, int file, struct error **err);
/* memory_apart: it is not in QEMU's state. The same for making and restoring. */
int save_capabilities(struct supervisor *s, bool memory_apart, struct error **err);
/* Waits until the state has come in. */
int save_wait_restored(struct supervisor *s, int timeout_ms, struct error **err);

/* save.c: QEMU's state out through a descriptor that it gets; the guest stands still. */
int save_state(struct supervisor *s, int to, struct error **err);

/* migrate.c: to and from another supervisor. Out: 0: it runs there, this one has nothing left. */
int migrate_out(struct supervisor *s, int control, struct error **err);
/* In, in this order: what comes (descriptors are the caller's; -1: none), where the state comes out, the word that the
 * other side will not go on, the word that it goes on here. */
struct arrival {
    struct snapshot snapshot;
    int ram, overlays[MONITOR_DISK_MAX];
};
int migrate_receive(int control, struct arrival *ret, struct error **err);
int migrate_offer(int control, int *ret_state, struct error **err);
int migrate_await(int control, struct error **err);
int migrate_confirm(int control, struct error **err);

/* console.c */
void console_read(struct supervisor *s, int *fd, enum log_stream stream); /* at most some KiB */
void console_input(struct supervisor *s, int *fd);
void console_flush(struct supervisor *s);
int console_open_input(struct supervisor *s, struct error **err); /* the write end */
void console_note(struct supervisor *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
void agent_read(struct supervisor *s);
void agent_send_identity(struct supervisor *s);
bool agent_power_off(struct supervisor *s);

/* end.c */
void end_events(void *supervisor, const char *name, const json_t *data);
int end_status(const struct supervisor *s);
void end_write(struct supervisor *s);
bool end_ask_guest(struct supervisor *s);

#endif
