/* SPDX-License-Identifier: Apache-2.0 */
/* The life cycle as tables; read by the reconciler, the renderers and the tests that walk every cell. */
#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "model/lifecycle.h"

/* Cells are next state + 1, so that an empty cell (0) reads as "cannot happen". */
#define TO(state) (STATE_##state + 1)

static const signed char table[STATE_COUNT][EVENT_COUNT] = {
    [STATE_NOT_INSTANTIATED] = {[EVENT_START] = TO(STARTING), [EVENT_RUNS] = TO(STARTED)},
    [STATE_STARTING] = {[EVENT_START] = TO(STARTING),
                        [EVENT_START_DONE] = TO(STARTED),
                        [EVENT_START_FAILED] = TO(FAILED),
                        [EVENT_START_UNDONE] = TO(NOT_INSTANTIATED),
                        [EVENT_LOST] = TO(FAILED),
                        [EVENT_RUNS] = TO(STARTED),
                        [EVENT_EXIT] = TO(STOPPED),
                        [EVENT_STOP] = TO(STOPPING)},
    [STATE_STARTED] = {[EVENT_STOP] = TO(STOPPING),
                       [EVENT_PAUSE] = TO(PAUSED),
                       [EVENT_EXIT] = TO(STOPPED),
                       [EVENT_LOST] = TO(FAILED),
                       [EVENT_RUNS] = TO(STARTED),
                       [EVENT_START_UNDONE] = TO(NOT_INSTANTIATED)},
    [STATE_PAUSED] = {[EVENT_RESUME] = TO(STARTED),
                      [EVENT_STOP] = TO(STOPPING),
                      [EVENT_EXIT] = TO(STOPPED),
                      [EVENT_LOST] = TO(FAILED),
                      [EVENT_RUNS] = TO(STARTED),
                      [EVENT_PAUSE] = TO(PAUSED)},
    [STATE_STOPPING] = {[EVENT_EXIT] = TO(STOPPED),
                        [EVENT_LOST] = TO(STOPPED),
                        [EVENT_STOP_UNDONE] = TO(STARTED),
                        [EVENT_STOP] = TO(STOPPING),
                        [EVENT_RUNS] = TO(STOPPING),
                        [EVENT_RESUME] = TO(STOPPING)},
    [STATE_STOPPED] = {[EVENT_START] = TO(STARTING),
                       [EVENT_RUNS] = TO(STARTED),
                       [EVENT_EXIT] = TO(STOPPED),
                       [EVENT_LOST] = TO(STOPPED),
                       [EVENT_START_UNDONE] = TO(NOT_INSTANTIATED)},
    [STATE_FAILED] = {[EVENT_START] = TO(STARTING),
                      [EVENT_RUNS] = TO(STARTED),
                      [EVENT_EXIT] = TO(FAILED),
                      [EVENT_LOST] = TO(FAILED)},
};

int lifecycle_next(enum instance_state state, enum instance_event event)
{
    return table[state][event] - 1;
}

static const char *const state_names[] = {
    [STATE_NOT_INSTANTIATED] = "NOT_INSTANTIATED",
    [STATE_STARTING] = "STARTING",
    [STATE_STARTED] = "STARTED",
    [STATE_PAUSED] = "PAUSED",
    [STATE_STOPPING] = "STOPPING",
    [STATE_STOPPED] = "STOPPED",
    [STATE_FAILED] = "FAILED",
};
static_assert(sizeof(state_names) / sizeof(state_names[0]) == STATE_COUNT, "a name for every instance state");

static const char *const kind_names[] = {
    [OPERATION_INSTANTIATE] = "INSTANTIATE", [OPERATION_OPERATE] = "OPERATE",
    [OPERATION_MODIFY_INFO] = "MODIFY_INFO", [OPERATION_HEAL] = "HEAL",
    [OPERATION_TERMINATE] = "TERMINATE",     [OPERATION_PULL] = "PULL",
    [OPERATION_CREATE_SNAPSHOT] = "CREATE_SNAPSHOT",
};
static_assert(sizeof(kind_names) / sizeof(kind_names[0]) == OPERATION_KIND_COUNT, "a name for every operation");

static const char *const operation_names[] = {
    [OPERATION_STARTING] = "STARTING",       [OPERATION_PROCESSING] = "PROCESSING",
    [OPERATION_COMPLETED] = "COMPLETED",     [OPERATION_FAILED_TEMP] = "FAILED_TEMP",
    [OPERATION_FAILED] = "FAILED",           [OPERATION_ROLLING_BACK] = "ROLLING_BACK",
    [OPERATION_ROLLED_BACK] = "ROLLED_BACK",
};
static_assert(sizeof(operation_names) / sizeof(operation_names[0]) == OPERATION_STATE_COUNT,
              "a name for every operation state");

static int find(const char *word, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(word, names[i]) == 0)
            return (int)i;
    return -1;
}

const char *instance_state_name(enum instance_state state)
{
    return state_names[state];
}

int instance_state_parse(const char *word)
{
    return find(word, state_names, STATE_COUNT);
}

bool instance_state_runs(enum instance_state state)
{
    return state == STATE_STARTED || state == STATE_PAUSED || state == STATE_STOPPING;
}

const char *instance_vnf_state(enum instance_state state)
{
    return instance_state_runs(state) ? "STARTED" : "STOPPED";
}

const char *instance_instantiation_state(enum instance_state state)
{
    return state == STATE_NOT_INSTANTIATED ? "NOT_INSTANTIATED" : "INSTANTIATED";
}

const char *operation_kind_name(enum operation_kind kind)
{
    return kind_names[kind];
}

int operation_kind_parse(const char *word)
{
    return find(word, kind_names, OPERATION_KIND_COUNT);
}

const char *operation_state_name(enum operation_state state)
{
    return operation_names[state];
}

int operation_state_parse(const char *word)
{
    return find(word, operation_names, OPERATION_STATE_COUNT);
}

bool operation_state_may_follow(enum operation_state from, enum operation_state to)
{
    static const uint8_t allowed[OPERATION_STATE_COUNT] = {
        [OPERATION_STARTING] = 1 << OPERATION_PROCESSING | 1 << OPERATION_COMPLETED | 1 << OPERATION_FAILED |
                               1 << OPERATION_FAILED_TEMP | 1 << OPERATION_ROLLED_BACK | 1 << OPERATION_ROLLING_BACK,
        [OPERATION_PROCESSING] =
            1 << OPERATION_COMPLETED | 1 << OPERATION_FAILED_TEMP | 1 << OPERATION_FAILED | 1 << OPERATION_ROLLING_BACK,
        [OPERATION_ROLLING_BACK] = 1 << OPERATION_ROLLED_BACK | 1 << OPERATION_FAILED_TEMP | 1 << OPERATION_FAILED,
    };
    return allowed[from] >> to & 1;
}

bool operation_state_ended(enum operation_state state)
{
    return state == OPERATION_COMPLETED || state == OPERATION_FAILED_TEMP || state == OPERATION_FAILED ||
           state == OPERATION_ROLLED_BACK;
}
