/* SPDX-License-Identifier: Apache-2.0 */
/* Calls about snapshots: made of a running machine, listed, removed, started from. */
#include "base/cleanup.h"
#include "daemon/api/server.h"

int post_snapshot(struct request *request, struct error **err)
{
    struct instance *instance;
    struct operation *operation;
    int r = request_instance(request, &instance, err);

    if (r == 0)
        r = core_snapshot_create(request->api->core, instance, request->json, &request->times, &operation, err);
    return r < 0 ? r : answer_operation(request, operation, err);
}

int get_snapshots(struct request *request, struct error **err)
{
    core_render_snapshots(request->api->core, &request->out);
    answer_json(request, MHD_HTTP_OK, &request->out);
    return 0;
}

static int find(struct request *request, struct snapshot **ret, struct error **err)
{
    *ret = core_snapshot_find(request->api->core, request->target.argument, err);
    return *ret ? 0 : -ENOENT;
}

int get_snapshot(struct request *request, struct error **err)
{
    struct snapshot *snapshot;
    int r = find(request, &snapshot, err);

    if (r < 0)
        return r;
    core_render_snapshot(snapshot, &request->out);
    answer_json(request, MHD_HTTP_OK, &request->out);
    return 0;
}

int delete_snapshot(struct request *request, struct error **err)
{
    struct snapshot *snapshot;
    int r = find(request, &snapshot, err);

    if (r == 0)
        r = core_snapshot_remove(request->api->core, snapshot, err);
    return r < 0 ? r : answer_when_committed(request, MHD_HTTP_NO_CONTENT, err);
}

int post_restore(struct request *request, struct error **err)
{
    struct core *core = request->api->core;
    struct snapshot *snapshot;
    struct instance *instance;
    struct operation *operation = NULL;
    int r = find(request, &snapshot, err);

    if (r == 0)
        r = core_snapshot_restore(core, snapshot, request->json, &request->times, &instance, &operation, err);
    return r < 0 ? r : answer_created(request, instance, operation, err);
}
