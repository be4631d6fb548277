/* SPDX-License-Identifier: Apache-2.0 */
/*
 * systemd's two small contracts, readiness and passed sockets, spoken directly (sd_notify(3) and sd_listen_fds(3) state
 * them as stable): libsystemd and what it links would be a third of the privileged process's memory. Main thread only.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "launcher/launcher.h"

enum { LISTEN_FDS_START = 3 };

void service_notify(const char *state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("NOTIFY_SOCKET");
    auto_fd int fd = -1;

    if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof(address.sun_path))
        return;
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    memcpy(address.sun_path, path, strlen(path));
    if (path[0] == '@') /* the abstract namespace */
        address.sun_path[0] = '\0';
    sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address,
           (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path)));
}

static bool meant_for_us(const char *variable)
{
    const char *pid = getenv(variable);

    return !pid || strtol(pid, NULL, 10) == getpid();
}

uint64_t service_watchdog_us(void)
{
    const char *text = getenv("WATCHDOG_USEC");

    return text && meant_for_us("WATCHDOG_PID") ? strtoull(text, NULL, 10) : 0;
}

int service_listen_fd(void)
{
    const char *count = getenv("LISTEN_FDS");
    int type = 0, flags;
    socklen_t size = sizeof(type);

    if (!count || strtol(count, NULL, 10) < 1 || !getenv("LISTEN_PID") || !meant_for_us("LISTEN_PID"))
        return -1;
    if (getsockopt(LISTEN_FDS_START, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_SEQPACKET)
        return -1;
    fcntl(LISTEN_FDS_START, F_SETFD, FD_CLOEXEC);
    flags = fcntl(LISTEN_FDS_START, F_GETFL);
    fcntl(LISTEN_FDS_START, F_SETFL, flags | O_NONBLOCK);
    return LISTEN_FDS_START;
}
