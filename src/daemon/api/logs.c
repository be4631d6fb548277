/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET /v1/instances/{id}/logs: the log files as one chunked text, and on as it grows (follow).
 *
 * The files are read when the client's socket takes more, so a slow client costs no memory. While there is nothing
 * new the connection is suspended and the files' sizes are looked at ten times a second: the files are the launcher's,
 * and the daemon may not watch them by name.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "daemon/api/log_reader.h"
#include "daemon/api/server.h"

enum { LOOK_MS = 100 };

struct log_stream {
    struct log_reader reader;
    bool open; /* reader is */
    bool follow, last_look;
    enum log_streams streams;
    uint64_t tail; /* UINT64_MAX: everything */
    char since[LOG_TIME_SIZE];
    char instance[INSTANCE_ID_SIZE];
    sd_event_source *timer;
};

static void stream_end(struct request *request)
{
    struct log_stream *stream = request->work;

    sd_event_source_disable_unref(stream->timer);
    if (stream->open)
        log_reader_close(&stream->reader);
    free(stream);
}

/* Nothing more will be written: ended for good, or removed. */
static bool has_ended(struct core *core, const char *id)
{
    const struct instance *instance = core_instance_find(core, id, NULL);

    return !instance || (!core_instance_running(instance) && !core_instance_operation(instance));
}

static int on_look(sd_event_source *source, uint64_t usec, void *context)
{
    struct request *request = context;
    struct log_stream *stream = request->work;

    if (has_ended(request->api->core, stream->instance))
        stream->last_look = true; /* one more reading finds what came before the end */
    if (stream->last_look || log_reader_stirred(&stream->reader)) {
        request_resume(request);
        return 0;
    }
    sd_event_source_set_time_relative(source, LOOK_MS * 1000);
    sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    return 0;
}

static int wait_for_more(struct request *request, struct log_stream *stream)
{
    int r;

    if (stream->timer) {
        r = sd_event_source_set_time_relative(stream->timer, LOOK_MS * 1000);
        if (r >= 0)
            r = sd_event_source_set_enabled(stream->timer, SD_EVENT_ONESHOT);
    } else {
        r = sd_event_add_time_relative(request->api->loop, &stream->timer, CLOCK_MONOTONIC, LOOK_MS * 1000, 1000,
                                       on_look, request);
    }
    if (r < 0)
        return r;
    request->suspended = true;
    MHD_suspend_connection(request->connection);
    return 0;
}

static ssize_t read_logs(void *context, uint64_t position, char *buf, size_t max)
{
    struct request *request = context;
    struct log_stream *stream = request->work;
    bool last_look = stream->last_look;

    if (request->gone)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    ssize_t n = log_reader_read(&stream->reader, buf, max);
    if (n > 0)
        return n;
    if (n < 0)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (!stream->follow || last_look)
        return MHD_CONTENT_READER_END_OF_STREAM;
    return wait_for_more(request, stream) < 0 ? MHD_CONTENT_READER_END_WITH_ERROR : 0;
}

static int open_logs(struct request *request, int *fds, struct error **err)
{
    struct log_stream *stream = request->work;
    int r = log_reader_open(&stream->reader, fds, stream->streams, stream->since, err);

    if (r < 0)
        return r;
    stream->open = true;
    r = log_reader_tail(&stream->reader, stream->tail, err);
    if (r < 0)
        return r;
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, LOG_BLOCK, read_logs, request, NULL);
    if (!response)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a log");
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain");
    answer_response(request, MHD_HTTP_OK, response);
    return 0;
}

static void on_fds(void *context, int *fds, size_t count, const struct error *failure)
{
    struct request *request = context;
    auto_error struct error *err = NULL;
    int r = 0;

    if (failure)
        return answer_problem(request, failure);
    if (count == 2)
        r = open_logs(request, fds, &err);
    else
        r = error_set(&err, EPROTO, "PROTOCOL_ERROR", "the instance's log did not come as two files");
    for (size_t i = 0; i < count; i++)
        fds[i] = close_fd(fds[i]);
    if (r < 0)
        answer_problem(request, err);
}

static int parse_streams(const char *text, enum log_streams *ret, struct error **err)
{
    if (text && strcmp(text, "stdout") != 0 && strcmp(text, "stderr") != 0)
        return error_set(err, EINVAL, "INVALID_VALUE", "query: stream is neither \"stdout\" nor \"stderr\"");
    *ret = !text ? LOG_BOTH : strcmp(text, "stdout") == 0 ? LOG_STDOUT : LOG_STDERR;
    return 0;
}

static int parse_query(struct request *request, struct log_stream *stream, struct error **err)
{
    const struct target *target = &request->target;
    const char *since, *streams;
    unsigned long long tail = 0;
    int r = target_bool(target, "follow", false, &stream->follow, err);

    if (r == 0)
        r = target_number(target, "tail", UINT64_MAX, UINT64_MAX - 1, &tail, err);
    if (r == 0)
        r = target_value(target, "stream", &streams, err);
    if (r == 0)
        r = parse_streams(streams, &stream->streams, err);
    if (r == 0)
        r = target_value(target, "since", &since, err);
    if (r == 0 && since)
        r = log_time_parse(since, stream->since, err);
    stream->tail = tail;
    return r;
}

int get_logs(struct request *request, struct error **err)
{
    struct instance *instance;
    struct log_stream *stream;
    int r = request_instance(request, &instance, err);

    if (r < 0)
        return r;
    stream = calloc(1, sizeof(*stream));
    if (!stream)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a log");
    request->work = stream;
    request->work_end = stream_end;
    snprintf(stream->instance, sizeof(stream->instance), "%s", core_instance_id(instance));
    r = parse_query(request, stream, err);
    if (r == 0)
        r = client_stays(request->client, err);
    if (r == 0)
        r = request_watch_hangup(request, err);
    return r < 0 ? r : core_logs(request->api->core, instance, on_fds, request, err);
}
