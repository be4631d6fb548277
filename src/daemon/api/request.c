/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request from its first header to its last byte: checks, body, handler, answer. Called by libmicrohttpd.
 *
 * libmicrohttpd calls request_access() once when the headers are there, again for each piece of body, and once more at
 * its end. An answer can be queued only in the first call (then the connection ends, the body unread) or in the last
 * one. So an error met in between is kept (body_error) while the rest is thrown away, up to a bound.
 * A handler that needs longer suspends the connection; request_resume() makes libmicrohttpd call again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/api/server.h"
#include "model/codes.h"

enum { DISCARD_MAX = 8 << 20 /* bytes of a refused body that are read for the sake of a readable answer */ };

/* ------------------------------------------------------------------ begin and end */

void *request_new(void *context, const char *uri, struct MHD_Connection *connection)
{
    struct api *api = context;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct client *client = info ? info->socket_context : NULL;
    struct request *request = client ? calloc(1, sizeof(*request)) : NULL;

    if (!request)
        return NULL;
    request->api = api;
    request->client = client;
    request->connection = connection;
    request->times.arrived_ns = monotonic_ns();
    request->uri = strdup(uri);
    client->request = request;
    if (client->used) /* the first request's time runs from the connection's begin */
        client_phase(client, PHASE_HEADER);
    client->used = false;
    return request;
}

static void request_end(struct request *request)
{
    struct api *api = request->api;

    if (request->work_end)
        request->work_end(request);
    core_forget(api->core, request);
    if (api->images)
        images_forget(api->images, request);
    images_upload_abort(request->upload);
    if (request->response)
        MHD_destroy_response(request->response);
    sd_event_source_disable_unref(request->hangup_source);
    api->body_bytes -= request->body.capacity;
    api->answer_bytes -= request->answer_bytes;
    buffer_clear(&request->body);
    buffer_clear(&request->out);
    json_decref(request->json);
    error_free(request->body_error);
    target_clear(&request->target);
    free(request->uri);
    free(request);
}

void request_completed(void *context, struct MHD_Connection *connection, void **request_place,
                       enum MHD_RequestTerminationCode why)
{
    struct request *request = *request_place;

    if (!request)
        return;
    struct client *client = request->client;
    client->request = NULL;
    client->used = true;
    client_phase(client, PHASE_HEADER);
    request->api->counters.requests[request->answer == ANSWER_QUEUED ? request->status / 100 : 0]++;
    request_end(request);
    *request_place = NULL;
}

void request_resume(struct request *request)
{
    if (!request->suspended)
        return;
    request->suspended = false;
    MHD_resume_connection(request->connection);
    /* With an event loop of one's own nothing wakes libmicrohttpd up for a resumed connection. */
    sd_event_source_set_enabled(request->client->server->run_source, SD_EVENT_ONESHOT);
}

static int on_hangup(sd_event_source *source, int fd, uint32_t events, void *context)
{
    struct request *request = context;

    sd_event_source_set_enabled(source, SD_EVENT_OFF);
    request->gone = true;
    request_resume(request);
    return 0;
}

int request_watch_hangup(struct request *request, struct error **err)
{
    /* EPOLLHUP and EPOLLERR come anyway. On the unix socket a client that only shut its sending side down is still
     * there to read; in TLS there is no such thing as half a connection. */
    uint32_t events = request->client->server->tls ? EPOLLRDHUP : 0;
    int r =
        sd_event_add_io(request->api->loop, &request->hangup_source, request->client->fd, events, on_hangup, request);

    return r < 0 ? error_set_errno(err, -r, "INTERNAL", "cannot watch a connection") : 0;
}

/* ------------------------------------------------------------------ answers */

static void set_answer(struct request *request, unsigned status, struct MHD_Response *response)
{
    if (request->answer != ANSWER_NONE) {
        if (response)
            MHD_destroy_response(response);
        return;
    }
    request->answer = ANSWER_READY;
    request->status = status;
    request->response = response;
    request_resume(request);
}

