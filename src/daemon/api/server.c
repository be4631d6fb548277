/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections: accepts them, gives them to libmicrohttpd, and decides who has to go. Runs on the daemon's event loop.
 *
 * Theory of operation. libmicrohttpd only knows timeouts between two bytes and stops accepting when its table is full,
 * so one client with slow or silent connections could keep out all others. Therefore the accepting is done here: every
 * connection has a holder (uid or address) and a phase with an absolute deadline; when the table is full, the holder
 * with the most connections loses the oldest one that has asked for nothing yet. A connection younger than
 * CLIENT_MIN_AGE_MS is spared, so that a client which connects and asks is served in the middle of a flood; while
 * nobody can be evicted, newcomers wait in the listening queue.
 */
#include <errno.h>
#include <gnutls/gnutls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/memory.h"
#include "daemon/api/server.h"
#include "model/codes.h"

enum {
    ACCEPT_BATCH = 32, /* connections taken at once, so that requests are looked at in between */
    SWEEP_MS = 500,
    BODY_EVICT_MS = 1000,   /* a body under way for longer may be evicted when nothing else can */
    TRIM_CONNECTIONS = 100, /* after a peak above this the heap is given back */
    MHD_SLACK = 2048,       /* connections that are shut down but not yet noticed */
};

uint64_t now_ms(void)
{
    return monotonic_ns() / 1000000u;
}

/* ------------------------------------------------------------------ holders and clients */

/* A uid on the unix socket; on TCP the IPv4 address or the IPv6 /64, with the top bit set. */
static uint64_t holder_key(int fd, bool tls, const struct sockaddr_storage *address)
{
    struct ucred credentials;
    socklen_t length = sizeof(credentials);
    uint64_t key = 0;

    if (!tls)
        return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0 ? credentials.uid : UINT32_MAX;
    if (address->ss_family == AF_INET)
        key = ((const struct sockaddr_in *)address)->sin_addr.s_addr;
    else if (address->ss_family == AF_INET6)
        memcpy(&key, &((const struct sockaddr_in6 *)address)->sin6_addr, sizeof(key));
    return key | UINT64_C(1) << 63;
}

static struct holder *holder_get(struct api *api, uint64_t key)
{
    for (struct holder *holder = api->holders; holder; holder = holder->next)
        if (holder->key == key)
            return holder;
    struct holder *holder = calloc(1, sizeof(*holder));
    if (!holder)
        return NULL;
    holder->key = key;
    holder->next = api->holders;
    api->holders = holder;
    return holder;
}

static void holder_put(struct api *api, struct holder *holder)
{
    if (holder->connections)
        return;
    for (struct holder **at = &api->holders; *at; at = &(*at)->next) {
        if (*at == holder) {
            *at = holder->next;
            free(holder);
            return;
        }
    }
}

static void uncount(struct client *client)
{
    struct api *api = client->server->api;

    if (client->phase == PHASE_STREAM) {
        client->holder->streams--;
        api->streams--;
    }
}

void client_phase(struct client *client, enum phase phase)
{
    if (client->phase == PHASE_DYING)
        return;
    uncount(client);
    client->phase = phase;
    client->since_ms = now_ms();
    client->upload_bytes = 0;
}

int client_stays(struct client *client, struct error **err)
{
    struct api *api = client->server->api;

    if (client->phase == PHASE_STREAM || client->phase == PHASE_DYING)
        return 0;
    if (client->holder->streams >= api->max_connections / 2) {
        error_set(err, EAGAIN, "TOO_MANY_REQUESTS", "%u long answers are open for this client already",
                  client->holder->streams);
        error_hint(err, "end some of them, or raise max_connections in coracled.conf");
        return -EAGAIN;
    }
    client_phase(client, PHASE_STREAM);
    client->holder->streams++;
    api->streams++;
    return 0;
}

/* Takes a client out of the counts; it stays in the list until libmicrohttpd has closed it. */
static void client_die(struct client *client)
{
    if (client->phase == PHASE_DYING)
        return;
    client_phase(client, PHASE_DYING);
    client->holder->connections--;
    client->server->api->connections--;
}

static void client_free(struct client *client)
{
    struct api *api = client->server->api;

    client_die(client);
    *(client->previous ? &client->previous->next : &api->first) = client->next;
    *(client->next ? &client->next->previous : &api->last) = client->previous;
    api->by_fd[client->fd] = NULL;
    holder_put(api, client->holder);
    free(client);
}

