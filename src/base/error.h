/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors as values: a stable code for programs, words for people, and a chain of causes.
 *
 * Convention for every control-plane function: it returns 0 or -errno; on failure, and only then, it sets
 * *err (when err is not NULL) to an error the caller owns. Outputs named ret_... are untouched on failure.
 */
#ifndef CORACLE_BASE_ERROR_H
#define CORACLE_BASE_ERROR_H

#include <stdarg.h>

struct error {
    const char *code;    /* stable, static string, e.g. "NAME_TAKEN"; never freed */
    char *message;       /* what was wrong, and where; one sentence, no newline */
    char *hint;          /* what to do next; NULL when there is nothing useful to say */
    int errnum;          /* positive errno, 0 when none applies */
    struct error *cause; /* owned; NULL at the end of the chain */
};

/*
 * Makes an error in *err (if err is not NULL and *err is empty) and returns -errnum, so that a caller writes
 * `return error_set(err, EINVAL, "INVALID_VALUE", "memory: -1 is negative");`. errnum must be positive.
 * Out of memory yields a static error with code "NO_MEMORY", which error_free() accepts.
 */
int error_set(struct error **err, int errnum, const char *code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* As error_set(), and ": " plus strerror(errnum) is appended to the message. */
int error_set_errno(struct error **err, int errnum, const char *code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Adds what the user can do about it. Does nothing when err or *err is NULL or a hint is already there. */
void error_hint(struct error **err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Wraps *err as the cause of a new error with its own code; keeps the errnum of the cause. Returns -errnum. */
int error_wrap(struct error **err, const char *code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Writes "message: cause message: ..." into buf, always terminated. Returns buf. */
const char *error_text(const struct error *err, char *buf, size_t size);

/* Accepts NULL. */
void error_free(struct error *err);

static inline void cleanup_error(struct error **err)
{
    error_free(*err);
}

#define auto_error __attribute__((cleanup(cleanup_error)))

#endif
