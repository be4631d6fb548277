/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of the fake driver only: its executor's instances and jobs. */
#ifndef CORACLE_DRIVERS_FAKE_INTERNAL_H
#define CORACLE_DRIVERS_FAKE_INTERNAL_H

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "base/strmap.h"
#include "drivers/fake/fake.h"

struct fake_executor;

struct fake_instance {
    struct launch_plan plan; /* owned copy */
    struct fake_executor *executor;
    int32_t pid;
    bool running, paused;
    int32_t wait_status;
    uint64_t started_ns, exited_at_ns;
    uint64_t memory_peak;
    uint32_t execs;        /* number of the last one */
    int log_fd;            /* memfd */
    int console_fd;        /* our end, -1 */
    sd_event_source *life; /* fault "run": ends it */
    sd_event_source *console;
};

/* One request that will be answered: at once (next turn of the loop), later, or never (hang-start). */
struct fake_job {
    struct fake_executor *executor;
    struct fake_job *next, **link;
    enum message_type type;
    uint32_t request;
    char id[INSTANCE_ID_SIZE];
    int signal;
    uint32_t number; /* exec, or the request to cancel */
    struct limits limits;
    struct launch_plan plan;     /* MESSAGE_START */
    struct plan_process process; /* MESSAGE_EXEC */
    int fds[3];                  /* MESSAGE_EXEC: duplicates */
    executor_done done;
    void *context;
    sd_event_source *timer; /* NULL: hangs until cancelled */
};

struct fake_executor {
    struct executor base;
    sd_event *loop;
    struct strmap instances; /* id to struct fake_instance */
    struct fake_job *jobs;
    uint32_t last_request;
    int32_t last_pid;
    executor_event event;
    void *event_context;
};

/* Runs the few commands a fake instance knows (echo, cat, exit, sleep, false; else it prints the command line). Writes
 * to out and err; returns the exit status, and in *ret_delay_ms how long it takes. */
int fake_run_command(char *const *argv, int in, int out, uint32_t *ret_delay_ms);

/* Makes an instance that logs its start; plan is taken over. NULL: out of memory. */
struct fake_instance *fake_instance_new(struct fake_executor *, struct launch_plan *plan);
void fake_instance_free(struct fake_instance *);
/* One record as docs/formats/host-layout.md. */
void fake_log(struct fake_instance *, const char *stream, const char *text);
void fake_instance_exit(struct fake_instance *, int wait_status);
/* Opens its console for a client: ret_fd is the client's end. */
int fake_console(struct fake_instance *, int *ret_fd, struct error **err);
void fake_stats(const struct fake_instance *, struct instance_stats *ret);

#endif
