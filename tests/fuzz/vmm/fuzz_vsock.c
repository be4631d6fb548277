/* SPDX-License-Identifier: Apache-2.0 */
/* A driver of a vsock device that does anything, while programs of the host connect, speak, stop reading and go. */
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz_device.h"
#include "vmm/devices/vsock.h"

enum { PROGRAMS = 4 };

struct host {
    struct device *device;
    struct loop *loop;
    int ends[PROGRAMS];
};

static void act(void *context, uint32_t value)
{
    static uint8_t bytes[70000];
    struct host *h = context;
    int *end = &h->ends[value % PROGRAMS], pair[2];

    switch (value >> 8 & 7) {
    case 0:
    case 1:
        if (*end >= 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
            break;
        if (vsock_connect(h->device, pair[1], value >> 16) < 0)
            close(pair[1]);
        *end = pair[0];
        break;
    case 2:
        if (*end >= 0)
            close(*end);
        *end = -1;
        break;
    case 3:
        if (*end >= 0)
            shutdown(*end, value & 0x10000 ? SHUT_WR : SHUT_RD);
        break;
    case 4:
    case 5:
        if (*end >= 0 && send(*end, bytes, (value >> 16) + 1, MSG_NOSIGNAL) < 0)
            break;
        break;
    case 6:
        if (*end >= 0 && recv(*end, bytes, sizeof(bytes), 0) < 0)
            break;
        break;
    default:
        break;
    }
    loop_settle(h->loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct host h = {.ends = {-1, -1, -1, -1}};
    struct driver v;

    driver_memory(&v);
    if (vsock_create(&v.memory, 3, -1, &v.device, NULL) < 0 || loop_create(&h.loop, NULL) < 0 ||
        vsock_attach(v.device, h.loop, NULL) < 0)
        abort();
    h.device = v.device;
    fuzz_run(&v, data, size, act, &h);
    loop_settle(h.loop);
    loop_destroy(h.loop);
    driver_end(&v);
    for (unsigned i = 0; i < PROGRAMS; i++)
        if (h.ends[i] >= 0)
            close(h.ends[i]);
    return 0;
}
