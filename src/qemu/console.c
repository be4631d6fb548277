/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's consoles and its agent port (docs/formats/guest-agent.md). Output goes to the instance's log, at most
 * some KiB a turn: a guest that floods is slowed by its own full socket. Nothing that a guest says is more than a word
 * to compare or a line to keep.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "qemu/supervisor.h"

enum { READ_BYTES = 8192 };

typedef void (*line_taker)(struct supervisor *s, const char *line);

/* Calls take for each whole line; of one that is too long the first part counts. */
static void watch(struct supervisor *s, struct line_watch *w, const char *bytes, size_t size, line_taker take)
{
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] == '\n') {
            w->text[w->used] = '\0';
            take(s, w->text);
            w->used = 0;
        } else if (bytes[i] != '\r' && w->used < sizeof(w->text) - 1) {
            w->text[w->used++] = bytes[i];
        }
    }
}

static void ready(struct supervisor *s)
{
    if (s->ready)
        return;
    s->ready = true;
    s->ready_ns = now_ns();
}

/* The unikernel has no port that says so under QEMU: the line tells. */
static void console_line(struct supervisor *s, const char *line)
{
    if (strcmp(line, "unikernel: ready") == 0)
        ready(s);
}

void console_read(struct supervisor *s, int *fd, enum log_stream stream)
{
    char bytes[READ_BYTES];
    ssize_t n = recv(*fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        *fd = close_fd(*fd);
        return;
    }
    if (s->agent_status >= 0 && (s->machine.flags & MONITOR_LOAD_SESSIONS))
        return; /* the container ended; that its kernel does so too is not for its log */
    log_file_write(&s->log, stream, bytes, (size_t)n);
    if (s->machine.boot == MONITOR_BOOT_UNIKERNEL && !s->ready)
        watch(s, &s->console_line, bytes, (size_t)n, console_line);
}

void console_note(struct supervisor *s, const char *format, ...)
{
    char line[400];
    va_list ap;

    va_start(ap, format);
    int n = snprintf(line, sizeof(line), "coracle-qemu: ");
    vsnprintf(line + n, sizeof(line) - (size_t)n - 1, format, ap);
    va_end(ap);
    strcat(line, "\n");
    log_file_write(&s->log, LOG_STREAM_ERR, line, strlen(line));
}

/* ---- input ---- */

void console_flush(struct supervisor *s)
{
    int to = s->virtio_console >= 0 ? s->virtio_console : s->console;
    ssize_t n = to < 0 ? (ssize_t)s->typed : send(to, s->typing, s->typed, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n <= 0)
        return; /* later, or never: the guest decides */
    s->typed -= (size_t)n;
    memmove(s->typing, s->typing + n, s->typed);
}

void console_input(struct supervisor *s, int *fd)
{
    ssize_t n = read(*fd, s->typing + s->typed, sizeof(s->typing) - s->typed);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        *fd = close_fd(*fd);
        return;
    }
    s->typed += (size_t)n;
    console_flush(s);
}

int console_open_input(struct supervisor *s, struct error **err)
{
    int ends[2];
    unsigned i = 0;

    while (i < INPUT_MAX && s->inputs[i] >= 0)
        i++;
    if (i == INPUT_MAX)
        return error_set(err, EBUSY, "CONFLICTING_STATE", "console: %d others hold it", INPUT_MAX);
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return error_set_errno(err, errno, "INTERNAL", "console");
    fcntl(ends[1], F_SETFL, 0); /* the caller may wait */
    s->inputs[i] = ends[0];
    return ends[1];
}

/* ---- the agent ---- */

static bool agent_send(struct supervisor *s, const char *bytes, size_t size)
{
    return s->agent >= 0 && send(s->agent, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size;
}

static void add_macs(struct supervisor *s, struct buffer *b)
{
    for (unsigned i = 0; i < s->machine.nic_count; i++) {
        const uint8_t *m = s->machine.nics[i].nic.mac;
        buffer_printf(b, " mac%u=%02x:%02x:%02x:%02x:%02x:%02x", i, m[0], m[1], m[2], m[3], m[4], m[5]);
    }
}

void agent_send_identity(struct supervisor *s)
{
    auto_buffer struct buffer b = {0};
    struct timespec now;
    uint8_t seed[32];

    if (getrandom(seed, sizeof(seed), 0) != sizeof(seed))
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    buffer_printf(&b, "identity 1 generation=%u id=%s name=%s time=%lld.%09ld", s->generation, s->id, s->name,
                  (long long)now.tv_sec, now.tv_nsec);
    add_macs(s, &b);
    buffer_text(&b, " seed=");
    for (size_t i = 0; i < sizeof(seed); i++)
        buffer_printf(&b, "%02x", seed[i]);
    buffer_printf(&b, " parameters=%zu\n%s\n", strlen(s->parameters), s->parameters);
    if (!b.failed)
        agent_send(s, b.data, b.length);
}

static void agent_line(struct supervisor *s, const char *line)
{
    if (strcmp(line, "hello 1") == 0) {
        s->agent_there = true;
        agent_send_identity(s);
    } else if (strcmp(line, "ready") == 0) {
        ready(s);
    } else if (strncmp(line, "exit ", 5) == 0) {
        char *end;
        long status = strtol(line + 5, &end, 10);
        if (end != line + 5 && !*end && status >= 0 && status <= 255)
            s->agent_status = (int)status;
    }
}

void agent_read(struct supervisor *s)
{
    char bytes[512];
    ssize_t n = recv(s->agent, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0)
        s->agent = close_fd(s->agent);
    else
        watch(s, &s->agent_line, bytes, (size_t)n, agent_line);
}

bool agent_power_off(struct supervisor *s)
{
    return s->agent_there && agent_send(s, "poweroff\n", 9);
}
