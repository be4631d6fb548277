/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1.1 (RFC 9112) client for the bench: Content-Length and chunked answers, keep-alive, nothing else. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bench/http.h"
#include "model/codes.h"

enum { READ_STEP = 65536, ANSWER_MAX = 256 << 20, RECEIVE_TIMEOUT_S = 120 };

static int http_connect(struct http *http, struct error **err)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    struct timeval timeout = {.tv_sec = RECEIVE_TIMEOUT_S};
    auto_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(to.sun_path, sizeof(to.sun_path), "%s", http->path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
        int r = error_set_errno(err, errno, "DAEMON_UNAVAILABLE", "no daemon at %s", http->path);
        error_hint(err, "start it (`coracle up`, or systemctl start coracled), or name its folder with --run-dir");
        return r;
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    http->fd = take_fd(&fd);
    http->in_used = 0;
    return 0;
}

int http_open(struct http *http, const char *socket_path, struct error **err)
{
    *http = (struct http){.fd = -1};
    if (strlen(socket_path) >= sizeof(http->path))
        return error_set(err, ENAMETOOLONG, "INVALID_VALUE", "%s: too long for a socket's path", socket_path);
    snprintf(http->path, sizeof(http->path), "%s", socket_path);
    return http_connect(http, err);
}

void http_close(struct http *http)
{
    http->fd = close_fd(http->fd);
    free(http->in);
    http->in = NULL;
}

int http_refresh(struct http *http, struct error **err)
{
    char byte;
    ssize_t n = recv(http->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    http->fd = close_fd(http->fd); /* the server has closed it: it was idle for long */
    return http_connect(http, err);
}

int http_request_make(const char *method, const char *path, const char *type, const void *body, size_t body_length,
                      struct http_request *ret_request, struct error **err)
{
    auto_free char *head = NULL;
    char *bytes;
    int n;

    if (body)
        n = asprintf(&head, "%s %s HTTP/1.1\r\nHost: coracle\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n",
                     method, path, type, body_length);
    else
        n = asprintf(&head, "%s %s HTTP/1.1\r\nHost: coracle\r\n%s\r\n", method, path,
                     strcmp(method, "GET") == 0 ? "" : "Content-Length: 0\r\n");
    if (n < 0) {
        head = NULL;
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a request");
    }
    bytes = malloc((size_t)n + body_length + 1);
    if (!bytes)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a request");
    memcpy(bytes, head, (size_t)n);
    if (body)
        memcpy(bytes + n, body, body_length);
    *ret_request = (struct http_request){bytes, (size_t)n + (body ? body_length : 0)};
    return 0;
}

void http_request_clear(struct http_request *request)
{
    free(request->bytes);
    *request = (struct http_request){0};
}

int http_send(struct http *http, const struct http_request *request, int64_t *ret_t0_ns, struct error **err)
{
    struct timespec t0;
    size_t done = 0;

    clock_gettime(CLOCK_REALTIME, &t0);
    while (done < request->length) {
        ssize_t n = send(http->fd, request->bytes + done, request->length - done, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set_errno(err, errno, "PROTOCOL_ERROR", "request to %s", http->path);
        done += (size_t)n;
    }
    if (ret_t0_ns)
        *ret_t0_ns = (int64_t)t0.tv_sec * 1000000000 + t0.tv_nsec;
    return 0;
}

/* Reads more; 0 at the end of the stream. The buffer always has room for a terminator. */
static ssize_t fill(struct http *http)
{
    ssize_t n;

    if (http->in_size - http->in_used < READ_STEP + 1) {
        char *bigger = http->in_used > ANSWER_MAX ? NULL : realloc(http->in, http->in_used * 2 + 2 * READ_STEP);
        if (!bigger)
            return -ENOMEM;
        http->in = bigger;
        http->in_size = http->in_used * 2 + 2 * READ_STEP;
    }
    do
        n = recv(http->fd, http->in + http->in_used, READ_STEP, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    http->in_used += (size_t)n;
    http->in[http->in_used] = '\0';
    return n;
}

static int lost(struct http *http, ssize_t r, struct error **err)
{
    if (r == 0)
        return error_set(err, ECONNRESET, "PROTOCOL_ERROR", "%s: the daemon closed the connection", http->path);
    return error_set_errno(err, (int)-r, "PROTOCOL_ERROR", "answer from %s", http->path);
}

/* Position of text from offset on, reading until it is there. */
static int find(struct http *http, size_t offset, const char *text, size_t *ret_at, struct error **err)
{
    for (;;) {
        char *at = http->in && http->in_used > offset ? strstr(http->in + offset, text) : NULL;
        ssize_t r;

        if (at) {
            *ret_at = (size_t)(at - http->in);
            return 0;
        }
        r = fill(http);
        if (r <= 0)
            return lost(http, r, err);
    }
}

static int need(struct http *http, size_t bytes, struct error **err)
{
    while (http->in_used < bytes) {
        ssize_t r = fill(http);
        if (r <= 0)
            return lost(http, r, err);
    }
    return 0;
}

/* Moves the chunks of a body that begins at offset together; *ret_end: first byte behind the message. */
static int join_chunks(struct http *http, size_t offset, size_t *ret_length, size_t *ret_end, struct error **err)
{
    size_t out = offset, at = offset;

    for (;;) {
        size_t line_end, size;
        int r = find(http, at, "\r\n", &line_end, err);

        if (r < 0)
            return r;
        size = strtoul(http->in + at, NULL, 16);
        if (size > ANSWER_MAX)
            return error_set(err, EPROTO, "PROTOCOL_ERROR", "%s: a chunk of %zu bytes", http->path, size);
        r = need(http, line_end + 2 + size + 2, err);
        if (r < 0)
            return r;
        memmove(http->in + out, http->in + line_end + 2, size);
        out += size;
        at = line_end + 2 + size + 2;
        if (size == 0)
            break;
    }
    *ret_length = out - offset;
    *ret_end = at;
    return 0;
}

static const char *header(const char *head, const char *name)
{
    size_t length = strlen(name);

    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, length) == 0 && line[2 + length] == ':')
            return line + 2 + length + 1 + strspn(line + 2 + length + 1, " \t");
    }
    return NULL;
}

