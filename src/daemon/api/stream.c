/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST exec and attach: after 101 the connection is a `coracle-stream` of frames, relayed here.
 *
 * Theory of operation. A stream lives in two halves. As a request it waits for the process (or the console and the
 * log) and is the request's `work`. When libmicrohttpd hands the socket over it belongs to api->upgraded and the
 * request knows it no more. Nothing blocks: what the process does not take waits in `input` (then the socket is not
 * read), what the client does not take waits in `output` (then the process is not read). The last frame tells the end;
 * it goes out after the process's output, for which a grandchild that keeps a pipe open has DRAIN_MS.
 * Attach reads the log files, which hold all output in order; the console is for writing only, since the instance's
 * own init reads it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/api/frame.h"
#include "daemon/api/log_reader.h"
#include "daemon/api/server.h"

enum {
    INPUT_MAX = 256 * 1024, /* waiting for the process; signals behind it still get through below this */
    OUTPUT_MAX = 64 * 1024, /* waiting for the client */
    PIECE = 16 * 1024,
    DRAIN_MS = 200,
    FLUSH_MS = 30 * 1000, /* a client has this long to take the last frame */
    LINGER_MS = 2000,     /* over TLS: until the client has closed */
    LOOK_MS = 20,         /* attach: how often the log is looked at */
};

/* One of the process's outputs. */
struct source {
    struct stream *stream;
    int fd;
    enum frame_stream frame;
    sd_event_source *event;
};

struct stream {
    struct api *api;
    struct server *server;
    struct request *request; /* before the upgrade, NULL after */
    struct stream *next, *previous;
    char instance[INSTANCE_ID_SIZE];
    struct MHD_UpgradeResponseHandle *handle;
    int socket;
    sd_event_source *socket_event, *timer;
    struct frame_parser parser;
    struct buffer input, output;
    size_t input_at, output_at;
    int input_fd; /* stdin's write end, or the terminal */
    sd_event_source *input_event;
    bool input_ended, tty;
    struct source sources[2];
    bool attach, from_start; /* from_start: the log from its beginning comes first */
    uint32_t exec;           /* number of the execution, 0: not started */
    struct log_reader log;
    bool log_open;
    bool ended, draining, last_said; /* the process ended; its output is awaited; the last frame is in output */
    bool lingering;                  /* all is sent; the client closes */
    int wait_status;
    struct error *failure; /* why it ended when there is no status */
};

static void update(struct stream *stream);

/* ------------------------------------------------------------------ life */

static struct stream *stream_new(struct request *request, const struct instance *instance)
{
    struct stream *stream = calloc(1, sizeof(*stream));

    if (!stream)
        return NULL;
    stream->api = request->api;
    stream->server = request->client->server;
    stream->request = request;
    stream->socket = stream->input_fd = -1;
    for (int i = 0; i < 2; i++)
        stream->sources[i] = (struct source){.stream = stream, .fd = -1, .frame = i ? FRAME_STDERR : FRAME_STDOUT};
    snprintf(stream->instance, sizeof(stream->instance), "%s", core_instance_id(instance));
    return stream;
}

static void close_input(struct stream *stream)
{
    stream->input_event = sd_event_source_disable_unref(stream->input_event);
    stream->input_fd = close_fd(stream->input_fd);
}

static void close_source(struct source *source)
{
    source->event = sd_event_source_disable_unref(source->event);
    source->fd = close_fd(source->fd);
}

static void stream_free(struct stream *stream)
{
    core_forget(stream->api->core, stream);
    close_input(stream);
    close_source(&stream->sources[0]);
    close_source(&stream->sources[1]);
    sd_event_source_disable_unref(stream->socket_event);
    sd_event_source_disable_unref(stream->timer);
    if (stream->log_open)
        log_reader_close(&stream->log);
    buffer_clear(&stream->input);
    buffer_clear(&stream->output);
    error_free(stream->failure);
    free(stream);
}

/* The client left before the upgrade. A process that runs already loses its terminal or its pipes. */
static void request_lost(struct request *request)
{
    struct stream *stream = request->work;

    if (stream->exec && !stream->ended)
        core_exec_signal(stream->api->core, stream->instance, stream->exec, SIGHUP, NULL);
    stream_free(stream);
}

