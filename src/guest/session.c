/* SPDX-License-Identifier: Apache-2.0 */
/* Frames of sessions (session.h): bounds are here, meaning is with the two sides. */
#include "guest/session.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

static_assert(sizeof(struct session_frame) == 8 && sizeof(struct session_open) == 12 &&
                  sizeof(struct session_size) == 4 && sizeof(struct session_taken) == 8,
              "no padding");

/* Bytes of a payload: least and most. */
static const struct {
    uint32_t least, most;
} sizes[SESSION_TYPE_COUNT] = {
    [SESSION_OPEN] = {sizeof(struct session_open) + 4, SESSION_PAYLOAD_MAX},
    [SESSION_INPUT] = {1, SESSION_DATA_MAX},
    [SESSION_INPUT_END] = {0, 0},
    [SESSION_SIGNAL] = {4, 4},
    [SESSION_RESIZE] = {sizeof(struct session_size), sizeof(struct session_size)},
    [SESSION_OPENED] = {0, 0},
    [SESSION_FAILED] = {2, 1024},
    [SESSION_OUTPUT] = {1, SESSION_DATA_MAX},
    [SESSION_ERRORS] = {1, SESSION_DATA_MAX},
    [SESSION_ENDED] = {4, 4},
    [SESSION_TAKEN] = {sizeof(struct session_taken), sizeof(struct session_taken)},
};

static bool header_is_good(const struct session_frame *f)
{
    return f->type >= SESSION_OPEN && f->type < SESSION_TYPE_COUNT && f->session <= SESSION_MAX &&
           f->size >= sizes[f->type].least && f->size <= sizes[f->type].most;
}

/* Two strings with their ends. */
static bool failure_is_good(const struct session_frame *f, const char *payload)
{
    const char *end = memchr(payload, '\0', f->size);

    return f->type != SESSION_FAILED || (end && end + 1 < payload + f->size && payload[f->size - 1] == '\0');
}

size_t session_room(struct session_reader *r, char **ret_at)
{
    *ret_at = r->bytes + r->used;
    return sizeof(r->bytes) - r->used;
}

int session_feed(struct session_reader *r, size_t n, session_take *take, void *context)
{
    size_t at = 0;

    r->used += n;
    while (r->used - at >= sizeof(struct session_frame)) {
        _Alignas(8) char payload[SESSION_PAYLOAD_MAX];
        struct session_frame f;

        memcpy(&f, r->bytes + at, sizeof(f));
        if (!header_is_good(&f))
            return -EPROTO;
        if (r->used - at < sizeof(f) + f.size)
            break;
        memcpy(payload, r->bytes + at + sizeof(f), f.size);
        if (!failure_is_good(&f, payload))
            return -EPROTO;
        at += sizeof(f) + f.size;
        take(context, &f, payload);
    }
    r->used -= at;
    memmove(r->bytes, r->bytes + at, r->used);
    return 0;
}

int session_parse_open(const char *payload, size_t size, char **vector, struct session_process *ret)
{
    const char *at = payload + sizeof(struct session_open), *end = payload + size;
    struct session_open open;
    size_t count;

    if (size < sizeof(open))
        return -EPROTO;
    memcpy(&open, payload, sizeof(open));
    if (open.argc < 1 || open.argc > SESSION_STRINGS_MAX || open.envc > SESSION_STRINGS_MAX - open.argc ||
        open.terminal > 1)
        return -EPROTO;
    count = (size_t)open.argc + open.envc + 2;
    for (size_t i = 0, slot = 0; i < count; i++) {
        const char *next = at < end ? memchr(at, '\0', (size_t)(end - at)) : NULL;

        if (!next)
            return -EPROTO;
        if (i == 2 + open.argc)
            vector[slot++] = NULL; /* between arguments and environment */
        vector[slot++] = (char *)(uintptr_t)at;
        at = next + 1;
    }
    if (at != end)
        return -EPROTO;
    ret->user = vector[0];
    ret->directory = vector[1];
    ret->arguments = vector + 2;
    ret->env = vector + 2 + open.argc + (open.envc ? 1 : 0);
    vector[2 + open.argc + (open.envc ? 1 + open.envc : 0)] = NULL;
    return *ret->directory == '/' ? 0 : -EPROTO;
}
