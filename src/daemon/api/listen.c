/* SPDX-License-Identifier: Apache-2.0 */
/* The API's listening sockets when systemd did not bring them. Called once at start, in the daemon. */
#include <errno.h>
#include <grp.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/api/server.h"

/* Removes a socket that nobody listens on any more; -EADDRINUSE when somebody does. */
static int clear_place(const struct sockaddr_un *address)
{
    struct stat st;
    auto_fd int fd = -1;

    if (lstat(address->sun_path, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode))
        return -EEXIST;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN)
        return -EADDRINUSE;
    return unlink(address->sun_path) < 0 ? -errno : 0;
}

/* Mode 0660 and the group that may connect. Being in that group is as good as being root, and documented so. */
static int give_to_group(const char *path, const char *group)
{
    const struct group *entry = getgrnam(group ? group : "coracle");

    if (entry && chown(path, (uid_t)-1, entry->gr_gid) < 0)
        log_line(LOG_LEVEL_WARNING, NULL, "%s stays with the daemon's own group: %s", path, strerror(errno));
    return chmod(path, 0660) < 0 ? -errno : 0;
}

int listen_unix(const char *path, const char *group, int *ret_fd, struct error **err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    auto_fd int fd = -1;
    int r;

    if (strlen(path) >= sizeof(address.sun_path))
        return error_set(err, ENAMETOOLONG, "INVALID_VALUE", "%s is too long for a socket's path", path);
    strcpy(address.sun_path, path);
    r = clear_place(&address);
    if (r < 0) {
        error_set_errno(err, -r, "INVALID_VALUE", "cannot listen on %s", path);
        error_hint(err, r == -EADDRINUSE ? "another coracled serves there: stop it, or use another --run-dir"
                                         : "check what lies there and who owns the directory");
        return r;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* Nobody may connect between bind and chmod. */
    mode_t mask = umask(0177);
    r = fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
    umask(mask);
    if (r == 0)
        r = give_to_group(path, group);
    if (r == 0 && listen(fd, SOMAXCONN) < 0)
        r = -errno;
    if (r < 0)
        return error_set_errno(err, -r, "INVALID_VALUE", "cannot listen on %s", path);
    *ret_fd = take_fd(&fd);
    return 0;
}

/* "127.0.0.1:8443" or "[::1]:8443" into host and port. */
static int split_address(const char *address, char *host, size_t size, const char **ret_port)
{
    const char *colon = strrchr(address, ':'), *start = address, *end = colon;

    if (!colon || !colon[1])
        return -EINVAL;
    if (*start == '[') {
        start++;
        if (end == address || end[-1] != ']')
            return -EINVAL;
        end--;
    }
    if (end <= start || (size_t)(end - start) >= size)
        return -EINVAL;
    memcpy(host, start, (size_t)(end - start));
    host[end - start] = '\0';
    *ret_port = colon + 1;
    return 0;
}

int listen_tcp(const char *address, int *ret_fd, struct error **err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    const int on = 1;
    char host[64];
    const char *port;
    int r = -EINVAL;

    if (split_address(address, host, sizeof(host), &port) < 0 || getaddrinfo(host, port, &hints, &found) != 0) {
        error_set(err, EINVAL, "INVALID_VALUE", "listen: \"%s\" is no address and port", address);
        error_hint(err, "write 192.0.2.1:8443 or [2001:db8::1]:8443");
        return -EINVAL;
    }
    auto_fd int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        bind(fd, found->ai_addr, found->ai_addrlen) < 0 || listen(fd, SOMAXCONN) < 0)
        r = error_set_errno(err, errno, "INVALID_VALUE", "cannot listen on %s", address);
    else
        r = 0;
    freeaddrinfo(found);
    if (r == 0)
        *ret_fd = take_fd(&fd);
    return r;
}
