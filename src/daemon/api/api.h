/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The REST layer of coracled: docs/formats/rest-api.md over HTTP/1.1, on a unix socket and, when configured, on TLS.
 *
 * Opened by the daemon's main after the core and the image store; runs on the same thread and the same sd_event loop.
 * The process must ignore SIGPIPE.
 */
#ifndef CORACLE_DAEMON_API_API_H
#define CORACLE_DAEMON_API_API_H

#include "base/error.h"

struct api;
struct core;
struct images;
struct sd_event;

struct api_options {
    const char *run_dir; /* api.sock is made in it unless unix_fd is given */
    const char *group;   /* may connect to api.sock; NULL: "coracle", and none when there is no such group */
    int unix_fd, tls_fd; /* listening sockets from systemd, -1: none; owned by the API from now on */
    const char *listen;  /* "address:port" or "[address]:port" for TLS; NULL: none */
    const char *tls_cert, *tls_key, *tls_client_ca, *token_file; /* NULL: none */
    unsigned max_connections;                                    /* 0: 1000 */
    struct images *images;                                       /* borrowed */
};

/* Starts to serve. Refuses a TCP listener without a certificate or without a way to authenticate clients. */
int api_open(struct core *, struct sd_event *, const struct api_options *, struct api **ret, struct error **err);

/* Closes every connection and removes the socket it made. Accepts NULL. */
void api_close(struct api *);

#endif