static int by_fd_reserve(struct api *api, int fd)
{
    size_t size = api->by_fd_size ? api->by_fd_size : 64;

    if ((size_t)fd < api->by_fd_size)
        return 0;
    while (size <= (size_t)fd)
        size *= 2;
    struct client **table = reallocarray(api->by_fd, size, sizeof(*table));
    if (!table)
        return -ENOMEM;
    memset(table + api->by_fd_size, 0, (size - api->by_fd_size) * sizeof(*table));
    api->by_fd = table;
    api->by_fd_size = size;
    return 0;
}

static struct client *client_new(struct server *server, int fd, uint64_t key)
{
    struct api *api = server->api;
    struct holder *holder = by_fd_reserve(api, fd) == 0 ? holder_get(api, key) : NULL;
    struct client *client = holder ? calloc(1, sizeof(*client)) : NULL;

    if (!client) {
        if (holder)
            holder_put(api, holder);
        return NULL;
    }
    *client =
        (struct client){.server = server, .holder = holder, .fd = fd, .since_ms = now_ms(), .previous = api->last};
    *(api->last ? &api->last->next : &api->first) = client;
    api->last = client;
    api->by_fd[fd] = client;
    holder->connections++;
    api->connections++;
    return client;
}

/* ------------------------------------------------------------------ ending connections */

/* The whole of an HTTP answer that libmicrohttpd can no longer be asked to give. */
static void raw_answer(const struct error *why, struct buffer *out)
{
    auto_buffer struct buffer body = {0};
    int status = error_code_http_status(why->code);

    core_render_problem(why, &body);
    buffer_printf(out,
                  "HTTP/1.1 %d %s\r\nContent-Type: application/problem+json\r\nContent-Length: %zu\r\n"
                  "Connection: close\r\n%s\r\n",
                  status, MHD_get_reason_phrase_for((unsigned)status), body.length,
                  status == 429 || status == 503 ? "Retry-After: 1\r\n" : "");
    buffer_add(out, body.data, body.length);
}

