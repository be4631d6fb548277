/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's words (vCPU thread) and the monitor's about it (any thread) on their way out. One guest a process. */
#include <pthread.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "monitor/log_file.h"
#include "vmm/output.h"

static struct {
    pthread_mutex_t lock; /* of file: the monitor's threads log */
    struct log_file file;
    int fd; /* -1: the log */
    size_t used;
    char line[256]; /* each byte is an exit already: written line by line */
} out = {.lock = PTHREAD_MUTEX_INITIALIZER, .file.fds = {-1, -1}, .fd = -1};

static void take(enum log_stream stream, const void *bytes, size_t size)
{
    if (out.fd >= 0) {
        if (write(out.fd, bytes, size) < 0) {
            /* nobody reads: the guest does not care */
        }
        return;
    }
    pthread_mutex_lock(&out.lock);
    log_file_write(&out.file, stream, bytes, size);
    pthread_mutex_unlock(&out.lock);
}

static void take_own(const char *line, size_t size)
{
    pthread_mutex_lock(&out.lock);
    log_file_write(&out.file, LOG_STREAM_ERR, line, size);
    log_file_write(&out.file, LOG_STREAM_ERR, "\n", 1);
    pthread_mutex_unlock(&out.lock);
}

void output_to_descriptor(int fd)
{
    out.fd = fd;
}

void output_to_log(const int fds[2], uint64_t bytes_max)
{
    static const int none[2] = {-1, -1};

    log_file_setup(&out.file, fds ? fds : none, bytes_max);
    log_redirect(take_own);
}

void output_to_other_log(const int fds[2], unsigned current, uint64_t written)
{
    pthread_mutex_lock(&out.lock);
    const int before[2] = {out.file.fds[0], out.file.fds[1]};
    log_file_continue(&out.file, fds, out.file.half * 2, current, written);
    pthread_mutex_unlock(&out.lock);
    close_fd(before[0]);
    close_fd(before[1]);
}

void output_flush(void *context)
{
    (void)context;
    if (out.used)
        take(LOG_STREAM_OUT, out.line, out.used);
    out.used = 0;
}

void output_byte(void *context, uint8_t byte)
{
    out.line[out.used++] = (char)byte;
    if (byte == '\n' || out.used == sizeof(out.line))
        output_flush(context);
}

void output_text(void *context, const void *bytes, size_t size)
{
    output_flush(context);
    take(LOG_STREAM_OUT, bytes, size);
}

void output_device(void *context, const void *bytes, size_t size)
{
    (void)context;
    take(LOG_STREAM_OUT, bytes, size);
}
