/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded cursor over one packet: each wire_ function names one field and serves all three directions, so that a
 * message's codec is written once and its encoder, decoder and destructor cannot disagree. Used by codec.c only.
 *
 * Encoding: little-endian fixed-width integers; bool one byte 0 or 1; text a u32 length and bytes without NUL; an
 * optional string a bool before it; a list a u32 count before it. After the first failure every call does nothing.
 */
#ifndef CORACLE_PROTO_WIRE_H
#define CORACLE_PROTO_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum wire_mode {
    WIRE_ENCODE, /* fields are read; data may be NULL, then only the size is counted */
    WIRE_DECODE, /* fields are written; strings and lists are allocated */
    WIRE_CLEAR,  /* what a decode allocated is freed */
};

struct wire {
    enum wire_mode mode;
    uint8_t *data; /* never written in WIRE_DECODE */
    size_t size;   /* of data; with data NULL the bound of the count */
    size_t at;
    int error;        /* 0, or the positive errno of the first failure */
    const char *what; /* static words on that failure */
};

/* Records the first failure. */
void wire_fail(struct wire *w, int errnum, const char *what);

void wire_u8(struct wire *w, uint8_t *value);
void wire_u16(struct wire *w, uint16_t *value);
void wire_u32(struct wire *w, uint32_t *value);
void wire_i32(struct wire *w, int32_t *value);
void wire_u64(struct wire *w, uint64_t *value);
void wire_bool(struct wire *w, bool *value);

/* A u32 that must be within min and max. */
void wire_range(struct wire *w, uint32_t *value, uint32_t min, uint32_t max);

/* The number of elements of an array of max. Decoded as 0 on failure, so that a loop over it is safe. */
void wire_count(struct wire *w, size_t *count, size_t max);

/* Exactly size bytes. */
void wire_bytes(struct wire *w, void *bytes, size_t size);

/* A terminated string in an array of size bytes; the rest of the array is zeroed on decoding. */
void wire_text(struct wire *w, char *text, size_t size);

/* A string of at most max bytes on the heap, or NULL. */
void wire_string(struct wire *w, char **string, size_t max);

/* A NULL-terminated array of at most count_max strings on the heap, or NULL. *budget: bytes left for all strings,
 * terminators included; shared between lists that have one bound together. */
void wire_strings(struct wire *w, char ***strings, size_t count_max, size_t *budget);

#endif
