/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader of an instance's two log files: order, tail, since, filters, following through turns, and that the tail
 * of 100,000 lines needs no reading of all of them. Works on files in a temporary directory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "daemon/api/log_reader.h"

static char directory[] = "/tmp/coracle-log-XXXXXX";

static void file_name(int i, char out[64])
{
    snprintf(out, 64, "%s/log.%d", directory, i);
}

/* "2026-01-01T00:MM:SS.NNN..Z stream F line N" for records from..to. */
static void write_records(int file, int from, int to, bool begin_anew)
{
    char name[64];

    file_name(file, name);
    FILE *f = fopen(name, begin_anew ? "w" : "a");
    assert_non_null(f);
    for (int i = from; i < to; i++)
        fprintf(f, "2026-01-01T%02d:%02d:%02d.%09dZ %s F line %d\n", i / 3600000, i / 60000 % 60, i / 1000 % 60,
                i % 1000 * 1000000, i % 3 ? "stdout" : "stderr", i);
    fclose(f);
}

static void append(int file, const char *text)
{
    char name[64];

    file_name(file, name);
    FILE *f = fopen(name, "a");
    fputs(text, f);
    fclose(f);
}

static struct log_reader open_reader(enum log_streams streams, const char *since)
{
    struct log_reader reader;
    int fds[2];

    for (int i = 0; i < 2; i++) {
        char name[64];
        file_name(i, name);
        fds[i] = open(name, O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_true(fds[i] >= 0);
    }
    assert_int_equal(log_reader_open(&reader, fds, streams, since, NULL), 0);
    return reader;
}

/* Everything there is now, read through a buffer of the given size. */
static char *drain(struct log_reader *reader, size_t size)
{
    char *text = NULL, *piece = malloc(size);
    size_t length = 0;
    ssize_t n;

    while ((n = log_reader_read(reader, piece, size)) > 0) {
        text = realloc(text, length + (size_t)n + 1);
        memcpy(text + length, piece, (size_t)n);
        length += (size_t)n;
    }
    assert_int_equal(n, 0);
    free(piece);
    if (!text)
        text = malloc(1);
    text[length] = '\0';
    return text;
}

/* The text has exactly the records from..to that the filter lets through. */
static void expect_records(char *text, int from, int to, enum log_streams streams)
{
    char *at = text;

    for (int i = from; i < to; i++) {
        char wanted[64];
        if (!(streams & (i % 3 ? LOG_STDOUT : LOG_STDERR)))
            continue;
        char *end = strchr(at, '\n');
        assert_non_null(end);
        *end = '\0';
        snprintf(wanted, sizeof(wanted), " %s F line %d", i % 3 ? "stdout" : "stderr", i);
        if (!strstr(at, wanted))
            fail_msg("\"%s\" where line %d was expected", at, i);
        at = end + 1;
    }
    assert_string_equal(at, "");
    free(text);
}

static int setup(void **state)
{
    char name[64];

    for (int i = 0; i < 2; i++) {
        file_name(i, name);
        unlink(name);
    }
    return 0;
}

static void reads_both_in_order(void **state)
{
    write_records(1, 0, 1000, true);
    write_records(0, 1000, 1500, true);
    for (size_t size = 100; size < 100000; size *= 7) {
        struct log_reader reader = open_reader(LOG_BOTH, "");
        expect_records(drain(&reader, size), 0, 1500, LOG_BOTH);
        log_reader_close(&reader);
    }
}

static void filters_by_stream(void **state)
{
    write_records(0, 0, 1000, true);
    for (enum log_streams streams = LOG_STDOUT; streams <= LOG_BOTH; streams++) {
        struct log_reader reader = open_reader(streams, "");
        expect_records(drain(&reader, 4096), 0, 1000, streams);
        log_reader_close(&reader);
    }
}

static void tails(void **state)
{
    static const int counts[] = {0, 1, 5, 499, 500, 501, 1499, 1500, 5000};

    write_records(0, 0, 1000, true);
    write_records(1, 1000, 1500, true);
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        struct log_reader reader = open_reader(LOG_BOTH, "");
        assert_int_equal(log_reader_tail(&reader, (uint64_t)counts[i], NULL), 0);
        expect_records(drain(&reader, 4096), counts[i] < 1500 ? 1500 - counts[i] : 0, 1500, LOG_BOTH);
        log_reader_close(&reader);
    }
    struct log_reader reader = open_reader(LOG_STDERR, ""); /* every third: 1497, 1494, ... */
    assert_int_equal(log_reader_tail(&reader, 3, NULL), 0);
    expect_records(drain(&reader, 4096), 1491, 1500, LOG_STDERR);
    log_reader_close(&reader);
}

