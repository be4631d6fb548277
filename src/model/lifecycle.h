/* SPDX-License-Identifier: Apache-2.0 */
/*
 * States of an instance and of an operation, after ETSI GS NFV-SOL 003 (clauses 5.6.2 and 5.5.2.13), as tables.
 *
 * Pure. The reconciler moves only along these; a move that is not in the table is a bug and is said so.
 */
#ifndef CORACLE_MODEL_LIFECYCLE_H
#define CORACLE_MODEL_LIFECYCLE_H

#include <stdbool.h>
#include <stdint.h>

enum instance_state {
    STATE_NOT_INSTANTIATED,
    STATE_STARTING,
    STATE_STARTED,
    STATE_PAUSED,
    STATE_STOPPING,
    STATE_STOPPED,
    STATE_FAILED,
    STATE_COUNT
};

enum instance_event {
    EVENT_START,          /* a start was sent to the executor */
    EVENT_START_DONE,
    EVENT_START_FAILED,
    EVENT_START_UNDONE,   /* a start was cancelled and rolled back, or its request could not be stored */
    EVENT_STOP,
    EVENT_STOP_UNDONE,    /* a stop was cancelled while it waited for the grace time */
    EVENT_PAUSE,
    EVENT_RESUME,
    EVENT_EXIT,           /* the application ended */
    EVENT_LOST,           /* the host no longer has it, and nobody can say how it ended */
    EVENT_RUNS,           /* found running by re-adoption */
    EVENT_COUNT
};

/* The state after event, or -1 when the event cannot happen in that state. */
int lifecycle_next(enum instance_state state, enum instance_event event);

const char *instance_state_name(enum instance_state state);
/* -1 for another word. */
int instance_state_parse(const char *word);
/* SOL003 InstantiatedVnfInfo.vnfState and VnfInstance.instantiationState. */
const char *instance_vnf_state(enum instance_state state);
const char *instance_instantiation_state(enum instance_state state);
/* The application is on the host: STARTED, PAUSED, STOPPING. */
bool instance_state_runs(enum instance_state state);

enum operation_kind {
    OPERATION_INSTANTIATE,
    OPERATION_OPERATE,
    OPERATION_MODIFY_INFO,
    OPERATION_HEAL,
    OPERATION_TERMINATE,
    OPERATION_PULL,
    OPERATION_CREATE_SNAPSHOT,
    OPERATION_KIND_COUNT
};

enum operation_state {
    OPERATION_STARTING,
    OPERATION_PROCESSING,
    OPERATION_COMPLETED,
    OPERATION_FAILED_TEMP,
    OPERATION_FAILED,
    OPERATION_ROLLING_BACK,
    OPERATION_ROLLED_BACK,
    OPERATION_STATE_COUNT
};

const char *operation_kind_name(enum operation_kind kind);
int operation_kind_parse(const char *word);
const char *operation_state_name(enum operation_state state);
int operation_state_parse(const char *word);
bool operation_state_may_follow(enum operation_state from, enum operation_state to);
/* Nothing more comes: COMPLETED, FAILED_TEMP, FAILED, ROLLED_BACK (this platform retries by a new operation). */
bool operation_state_ended(enum operation_state state);

#endif
