/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's end of the platform's agent, as docs/formats/guest-agent.md has it: lines over the second serial port
 * (QEMU), or over connections to a vsock port (coracle-vmm), where there is one. The platform runs a guest without; it
 * then cannot ask for a power-off, nor give a restored guest its new identity.
 *
 * What comes from the host is bounded but not distrusted: the host owns this guest. That a vsock's other end is the
 * host is checked.
 */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

enum { CHANNEL_COUNT = 4, LINE_MAX_BYTES = 1024, TEXT_MAX = LINE_MAX_BYTES + CONFIG_TEXT_MAX };

struct channel {
    int fd;        /* -1: free; [0] is the serial port's */
    bool skipping; /* the rest of a line that was too long */
    bool identity; /* told is whole, parameters bytes and an end of line follow */
    size_t parameters;
    struct config told;
    size_t used;
    char text[TEXT_MAX];
};

/* Allocated with the first byte that comes: a guest that is never asked pays nothing. */
static struct channel *channels[CHANNEL_COUNT];
static int serial = -1, listener = -1;
static const struct agent_calls *calls;
static char state[64]; /* "": nothing to report yet */

static void tell(int fd, const char *line)
{
    char text[80];
    int n = snprintf(text, sizeof(text), "%s\n", line);

    if (fd >= 0)
        (void)!write(fd, text, (size_t)n);
}

static void greet(int fd)
{
    tell(fd, "hello 1");
    if (*state)
        tell(fd, state);
}

static void take_line(struct channel *channel, char *line)
{
    size_t n = strlen(line);

    if (n && line[n - 1] == '\r')
        line[n - 1] = '\0';
    if (strcmp(line, "poweroff") == 0) {
        calls->power_off();
    } else if (strncmp(line, "identity 1 ", 11) == 0) {
        memset(&channel->told, 0, sizeof(channel->told));
        channel->identity = config_parse_identity(line + 11, &channel->told, &channel->parameters) == 0;
    } else if (strcmp(line, "hello") == 0) {
        greet(channel->fd); /* a platform that came late asks */
    }
}

static void take_parameters(struct channel *channel)
{
    char *text = malloc(channel->parameters + 1);

    channel->identity = false;
    if (!text)
        return;
    memcpy(text, channel->text, channel->parameters);
    text[channel->parameters] = '\0';
    calls->identity(&channel->told, text);
    if (*state)
        tell(channel->fd, state);
}

/* How many bytes of the buffer were dealt with; 0: more must come. */
static size_t take_some(struct channel *channel)
{
    char *end;

    if (channel->identity) {
        size_t size = channel->parameters + 1; /* its end of line */
        if (channel->used < size)
            return 0;
        take_parameters(channel);
        return size;
    }
    end = memchr(channel->text, '\n', channel->used);
    if (!end) {
        if (channel->used < LINE_MAX_BYTES)
            return 0;
        channel->skipping = true;
        return channel->used;
    }
    *end = '\0';
    if (!channel->skipping)
        take_line(channel, channel->text);
    channel->skipping = false;
    return (size_t)(end - channel->text) + 1;
}

/* Returns whether the other side is still there. */
static bool channel_read(struct channel *channel)
{
    ssize_t n = read(channel->fd, channel->text + channel->used, sizeof(channel->text) - channel->used);
    size_t taken;

    if (n <= 0)
        return n < 0 && (errno == EAGAIN || errno == EINTR);
    channel->used += (size_t)n;
    while (channel->used && (taken = take_some(channel))) {
        channel->used -= taken;
        memmove(channel->text, channel->text + taken, channel->used);
    }
    return true;
}

static struct channel *channel_new(int fd)
{
    struct channel *channel = calloc(1, sizeof(*channel));

    if (channel)
        channel->fd = fd;
    return channel;
}

/* A port that is not there has a node all the same: its terminal settings cannot be read. */
static void serial_open(void)
{
    struct termios settings;
    int fd = open(AGENT_SERIAL, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return;
    if (tcgetattr(fd, &settings) == 0) {
        cfmakeraw(&settings);
        settings.c_cflag |= CLOCAL | CREAD;
        cfsetspeed(&settings, B115200);
        if (tcsetattr(fd, TCSANOW, &settings) == 0)
            serial = fd;
    }
    if (serial < 0)
        close(fd);
}

static void vsock_open(void)
{
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_port = AGENT_VSOCK_PORT, .svm_cid = VMADDR_CID_ANY};

    listener = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener >= 0 &&
        (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 4) < 0)) {
        close(listener);
        listener = -1;
    }
}

static void vsock_accept(void)
{
    struct sockaddr_vm peer = {0};
    socklen_t size = sizeof(peer);
    int fd = accept4(listener, (struct sockaddr *)&peer, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);

    for (int i = 1; fd >= 0 && peer.svm_cid == VMADDR_CID_HOST && i < CHANNEL_COUNT; i++) {
        if (!channels[i] && (channels[i] = channel_new(fd))) {
            greet(fd);
            return;
        }
    }
    if (fd >= 0)
        close(fd);
}

void agent_open(const struct agent_calls *agent_calls)
{
    calls = agent_calls;
    serial_open();
    greet(serial);
    vsock_open();
}

int agent_poll_set(struct pollfd *set, int max)
{
    int count = 0;

    if (serial >= 0 && count < max)
        set[count++] = (struct pollfd){serial, POLLIN, 0};
    if (listener >= 0 && count < max)
        set[count++] = (struct pollfd){listener, POLLIN, 0};
    for (int i = 1; i < CHANNEL_COUNT && count < max; i++) {
        if (channels[i])
            set[count++] = (struct pollfd){channels[i]->fd, POLLIN, 0};
    }
    return count;
}

static void serve_serial(void)
{
    if (!channels[0])
        channels[0] = channel_new(serial);
    if (!channels[0] || !channel_read(channels[0])) {
        close(serial); /* an error that stays would be polled for ever */
        serial = -1;
    }
}

static void serve_vsock(int fd)
{
    for (int i = 1; i < CHANNEL_COUNT; i++) {
        if (!channels[i] || channels[i]->fd != fd || channel_read(channels[i]))
            continue;
        close(fd);
        free(channels[i]);
        channels[i] = NULL;
        return;
    }
}

void agent_serve(const struct pollfd *set, int count)
{
    for (int i = 0; i < count; i++) {
        if (!set[i].revents)
            continue;
        if (set[i].fd == serial)
            serve_serial();
        else if (set[i].fd == listener)
            vsock_accept();
        else
            serve_vsock(set[i].fd);
    }
}

void agent_report(const char *line)
{
    snprintf(state, sizeof(state), "%s", line);
    tell(serial, state);
    for (int i = 1; i < CHANNEL_COUNT; i++)
        tell(channels[i] ? channels[i]->fd : -1, state);
}