static void a_long_line_is_one_line(void **state)
{
    write_records(0, 0, 10, true);
    append(0, "2026-01-01T00:10:00.000000000Z stdout P part one, \n2026-01-01T00:10:00.000000001Z stdout P part two, \n"
              "2026-01-01T00:10:00.000000002Z stdout F end\n2026-01-01T00:10:00.000000003Z stdout F last\n");
    struct log_reader reader = open_reader(LOG_BOTH, "");
    assert_int_equal(log_reader_tail(&reader, 2, NULL), 0);
    char *text = drain(&reader, 4096);
    assert_memory_equal(text + 31, "stdout P part one, \n", 20);
    assert_non_null(strstr(text, "last\n"));
    assert_null(strstr(text, "line 9"));
    free(text);
    log_reader_close(&reader);
}

static void starts_at_a_time(void **state)
{
    static const int starts[] = {0, 1, 50, 999, 1000, 1001, 1499, 1500};
    char since[LOG_TIME_SIZE], text[64];

    write_records(0, 0, 1000, true);
    write_records(1, 1000, 1500, true);
    for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
        snprintf(text, sizeof(text), "2026-01-01T00:00:0%d.%03dZ", starts[i] / 1000, starts[i] % 1000);
        assert_int_equal(log_time_parse(text, since, NULL), 0);
        struct log_reader reader = open_reader(LOG_BOTH, since);
        expect_records(drain(&reader, 4096), starts[i], 1500, LOG_BOTH);
        log_reader_close(&reader);
    }
}

static void follows_through_turns(void **state)
{
    write_records(0, 0, 100, true);
    struct log_reader reader = open_reader(LOG_BOTH, "");

    expect_records(drain(&reader, 4096), 0, 100, LOG_BOTH);
    assert_false(log_reader_stirred(&reader));
    write_records(0, 100, 200, false);
    assert_true(log_reader_stirred(&reader));
    expect_records(drain(&reader, 4096), 100, 200, LOG_BOTH);
    /* The turn, with records just before it that were not read yet; several times around. */
    for (int turn = 0; turn < 6; turn++) {
        int base = 200 + turn * 300;
        write_records(turn % 2, base, base + 100, false);
        write_records((turn + 1) % 2, base + 100, base + 200, true);
        assert_true(log_reader_stirred(&reader));
        expect_records(drain(&reader, 1000), base, base + 200, LOG_BOTH);
        write_records((turn + 1) % 2, base + 200, base + 300, false);
        expect_records(drain(&reader, 1000), base + 200, base + 300, LOG_BOTH);
    }
    log_reader_close(&reader);
}

static void a_slow_reader_goes_on_at_the_oldest(void **state)
{
    write_records(0, 0, 100, true);
    struct log_reader reader = open_reader(LOG_BOTH, "");

    expect_records(drain(&reader, 4096), 0, 100, LOG_BOTH);
    write_records(1, 100, 200, true);
    write_records(0, 200, 300, true); /* both were begun anew behind its back */
    expect_records(drain(&reader, 4096), 100, 300, LOG_BOTH);
    log_reader_close(&reader);
}

static void hands_out_whole_records_only(void **state)
{
    append(0, "2026-01-01T00:00:00.000000001Z stdout F whole\n2026-01-01T00:00:00.000000002Z stdo");
    struct log_reader reader = open_reader(LOG_BOTH, "");
    char *text = drain(&reader, 4096);

    assert_string_equal(text, "2026-01-01T00:00:00.000000001Z stdout F whole\n");
    free(text);
    append(0, "ut F rest\n");
    text = drain(&reader, 4096);
    assert_string_equal(text, "2026-01-01T00:00:00.000000002Z stdout F rest\n");
    free(text);
    log_reader_close(&reader);
}

