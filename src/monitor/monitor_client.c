/* SPDX-License-Identifier: Apache-2.0 */
/* Asks a monitor. Blocking with a timeout, on whichever thread of the launcher works for that instance. */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "monitor/monitor_client.h"

/* model/codes.h by stage; the monitor's words say the rest. */
static const char *const stage_codes[MONITOR_STAGE_COUNT] = {
    [MONITOR_STAGE_NONE] = "START_FAILED",     [MONITOR_STAGE_PROTOCOL] = "PROTOCOL_ERROR",
    [MONITOR_STAGE_VM] = "START_FAILED",       [MONITOR_STAGE_MEMORY] = "NO_MEMORY",
    [MONITOR_STAGE_IMAGE] = "IMAGE_MALFORMED", [MONITOR_STAGE_SNAPSHOT] = "SNAPSHOT_UNUSABLE",
    [MONITOR_STAGE_DEVICE] = "START_FAILED",   [MONITOR_STAGE_SANDBOX] = "START_FAILED",
    [MONITOR_STAGE_GUEST] = "START_FAILED",    [MONITOR_STAGE_SUPPORT] = "UNSUPPORTED_BY_TECHNOLOGY",
    [MONITOR_STAGE_EMULATOR] = "START_FAILED", [MONITOR_STAGE_EXEC] = "EXEC_FAILED",
};

int monitor_failure(const struct monitor_reply *failed, struct error **err)
{
    unsigned stage = failed->stage < MONITOR_STAGE_COUNT ? failed->stage : MONITOR_STAGE_NONE;
    int errnum = failed->error > 0 && failed->error < 4096 ? failed->error : EIO;

    error_set(err, errnum, stage_codes[stage], "%s", failed->detail[0] ? failed->detail : "the monitor gave no reason");
    if (failed->hint[0])
        error_hint(err, "%s", failed->hint);
    return -errnum;
}

int monitor_send_prepare(int setup_fd, const struct monitor_prepare *prepare, int kvm_fd, struct error **err)
{
    struct monitor_prepare p = *prepare;

    p.header.type = MONITOR_PREPARE;
    return monitor_send(setup_fd, &p.header, sizeof(p), &kvm_fd, kvm_fd >= 0 ? 1 : 0, err);
}

int monitor_send_load(int setup_fd, const struct monitor_load *load, const char *parameters, const int *fds,
                      unsigned fd_count, struct error **err)
{
    struct {
        struct monitor_load load;
        char parameters[MONITOR_PARAMETERS_MAX];
    } m;
    size_t size = strlen(parameters) + 1;
    struct monitor_load_fds layout;

    if (size > sizeof(m.parameters)) {
        error_set(err, E2BIG, "INVALID_VALUE", "arguments: %zu bytes as boot parameters, at most %d fit", size,
                  MONITOR_PARAMETERS_MAX);
        return -E2BIG;
    }
    monitor_load_layout(load, &layout);
    if (layout.count != fd_count)
        return error_set(err, EINVAL, "INTERNAL", "a LOAD with %u descriptors instead of %u", fd_count, layout.count);
    m.load = *load;
    m.load.header.type = MONITOR_LOAD;
    m.load.parameters_size = (uint32_t)size;
    memcpy(m.parameters, parameters, size);
    return monitor_send(setup_fd, &m.load.header, sizeof(m.load) + size, fds, fd_count, err);
}

int monitor_send_identity(int setup_fd, const struct monitor_identity *identity, const char *parameters, const int *fds,
                          unsigned fd_count, struct error **err)
{
    struct {
        struct monitor_identity identity;
        char parameters[MONITOR_PARAMETERS_MAX];
    } m;
    size_t size = strlen(parameters) + 1;

    if (size > sizeof(m.parameters)) {
        error_set(err, E2BIG, "INVALID_VALUE", "arguments: %zu bytes as boot parameters, at most %d fit", size,
                  MONITOR_PARAMETERS_MAX);
        return -E2BIG;
    }
    m.identity = *identity;
    m.identity.header.type = MONITOR_IDENTITY;
    m.identity.parameters_size = (uint32_t)size;
    memcpy(m.parameters, parameters, size);
    return monitor_send(setup_fd, &m.identity.header, sizeof(m.identity) + size, fds, fd_count, err);
}

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int wait_readable(int fd, int timeout_ms, struct error **err)
{
    const int64_t end = now_ms() + timeout_ms;
    struct pollfd p = {.fd = fd, .events = POLLIN};

    for (;;) {
        int64_t left = end - now_ms();
        int n = poll(&p, 1, left > 0 ? (int)left : 0);
        if (n > 0)
            return 0;
        if (n == 0)
            return error_set(err, ETIMEDOUT, "TIMEOUT", "the monitor did not answer within %d ms", timeout_ms);
        if (errno != EINTR)
            return error_set_errno(err, errno, "INTERNAL", "waiting for the monitor");
    }
}

