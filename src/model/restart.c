/* SPDX-License-Identifier: Apache-2.0 */
/* The restart policy's arithmetic. Pure; the daemon's reconciler keeps the timers. */
#include "model/restart.h"

bool restart_wanted(const struct restart_rule *rule, bool good_exit, uint32_t in_a_row)
{
    if (rule->policy == RESTART_NO || (rule->policy == RESTART_ON_FAILURE && good_exit))
        return false;
    return rule->max == 0 || in_a_row < rule->max;
}

uint32_t restart_delay(const struct restart_rule *rule, uint32_t in_a_row)
{
    uint64_t delay = rule->backoff_ms;

    for (uint32_t i = 0; i < in_a_row && delay < rule->backoff_max_ms; i++)
        delay = delay ? delay * 2 : 1;
    return delay < rule->backoff_max_ms ? (uint32_t)delay : rule->backoff_max_ms;
}