static void say_raw(const struct client *client, const struct error *why)
{
    auto_buffer struct buffer out = {0};
    const union MHD_ConnectionInfo *info;

    raw_answer(why, &out);
    if (out.failed)
        return;
    if (!client->server->tls) {
        if (send(client->fd, out.data, out.length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
            return; /* a client that takes nothing misses the reason */
    } else if (client->connection) {
        info = MHD_get_connection_info(client->connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
        if (info && info->tls_session)
            gnutls_record_send(info->tls_session, out.data, out.length);
    }
}

void client_abort(struct client *client, const struct error *why)
{
    if (client->phase == PHASE_DYING)
        return;
    /* Unasked words would be taken for the answer to a request that is under way. */
    if (why && !(client->phase == PHASE_HEADER && client->used) && client->phase != PHASE_RESPONSE &&
        client->phase != PHASE_STREAM)
        say_raw(client, why);
    client_die(client);
    shutdown(client->fd, SHUT_RDWR);
    if (client->request && client->request->suspended) {
        client->request->gone = true;
        request_resume(client->request);
    }
}

/* How willingly a client is given up: 0 not at all. */
static int evictable(const struct client *client, uint64_t now)
{
    if (client->phase == PHASE_HEADER && now - client->since_ms >= CLIENT_MIN_AGE_MS)
        return 2;
    if (client->phase == PHASE_BODY && now - client->since_ms >= BODY_EVICT_MS)
        return 1;
    return 0;
}

static struct client *find_victim(const struct api *api, uint64_t now)
{
    struct client *best = NULL;
    int best_rank = 0;

    for (struct client *client = api->first; client; client = client->next) {
        int rank = evictable(client, now);
        if (!rank)
            continue;
        if (!best || client->holder->connections > best->holder->connections ||
            (client->holder == best->holder && rank > best_rank)) {
            best = client;
            best_rank = rank;
        }
    }
    return best;
}

/* Makes room for one more connection. False: there is none at present. */
static bool make_room(struct api *api)
{
    auto_error struct error *why = NULL;

    if (api->connections < api->max_connections)
        return true;
    struct client *victim = find_victim(api, now_ms());
    if (!victim)
        return false;
    error_set(&why, EAGAIN, "TOO_MANY_REQUESTS",
              "closed to make room: %u connections are open, %u of them by this client", api->connections,
              victim->holder->connections);
    error_hint(&why, "send the request as soon as the connection is open");
    api->counters.evicted++;
    client_abort(victim, why);
    return true;
}

/* ------------------------------------------------------------------ accepting */

static void server_run(struct server *server)
{
    MHD_run(server->mhd);
}

static void set_listening(struct api *api, bool on)
{
    struct server *servers[] = {&api->unix_server, &api->tls_server};

    api->accept_paused = !on;
    for (size_t i = 0; i < 2; i++)
        if (servers[i]->listen_source)
            sd_event_source_set_enabled(servers[i]->listen_source, on ? SD_EVENT_ON : SD_EVENT_OFF);
}

static int on_resume_accepting(sd_event_source *source, uint64_t usec, void *context)
{
    set_listening(context, true);
    return 0;
}

static void pause_accepting(struct api *api)
{
    set_listening(api, false);
    if (api->resume_source) {
        sd_event_source_set_time_relative(api->resume_source, 10 * 1000);
        sd_event_source_set_enabled(api->resume_source, SD_EVENT_ONESHOT);
    } else {
        sd_event_add_time_relative(api->loop, &api->resume_source, CLOCK_MONOTONIC, 10 * 1000, 1000,
                                   on_resume_accepting, api);
    }
}

static void adopt(struct server *server, int fd, struct sockaddr_storage *address, socklen_t length)
{
    const int on = 1;
    struct client *client = client_new(server, fd, holder_key(fd, server->tls, address));

    server->api->counters.accepted++;
    if (!client) {
        server->api->counters.refused++;
        close(fd);
        return;
    }
    if (server->tls)
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    /* libmicrohttpd closes the descriptor when it refuses. */
    if (MHD_add_connection(server->mhd, fd, (struct sockaddr *)address, length) != MHD_YES) {
        server->api->counters.refused++;
        client_free(client);
    }
}

static int on_listen(sd_event_source *source, int listen_fd, uint32_t events, void *context)
{
    struct server *server = context;
    int n;

    for (n = 0; n < ACCEPT_BATCH; n++) {
        struct sockaddr_storage address = {0};
        socklen_t length = sizeof(address);
        if (!make_room(server->api)) {
            pause_accepting(server->api);
            break;
        }
        int fd = accept4(listen_fd, (struct sockaddr *)&address, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                pause_accepting(server->api);
            break;
        }
        adopt(server, fd, &address, length);
    }
    if (n)
        server_run(server);
    return 0;
}

/* ------------------------------------------------------------------ libmicrohttpd on the event loop */

static void on_connection(void *context, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct api *api = context;
    const union MHD_ConnectionInfo *info;

    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        struct client *client =
            info && (size_t)info->connect_fd < api->by_fd_size ? api->by_fd[info->connect_fd] : NULL;
        if (client)
            client->connection = connection;
        *socket_context = client;
    } else if (*socket_context) {
        client_free(*socket_context);
        *socket_context = NULL;
    }
}

static int on_epoll(sd_event_source *source, int fd, uint32_t events, void *context)
{
    server_run(context);
    return 0;
}

static int on_run(sd_event_source *source, void *context)
{
    server_run(context);
    return 0;
}

/* Before the loop sleeps: libmicrohttpd may hold work that no descriptor will announce (edge-triggered, resumed). */
static int on_prepare(sd_event_source *source, void *context)
{
    struct server *server = context;
    MHD_UNSIGNED_LONG_LONG timeout;

    if (MHD_get_timeout(server->mhd, &timeout) == MHD_YES && timeout == 0)
        sd_event_source_set_enabled(server->run_source, SD_EVENT_ONESHOT);
    return 0;
}

__attribute__((format(printf, 2, 0))) static void on_mhd_log(void *context, const char *format, va_list ap)
{
    char text[256];

    vsnprintf(text, sizeof(text), format, ap);
    text[strcspn(text, "\n")] = '\0';
    log_line(LOG_LEVEL_DEBUG, NULL, "http: %s", text);
}

/* Paths and queries are decoded by the router, which refuses what this would let through. */
static size_t keep_escaped(void *context, struct MHD_Connection *connection, char *text)
{
    return strlen(text);
}

static struct MHD_Daemon *start_mhd(struct server *server)
{
    struct api *api = server->api;
    unsigned flags = MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE |
                     MHD_USE_ERROR_LOG | (server->tls ? MHD_USE_TLS : 0);
    struct MHD_OptionItem tls_options[] = {
        {MHD_OPTION_HTTPS_MEM_CERT, 0, api->tls.cert},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, api->tls.key},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, "SECURE128:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"},
        {api->tls.client_ca ? MHD_OPTION_HTTPS_MEM_TRUST : MHD_OPTION_END, 0, api->tls.client_ca},
        {MHD_OPTION_END, 0, NULL},
    };
    struct MHD_OptionItem no_options[] = {{MHD_OPTION_END, 0, NULL}};

    return MHD_start_daemon(flags, 0, NULL, NULL, request_access, api, MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log, NULL,
                            MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY, MHD_OPTION_CONNECTION_LIMIT,
                            api->max_connections + MHD_SLACK, MHD_OPTION_CONNECTION_TIMEOUT, 0u,
                            MHD_OPTION_URI_LOG_CALLBACK, request_new, api, MHD_OPTION_UNESCAPE_CALLBACK, keep_escaped,
                            NULL, MHD_OPTION_NOTIFY_COMPLETED, request_completed, api, MHD_OPTION_NOTIFY_CONNECTION,
                            on_connection, api, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
                            MHD_OPTION_ARRAY, server->tls ? tls_options : no_options, MHD_OPTION_END);
}

