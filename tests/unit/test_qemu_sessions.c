/* SPDX-License-Identifier: Apache-2.0 */
/* coracle-qemu's end of sessions, with a guest that is this test: what it answers, and what it may not make it do. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "qemu/supervisor.h"

static struct supervisor s;
static int guest; /* the other end of the port */
static char noted[512];

/* supervisor.c and console.c are not linked: the one word sessions.c has for the log comes here. */
void console_note(struct supervisor *of, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    vsnprintf(noted, sizeof(noted), format, ap);
    va_end(ap);
}

static int begin(void **state)
{
    int pair[2];

    memset(&s, 0, sizeof(s));
    *noted = '\0';
    for (int i = 0; i < CONNECTION_MAX; i++)
        s.connections[i] = -1;
    s.log = (struct log_file){.fds = {-1, -1}};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    s.sessions.port = pair[0];
    guest = pair[1];
    return 0;
}

static int end(void **state)
{
    sessions_close(&s);
    close(guest);
    return 0;
}

/* What the loop would do, until nothing happens any more. */
struct polled {
    struct pollfd fds[SESSION_PLACES];
    int *places[SESSION_PLACES];
    unsigned n;
};

static void add(void *context, int *place, short events)
{
    struct polled *p = context;

    if (*place < 0)
        return;
    assert_true(p->n < SESSION_PLACES);
    /* the loop looks at a place after others were served, who may have ended its session: it must outlive that */
    assert_true((char *)place >= (char *)&s && (char *)place < (char *)(&s + 1));
    p->fds[p->n] = (struct pollfd){*place, events, 0};
    p->places[p->n++] = place;
}

static void turn(void)
{
    for (int rounds = 0; rounds < 2000; rounds++) {
        struct polled p = {.n = 0};

        sessions_collect(&s, add, &p);
        if (poll(p.fds, p.n, 20) <= 0)
            return;
        for (unsigned i = 0; i < p.n; i++)
            if (p.fds[i].revents && *p.places[i] == p.fds[i].fd) /* as supervisor_turn(): not what was closed since */
                assert_true(sessions_happened(&s, p.places[i], p.fds[i].revents));
    }
}

static void say(unsigned type, unsigned number, const void *payload, size_t size)
{
    const struct session_frame f = {(uint16_t)type, (uint16_t)number, (uint32_t)size};

    assert_int_equal(write(guest, &f, sizeof(f)), sizeof(f));
    if (size)
        assert_int_equal(write(guest, payload, size), (ssize_t)size);
    turn();
}

/* The next frame of the host; its payload is left in text, terminated. */
static struct session_frame hear(char text[SESSION_PAYLOAD_MAX + 1])
{
    struct session_frame f = {0};

    if (read(guest, &f, sizeof(f)) != sizeof(f))
        return (struct session_frame){0};
    assert_true(f.size <= SESSION_PAYLOAD_MAX);
    if (f.size)
        assert_int_equal(read(guest, text, f.size), (ssize_t)f.size);
    text[f.size] = '\0';
    return f;
}

/* A client: its connection, and its ends of the pipes. */
struct client {
    int connection, in, out, errors;
};

static struct client execute(unsigned *ret_number)
{
    static struct monitor_message m;
    static char text[SESSION_PAYLOAD_MAX + 1];
    const char strings[] = "app\0/srv\0cat\0-v\0A=b";
    struct error *err = NULL;
    int wire[2], in[2], out[2], errors[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, wire), 0);
    assert_int_equal(pipe2(in, O_CLOEXEC) | pipe2(out, O_CLOEXEC) | pipe2(errors, O_CLOEXEC), 0);
    m = (struct monitor_message){.fd_count = 3, .fds = {in[0], out[1], errors[1]}};
    m.exec = (struct monitor_exec){.argc = 2, .envc = 1, .strings_size = sizeof(strings)};
    memcpy(m.bytes + sizeof(m.exec), strings, sizeof(strings));
    for (int i = 0; i < CONNECTION_MAX; i++)
        if (s.connections[i] < 0) {
            s.connections[i] = wire[0];
            break;
        }
    assert_int_equal(sessions_exec(&s, wire[0], &m, &err), 0);
    assert_int_equal(m.fds[0], -1); /* they are the session's */
    struct session_frame f = hear(text);
    assert_int_equal(f.type, SESSION_OPEN);
    struct session_process p;
    char *vector[SESSION_STRINGS_MAX + 4];
    assert_int_equal(session_parse_open(text, f.size, vector, &p), 0);
    assert_string_equal(p.arguments[1], "-v");
    assert_string_equal(p.env[0], "A=b");
    *ret_number = f.session;
    fcntl(out[0], F_SETFL, O_NONBLOCK);
    fcntl(errors[0], F_SETFL, O_NONBLOCK);
    return (struct client){wire[1], in[1], out[0], errors[0]};
}

static void leave(struct client *c)
{
    close_fd(c->connection);
    close_fd(c->in);
    close_fd(c->out);
    close_fd(c->errors);
}

