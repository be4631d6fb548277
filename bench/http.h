/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small HTTP/1.1 client over a unix socket, kept alive between calls: the create call is part of what is measured, so
 * the client in front of it must cost next to nothing. One connection, one thread.
 */
#ifndef CORACLE_BENCH_HTTP_H
#define CORACLE_BENCH_HTTP_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct http {
    int fd;
    char path[108];
    char *in; /* what was read and not yet consumed */
    size_t in_used, in_size;
};

/* Bytes of one request, made before the clock starts. */
struct http_request {
    char *bytes;
    size_t length;
};

int http_open(struct http *http, const char *socket_path, struct error **err);
void http_close(struct http *http);

/* body NULL: none. type: Content-Type. The request is the caller's to http_request_clear(). */
/* Before a request that is timed: connects anew when the kept connection has gone. */
int http_refresh(struct http *http, struct error **err);

int http_request_make(const char *method, const char *path, const char *type, const void *body, size_t body_length,
                      struct http_request *ret_request, struct error **err);
void http_request_clear(struct http_request *request);

/* Writes the whole request. *ret_t0_ns (may be NULL): CLOCK_REALTIME just before the first byte. */
int http_send(struct http *http, const struct http_request *request, int64_t *ret_t0_ns, struct error **err);

/* Reads one response. A body that is not JSON gives json null. *ret_body is the caller's (json_decref). */
int http_receive(struct http *http, int *ret_status, json_t **ret_body, struct error **err);

/* One JSON call; a status of 400 and above is an error with the server's code, detail and hint. body and ret_body may
 * be NULL. Reconnects once when the kept connection had gone. */
int http_call(struct http *http, const char *method, const char *path, json_t *body, json_t **ret_body,
              struct error **err);

/* As http_call, for bytes of any type. */
int http_upload(struct http *http, const char *path, const char *type, const void *body, size_t length,
                json_t **ret_body, struct error **err);

/* Turns a problem+json body into an error; always returns -errno. */
int http_problem(int status, const json_t *body, struct error **err);

#endif
