/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec and attach: one poll loop over the connection, standard input and signals. Input is read only while nothing
 * waits to be sent, so a slow process slows the user's pipe instead of filling this program's memory.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>

#include "cli/common.h"
#include "cli/stream.h"

enum { CTRL_P = 0x10, CTRL_Q = 0x11, CHUNK = 32768 };

struct loop {
    struct session *session;
    struct api_channel *channel;
    struct buffer out, in;
    size_t out_sent;
    int signals;
    bool stdin_open, saw_ctrl_p, done;
    struct error **err;
};

void frame_header(unsigned char out[FRAME_HEADER], enum frame_stream stream, uint32_t size)
{
    const unsigned char header[FRAME_HEADER] = {(unsigned char)stream,
                                                0,
                                                0,
                                                0,
                                                (unsigned char)(size >> 24),
                                                (unsigned char)(size >> 16),
                                                (unsigned char)(size >> 8),
                                                (unsigned char)size};

    memcpy(out, header, FRAME_HEADER);
}

ssize_t frame_parse(const char *data, size_t size, struct frame *ret)
{
    const unsigned char *h = (const unsigned char *)data;
    uint32_t length;

    if (size < FRAME_HEADER)
        return 0;
    length = (uint32_t)h[4] << 24 | (uint32_t)h[5] << 16 | (uint32_t)h[6] << 8 | h[7];
    if (h[0] > FRAME_CONTROL || h[1] || h[2] || h[3] || length > FRAME_PAYLOAD_MAX)
        return -EPROTO;
    if (size < FRAME_HEADER + (size_t)length)
        return 0;
    *ret = (struct frame){(enum frame_stream)h[0], data + FRAME_HEADER, length};
    return FRAME_HEADER + (ssize_t)length;
}

static void queue(struct loop *loop, enum frame_stream stream, const void *data, size_t size)
{
    unsigned char header[FRAME_HEADER];

    frame_header(header, stream, (uint32_t)size);
    buffer_add(&loop->out, header, FRAME_HEADER);
    buffer_add(&loop->out, data, size);
}

static void queue_control(struct loop *loop, json_t *value)
{
    auto_free char *text = json_dumps(value, JSON_COMPACT);

    queue(loop, FRAME_CONTROL, text, strlen(text));
    json_decref(value);
}

static void queue_resize(struct loop *loop, int less)
{
    unsigned short columns, rows;

    term_size(&columns, &rows);
    queue_control(loop, json_pack("{s:[i,i]}", "resize", columns - less, rows));
}

static int write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);

        if (n < 0 && errno == EAGAIN) {
            struct pollfd p = {.fd = fd, .events = POLLOUT};

            poll(&p, 1, -1);
            continue;
        }
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0) {
            data += n;
            size -= (size_t)n;
        }
    }
    return 0;
}

static int take_control(struct loop *loop, const struct frame *frame)
{
    json_t *value = json_loadb(frame->data, frame->size, 0, NULL);
    json_t *exit = json_object_get(value, "exit"), *problem = json_object_get(value, "error");
    int r = 0;

    if (json_is_object(exit)) {
        loop->session->exit = json_incref(exit);
        loop->done = true;
    } else if (json_is_object(problem)) {
        r = api_problem(problem, 500, loop->err);
    }
    json_decref(value);
    return r;
}

static int take_frame(struct loop *loop, const struct frame *frame)
{
    struct session *s = loop->session;
    bool is_err = frame->stream == FRAME_STDERR;
    struct buffer *collect = is_err ? s->collect_err : s->collect_out;

    if (frame->stream == FRAME_CONTROL)
        return take_control(loop, frame);
    if (frame->stream == FRAME_STDIN)
        return 0;
    if (collect) {
        buffer_add(collect, frame->data, frame->size);
        return 0;
    }
    /* Nobody reads our output any more (a closed pipe): nothing is left to do here. */
    if (write_all(is_err ? STDERR_FILENO : STDOUT_FILENO, frame->data, frame->size) < 0)
        loop->done = true;
    return 0;
}

