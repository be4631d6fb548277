/* SPDX-License-Identifier: Apache-2.0 */
/* The words of a container: what the launcher writes the guest reads back, and every wrong one is refused as a whole.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "guest/container.h"

static struct container_words whole(void)
{
    return (struct container_words){.arguments = {"/bin/sh", "", "-c", "a b\n%20="},
                                    .argument_count = 4,
                                    .env = {"A=", "B=x=y z"},
                                    .env_count = 2,
                                    .directory = "/srv",
                                    .user = "app:users",
                                    .terminal = true,
                                    .writable_bytes = 1 << 20,
                                    .memory_bytes = UINT64_C(5) << 32,
                                    .pids = 7,
                                    .capabilities = 0x800004fb,
                                    .stop_signal = 64};
}

static void comes_back_as_it_was(void **state)
{
    struct container_words in = whole(), out;
    auto_buffer struct buffer text = {0};
    const char *why = NULL;

    container_words_write(&in, &text);
    buffer_add(&text, "\0\0\0", 3); /* the rest of a sector */
    assert_int_equal(container_words_parse(text.data, text.length, &out, &why), 0);
    assert_int_equal(out.argument_count, 4);
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(out.arguments[i], in.arguments[i]);
    assert_null(out.arguments[4]);
    assert_int_equal(out.env_count, 2);
    assert_string_equal(out.env[0], "A=");
    assert_string_equal(out.env[1], "B=x=y z");
    assert_string_equal(out.directory, "/srv");
    assert_string_equal(out.user, "app:users");
    assert_true(out.terminal && !out.open_stdin && !out.read_only);
    assert_int_equal(out.writable_bytes, in.writable_bytes);
    assert_int_equal(out.memory_bytes, in.memory_bytes);
    assert_int_equal(out.pids, 7);
    assert_int_equal(out.capabilities, 0x800004fb);
    assert_int_equal(out.stop_signal, 64);
}

/* text: strings separated by |, the end as ||. */
static int parse(const char *strings, struct container_words *ret, const char **ret_why)
{
    static char text[4096];
    int n = snprintf(text, sizeof(text), "%s%s", CONTAINER_DISK_MAGIC, strings);

    for (char *c = text; *c; c++)
        if (*c == '|')
            *c = '\0';
    return container_words_parse(text, (size_t)n, ret, ret_why);
}

static void refuses_what_is_wrong(void **state)
{
    static const struct {
        const char *strings, *why;
    } cases[] = {
        {"arg=/x|directory=/|stop-signal=15||", NULL},
        {"arg=/x|directory=/|stop-signal=15|", "no end"},
        {"arg=/x|directory=/|stop-signal=15", "no end"},
        {"", "no end"},
        {"|", "no program"},
        {"arg=|directory=/|stop-signal=15||", "no program"},
        {"arg=/x|stop-signal=15||", "no directory"},
        {"arg=/x|directory=x|stop-signal=15||", "not absolute"},
        {"arg=/x|directory=/||", "no stop-signal"},
        {"arg=/x|directory=/|stop-signal=65||", "stop-signal"},
        {"arg=/x|directory=/|stop-signal=||", "stop-signal"},
        {"arg=/x|directory=/|stop-signal=15|memory=1x||", "memory"},
        {"arg=/x|directory=/|stop-signal=15|memory=-1||", "memory"},
        {"arg=/x|directory=/|stop-signal=15|memory=99999999999999999999||", "memory"},
        {"arg=/x|directory=/|stop-signal=15|writable=1099511627777||", "writable"},
        {"arg=/x|directory=/|stop-signal=15|pids=4194305||", "pids"},
        {"arg=/x|directory=/|stop-signal=15|capabilities=4294967296||", "capabilities"},
        {"arg=/x|directory=/|stop-signal=15|terminal=1||", "yes"},
        {"arg=/x|directory=/|stop-signal=15|user=||", "user"},
        {"arg=/x|directory=/|stop-signal=15|env=X||", "KEY=value"},
        {"arg=/x|directory=/|stop-signal=15|env==X||", "KEY=value"},
        {"arg=/x|directory=/|stop-signal=15|read-only=yes|writable=5||", "read-only"},
        {"arg=/x|directory=/|stop-signal=15|novel=yes||", "another release"},
        {"arg=/x|directory=/|stop-signal=15|no word||", "another release"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct container_words words;
        const char *why = "";
        int r = parse(cases[i].strings, &words, &why);

        if (r != (cases[i].why ? -EINVAL : 0) || (cases[i].why && !strstr(why, cases[i].why)))
            fail_msg("%s: %d \"%s\"", cases[i].strings, r, why);
    }
}

static void other_disks_are_told_apart(void **state)
{
    struct container_words words;
    char other[] = "coracle-metadata 1\nhostname=x", shorter[] = "coracle-con";
    const char *why = NULL;

    assert_int_equal(container_words_parse(other, sizeof(other), &words, &why), -ENOENT);
    assert_int_equal(container_words_parse(shorter, sizeof(shorter) - 1, &words, &why), -ENOENT);
    assert_int_equal(container_words_parse(other, 0, &words, &why), -ENOENT);
}

static void holds_what_a_plan_can_and_no_more(void **state)
{
    auto_buffer struct buffer text = {0};
    struct container_words words;
    const char *why = "";

    buffer_text(&text, CONTAINER_DISK_MAGIC);
    buffer_add(&text, "directory=/\0stop-signal=9", sizeof("directory=/\0stop-signal=9"));
    for (int i = 0; i < CONTAINER_STRINGS_MAX; i++) {
        buffer_add(&text, "arg=a", 6);
        buffer_add(&text, "env=A=", 7);
    }
    buffer_char(&text, '\0');
    assert_int_equal(container_words_parse(text.data, text.length, &words, &why), 0);
    assert_int_equal(words.argument_count, CONTAINER_STRINGS_MAX);
    text.length--;
    buffer_add(&text, "arg=a\0", 7);
    assert_int_equal(container_words_parse(text.data, text.length, &words, &why), -EINVAL);
    assert_non_null(strstr(why, "more arguments"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_as_it_was),
        cmocka_unit_test(refuses_what_is_wrong),
        cmocka_unit_test(other_disks_are_told_apart),
        cmocka_unit_test(holds_what_a_plan_can_and_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
