/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growable byte string: what JSON answers and messages are printed into, without building trees first.
 *
 * Failure to grow is sticky (`failed`), so that a caller checks once at the end. Single owner, no thread shares one.
 */
#ifndef CORACLE_BASE_BUFFER_H
#define CORACLE_BASE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buffer {
    char *data; /* owned; data[length] is 0 as soon as anything was added */
    size_t length;
    size_t capacity;
    bool failed; /* out of memory once: contents are incomplete */
};

/* Frees the contents and leaves an empty buffer. */
void buffer_clear(struct buffer *buffer);

/* Makes room for n more bytes. Returns 0 or -ENOMEM. */
int buffer_reserve(struct buffer *buffer, size_t n);

void buffer_add(struct buffer *buffer, const void *bytes, size_t n);
void buffer_text(struct buffer *buffer, const char *text);
void buffer_char(struct buffer *buffer, char c);
void buffer_u64(struct buffer *buffer, uint64_t value);
void buffer_i64(struct buffer *buffer, int64_t value);
void buffer_printf(struct buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A JSON string (RFC 8259 section 7) with its quotes; bytes that are no UTF-8 become U+FFFD. NULL prints null. */
void buffer_json(struct buffer *buffer, const char *text);

/* "2026-01-02T03:04:05.678Z" with its quotes; 0 prints null. */
void buffer_json_time(struct buffer *buffer, uint64_t realtime_ns);

static inline void cleanup_buffer(struct buffer *buffer)
{
    buffer_clear(buffer);
}

#define auto_buffer __attribute__((cleanup(cleanup_buffer)))

#endif
