/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may speak over TLS: a client certificate that tls_client_ca signed, or a bearer token whose SHA-256 stands in
 * token_file. Nobody else, and without at least one of the two there is no TLS listener at all.
 *
 * Only digests of tokens are known here. token_file is read again when it changes, so a token is withdrawn by removing
 * its line. A line may carry a third field, the second since 1970 from which on the token is no longer good.
 */
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/api/server.h"

enum { TOKEN_DIGEST = 32, TOKEN_BYTES_MAX = 512, MATERIAL_BYTES_MAX = 1 << 20, TOKEN_COUNT_MAX = 1000 };

struct token {
    char name[64];
    unsigned char digest[TOKEN_DIGEST];
    uint64_t not_after; /* seconds since 1970 */
};

/* The whole of a small file, terminated. */
static int read_file(const char *path, char **ret, struct error **err)
{
    auto_buffer struct buffer text = {0};
    auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    char chunk[4096];
    ssize_t n = -1;

    while (fd >= 0 && (n = read(fd, chunk, sizeof(chunk))) > 0 && text.length < MATERIAL_BYTES_MAX)
        buffer_add(&text, chunk, (size_t)n);
    if (n < 0)
        return error_set_errno(err, errno, "INVALID_VALUE", "cannot read %s", path);
    if (n > 0)
        return error_set(err, EFBIG, "INVALID_VALUE", "%s is too large", path);
    buffer_add(&text, "", 0);
    if (text.failed)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for %s", path);
    *ret = take_ptr(text.data);
    return 0;
}

/* ------------------------------------------------------------------ tokens */

static bool parse_digest(const char *hex, size_t n, unsigned char out[TOKEN_DIGEST])
{
    if (n != (size_t)TOKEN_DIGEST * 2 || strspn(hex, "0123456789abcdefABCDEF") < n)
        return false;
    for (size_t i = 0; i < TOKEN_DIGEST; i++) {
        char pair[3] = {hex[2 * i], hex[2 * i + 1], 0};
        out[i] = (unsigned char)strtoul(pair, NULL, 16);
    }
    return true;
}

/* "name:hex" or "name:hex:seconds". */
static bool parse_token(const char *line, struct token *ret)
{
    struct token token = {.not_after = UINT64_MAX};
    size_t name = strcspn(line, ":"), hex;
    char *end;

    if (name == 0 || name >= sizeof(token.name) || !line[name])
        return false;
    memcpy(token.name, line, name);
    line += name + 1;
    hex = strcspn(line, ":");
    if (!parse_digest(line, hex, token.digest))
        return false;
    if (line[hex] == ':') {
        token.not_after = strtoull(line + hex + 1, &end, 10);
        if (end == line + hex + 1 || *end)
            return false;
    }
    *ret = token;
    return true;
}

static int parse_tokens(const char *path, char *text, struct token **ret, size_t *ret_count, struct error **err)
{
    auto_free struct token *tokens = NULL;
    size_t count = 0, number = 0;

    for (char *line; (line = strsep(&text, "\n"));) {
        number++;
        line[strcspn(line, "\r#")] = '\0';
        if (!line[strspn(line, " \t")])
            continue;
        struct token *grown = count < TOKEN_COUNT_MAX ? reallocarray(tokens, count + 1, sizeof(*tokens)) : NULL;
        if (!grown)
            return error_set(err, ENOMEM, "INVALID_VALUE", "%s: no room for more than %zu tokens", path, count);
        tokens = grown;
        if (!parse_token(line, &tokens[count])) {
            error_set(err, EINVAL, "INVALID_VALUE", "%s: line %zu is no token", path, number);
            error_hint(err, "write NAME:SHA256-OF-THE-TOKEN-IN-HEX, made with: printf %%s TOKEN | sha256sum");
            return -EINVAL;
        }
        count++;
    }
    *ret = take_ptr(tokens);
    *ret_count = count;
    return 0;
}

