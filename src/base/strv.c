/* SPDX-License-Identifier: Apache-2.0 */
/* Vectors of strings, as execve(2) takes them. Any process. */
#include <stdlib.h>
#include <string.h>

#include "base/strv.h"

void strv_free(char **strings)
{
    for (char **s = strings; s && *s; s++)
        free(*s);
    free(strings);
}

size_t strv_count(char *const *strings)
{
    size_t n = 0;

    while (strings && strings[n])
        n++;
    return n;
}

char **strv_copy(char *const *strings)
{
    size_t n = strv_count(strings);
    char **copy = strings ? calloc(n + 1, sizeof(*copy)) : NULL;

    for (size_t i = 0; copy && i < n; i++) {
        copy[i] = strdup(strings[i]);
        if (!copy[i]) {
            strv_free(copy);
            return NULL;
        }
    }
    return copy;
}
