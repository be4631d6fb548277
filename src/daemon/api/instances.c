/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls on instances. What changes something is acknowledged when it is on the disk (core_commit_then); its work has
 * begun before. Called by request.c.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/api/server.h"

/* ------------------------------------------------------------------ commit, then answer */

static void on_committed(void *context, const struct error *err)
{
    struct request *request = context;

    if (err)
        answer_problem(request, err);
    else if (request->out.length == 0 && !request->out.failed)
        answer_empty(request, request->status);
    else
        answer_json(request, request->status, &request->out);
}

int answer_when_committed(struct request *request, unsigned status, struct error **err)
{
    request->status = status;
    return core_commit_then(request->api->core, on_committed, request, err);
}

int answer_operation(struct request *request, const struct operation *operation, struct error **err)
{
    core_render_operation(request->api->core, operation, &request->out);
    snprintf(request->location, sizeof(request->location), "/v1/operations/%s", core_operation_id(operation));
    return answer_when_committed(request, MHD_HTTP_ACCEPTED, err);
}

/* ------------------------------------------------------------------ finding, and entity tags */

/* A strong tag (RFC 9110 section 8.8.3): FNV-1a over the instance as it would be shown. */
static void entity_tag(const struct buffer *shown, char tag[24])
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < shown->length; i++)
        hash = (hash ^ (unsigned char)shown->data[i]) * UINT64_C(0x100000001b3);
    snprintf(tag, 24, "\"%016" PRIx64 "\"", hash);
}

/* Whether a header with a list of tags names this one. */
static bool tag_listed(const char *list, const char *tag)
{
    return strcmp(list, "*") == 0 || strstr(list, tag);
}

int request_instance(struct request *request, struct instance **ret, struct error **err)
{
    const char *match = MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_IF_MATCH);
    struct instance *instance = core_instance_find(request->api->core, request->target.argument, err);
    auto_buffer struct buffer shown = {0};
    char tag[24];

    if (!instance)
        return -ENOENT;
    if (match && strcmp(request->route->method, "GET") != 0) {
        core_render_instance(request->api->core, instance, &shown);
        entity_tag(&shown, tag);
        if (!tag_listed(match, tag)) {
            error_set(err, ESTALE, "PRECONDITION_FAILED", "%s has changed since it was read",
                      core_instance_name(instance));
            error_hint(err, "read it again and repeat with the new ETag");
            return -ESTALE;
        }
    }
    *ret = instance;
    return 0;
}

/* ------------------------------------------------------------------ handlers */

int answer_created(struct request *request, struct instance *instance, struct operation *operation, struct error **err)
{
    struct core *core = request->api->core;

    buffer_text(&request->out, "{\"instance\":");
    core_render_instance(core, instance, &request->out);
    buffer_text(&request->out, ",\"operation\":");
    if (operation)
        core_render_operation(core, operation, &request->out);
    else
        buffer_text(&request->out, "null");
    buffer_char(&request->out, '}');
    snprintf(request->location, sizeof(request->location), "/v1/instances/%s", core_instance_id(instance));
    return answer_when_committed(request, operation ? MHD_HTTP_ACCEPTED : MHD_HTTP_CREATED, err);
}

int post_instance(struct request *request, struct error **err)
{
    struct core *core = request->api->core;
    struct instance *instance;
    struct operation *operation = NULL;
    bool start;
    int r = target_bool(&request->target, "start", true, &start, err);

    if (r == 0)
        r = core_create(core, request->json, start, &request->times, &instance, &operation, err);
    if (r < 0)
        return r;
    return answer_created(request, instance, operation, err);
}

/* Nothing is changed, so nothing is committed. */
int post_plan(struct request *request, struct error **err)
{
    struct core *core = request->api->core;
    struct instance *present;
    int r = core_check(core, request->json, &present, err);

    if (r < 0)
        return r;
    buffer_printf(&request->out, "{\"action\":\"%s\",\"instance\":", present ? "compare" : "create");
    if (present)
        core_render_instance(core, present, &request->out);
    else
        buffer_text(&request->out, "null");
    buffer_char(&request->out, '}');
    answer_json(request, MHD_HTTP_OK, &request->out);
    return 0;
}

static int make_filter(struct request *request, struct core_filter **ret, struct error **err)
{
    const struct target *target = &request->target;
    struct core_filter *filter = target->query_count ? core_filter_new() : NULL;

    if (target->query_count && !filter)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a filter");
    for (size_t i = 0; i < target->query_count; i++) {
        int r = core_filter_add(filter, target->query[i].key, target->query[i].value, err);
        if (r < 0) {
            core_filter_free(filter);
            return r;
        }
    }
    *ret = filter;
    return 0;
}