/* The end after the upgrade. What the client still sends is read, so that closing does not destroy what it was sent. */
static void stream_close(struct stream *stream)
{
    char rest[4096];

    if (!stream->attach && !stream->ended)
        core_exec_signal(stream->api->core, stream->instance, stream->exec, SIGHUP, NULL);
    stream->socket_event = sd_event_source_disable_unref(stream->socket_event);
    for (int i = 0; i < 64 && recv(stream->socket, rest, sizeof(rest), MSG_DONTWAIT) > 0; i++)
        ;
    *(stream->previous ? &stream->previous->next : &stream->api->upgraded) = stream->next;
    if (stream->next)
        stream->next->previous = stream->previous;
    MHD_upgrade_action(stream->handle, MHD_UPGRADE_ACTION_CLOSE);
    sd_event_source_set_enabled(stream->server->run_source, SD_EVENT_ONESHOT); /* as in request_resume() */
    stream_free(stream);
}

void streams_end(struct api *api)
{
    while (api->upgraded)
        stream_close(api->upgraded);
}

/* ------------------------------------------------------------------ to the client */

static void put_frame(struct stream *stream, enum frame_stream frame, const void *bytes, size_t n)
{
    uint8_t header[FRAME_HEADER_SIZE];

    frame_header(header, frame, (uint32_t)n);
    buffer_add(&stream->output, header, sizeof(header));
    buffer_add(&stream->output, bytes, n);
}

static void render_exit(const struct stream *stream, struct buffer *out)
{
    if (stream->failure) {
        buffer_text(out, "{\"error\":");
        core_render_problem(stream->failure, out);
        buffer_char(out, '}');
    } else if (WIFSIGNALED(stream->wait_status)) {
        const char *name = signal_name(WTERMSIG(stream->wait_status));
        buffer_printf(out, "{\"exit\":{\"signal\":\"SIG%s\"}}", name ? name : "RTMIN");
    } else {
        buffer_printf(out, "{\"exit\":{\"status\":%d}}", WEXITSTATUS(stream->wait_status));
    }
}

/* An instance's end as the core shows it, for attach: {"exit": {"status"|"signal", ...}} of INSTANCE. */
static void render_instance_exit(const struct stream *stream, struct buffer *out)
{
    const struct instance *instance = core_instance_find(stream->api->core, stream->instance, NULL);
    auto_buffer struct buffer shown = {0};

    if (instance)
        core_render_instance(stream->api->core, instance, &shown);
    json_t *value = shown.length ? json_loadb(shown.data, shown.length, 0, NULL) : NULL;
    const json_t *end = json_object_get(value, "exit");
    const char *signal = json_string_value(json_object_get(end, "signal"));
    const json_t *status = json_object_get(end, "status");
    if (signal)
        buffer_printf(out, "{\"exit\":{\"signal\":\"%s\"}}", signal);
    else if (json_is_integer(status))
        buffer_printf(out, "{\"exit\":{\"status\":%lld}}", (long long)json_integer_value(status));
    else {
        auto_error struct error *err = NULL;
        error_set(&err, ENOENT, "INSTANCE_NOT_FOUND", "the instance ended and left no status");
        buffer_text(out, "{\"error\":");
        core_render_problem(err, out);
        buffer_char(out, '}');
    }
    json_decref(value);
}

static int on_flush_over(sd_event_source *source, uint64_t usec, void *context)
{
    stream_close(context);
    return 0;
}

static void set_timer(struct stream *stream, unsigned ms, sd_event_time_handler_t handler)
{
    sd_event_source_disable_unref(take_ptr(stream->timer));
    sd_event_add_time_relative(stream->api->loop, &stream->timer, CLOCK_MONOTONIC, (uint64_t)ms * 1000, 1000, handler,
                               stream);
}

static void say_last(struct stream *stream)
{
    auto_buffer struct buffer text = {0};

    if (stream->last_said)
        return;
    stream->last_said = true;
    if (stream->attach && !stream->failure)
        render_instance_exit(stream, &text);
    else
        render_exit(stream, &text);
    put_frame(stream, FRAME_CONTROL, text.data, text.length);
    close_input(stream);
    close_source(&stream->sources[0]);
    close_source(&stream->sources[1]);
    set_timer(stream, FLUSH_MS, on_flush_over);
}

