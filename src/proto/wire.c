/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The field primitives behind the message codecs. What is decoded here comes from another process and is trusted in
 * nothing: every length is checked against what is left of the packet before it is used. Runs in daemon and launcher.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/wire.h"

void wire_fail(struct wire *w, int errnum, const char *what)
{
    if (w->error)
        return;
    w->error = errnum;
    w->what = what;
}

/* Whether n more bytes fit; they are skipped, and *ret_place is where they lie (NULL while only counting). */
static bool advance(struct wire *w, size_t n, uint8_t **ret_place)
{
    if (w->error)
        return false;
    if (n > w->size - w->at) {
        wire_fail(w, EMSGSIZE, w->mode == WIRE_DECODE ? "it ends within a field" : "it is too large for a packet");
        return false;
    }
    *ret_place = w->data ? w->data + w->at : NULL;
    w->at += n;
    return true;
}

static void integer(struct wire *w, uint64_t *value, size_t width)
{
    uint8_t *place;

    if (w->mode == WIRE_CLEAR || !advance(w, width, &place))
        return;
    if (w->mode == WIRE_ENCODE) {
        for (size_t i = 0; place && i < width; i++)
            place[i] = (uint8_t)(*value >> (8 * i));
        return;
    }
    *value = 0;
    for (size_t i = 0; i < width; i++)
        *value |= (uint64_t)place[i] << (8 * i);
}

void wire_u8(struct wire *w, uint8_t *value)
{
    uint64_t v = *value;

    integer(w, &v, 1);
    if (w->mode == WIRE_DECODE)
        *value = (uint8_t)v;
}

void wire_u16(struct wire *w, uint16_t *value)
{
    uint64_t v = *value;

    integer(w, &v, 2);
    if (w->mode == WIRE_DECODE)
        *value = (uint16_t)v;
}

void wire_u32(struct wire *w, uint32_t *value)
{
    uint64_t v = *value;

    integer(w, &v, 4);
    if (w->mode == WIRE_DECODE)
        *value = (uint32_t)v;
}

void wire_i32(struct wire *w, int32_t *value)
{
    uint64_t v = (uint32_t)*value;

    integer(w, &v, 4);
    if (w->mode == WIRE_DECODE)
        *value = (int32_t)(uint32_t)v;
}

void wire_u64(struct wire *w, uint64_t *value)
{
    integer(w, value, 8);
}

void wire_bool(struct wire *w, bool *value)
{
    uint8_t v = *value ? 1 : 0;

    wire_u8(w, &v);
    if (w->mode != WIRE_DECODE || w->error)
        return;
    if (v > 1)
        wire_fail(w, EBADMSG, "a truth value is neither 0 nor 1");
    else
        *value = v == 1;
}

void wire_range(struct wire *w, uint32_t *value, uint32_t min, uint32_t max)
{
    uint32_t v = *value;

    if (w->mode == WIRE_CLEAR)
        return;
    wire_u32(w, &v);
    if (w->error)
        return;
    if (v < min || v > max)
        wire_fail(w, EBADMSG, "a number is outside its range");
    else if (w->mode == WIRE_DECODE)
        *value = v;
}

void wire_count(struct wire *w, size_t *count, size_t max)
{
    uint32_t n = *count > max ? UINT32_MAX : (uint32_t)*count;

    if (w->mode == WIRE_CLEAR)
        return;
    wire_range(w, &n, 0, (uint32_t)max);
    if (w->mode == WIRE_DECODE)
        *count = w->error ? 0 : n;
}

void wire_bytes(struct wire *w, void *bytes, size_t size)
{
    uint8_t *place;

    if (w->mode == WIRE_CLEAR || !advance(w, size, &place) || !place)
        return;
    if (w->mode == WIRE_ENCODE)
        memcpy(place, bytes, size);
    else
        memcpy(bytes, place, size);
}

