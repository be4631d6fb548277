/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes, durations, signals and names of descriptors: parsed by hand, as strtod() and friends accept far too much. */
#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"
#include "model/units.h"

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit sizes[] = {
    {"", 1},           {"B", 1},          {"kB", 1000},      {"MB", 1000000}, {"GB", 1000000000},
    {"KiB", 1u << 10}, {"MiB", 1u << 20}, {"GiB", 1u << 30},
};
static const struct unit durations[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}};

/* Digits with at most one point, in thousandths, so that 1.5GiB is exact. Returns the end, NULL when it is no number.
 */
static const char *parse_number(const char *text, uint64_t *ret_thousandths)
{
    uint64_t value = 0;
    int decimals = -1;
    const char *p = text;

    for (; isdigit((unsigned char)*p) || (*p == '.' && decimals < 0); p++) {
        if (*p == '.') {
            decimals = 0;
            continue;
        }
        if (decimals >= 3)
            return NULL;
        if (value > (UINT64_MAX / 1000 - 9) / 10)
            return NULL;
        value = value * 10 + (uint64_t)(*p - '0');
        decimals += decimals >= 0;
    }
    if (p == text || p[-1] == '.' || *text == '.')
        return NULL;
    for (int i = decimals < 0 ? 0 : decimals; i < 3; i++) {
        if (value > UINT64_MAX / 10)
            return NULL;
        value *= 10;
    }
    *ret_thousandths = value;
    return p;
}

static int parse_with_unit(const char *text, const char *path, const struct unit *units, size_t count,
                           const char *unit_list, uint64_t *ret, struct error **err)
{
    const char *nearest = NULL, *rest;
    uint64_t thousandths;

    if (*text == '-')
        return error_set(err, EINVAL, "INVALID_VALUE", "%s: %.64s is negative", path, text);
    rest = parse_number(text, &thousandths);
    if (!rest) {
        error_set(err, EINVAL, "INVALID_VALUE", "%s: \"%.64s\" is not a number with a unit", path, text);
        error_hint(err, "write for example \"64%s\"; units: %s", units[count > 4 ? 6 : 0].name, unit_list);
        return -EINVAL;
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(rest, units[i].name) != 0) {
            if (*units[i].name && *rest && strcasecmp(rest, units[i].name) == 0)
                nearest = units[i].name;
            else if (*units[i].name && *rest)
                suggest_offer(rest, units[i].name, &nearest);
            continue;
        }
        unsigned __int128 product = (unsigned __int128)thousandths * units[i].factor / 1000;
        if (product > INT64_MAX)
            return error_set(err, ERANGE, "INVALID_VALUE", "%s: %.64s is too large", path, text);
        *ret = (uint64_t)product;
        return 0;
    }
    error_set(err, EINVAL, "INVALID_UNIT", "%s: \"%.64s\" has %s%.16s%s", path, text,
              *rest ? "the unknown unit \"" : "no", *rest ? rest : " unit", *rest ? "\"" : "");
    if (nearest)
        error_hint(err, "did you mean \"%s\"? units: %s", nearest, unit_list);
    error_hint(err, "units: %s", unit_list);
    return -EINVAL;
}

int units_size(const char *text, const char *path, uint64_t *ret_bytes, struct error **err)
{
    return parse_with_unit(text, path, sizes, sizeof(sizes) / sizeof(sizes[0]), "B kB MB GB KiB MiB GiB", ret_bytes,
                           err);
}

int units_duration(const char *text, const char *path, uint32_t *ret_ms, struct error **err)
{
    uint64_t ms = 0;
    int r = parse_with_unit(text, path, durations, sizeof(durations) / sizeof(durations[0]), "ms s m", &ms, err);

    if (r < 0)
        return r;
    if (ms > 24 * 3600 * 1000u)
        return error_set(err, ERANGE, "INVALID_VALUE", "%s: %.64s is longer than a day", path, text);
    *ret_ms = (uint32_t)ms;
    return 0;
}

int units_signal(const char *text, const char *path, int *ret_signal, struct error **err)
{
    const char *word = strncasecmp(text, "SIG", 3) == 0 ? text + 3 : text, *nearest = NULL;
    char *end;
    long number = isdigit((unsigned char)*text) ? strtol(text, &end, 10) : 0;

    if (number >= 1 && number <= 64 && *end == '\0') {
        *ret_signal = (int)number;
        return 0;
    }
    for (int i = 1; i < 32; i++) {
        const char *name = sigabbrev_np(i);
        if (!name)
            continue;
        if (strcasecmp(word, name) == 0) {
            *ret_signal = i;
            return 0;
        }
        suggest_offer(word, name, &nearest);
    }
    if (strncasecmp(word, "RTMIN+", 6) == 0 && isdigit((unsigned char)word[6])) {
        number = strtol(word + 6, &end, 10);
        if (*end == '\0' && number <= 30) {
            *ret_signal = 34 + (int)number;
            return 0;
        }
    }
    error_set(err, EINVAL, "INVALID_VALUE", "%s: \"%.32s\" is not a signal", path, text);
    if (nearest)
        error_hint(err, "did you mean SIG%s?", nearest);
    error_hint(err, "write a name as in signal(7), for example SIGTERM, or a number from 1 to 64");
    return -EINVAL;
}

const char *units_signal_name(int signal, char *buf)
{
    const char *name = signal > 0 && signal < 32 ? sigabbrev_np(signal) : NULL;

    if (name)
        snprintf(buf, 16, "SIG%s", name);
    else if (signal >= 34 && signal <= 64)
        snprintf(buf, 16, "SIGRTMIN+%d", signal - 34);
    else
        snprintf(buf, 16, "%d", signal);
    return buf;
}

bool units_is_name(const char *text)
{
    size_t n = strlen(text);

    if (n < 1 || n > 63 || text[0] == '-' || text[n - 1] == '-')
        return false;
    return strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

/* One CPU number below 4096; returns its end or NULL. */
static const char *parse_cpu(const char *p, unsigned *ret)
{
    unsigned value = 0;

    if (!isdigit((unsigned char)*p))
        return NULL;
    for (; isdigit((unsigned char)*p); p++) {
        value = value * 10 + (unsigned)(*p - '0');
        if (value >= 4096)
            return NULL;
    }
    *ret = value;
    return p;
}

bool units_is_cpuset(const char *text)
{
    const char *p = text;

    for (;;) {
        unsigned first, last;
        p = parse_cpu(p, &first);
        if (p && *p == '-') {
            p = parse_cpu(p + 1, &last);
            if (p && last < first)
                return false;
        }
        if (!p)
            return false;
        if (*p == '\0')
            return true;
        if (*p++ != ',')
            return false;
    }
}