static int answer(const struct client *c, struct monitor_message *m)
{
    return monitor_receive(c->connection, m, NULL) == 1 ? m->header.type : 0;
}

static void a_command_from_its_begin_to_its_end(void **state)
{
    static struct monitor_message m;
    static char text[SESSION_PAYLOAD_MAX + 1];
    const int32_t status = 5 << 8;
    char got[64] = "";
    unsigned number;
    struct client c = execute(&number);

    assert_int_equal(answer(&c, &m), 0); /* the guest has not said that it runs */
    say(SESSION_OPENED, number, NULL, 0);
    assert_int_equal(answer(&c, &m), MONITOR_DONE);
    assert_int_equal(write(c.in, "typed", 5), 5);
    turn();
    struct session_frame f = hear(text);
    assert_int_equal(f.type, SESSION_INPUT);
    assert_string_equal(text, "typed");
    c.in = close_fd(c.in);
    turn();
    assert_int_equal(hear(text).type, SESSION_INPUT_END);
    assert_int_equal(sessions_signal(&s, s.sessions.list[number - 1]->connection, 15, NULL), 0);
    f = hear(text);
    assert_int_equal(f.type * 100 + f.session, SESSION_SIGNAL * 100 + number);
    assert_int_equal(text[0], 15);
    say(SESSION_OUTPUT, number, "good", 4);
    say(SESSION_ERRORS, number, "bad", 3);
    assert_int_equal(read(c.out, got, sizeof(got)), 4);
    assert_int_equal(read(c.errors, got, sizeof(got)), 3);
    assert_memory_equal(got, "bad", 3);
    assert_int_equal(hear(text).type, SESSION_TAKEN);
    assert_int_equal(hear(text).type, SESSION_TAKEN);
    say(SESSION_ENDED, number, &status, sizeof(status));
    assert_int_equal(answer(&c, &m), MONITOR_ENDED);
    assert_int_equal(m.ended.wait_status, status);
    assert_int_equal(read(c.out, got, sizeof(got)), 0);
    assert_null(s.sessions.list[number - 1]);
    leave(&c);
}

static void one_that_cannot_be_executed(void **state)
{
    static struct monitor_message m;
    unsigned number;
    struct client c = execute(&number);

    say(SESSION_FAILED, number, "no such program\0look in /bin", 29);
    assert_int_equal(answer(&c, &m), MONITOR_FAILED);
    assert_int_equal(m.reply.stage, MONITOR_STAGE_EXEC);
    assert_string_equal(m.reply.detail, "no such program");
    assert_string_equal(m.reply.hint, "look in /bin");
    assert_null(s.sessions.list[number - 1]);
    leave(&c);
}

/* The window is 32 KiB and a pipe takes 64: so much comes, what is beyond is lost, and nothing grows. */
static void a_guest_that_floods(void **state)
{
    static char much[SESSION_DATA_MAX], got[1 << 20];
    static struct monitor_message m;
    const int32_t status = 0;
    ssize_t n, all = 0;
    unsigned number;
    struct client c = execute(&number);

    say(SESSION_OPENED, number, NULL, 0);
    assert_int_equal(answer(&c, &m), MONITOR_DONE);
    for (int i = 0; i < 100; i++)
        say(SESSION_OUTPUT, number, much, sizeof(much));
    say(SESSION_ENDED, number, &status, sizeof(status));
    assert_int_equal(answer(&c, &m), 0); /* not before its output was read */
    for (int rounds = 0; rounds < 100; rounds++) {
        while ((n = read(c.out, got, sizeof(got))) > 0)
            all += n;
        if (n == 0)
            break;
        turn();
    }
    assert_true(all >= SESSION_WINDOW && all <= 65536 + SESSION_WINDOW);
    assert_int_equal(answer(&c, &m), MONITOR_ENDED);
    leave(&c);
}

static void readers_and_callers_who_went(void **state)
{
    static char text[SESSION_PAYLOAD_MAX + 1];
    const int32_t status = 9;
    unsigned number;
    struct client c = execute(&number);
    int connection = s.sessions.list[number - 1]->connection;

    say(SESSION_OPENED, number, NULL, 0);
    c.out = close_fd(c.out);
    say(SESSION_OUTPUT, number, "nobody reads this", 17);
    assert_int_equal(hear(text).type, SESSION_TAKEN); /* the guest goes on */
    sessions_forget(&s, connection);
    assert_false(sessions_own(&s, connection));
    say(SESSION_ENDED, number, &status, sizeof(status));
    assert_null(s.sessions.list[number - 1]);
    for (int i = 0; i < CONNECTION_MAX; i++)
        s.connections[i] = s.connections[i] == connection ? close_fd(connection) : s.connections[i];
    leave(&c);
}