static uint64_t file_stamp(const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return 0;
    return (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec + st.st_ino + (uint64_t)st.st_size;
}

static int load_tokens(struct tls_material *tls, struct error **err)
{
    uint64_t stamp = file_stamp(tls->token_file);
    auto_free char *text = NULL;
    struct token *tokens = NULL;
    size_t count = 0;
    int r = read_file(tls->token_file, &text, err);

    if (r == 0)
        r = parse_tokens(tls->token_file, text, &tokens, &count, err);
    if (r < 0)
        return r;
    free(tls->tokens);
    tls->tokens = tokens;
    tls->token_count = count;
    tls->token_stamp = stamp;
    return 0;
}

/* A file that cannot be read (any more) lets nobody in. */
static void refresh_tokens(struct tls_material *tls)
{
    auto_error struct error *err = NULL;
    uint64_t stamp = file_stamp(tls->token_file);

    if (stamp == tls->token_stamp)
        return;
    tls->token_count = 0;
    if (load_tokens(tls, &err) == 0)
        return;
    tls->token_stamp = stamp;
    log_error(NULL, err, "tokens are refused");
}

static bool same_digest(const unsigned char *a, const unsigned char *b)
{
    unsigned char difference = 0;

    for (size_t i = 0; i < TOKEN_DIGEST; i++)
        difference |= a[i] ^ b[i];
    return difference == 0;
}

/* Looks at every token, so that the time tells nothing. */
static const struct token *find_token(const struct tls_material *tls, const char *text)
{
    const struct token *found = NULL;
    unsigned char digest[TOKEN_DIGEST];

    if (strlen(text) > TOKEN_BYTES_MAX || gnutls_hash_fast(GNUTLS_DIG_SHA256, text, strlen(text), digest) < 0)
        return NULL;
    for (size_t i = 0; i < tls->token_count; i++)
        if (same_digest(digest, tls->tokens[i].digest))
            found = &tls->tokens[i];
    return found;
}

/* ------------------------------------------------------------------ material */

int tls_load(const struct api_options *options, struct tls_material *ret, struct error **err)
{
    struct tls_material tls = {0};
    int r = 0;

    if (!options->tls_cert || !options->tls_key)
        return error_set(err, EINVAL, "INVALID_VALUE",
                         "listen needs tls_cert and tls_key: nothing is served unencrypted");
    if (!options->tls_client_ca && !options->token_file) {
        error_set(err, EINVAL, "INVALID_VALUE", "listen needs a way to authenticate clients");
        error_hint(err, "set tls_client_ca or token_file in coracled.conf");
        return -EINVAL;
    }
    r = read_file(options->tls_cert, &tls.cert, err);
    if (r == 0)
        r = read_file(options->tls_key, &tls.key, err);
    if (r == 0 && options->tls_client_ca)
        r = read_file(options->tls_client_ca, &tls.client_ca, err);
    if (r == 0 && options->token_file) {
        tls.token_file = strdup(options->token_file);
        r = tls.token_file ? load_tokens(&tls, err) : error_set(err, ENOMEM, "NO_MEMORY", "no memory for a path");
    }
    if (r < 0)
        tls_clear(&tls);
    else
        *ret = tls;
    return r;
}

void tls_clear(struct tls_material *tls)
{
    if (tls->key)
        explicit_bzero(tls->key, strlen(tls->key));
    free(tls->cert);
    free(tls->key);
    free(tls->client_ca);
    free(tls->token_file);
    free(tls->tokens);
    *tls = (struct tls_material){0};
}

/* ------------------------------------------------------------------ asking */

/* 1: a good certificate, 0: none was shown, -1: a bad one. */
static int check_certificate(struct request *request)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    gnutls_typed_vdata_st purpose = {.type = GNUTLS_DT_KEY_PURPOSE_OID,
                                     .data = (unsigned char *)GNUTLS_KP_TLS_WWW_CLIENT};
    unsigned count = 0, status = 0;

    if (!info || !info->tls_session || !gnutls_certificate_get_peers(info->tls_session, &count) || count == 0)
        return 0;
    if (!request->api->tls.client_ca)
        return 0;
    return gnutls_certificate_verify_peers(info->tls_session, &purpose, 1, &status) == 0 && status == 0 ? 1 : -1;
}

static int refuse(struct request *request, const char *what, struct error **err)
{
    request->api->counters.unauthorized++;
    error_set(err, EACCES, "UNAUTHORIZED", "%s", what);
    error_hint(err,
               request->api->tls.client_ca ? "show a client certificate signed by the configured authority%s"
                                           : "send Authorization: Bearer TOKEN%s",
               request->api->tls.client_ca && request->api->tls.token_file ? ", or send Authorization: Bearer TOKEN"
                                                                           : "");
    return -EACCES;
}

static int check_token(struct request *request, struct error **err)
{
    struct tls_material *tls = &request->api->tls;
    const char *value =
        MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);

    if (!value || !tls->token_file)
        return refuse(request, "the request carries no credentials", err);
    if (strncasecmp(value, "Bearer ", 7) != 0)
        return refuse(request, "only bearer tokens are accepted", err);
    refresh_tokens(tls);
    const struct token *token = find_token(tls, value + 7 + strspn(value + 7, " "));
    if (!token)
        return refuse(request, "the token is not known", err);
    if ((uint64_t)time(NULL) >= token->not_after)
        return refuse(request, "the token has expired", err);
    log_line(LOG_LEVEL_DEBUG, NULL, "token %s", token->name);
    return 0;
}

int tls_authenticate(struct request *request, struct error **err)
{
    struct client *client = request->client;
    int r;

    if (!client->server->tls || client->authenticated)
        return 0; /* on the unix socket the file's mode decided */
    r = check_certificate(request);
    if (r < 0)
        return refuse(request, "the client certificate is not good", err);
    if (r == 0)
        return check_token(request, err);
    client->authenticated = true;
    return 0;
}