void answer_header(struct request *request, const char *name, const char *value)
{
    if (request->response)
        MHD_add_response_header(request->response, name, value);
}

/* A response that owns body's bytes; NULL when there is no memory or no budget for it. */
static struct MHD_Response *buffer_response(struct request *request, struct buffer *body)
{
    struct api *api = request->api;
    struct MHD_Response *response = NULL;

    if (!body->failed && api->answer_bytes + body->capacity <= ANSWER_BUDGET)
        response = MHD_create_response_from_buffer(body->length, body->data, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        buffer_clear(body);
        return NULL;
    }
    request->answer_bytes = body->capacity;
    api->answer_bytes += body->capacity;
    *body = (struct buffer){0};
    return response;
}

static void answer_buffer(struct request *request, unsigned status, const char *type, struct buffer *body)
{
    struct MHD_Response *response = buffer_response(request, body);

    if (!response) {
        auto_error struct error *err = NULL;
        error_set(&err, ENOMEM, "NO_MEMORY", "no memory for the answer");
        answer_problem(request, err);
        return;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    answer_response(request, status, response);
}

void answer_response(struct request *request, unsigned status, struct MHD_Response *response)
{
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (*request->location)
        MHD_add_response_header(response, MHD_HTTP_HEADER_LOCATION, request->location);
    set_answer(request, status, response);
}

void answer_json(struct request *request, unsigned status, struct buffer *body)
{
    answer_buffer(request, status, "application/json", body);
}

void answer_text(struct request *request, const char *type, struct buffer *body)
{
    answer_buffer(request, MHD_HTTP_OK, type, body);
}

void answer_static(struct request *request, const char *type, const void *bytes, size_t n)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(n, (void *)bytes, MHD_RESPMEM_PERSISTENT);

    if (!response)
        return set_answer(request, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    answer_response(request, MHD_HTTP_OK, response);
}

void answer_empty(struct request *request, unsigned status)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(0, "", MHD_RESPMEM_PERSISTENT);

    if (!response)
        return set_answer(request, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL);
    answer_response(request, status, response);
}

void answer_problem(struct request *request, const struct error *err)
{
    auto_buffer struct buffer body = {0};
    unsigned status = (unsigned)error_code_http_status(err->code);
    struct MHD_Response *response;

    *request->location = '\0';
    core_render_problem(err, &body);
    response = body.failed ? NULL : MHD_create_response_from_buffer(body.length, body.data, MHD_RESPMEM_MUST_COPY);
    if (!response)
        return set_answer(request, status, NULL);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/problem+json");
    if (status == MHD_HTTP_UNAUTHORIZED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer realm=\"coracle\"");
    if (status == MHD_HTTP_TOO_MANY_REQUESTS || status == MHD_HTTP_SERVICE_UNAVAILABLE)
        MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, "1");
    answer_response(request, status, response);
}

/* Gives libmicrohttpd the answer that is ready. close: the request's body was not read, nothing may follow it. */
static enum MHD_Result queue_answer(struct request *request, bool close)
{
    struct client *client = request->client;
    enum MHD_Result result;

    if (!request->response)
        return MHD_NO; /* not even the memory to say so: the connection ends */
    if (close)
        MHD_add_response_header(request->response, MHD_HTTP_HEADER_CONNECTION, "close");
    result = MHD_queue_response(request->connection, request->status, request->response);
    request->answer = ANSWER_QUEUED;
    if (client->phase != PHASE_STREAM)
        client_phase(client, PHASE_RESPONSE);
    return result;
}

/* ------------------------------------------------------------------ headers */

struct framing {
    unsigned lengths, encodings, hosts;
    bool bad_encoding, expects_body;
};

static enum MHD_Result look_at_header(void *context, enum MHD_ValueKind kind, const char *key, const char *value)
{
    struct framing *framing = context;

