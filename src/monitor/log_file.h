/* SPDX-License-Identifier: Apache-2.0 */
/* The log of one instance: CRI records in two files that take turns (docs/formats/host-layout.md). */
#ifndef CORACLE_MONITOR_LOG_FILE_H
#define CORACLE_MONITOR_LOG_FILE_H

#include <sys/stat.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_stream { LOG_STREAM_OUT, LOG_STREAM_ERR, LOG_STREAM_COUNT };
enum { LOG_LINE_BYTES = 4000, LOG_BATCH_BYTES = 8192 };

struct log_pending {
    size_t size;
    char bytes[LOG_LINE_BYTES];
};

/* Owned by whoever has it; descriptors are borrowed. A static one costs no page before it is used. */
struct log_file {
    int fds[2];             /* fds[0] -1: discard */
    int current;            /* index of the file being written */
    uint64_t written, half; /* bytes in it, and how many it may hold */
    struct log_pending pending[LOG_STREAM_COUNT];
    size_t batch_size;
    char batch[LOG_BATCH_BYTES];
};

void log_file_setup(struct log_file *log, const int fds[2], uint64_t bytes_max);
/* Of an instance's two files the one that was written last: 0 or 1. */
int log_file_newer(const struct stat *first, const struct stat *second);
/* The same for who may not ask the kernel: which of the two is written now, and how long it is. */
void log_file_continue(struct log_file *log, const int fds[2], uint64_t bytes_max, unsigned current, uint64_t written);

/* Takes what a pipe or terminal has. prompt: a line without its end is written at once. 0: more may come; 1: nothing
 * there; -1: end of file. */
int log_file_read(struct log_file *log, enum log_stream stream, int fd, bool terminal, bool prompt);

/* Takes bytes at hand; a carriage return before a newline is dropped. */
void log_file_write(struct log_file *log, enum log_stream stream, const void *bytes, size_t size);

void log_file_finish(struct log_file *log, enum log_stream stream); /* an unfinished line */

#endif
