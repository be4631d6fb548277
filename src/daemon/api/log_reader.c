/* SPDX-License-Identifier: Apache-2.0 */
/* The reader of log.0 and log.1; the header tells how. Called on the daemon's thread, for regular files only. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "daemon/api/log_reader.h"

/* Length of a record's time (up to the first space), 0 when the line has none. */
static size_t time_length(const char *line, size_t n)
{
    const char *space = memchr(line, ' ', n < LOG_TIME_SIZE ? n : LOG_TIME_SIZE);

    return space ? (size_t)(space - line) : 0;
}

/* Times of one form compare as text: the fraction's digits may differ in number, a missing one counts as '0'. */
static int time_compare(const char *a, size_t a_length, const char *b, size_t b_length)
{
    for (size_t i = 0; i < LOG_TIME_SIZE; i++) {
        char x = i < a_length && a[i] != 'Z' ? a[i] : '0', y = i < b_length && b[i] != 'Z' ? b[i] : '0';
        if (x == '.' || y == '.') {
            if (x == y)
                continue;
            x = x == '.' ? '0' : x; /* "05Z" and "05.000Z" are the same second */
            y = y == '.' ? '0' : y;
        }
        if (x != y)
            return x < y ? -1 : 1;
    }
    return 0;
}

static void first_time(int fd, char out[LOG_TIME_SIZE])
{
    char line[LOG_TIME_SIZE];
    ssize_t n = pread(fd, line, sizeof(line), 0);
    size_t length = n > 0 ? time_length(line, (size_t)n) : 0;

    memcpy(out, line, length);
    out[length] = '\0';
}

static off_t file_size(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 ? st.st_size : 0;
}

/* Index of the file that holds the older records; an empty one counts as the newer. */
static int older_file(const struct log_reader *reader)
{
    const char *a = reader->first[0], *b = reader->first[1];

    if (!*a || !*b)
        return *a ? 0 : *b ? 1 : 0;
    return time_compare(a, strlen(a), b, strlen(b)) <= 0 ? 0 : 1;
}

static void start_at(struct log_reader *reader, int file, off_t offset)
{
    reader->current = file;
    reader->offset = offset;
    reader->have = reader->at = 0;
    reader->in_long_record = false;
}

static void start_at_oldest(struct log_reader *reader)
{
    first_time(reader->fds[0], reader->first[0]);
    first_time(reader->fds[1], reader->first[1]);
    start_at(reader, older_file(reader), 0);
}

/* Offset of the first line start at or after offset; the size when there is none. */
static off_t next_line(int fd, off_t offset, off_t size)
{
    char chunk[4096];

    if (offset == 0)
        return 0;
    for (off_t at = offset - 1; at < size;) {
        ssize_t n = pread(fd, chunk, sizeof(chunk), at);
        if (n <= 0)
            return size;
        const char *end = memchr(chunk, '\n', (size_t)n);
        if (end)
            return at + (end - chunk) + 1;
        at += n;
    }
    return size;
}

/* Offset in fd from which on records are not before since: a bisection, so a long log costs 20 small reads. */
static off_t find_time(int fd, const char *since)
{
    off_t size = file_size(fd), low = 0, high = size;

    while (high - low > 4096) {
        off_t middle = low + (high - low) / 2, line = next_line(fd, middle, size);
        char text[LOG_TIME_SIZE];
        ssize_t n = line < high ? pread(fd, text, sizeof(text), line) : 0;
        if (n > 0 && time_compare(text, time_length(text, (size_t)n), since, strlen(since)) < 0)
            low = line;
        else
            high = middle;
    }
    return next_line(fd, low, size);
}

int log_reader_open(struct log_reader *ret, int fds[2], enum log_streams streams, const char *since, struct error **err)
{
    struct log_reader reader = {.fds = {fds[0], fds[1]}, .streams = streams};

    fds[0] = fds[1] = -1;
    reader.block = malloc(LOG_BLOCK);
    if (!reader.block) {
        log_reader_close(&reader);
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory to read a log");
    }
    snprintf(reader.since, sizeof(reader.since), "%s", since);
    start_at_oldest(&reader);
    if (*since) {
        int newer = !reader.current;
        const char *newer_first = reader.first[newer];
        /* Nothing of the older file is wanted when the newer one begins before since. */
        if (*newer_first && time_compare(newer_first, strlen(newer_first), since, strlen(since)) < 0)
            start_at(&reader, newer, 0);
        reader.offset = find_time(reader.fds[reader.current], since);
    }
    *ret = reader;
    return 0;
}

