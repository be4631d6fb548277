/* SPDX-License-Identifier: Apache-2.0 */
/* The bench's HTTP client against answers in odd pieces, and its command line. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "bench/http.h"
#include "bench/options.h"

struct peer {
    int fd;
    const char *answer;
    size_t piece;
};

static void *answer_main(void *argument)
{
    struct peer *p = argument;
    size_t n = strlen(p->answer);

    for (size_t i = 0; i < n; i += p->piece) {
        assert_true(write(p->fd, p->answer + i, n - i < p->piece ? n - i : p->piece) > 0);
        usleep(100);
    }
    shutdown(p->fd, SHUT_WR);
    return NULL;
}

static int receive(const char *answer, size_t piece, int *ret_status, json_t **ret_body, struct http *http)
{
    struct peer p = {.answer = answer, .piece = piece};
    pthread_t thread;
    int pair[2], r;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    p.fd = pair[1];
    *http = (struct http){.fd = pair[0]};
    pthread_create(&thread, NULL, answer_main, &p);
    r = http_receive(http, ret_status, ret_body, NULL);
    pthread_join(thread, NULL);
    close(pair[1]);
    return r;
}

static void test_answers(void **state)
{
    static const char *const answers[] = {
        "HTTP/1.1 202 Accepted\r\nContent-Length: 9\r\n\r\n{\"a\": 42}",
        "HTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\nX: Content-Length: 3\r\n\r\n4\r\n{\"a\"\r\n5;x=y\r\n: "
        "42}\r\n0\r\n\r\n",
    };

    for (size_t i = 0; i < 2; i++) {
        for (size_t piece = 1; piece < 40; piece += 6) {
            struct http http;
            json_t *body;
            int status;

            assert_int_equal(receive(answers[i], piece, &status, &body, &http), 0);
            assert_int_equal(status, 202);
            assert_int_equal(json_integer_value(json_object_get(body, "a")), 42);
            assert_int_equal(http.in_used, 0);
            json_decref(body);
            http_close(&http);
        }
    }
}

static void test_bad_answers(void **state)
{
    static const char *const answers[] = {
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"a\"",
        "SSH-2.0-x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n",
    };

    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        struct http http;
        json_t *body;
        int status;

        assert_true(receive(answers[i], 7, &status, &body, &http) < 0);
        http_close(&http);
    }
}

static void test_problem(void **state)
{
    json_t *body =
        json_pack("{s:s, s:s, s:s}", "code", "NAME_TAKEN", "detail", "name x is taken", "hint", "choose another");
    struct error *err = NULL;

    assert_true(http_problem(409, body, &err) < 0);
    assert_string_equal(err->code, "NAME_TAKEN");
    assert_string_equal(err->hint, "choose another");
    error_free(err);
    json_decref(body);
}

static int parse(struct bench_options *o, const char *a, const char *b, const char *c, const char *d)
{
    char *argv[] = {(char *)"bench",      (char *)(uintptr_t)a, (char *)(uintptr_t)b,
                    (char *)(uintptr_t)c, (char *)(uintptr_t)d, NULL};
    int argc = 1;

    while (argv[argc])
        argc++;
    return options_parse(argc, argv, o, NULL);
}

static void test_options(void **state)
{
    struct bench_options o;

    assert_int_equal(parse(&o, "--metric", "rtt,memory", "--runs", "5"), 0);
    assert_true(options_want_metric(&o, "rtt"));
    assert_false(options_want_metric(&o, "instantiation"));
    assert_int_equal(o.runs, 5);
    assert_string_equal(o.socket, "/run/coracle/api.sock");
    options_clear(&o);
    assert_int_equal(parse(&o, "--scale", "0,100,500", "--format", "html"), 0);
    assert_int_equal(o.scale_count, 3);
    assert_int_equal(o.scale[2], 500);
    assert_int_equal(o.format, REPORT_HTML);
    options_clear(&o);
    assert_true(parse(&o, "--metric", "speed", NULL, NULL) < 0);
    assert_true(parse(&o, "--against", "lxc", NULL, NULL) < 0);
    assert_true(parse(&o, "--runs", "-3", NULL, NULL) < 0);
    assert_true(parse(&o, "--runs", "2.5", NULL, NULL) < 0);
    assert_true(parse(&o, "--format", "pdf", NULL, NULL) < 0);
    assert_true(parse(&o, "stray", NULL, NULL, NULL) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_bad_answers),
        cmocka_unit_test(test_problem),
        cmocka_unit_test(test_options),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
