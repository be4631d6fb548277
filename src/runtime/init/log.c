/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The application's output as CRI log records in two rotating files (docs/formats/host-layout.md).
 *
 * Lines are collected per stream; a line longer than the buffer goes out in parts (P), the last of them F. Of an
 * application somebody may type to, output is written as it comes, so that a prompt without newline is seen. A log that
 * cannot be written (disk full) loses records, never blocks the application.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

enum { LINE_MAX_BYTES = 4000, RECORD_BATCH = 8192, PREFIX_MAX = 48 };

static struct {
    int fds[2];             /* -1: discard */
    int current;            /* index of the file being written */
    uint64_t written, half; /* bytes in it, and how many it may hold */
    struct pending {
        size_t size;
        char bytes[LINE_MAX_BYTES];
    } pending[STREAM_COUNT];
    size_t batch_size;
    char batch[RECORD_BATCH];
} log_state = {.fds = {-1, -1}};

static const char *const stream_names[STREAM_COUNT] = {"stdout", "stderr"};

/* After a restart the file written last goes on being written. */
void log_setup(const int fds[2], uint64_t bytes_max)
{
    struct stat st[2];

    log_state.fds[0] = fds[0];
    log_state.fds[1] = fds[1];
    log_state.half = bytes_max / 2;
    if (fds[0] < 0 || fstat(fds[0], &st[0]) || fstat(fds[1], &st[1]))
        return;
    if (st[1].st_size &&
        (!st[0].st_size || st[1].st_mtim.tv_sec > st[0].st_mtim.tv_sec ||
         (st[1].st_mtim.tv_sec == st[0].st_mtim.tv_sec && st[1].st_mtim.tv_nsec > st[0].st_mtim.tv_nsec)))
        log_state.current = 1;
    log_state.written = (uint64_t)st[log_state.current].st_size;
}

static void flush(void)
{
    size_t done = 0;

    if (log_state.fds[0] >= 0 && log_state.batch_size) {
        if (log_state.written + log_state.batch_size > log_state.half && log_state.written) {
            log_state.current = !log_state.current;
            if (ftruncate(log_state.fds[log_state.current], 0)) {
                /* Appending to a file that could not be emptied is better than losing records. */
            }
            log_state.written = 0;
        }
        while (done < log_state.batch_size) {
            ssize_t n = write(log_state.fds[log_state.current], log_state.batch + done, log_state.batch_size - done);

            if (n < 0 && errno == EINTR)
                continue;
            if (n <= 0)
                break;
            done += (size_t)n;
        }
        log_state.written += done;
    }
    log_state.batch_size = 0;
}

static char *put_number(char *at, uint64_t value, int digits)
{
    for (int i = digits - 1; i >= 0; i--, value /= 10)
        at[i] = (char)('0' + value % 10);
    return at + digits;
}

/* Days since 1970-01-01 to a civil date: years counted from March make the leap day the last of its year. */
static char *put_date(char *at, uint64_t days)
{
    uint64_t z = days + 719468, era = z / 146097, day_of_era = z % 146097;
    uint64_t year = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    uint64_t day = day_of_era - (365 * year + year / 4 - year / 100);
    uint64_t month = (5 * day + 2) / 153;

    day = day - (153 * month + 2) / 5 + 1;
    month = month < 10 ? month + 3 : month - 9;
    year += era * 400 + (month <= 2);
    at = put_number(at, year, 4);
    *at++ = '-';
    at = put_number(at, month, 2);
    *at++ = '-';
    return put_number(at, day, 2);
}

static char *put_time(char *at)
{
    struct timespec now;
    uint64_t second;

    syscall(SYS_clock_gettime, CLOCK_REALTIME, &now); /* not through the vdso: see change_stack() */
    second = (uint64_t)now.tv_sec % 86400;
    at = put_date(at, (uint64_t)now.tv_sec / 86400);
    *at++ = 'T';
    at = put_number(at, second / 3600, 2);
    *at++ = ':';
    at = put_number(at, second / 60 % 60, 2);
    *at++ = ':';
    at = put_number(at, second % 60, 2);
    *at++ = '.';
    at = put_number(at, (uint64_t)now.tv_nsec, 9);
    *at++ = 'Z';
    return at;
}

static void record(enum stream stream, bool full, const char *bytes, size_t size)
{
    char *at;

    if (log_state.batch_size + size + PREFIX_MAX > RECORD_BATCH)
        flush();
    at = put_time(log_state.batch + log_state.batch_size);
    *at++ = ' ';
    memcpy(at, stream_names[stream], 6);
    at += 6;
    *at++ = ' ';
    *at++ = full ? 'F' : 'P';
    *at++ = ' ';
    memcpy(at, bytes, size);
    at += size;
    *at++ = '\n';
    log_state.batch_size = (size_t)(at - log_state.batch);
}

/* Writes out the whole lines of a stream's buffer, keeps the rest at its front. */
static void take_lines(enum stream stream, bool terminal, bool prompt)
{
    struct pending *pending = &log_state.pending[stream];
    char *line = pending->bytes, *end = line + pending->size, *newline;

    while ((newline = memchr(line, '\n', (size_t)(end - line)))) {
        size_t size = (size_t)(newline - line);

        /* A terminal's line discipline has put a carriage return before the newline. */
        record(stream, true, line, terminal && size && newline[-1] == '\r' ? size - 1 : size);
        line = newline + 1;
    }
    pending->size = (size_t)(end - line);
    if (pending->size && (prompt || pending->size == LINE_MAX_BYTES)) {
        record(stream, false, line, pending->size);
        pending->size = 0;
    }
    memmove(pending->bytes, line, pending->size);
}

int log_read(enum stream stream, int fd, bool terminal, bool prompt)
{
    struct pending *pending = &log_state.pending[stream];
    ssize_t got = read(fd, pending->bytes + pending->size, LINE_MAX_BYTES - pending->size);

    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return errno == EAGAIN ? 1 : 0;
    if (got <= 0)
        return -1;
    pending->size += (size_t)got;
    take_lines(stream, terminal, prompt);
    flush();
    return 0;
}

void log_finish(enum stream stream)
{
    struct pending *pending = &log_state.pending[stream];

    if (pending->size)
        record(stream, false, pending->bytes, pending->size);
    pending->size = 0;
    flush();
}
