/* SPDX-License-Identifier: Apache-2.0 */
/* Connection, plain calls and errors of the REST client. One easy handle, so one connection a command. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/suggest.h"
#include "cli/api_private.h"
#include "cli/text.h"
#include "model/codes.h"

enum { CONNECT_TIMEOUT_MS = 10000 };

static int parse_host(const char *host, struct api *api, struct error **err)
{
    if (!strncmp(host, "unix://", 7) && host[7] == '/') {
        if (strlen(host + 7) >= sizeof(((struct sockaddr_un *)0)->sun_path))
            return error_set(err, EINVAL, "INVALID_VALUE", "--host: the path of the socket is too long: %s", host + 7);
        api->socket_path = text_dup(host + 7);
        api->base = text_dup("http://localhost");
        return 0;
    }
    if (!strncmp(host, "https://", 8) && host[8] && !strchr(host + 8, '/')) {
        api->base = text_dup(host);
        return 0;
    }
    error_set(err, EINVAL, "INVALID_VALUE", "--host: \"%s\" is no address of a daemon", host);
    error_hint(err,
               "write unix:///run/coracle/api.sock, or https://host:port (nothing unencrypted leaves the machine)");
    return -EINVAL;
}

int api_open(struct cli *cli, struct error **err)
{
    struct api *api = text_alloc(1, sizeof(*api));

    cli->api = api;
    if (parse_host(cli->connection.host, api, err) < 0)
        return -EINVAL;
    if (curl_global_init(api->socket_path ? CURL_GLOBAL_NOTHING : CURL_GLOBAL_SSL) != 0 ||
        !(api->curl = curl_easy_init()))
        return error_set(err, ENOMEM, "NO_MEMORY", "the HTTP library does not start");
    if (cli->connection.token)
        api->authorization = text_printf("Authorization: Bearer %s", cli->connection.token);
    return 0;
}

void api_close(struct cli *cli)
{
    struct api *api = cli->api;

    if (!api)
        return;
    curl_easy_cleanup(api->curl);
    free(api->base);
    free(api->socket_path);
    free(api->authorization);
    free(api);
    cli->api = NULL;
}

void api_prepare(const struct cli *cli, CURL *curl)
{
    const struct connection *c = &cli->connection;

    curl_easy_reset(curl);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    if (cli->api->socket_path) {
        curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, cli->api->socket_path);
        curl_easy_setopt(curl, CURLOPT_PROXY, "");
        return;
    }
    curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (c->cacert)
        curl_easy_setopt(curl, CURLOPT_CAINFO, c->cacert);
    if (c->cert)
        curl_easy_setopt(curl, CURLOPT_SSLCERT, c->cert);
    if (c->key)
        curl_easy_setopt(curl, CURLOPT_SSLKEY, c->key);
}

bool api_explained(const struct cli *cli, const char *method, const char *path, const json_t *body, const char *note)
{
    if (!cli->explain)
        return false;
    if (cli->json) {
        json_t *line = json_pack("{s:s, s:s, s:O?, s:s?}", "method", method, "path", path, "body", body, "sends", note);

        json_dumpf(line, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(line);
        return true;
    }
    printf("%s %s\n", method, path);
    if (note)
        printf("    (%s)\n", note);
    if (body) {
        json_dumpf(body, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    return true;
}

/* Why connect() fails: libcurl says only that it does. */
static int socket_errno(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    auto_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return ECONNREFUSED;
    return errno;
}

int api_transport_error(const struct cli *cli, CURLcode code, const char *detail, struct error **err)
{
    const char *path = cli->api->socket_path;
    int why = path && code == CURLE_COULDNT_CONNECT ? socket_errno(path) : EIO;

    if (why == EACCES || why == EPERM) {
        error_set(err, EACCES, "FORBIDDEN", "you may not talk to the daemon: %s", path);
        error_hint(err, "use sudo, or have yourself added to the group coracle (which is as good as root)");
        return -EACCES;
    }
    if (path && code == CURLE_COULDNT_CONNECT) {
        error_set(err, ENOTCONN, "DAEMON_UNAVAILABLE", "the daemon is not running: nobody listens on %s", path);
        error_hint(err, "sudo coracle up, or: systemctl start coracled; coracle doctor checks this host");
        return -ENOTCONN;
    }
    error_set(err, EIO, "DAEMON_UNAVAILABLE", "no answer from %s: %s", path ? path : cli->api->base,
              detail && *detail ? detail : curl_easy_strerror(code));
    if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CONNECT_ERROR)
        error_hint(err,
                   "--cacert names the authority that signed the daemon's certificate, --cert and --key are yours");
    else
        error_hint(err, "is the daemon running, and is --host (or CORACLE_HOST) right?");
    return -EIO;
}

