/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: any bytes as a message. What decodes must encode to the very same bytes, or two peers could read one
 * packet differently. Also built as a plain program that replays the corpus (replay.c).
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/proto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A code this release does not know decodes as INTERNAL, so an error chain need not come back as it was. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proto_message m = {0};
    uint8_t *again = NULL;
    size_t length = 0;

    if (proto_decode(data, size, &m, NULL) < 0)
        return 0;
    if (proto_encode(m.type, m.request, m.body, &again, &length, NULL) < 0)
        abort();
    if (m.type != MESSAGE_FAILED && (length != size || memcmp(again, data, size) != 0))
        abort();
    free(again);
    proto_message_end(&m);
    return 0;
}