    if (strcasecmp(key, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0) {
        framing->lengths++;
        framing->expects_body |= value && strspn(value, "0") != strlen(value);
    } else if (strcasecmp(key, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0) {
        framing->encodings++;
        framing->expects_body = true;
        framing->bad_encoding |= !value || strcasecmp(value, "chunked") != 0;
    } else if (strcasecmp(key, MHD_HTTP_HEADER_HOST) == 0) {
        framing->hosts++;
    }
    return MHD_YES;
}

/* RFC 9112 section 6.3: where a body's end is in doubt, the request is refused and the connection closed. */
static int check_framing(struct request *request, struct framing *framing, struct error **err)
{
    MHD_get_connection_values(request->connection, MHD_HEADER_KIND, look_at_header, framing);
    if (framing->lengths + framing->encodings > 1 || framing->bad_encoding || framing->hosts > 1)
        return error_set(
            err, EINVAL, "MALFORMED_BODY",
            "contradicting headers: one Content-Length or Transfer-Encoding: chunked is accepted, and one Host");
    return 0;
}

/* The media type without its parameters equals one of the list. */
static bool type_is(const char *value, const char *const *types)
{
    size_t n = strcspn(value, "; \t");

    for (; *types; types++)
        if (strlen(*types) == n && strncasecmp(value, *types, n) == 0)
            return true;
    return false;
}

static int check_type(struct request *request, struct error **err)
{
    static const char *const json[] = {"application/json", "application/merge-patch+json", NULL};
    static const char *const yaml[] = {"application/yaml", "application/x-yaml", "text/yaml", NULL};
    static const char *const archive[] = {"application/x-tar", "application/octet-stream", NULL};
    const char *type = MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_TYPE);
    bool is_archive = request->route->body == BODY_ARCHIVE;

    request->yaml = type && type_is(type, yaml);
    if (type && (is_archive ? type_is(type, archive) : request->yaml || type_is(type, json)))
        return 0;
    error_set(err, EINVAL, "UNSUPPORTED_MEDIA_TYPE", "Content-Type \"%.60s\" is not accepted here", type ? type : "");
    error_hint(err, is_archive ? "send application/x-tar" : "send application/json or application/yaml");
    return -EINVAL;
}

static int check_length(struct request *request, struct error **err)
{
    const char *text =
        MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);

    if (request->route->body != BODY_ARCHIVE && text && strtoull(text, NULL, 10) > BODY_BYTES_MAX)
        return error_set(err, E2BIG, "BODY_TOO_LARGE", "the body has %.20s bytes, at most %d are accepted", text,
                         BODY_BYTES_MAX);
    return 0;
}

static int check_body_headers(struct request *request, bool expects_body, struct error **err)
{
    enum body_kind kind = request->route->body;
    int r;

    if (kind == BODY_NONE)
        return expects_body ? error_set(err, EINVAL, "MALFORMED_BODY", "this call takes no body") : 0;
    if (!expects_body)
        return kind == BODY_OPTIONAL
                   ? 0
                   : error_set(err, EINVAL, "MALFORMED_BODY", "this call needs a body, the request has none");
    r = check_type(request, err);
    return r < 0 ? r : check_length(request, err);
}

/* Everything that can be known before the body. */
static int begin(struct request *request, const char *method, char *allow, size_t allow_size, struct error **err)
{
    struct framing framing = {0};
    int r = check_framing(request, &framing, err);

    *allow = '\0';
    if (r == 0)
        r = tls_authenticate(request, err);
    if (r == 0)
        r = route_find(api_routes, api_route_count, method, request->uri, &request->route, &request->target, allow,
                       allow_size, err);
    if (r == 0)
        r = check_body_headers(request, framing.expects_body, err);
    if (r == 0 && request->route->prepare)
        r = request->route->prepare(request, err);
    return r;
}

static enum MHD_Result first_call(struct request *request, const char *method)
{
    auto_error struct error *err = NULL;
    char allow[64];

