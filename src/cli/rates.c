/* SPDX-License-Identifier: Apache-2.0 */
/* Rates of counters. */
#include <stdlib.h>

#include "cli/rates.h"
#include "cli/text.h"

double rate_of(const json_t *before, const json_t *now, const char *key, uint64_t interval_ns, bool *ret_known)
{
    const json_t *a = json_object_get(before, key), *b = json_object_get(now, key);
    json_int_t x = json_integer_value(a), y = json_integer_value(b);

    *ret_known = json_is_integer(a) && json_is_integer(b) && y >= x && interval_ns > 0;
    return *ret_known ? (double)(y - x) * 1e9 / (double)interval_ns : 0;
}

char *rate_cpu(const json_t *before, const json_t *now, uint64_t interval_ns)
{
    bool known;
    double ns_per_s = rate_of(before, now, "cpu_ns", interval_ns, &known);

    return known ? text_printf("%.1f%%", ns_per_s / 1e7) : text_dup(NOT_MEASURED);
}

char *rate_count(const json_t *before, const json_t *now, const char *first, const char *second, uint64_t interval_ns)
{
    bool known, also = true;
    double rate = rate_of(before, now, first, interval_ns, &known);

    if (second)
        rate += rate_of(before, now, second, interval_ns, &also);
    if (!known || !also)
        return text_dup(NOT_MEASURED);
    if (rate >= 1e6)
        return text_printf("%.2fM", rate / 1e6);
    if (rate >= 1e4)
        return text_printf("%.1fk", rate / 1e3);
    return text_printf("%.0f", rate);
}
