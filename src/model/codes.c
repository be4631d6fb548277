/* SPDX-License-Identifier: Apache-2.0 */
/* The table behind codes.h; read by the API (status), the CLI (exit code) and the wire codecs (interning). */
#include <stddef.h>
#include <string.h>

#include "model/codes.h"

static const struct {
    const char *code;
    int http_status;
    int exit_status;
} codes[] = {
#define ROW(code, http, exit) {#code, http, exit},
    ERROR_CODES(ROW)
#undef ROW
};

static int find(const char *code)
{
    for (size_t i = 0; code && i < sizeof(codes) / sizeof(codes[0]); i++)
        if (strcmp(codes[i].code, code) == 0)
            return (int)i;
    return -1;
}

int error_code_http_status(const char *code)
{
    int i = find(code);
    return i < 0 ? 500 : codes[i].http_status;
}

int error_code_exit_status(const char *code)
{
    int i = find(code);
    return i < 0 ? 1 : codes[i].exit_status;
}

const char *error_code_intern(const char *code)
{
    int i = find(code);
    return i < 0 ? "INTERNAL" : codes[i].code;
}