static void survives_foreign_bytes(void **state)
{
    char *garbage = malloc(200001);

    for (int i = 0; i < 200000; i++)
        garbage[i] = (char)(i * 7 % 250 + 1);
    garbage[200000] = '\0';
    append(0, garbage);
    append(0, "\n");
    write_records(0, 0, 10, false);
    struct log_reader reader = open_reader(LOG_BOTH, "");
    char *text = drain(&reader, 4096);
    assert_non_null(strstr(text, "line 9\n"));
    free(text);
    log_reader_close(&reader);
    reader = open_reader(LOG_BOTH, "");
    assert_int_equal(log_reader_tail(&reader, 5, NULL), 0);
    expect_records(drain(&reader, 4096), 5, 10, LOG_BOTH);
    log_reader_close(&reader);
    free(garbage);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void stays_fast_with_many_lines(void **state)
{
    char since[LOG_TIME_SIZE];

    write_records(0, 0, 60000, true);
    write_records(1, 60000, 100000, true);
    double start = now();
    for (int i = 0; i < 100; i++) {
        struct log_reader reader = open_reader(LOG_BOTH, "");
        assert_int_equal(log_reader_tail(&reader, 10, NULL), 0);
        expect_records(drain(&reader, 4096), 99990, 100000, LOG_BOTH);
        log_reader_close(&reader);
    }
    double tail = (now() - start) / 100;
    assert_int_equal(log_time_parse("2026-01-01T00:01:39.990Z", since, NULL), 0);
    start = now();
    for (int i = 0; i < 100; i++) {
        struct log_reader reader = open_reader(LOG_BOTH, since);
        expect_records(drain(&reader, 4096), 99990, 100000, LOG_BOTH);
        log_reader_close(&reader);
    }
    double since_time = (now() - start) / 100;
    struct log_reader reader = open_reader(LOG_BOTH, "");
    char piece[16384];
    size_t bytes = 0;
    start = now();
    for (ssize_t n; (n = log_reader_read(&reader, piece, sizeof(piece))) > 0;)
        bytes += (size_t)n;
    assert_true(bytes > 100000 * 50);
    printf("tail of 100,000 lines %.0f us, since %.0f us, all of them %.0f ms\n", tail * 1e6, since_time * 1e6,
           (now() - start) * 1e3);
    log_reader_close(&reader);
    assert_true(tail < 0.01 && since_time < 0.01); /* measured 0.1 ms; a scan of everything takes 10 ms and more */
}

static void parses_times(void **state)
{
    char out[LOG_TIME_SIZE];

    assert_int_equal(log_time_parse("2026-01-31T23:59:59Z", out, NULL), 0);
    assert_string_equal(out, "2026-01-31T23:59:59.000000000Z");
    assert_int_equal(log_time_parse("2026-01-31T23:59:59.12Z", out, NULL), 0);
    assert_string_equal(out, "2026-01-31T23:59:59.120000000Z");
    assert_int_equal(log_time_parse("0", out, NULL), 0);
    assert_string_equal(out, "1970-01-01T00:00:00.000000000Z");
    static const char *const bad[] = {"",
                                      "yesterday",
                                      "-1",
                                      "2026-01-31",
                                      "2026-01-31T23:59:59",
                                      "2026-01-31T23:59:59+01:00",
                                      "99999999999999999999",
                                      "2026-13-01T00:00:00Z"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_not_equal(log_time_parse(bad[i], out, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(reads_both_in_order, setup),
        cmocka_unit_test_setup(filters_by_stream, setup),
        cmocka_unit_test_setup(tails, setup),
        cmocka_unit_test_setup(a_long_line_is_one_line, setup),
        cmocka_unit_test_setup(starts_at_a_time, setup),
        cmocka_unit_test_setup(follows_through_turns, setup),
        cmocka_unit_test_setup(a_slow_reader_goes_on_at_the_oldest, setup),
        cmocka_unit_test_setup(hands_out_whole_records_only, setup),
        cmocka_unit_test_setup(survives_foreign_bytes, setup),
        cmocka_unit_test_setup(stays_fast_with_many_lines, setup),
        cmocka_unit_test(parses_times),
    };

    if (!mkdtemp(directory))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    setup(NULL);
    rmdir(directory);
    return failed;
}
