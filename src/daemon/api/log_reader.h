/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads an instance's two log files (docs/formats/host-layout.md) as one: from the end, from a time, and on while they
 * are written and turned over. Only files and offsets, no daemon; used by logs.c and stream.c (attach).
 *
 * Theory of operation. At any moment one file is being written (the newer) and the other holds what came before. A
 * position is (file, offset). At the end of a file the reader looks whether the other one was begun anew since it left
 * it: its first record has another time then, and reading goes on there. A reader that was slower than half the bound
 * finds its own file begun anew and starts at the oldest record there is. Only whole lines are handed out.
 */
#ifndef CORACLE_DAEMON_API_LOG_READER_H
#define CORACLE_DAEMON_API_LOG_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

enum {
    LOG_TIME_SIZE = 36,    /* RFC 3339 with ns and its terminator */
    LOG_BLOCK = 32 * 1024, /* read at once; also the longest record that is kept whole */
};

enum log_streams { LOG_STDOUT = 1, LOG_STDERR = 2, LOG_BOTH = 3 };

struct log_reader {
    int fds[2];  /* owned */
    int current; /* index of the file at which the position is */
    off_t offset;
    char first[2][LOG_TIME_SIZE]; /* time of each file's first record when last looked at, "" when it was empty */
    enum log_streams streams;
    char since[LOG_TIME_SIZE]; /* records before this are left out; "" for none */
    bool in_long_record;       /* inside a record longer than a block: handed on in pieces */
    bool drop_long_record;     /* and it is one that is filtered out */
    char *block;               /* LOG_BLOCK bytes, owned */
    size_t have, at;           /* bytes in it, and how many were looked at */
    off_t seen[2];             /* sizes of the files when there was nothing more */
};

/* Takes the fds (log.0, log.1) in every case. since: "" or as log_time_parse() wrote it. */
int log_reader_open(struct log_reader *ret, int fds[2], enum log_streams streams, const char *since,
                    struct error **err);

/* Leaves out all but the last n lines that the filters let through. UINT64_MAX: all of them. */
int log_reader_tail(struct log_reader *reader, uint64_t lines, struct error **err);

/* Fills out with whole records. Returns bytes, 0 when there is nothing (more) now, -errno for a failed read. */
ssize_t log_reader_read(struct log_reader *reader, char *out, size_t size);

/* Whether the files changed since log_reader_read() found nothing more. */
bool log_reader_stirred(const struct log_reader *reader);

void log_reader_close(struct log_reader *reader);

/* An RFC 3339 time, or a plain number of seconds since 1970, to the log's own form. INVALID_VALUE. */
int log_time_parse(const char *text, char ret[LOG_TIME_SIZE], struct error **err);

#endif