void log_reader_close(struct log_reader *reader)
{
    for (int i = 0; i < 2; i++)
        reader->fds[i] = close_fd(reader->fds[i]);
    free(reader->block);
    reader->block = NULL;
}

/* Whether the filters let a record through; line needs its first LOG_TIME_SIZE + 10 bytes only. */
static bool wanted(const struct log_reader *reader, const char *line, size_t n)
{
    size_t length = time_length(line, n);

    if (!length)
        return false; /* no record: the file was written by something else */
    if (*reader->since && time_compare(line, length, reader->since, strlen(reader->since)) < 0)
        return false;
    if (n < length + 10)
        return false;
    if (memcmp(line + length, " stdout ", 8) == 0)
        return reader->streams & LOG_STDOUT;
    return memcmp(line + length, " stderr ", 8) == 0 && (reader->streams & LOG_STDERR);
}

/* A record ends a line when its tag is F. */
static bool ends_line(const char *line, size_t n)
{
    size_t length = time_length(line, n);

    return n > length + 8 && line[length + 8] == 'F';
}

/* What is left to find while reading backwards. */
struct backwards {
    uint64_t lines; /* still to be found */
    off_t start;    /* offset of the earliest record found to belong to them */
    bool done;
};

/* Looks at the records in buf[0..n), last first; base is buf's offset. Returns how many bytes at the front are no
 * whole record (its start lies before buf, unless base is 0). */
static size_t scan_backwards(const struct log_reader *reader, const char *buf, size_t n, off_t base,
                             struct backwards *state)
{
    while (n > 0) {
        const char *start = memrchr(buf, '\n', n - 1);
        if (!start && base > 0)
            return n;
        start = start ? start + 1 : buf;
        size_t length = (size_t)(buf + n - start);
        if (wanted(reader, start, length)) {
            /* A full line is counted at its F record; its P records, further up, belong to it. */
            if (ends_line(start, length) && state->lines-- == 0) {
                state->done = true;
                return 0;
            }
            state->start = base + (start - buf);
        }
        n = (size_t)(start - buf);
    }
    return 0;
}

/* Finds where the last state->lines lines of one file start. The file's unfinished last line is not looked at. */
static int tail_file(const struct log_reader *reader, int file, struct backwards *state)
{
    enum { CHUNK = 64 * 1024 };
    auto_free char *buf = malloc(CHUNK);
    off_t end = file_size(reader->fds[file]);
    bool unfinished = true;

    state->start = end;
    if (!buf)
        return -ENOMEM;
    while (end > 0 && !state->done) {
        size_t n = end < CHUNK ? (size_t)end : (size_t)CHUNK;
        off_t base = end - (off_t)n;
        ssize_t got = pread(reader->fds[file], buf, n, base);
        if (got < (ssize_t)n)
            return got < 0 ? -errno : 0; /* turned over meanwhile: what was found so far stands */
        if (unfinished) {
            const char *last = memrchr(buf, '\n', n);
            n = last ? (size_t)(last - buf) + 1 : 0;
            unfinished = !last;
        }
        size_t rest = n ? scan_backwards(reader, buf, n, base, state) : 0;
        /* A record longer than the chunk is stepped over whole: it is no more than one of the lines. */
        end = rest == CHUNK ? base : base + (off_t)rest;
    }
    return 0;
}

int log_reader_tail(struct log_reader *reader, uint64_t lines, struct error **err)
{
    struct backwards state = {.lines = lines};
    int oldest = reader->current, newer = !older_file(reader), r;

    if (lines == UINT64_MAX)
        return 0;
    r = tail_file(reader, newer, &state);
    if (r == 0 && (state.done || oldest == newer)) {
        start_at(reader, newer, state.start);
    } else if (r == 0) {
        r = tail_file(reader, oldest, &state);
        start_at(reader, oldest, state.start);
    }
    return r < 0 ? error_set_errno(err, -r, "INTERNAL", "reading the log") : 0;
}

/* The current file was begun anew behind the reader's back: it was too slow, and goes on at the oldest there is. */
static bool overtaken(struct log_reader *reader)
{
    char *known = reader->first[reader->current], now[LOG_TIME_SIZE];

    first_time(reader->fds[reader->current], now);
    if (*known && strcmp(now, known) != 0) {
        start_at_oldest(reader);
        return true;
    }
    strcpy(known, now);
    return false;
}

