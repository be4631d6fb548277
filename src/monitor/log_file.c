/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRI log records in two rotating files: the one implementation, for coracle-init (no heap, no stdio, no vdso) and for
 * the monitors. Written by whichever thread has the output; the owner locks where there is more than one.
 *
 * Lines are collected per stream; a line longer than the buffer goes out in parts (P), the last of them F. Of an
 * application somebody may type to, output is written as it comes, so that a prompt without newline is seen. A log that
 * cannot be written (disk full) loses records, never blocks the application.
 */
#include "monitor/log_file.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PREFIX_MAX = 48 };

static const char *const stream_names[LOG_STREAM_COUNT] = {"stdout", "stderr"};

int log_file_newer(const struct stat *first, const struct stat *second)
{
    return second->st_size &&
           (!first->st_size || second->st_mtim.tv_sec > first->st_mtim.tv_sec ||
            (second->st_mtim.tv_sec == first->st_mtim.tv_sec && second->st_mtim.tv_nsec > first->st_mtim.tv_nsec));
}

/* After a restart the file written last goes on being written. */
void log_file_setup(struct log_file *log, const int fds[2], uint64_t bytes_max)
{
    struct stat st[2];

    log->fds[0] = fds[0];
    log->fds[1] = fds[1];
    log->half = bytes_max / 2;
    if (fds[0] < 0 || fstat(fds[0], &st[0]) || fstat(fds[1], &st[1]))
        return;
    log->current = log_file_newer(&st[0], &st[1]);
    log->written = (uint64_t)st[log->current].st_size;
}

void log_file_continue(struct log_file *log, const int fds[2], uint64_t bytes_max, unsigned current, uint64_t written)
{
    log->fds[0] = fds[0];
    log->fds[1] = fds[1];
    log->half = bytes_max / 2;
    log->current = current != 0;
    log->written = written;
}

static void flush(struct log_file *log)
{
    size_t done = 0;

    if (log->fds[0] >= 0 && log->batch_size) {
        if (log->written + log->batch_size > log->half && log->written) {
            log->current = !log->current;
            if (ftruncate(log->fds[log->current], 0)) {
                /* Appending to a file that could not be emptied is better than losing records. */
            }
            log->written = 0;
        }
        while (done < log->batch_size) {
            ssize_t n = write(log->fds[log->current], log->batch + done, log->batch_size - done);

            if (n < 0 && errno == EINTR)
                continue;
            if (n <= 0)
                break;
            done += (size_t)n;
        }
        log->written += done;
    }
    log->batch_size = 0;
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

static void record(struct log_file *log, enum log_stream stream, bool full, const char *bytes, size_t size)
{
    char *at;

    if (log->batch_size + size + PREFIX_MAX > LOG_BATCH_BYTES)
        flush(log);
    at = put_time(log->batch + log->batch_size);
    *at++ = ' ';
    memcpy(at, stream_names[stream], 6);
    at += 6;
    *at++ = ' ';
    *at++ = full ? 'F' : 'P';
    *at++ = ' ';
    memcpy(at, bytes, size);
    at += size;
    *at++ = '\n';
    log->batch_size = (size_t)(at - log->batch);
}

/* Writes out the whole lines of a stream's buffer, keeps the rest at its front. */
static void take_lines(struct log_file *log, enum log_stream stream, bool terminal, bool prompt)
{
    struct log_pending *pending = &log->pending[stream];
    char *line = pending->bytes, *end = line + pending->size, *newline;

    while ((newline = memchr(line, '\n', (size_t)(end - line)))) {
        size_t size = (size_t)(newline - line);

        /* A terminal's line discipline has put a carriage return before the newline. */
        record(log, stream, true, line, terminal && size && newline[-1] == '\r' ? size - 1 : size);
        line = newline + 1;
    }
    pending->size = (size_t)(end - line);
    if (pending->size && (prompt || pending->size == LOG_LINE_BYTES)) {
        record(log, stream, false, line, pending->size);
        pending->size = 0;
    }
    memmove(pending->bytes, line, pending->size);
}

int log_file_read(struct log_file *log, enum log_stream stream, int fd, bool terminal, bool prompt)
{
    struct log_pending *pending = &log->pending[stream];
    ssize_t got = read(fd, pending->bytes + pending->size, LOG_LINE_BYTES - pending->size);

    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return errno == EAGAIN ? 1 : 0;
    if (got <= 0)
        return -1;
    pending->size += (size_t)got;
    take_lines(log, stream, terminal, prompt);
    flush(log);
    return 0;
}

void log_file_write(struct log_file *log, enum log_stream stream, const void *bytes, size_t size)
{
    struct log_pending *pending = &log->pending[stream];
    const char *from = bytes;

    while (size > 0) {
        size_t part = LOG_LINE_BYTES - pending->size < size ? LOG_LINE_BYTES - pending->size : size;

        memcpy(pending->bytes + pending->size, from, part);
        pending->size += part;
        from += part;
        size -= part;
        take_lines(log, stream, true, false);
    }
    flush(log);
}

void log_file_finish(struct log_file *log, enum log_stream stream)
{
    struct log_pending *pending = &log->pending[stream];

    if (pending->size)
        record(log, stream, false, pending->bytes, pending->size);
    pending->size = 0;
    flush(log);
}
