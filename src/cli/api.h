/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The REST client (docs/formats/rest-api.md) on libcurl: one call, one stream of bytes, one upload, one upgrade.
 *
 * With --explain nothing is sent: the request is printed, 0 is returned and ret answers are NULL (jansson's readers
 * take NULL). A problem the server answers becomes a struct error with its code, detail and hint; for a name that
 * does not exist the nearest existing one is added.
 */
#ifndef CORACLE_CLI_API_H
#define CORACLE_CLI_API_H

#include "cli/cli.h"

#define DEFAULT_HOST "unix:///run/coracle/api.sock"

/* Checks and keeps the connection's settings; nothing is sent yet. */
int api_open(struct cli *cli, struct error **err);
void api_close(struct cli *cli);

/* body: borrowed, may be NULL. ret_answer: NULL when not wanted; the caller's to json_decref(). */
int api_call(struct cli *cli, const char *method, const char *path, const json_t *body, json_t **ret_answer,
             struct error **err);
int api_get(struct cli *cli, const char *path, json_t **ret_answer, struct error **err);

/* As api_get() without printing under --explain: for what is looked up beside the request itself. */
int api_peek(struct cli *cli, const char *path, json_t **ret_answer, struct error **err);

/* Receives bytes as they come; returning non-zero ends the transfer without an error. */
typedef int (*api_sink)(void *context, const char *data, size_t size);
int api_stream(struct cli *cli, const char *path, api_sink sink, void *context, struct error **err);

/* Sends the bytes of fd (size -1: until its end) as application/x-tar, with progress under the given label. */
int api_upload(struct cli *cli, const char *path, int fd, int64_t size, const char *label, json_t **ret_answer,
               struct error **err);

/* An upgraded connection: raw bytes both ways. */
struct api_channel;
int api_upgrade(struct cli *cli, const char *path, const json_t *body, struct api_channel **ret, struct error **err);
int api_channel_fd(const struct api_channel *channel);

/* Bytes moved, -EAGAIN when it would block, 0 (receive only) at the end, other -errno on failure. Never blocks. */
ssize_t api_receive(struct api_channel *channel, void *buf, size_t size);
ssize_t api_send(struct api_channel *channel, const void *buf, size_t size);
void api_channel_close(struct api_channel *channel);

/* The error that a problem+json object means. Returns -errno. status: HTTP status for one without a code. */
int api_problem(const json_t *problem, long status, struct error **err);

#endif