/* Length and bytes of a string being decoded; points into the packet. */
static bool take_text(struct wire *w, size_t max, const char **ret_text, size_t *ret_length)
{
    uint32_t length = 0;
    uint8_t *place;

    wire_range(w, &length, 0, (uint32_t)max);
    if (w->error || !advance(w, length, &place))
        return false;
    if (memchr(place, '\0', length)) {
        wire_fail(w, EBADMSG, "a string contains NUL");
        return false;
    }
    *ret_text = (const char *)place;
    *ret_length = length;
    return true;
}

static void put_text(struct wire *w, const char *text, size_t max)
{
    size_t length = strnlen(text, max + 1);
    uint32_t n = length > max ? UINT32_MAX : (uint32_t)length;

    wire_range(w, &n, 0, (uint32_t)max);
    if (!w->error)
        wire_bytes(w, (void *)text, length);
}

void wire_text(struct wire *w, char *text, size_t size)
{
    const char *from;
    size_t length;

    if (w->mode == WIRE_ENCODE)
        put_text(w, text, size - 1);
    if (w->mode != WIRE_DECODE || !take_text(w, size - 1, &from, &length))
        return;
    memset(text, 0, size);
    memcpy(text, from, length);
}

static char *take_string(struct wire *w, size_t max)
{
    const char *from;
    size_t length;
    char *copy;

    if (!take_text(w, max, &from, &length))
        return NULL;
    copy = strndup(from, length);
    if (!copy)
        wire_fail(w, ENOMEM, "out of memory");
    return copy;
}

void wire_string(struct wire *w, char **string, size_t max)
{
    bool present = w->mode == WIRE_ENCODE && *string;

    if (w->mode == WIRE_CLEAR) {
        free(*string);
        *string = NULL;
        return;
    }
    wire_bool(w, &present);
    if (!present || w->error)
        return;
    if (w->mode == WIRE_ENCODE)
        put_text(w, *string, max);
    else
        *string = take_string(w, max);
}

static void clear_strings(char ***strings)
{
    for (size_t i = 0; *strings && (*strings)[i]; i++)
        free((*strings)[i]);
    free(*strings);
    *strings = NULL;
}

/* Takes a string's bytes from what its lists may hold together. */
static bool spend(struct wire *w, size_t *budget, const char *string)
{
    size_t need = strlen(string) + 1;

    if (need > *budget) {
        wire_fail(w, EBADMSG, "a list of strings is too long");
        return false;
    }
    *budget -= need;
    return true;
}

static void put_strings(struct wire *w, char **strings, size_t count_max, size_t *budget)
{
    size_t count = 0;

    while (strings[count] && count <= count_max)
        count++;
    wire_count(w, &count, count_max);
    for (size_t i = 0; i < count && !w->error; i++)
        if (spend(w, budget, strings[i]))
            put_text(w, strings[i], strlen(strings[i]));
}

static char **take_strings(struct wire *w, size_t count_max, size_t *budget)
{
    size_t count = 0;
    char **list;

    wire_count(w, &count, count_max);
    if (w->error)
        return NULL;
    list = calloc(count + 1, sizeof(*list));
    if (!list)
        wire_fail(w, ENOMEM, "out of memory");
    for (size_t i = 0; i < count && !w->error; i++) {
        list[i] = take_string(w, *budget);
        if (list[i])
            spend(w, budget, list[i]);
    }
    return list; /* a half-filled one is terminated all the same, and freed by WIRE_CLEAR */
}

void wire_strings(struct wire *w, char ***strings, size_t count_max, size_t *budget)
{
    bool present = w->mode == WIRE_ENCODE && *strings;

    if (w->mode == WIRE_CLEAR) {
        clear_strings(strings);
        return;
    }
    wire_bool(w, &present);
    if (!present || w->error)
        return;
    if (w->mode == WIRE_ENCODE)
        put_strings(w, *strings, count_max, budget);
    else
        *strings = take_strings(w, count_max, budget);
}
