/* SPDX-License-Identifier: Apache-2.0 */
/* What a fake instance pretends: a log, a console that echoes, figures that grow, a handful of commands. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/strv.h"
#include "drivers/fake/fake_internal.h"

enum { MEMORY_BYTES = 1 << 20 };

static uint64_t realtime_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void fake_log(struct fake_instance *instance, const char *stream, const char *text)
{
    uint64_t now = realtime_ns();
    time_t seconds = (time_t)(now / 1000000000u);
    char stamp[32];
    struct tm utc;

    gmtime_r(&seconds, &utc);
    strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &utc);
    dprintf(instance->log_fd, "%s.%09uZ %s F %s\n", stamp, (unsigned)(now % 1000000000u), stream, text);
}

struct fake_instance *fake_instance_new(struct fake_executor *executor, struct launch_plan *plan)
{
    struct fake_instance *instance = calloc(1, sizeof(*instance));

    if (!instance)
        return NULL;
    instance->executor = executor;
    instance->plan = *plan;
    *plan = (struct launch_plan){0};
    instance->pid = ++executor->last_pid;
    instance->running = true;
    instance->started_ns = monotonic_ns();
    instance->console_fd = -1;
    instance->log_fd = memfd_create("coracle-fake-log", MFD_CLOEXEC);
    if (instance->log_fd >= 0)
        fake_log(instance, "stdout", "fake instance started");
    return instance;
}

void fake_instance_free(struct fake_instance *instance)
{
    if (!instance)
        return;
    sd_event_source_disable_unref(instance->life);
    sd_event_source_disable_unref(instance->console);
    close_fd(instance->console_fd);
    close_fd(instance->log_fd);
    plan_clear(&instance->plan);
    free(instance);
}

void fake_instance_exit(struct fake_instance *instance, int wait_status)
{
    struct fake_executor *executor = instance->executor;
    struct message_exited exited = {.wait_status = wait_status, .status_known = true};

    instance->running = instance->paused = false;
    instance->wait_status = wait_status;
    instance->exited_at_ns = exited.exited_at_ns = realtime_ns();
    instance->life = sd_event_source_disable_unref(instance->life);
    instance->console = sd_event_source_disable_unref(instance->console);
    instance->console_fd = close_fd(instance->console_fd);
    memcpy(exited.id, instance->plan.id, sizeof(exited.id));
    if (executor->event)
        executor->event(executor->event_context, MESSAGE_EXITED, &exited);
}

/* Whatever a client types goes into the log and back to it. */
static int on_console(sd_event_source *source, int fd, uint32_t revents, void *context)
{
    struct fake_instance *instance = context;
    char text[512];
    ssize_t n = recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT);

    if (n <= 0) {
        instance->console = sd_event_source_disable_unref(instance->console);
        instance->console_fd = close_fd(instance->console_fd);
        return 0;
    }
    if (send(fd, text, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        n = n > 0 ? n : 0; /* the client reads too slowly: an echo is lost, as on a real line */
    text[n] = '\0';
    text[strcspn(text, "\r\n")] = '\0';
    fake_log(instance, "stdout", text);
    return 0;
}

int fake_console(struct fake_instance *instance, int *ret_fd, struct error **err)
{
    int ends[2];

    if (!instance->plan.process.tty && !instance->plan.process.open_stdin)
        return error_set(err, EINVAL, "CONFLICTING_STATE", "the instance has neither a terminal nor an open stdin");
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return error_set_errno(err, errno, "INTERNAL", "console");
    instance->console = sd_event_source_disable_unref(instance->console);
    close_fd(instance->console_fd);
    instance->console_fd = ends[0];
    if (sd_event_add_io(instance->executor->loop, &instance->console, ends[0], EPOLLIN, on_console, instance) < 0) {
        instance->console_fd = close_fd(ends[0]);
        close_fd(ends[1]);
        return error_set(err, ENOMEM, "NO_MEMORY", "console: out of memory");
    }
    *ret_fd = ends[1];
    return 0;
}

void fake_stats(const struct fake_instance *instance, struct instance_stats *ret)
{
    uint64_t age = monotonic_ns() - instance->started_ns;

    *ret = (struct instance_stats){
        .known = 1u << STAT_CPU | 1u << STAT_MEMORY | 1u << STAT_MEMORY_PEAK | 1u << STAT_PIDS | 1u << STAT_OOM,
        .cpu_ns = age / 100,
        .memory_bytes = MEMORY_BYTES,
        .memory_peak_bytes = MEMORY_BYTES,
        .pids = 1,
    };
}

static void print_words(char *const *words, int out)
{
    for (; words && *words; words++)
        dprintf(out, "%s%s", *words, words[1] ? " " : "");
    dprintf(out, "\n");
}

int fake_run_command(char *const *argv, int in, int out, uint32_t *ret_delay_ms)
{
    const char *name = argv && argv[0] ? strrchr(argv[0], '/') : NULL;
    size_t count = strv_count(argv);
    char text[4096];
    ssize_t n;

    if (count == 0)
        return 127;
    name = name ? name + 1 : argv[0];
    if (strcmp(name, "echo") == 0) {
        print_words(argv + 1, out);
    } else if (strcmp(name, "false") == 0) {
        return 1;
    } else if (strcmp(name, "exit") == 0) {
        return count > 1 ? atoi(argv[1]) & 255 : 0;
    } else if (strcmp(name, "sleep") == 0) {
        *ret_delay_ms = count > 1 ? (uint32_t)atoi(argv[1]) : 0;
    } else if (strcmp(name, "cat") == 0) {
        /* only what is there by now: the daemon's loop must not wait for a client */
        while ((n = recv(in, text, sizeof(text), MSG_DONTWAIT)) > 0 && write(out, text, (size_t)n) == n)
            ;
    } else {
        print_words(argv, out);
    }
    return 0;
}
