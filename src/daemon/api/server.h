/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the REST layer: listeners, clients (one per connection) and requests, and how a handler answers.
 *
 * One thread. A request belongs to libmicrohttpd's connection: request_end() is its end, whatever the reason. What a
 * handler started for it is silenced there (core_forget), so no callback meets a request that is gone.
 */
#ifndef CORACLE_DAEMON_API_SERVER_H
#define CORACLE_DAEMON_API_SERVER_H

#include <microhttpd.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "base/buffer.h"
#include "base/error.h"
#include "daemon/api/api.h"
#include "daemon/api/body.h"
#include "daemon/api/router.h"
#include "daemon/core.h"
#include "daemon/images.h"

enum {
    CONNECTION_MEMORY = 32 * 1024,    /* of one connection: headers both ways and the read buffer */
    CLIENT_MIN_AGE_MS = 50,           /* a new connection has this long to say something before it may be evicted */
    HEADER_TIMEOUT_MS = 10 * 1000,    /* from the first byte awaited to the last header */
    IDLE_TIMEOUT_MS = 60 * 1000,      /* between requests of one connection */
    BODY_TIMEOUT_MS = 30 * 1000,      /* a whole JSON or YAML body */
    RESPONSE_TIMEOUT_MS = 120 * 1000, /* a client that does not take its answer */
    UPLOAD_PAUSE_MS = 60 * 1000,      /* an upload must bring UPLOAD_PACE bytes in each such span */
    UPLOAD_PACE = 64 * 1024,
    BODY_BUDGET = 16 << 20,   /* bytes of bodies held at once, all clients together */
    ANSWER_BUDGET = 64 << 20, /* bytes of answers held at once */
    HEARTBEAT_MS = 15 * 1000, /* of event and log streams */
};

enum phase {
    PHASE_HEADER, /* nothing whole has come yet, or nothing since the last answer */
    PHASE_BODY,
    PHASE_UPLOAD,
    PHASE_WORK, /* the daemon is at it */
    PHASE_RESPONSE,
    PHASE_STREAM, /* events, logs, exec, attach, operation wait: as long as the client likes */
    PHASE_DYING,  /* shut down, waiting for libmicrohttpd to notice */
    PHASE_COUNT
};

/* Who holds connections: a uid of this machine, or an address. Kept while it holds any. */
struct holder {
    uint64_t key;
    unsigned connections, streams;
    struct holder *next;
};

struct client {
    struct server *server;
    struct MHD_Connection *connection; /* NULL until libmicrohttpd took it over */
    struct holder *holder;
    struct request *request; /* the one under way, NULL */
    int fd;
    enum phase phase;
    bool used;                      /* at least one whole request came: it is idle, not half open */
    bool authenticated;             /* this connection's certificate was checked and is good */
    uint64_t since_ms;              /* when the phase began */
    uint64_t upload_bytes;          /* in the present span of UPLOAD_PAUSE_MS */
    struct client *next, *previous; /* list of the API's clients, oldest connection first */
};

/* One listening socket with its libmicrohttpd daemon. */
struct server {
    struct api *api;
    struct MHD_Daemon *mhd;
    int listen_fd;
    bool tls;
    sd_event_source *listen_source, *run_source, *prepare_source, *timeout_source;
};

struct tls_material {
    char *cert, *key, *client_ca; /* PEM texts; client_ca NULL: none asked for */
    char *token_file;             /* NULL: none */
    struct token *tokens;
    size_t token_count;
    uint64_t token_stamp; /* of the file when it was read */
};

struct api_counters {
    uint64_t requests[6]; /* by hundreds of the status; 0: none was sent */
    uint64_t accepted, evicted, refused, timed_out, unauthorized;
};

struct api {
    struct core *core;
    struct images *images;
    sd_event *loop;
    struct server unix_server, tls_server;
    char *socket_path; /* made by us, NULL otherwise */
    struct tls_material tls;
    struct client **by_fd; /* client of a file descriptor */
    size_t by_fd_size;
    struct client *first, *last;
    struct holder *holders;
    unsigned connections, streams, max_connections, peak_connections;
    bool accept_paused, trimmed;
    sd_event_source *sweep_source, *resume_source;
    struct stream *upgraded; /* list of exec and attach streams */
    size_t body_bytes, answer_bytes;
    struct api_counters counters;
};

enum answer_state { ANSWER_NONE, ANSWER_READY, ANSWER_QUEUED };

struct request {
    struct api *api;
    struct client *client;
    struct MHD_Connection *connection;
    char *uri; /* as it came */
    const struct route *route;
    struct target target;
    struct core_times times;
    bool begun, body_done, suspended, gone;
    bool yaml;
    struct buffer body;
    json_t *json; /* the parsed body, NULL when there is none */
    struct image_upload *upload;
    struct error *body_error; /* said when the body has ended */
    size_t discarded;         /* bytes of the body thrown away since */
    enum answer_state answer;
    unsigned status;
    struct MHD_Response *response;
    size_t answer_bytes; /* charged to the budget */
    /* For handlers: */
    struct buffer out; /* an answer prepared before it may be given */
    char location[128];
    void *work; /* a handler's own state, let go by work_end when the request ends */
    void (*work_end)(struct request *);
    sd_event_source *hangup_source;
};

