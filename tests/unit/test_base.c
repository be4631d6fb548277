/* SPDX-License-Identifier: Apache-2.0 */
/* The small tools of src/base: byte buffers and their JSON, string maps, "did you mean", string vectors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "base/strmap.h"
#include "base/strv.h"
#include "base/suggest.h"

static void expect_json(const char *text, const char *json)
{
    struct buffer out = {0};

    buffer_json(&out, text);
    assert_string_equal(out.data, json);
    buffer_clear(&out);
}

static void test_json_strings(void **state)
{
    expect_json(NULL, "null");
    expect_json("", "\"\"");
    expect_json("plain", "\"plain\"");
    expect_json("a\"b\\c\n\t\x01\x7f", "\"a\\\"b\\\\c\\n\\u0009\\u0001\\u007f\"");
    expect_json("\xc3\xa4\xe2\x82\xac\xf0\x9f\x99\x82", "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x99\x82\"");
    expect_json("\xff", "\"\xef\xbf\xbd\"");
    expect_json("\xc3", "\"\xef\xbf\xbd\"");                                   /* cut off */
    expect_json("\xc0\xaf", "\"\xef\xbf\xbd\xef\xbf\xbd\"");                   /* overlong */
    expect_json("\xed\xa0\x80x", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdx\""); /* a surrogate */
    expect_json("\xf4\x90\x80\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
}

static void test_numbers_and_times(void **state)
{
    struct buffer out = {0};

    buffer_u64(&out, 0);
    buffer_char(&out, ' ');
    buffer_u64(&out, UINT64_MAX);
    buffer_char(&out, ' ');
    buffer_i64(&out, INT64_MIN);
    buffer_char(&out, ' ');
    buffer_json_time(&out, 0);
    buffer_char(&out, ' ');
    buffer_json_time(&out, 1475712003123456789u);
    assert_string_equal(out.data, "0 18446744073709551615 -9223372036854775808 null \"2016-10-06T00:00:03.123Z\"");
    buffer_clear(&out);
    for (int i = 0; i < 100000; i++) /* grows over many steps without losing a byte */
        buffer_printf(&out, "%d,", i % 10);
    assert_int_equal(out.length, 200000);
    assert_false(out.failed);
    buffer_clear(&out);
}

static void test_map_property(void **state)
{
    enum { KEYS = 3000 };
    static char keys[KEYS][8];
    static bool in[KEYS];
    struct strmap map = {0};
    unsigned seed = 3;
    size_t count = 0;

    assert_null(strmap_get(&map, "x"));
    assert_null(strmap_remove(&map, "x"));
    for (int i = 0; i < KEYS; i++)
        snprintf(keys[i], sizeof(keys[i]), "k%d", i);
    for (int step = 0; step < 300000; step++) {
        int k = rand_r(&seed) % KEYS;
        assert_ptr_equal(strmap_get(&map, keys[k]), in[k] ? keys[k] : NULL);
        if (in[k]) {
            assert_ptr_equal(strmap_remove(&map, keys[k]), keys[k]);
            count--;
        } else {
            assert_int_equal(strmap_put(&map, keys[k], keys[k]), 0);
            count++;
        }
        in[k] = !in[k];
        assert_int_equal(map.count, count);
    }
    for (int k = 0; k < KEYS; k++)
        assert_ptr_equal(strmap_get(&map, keys[k]), in[k] ? keys[k] : NULL);
    strmap_clear(&map);
}

static void test_suggestions(void **state)
{
    const char *best = NULL;

    assert_int_equal(suggest_distance("", ""), 0);
    assert_int_equal(suggest_distance("kitten", "sitting"), 3);
    assert_int_equal(suggest_distance("imgae", "image"), 1);
    assert_int_equal(suggest_distance("ABC", "abc"), 0);
    suggest_offer("memroy", "memory", &best);
    suggest_offer("memroy", "members", &best);
    assert_string_equal(best, "memory");
    best = NULL;
    suggest_offer("xyz", "memory", &best);
    assert_null(best);
}

static void test_vectors(void **state)
{
    char *words[] = {(char *)"a", (char *)"b", NULL};
    char **copy = strv_copy(words);

    assert_int_equal(strv_count(NULL), 0);
    assert_int_equal(strv_count(copy), 2);
    assert_string_equal(copy[1], "b");
    assert_ptr_not_equal(copy[1], words[1]);
    assert_null(strv_copy(NULL));
    strv_free(copy);
    strv_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_strings), cmocka_unit_test(test_numbers_and_times),
        cmocka_unit_test(test_map_property), cmocka_unit_test(test_suggestions),
        cmocka_unit_test(test_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
