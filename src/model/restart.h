/* SPDX-License-Identifier: Apache-2.0 */
/* Whether and when an instance that ended is started again. Pure; asked by the reconciler. */
#ifndef CORACLE_MODEL_RESTART_H
#define CORACLE_MODEL_RESTART_H

#include <stdbool.h>
#include <stdint.h>

#include "model/spec.h"

enum { RESTART_STEADY_MS = 10000 }; /* an instance that ran this long starts a new count */

struct restart_rule {
    enum restart_policy policy;
    uint32_t max;              /* restarts in a row; 0: without bound */
    uint32_t backoff_ms, backoff_max_ms;
};

/* good_exit: it ended by itself with status 0. in_a_row: restarts since it last ran RESTART_STEADY_MS. */
bool restart_wanted(const struct restart_rule *rule, bool good_exit, uint32_t in_a_row);

/* Milliseconds before restart number in_a_row (from 0): doubles from backoff_ms up to backoff_max_ms. */
uint32_t restart_delay(const struct restart_rule *rule, uint32_t in_a_row);

#endif
