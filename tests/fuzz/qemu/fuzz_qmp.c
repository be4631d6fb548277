/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a QEMU that was taken over may say: lines of any bytes, cut anywhere, in any order, while the supervisor waits
 * for an answer. The call ends, and whatever was taken for an answer is one.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "qemu/qmp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    const uint8_t *data;
    size_t size;
    int peer;
} input;
static struct qmp q;

static void event(void *context, const char *name, const json_t *data)
{
    if (!name || (data && !json_is_object(data)))
        abort();
}

/* Hands over what fits a packet whose length is the next byte. */
static int pump(void *context, int timeout_ms)
{
    if (input.size == 0)
        return -EPIPE;
    size_t n = 1 + input.data[0];
    n = n > input.size - 1 ? input.size - 1 : n;
    if (n && write(input.peer, input.data + 1, n) != (ssize_t)n)
        abort();
    input.data += 1 + n;
    input.size -= 1 + n;
    return n ? qmp_read(&q) : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct qmp_message m;
    json_t *answer = NULL;
    int ends[2];

    if (qmp_message_parse((const char *)data, size, &m) == 0)
        json_decref(m.body);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
        abort();
    input.data = data;
    input.size = size;
    input.peer = ends[1];
    qmp_open(&q, ends[0], event, pump, NULL);
    if (qmp_greet(&q, 1000, NULL) == 0 && qmp_call(&q, "query-status", NULL, -1, 1000, &answer, NULL) == 0 && !answer)
        abort();
    json_decref(answer);
    qmp_close(&q);
    close(ends[1]);
    return 0;
}
