/* SPDX-License-Identifier: Apache-2.0 */
/* The small tools of src/base: byte buffers and their JSON, string maps, "did you mean", string vectors, work beside.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/beside.h"
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

struct errand {
    int pipe[2];
    unsigned ran;
    pthread_t by;
};

/* Returns when somebody writes to the pipe, so that who began it decides when it is over. */
static void run_errand(void *context)
{
    struct errand *e = context;
    char byte;

    assert_int_equal(read(e->pipe[0], &byte, 1), 1);
    e->by = pthread_self();
    e->ran++;
}

static void errand_init(struct errand *e)
{
    *e = (struct errand){.ran = 0};
    assert_int_equal(pipe2(e->pipe, O_CLOEXEC), 0);
}

static void errand_clear(struct errand *e)
{
    close(e->pipe[0]);
    close(e->pipe[1]);
}

/* Two threads, both busy: the third piece of work is run by whoever needs it; a dropped one never. */
static void test_work_beside(void **state)
{
    struct beside *b = beside_open(2);
    struct beside_work works[4] = {{0}}, none = {0};
    struct errand errands[4];

    assert_non_null(b);
    for (int i = 0; i < 4; i++) {
        errand_init(&errands[i]);
        beside_begin(b, &works[i], run_errand, &errands[i]);
    }
    while (__atomic_load_n(&works[1].state, __ATOMIC_RELAXED) != BESIDE_BEGUN)
        usleep(1000);
    assert_false(beside_drop(b, &works[3]));
    assert_false(beside_ready(b, &works[0]) || beside_ready(b, &works[2]));
    assert_int_equal(write(errands[2].pipe[1], "x", 1), 1);
    beside_end(b, &works[2]);
    assert_true(errands[2].ran == 1 && pthread_equal(errands[2].by, pthread_self()));
    for (int i = 0; i < 2; i++)
        assert_int_equal(write(errands[i].pipe[1], "x", 1), 1);
    while (!beside_ready(b, &works[0]))
        usleep(1000);
    beside_end(b, &works[0]);
    assert_true(beside_drop(b, &works[1]));
    assert_false(pthread_equal(errands[0].by, pthread_self()));
    assert_true(errands[0].ran == 1 && errands[1].ran == 1 && errands[3].ran == 0);
    beside_end(b, &works[0]); /* again: nothing happens */
    beside_end(b, &none);
    assert_int_equal(errands[0].ran, 1);
    beside_close(b);
    for (int i = 0; i < 4; i++)
        errand_clear(&errands[i]);
}

static void test_beside_without_threads(void **state)
{
    struct beside_work work = {0};
    struct errand errand;

    errand_init(&errand);
    beside_begin(NULL, &work, run_errand, &errand);
    assert_false(beside_drop(NULL, &work));
    beside_begin(NULL, &work, run_errand, &errand);
    assert_int_equal(write(errand.pipe[1], "x", 1), 1);
    beside_end(NULL, &work);
    assert_int_equal(errand.ran, 1);
    errand_clear(&errand);
}

/* More than may wait: all are closed, each once. */
static void test_close_beside(void **state)
{
    enum { MANY = 600 };
    struct beside *b = beside_open(1);
    static int list[MANY];

    assert_non_null(b);
    for (int i = 0; i < MANY; i++)
        list[i] = fcntl(0, F_DUPFD_CLOEXEC, 100);
    for (int i = 0; i < MANY; i++)
        beside_close_fd(i % 7 ? b : NULL, list[i]);
    beside_close_fd(b, -1);
    beside_close(b);
    for (int i = 0; i < MANY; i++)
        assert_true(fcntl(list[i], F_GETFD) < 0 && errno == EBADF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_strings),
        cmocka_unit_test(test_numbers_and_times),
        cmocka_unit_test(test_map_property),
        cmocka_unit_test(test_suggestions),
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_work_beside),
        cmocka_unit_test(test_beside_without_threads),
        cmocka_unit_test(test_close_beside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