/* server.c */
uint64_t now_ms(void);
void client_phase(struct client *client, enum phase phase);
/* Counts the request's client among those that stay. TOO_MANY_REQUESTS when its holder has half of all already. */
int client_stays(struct client *client, struct error **err);
/* Ends a connection now: says why if that can still be said, and closes. */
void client_abort(struct client *client, const struct error *why);
void server_stop(struct server *server);
int server_start(struct server *server, struct error **err);
int api_sweep_start(struct api *api, struct error **err);

/* listen.c: the sockets. */
int listen_unix(const char *path, const char *group, int *ret_fd, struct error **err);
int listen_tcp(const char *address, int *ret_fd, struct error **err);

/* tls.c */
int tls_load(const struct api_options *options, struct tls_material *ret, struct error **err);
void tls_clear(struct tls_material *tls);
/* Whether the client may speak: by certificate or token. UNAUTHORIZED. */
int tls_authenticate(struct request *request, struct error **err);

/* request.c: libmicrohttpd's callbacks, and what handlers answer with. */
void *request_new(void *api, const char *uri, struct MHD_Connection *connection);
enum MHD_Result request_access(void *api, struct MHD_Connection *connection, const char *url, const char *method,
                               const char *version, const char *upload_data, size_t *upload_data_size, void **request);
void request_completed(void *api, struct MHD_Connection *connection, void **request,
                       enum MHD_RequestTerminationCode why);
/* Lets a suspended request go on: its answer is there, or its client has left. */
void request_resume(struct request *request);
/* Watches for the client hanging up while the request waits for long. */
int request_watch_hangup(struct request *request, struct error **err);

/* Each gives the request its one answer, from the handler or from a callback later. JSON bodies are taken over. */
void answer_json(struct request *request, unsigned status, struct buffer *body);
void answer_text(struct request *request, const char *type, struct buffer *body);
void answer_static(struct request *request, const char *type, const void *bytes, size_t n);
void answer_empty(struct request *request, unsigned status);
void answer_problem(struct request *request, const struct error *err);
/* A response of the handler's own making; taken over. */
void answer_response(struct request *request, unsigned status, struct MHD_Response *response);
void answer_header(struct request *request, const char *name, const char *value);

/* routes.c */
extern const struct route api_routes[];
extern const size_t api_route_count;

/* instances.c: the instance {id} stands for, with If-Match looked at. INSTANCE_NOT_FOUND, PRECONDITION_FAILED. */
int request_instance(struct request *request, struct instance **ret, struct error **err);
/* Answers with request->out and status when everything asked for is on the disk. */
int answer_when_committed(struct request *request, unsigned status, struct error **err);
/* The same with 202, the operation and its Location. */
/* 202 (201 without an operation) with {"instance", "operation"}, when it is committed (instances.c). */
int answer_created(struct request *request, struct instance *instance, struct operation *operation,
                   struct error **err);
int answer_operation(struct request *request, const struct operation *operation, struct error **err);

/* Handlers, by file. */
int get_version(struct request *, struct error **);
int get_host(struct request *, struct error **);
int get_health(struct request *, struct error **);
int get_metrics(struct request *, struct error **);
int get_openapi(struct request *, struct error **);
int post_snapshot(struct request *, struct error **);
int get_snapshots(struct request *, struct error **);
int get_snapshot(struct request *, struct error **);
int delete_snapshot(struct request *, struct error **);
int post_restore(struct request *, struct error **);
int get_networks(struct request *, struct error **);
int get_network(struct request *, struct error **);
int post_network(struct request *, struct error **);
int delete_network(struct request *, struct error **);
int post_instance(struct request *, struct error **);
int post_plan(struct request *, struct error **);
int get_instances(struct request *, struct error **);
int get_instance(struct request *, struct error **);
int patch_instance(struct request *, struct error **);
int delete_instance(struct request *, struct error **);
int post_start(struct request *, struct error **);
int post_stop(struct request *, struct error **);
int post_restart(struct request *, struct error **);
int post_pause(struct request *, struct error **);
int post_resume(struct request *, struct error **);
int post_signal(struct request *, struct error **);
int get_instance_stats(struct request *, struct error **);
int get_stats(struct request *, struct error **);
int get_operations(struct request *, struct error **);
int get_operation(struct request *, struct error **);
int post_cancel(struct request *, struct error **);
int get_events(struct request *, struct error **);
int get_logs(struct request *, struct error **);
int prepare_upgrade(struct request *, struct error **);
int post_exec(struct request *, struct error **);
int post_attach(struct request *, struct error **);
int get_images(struct request *, struct error **);
int get_image(struct request *, struct error **);
int delete_image(struct request *, struct error **);
int prepare_image(struct request *, struct error **);
int post_image(struct request *, struct error **);
int post_pull(struct request *, struct error **);

/* stream.c: ends every exec and attach stream. */
void streams_end(struct api *api);

#endif