int get_instances(struct request *request, struct error **err)
{
    struct core_filter *filter;
    int r = make_filter(request, &filter, err);

    if (r < 0)
        return r;
    core_render_instances(request->api->core, filter, &request->out);
    if (filter)
        core_filter_free(filter);
    answer_json(request, MHD_HTTP_OK, &request->out);
    return 0;
}

int get_operations(struct request *request, struct error **err)
{
    struct core_filter *filter;
    int r = make_filter(request, &filter, err);

    if (r < 0)
        return r;
    r = core_render_operations(request->api->core, filter, &request->out, err);
    if (filter)
        core_filter_free(filter);
    if (r == 0)
        answer_json(request, MHD_HTTP_OK, &request->out);
    return r;
}

int get_instance(struct request *request, struct error **err)
{
    const char *known =
        MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_IF_NONE_MATCH);
    struct instance *instance;
    char tag[24];
    int r = request_instance(request, &instance, err);

    if (r < 0)
        return r;
    core_render_instance(request->api->core, instance, &request->out);
    entity_tag(&request->out, tag);
    if (known && tag_listed(known, tag))
        answer_empty(request, MHD_HTTP_NOT_MODIFIED);
    else
        answer_json(request, MHD_HTTP_OK, &request->out);
    answer_header(request, MHD_HTTP_HEADER_ETAG, tag);
    return 0;
}

int patch_instance(struct request *request, struct error **err)
{
    struct instance *instance;
    struct operation *operation;
    int r = request_instance(request, &instance, err);

    if (r == 0)
        r = core_update(request->api->core, instance, request->json, &request->times, &operation, err);
    return r < 0 ? r : answer_operation(request, operation, err);
}

int delete_instance(struct request *request, struct error **err)
{
    struct instance *instance;
    struct operation *operation;
    bool force;
    int r = target_bool(&request->target, "force", false, &force, err);

    if (r == 0)
        r = request_instance(request, &instance, err);
    if (r == 0)
        r = core_terminate(request->api->core, instance, force, &request->times, &operation, err);
    return r < 0 ? r : answer_operation(request, operation, err);
}

static int change(struct request *request, enum core_verb verb, struct error **err)
{
    struct instance *instance;
    struct operation *operation;
    int r = request_instance(request, &instance, err);

    if (r == 0)
        r = core_change(request->api->core, instance, verb, request->json, &request->times, &operation, err);
    return r < 0 ? r : answer_operation(request, operation, err);
}

int post_start(struct request *request, struct error **err)
{
    return change(request, CORE_START, err);
}

int post_stop(struct request *request, struct error **err)
{
    return change(request, CORE_STOP, err);
}

int post_restart(struct request *request, struct error **err)
{
    return change(request, CORE_RESTART, err);
}

int post_pause(struct request *request, struct error **err)
{
    return change(request, CORE_PAUSE, err);
}

int post_resume(struct request *request, struct error **err)
{
    return change(request, CORE_RESUME, err);
}

static void on_signalled(void *context, const struct error *err)
{
    if (err)
        answer_problem(context, err);
    else
        answer_empty(context, MHD_HTTP_NO_CONTENT);
}

int post_signal(struct request *request, struct error **err)
{
    struct instance *instance;
    int r = request_instance(request, &instance, err);

    return r < 0 ? r : core_signal(request->api->core, instance, request->json, on_signalled, request, err);
}

static void on_stats(void *context, const struct instance *instance, const struct instance_stats *stats,
                     const struct error *err)
{
    struct request *request = context;

    if (err)
        return answer_problem(request, err);
    core_render_stats(instance, stats, &request->out);
    answer_json(request, MHD_HTTP_OK, &request->out);
}

int get_instance_stats(struct request *request, struct error **err)
{
    struct instance *instance;
    int r = request_instance(request, &instance, err);

    return r < 0 ? r : core_stats(request->api->core, instance, on_stats, request, err);
}

static void on_all_stats(void *context, const struct buffer *out)
{
    struct request *request = context;

    buffer_add(&request->out, out->data, out->length);
    answer_json(request, MHD_HTTP_OK, &request->out);
}

int get_stats(struct request *request, struct error **err)
{
    return core_stats_all(request->api->core, on_all_stats, request, err);
}
