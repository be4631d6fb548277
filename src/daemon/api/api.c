/* SPDX-License-Identifier: Apache-2.0 */
/* Opens and closes the REST layer: sockets, TLS material, limits. Called by the daemon's main, on its thread. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/api/server.h"

enum { OTHER_FDS = 512 /* streams, logs, the store, the launcher */ };

/* Each connection is a descriptor, and an exec holds three more. */
static void raise_fd_limit(unsigned connections)
{
    struct rlimit limit;
    rlim_t wanted = (rlim_t)connections * 4 + OTHER_FDS;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted)
        return;
    limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        log_line(LOG_LEVEL_WARNING, NULL, "cannot raise the limit of open files: %s", strerror(errno));
}

static int start_unix(struct api *api, const struct api_options *options, struct error **err)
{
    struct server *server = &api->unix_server;
    int r = 0;

    if (server->listen_fd < 0) {
        if (asprintf(&api->socket_path, "%s/api.sock", options->run_dir) < 0) {
            api->socket_path = NULL;
            return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a path");
        }
        r = listen_unix(api->socket_path, options->group, &server->listen_fd, err);
    }
    return r < 0 ? r : server_start(server, err);
}

static int start_tls(struct api *api, const struct api_options *options, struct error **err)
{
    struct server *server = &api->tls_server;
    int r;

    if (!options->listen && server->listen_fd < 0)
        return 0;
    r = tls_load(options, &api->tls, err);
    if (r == 0 && server->listen_fd < 0)
        r = listen_tcp(options->listen, &server->listen_fd, err);
    return r < 0 ? r : server_start(server, err);
}

int api_open(struct core *core, struct sd_event *loop, const struct api_options *options, struct api **ret,
             struct error **err)
{
    struct api *api = calloc(1, sizeof(*api));
    int r;

    if (!api)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the API");
    api->core = core;
    api->images = options->images;
    api->loop = sd_event_ref(loop);
    api->max_connections = options->max_connections ? options->max_connections : 1000;
    api->unix_server = (struct server){.api = api, .listen_fd = options->unix_fd};
    api->tls_server = (struct server){.api = api, .listen_fd = options->tls_fd, .tls = true};
    raise_fd_limit(api->max_connections);
    r = start_unix(api, options, err);
    if (r == 0)
        r = start_tls(api, options, err);
    if (r == 0)
        r = api_sweep_start(api, err);
    if (r < 0) {
        api_close(api);
        return r;
    }
    *ret = api;
    return 0;
}

void api_close(struct api *api)
{
    if (!api)
        return;
    streams_end(api);
    for (struct client *client = api->first; client; client = client->next) {
        if (client->request && client->request->suspended) {
            client->request->gone = true; /* libmicrohttpd refuses to stop with a suspended connection */
            request_resume(client->request);
        }
    }
    if (api->unix_server.mhd)
        MHD_run(api->unix_server.mhd);
    if (api->tls_server.mhd)
        MHD_run(api->tls_server.mhd);
    server_stop(&api->unix_server);
    server_stop(&api->tls_server);
    sd_event_source_disable_unref(api->sweep_source);
    sd_event_source_disable_unref(api->resume_source);
    if (api->socket_path)
        unlink(api->socket_path);
    free(api->socket_path);
    free(api->by_fd);
    tls_clear(&api->tls);
    sd_event_unref(api->loop);
    free(api);
}