static void words_out_of_turn(void **state)
{
    static struct monitor_message m;
    const struct session_taken taken = {SESSION_INPUT, UINT32_MAX};
    const int32_t status = 0;
    unsigned number;
    struct client c = execute(&number);

    say(SESSION_ENDED, number, &status, sizeof(status)); /* it never began */
    assert_non_null(s.sessions.list[number - 1]);
    say(SESSION_TAKEN, number, &taken, sizeof(taken)); /* more than there was */
    assert_int_equal(s.sessions.list[number - 1]->given, 0);
    say(SESSION_OUTPUT, number + 1, "x", 1); /* of nobody */
    say(SESSION_OUTPUT, SESSION_APPLICATION, "log", 3);
    say(SESSION_OPEN, number, "012345678901234567", 18); /* the host's own */
    say(SESSION_OPENED, number, NULL, 0);
    say(SESSION_OPENED, number, NULL, 0);
    assert_int_equal(answer(&c, &m), MONITOR_DONE);
    assert_int_equal(answer(&c, &m), 0); /* once */
    say(SESSION_FAILED, number, "late\0", 6);
    assert_non_null(s.sessions.list[number - 1]);
    leave(&c);
}

/* In one turn of the loop the guest says something that ends sessions whose input waits to be read. */
static void the_end_of_sessions_that_have_input(void **state)
{
    static char text[SESSION_PAYLOAD_MAX + 1];
    const struct {
        struct session_frame header;
        int32_t status;
    } frame = {{SESSION_ENDED, 1, 4}, 0};
    struct client clients[3];
    unsigned number;

    for (int i = 0; i < 3; i++) {
        clients[i] = execute(&number);
        say(SESSION_OPENED, number, NULL, 0);
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(write(clients[i].in, "typed", 5), 5);
    assert_int_equal(write(guest, &frame, sizeof(frame)), sizeof(frame));
    turn();
    assert_null(s.sessions.list[0]);
    assert_non_null(s.sessions.list[1]);
    for (int i = 1; i < 3; i++) {
        assert_int_equal(hear(text).type, SESSION_INPUT);
        assert_int_equal(write(clients[i].in, "more", 4), 4);
    }
    assert_int_equal(write(guest, "this is no frame at all", 23), 23);
    turn();
    assert_int_equal(s.sessions.port, -1);
    assert_null(s.sessions.list[1]);
    assert_null(s.sessions.list[2]);
    for (int i = 0; i < 3; i++)
        leave(&clients[i]);
}

static void what_is_no_frame_ends_all(void **state)
{
    static struct monitor_message m;
    struct error *err = NULL;
    unsigned number;
    struct client c = execute(&number);

    assert_int_equal(write(guest, "this is no frame at all", 23), 23);
    turn();
    assert_int_equal(s.sessions.port, -1);
    assert_non_null(strstr(noted, "protocol of sessions"));
    assert_null(s.sessions.list[number - 1]);
    assert_int_equal(monitor_receive(c.connection, &m, NULL), 0); /* closed */
    assert_int_equal(sessions_exec(&s, -1, &m, &err), -ENOTSUP);
    assert_string_equal(err->code, "UNSUPPORTED_BY_TECHNOLOGY");
    error_free(err);
    leave(&c);
}

static void so_many_and_no_more(void **state)
{
    static struct monitor_message m;
    struct client clients[SESSION_MAX];
    struct error *err = NULL;
    unsigned number;

    for (int i = 0; i < SESSION_MAX; i++) {
        clients[i] = execute(&number);
        assert_int_equal(number, i + 1);
    }
    m.exec = (struct monitor_exec){.argc = 1, .strings_size = 6};
    assert_int_equal(sessions_exec(&s, -1, &m, &err), -EBUSY);
    error_free(err);
    for (int i = 0; i < SESSION_MAX; i++)
        leave(&clients[i]);
}

/* A guest that never reads: requests are refused when what waits for it is full. */
static void a_guest_that_does_not_listen(void **state)
{
    struct error *err = NULL;
    int r = 0;

    for (int i = 0; i < 1 << 20 && r == 0; i++)
        r = sessions_signal(&s, -1, 15, &err);
    assert_int_equal(r, -EAGAIN);
    assert_string_equal(err->code, "CONFLICTING_STATE");
    error_free(err);
    err = NULL;
    assert_int_equal(sessions_signal(&s, -1, 0, &err), -EINVAL);
    error_free(err);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as coracle-qemu does */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_command_from_its_begin_to_its_end, begin, end),
        cmocka_unit_test_setup_teardown(one_that_cannot_be_executed, begin, end),
        cmocka_unit_test_setup_teardown(a_guest_that_floods, begin, end),
        cmocka_unit_test_setup_teardown(readers_and_callers_who_went, begin, end),
        cmocka_unit_test_setup_teardown(words_out_of_turn, begin, end),
        cmocka_unit_test_setup_teardown(the_end_of_sessions_that_have_input, begin, end),
        cmocka_unit_test_setup_teardown(what_is_no_frame_ends_all, begin, end),
        cmocka_unit_test_setup_teardown(so_many_and_no_more, begin, end),
        cmocka_unit_test_setup_teardown(a_guest_that_does_not_listen, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