/* Takes what was handed on out of the front, so that a buffer that never runs empty does not grow either. */
static void compact(struct buffer *buffer, size_t *at)
{
    if (*at == 0 || (*at < buffer->length && *at < OUTPUT_MAX))
        return;
    memmove(buffer->data, buffer->data + *at, buffer->length - *at);
    buffer->length -= *at;
    *at = 0;
}

/* Sends what waits. -1: the client is gone. */
static int flush_output(struct stream *stream)
{
    struct buffer *out = &stream->output;

    while (stream->output_at < out->length) {
        ssize_t n = send(stream->socket, out->data + stream->output_at, out->length - stream->output_at,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return -1;
        if (n < 0)
            break;
        stream->output_at += (size_t)n;
    }
    compact(out, &stream->output_at);
    return 0;
}

/* ------------------------------------------------------------------ to the process */

/* Writes what waits; a process that closed its stdin gets no more. */
static void flush_input(struct stream *stream)
{
    struct buffer *in = &stream->input;

    while (stream->input_fd >= 0 && stream->input_at < in->length) {
        ssize_t n = write(stream->input_fd, in->data + stream->input_at, in->length - stream->input_at);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            compact(in, &stream->input_at);
            return;
        }
        if (n < 0)
            break;
        stream->input_at += (size_t)n;
    }
    if (stream->input_at < in->length)
        close_input(stream);
    stream->input_at = in->length = 0;
    if (stream->input_ended && !stream->tty)
        close_input(stream);
}

static int sink_input(void *context, const void *bytes, size_t n)
{
    struct stream *stream = context;

    if (stream->input_fd >= 0) {
        buffer_add(&stream->input, bytes, n);
        flush_input(stream);
    }
    return stream->input.failed ? -ENOMEM : 0;
}

static int sink_input_end(void *context)
{
    static const char end_of_transmission = 4; /* what a terminal's user types: Ctrl-D */
    struct stream *stream = context;

    stream->input_ended = true;
    if (stream->tty)
        return sink_input(stream, &end_of_transmission, 1);
    flush_input(stream);
    return 0;
}

static int sink_resize(void *context, uint16_t columns, uint16_t rows)
{
    struct stream *stream = context;
    const struct winsize size = {.ws_col = columns, .ws_row = rows};

    if (stream->tty && stream->input_fd >= 0)
        ioctl(stream->input_fd, TIOCSWINSZ, &size);
    return 0;
}

static void ignore_done(void *context, const struct error *err)
{
}

/* A signal that comes too late is no error of the stream's. */
static int sink_signal(void *context, int number)
{
    struct stream *stream = context;
    struct core *core = stream->api->core;
    struct instance *instance;

    if (!stream->attach) {
        core_exec_signal(core, stream->instance, stream->exec, number, NULL);
        return 0;
    }
    instance = core_instance_find(core, stream->instance, NULL);
    if (instance)
        core_signal_number(core, instance, number, ignore_done, stream, NULL);
    return 0;
}

static const struct frame_sink sink = {sink_input, sink_input_end, sink_resize, sink_signal};

/* The client broke the protocol: it is told why, and that is the last frame. */
static void fail(struct stream *stream, struct error *err)
{
    if (!stream->failure)
        stream->failure = err;
    else
        error_free(err);
    say_last(stream);
}

static void digest(struct stream *stream, const void *bytes, size_t n)
{
    struct error *err = NULL;

    if (stream->last_said)
        return;
    if (frame_parse(&stream->parser, bytes, n, &sink, stream, &err) == 0)
        return;
    if (!err)
        error_set(&err, ENOMEM, "NO_MEMORY", "no memory for the stream's input");
    fail(stream, err);
}

/* ------------------------------------------------------------------ the loop's callbacks */

static int on_drained(sd_event_source *event, uint64_t usec, void *context)
{
    struct stream *stream = context;

    say_last(stream);
    update(stream);
    return 0;
}

/* The process has ended: what its outputs still hold comes first. */
static void process_ended(struct stream *stream)
{
    stream->ended = true;
    if (stream->socket < 0 || stream->draining || stream->last_said)
        return;
    stream->draining = true;
    set_timer(stream, DRAIN_MS, on_drained);
    update(stream);
}

