/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A monitor that its guest has taken over, for test_rogue.c: in place of coracle-vmm and coracle-qemu. It answers
 * PREPARE and LOAD as it must, so that the instance runs; what it does then is the guest's name. Static: a monitor's
 * mount namespace is empty.
 *
 *   silent  takes connections and never answers a request
 *   flood   makes its log as long as it can, and ends
 *   polite  answers everything, and "writes" a snapshot of five bytes
 * As coracle-pack it takes a second to make an image of four bytes.
 * A template never says that it is ready, unless its parameters begin with "ready".
 */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "monitor/protocol.h"

enum { LISTEN = 1, LOG = 2 /* of LOAD's descriptors */ };

static union {
    struct monitor_header header;
    struct monitor_load load;
    char bytes[MONITOR_MESSAGE_MAX];
} message;
static int fds[MONITOR_FD_MAX];

static int receive(int socket)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(fds))];
    struct iovec iov = {message.bytes, sizeof(message.bytes)};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    long n = recvmsg(socket, &h, 0);
    struct cmsghdr *c = CMSG_FIRSTHDR(&h);

    if (n > 0 && c)
        memcpy(fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
    return n > 0;
}

static void answer(int socket)
{
    struct monitor_reply done = {{MONITOR_PROTOCOL, MONITOR_DONE, sizeof(done)}, 0};
    struct monitor_status status = {{MONITOR_PROTOCOL, MONITOR_STATUS_REPLY, sizeof(status)}, .memory_bytes = 1 << 20};

    if (message.header.type == MONITOR_STATUS)
        send(socket, &status, sizeof(status), MSG_NOSIGNAL);
    else
        send(socket, &done, sizeof(done), MSG_NOSIGNAL);
}

static void serve(int listener)
{
    for (int connection; (connection = accept(listener, NULL, NULL)) >= 0; close(connection))
        while (receive(connection)) {
            if (message.header.type == MONITOR_SNAPSHOT && write(fds[0], "false", 5) != 5)
                return;
            answer(connection);
        }
}

/* A hole costs the test's disk nothing. */
static void flood(int log)
{
    for (off_t size = 1; ftruncate(log, size) == 0;)
        size *= 2;
}

static int pack(void)
{
    sleep(1);
    return write(4, "root", 4) != 4;
}

int main(int argc, char **argv)
{
    int listener, log;

    if (argc > 0 && strstr(argv[0], "coracle-pack"))
        return pack();
    if (!receive(MONITOR_SETUP_FD))
        return 1;
    answer(MONITOR_SETUP_FD);
    if (!receive(MONITOR_SETUP_FD))
        return 1;
    listener = fds[LISTEN];
    log = fds[LOG];
    if (message.load.flags & MONITOR_LOAD_WAIT && memcmp(message.bytes + sizeof(message.load), "ready", 5) != 0)
        for (;;)
            pause();
    answer(MONITOR_SETUP_FD);
    if (strncmp(message.load.name, "flood", 5) == 0) {
        flood(log);
        return 0;
    }
    if (strncmp(message.load.name, "silent", 6) != 0)
        serve(listener);
    for (;;)
        pause();
}
