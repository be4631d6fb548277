/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET /v1/events: a list, or a stream of Server-Sent Events (WHATWG HTML section 9.2) with heartbeats.
 *
 * Each client has a bounded queue. One that is too slow for it is disconnected after what it has; it comes again with
 * Last-Event-ID and misses nothing that is still kept.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/api/server.h"

enum { QUEUE_MAX = 8 << 20 };

struct event_stream {
    struct buffer queue;
    size_t at;  /* bytes of it that were handed on */
    bool ended; /* the queue overflowed: end after it */
    sd_event_source *heartbeat;
};

static void stream_end(struct request *request)
{
    struct event_stream *stream = request->work;

    sd_event_source_disable_unref(stream->heartbeat);
    buffer_clear(&stream->queue);
    free(stream);
}

/* Adds to the queue within the client's bound and the budget of all. */
static void enqueue(struct request *request, const char *text, size_t n)
{
    struct event_stream *stream = request->work;
    size_t before = stream->queue.capacity;

    if (stream->ended)
        return;
    if (stream->at == stream->queue.length)
        stream->at = stream->queue.length = 0;
    if (stream->queue.length + n > QUEUE_MAX || request->api->answer_bytes + n > ANSWER_BUDGET) {
        stream->ended = true;
        return;
    }
    buffer_add(&stream->queue, text, n);
    stream->ended |= stream->queue.failed;
    request->answer_bytes += stream->queue.capacity - before;
    request->api->answer_bytes += stream->queue.capacity - before;
}

static void on_event(void *context, const struct core_event *event)
{
    struct request *request = context;
    auto_buffer struct buffer text = {0};

    buffer_printf(&text, "id: %llu\nevent: %s\ndata: ", (unsigned long long)event->seq, event->type);
    buffer_add(&text, event->json, event->length);
    buffer_text(&text, "\n\n");
    if (!text.failed)
        enqueue(request, text.data, text.length);
    request_resume(request);
}

static int on_heartbeat(sd_event_source *source, uint64_t usec, void *context)
{
    struct request *request = context;

    enqueue(request, ":\n\n", 3);
    request_resume(request);
    sd_event_source_set_time_relative(source, (uint64_t)HEARTBEAT_MS * 1000);
    sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    return 0;
}

static ssize_t read_events(void *context, uint64_t position, char *buf, size_t max)
{
    struct request *request = context;
    struct event_stream *stream = request->work;
    size_t n = stream->queue.length - stream->at;

    if (request->gone)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (n == 0) {
        if (stream->ended)
            return MHD_CONTENT_READER_END_OF_STREAM;
        request->suspended = true;
        MHD_suspend_connection(request->connection);
        return 0;
    }
    if (n > max)
        n = max;
    memcpy(buf, stream->queue.data + stream->at, n);
    stream->at += n;
    return (ssize_t)n;
}

static int start_stream(struct request *request, uint64_t since, const char *instance, struct error **err)
{
    struct api *api = request->api;
    struct event_stream *stream = calloc(1, sizeof(*stream));
    int r;

    if (!stream)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for an event stream");
    request->work = stream;
    request->work_end = stream_end;
    enqueue(request, "retry: 1000\n\n", 13);
    r = sd_event_add_time_relative(api->loop, &stream->heartbeat, CLOCK_MONOTONIC, (uint64_t)HEARTBEAT_MS * 1000,
                                   100 * 1000, on_heartbeat, request);
    if (r < 0)
        return error_set_errno(err, -r, "INTERNAL", "cannot make a timer");
    r = client_stays(request->client, err);
    if (r == 0)
        r = request_watch_hangup(request, err);
    if (r == 0)
        r = core_events_follow(api->core, since, instance, on_event, request, err);
    if (r < 0)
        return r;
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, read_events, request, NULL);
    if (!response)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for an event stream");
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "text/event-stream");
    answer_response(request, MHD_HTTP_OK, response);
    return 0;
}

/* Last-Event-ID wins over the query: a browser repeats the query when it comes back. */
static int last_event_id(struct request *request, unsigned long long *since, bool *ret_given, struct error **err)
{
    const char *text = MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, "Last-Event-ID");
    char *end;

    if (!text)
        return 0;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno)
        return error_set(err, EINVAL, "INVALID_VALUE", "Last-Event-ID: no number of an event");
    *since = value;
    *ret_given = true;
    return 0;
}

int get_events(struct request *request, struct error **err)
{
    const char *instance, *since_text;
    unsigned long long since;
    bool follow, since_given = false;
    int r = target_bool(&request->target, "follow", false, &follow, err);

    if (r == 0)
        r = target_value(&request->target, "instance", &instance, err);
    if (r == 0)
        r = target_value(&request->target, "since", &since_text, err);
    if (r == 0)
        r = target_number(&request->target, "since", 0, UINT64_MAX - 1, &since, err);
    if (r == 0)
        r = last_event_id(request, &since, &since_given, err);
    if (r < 0)
        return r;
    if (follow)
        return start_stream(request, since_text || since_given ? since : UINT64_MAX, instance, err);
    r = core_render_events(request->api->core, since, instance, &request->out, err);
    if (r == 0)
        answer_json(request, MHD_HTTP_OK, &request->out);
    return r;
}