static int on_source(sd_event_source *event, int fd, uint32_t events, void *context)
{
    struct source *source = context;
    struct stream *stream = source->stream;
    char piece[PIECE];
    ssize_t n = read(fd, piece, sizeof(piece));

    if (n > 0)
        put_frame(stream, source->frame, piece, (size_t)n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        close_source(source); /* EIO from a terminal: nobody has it open any more */
    update(stream);
    return 0;
}

static int on_input_ready(sd_event_source *event, int fd, uint32_t events, void *context)
{
    struct stream *stream = context;

    if (events & EPOLLOUT)
        flush_input(stream);
    else
        close_input(stream); /* EPOLLERR: the reading end is gone */
    update(stream);
    return 0;
}

static int on_socket(sd_event_source *event, int fd, uint32_t events, void *context)
{
    struct stream *stream = context;
    char piece[PIECE];

    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        ssize_t n = recv(fd, piece, sizeof(piece), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            stream_close(stream);
            return 0;
        }
        if (n > 0)
            digest(stream, piece, (size_t)n);
    }
    update(stream);
    return 0;
}

/* Over TLS what was sent lies in a socket pair that libmicrohttpd empties in its own time, and closing throws the rest
 * away: the client, which closes when it has read the last frame, goes first. Returns whether to wait for it. */
static bool linger(struct stream *stream)
{
    if (!stream->server->tls)
        return false;
    if (!stream->lingering)
        set_timer(stream, LINGER_MS, on_flush_over);
    stream->lingering = true;
    return true;
}

/* Brings every event source's mask in line with what waits where. May free the stream. */
static void update(struct stream *stream)
{
    bool outputs_open = stream->sources[0].fd >= 0 || stream->sources[1].fd >= 0;

    if (stream->draining && !outputs_open)
        say_last(stream);
    bool sent = flush_output(stream) == 0 && !stream->output.failed;
    if (!sent || (stream->last_said && stream->output.length == 0 && !linger(stream))) {
        stream_close(stream);
        return;
    }
    bool takes_input = stream->input.length - stream->input_at < INPUT_MAX;
    bool takes_output = stream->output.length - stream->output_at < OUTPUT_MAX;
    sd_event_source_set_io_events(stream->socket_event,
                                  (takes_input ? EPOLLIN : 0u) | (stream->output.length ? EPOLLOUT : 0u));
    for (int i = 0; i < 2; i++)
        if (stream->sources[i].event)
            sd_event_source_set_enabled(stream->sources[i].event, takes_output ? SD_EVENT_ON : SD_EVENT_OFF);
    if (stream->input_event)
        sd_event_source_set_enabled(stream->input_event, stream->input.length ? SD_EVENT_ON : SD_EVENT_OFF);
}

/* ------------------------------------------------------------------ attach: output out of the log */

/* One CRI record: "TIME STREAM TAG text\n". */
static void put_record(struct stream *stream, const char *line, size_t n)
{
    const char *space = memchr(line, ' ', n);
    size_t head = space ? (size_t)(space - line) + 10 : n; /* " stdout F " */

    if (head >= n)
        return;
    enum frame_stream frame = memcmp(space, " stderr ", 8) == 0 ? FRAME_STDERR : FRAME_STDOUT;
    /* A part has no line end of its own, a full line does. */
    put_frame(stream, frame, line + head, n - head - (space[8] == 'P'));
}

/* Moves what is new in the log into frames. Returns whether there was anything. */
static bool read_log(struct stream *stream)
{
    char piece[PIECE];
    bool any = false;

    while (stream->output.length - stream->output_at < OUTPUT_MAX) {
        ssize_t n = log_reader_read(&stream->log, piece, sizeof(piece));
        if (n <= 0)
            break;
        any = true;
        for (char *line = piece, *end = piece + n; line < end;) {
            char *newline = memchr(line, '\n', (size_t)(end - line));
            size_t length = newline ? (size_t)(newline - line) + 1 : (size_t)(end - line);
            put_record(stream, line, length);
            line += length;
        }
    }
    return any;
}

static int on_look(sd_event_source *event, uint64_t usec, void *context)
{
    struct stream *stream = context;
    const struct instance *instance = core_instance_find(stream->api->core, stream->instance, NULL);
    bool running = instance && core_instance_running(instance), any = false;

    if (log_reader_stirred(&stream->log) || !running)
        any = read_log(stream);
    if (!running && !any && stream->output.length == 0)
        say_last(stream);
    else
        set_timer(stream, LOOK_MS, on_look);
    update(stream);
    return 0;
}

/* ------------------------------------------------------------------ upgrade */

