/* SPDX-License-Identifier: Apache-2.0 */
/* The growable byte string behind every JSON answer. Doubles its room, so n bytes cost O(n). Any process. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buffer.h"

void buffer_clear(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer){0};
}

int buffer_reserve(struct buffer *buffer, size_t n)
{
    size_t wanted = buffer->length + n + 1, capacity = buffer->capacity ? buffer->capacity : 256;

    if (buffer->failed || wanted < n) {
        buffer->failed = true;
        return -ENOMEM;
    }
    if (wanted <= buffer->capacity)
        return 0;
    while (capacity < wanted)
        capacity *= 2;
    char *data = realloc(buffer->data, capacity);
    if (!data) {
        buffer->failed = true;
        return -ENOMEM;
    }
    buffer->data = data;
    buffer->capacity = capacity;
    return 0;
}

void buffer_add(struct buffer *buffer, const void *bytes, size_t n)
{
    if (buffer_reserve(buffer, n) < 0)
        return;
    if (n)
        memcpy(buffer->data + buffer->length, bytes, n);
    buffer->length += n;
    buffer->data[buffer->length] = '\0';
}

void buffer_text(struct buffer *buffer, const char *text)
{
    buffer_add(buffer, text, strlen(text));
}

void buffer_char(struct buffer *buffer, char c)
{
    buffer_add(buffer, &c, 1);
}

void buffer_u64(struct buffer *buffer, uint64_t value)
{
    char digits[20], *p = digits + sizeof(digits);

    do
        *--p = (char)('0' + value % 10);
    while (value /= 10);
    buffer_add(buffer, p, (size_t)(digits + sizeof(digits) - p));
}

void buffer_i64(struct buffer *buffer, int64_t value)
{
    if (value < 0)
        buffer_char(buffer, '-');
    buffer_u64(buffer, value < 0 ? -(uint64_t)value : (uint64_t)value);
}

void buffer_printf(struct buffer *buffer, const char *format, ...)
{
    va_list ap, again;
    int n;

    va_start(ap, format);
    va_copy(again, ap);
    n = vsnprintf(NULL, 0, format, ap);
    va_end(ap);
    if (n >= 0 && buffer_reserve(buffer, (size_t)n) == 0) {
        vsnprintf(buffer->data + buffer->length, (size_t)n + 1, format, again);
        buffer->length += (size_t)n;
    }
    va_end(again);
}

/* Length of the well-formed UTF-8 sequence at s (RFC 3629 section 4), 0 when there is none. */
static size_t utf8_length(const unsigned char *s)
{
    unsigned char low = 0x80, high = 0xbf;
    size_t n;

    if (s[0] >= 0xc2 && s[0] <= 0xdf)
        n = 2;
    else if (s[0] >= 0xe0 && s[0] <= 0xef)
        n = 3;
    else if (s[0] >= 0xf0 && s[0] <= 0xf4)
        n = 4;
    else
        return 0;
    if (s[0] == 0xe0)
        low = 0xa0;
    else if (s[0] == 0xed)
        high = 0x9f;
    else if (s[0] == 0xf0)
        low = 0x90;
    else if (s[0] == 0xf4)
        high = 0x8f;
    if (s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if (s[i] < 0x80 || s[i] > 0xbf)
            return 0;
    return n;
}

/* One character that cannot stand as it is. Returns how many input bytes it was. */
static size_t add_special(struct buffer *buffer, const unsigned char *s)
{
    size_t n = 1;

    if (*s == '"' || *s == '\\') {
        buffer_char(buffer, '\\');
        buffer_char(buffer, (char)*s);
    } else if (*s == '\n') {
        buffer_add(buffer, "\\n", 2);
    } else if (*s < 0x20 || *s == 0x7f) {
        buffer_printf(buffer, "\\u%04x", *s);
    } else if ((n = utf8_length(s)) > 0) {
        buffer_add(buffer, s, n);
    } else {
        buffer_add(buffer, "\xef\xbf\xbd", 3);
        n = 1;
    }
    return n;
}

void buffer_json(struct buffer *buffer, const char *text)
{
    const unsigned char *s = (const unsigned char *)text, *run = s;

    if (!text) {
        buffer_add(buffer, "null", 4);
        return;
    }
    buffer_char(buffer, '"');
    while (*s) {
        if (*s >= 0x20 && *s < 0x7f && *s != '"' && *s != '\\') {
            s++;
            continue;
        }
        buffer_add(buffer, run, (size_t)(s - run));
        s += add_special(buffer, s);
        run = s;
    }
    buffer_add(buffer, run, (size_t)(s - run));
    buffer_char(buffer, '"');
}

static char *two_digits(char *p, int value)
{
    *p++ = (char)('0' + value / 10 % 10);
    *p++ = (char)('0' + value % 10);
    return p;
}

void buffer_json_time(struct buffer *buffer, uint64_t realtime_ns)
{
    time_t seconds = (time_t)(realtime_ns / 1000000000u);
    int ms = (int)(realtime_ns / 1000000u % 1000u);
    char text[40], *p = text;
    struct tm utc;

    if (!realtime_ns || !gmtime_r(&seconds, &utc)) {
        buffer_add(buffer, "null", 4);
        return;
    }
    *p++ = '"';
    p = two_digits(p, (utc.tm_year + 1900) / 100);
    p = two_digits(p, (utc.tm_year + 1900) % 100);
    *p++ = '-';
    p = two_digits(p, utc.tm_mon + 1);
    *p++ = '-';
    p = two_digits(p, utc.tm_mday);
    *p++ = 'T';
    p = two_digits(p, utc.tm_hour);
    *p++ = ':';
    p = two_digits(p, utc.tm_min);
    *p++ = ':';
    p = two_digits(p, utc.tm_sec);
    *p++ = '.';
    *p++ = (char)('0' + ms / 100);
    p = two_digits(p, ms % 100);
    *p++ = 'Z';
    *p++ = '"';
    buffer_add(buffer, text, (size_t)(p - text));
}
