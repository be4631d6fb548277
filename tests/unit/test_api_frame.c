/* SPDX-License-Identifier: Apache-2.0 */
/* The coracle-stream parser: every split of the bytes means the same, and what a client may not send ends it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "daemon/api/frame.h"

struct seen {
    char text[256];
    size_t length;
};

static void note(struct seen *seen, const void *bytes, size_t n)
{
    assert_true(seen->length + n < sizeof(seen->text));
    memcpy(seen->text + seen->length, bytes, n);
    seen->length += n;
    seen->text[seen->length] = '\0';
}

static int on_input(void *context, const void *bytes, size_t n)
{
    note(context, bytes, n);
    return 0;
}

static int on_end(void *context)
{
    note(context, "<end>", 5);
    return 0;
}

static int on_resize(void *context, uint16_t columns, uint16_t rows)
{
    char text[32];

    note(context, text, (size_t)snprintf(text, sizeof(text), "<%u,%u>", columns, rows));
    return 0;
}

static int on_signal(void *context, int number)
{
    char text[32];

    note(context, text, (size_t)snprintf(text, sizeof(text), "<signal %d>", number));
    return 0;
}

static const struct frame_sink sink = {on_input, on_end, on_resize, on_signal};

static size_t put(uint8_t *out, enum frame_stream stream, const char *text)
{
    frame_header(out, stream, (uint32_t)strlen(text));
    memcpy(out + FRAME_HEADER_SIZE, text, strlen(text));
    return FRAME_HEADER_SIZE + strlen(text);
}

static void any_split_means_the_same(void **state)
{
    uint8_t bytes[256];
    size_t n = put(bytes, FRAME_STDIN, "hello ");

    n += put(bytes + n, FRAME_CONTROL, "{\"resize\": [120, 40]}");
    n += put(bytes + n, FRAME_STDIN, "world");
    n += put(bytes + n, FRAME_CONTROL, "{\"signal\": \"SIGINT\"}");
    n += put(bytes + n, FRAME_STDIN, "");
    n += put(bytes + n, FRAME_CONTROL, "{\"signal\": \"TERM\"}");
    for (size_t step = 1; step <= n; step++) {
        struct frame_parser parser = {0};
        struct seen seen = {0};
        for (size_t at = 0; at < n; at += step)
            assert_int_equal(frame_parse(&parser, bytes + at, n - at < step ? n - at : step, &sink, &seen, NULL), 0);
        assert_string_equal(seen.text, "hello <120,40>world<signal 2><end><signal 15>");
    }
}

static void expect_code(const void *bytes, size_t n, const char *code)
{
    struct frame_parser parser = {0};
    struct seen seen = {0};
    struct error *err = NULL;

    assert_int_not_equal(frame_parse(&parser, bytes, n, &sink, &seen, &err), 0);
    assert_string_equal(err->code, code);
    error_free(err);
}

static void expect_control(const char *text, const char *code)
{
    uint8_t bytes[256];

    expect_code(bytes, put(bytes, FRAME_CONTROL, text), code);
}

static void refuses_what_no_client_sends(void **state)
{
    uint8_t twice[32];
    size_t n = put(twice, FRAME_STDIN, "");

    expect_code("\1\0\0\0\0\0\0\1x", 9, "PROTOCOL_ERROR");
    expect_code("\4\0\0\0\0\0\0\1x", 9, "PROTOCOL_ERROR");
    expect_code("\0\1\0\0\0\0\0\1x", 9, "PROTOCOL_ERROR");
    expect_code("\0\0\0\0\377\377\377\377", 8, "PROTOCOL_ERROR");
    expect_code("\3\0\0\0\0\0\0\0", 8, "PROTOCOL_ERROR");
    expect_code("\3\0\0\0\0\0\20\1", 8, "PROTOCOL_ERROR");
    n += put(twice + n, FRAME_STDIN, "x");
    expect_code(twice, n, "PROTOCOL_ERROR");
    expect_control("{}", "PROTOCOL_ERROR");
    expect_control("nonsense", "PROTOCOL_ERROR");
    expect_control("{\"resize\":[1,1],\"signal\":\"INT\"}", "PROTOCOL_ERROR");
    expect_control("{\"resize\":[0,1]}", "INVALID_VALUE");
    expect_control("{\"resize\":[70000,1]}", "INVALID_VALUE");
    expect_control("{\"resize\":[1,1,1]}", "INVALID_VALUE");
    expect_control("{\"resize\":\"1,1\"}", "INVALID_VALUE");
    expect_control("{\"signal\":\"SIGNOT\"}", "INVALID_VALUE");
    expect_control("{\"signal\":9}", "INVALID_VALUE");
}

static void names_signals(void **state)
{
    assert_int_equal(signal_number("SIGKILL"), SIGKILL);
    assert_int_equal(signal_number("HUP"), SIGHUP);
    assert_int_equal(signal_number("9"), 0);
    assert_int_equal(signal_number(""), 0);
    assert_string_equal(signal_name(SIGTERM), "TERM");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_split_means_the_same),
        cmocka_unit_test(refuses_what_no_client_sends),
        cmocka_unit_test(names_signals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
