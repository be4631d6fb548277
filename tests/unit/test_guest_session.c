/* SPDX-License-Identifier: Apache-2.0 */
/* Frames of sessions: whole in whatever pieces they come, and what is none ends the stream. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "guest/session.h"

static struct session_reader reader;
static char taken[4096];
static size_t taken_size;

static void note(void *context, const struct session_frame *f, const char *payload)
{
    assert_ptr_equal(context, taken);
    assert_int_equal((uintptr_t)payload % 4, 0);
    taken_size += (size_t)snprintf(taken + taken_size, sizeof(taken) - taken_size, "%u/%u:%.*s ", f->type, f->session,
                                   (int)f->size, payload);
}

static size_t put(char *at, unsigned type, unsigned session, const char *payload, uint32_t size)
{
    const struct session_frame f = {(uint16_t)type, (uint16_t)session, size};

    memcpy(at, &f, sizeof(f));
    memcpy(at + sizeof(f), payload, size);
    return sizeof(f) + size;
}

static int feed(const char *bytes, size_t size, size_t piece)
{
    int r = 0;

    memset(&reader, 0, sizeof(reader));
    memset(taken, 0, sizeof(taken));
    taken_size = 0;
    for (size_t at = 0; at < size && r == 0; at += piece) {
        char *to;
        size_t n = size - at < piece ? size - at : piece;

        assert_true(session_room(&reader, &to) >= n);
        memcpy(to, bytes + at, n);
        r = session_feed(&reader, n, note, taken);
    }
    return r;
}

static void whole_in_any_pieces(void **state)
{
    char bytes[4096];
    size_t n = put(bytes, SESSION_OUTPUT, 3, "hello", 5);

    n += put(bytes + n, SESSION_OPENED, 16, "", 0);
    n += put(bytes + n, SESSION_ERRORS, 0, "x", 1);
    n += put(bytes + n, SESSION_FAILED, 1, "why\0", 5);
    for (size_t piece = 1; piece <= n; piece++) {
        assert_int_equal(feed(bytes, n, piece), 0);
        assert_string_equal(taken, "8/3:hello 6/16: 9/0:x 7/1:why ");
        assert_int_equal(reader.used, 0);
    }
    assert_int_equal(feed(bytes, n - 1, 7), 0);
    assert_string_equal(taken, "8/3:hello 6/16: 9/0:x ");
}

static void the_largest_fits(void **state)
{
    static char bytes[sizeof(struct session_frame) + SESSION_PAYLOAD_MAX], payload[SESSION_PAYLOAD_MAX];
    char *to;

    put(bytes, SESSION_OPEN, 1, payload, SESSION_PAYLOAD_MAX);
    assert_int_equal(feed(bytes, sizeof(bytes) - 1, 1000), 0);
    assert_int_equal(session_room(&reader, &to), 1);
    *to = 0;
    assert_int_equal(session_feed(&reader, 1, note, taken), 0);
    assert_int_equal(session_room(&reader, &to), sizeof(reader.bytes));
}

static void what_is_no_frame_ends_it(void **state)
{
    static const struct {
        unsigned type, session;
        uint32_t size;
        const char *payload;
    } bad[] = {
        {0, 1, 0, ""},
        {SESSION_TYPE_COUNT, 1, 0, ""},
        {SESSION_OUTPUT, SESSION_MAX + 1, 1, "x"},
        {SESSION_OUTPUT, 1, 0, ""},
        {SESSION_OUTPUT, 1, SESSION_DATA_MAX + 1, NULL},
        {SESSION_INPUT, 1, UINT32_MAX, NULL},
        {SESSION_OPEN, 1, SESSION_PAYLOAD_MAX + 1, NULL},
        {SESSION_ENDED, 1, 3, "abc"},
        {SESSION_ENDED, 1, 5, "abcde"},
        {SESSION_OPENED, 1, 1, "x"},
        {SESSION_TAKEN, 1, 4, "abcd"},
        {SESSION_FAILED, 1, 4, "abcd"},
        {SESSION_FAILED, 1, 4, "abc"},    /* one string only */
        {SESSION_FAILED, 1, 5, "abc\0d"}, /* the second has no end */
    };
    char bytes[64];

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        size_t n = put(bytes, bad[i].type, bad[i].session, bad[i].payload ? bad[i].payload : "", 0);

        memcpy(bytes + 4, &bad[i].size, 4);
        if (bad[i].payload)
            memcpy(bytes + n, bad[i].payload, bad[i].size);
        if (feed(bytes, n + (bad[i].payload ? bad[i].size : 0), 64) != -EPROTO || taken_size)
            fail_msg("frame %zu was taken: %s", i, taken);
    }
}

static int open_of(uint32_t terminal, uint32_t argc, uint32_t envc, const char *strings, size_t size,
                   struct session_process *ret)
{
    static char payload[SESSION_PAYLOAD_MAX], *vector[SESSION_STRINGS_MAX + 4];
    const struct session_open open = {terminal, argc, envc};

    memcpy(payload, &open, sizeof(open));
    memcpy(payload + sizeof(open), strings, size);
    return session_parse_open(payload, sizeof(open) + size, vector, ret);
}

static void a_command_is_its_strings(void **state)
{
    struct session_process p;

#define STRINGS(text) text, sizeof(text) - 1
    assert_int_equal(open_of(1, 2, 1, STRINGS("app\0/srv\0ls\0\0A=b\0"), &p), 0);
    assert_string_equal(p.user, "app");
    assert_string_equal(p.directory, "/srv");
    assert_string_equal(p.arguments[0], "ls");
    assert_string_equal(p.arguments[1], "");
    assert_null(p.arguments[2]);
    assert_string_equal(p.env[0], "A=b");
    assert_null(p.env[1]);
    assert_int_equal(open_of(0, 1, 0, STRINGS("\0/\0x\0"), &p), 0);
    assert_null(p.arguments[1]);
    assert_null(p.env[0]);
    assert_int_equal(open_of(0, 0, 1, STRINGS("\0/\0x\0"), &p), -EPROTO);
    assert_int_equal(open_of(0, 2, 0, STRINGS("\0/\0x\0"), &p), -EPROTO);    /* one is missing */
    assert_int_equal(open_of(0, 1, 0, STRINGS("\0/\0x\0y\0"), &p), -EPROTO); /* one too many */
    assert_int_equal(open_of(0, 1, 0, STRINGS("\0/\0x"), &p), -EPROTO);      /* no end */
    assert_int_equal(open_of(0, 1, 0, STRINGS("\0srv\0x\0"), &p), -EPROTO);  /* not absolute */
    assert_int_equal(open_of(2, 1, 0, STRINGS("\0/\0x\0"), &p), -EPROTO);
    assert_int_equal(open_of(0, SESSION_STRINGS_MAX, 1, STRINGS("\0/\0x\0"), &p), -EPROTO);
    assert_int_equal(open_of(0, 1, UINT32_MAX, STRINGS("\0/\0x\0"), &p), -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_in_any_pieces),
        cmocka_unit_test(the_largest_fits),
        cmocka_unit_test(what_is_no_frame_ends_it),
        cmocka_unit_test(a_command_is_its_strings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
