/* SPDX-License-Identifier: Apache-2.0 */
/* The application inside the launcher tests' containers: static, does what its first argument says. */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "forge.h"

/* Answers one byte a connection: proof that the instance is reachable by IPv4 and IPv6. */
static int serve(int port)
{
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    int one = 1, off = 0, fd = socket(AF_INET6, SOCK_STREAM, 0);

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 16) < 0) {
        perror("serve");
        return 1;
    }
    for (;;) {
        int c = accept(fd, NULL, NULL);
        if (c >= 0 && write(c, "!", 1) == 1)
            close(c);
    }
}

/* Takes one byte from ADDRESS:7; status 0 when it came. */
static int dial(const char *to)
{
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons(7)};
    struct timeval limit = {.tv_sec = 1};
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    char byte, text[64];

    snprintf(text, sizeof(text), "%s%s", strchr(to, ':') ? "" : "::ffff:", to);
    inet_pton(AF_INET6, text, &a.sin6_addr);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    return connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || read(fd, &byte, 1) != 1;
}

static int eat(size_t bytes)
{
    char *p = malloc(bytes);

    if (!p)
        return 2;
    memset(p, 1, bytes);
    pause();
    return p[bytes / 2];
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "sleep";
    const char *value = argc > 2 ? argv[2] : "0";

    if (strcmp(what, "exit") == 0)
        return atoi(value);
    if (strcmp(what, "say") == 0)
        return puts(value) < 0;
    if (strcmp(what, "serve") == 0)
        return serve(atoi(value));
    if (strcmp(what, "dial") == 0)
        return dial(value);
    if (strcmp(what, "eat") == 0)
        return eat((size_t)atoll(value));
    if (strcmp(what, "keep") == 0) { /* the writable layer: says whether the file was there, and makes it */
        puts(access("/kept", F_OK) == 0 ? "kept" : "fresh");
        FILE *f = fopen("/kept", "w");
        return f ? fclose(f) : 1;
    }
    if (strcmp(what, "forge") == 0)
        return forge(value, argc > 3 ? argv[3] : "");
    if (strcmp(what, "cat") == 0) {
        char line[256];
        while (fgets(line, sizeof(line), stdin))
            fputs(line, stdout);
        return 0;
    }
    for (;;)
        pause();
}
