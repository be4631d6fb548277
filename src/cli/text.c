/* SPDX-License-Identifier: Apache-2.0 */
/* Formatting and parsing of what people read and write. Pure functions. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/text.h"

static void *checked(void *p)
{
    if (!p) {
        fputs("coracle: out of memory\n", stderr);
        exit(1);
    }
    return p;
}

char *text_dup(const char *s)
{
    return checked(strdup(s));
}

void *text_alloc(size_t count, size_t size)
{
    return checked(calloc(count ? count : 1, size ? size : 1));
}

char *text_printf(const char *format, ...)
{
    char *s = NULL;
    va_list ap;

    va_start(ap, format);
    if (vasprintf(&s, format, ap) < 0)
        s = NULL;
    va_end(ap);
    return checked(s);
}

char *text_percent(const char *s)
{
    static const char digits[] = "0123456789ABCDEF";
    char *out = text_alloc(strlen(s) + 1, 3), *p = out;

    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;

        if (isalnum(c) || strchr("-._~", c)) {
            *p++ = (char)c;
        } else {
            *p++ = '%';
            *p++ = digits[c >> 4];
            *p++ = digits[c & 15];
        }
    }
    return out;
}

char *text_path(const char *format, ...)
{
    char *out = text_dup("");
    va_list ap;

    va_start(ap, format);
    while (*format) {
        const char *percent = strchrnul(format, '%');
        auto_free char *value = NULL;
        char *longer;

        if (*percent && percent[1] == 's')
            value = text_percent(va_arg(ap, const char *));
        else if (*percent)
            value = text_printf("%d", va_arg(ap, int));
        longer = text_printf("%s%.*s%s", out, (int)(percent - format), format, value ? value : "");
        free(out);
        out = longer;
        format = *percent ? percent + 2 : percent;
    }
    va_end(ap);
    return out;
}

char *text_bytes(uint64_t bytes)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes / 1024;
    size_t i = 0;

    if (bytes < 1024)
        return text_printf("%" PRIu64 " B", bytes);
    while (value >= 1023.95 && i + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        i++;
    }
    return text_printf(value >= 99.95 ? "%.0f %s" : "%.1f %s", value, units[i]);
}

char *text_duration_us(uint64_t us)
{
    if (us < 1000)
        return text_printf("%" PRIu64 " us", us);
    if (us < 1000000)
        return text_printf(us < 100000 ? "%.1f ms" : "%.0f ms", (double)us / 1e3);
    if (us < 60000000)
        return text_printf("%.2f s", (double)us / 1e6);
    return text_printf("%" PRIu64 "m%02" PRIu64 "s", us / 60000000, us / 1000000 % 60);
}

char *text_age(time_t then, time_t now)
{
    long long s = now > then ? (long long)(now - then) : 0;

    if (s < 120)
        return text_printf("%llds", s);
    if (s < 7200)
        return text_printf("%lldm", s / 60);
    if (s < 172800)
        return text_printf("%lldh", s / 3600);
    return text_printf("%lldd", s / 86400);
}

char *text_json(const json_t *value, const char *absent)
{
    if (!value || json_is_null(value))
        return text_dup(absent ? absent : NOT_MEASURED);
    if (json_is_string(value))
        return text_dup(json_string_value(value));
    if (json_is_real(value))
        return text_printf("%.12g", json_real_value(value));
    return checked(json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY));
}

const char *text_member(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));

    return s ? s : "";
}

int text_parse_time(const char *s, time_t *ret)
{
    struct tm tm = {0};
    const char *rest = strptime(s, "%Y-%m-%dT%H:%M:%S", &tm);

    if (!rest)
        return -EINVAL;
    if (*rest == '.')
        rest += 1 + strspn(rest + 1, "0123456789");
    if (strcmp(rest, "Z") != 0)
        return -EINVAL;
    *ret = timegm(&tm);
    return 0;
}

/* One or more of "1h30m", "500ms"; a bare number is in seconds. */
static int duration_ms(const char *s, uint64_t *ret)
{
    static const struct {
        const char *unit;
        uint64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    uint64_t total = 0;

    if (!isdigit((unsigned char)*s))
        return -EINVAL;
    while (*s) {
        char *end;
        double value = strtod(s, &end);
        size_t n = strspn(end, "hmsd"), i;

        if (!isdigit((unsigned char)*s) || value > 1e9)
            return -EINVAL;
        if (!*end && total == 0) {
            *ret = (uint64_t)(value * 1000);
            return 0;
        }
        for (i = 0; i < 5 && (strlen(units[i].unit) != n || strncmp(units[i].unit, end, n) != 0); i++)
            ;
        if (i == 5)
            return -EINVAL;
        total += (uint64_t)(value * (double)units[i].ms);
        s = end + n;
    }
    *ret = total;
    return 0;
}

int text_parse_duration_ms(const char *s, const char *what, uint64_t *ret, struct error **err)
{
    if (duration_ms(s, ret) == 0)
        return 0;
    error_set(err, EINVAL, "INVALID_UNIT", "%s: \"%s\" is not a duration", what, s);
    error_hint(err, "write a number and ms, s, m or h: 500ms, 10s, 1m30s; a bare number is in seconds");
    return -EINVAL;
}

int text_parse_since(const char *s, time_t now, char **ret, struct error **err)
{
    char text[40];
    struct tm tm;
    uint64_t ms;
    time_t then;

    if (text_parse_time(s, &then) == 0) {
        *ret = text_dup(s);
        return 0;
    }
    if (strspn(s, "0123456789") == strlen(s) && strlen(s) >= 9 && strlen(s) <= 12)
        then = (time_t)strtoll(s, NULL, 10);
    else if (duration_ms(s, &ms) == 0)
        then = now - (time_t)(ms / 1000);
    else {
        error_set(err, EINVAL, "INVALID_VALUE", "--since: \"%s\" is no point in time", s);
        error_hint(err, "give a duration back from now (10m, 2h), a Unix time, or 2026-01-02T03:04:05Z");
        return -EINVAL;
    }
    gmtime_r(&then, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S.000Z", &tm);
    *ret = text_dup(text);
    return 0;
}

int text_parse_u64(const char *s, const char *what, uint64_t *ret, struct error **err)
{
    char *end;

    errno = 0;
    *ret = strtoull(s, &end, 10);
    if (isdigit((unsigned char)*s) && !*end && !errno)
        return 0;
    return error_set(err, EINVAL, "INVALID_VALUE", "%s: \"%s\" is not a whole number", what, s);
}

int text_split_pair(const char *s, const char *what, char **ret_key, const char **ret_value, struct error **err)
{
    const char *equal = strchr(s, '=');

    if (!equal || equal == s) {
        error_set(err, EINVAL, "INVALID_VALUE", "%s: \"%s\" is not KEY=VALUE", what, s);
        return -EINVAL;
    }
    *ret_key = text_printf("%.*s", (int)(equal - s), s);
    *ret_value = equal + 1;
    return 0;
}

uint64_t clock_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