static int watch_sources(struct stream *stream)
{
    int r = sd_event_add_io(stream->api->loop, &stream->socket_event, stream->socket, EPOLLIN, on_socket, stream);

    for (int i = 0; r >= 0 && i < 2; i++)
        if (stream->sources[i].fd >= 0)
            r = sd_event_add_io(stream->api->loop, &stream->sources[i].event, stream->sources[i].fd, EPOLLIN, on_source,
                                &stream->sources[i]);
    if (r >= 0 && stream->input_fd >= 0)
        r = sd_event_add_io(stream->api->loop, &stream->input_event, stream->input_fd, EPOLLOUT, on_input_ready,
                            stream);
    return r;
}

static void on_upgraded(void *context, struct MHD_Connection *connection, void *request_place, const char *extra,
                        size_t extra_size, MHD_socket socket, struct MHD_UpgradeResponseHandle *handle)
{
    struct stream *stream = context;
    struct request *request = stream->request;

    request->work = NULL;
    request->work_end = NULL;
    request->hangup_source = sd_event_source_disable_unref(request->hangup_source);
    stream->request = NULL;
    stream->handle = handle;
    stream->socket = socket;
    stream->next = stream->api->upgraded;
    if (stream->next)
        stream->next->previous = stream;
    stream->api->upgraded = stream;
    if (watch_sources(stream) < 0) {
        stream_close(stream);
        return;
    }
    if (stream->attach)
        set_timer(stream, LOOK_MS, on_look);
    if (extra_size)
        digest(stream, extra, extra_size);
    if (stream->ended)
        process_ended(stream);
    else
        update(stream);
}

static void answer_upgrade(struct stream *stream)
{
    struct request *request = stream->request;
    struct MHD_Response *response = MHD_create_response_for_upgrade(on_upgraded, stream);
    auto_error struct error *err = NULL;

    if (!response) {
        error_set(&err, ENOMEM, "NO_MEMORY", "no memory for a stream");
        return answer_problem(request, err);
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_UPGRADE, "coracle-stream");
    answer_response(request, MHD_HTTP_SWITCHING_PROTOCOLS, response);
}

int prepare_upgrade(struct request *request, struct error **err)
{
    const char *protocol = MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_UPGRADE);
    const char *wish = MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONNECTION);

    if (protocol && strcasecmp(protocol, "coracle-stream") == 0 && wish && strcasestr(wish, "upgrade"))
        return 0;
    error_set(err, EINVAL, "INVALID_VALUE", "this call answers with a stream only");
    error_hint(err, "send Connection: Upgrade and Upgrade: coracle-stream");
    return -EINVAL;
}

static int stream_begin(struct request *request, const struct instance *instance, struct stream **ret,
                        struct error **err)
{
    int r = client_stays(request->client, err);
    struct stream *stream;

    if (r == 0)
        r = request_watch_hangup(request, err);
    if (r < 0)
        return r;
    stream = stream_new(request, instance);
    if (!stream)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a stream");
    request->work = stream;
    request->work_end = request_lost;
    *ret = stream;
    return 0;
}

/* ------------------------------------------------------------------ exec */

static void on_exec_started(void *context, uint32_t exec, int *fds, size_t count, const struct error *err)
{
    struct stream *stream = context;

    if (err)
        return answer_problem(stream->request, err);
    stream->exec = exec;
    if (stream->tty && count) {
        stream->input_fd = take_fd(&fds[0]);
        stream->sources[0].fd = fcntl(stream->input_fd, F_DUPFD_CLOEXEC, 0);
        fcntl(stream->input_fd, F_SETFL, O_RDWR | O_NONBLOCK);
    }
    for (size_t i = 0; i < count; i++)
        fds[i] = close_fd(fds[i]);
    answer_upgrade(stream);
}

static void on_exec_exited(void *context, int wait_status, const struct error *err)
{
    struct stream *stream = context;

    stream->wait_status = wait_status;
    if (err && !stream->failure)
        error_set(&stream->failure, err->errnum ? err->errnum : EIO, err->code, "%s", err->message);
    process_ended(stream);
}