/* The answer of type wanted into m, which the caller ends; FAILED is an error. */
static int wait_answer(int fd, enum monitor_type wanted, int timeout_ms, struct monitor_message *m, struct error **err)
{
    int r = wait_readable(fd, timeout_ms, err);

    if (r == 0)
        r = monitor_receive(fd, m, err);
    if (r < 0)
        return r;
    if (r == 0)
        return error_set(err, EPIPE, "INSTANCE_LOST", "the monitor ended without an answer");
    if (m->header.type == wanted)
        return 0;
    r = m->header.type == MONITOR_FAILED
            ? monitor_failure(&m->reply, err)
            : error_set(err, EPROTO, "PROTOCOL_ERROR", "the monitor answers %s", monitor_type_name(m->header.type));
    monitor_message_end(m);
    return r;
}

int monitor_wait(int setup_fd, int timeout_ms, struct monitor_reply *ret_reply, struct error **err)
{
    struct monitor_message m;
    int r = wait_answer(setup_fd, MONITOR_DONE, timeout_ms, &m, err);

    if (r < 0)
        return r;
    if (ret_reply)
        *ret_reply = m.reply;
    monitor_message_end(&m);
    return 0;
}

int monitor_connect(int dirfd, const char *name, int *ret_fd, struct error **err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    auto_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int n = snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", dirfd, name);

    if (n < 0 || (size_t)n >= sizeof(address.sun_path))
        return error_set(err, ENAMETOOLONG, "INTERNAL", "%s: too long for a socket", name);
    if (fd < 0)
        return error_set_errno(err, errno, "INTERNAL", "making a socket");
    /* Non-blocking: a monitor whose backlog is full is busy, not a reason to hang. */
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        bool gone = errno == ECONNREFUSED || errno == ENOENT;
        return error_set_errno(err, errno,
                               gone              ? "INSTANCE_LOST"
                               : errno == EAGAIN ? "TIMEOUT"
                                                 : "INTERNAL",
                               "connecting to the monitor at %s", name);
    }
    *ret_fd = take_fd(&fd);
    return 0;
}

static int ask(int fd, struct monitor_header *request, size_t size, int sent_fd, int timeout_ms,
               enum monitor_type wanted, struct monitor_message *m, struct error **err)
{
    int r = monitor_send(fd, request, size, &sent_fd, sent_fd >= 0 ? 1 : 0, err);

    return r < 0 ? r : wait_answer(fd, wanted, timeout_ms, m, err);
}

int monitor_get_status(int fd, int timeout_ms, struct monitor_status *ret, struct error **err)
{
    struct monitor_header h = {.type = MONITOR_STATUS};
    struct monitor_message m;
    int r = ask(fd, &h, sizeof(h), -1, timeout_ms, MONITOR_STATUS_REPLY, &m, err);

    if (r == 0)
        *ret = m.status;
    return r;
}

/* For requests that are answered by DONE alone. */
static int ask_done(int fd, struct monitor_header *request, size_t size, int sent_fd, int timeout_ms,
                    struct error **err)
{
    struct monitor_message m;
    int r = ask(fd, request, size, sent_fd, timeout_ms, MONITOR_DONE, &m, err);

    if (r == 0)
        monitor_message_end(&m);
    return r;
}

int monitor_ask(int fd, enum monitor_type what, int timeout_ms, struct error **err)
{
    struct monitor_header h = {.type = (uint16_t)what};

    return ask_done(fd, &h, sizeof(h), -1, timeout_ms, err);
}

int monitor_snapshot(int fd, int file, int timeout_ms, struct error **err)
{
    struct monitor_header h = {.type = MONITOR_SNAPSHOT};

    return ask_done(fd, &h, sizeof(h), file, timeout_ms, err);
}

int monitor_set_memory(int fd, uint64_t balloon_bytes, int timeout_ms, struct error **err)
{
    struct monitor_memory m = {.header.type = MONITOR_MEMORY, .balloon_bytes = balloon_bytes};

    return ask_done(fd, &m.header, sizeof(m), -1, timeout_ms, err);
}