static int read_body(struct http *http, size_t head_end, size_t *ret_length, size_t *ret_end, struct error **err)
{
    const char *text;
    size_t length = 0;
    int r;

    http->in[head_end + 2] = '\0'; /* the header lines as one string; the byte is the second CR, known */
    text = header(http->in, "Transfer-Encoding");
    if (text && strncasecmp(text, "chunked", 7) == 0) {
        http->in[head_end + 2] = '\r';
        return join_chunks(http, head_end + 4, ret_length, ret_end, err);
    }
    text = header(http->in, "Content-Length");
    if (text)
        length = strtoul(text, NULL, 10);
    http->in[head_end + 2] = '\r';
    if (length > ANSWER_MAX)
        return error_set(err, EPROTO, "PROTOCOL_ERROR", "%s: an answer of %zu bytes", http->path, length);
    r = need(http, head_end + 4 + length, err);
    if (r < 0)
        return r;
    *ret_length = length;
    *ret_end = head_end + 4 + length;
    return 0;
}

int http_receive(struct http *http, int *ret_status, json_t **ret_body, struct error **err)
{
    size_t head_end, length = 0, end = 0;
    int status, r = find(http, 0, "\r\n\r\n", &head_end, err);
    json_t *body;

    if (r < 0)
        return r;
    if (sscanf(http->in, "HTTP/1.%*c %d", &status) != 1)
        return error_set(err, EPROTO, "PROTOCOL_ERROR", "%s: not an HTTP answer", http->path);
    r = read_body(http, head_end, &length, &end, err);
    if (r < 0)
        return r;
    body = length ? json_loadb(http->in + head_end + 4, length, JSON_DECODE_ANY, NULL) : NULL;
    memmove(http->in, http->in + end, http->in_used - end);
    http->in_used -= end;
    http->in[http->in_used] = '\0';
    *ret_status = status;
    *ret_body = body ? body : json_null();
    return 0;
}

int http_problem(int status, const json_t *body, struct error **err)
{
    const char *code = json_string_value(json_object_get(body, "code"));
    const char *detail = json_string_value(json_object_get(body, "detail"));
    const char *hint = json_string_value(json_object_get(body, "hint"));
    int r = error_set(err, status == 404 ? ENOENT : EREMOTEIO, code ? error_code_intern(code) : "PROTOCOL_ERROR", "%s",
                      detail ? detail : "the daemon refused without a reason");

    if (hint)
        error_hint(err, "%s", hint);
    return r;
}

static int exchange(struct http *http, const struct http_request *request, json_t **ret_body, struct error **err)
{
    json_t *body;
    int status, r = http_send(http, request, NULL, err);

    if (r == 0)
        r = http_receive(http, &status, &body, err);
    if (r < 0)
        return r;
    if (status >= 400) {
        r = http_problem(status, body, err);
        json_decref(body);
        return r;
    }
    if (ret_body)
        *ret_body = body;
    else
        json_decref(body);
    return 0;
}

int http_upload(struct http *http, const char *path, const char *type, const void *body, size_t length,
                json_t **ret_body, struct error **err)
{
    struct http_request request;
    int r = http_request_make("POST", path, type, body, length, &request, err);

    if (r < 0)
        return r;
    r = exchange(http, &request, ret_body, err);
    http_request_clear(&request);
    return r;
}

int http_call(struct http *http, const char *method, const char *path, json_t *body, json_t **ret_body,
              struct error **err)
{
    auto_free char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    struct http_request request;
    struct error *first = NULL;
    int r = http_request_make(method, path, "application/json", text, text ? strlen(text) : 0, &request, err);

    if (r < 0)
        return r;
    r = exchange(http, &request, ret_body, &first);
    /* A server may close an idle connection at any time (RFC 9112 section 9.3.1). */
    if ((r == -ECONNRESET || r == -EPIPE) && http->in_used == 0) {
        error_free(first);
        first = NULL;
        http->fd = close_fd(http->fd);
        r = http_connect(http, &first);
        if (r == 0)
            r = exchange(http, &request, ret_body, &first);
    }
    http_request_clear(&request);
    if (r < 0 && err && !*err)
        *err = first;
    else
        error_free(first);
    return r;
}
