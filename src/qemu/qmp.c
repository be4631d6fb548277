/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP over a socket pair to the QEMU that this supervisor started. Whatever is waited for, the rest of the supervisor
 * goes on by way of the pump: a guest that floods its console while a command runs is still read.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/cleanup.h"
#include "qemu/qmp.h"

uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- what QEMU says ---- */

static int parse_id(const json_t *body, uint64_t *ret)
{
    const json_t *id = json_object_get(body, "id");

    if (!id) {
        *ret = 0;
        return 0;
    }
    if (!json_is_integer(id) || json_integer_value(id) < 1)
        return -EPROTO;
    *ret = (uint64_t)json_integer_value(id);
    return 0;
}

static int parse_error(const json_t *error, struct qmp_message *m)
{
    m->kind = QMP_ERROR;
    m->text = json_string_value(json_object_get(error, "desc"));
    return m->text ? parse_id(m->body, &m->id) : -EPROTO;
}

static int parse_greeting(const json_t *greeting, struct qmp_message *m)
{
    m->kind = QMP_GREETING;
    m->value = json_object_get(json_object_get(greeting, "version"), "qemu");
    m->text = json_string_value(json_object_get(json_object_get(greeting, "version"), "package"));
    return json_is_object(m->value) && m->text ? 0 : -EPROTO;
}

static int parse_event(const json_t *name, struct qmp_message *m)
{
    m->kind = QMP_EVENT;
    m->text = json_string_value(name);
    m->value = json_object_get(m->body, "data");
    return m->text && (!m->value || json_is_object(m->value)) ? 0 : -EPROTO;
}

static int parse_body(struct qmp_message *m)
{
    json_t *part;

    if ((part = json_object_get(m->body, "event")))
        return parse_event(part, m);
    if ((part = json_object_get(m->body, "error")))
        return parse_error(part, m);
    if ((part = json_object_get(m->body, "QMP")))
        return parse_greeting(part, m);
    if (!(part = json_object_get(m->body, "return")))
        return -EPROTO;
    m->kind = QMP_RETURN;
    m->value = part;
    int r = parse_id(m->body, &m->id);
    return r == 0 && m->id == 0 ? -EPROTO : r;
}

int qmp_message_parse(const char *line, size_t size, struct qmp_message *ret)
{
    struct qmp_message m = {.body = json_loadb(line, size, JSON_REJECT_DUPLICATES, NULL)};

    if (!m.body)
        return -EPROTO;
    int r = json_is_object(m.body) ? parse_body(&m) : -EPROTO;
    if (r < 0) {
        json_decref(m.body);
        return r;
    }
    *ret = m;
    return 0;
}

/* ---- the conversation ---- */

void qmp_open(struct qmp *q, int fd, qmp_event event, qmp_pump pump, void *context)
{
    q->fd = fd;
    q->event = event;
    q->pump = pump;
    q->context = context;
    q->last_id = q->asked_ns = q->heard_ns = q->waiting = q->beat = 0;
    q->greeted = false;
    q->answer = (struct qmp_message){0};
    q->used = 0;
}

static void drop_answer(struct qmp *q)
{
    json_decref(q->answer.body);
    q->answer = (struct qmp_message){0};
}

void qmp_close(struct qmp *q)
{
    q->fd = close_fd(q->fd);
    drop_answer(q);
}

static void greeted(struct qmp *q, const struct qmp_message *m)
{
    snprintf(q->version, sizeof(q->version), "%lld.%lld.%lld %s",
             (long long)json_integer_value(json_object_get(m->value, "major")),
             (long long)json_integer_value(json_object_get(m->value, "minor")),
             (long long)json_integer_value(json_object_get(m->value, "micro")), m->text);
    q->greeted = true;
}

/* An answer to something that nobody waits for any more is dropped: its time was over. */
static void answered(struct qmp *q, struct qmp_message *m)
{
    uint64_t id = m->id ? m->id : q->waiting;

    if (id == q->beat)
        q->beat = 0;
    if (id == q->last_id)
        q->asked_ns = 0;
    if (id == 0 || id != q->waiting || q->answer.body)
        return;
    q->answer = *m;
    m->body = NULL;
}

