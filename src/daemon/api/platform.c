/* SPDX-License-Identifier: Apache-2.0 */
/* Calls on the platform itself: version, host, health, metrics, this API's description, networks, operations. */
#include <errno.h>
#include <string.h>

#include "daemon/api/openapi.h"
#include "daemon/api/server.h"

enum { WAIT_MS_MAX = 60000 };

int get_version(struct request *request, struct error **err)
{
    core_render_version(&request->out);
    answer_json(request, MHD_HTTP_OK, &request->out);
    return 0;
}

int get_health(struct request *request, struct error **err)
{
    core_render_health(request->api->core, &request->out);
    answer_json(request, MHD_HTTP_OK, &request->out);
    return 0;
}

int get_openapi(struct request *request, struct error **err)
{
    answer_static(request, "application/yaml", openapi_yaml, openapi_yaml_size);
    return 0;
}

static void on_host(void *context, const struct buffer *out)
{
    struct request *request = context;

    buffer_add(&request->out, out->data, out->length);
    answer_json(request, MHD_HTTP_OK, &request->out);
}

int get_host(struct request *request, struct error **err)
{
    return core_host(request->api->core, on_host, request, err);
}

/* ------------------------------------------------------------------ metrics */

static void render_requests(const struct api *api, struct buffer *out)
{
    static const char *const classes[] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};

    buffer_text(out, "# HELP coracle_api_requests_total Requests by class of their status.\n"
                     "# TYPE coracle_api_requests_total counter\n");
    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++)
        buffer_printf(out, "coracle_api_requests_total{status=\"%s\"} %llu\n", classes[i],
                      (unsigned long long)api->counters.requests[i]);
}

static void render_value(struct buffer *out, const char *name, const char *type, const char *help, uint64_t value)
{
    buffer_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s %llu\n", name, help, name, type, name,
                  (unsigned long long)value);
}

int get_metrics(struct request *request, struct error **err)
{
    const struct api *api = request->api;
    struct buffer *out = &request->out;

    core_render_metrics(api->core, out);
    render_requests(api, out);
    render_value(out, "coracle_api_connections", "gauge", "Connections open now.", api->connections);
    render_value(out, "coracle_api_streams", "gauge", "Event, log and exec streams and waits open now.", api->streams);
    render_value(out, "coracle_api_connections_accepted_total", "counter", "Connections accepted.",
                 api->counters.accepted);
    render_value(out, "coracle_api_connections_evicted_total", "counter", "Connections closed to make room.",
                 api->counters.evicted);
    render_value(out, "coracle_api_connections_refused_total", "counter", "Connections that could not be served.",
                 api->counters.refused);
    render_value(out, "coracle_api_timeouts_total", "counter", "Connections ended because they were too slow.",
                 api->counters.timed_out);
    render_value(out, "coracle_api_unauthorized_total", "counter", "Requests without good credentials.",
                 api->counters.unauthorized);
    answer_text(request, "text/plain; version=0.0.4; charset=utf-8", out);
    return 0;
}

/* ------------------------------------------------------------------ networks */

int get_networks(struct request *request, struct error **err)
{
    core_render_networks(request->api->core, &request->out);
    answer_json(request, MHD_HTTP_OK, &request->out);
    return 0;
}

int get_network(struct request *request, struct error **err)
{
    struct network *network = core_network_find(request->api->core, request->target.argument, err);

    if (!network)
        return -ENOENT;
    core_render_network(request->api->core, network, &request->out);
    answer_json(request, MHD_HTTP_OK, &request->out);
    return 0;
}

int post_network(struct request *request, struct error **err)
{
    struct network *network;
    int r = core_network_add(request->api->core, request->json, &network, err);

    if (r < 0)
        return r;
    core_render_network(request->api->core, network, &request->out);
    snprintf(request->location, sizeof(request->location), "/v1/networks/%s", core_network_name(network));
    return answer_when_committed(request, MHD_HTTP_CREATED, err);
}

int delete_network(struct request *request, struct error **err)
{
    struct network *network = core_network_find(request->api->core, request->target.argument, err);
    int r = network ? core_network_remove(request->api->core, network, err) : -ENOENT;

    return r < 0 ? r : answer_when_committed(request, MHD_HTTP_NO_CONTENT, err);
}

/* ------------------------------------------------------------------ operations */

static void on_waited(void *context, const struct error *failure)
{
    struct request *request = context;
    auto_error struct error *err = NULL;

    if (failure)
        return answer_problem(request, failure);
    if (core_render_operation_id(request->api->core, request->target.argument, &request->out, &err) < 0)
        answer_problem(request, err);
    else
        answer_json(request, MHD_HTTP_OK, &request->out);
}

int get_operation(struct request *request, struct error **err)
{
    unsigned long long wait_ms;
    int r = target_number(&request->target, "wait_ms", 0, WAIT_MS_MAX, &wait_ms, err);

    if (r == 0 && wait_ms) {
        r = client_stays(request->client, err);
        if (r == 0)
            r = request_watch_hangup(request, err);
        if (r == 0)
            r = core_operation_wait(request->api->core, request->target.argument, (uint32_t)wait_ms, on_waited, request,
                                    err);
        return r;
    }
    if (r == 0)
        r = core_render_operation_id(request->api->core, request->target.argument, &request->out, err);
    if (r == 0)
        answer_json(request, MHD_HTTP_OK, &request->out);
    return r;
}

int post_cancel(struct request *request, struct error **err)
{
    struct operation *operation;
    int r = core_cancel(request->api->core, request->target.argument, &operation, err);

    if (r < 0)
        return r;
    return answer_operation(request, operation, err);
}
