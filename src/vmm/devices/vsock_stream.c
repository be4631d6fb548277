/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See vsock_stream.h. Flow control: what the guest may send is STREAM_BUFFER less what is held here, and it is told of
 * room when half of that has been passed on; what it is sent never exceeds the room it told of. Its figures are
 * counters of any value: credit is computed so that a wrong one is no credit. On the device thread, with the device's
 * lock.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/devices/vsock_stream.h"

void stream_begin(struct stream *s, int fd, enum stream_state state)
{
    *s = (struct stream){.state = state, .fd = fd, .buffer = s->buffer};
}

void stream_close_socket(struct stream *s)
{
    s->fd = close_fd(s->fd); /* epoll forgets it: there is no other descriptor of it here */
    s->readable = false;
    s->used = 0;
}

void stream_fail(struct stream *s)
{
    bool known = s->state == STREAM_OPEN || s->state == STREAM_ENDED ||
                 (s->state == STREAM_REQUESTED && !(s->owed & OWED_REQUEST));

    stream_close_socket(s);
    s->owed = known ? OWED_RESET : 0;
    s->state = known ? STREAM_ENDED : STREAM_FREE;
}

uint32_t stream_credit(const struct stream *s)
{
    uint32_t flying = s->sent - s->peer_forwarded;

    return flying < s->peer_buffer ? s->peer_buffer - flying : 0;
}

void stream_take_credit(struct stream *s, const struct vsock_header *h)
{
    s->peer_buffer = h->buffer;
    s->peer_forwarded = h->forwarded;
    if (stream_credit(s) > 0)
        s->asked = false;
}

static void forwarded(struct stream *s, uint32_t bytes)
{
    s->forwarded += bytes;
    if (s->forwarded - s->advertised >= STREAM_BUFFER / 2)
        s->owed |= OWED_CREDIT;
}

/* Copies what is left of segments behind `skip` bytes; there is room, for the credit was checked. */
static void hold(struct stream *s, const struct iovec *segments, unsigned count, uint32_t skip)
{
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *from = segments[i].iov_base;
        uint32_t length = (uint32_t)segments[i].iov_len;

        if (skip >= length) {
            skip -= length;
            continue;
        }
        for (from += skip, length -= skip, skip = 0; length > 0;) {
            uint32_t at = (s->head + s->used) % STREAM_BUFFER, part = STREAM_BUFFER - at;
            part = part < length ? part : length;
            memcpy(s->buffer + at, from, part);
            s->used += part;
            from += part;
            length -= part;
        }
    }
}

int stream_deliver(struct stream *s, const struct iovec *segments, unsigned count, uint32_t length)
{
    ssize_t sent = 0;

    if (length > STREAM_BUFFER - (s->received - s->forwarded))
        return -EPROTO;
    s->received += length;
    if (s->used == 0 && length > 0)
        sent = writev(s->fd, segments, (int)count);
    if (sent < 0 && errno != EAGAIN)
        return -errno;
    if (sent > 0)
        forwarded(s, (uint32_t)sent);
    hold(s, segments, count, sent > 0 ? (uint32_t)sent : 0);
    return 0;
}

bool stream_drain(struct stream *s)
{
    bool moved = false;

    while (s->used > 0) {
        uint32_t part = s->head + s->used <= STREAM_BUFFER ? s->used : STREAM_BUFFER - s->head;
        ssize_t sent = write(s->fd, s->buffer + s->head, part);
        if (sent < 0 && errno != EAGAIN) {
            stream_fail(s);
            return true;
        }
        if (sent <= 0)
            return moved;
        s->head = (s->head + (uint32_t)sent) % STREAM_BUFFER;
        s->used -= (uint32_t)sent;
        forwarded(s, (uint32_t)sent);
        moved = true;
    }
    if ((s->guest_ends & VSOCK_NO_MORE_SEND) && !s->write_ended) {
        s->write_ended = true;
        shutdown(s->fd, SHUT_WR);
        moved = true;
    }
    if (s->write_ended && (s->host_ended || (s->guest_ends & VSOCK_NO_MORE_RECEIVE))) {
        stream_fail(s); /* both directions are at their end: a reset says so (5.10.6.6) */
        moved = true;
    }
    return moved;
}

static int parse_port(const char *digits, uint32_t *ret)
{
    uint64_t port = 0;

    if (!*digits)
        return -EINVAL;
    for (; *digits; digits++) {
        if (*digits < '0' || *digits > '9')
            return -EINVAL;
        port = port * 10 + (uint64_t)(*digits - '0');
        if (port > UINT32_MAX)
            return -EINVAL;
    }
    *ret = (uint32_t)port;
    return 0;
}

/* Byte by byte: what follows the line is the stream's. */
int stream_hello(struct stream *s, bool *ret_connect, uint32_t *ret_port)
{
    for (;;) {
        ssize_t got = read(s->fd, s->line + s->line_used, 1);
        if (got <= 0)
            return got < 0 && errno == EAGAIN ? 0 : -ECONNRESET;
        if (s->line[s->line_used] == '\n')
            break;
        if (++s->line_used == STREAM_LINE)
            return -EINVAL;
    }
    s->line[s->line_used] = '\0';
    *ret_connect = strncmp(s->line, "CONNECT ", 8) == 0;
    if (!*ret_connect && strncmp(s->line, "ACCEPT ", 7) != 0)
        return -EINVAL;
    return parse_port(s->line + (*ret_connect ? 8 : 7), ret_port) < 0 ? -EINVAL : 1;
}

int stream_welcome(struct stream *s, uint32_t port)
{
    char text[STREAM_LINE];
    int length = snprintf(text, sizeof(text), "OK %u\n", port);

    if (!s->by_line)
        return 0;
    return write(s->fd, text, (size_t)length) == length ? 0 : -ECONNRESET; /* the socket's first bytes: there is room */
}