int server_start(struct server *server, struct error **err)
{
    struct api *api = server->api;
    const union MHD_DaemonInfo *info;
    int r;

    server->mhd = start_mhd(server);
    if (!server->mhd) {
        error_set(err, EINVAL, "INTERNAL", "cannot start to serve %s", server->tls ? "TLS" : "the unix socket");
        error_hint(err, server->tls ? "check that tls_cert and tls_key are PEM files that belong together"
                                    : "the log at level debug has libmicrohttpd's own words");
        return -EINVAL;
    }
    info = MHD_get_daemon_info(server->mhd, MHD_DAEMON_INFO_EPOLL_FD);
    r = sd_event_add_io(api->loop, &server->prepare_source, info->epoll_fd, EPOLLIN, on_epoll, server);
    if (r >= 0)
        r = sd_event_source_set_prepare(server->prepare_source, on_prepare);
    if (r >= 0)
        r = sd_event_add_defer(api->loop, &server->run_source, on_run, server);
    if (r >= 0)
        r = sd_event_add_io(api->loop, &server->listen_source, server->listen_fd, EPOLLIN, on_listen, server);
    return r < 0 ? error_set_errno(err, -r, "INTERNAL", "cannot watch the API's sockets") : 0;
}

void server_stop(struct server *server)
{
    server->listen_source = sd_event_source_disable_unref(server->listen_source);
    if (server->mhd)
        MHD_stop_daemon(server->mhd);
    server->mhd = NULL;
    server->run_source = sd_event_source_disable_unref(server->run_source);
    server->prepare_source = sd_event_source_disable_unref(server->prepare_source);
    server->listen_fd = close_fd(server->listen_fd);
}

/* ------------------------------------------------------------------ deadlines */

static const char *overdue(struct client *client, uint64_t now, const char **ret_code)
{
    uint64_t age = now - client->since_ms;

    *ret_code = "BODY_TIMEOUT";
    switch (client->phase) {
    case PHASE_HEADER:
        if (age < (client->used ? IDLE_TIMEOUT_MS : HEADER_TIMEOUT_MS))
            return NULL;
        return "the request's headers did not come in time";
    case PHASE_BODY:
        return age < BODY_TIMEOUT_MS ? NULL : "the request's body did not come in time";
    case PHASE_UPLOAD:
        if (age < UPLOAD_PAUSE_MS)
            return NULL;
        if (client->upload_bytes < UPLOAD_PACE)
            return "the upload stands still";
        client_phase(client, PHASE_UPLOAD);
        return NULL;
    case PHASE_RESPONSE:
        return age < RESPONSE_TIMEOUT_MS ? NULL : "the client does not take its answer";
    default:
        return NULL;
    }
}

/* Once after the start, and after each peak, what is not needed any more goes back to the host. */
static void trim(struct api *api)
{
    if (api->connections > api->peak_connections)
        api->peak_connections = api->connections;
    if (api->trimmed && (api->peak_connections < TRIM_CONNECTIONS || api->connections > api->peak_connections / 4))
        return;
    memory_give_back();
    api->trimmed = true;
    api->peak_connections = 0;
}

static int on_sweep(sd_event_source *source, uint64_t usec, void *context)
{
    struct api *api = context;
    uint64_t now = now_ms();
    struct client *next;

    for (struct client *client = api->first; client; client = next) {
        const char *code, *words = overdue(client, now, &code);
        auto_error struct error *why = NULL;
        next = client->next;
        if (!words)
            continue;
        error_set(&why, ETIMEDOUT, code, "%s", words);
        api->counters.timed_out++;
        client_abort(client, why);
    }
    trim(api);
    sd_event_source_set_time_relative(source, SWEEP_MS * 1000);
    sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    return 0;
}

int api_sweep_start(struct api *api, struct error **err)
{
    int r = sd_event_add_time_relative(api->loop, &api->sweep_source, CLOCK_MONOTONIC, SWEEP_MS * 1000, 100 * 1000,
                                       on_sweep, api);

    return r < 0 ? error_set_errno(err, -r, "INTERNAL", "cannot make a timer") : 0;
}
