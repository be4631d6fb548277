/* SPDX-License-Identifier: Apache-2.0 */
/* NULL-terminated vectors of strings: argument lists and environments. Any process. */
#ifndef CORACLE_BASE_STRV_H
#define CORACLE_BASE_STRV_H

#include <stddef.h>

/* Frees the strings and the vector. Accepts NULL. */
void strv_free(char **strings);

/* 0 for NULL. */
size_t strv_count(char *const *strings);

/* A deep copy; NULL for NULL, or when there is no memory. */
char **strv_copy(char *const *strings);

static inline void cleanup_strv(char ***strings)
{
    strv_free(*strings);
}

#define auto_strv __attribute__((cleanup(cleanup_strv)))

#endif