    request->begun = true;
    if (begin(request, method, allow, sizeof(allow), &err) < 0) {
        answer_problem(request, err);
        if (*allow)
            answer_header(request, MHD_HTTP_HEADER_ALLOW, allow);
        return queue_answer(request, true);
    }
    client_phase(request->client, request->route->body == BODY_ARCHIVE ? PHASE_UPLOAD : PHASE_BODY);
    return MHD_YES;
}

/* ------------------------------------------------------------------ body */

static int keep_piece(struct request *request, const char *data, size_t n, struct error **err)
{
    struct api *api = request->api;
    size_t before = request->body.capacity;
    int r;

    if (request->body.length + n > BODY_BYTES_MAX)
        return error_set(err, E2BIG, "BODY_TOO_LARGE", "the body is larger than %d bytes", BODY_BYTES_MAX);
    if (api->body_bytes + n > BODY_BUDGET)
        return error_set(err, EAGAIN, "TOO_MANY_REQUESTS", "too many large bodies are being received at once");
    r = buffer_reserve(&request->body, n);
    if (r < 0)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the body");
    api->body_bytes += request->body.capacity - before;
    buffer_add(&request->body, data, n);
    return 0;
}

static void body_piece(struct request *request, const char *data, size_t n)
{
    int r;

    request->client->upload_bytes += n;
    if (request->body_error) {
        /* Nobody has to send a body to its end only to be told that it was refused. */
        if ((request->discarded += n) > DISCARD_MAX)
            client_abort(request->client, request->body_error);
        return;
    }
    if (request->route->body == BODY_ARCHIVE)
        r = images_upload_write(request->upload, data, n, &request->body_error);
    else
        r = keep_piece(request, data, n, &request->body_error);
    if (r == 0)
        return;
    images_upload_abort(take_ptr(request->upload));
    request->api->body_bytes -= request->body.capacity;
    buffer_clear(&request->body);
}

static int parse_body(struct request *request, struct error **err)
{
    int r;

    if (request->route->body == BODY_ARCHIVE || request->body.length == 0)
        return request->route->body == BODY_DESCRIPTOR
                   ? error_set(err, EINVAL, "MALFORMED_BODY", "this call needs a body, the request has none")
                   : 0;
    r = (request->yaml ? body_parse_yaml : body_parse_json)(request->body.data, request->body.length, &request->json,
                                                            err);
    if (r == 0 && !json_is_object(request->json))
        r = error_set(err, EINVAL, "MALFORMED_BODY", "the body is not an object (key: value)");
    request->times.parsed_ns = monotonic_ns();
    return r;
}

/* The request is whole: to its handler. */
static enum MHD_Result run(struct request *request)
{
    auto_error struct error *err = take_ptr(request->body_error);
    int r = err ? -err->errnum : 0;

    request->body_done = true;
    client_phase(request->client, PHASE_WORK);
    if (!err)
        r = parse_body(request, &err);
    if (!err && r == 0)
        r = request->route->handle(request, &err);
    if (err)
        answer_problem(request, err);
    if (request->answer == ANSWER_READY)
        return queue_answer(request, false);
    if (r < 0)
        return MHD_NO;
    request->suspended = true;
    MHD_suspend_connection(request->connection);
    return MHD_YES;
}

enum MHD_Result request_access(void *context, struct MHD_Connection *connection, const char *url, const char *method,
                               const char *version, const char *upload_data, size_t *upload_data_size,
                               void **request_place)
{
    struct request *request = *request_place;

    if (!request || !request->uri || request->gone || request->client->phase == PHASE_DYING)
        return MHD_NO;
    if (!request->begun)
        return first_call(request, method);
    if (*upload_data_size) {
        body_piece(request, upload_data, *upload_data_size);
        *upload_data_size = 0;
        return MHD_YES;
    }
    if (!request->body_done)
        return run(request);
    if (request->answer == ANSWER_READY)
        return queue_answer(request, false);
    return MHD_NO;
}