int monitor_resize(int fd, uint32_t vcpus, uint64_t memory_bytes, int timeout_ms, struct error **err)
{
    struct monitor_resize m = {.header.type = MONITOR_RESIZE, .memory_bytes = memory_bytes, .vcpus = vcpus};

    return ask_done(fd, &m.header, sizeof(m), -1, timeout_ms, err);
}

/* For requests whose DONE brings a descriptor. */
static int ask_fd(int fd, struct monitor_header *request, size_t size, int timeout_ms, int *ret_fd, struct error **err)
{
    struct monitor_message m;
    int r = ask(fd, request, size, -1, timeout_ms, MONITOR_DONE, &m, err);

    if (r == 0 && m.fd_count == 0)
        r = error_set(err, EPROTO, "PROTOCOL_ERROR", "the monitor's answer brings no descriptor");
    if (r == 0) {
        *ret_fd = take_fd(&m.fds[0]);
        monitor_message_end(&m);
    }
    return r;
}

int monitor_open_console(int fd, int timeout_ms, int *ret_input, struct error **err)
{
    struct monitor_header h = {.type = MONITOR_CONSOLE};

    return ask_fd(fd, &h, sizeof(h), timeout_ms, ret_input, err);
}

int monitor_open_vsock(int fd, uint32_t port, int timeout_ms, int *ret_stream, struct error **err)
{
    struct monitor_vsock m = {.header.type = MONITOR_VSOCK, .port = port};

    return ask_fd(fd, &m.header, sizeof(m), timeout_ms, ret_stream, err);
}

/* ---- commands in a guest that carries a container ---- */

static void add_string(struct buffer *b, const char *text)
{
    buffer_add(b, text, strlen(text) + 1);
}

static uint32_t add_strings(struct buffer *b, char *const *list)
{
    uint32_t n = 0;

    for (; list && list[n]; n++)
        add_string(b, list[n]);
    return n;
}

static int too_large(struct error **err)
{
    error_set(err, E2BIG, "INVALID_VALUE", "arguments and environment of a command: at most %zu bytes, %d strings",
              MONITOR_MESSAGE_MAX - sizeof(struct monitor_exec), MONITOR_STRINGS_MAX);
    error_hint(err, "give it less, or let it read a file");
    return -E2BIG;
}

int monitor_exec(int fd, const struct monitor_command *command, const int *fds, int timeout_ms, struct error **err)
{
    auto_buffer struct buffer b = {0};
    struct monitor_exec *e, head = {.header.type = MONITOR_EXEC, .terminal = command->terminal};
    struct monitor_message m;
    int r;

    buffer_add(&b, &head, sizeof(head));
    add_string(&b, command->user ? command->user : "");
    add_string(&b, command->directory);
    head.argc = add_strings(&b, command->arguments);
    head.envc = add_strings(&b, command->env);
    if (b.failed)
        return error_set(err, ENOMEM, "NO_MEMORY", "a command: out of memory");
    if (b.length > MONITOR_MESSAGE_MAX || head.argc + head.envc > MONITOR_STRINGS_MAX)
        return too_large(err);
    e = (void *)b.data;
    e->argc = head.argc;
    e->envc = head.envc;
    e->strings_size = (uint32_t)(b.length - sizeof(head));
    r = monitor_send(fd, &e->header, b.length, fds, command->terminal ? 1 : 3, err);
    if (r == 0)
        r = wait_answer(fd, MONITOR_DONE, timeout_ms, &m, err);
    if (r == 0)
        monitor_message_end(&m);
    return r;
}

int monitor_signal(int fd, int signal, int timeout_ms, struct error **err)
{
    struct monitor_signal m = {.header.type = MONITOR_SIGNAL, .signal = signal};

    return ask_done(fd, &m.header, sizeof(m), -1, timeout_ms, err);
}

int monitor_signal_command(int fd, int signal, struct error **err)
{
    struct monitor_signal m = {.header.type = MONITOR_SIGNAL, .signal = signal};

    return monitor_send(fd, &m.header, sizeof(m), NULL, 0, err);
}

int monitor_read_ended(int fd, int *ret_wait_status)
{
    struct monitor_message m;
    int r = monitor_receive(fd, &m, NULL);

    if (r == -EAGAIN)
        return r;
    if (r <= 0 || m.header.type != MONITOR_ENDED) {
        if (r > 0)
            monitor_message_end(&m);
        return -ECONNRESET;
    }
    *ret_wait_status = m.ended.wait_status;
    monitor_message_end(&m);
    return 0;
}