/* Pipes for a process without a terminal: ours stay in the stream, its own come in fds. */
static int make_pipes(struct stream *stream, bool with_stdin, int fds[3])
{
    int pair[2];

    if (with_stdin) {
        if (pipe2(pair, O_CLOEXEC) < 0)
            return -errno;
        fds[0] = pair[0];
        stream->input_fd = pair[1];
        fcntl(pair[1], F_SETFL, O_WRONLY | O_NONBLOCK);
    } else if ((fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0) {
        return -errno;
    }
    for (int i = 0; i < 2; i++) {
        if (pipe2(pair, O_CLOEXEC) < 0)
            return -errno;
        stream->sources[i].fd = pair[0];
        fds[1 + i] = pair[1];
        fcntl(pair[0], F_SETFL, O_RDONLY | O_NONBLOCK);
    }
    return 0;
}

int post_exec(struct request *request, struct error **err)
{
    static const struct core_exec_callbacks callbacks = {on_exec_started, on_exec_exited};
    struct core *core = request->api->core;
    struct instance *instance;
    struct stream *stream;
    int fds[3] = {-1, -1, -1}, r = request_instance(request, &instance, err);

    if (r == 0)
        r = stream_begin(request, instance, &stream, err);
    if (r < 0)
        return r;
    stream->tty = core_exec_wants_tty(request->json);
    if (!stream->tty) {
        r = make_pipes(stream, json_is_true(json_object_get(request->json, "stdin")), fds);
        if (r < 0)
            error_set_errno(err, -r, "EXEC_FAILED", "cannot make pipes");
    }
    if (r == 0)
        r = core_exec(core, instance, request->json, fds, stream->tty ? 0 : 3, &callbacks, stream, err);
    for (int i = 0; i < 3; i++)
        close_fd(fds[i]);
    return r;
}

/* ------------------------------------------------------------------ attach */

static void on_attach_log(void *context, int *fds, size_t count, const struct error *failure)
{
    struct stream *stream = context;
    auto_error struct error *err = NULL;
    int r;

    if (failure)
        return answer_problem(stream->request, failure);
    if (count != 2)
        r = error_set(&err, EPROTO, "PROTOCOL_ERROR", "the instance's log did not come as two files");
    else
        r = log_reader_open(&stream->log, fds, LOG_BOTH, "", &err);
    for (size_t i = 0; i < count; i++)
        fds[i] = close_fd(fds[i]);
    stream->log_open = r == 0;
    if (r == 0)
        r = log_reader_tail(&stream->log, stream->from_start ? UINT64_MAX : 0, &err);
    if (r < 0)
        answer_problem(stream->request, err);
    else
        answer_upgrade(stream);
}

static void ask_for_log(struct stream *stream)
{
    struct instance *instance = core_instance_find(stream->api->core, stream->instance, NULL);
    auto_error struct error *err = NULL;
    int r = -ENOENT;

    if (!instance)
        error_set(&err, ENOENT, "INSTANCE_NOT_FOUND", "the instance was removed meanwhile");
    else
        r = core_logs(stream->api->core, instance, on_attach_log, stream, &err);
    if (r < 0)
        answer_problem(stream->request, err);
}

/* An instance without terminal and stdin has no console: then there is only output to attach to. */
static void on_console(void *context, int *fds, size_t count, const struct error *err)
{
    struct stream *stream = context;

    if (!err && count) {
        stream->input_fd = take_fd(&fds[0]);
        fcntl(stream->input_fd, F_SETFL, (stream->tty ? O_RDWR : O_WRONLY) | O_NONBLOCK);
    }
    for (size_t i = 0; i < count; i++)
        fds[i] = close_fd(fds[i]);
    ask_for_log(stream);
}

int post_attach(struct request *request, struct error **err)
{
    struct core *core = request->api->core;
    struct instance *instance;
    struct stream *stream;
    bool from_start = false, running;
    int r = request_instance(request, &instance, err);

    if (r == 0)
        r = target_bool(&request->target, "logs", false, &from_start, err);
    if (r < 0)
        return r;
    running = core_instance_running(instance);
    if (!running && !from_start) {
        error_set(err, EINVAL, "CONFLICTING_STATE", "%s is not running", core_instance_name(instance));
        error_hint(err, "start it first; its log can be read at any time");
        return -EINVAL;
    }
    r = stream_begin(request, instance, &stream, err);
    if (r < 0)
        return r;
    stream->attach = true;
    stream->from_start = from_start;
    stream->tty = core_instance_tty(instance);
    if (!running || core_console(core, instance, on_console, stream, NULL) < 0)
        r = core_logs(core, instance, on_attach_log, stream, err);
    return r;
}