int api_problem(const json_t *problem, long status, struct error **err)
{
    const char *code = text_member(problem, "code"), *detail = text_member(problem, "detail");
    const char *title = text_member(problem, "title"), *hint = text_member(problem, "hint");

    if (!*code) {
        error_set(err, EPROTO, "PROTOCOL_ERROR", "the daemon answered HTTP status %ld without a reason", status);
        error_hint(err, "is --host really a coracle daemon, and of this version? coracle version");
        return -EPROTO;
    }
    error_set(err, EREMOTEIO, error_code_intern(code), "%s", *detail ? detail : *title ? title : code);
    if (*hint)
        error_hint(err, "%s", hint);
    return -EREMOTEIO;
}

/* The name that path asks for ("/v1/instances/NAME/start") when its collection is listed by /v1/COLLECTION. */
static int asked_name(const char *path, char **ret_list, char **ret_name)
{
    static const char *const collections[] = {"/v1/instances/", "/v1/networks/", "/v1/images/"};

    for (size_t i = 0; i < sizeof(collections) / sizeof(collections[0]); i++) {
        size_t n = strlen(collections[i]);

        if (!strncmp(path, collections[i], n)) {
            int length = 0;
            char *plain = curl_easy_unescape(NULL, path + n, (int)strcspn(path + n, "/?"), &length);

            *ret_name = text_printf("%.*s", length, plain ? plain : "");
            *ret_list = text_printf("%.*s", (int)n - 1, collections[i]);
            curl_free(plain);
            return 0;
        }
    }
    return -ENOENT;
}

static void suggest_name(struct cli *cli, const char *path, struct error **err)
{
    auto_free char *list = NULL, *name = NULL;
    const char *best = NULL;
    json_t *answer = NULL, *item;
    size_t i;

    if (!err || !*err || asked_name(path, &list, &name) < 0 || api_peek(cli, list, &answer, NULL) < 0)
        return;
    json_array_foreach(json_object_get(answer, "items"), i, item)
    {
        const char *known = text_member(item, "name");

        suggest_offer(name, *known ? known : text_member(item, "reference"), &best);
    }
    if (best) {
        free((*err)->hint);
        (*err)->hint = NULL;
        error_hint(err, "did you mean %s?", best);
    }
    json_decref(answer);
}

int api_answer_error(struct cli *cli, const char *path, long status, const struct buffer *text, struct error **err)
{
    json_t *problem = json_loadb(text->data ? text->data : "", text->length, 0, NULL);
    int r = api_problem(problem, status, err);

    json_decref(problem);
    if (status == 404)
        suggest_name(cli, path, err);
    return r;
}

int api_parse(const struct buffer *text, json_t **ret, struct error **err)
{
    json_error_t why;
    json_t *answer = text->length ? json_loadb(text->data, text->length, 0, &why) : json_object();

    if (!answer) {
        error_set(err, EPROTO, "PROTOCOL_ERROR", "the daemon's answer is no JSON: %s (line %d)", why.text, why.line);
        error_hint(err, "is --host really a coracle daemon, and of this version? coracle version");
        return -EPROTO;
    }
    *ret = answer;
    return 0;
}

static size_t collect(char *data, size_t size, size_t count, void *context)
{
    buffer_add(context, data, size * count);
    return size * count;
}

static int call(struct cli *cli, const char *method, const char *path, const json_t *body, json_t **ret_answer,
                struct error **err)
{
    __attribute__((cleanup(cleanup_buffer))) struct buffer answer = {0};
    auto_free char *url = text_printf("%s%s", cli->api->base, path);
    auto_free char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    struct curl_slist *headers = curl_slist_append(NULL, "Accept: application/json");
    CURL *curl = cli->api->curl;
    char detail[CURL_ERROR_SIZE] = "";
    long status = 0;
    CURLcode code;

    api_prepare(cli, curl);
    if (cli->api->authorization)
        headers = curl_slist_append(headers, cli->api->authorization);
    headers = curl_slist_append(headers, "Content-Type: application/json");
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, collect);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer);
    if (text || !strcmp(method, "POST"))
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, text ? text : "");
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
    code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_slist_free_all(headers);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, NULL);
    if (code != CURLE_OK)
        return api_transport_error(cli, code, detail, err);
    if (status >= 400)
        return api_answer_error(cli, path, status, &answer, err);
    return ret_answer ? api_parse(&answer, ret_answer, err) : 0;
}

int api_call(struct cli *cli, const char *method, const char *path, const json_t *body, json_t **ret_answer,
             struct error **err)
{
    if (api_explained(cli, method, path, body, NULL)) {
        if (ret_answer)
            *ret_answer = NULL;
        return 0;
    }
    return call(cli, method, path, body, ret_answer, err);
}

int api_get(struct cli *cli, const char *path, json_t **ret_answer, struct error **err)
{
    return api_call(cli, "GET", path, NULL, ret_answer, err);
}

int api_peek(struct cli *cli, const char *path, json_t **ret_answer, struct error **err)
{
    return call(cli, "GET", path, NULL, ret_answer, err);
}
