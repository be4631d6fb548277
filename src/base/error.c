/* SPDX-License-Identifier: Apache-2.0 */
/* Error objects: made where something fails, read by whoever reports it. No thread shares one. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static struct error out_of_memory = {.code = "NO_MEMORY", .message = (char *)"out of memory", .errnum = ENOMEM};

static struct error *error_new(int errnum, const char *code, const char *suffix, const char *format, va_list ap)
{
    struct error *e = calloc(1, sizeof(*e));
    char *words = NULL;

    if (!e || vasprintf(&words, format, ap) < 0) {
        free(e);
        return &out_of_memory;
    }
    e->code = code;
    e->errnum = errnum;
    e->message = words;
    if (suffix && asprintf(&e->message, "%s: %s", words, suffix) >= 0)
        free(words);
    else
        e->message = words;
    return e;
}

int error_set(struct error **err, int errnum, const char *code, const char *format, ...)
{
    va_list ap;

    if (err && !*err) {
        va_start(ap, format);
        *err = error_new(errnum, code, NULL, format, ap);
        va_end(ap);
    }
    return -errnum;
}

int error_set_errno(struct error **err, int errnum, const char *code, const char *format, ...)
{
    va_list ap;

    if (err && !*err) {
        va_start(ap, format);
        *err = error_new(errnum, code, strerror(errnum), format, ap);
        va_end(ap);
    }
    return -errnum;
}

void error_hint(struct error **err, const char *format, ...)
{
    va_list ap;

    if (!err || !*err || *err == &out_of_memory || (*err)->hint)
        return;
    va_start(ap, format);
    if (vasprintf(&(*err)->hint, format, ap) < 0)
        (*err)->hint = NULL;
    va_end(ap);
}

int error_wrap(struct error **err, const char *code, const char *format, ...)
{
    struct error *outer;
    va_list ap;
    int errnum = err && *err ? (*err)->errnum : EIO;

    if (!err || !*err || *err == &out_of_memory)
        return -(errnum ? errnum : EIO);
    va_start(ap, format);
    outer = error_new(errnum, code, NULL, format, ap);
    va_end(ap);
    if (outer != &out_of_memory) {
        outer->cause = *err;
        *err = outer;
    }
    return -(errnum ? errnum : EIO);
}

const char *error_text(const struct error *err, char *buf, size_t size)
{
    size_t used = 0;

    if (size)
        buf[0] = '\0';
    for (; err && used < size; err = err->cause) {
        int n = snprintf(buf + used, size - used, "%s%s", used ? ": " : "", err->message);
        if (n < 0)
            break;
        used += (size_t)n;
    }
    return buf;
}

void error_free(struct error *err)
{
    while (err && err != &out_of_memory) {
        struct error *cause = err->cause;
        free(err->message);
        free(err->hint);
        free(err);
        err = cause;
    }
}
