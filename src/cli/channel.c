/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP upgrade to coracle-stream (exec, attach). libcurl makes the connection (unix socket or TLS) and then hands
 * bytes through; the one request and answer head are written and read here.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "cli/api_private.h"
#include "cli/text.h"

enum { HEAD_MAX = 16384, ANSWER_MAX = 1 << 20, ANSWER_TIMEOUT_MS = 60000 };

struct api_channel {
    CURL *curl;
    curl_socket_t fd;
    struct buffer ahead; /* bytes that came with the answer's head */
    size_t ahead_taken;
};

int api_channel_fd(const struct api_channel *channel)
{
    return (int)channel->fd;
}

ssize_t api_receive(struct api_channel *channel, void *buf, size_t size)
{
    size_t n = channel->ahead.length - channel->ahead_taken;
    CURLcode code;

    if (n > 0) {
        n = n < size ? n : size;
        memcpy(buf, channel->ahead.data + channel->ahead_taken, n);
        channel->ahead_taken += n;
        return (ssize_t)n;
    }
    code = curl_easy_recv(channel->curl, buf, size, &n);
    if (code == CURLE_AGAIN)
        return -EAGAIN;
    return code == CURLE_OK ? (ssize_t)n : -EIO;
}

ssize_t api_send(struct api_channel *channel, const void *buf, size_t size)
{
    size_t n = 0;
    CURLcode code = curl_easy_send(channel->curl, buf, size, &n);

    if (code == CURLE_AGAIN)
        return -EAGAIN;
    return code == CURLE_OK ? (ssize_t)n : -EIO;
}

void api_channel_close(struct api_channel *channel)
{
    if (!channel)
        return;
    curl_easy_cleanup(channel->curl);
    buffer_clear(&channel->ahead);
    free(channel);
}

static int wait_for(struct api_channel *channel, short events)
{
    struct pollfd p = {.fd = (int)channel->fd, .events = events};

    return poll(&p, 1, ANSWER_TIMEOUT_MS) > 0 ? 0 : -ETIMEDOUT;
}

static int send_all(struct api_channel *channel, const char *text, size_t size)
{
    while (size > 0) {
        ssize_t n = api_send(channel, text, size);

        if (n == -EAGAIN && wait_for(channel, POLLOUT) == 0)
            continue;
        if (n < 0)
            return (int)n;
        text += n;
        size -= (size_t)n;
    }
    return 0;
}

/* Receives until the buffer holds at least wanted bytes, or (wanted 0) the blank line that ends a head. */
static int fill(struct api_channel *channel, struct buffer *in, size_t wanted)
{
    char buf[4096];

    while (wanted ? in->length < wanted : !(in->data && memmem(in->data, in->length, "\r\n\r\n", 4))) {
        ssize_t n = api_receive(channel, buf, sizeof(buf));

        if (n == -EAGAIN && wait_for(channel, POLLIN) == 0)
            continue;
        if (n <= 0)
            return n < 0 ? (int)n : -EPROTO;
        buffer_add(in, buf, (size_t)n);
        if (in->length > (wanted ? ANSWER_MAX : HEAD_MAX))
            return -EPROTO;
    }
    return 0;
}

static size_t content_length(const char *head)
{
    const char *line = strcasestr(head, "\r\nContent-Length:");
    unsigned long n = line ? strtoul(line + 17, NULL, 10) : 0;

    return n <= ANSWER_MAX - HEAD_MAX ? n : 0;
}

static int send_request(struct cli *cli, struct api_channel *channel, const char *path, const json_t *body)
{
    auto_free char *text = body ? json_dumps(body, JSON_COMPACT) : text_dup("");
    const char *host = strstr(cli->api->base, "//") + 2;
    auto_free char *request =
        text_printf("POST %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: coracle-stream\r\n"
                    "%s%sContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                    path, host, cli->api->authorization ? cli->api->authorization : "",
                    cli->api->authorization ? "\r\n" : "", strlen(text), text);

    return send_all(channel, request, strlen(request));
}

static int read_answer(struct cli *cli, struct api_channel *channel, const char *path, struct error **err)
{
    __attribute__((cleanup(cleanup_buffer))) struct buffer in = {0};
    struct buffer body = {0};
    size_t head, wanted;
    long status = 0;

    if (fill(channel, &in, 0) < 0 || sscanf(in.data, "HTTP/1.%*1[01] %3ld", &status) != 1)
        return error_set(err, EPROTO, "PROTOCOL_ERROR", "the daemon did not answer the upgrade of the connection");
    head = (size_t)((char *)memmem(in.data, in.length, "\r\n\r\n", 4) + 4 - in.data);
    if (status == 101) {
        buffer_add(&channel->ahead, in.data + head, in.length - head);
        return 0;
    }
    in.data[head - 1] = 0;
    wanted = content_length(in.data);
    if (wanted && fill(channel, &in, head + wanted) < 0)
        return error_set(err, EPROTO, "PROTOCOL_ERROR", "the daemon's answer (HTTP status %ld) is cut short", status);
    buffer_add(&body, in.data + head, wanted);
    api_answer_error(cli, path, status, &body, err);
    buffer_clear(&body);
    return -EREMOTEIO;
}

int api_upgrade(struct cli *cli, const char *path, const json_t *body, struct api_channel **ret, struct error **err)
{
    struct api_channel *channel;
    char detail[CURL_ERROR_SIZE] = "";
    CURLcode code;
    int r;

    if (api_explained(cli, "POST", path, body, "Connection: Upgrade, Upgrade: coracle-stream")) {
        *ret = NULL;
        return 0;
    }
    channel = text_alloc(1, sizeof(*channel));
    channel->curl = curl_easy_init();
    if (!channel->curl) {
        free(channel);
        return error_set(err, ENOMEM, "NO_MEMORY", "the HTTP library does not start");
    }
    api_prepare(cli, channel->curl);
    curl_easy_setopt(channel->curl, CURLOPT_URL, cli->api->base);
    curl_easy_setopt(channel->curl, CURLOPT_CONNECT_ONLY, 1L);
    curl_easy_setopt(channel->curl, CURLOPT_ERRORBUFFER, detail);
    code = curl_easy_perform(channel->curl);
    if (code == CURLE_OK)
        code = curl_easy_getinfo(channel->curl, CURLINFO_ACTIVESOCKET, &channel->fd);
    if (code != CURLE_OK)
        r = api_transport_error(cli, code, detail, err);
    else if ((r = send_request(cli, channel, path, body)) < 0)
        error_set_errno(err, -r, "DAEMON_UNAVAILABLE", "the daemon closed the connection");
    else
        r = read_answer(cli, channel, path, err);
    curl_easy_setopt(channel->curl, CURLOPT_ERRORBUFFER, NULL);
    if (r < 0) {
        api_channel_close(channel);
        return r;
    }
    *ret = channel;
    return 0;
}