static int take_line(struct qmp *q, const char *line, size_t size)
{
    struct qmp_message m;

    if (size == 0 || (size == 1 && line[0] == '\r'))
        return 0;
    int r = qmp_message_parse(line, size, &m);
    if (r < 0)
        return r;
    if (m.kind == QMP_GREETING)
        greeted(q, &m);
    else if (m.kind == QMP_EVENT)
        q->event(q->context, m.text, m.value);
    else
        answered(q, &m);
    json_decref(m.body);
    return 0;
}

int qmp_read(struct qmp *q)
{
    ssize_t n = read(q->fd, q->in + q->used, sizeof(q->in) - q->used);
    char *line = q->in, *end;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0)
        return -EPIPE;
    q->heard_ns = now_ns();
    q->used += (size_t)n;
    while ((end = memchr(line, '\n', q->used - (size_t)(line - q->in)))) {
        int r = take_line(q, line, (size_t)(end - line));
        if (r < 0)
            return r;
        line = end + 1;
    }
    q->used -= (size_t)(line - q->in);
    memmove(q->in, line, q->used);
    return q->used == sizeof(q->in) ? -EPROTO : 0;
}

/* The socket's buffer holds more than the one command that is open at a time: a full one means that QEMU hangs. */
static int send_all(struct qmp *q, const char *text, size_t size, int fd)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {.iov_base = (char *)(uintptr_t)text, .iov_len = size};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        header.msg_control = control;
        header.msg_controllen = sizeof(control);
        struct cmsghdr *c = CMSG_FIRSTHDR(&header);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(int));
    }
    ssize_t n = sendmsg(q->fd, &header, MSG_NOSIGNAL);
    if (n < 0)
        return errno == EAGAIN ? -ETIMEDOUT : -EPIPE;
    return (size_t)n == size ? 0 : -ETIMEDOUT;
}

static int send_command(struct qmp *q, const char *command, json_t *arguments, int fd)
{
    json_t *object = json_pack("{s:s, s:I}", "execute", command, "id", (json_int_t)(q->last_id + 1));
    auto_free char *text = NULL;

    if (arguments && object)
        json_object_set_new(object, "arguments", arguments);
    else
        json_decref(arguments);
    if (object)
        text = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    if (!text)
        return -ENOMEM;
    q->last_id++;
    if (!q->asked_ns)
        q->asked_ns = now_ns();
    return send_all(q, text, strlen(text), fd);
}

static int failed(int r, const char *command, struct error **err)
{
    const char *why = r == -ETIMEDOUT ? "QEMU does not answer"
                      : r == -EPROTO  ? "QEMU does not speak QMP"
                                      : "QEMU ended";

    return error_set(err, -r, "START_FAILED", "%s: %s", command, why);
}

static int wait_for(struct qmp *q, int timeout_ms, bool (*done)(const struct qmp *))
{
    uint64_t end = now_ns() + (uint64_t)timeout_ms * 1000000u;

    while (!done(q)) {
        uint64_t now = now_ns();
        if (now >= end)
            return -ETIMEDOUT;
        int r = q->pump(q->context, (int)((end - now) / 1000000u) + 1);
        if (r < 0 && !done(q))
            return r;
    }
    return 0;
}

static bool has_greeting(const struct qmp *q)
{
    return q->greeted;
}

static bool has_answer(const struct qmp *q)
{
    return q->answer.body != NULL;
}

int qmp_greet(struct qmp *q, int timeout_ms, struct error **err)
{
    int r = wait_for(q, timeout_ms, has_greeting);

    return r < 0 ? failed(r, "waiting for QEMU", err)
                 : qmp_call(q, "qmp_capabilities", NULL, -1, timeout_ms, NULL, err);
}

int qmp_call(struct qmp *q, const char *command, json_t *arguments, int fd, int timeout_ms, json_t **ret,
             struct error **err)
{
    int r = send_command(q, command, arguments, fd);

    if (r < 0)
        return failed(r, command, err);
    q->waiting = q->last_id;
    r = wait_for(q, timeout_ms, has_answer);
    q->waiting = 0;
    if (r < 0)
        return failed(r, command, err);
    if (q->answer.kind == QMP_ERROR)
        r = error_set(err, EREMOTEIO, "START_FAILED", "%s: %s", command, q->answer.text);
    else if (ret)
        *ret = json_incref(q->answer.value);
    drop_answer(q);
    return r;
}

int qmp_beat(struct qmp *q)
{
    if (q->beat || q->asked_ns)
        return 0;
    int r = send_command(q, "query-status", NULL, -1);
    if (r == 0)
        q->beat = q->last_id;
    return r;
}