/* At the end of the current file: moves on if the other one was begun anew. Returns whether there may be more. */
static bool turned_over(struct log_reader *reader)
{
    int current = reader->current, other = !current;
    const char *mine = reader->first[current];
    char theirs[LOG_TIME_SIZE];

    first_time(reader->fds[other], theirs);
    if (!*theirs)
        return false;
    if (*mine && time_compare(theirs, strlen(theirs), mine, strlen(mine)) < 0)
        return false; /* the other file is the older one: it was read before */
    if (file_size(reader->fds[current]) > reader->offset)
        return true; /* records that were written just before the turn */
    strcpy(reader->first[other], theirs);
    start_at(reader, other, 0);
    return true;
}

/* Gets more bytes behind those that are kept. Returns bytes, 0 at the end, -errno. */
static ssize_t fill(struct log_reader *reader)
{
    overtaken(reader);
    if (reader->at > 0) {
        memmove(reader->block, reader->block + reader->at, reader->have - reader->at);
        reader->have -= reader->at;
        reader->at = 0;
    }
    ssize_t n =
        pread(reader->fds[reader->current], reader->block + reader->have, LOG_BLOCK - reader->have, reader->offset);
    if (n < 0)
        return -errno;
    reader->offset += n;
    reader->have += (size_t)n;
    return n;
}

/* Hands out one record, or a piece of one that fits into no out at all (fresh: room is all there will ever be).
 * Returns bytes put, 0: dropped or more input is needed, -1: comes again when there is room. */
static ssize_t one_record(struct log_reader *reader, char *out, size_t room, bool fresh)
{
    const char *line = reader->block + reader->at;
    size_t left = reader->have - reader->at;
    const char *end = left ? memchr(line, '\n', left) : NULL;
    size_t length = end ? (size_t)(end - line) + 1 : left;
    bool keep = reader->in_long_record ? !reader->drop_long_record : wanted(reader, line, length);

    if (!end && length < LOG_BLOCK)
        return 0;
    if (keep && length > room) {
        if (!fresh)
            return -1;
        length = room;
        end = NULL;
    }
    reader->in_long_record = !end;
    reader->drop_long_record = !keep;
    if (keep)
        memcpy(out, line, length);
    reader->at += length;
    return keep ? (ssize_t)length : 0;
}

bool log_reader_stirred(const struct log_reader *reader)
{
    return file_size(reader->fds[0]) != reader->seen[0] || file_size(reader->fds[1]) != reader->seen[1];
}

ssize_t log_reader_read(struct log_reader *reader, char *out, size_t size)
{
    size_t put = 0;

    reader->seen[0] = file_size(reader->fds[0]); /* before reading: what comes meanwhile is noticed later */
    reader->seen[1] = file_size(reader->fds[1]);
    for (;;) {
        size_t before = reader->at;
        ssize_t n = one_record(reader, out + put, size - put, put == 0);
        if (n < 0)
            return (ssize_t)put;
        put += (size_t)n;
        if (reader->at != before)
            continue;
        n = fill(reader);
        if (n < 0)
            return put ? (ssize_t)put : n;
        if (n == 0 && (put > 0 || !turned_over(reader)))
            return (ssize_t)put;
    }
}

int log_time_parse(const char *text, char ret[LOG_TIME_SIZE], struct error **err)
{
    struct tm tm = {0};
    char *end;
    const char *rest;
    unsigned long long seconds = strtoull(text, &end, 10);
    char fraction[11] = "000000000";

    if (*text >= '0' && *text <= '9' && *end == '\0' && seconds < 253402300800u) { /* year 10000 */
        time_t when = (time_t)seconds;
        gmtime_r(&when, &tm);
        strftime(ret, LOG_TIME_SIZE, "%Y-%m-%dT%H:%M:%S.000000000Z", &tm);
        return 0;
    }
    rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (rest && *rest == '.') {
        size_t n = strspn(++rest, "0123456789");
        memcpy(fraction, rest, n < 9 ? n : 9);
        rest += n;
    }
    if (!rest || strcmp(rest, "Z") != 0) {
        error_set(err, EINVAL, "INVALID_VALUE", "since: \"%.40s\" is no time", text);
        error_hint(err, "write 2026-01-31T23:59:59Z, or seconds since 1970");
        return -EINVAL;
    }
    strftime(ret, LOG_TIME_SIZE, "%Y-%m-%dT%H:%M:%S.", &tm);
    strcat(ret, fraction);
    strcat(ret, "Z");
    return 0;
}
