/* SPDX-License-Identifier: Apache-2.0 */
/* Transfers of any length: answers handed on as they come (logs, events), uploads with progress (images). */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/api_private.h"
#include "cli/term.h"
#include "cli/text.h"

struct stream {
    CURL *curl;
    api_sink sink;
    void *context;
    struct buffer refused; /* body of an answer >= 400 */
    bool ended;            /* by the sink */
};

static size_t on_bytes(char *data, size_t size, size_t count, void *context)
{
    struct stream *stream = context;
    long status = 0;

    curl_easy_getinfo(stream->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 400) {
        buffer_add(&stream->refused, data, size * count);
        return size * count;
    }
    if (stream->sink(stream->context, data, size * count) != 0) {
        stream->ended = true;
        return 0;
    }
    return size * count;
}

/* About once a second: ends a quiet stream whose output nobody reads any more ("logs -f | head"). */
static int on_time(void *context, curl_off_t down_total, curl_off_t down, curl_off_t up_total, curl_off_t up)
{
    struct stream *stream = context;
    struct pollfd p = {.fd = STDOUT_FILENO};

    if (poll(&p, 1, 0) > 0 && p.revents & POLLERR)
        stream->ended = true;
    return stream->ended;
}

static int finish(struct cli *cli, CURL *curl, CURLcode code, const char *path, const char *detail,
                  const struct buffer *body, struct error **err)
{
    long status = 0;

    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    /* A refusal may come while an upload is still being sent; its words matter more than the broken pipe. */
    if (status >= 400 && body->length)
        return api_answer_error(cli, path, status, body, err);
    if (code != CURLE_OK)
        return api_transport_error(cli, code, detail, err);
    return status >= 400 ? api_answer_error(cli, path, status, body, err) : 0;
}

static struct curl_slist *common_headers(const struct cli *cli, const char *first)
{
    struct curl_slist *headers = curl_slist_append(NULL, first);

    return cli->api->authorization ? curl_slist_append(headers, cli->api->authorization) : headers;
}

int api_stream(struct cli *cli, const char *path, api_sink sink, void *context, struct error **err)
{
    struct stream stream = {.curl = cli->api->curl, .sink = sink, .context = context};
    struct curl_slist *headers = common_headers(cli, "Accept: text/event-stream, text/plain, application/json");
    auto_free char *url = text_printf("%s%s", cli->api->base, path);
    char detail[CURL_ERROR_SIZE] = "";
    CURL *curl = stream.curl;
    CURLcode code;
    int r = 0;

    if (api_explained(cli, "GET", path, NULL, NULL)) {
        curl_slist_free_all(headers);
        return 0;
    }
    api_prepare(cli, curl);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &stream);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_time);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &stream);
    code = curl_easy_perform(curl);
    if (!stream.ended)
        r = finish(cli, curl, code, path, detail, &stream.refused, err);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, NULL);
    curl_slist_free_all(headers);
    buffer_clear(&stream.refused);
    return r;
}

struct upload {
    const struct cli *cli;
    const char *label;
    int fd;
    int64_t size; /* -1: unknown */
    uint64_t sent;
    time_t shown;
    int read_errno;
};

static void show_progress(struct upload *upload)
{
    auto_free char *sent = text_bytes(upload->sent);
    time_t now = time(NULL);

    if (now == upload->shown)
        return;
    upload->shown = now;
    if (upload->size > 0)
        term_status(upload->cli, "%s: sending %s, %d%%", upload->label, sent,
                    (int)(upload->sent * 100 / (uint64_t)upload->size));
    else
        term_status(upload->cli, "%s: sending %s", upload->label, sent);
}

static size_t on_want(char *buf, size_t size, size_t count, void *context)
{
    struct upload *upload = context;
    ssize_t n;

    do
        n = read(upload->fd, buf, size * count);
    while (n < 0 && errno == EINTR);
    if (n < 0) {
        upload->read_errno = errno;
        return CURL_READFUNC_ABORT;
    }
    upload->sent += (uint64_t)n;
    show_progress(upload);
    if (n == 0 || (upload->size > 0 && upload->sent == (uint64_t)upload->size))
        term_status(upload->cli, "%s: checking and unpacking", upload->label);
    return (size_t)n;
}

static size_t on_answer(char *data, size_t size, size_t count, void *context)
{
    buffer_add(context, data, size * count);
    return size * count;
}

static int upload_run(struct cli *cli, const char *path, struct upload *upload, json_t **ret_answer, struct error **err)
{
    __attribute__((cleanup(cleanup_buffer))) struct buffer answer = {0};
    auto_free char *url = text_printf("%s%s", cli->api->base, path);
    struct curl_slist *headers = common_headers(cli, "Content-Type: application/x-tar");
    char detail[CURL_ERROR_SIZE] = "";
    CURL *curl = cli->api->curl;
    CURLcode code;
    int r;

    api_prepare(cli, curl);
    if (upload->size < 0)
        headers = curl_slist_append(headers, "Transfer-Encoding: chunked");
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_POST, 1L);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)upload->size);
    curl_easy_setopt(curl, CURLOPT_UPLOAD_BUFFERSIZE, 262144L);
    curl_easy_setopt(curl, CURLOPT_READFUNCTION, on_want);
    curl_easy_setopt(curl, CURLOPT_READDATA, upload);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_answer);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer);
    code = curl_easy_perform(curl);
    term_status_clear(cli);
    if (upload->read_errno)
        r = error_set_errno(err, upload->read_errno, "INVALID_VALUE", "%s cannot be read", upload->label);
    else
        r = finish(cli, curl, code, path, detail, &answer, err);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, NULL);
    curl_slist_free_all(headers);
    return r < 0 ? r : api_parse(&answer, ret_answer, err);
}

int api_upload(struct cli *cli, const char *path, int fd, int64_t size, const char *label, json_t **ret_answer,
               struct error **err)
{
    struct upload upload = {.cli = cli, .label = label, .fd = fd, .size = size};
    auto_free char *note = text_printf("application/x-tar, the bytes of %s", label);

    if (api_explained(cli, "POST", path, NULL, note)) {
        *ret_answer = NULL;
        return 0;
    }
    return upload_run(cli, path, &upload, ret_answer, err);
}