static int receive(struct loop *loop)
{
    char buf[CHUNK];
    ssize_t n = 1, used;

    while (!loop->done && (n = api_receive(loop->channel, buf, sizeof(buf))) > 0) {
        size_t taken = 0;
        struct frame frame;

        buffer_add(&loop->in, buf, (size_t)n);
        while (!loop->done && (used = frame_parse(loop->in.data + taken, loop->in.length - taken, &frame)) != 0) {
            int r = used < 0 ? error_set(loop->err, EPROTO, "PROTOCOL_ERROR", "the daemon sent no frame of a stream")
                             : take_frame(loop, &frame);
            if (r < 0)
                return r;
            taken += (size_t)used;
        }
        memmove(loop->in.data, loop->in.data + taken, loop->in.length - taken);
        loop->in.length -= taken;
    }
    if (loop->done || n == -EAGAIN)
        return 0;
    error_set(loop->err, ECONNRESET, "DAEMON_UNAVAILABLE", "the connection to the daemon ended before the process did");
    error_hint(loop->err, "the process may still run: coracle ps, coracle logs NAME");
    return -ECONNRESET;
}

static int flush_out(struct loop *loop)
{
    while (loop->out_sent < loop->out.length) {
        ssize_t n = api_send(loop->channel, loop->out.data + loop->out_sent, loop->out.length - loop->out_sent);

        if (n == -EAGAIN)
            return 0;
        if (n < 0) {
            /* The end of the process may cross our input; what it said last is still to be read. */
            loop->stdin_open = false;
            break;
        }
        loop->out_sent += (size_t)n;
    }
    loop->out.length = loop->out_sent = 0;
    return 0;
}

/* Finds Ctrl-P Ctrl-Q. Returns how many bytes before it are input. */
static size_t scan_detach(struct loop *loop, const char *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (loop->saw_ctrl_p && data[i] == CTRL_Q) {
            loop->session->detached = loop->done = true;
            return i ? i - 1 : 0;
        }
        loop->saw_ctrl_p = data[i] == CTRL_P;
    }
    return size;
}

static void read_stdin(struct loop *loop)
{
    char buf[CHUNK];
    ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        loop->stdin_open = false;
        queue(loop, FRAME_STDIN, "", 0);
        return;
    }
    if (loop->session->tty && loop->session->detachable)
        n = (ssize_t)scan_detach(loop, buf, (size_t)n);
    if (n > 0)
        queue(loop, FRAME_STDIN, buf, (size_t)n);
}

static void read_signal(struct loop *loop)
{
    struct signalfd_siginfo info;

    if (read(loop->signals, &info, sizeof(info)) != sizeof(info))
        return;
    if (info.ssi_signo == SIGWINCH) {
        if (loop->session->tty)
            queue_resize(loop, 0);
        return;
    }
    queue_control(loop, json_pack("{s:s}", "signal",
                                  info.ssi_signo == SIGINT   ? "SIGINT"
                                  : info.ssi_signo == SIGHUP ? "SIGHUP"
                                                             : "SIGTERM"));
}

static int turn(struct loop *loop)
{
    bool pending = loop->out_sent < loop->out.length;
    struct pollfd p[] = {
        {.fd = api_channel_fd(loop->channel), .events = (short)(POLLIN | (pending ? POLLOUT : 0))},
        {.fd = loop->signals, .events = POLLIN},
        {.fd = loop->stdin_open && !pending ? STDIN_FILENO : -1, .events = POLLIN},
    };

    if (poll(p, 3, -1) < 0)
        return errno == EINTR ? 0 : error_set_errno(loop->err, errno, "INTERNAL", "poll");
    if (p[1].revents)
        read_signal(loop);
    if (p[2].revents)
        read_stdin(loop);
    flush_out(loop);
    return p[0].revents ? receive(loop) : 0;
}

static int open_signals(sigset_t *saved)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGWINCH);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, saved);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int session_run(struct session *session, struct api_channel *channel, struct error **err)
{
    struct loop loop = {.session = session, .channel = channel, .stdin_open = session->send_stdin, .err = err};
    sigset_t saved;
    int r = session->tty ? term_raw(false, err) : 0;

    loop.signals = open_signals(&saved);
    if (session->tty) {
        /* Two sizes, because a program redraws (its prompt, its screen) only when the size changes. */
        queue_resize(&loop, 1);
        queue_resize(&loop, 0);
    }
    if (!session->send_stdin)
        queue(&loop, FRAME_STDIN, "", 0);
    if (r == 0)
        r = flush_out(&loop);
    /* Frames may have come along with the answer's head: poll would not tell. */
    if (r == 0)
        r = receive(&loop);
    while (r == 0 && !loop.done)
        r = turn(&loop);
    close_fd(loop.signals);
    sigprocmask(SIG_SETMASK, &saved, NULL);
    term_restore();
    buffer_clear(&loop.out);
    buffer_clear(&loop.in);
    api_channel_close(channel);
    return r;
}
