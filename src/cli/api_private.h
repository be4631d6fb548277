/* SPDX-License-Identifier: Apache-2.0 */
/* What api.c (requests), transfer.c (streams, uploads) and channel.c (upgrades) share; nobody else includes it. */
#ifndef CORACLE_CLI_API_PRIVATE_H
#define CORACLE_CLI_API_PRIVATE_H

#include <curl/curl.h>

#include "base/buffer.h"
#include "cli/api.h"

struct api {
    CURL *curl;          /* reused, so that calls of one command share a connection */
    char *base;          /* "http://localhost" or "https://host:port" */
    char *socket_path;   /* NULL: TLS */
    char *authorization; /* header line, or NULL */
};

/* Sets everything that does not depend on the request. */
void api_prepare(const struct cli *cli, CURL *curl);

/* Prints the request under --explain and returns true. */
bool api_explained(const struct cli *cli, const char *method, const char *path, const json_t *body, const char *note);

/* The error for a transfer that failed below HTTP. */
int api_transport_error(const struct cli *cli, CURLcode code, const char *detail, struct error **err);

/* The error for an answer of status >= 400 to path. */
int api_answer_error(struct cli *cli, const char *path, long status, const struct buffer *text, struct error **err);

/* Parses an answer's body; an empty one is {}. */
int api_parse(const struct buffer *text, json_t **ret, struct error **err);

#endif
