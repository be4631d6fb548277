/* SPDX-License-Identifier: Apache-2.0 */
/* An image record: read from coracle-unpack's answer, which is checked like any stranger's, and shown as IMAGE. */
#include <errno.h>
#include <gnutls/crypto.h>
#include <signal.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strv.h"
#include "daemon/images_internal.h"
#include "model/codes.h"
#include "model/json_read.h"

enum { TEXT_MAX = 4096 };

void record_free(struct record *r)
{
    if (!r)
        return;
    strv_free(r->names);
    strv_free(r->config.entrypoint);
    strv_free(r->config.command);
    strv_free(r->config.env);
    free(r->user);
    free(r->workdir);
    free(r->parameters);
    json_decref(r->result);
    free(r);
}

static void cleanup_record(struct record **r)
{
    record_free(*r);
}

static int malformed(struct error **err, const char *what)
{
    return error_set(err, EINVAL, "IMAGE_MALFORMED", "the image reader's answer has no valid %s", what);
}

static int get_u64(const json_t *object, const char *key, uint64_t *ret)
{
    const json_t *v = json_object_get(object, key);

    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return -EINVAL;
    *ret = (uint64_t)json_integer_value(v);
    return 0;
}

static int get_strings(const json_t *object, const char *key, char ***ret, struct error **err)
{
    const json_t *v = json_object_get(object, key);
    size_t bytes = 0;

    if (!v)
        return 0;
    if (json_read_strings(v, key, ARGUMENT_MAX, ret, NULL) < 0)
        return malformed(err, key);
    for (char **s = *ret; s && *s; s++)
        bytes += strlen(*s) + 1;
    return bytes > ARGUMENT_BYTES_MAX ? malformed(err, key) : 0;
}

static int get_text(const json_t *object, const char *key, char **ret, struct error **err)
{
    const json_t *v = json_object_get(object, key);

    if (!v)
        return 0;
    if (!json_is_string(v) || json_string_length(v) >= TEXT_MAX ||
        strlen(json_string_value(v)) != json_string_length(v))
        return malformed(err, key);
    *ret = strdup(json_string_value(v));
    return *ret ? 0 : error_set(err, ENOMEM, "NO_MEMORY", "no memory for an image record");
}

static int read_layers(const json_t *list, struct image_config *c, struct error **err)
{
    size_t n = json_array_size(list);

    if (n == 0 || n > LAYER_MAX)
        return malformed(err, "list of layers");
    for (size_t i = 0; i < n; i++) {
        const char *hex = json_string_value(json_array_get(list, n - 1 - i)); /* the answer has the lowest first */

        if (!hex || strlen(hex) != 64 || !image_digest_prefix(hex))
            return malformed(err, "layer digest");
        memcpy(c->layers[i], hex, DIGEST_HEX_SIZE);
        for (size_t j = 0; j < i; j++)
            if (strcmp(c->layers[j], hex) == 0)
                return malformed(err, "list of layers");
    }
    c->layer_count = n;
    return 0;
}

/* A machine's image; without "guest" it is a container's. Which files it has was seen by the reader. */
static int read_guest(const json_t *j, struct record *r, struct error **err)
{
    const char *guest = json_string_value(json_object_get(j, "guest")), *boot = json_string_value(json_object_get(j, "boot"));
    const char *disk = json_string_value(json_object_get(j, "disk"));
    struct image_config *c = &r->config;
    int x = 0;

    c->variant = VARIANT_PROCESS;
    if (json_object_get(j, "guest") && (!guest || variant_parse(guest, &c->variant) < 0))
        return malformed(err, "guest");
    c->guest = variant_guest(c->variant);
    if (c->variant == VARIANT_PROCESS)
        return 0;
    c->boot = boot ? boot_find(c->variant, boot) : NULL;
    if (!c->boot || c->layer_count != 1)
        return malformed(err, "boot");
    if (disk && strcmp(disk, "disk.raw") != 0 && strcmp(disk, "disk.qcow2") != 0)
        return malformed(err, "disk");
    c->disk = !disk ? NULL : strcmp(disk, "disk.raw") == 0 ? "disk.raw" : "disk.qcow2";
    c->initrd = json_is_true(json_object_get(j, "initrd"));
    if (json_object_get(j, "memory") && (get_u64(j, "memory", &c->memory_min) < 0 || c->memory_min > GUEST_MEMORY_MAX))
        return malformed(err, "memory");
    x = get_text(j, "parameters", &r->parameters, err);
    if (x == 0 && r->parameters && !guest_parameters_valid(r->parameters))
        return malformed(err, "parameters");
    c->parameters = r->parameters;
    return x;
}

static int read_config(const json_t *j, struct record *r, struct error **err)
{
    uint64_t signal = 0;
    int result = get_strings(j, "entrypoint", &r->config.entrypoint, err);

    if (result == 0)
        result = get_strings(j, "command", &r->config.command, err);
    if (result == 0)
        result = get_strings(j, "env", &r->config.env, err);
    if (result == 0)
        result = get_text(j, "user", &r->user, err);
    if (result == 0)
        result = get_text(j, "workdir", &r->workdir, err);
    if (result == 0)
        result = read_guest(j, r, err);
    if (result < 0)
        return result;
    if (json_object_get(j, "stop_signal") && (get_u64(j, "stop_signal", &signal) < 0 || signal > 64))
        return malformed(err, "stop signal");
    r->config.user = r->user;
    r->config.workdir = r->workdir;
    r->config.stop_signal = (int)signal;
    return 0;
}

/* The error the reader reports, in its words. */
static int reported(const json_t *e, struct error **err)
{
    const char *code = json_string_value(json_object_get(e, "code"));
    const char *message = json_string_value(json_object_get(e, "message"));
    const char *hint = json_string_value(json_object_get(e, "hint"));

    error_set(err, EINVAL, error_code_intern(code ? code : ""), "%.1000s", message ? message : "the image was refused");
    if (hint)
        error_hint(err, "%.500s", hint);
    return -EINVAL;
}

int record_parse(const json_t *result, struct record **ret, struct error **err)
{
    __attribute__((cleanup(cleanup_record))) struct record *r = calloc(1, sizeof(*r));
    const char *digest = json_string_value(json_object_get(result, "digest"));
    const char *format = json_string_value(json_object_get(result, "format"));
    int x;

    if (!r)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for an image record");
    if (json_object_get(result, "error"))
        return reported(json_object_get(result, "error"), err);
    if (!digest || strlen(digest) != 64 || !image_digest_prefix(digest))
        return malformed(err, "digest");
    if (!format || (strcmp(format, "oci") != 0 && strcmp(format, "docker") != 0 && strcmp(format, "rootfs") != 0))
        return malformed(err, "format");
    memcpy(r->digest, "sha256:", 7);
    memcpy(r->digest + 7, digest, 65);
    memcpy(r->format, format, strlen(format) + 1);
    if (get_u64(result, "size_bytes", &r->size_bytes) < 0 || get_u64(result, "unpacked_bytes", &r->unpacked_bytes) < 0)
        return malformed(err, "size");
    x = read_layers(json_object_get(result, "layers"), &r->config, err);
    if (x == 0)
        x = read_config(json_object_get(result, "config"), r, err);
    if (x < 0)
        return x;
    r->names = calloc(1, sizeof(*r->names));
    r->result = json_deep_copy(result);
    if (!r->names || !r->result)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for an image record");
    *ret = take_ptr(r);
    return 0;
}

/* Content and how to run it make an image: the digest of both, as a configuration's is for other formats. */
static int digest_configured(struct record *r, struct error **err)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char raw[32];
    json_t *both = json_pack("{s:O, s:O}", "config", json_object_get(r->result, "config"), "layers",
                             json_object_get(r->result, "layers"));
    auto_free char *text = both ? json_dumps(both, JSON_COMPACT | JSON_SORT_KEYS) : NULL;

    json_decref(both);
    if (!text || gnutls_hash_fast(GNUTLS_DIG_SHA256, text, strlen(text), raw) < 0)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for an image record");
    for (size_t i = 0; i < 32; i++) {
        r->digest[7 + 2 * i] = digits[raw[i] >> 4];
        r->digest[8 + 2 * i] = digits[raw[i] & 15];
    }
    json_object_set_new(r->result, "digest", json_string(r->digest + 7));
    return 0;
}

int record_set_entrypoint(struct record *r, const json_t *entrypoint, struct error **err)
{
    char **words = NULL;
    int x;

    if (strcmp(r->format, "rootfs") != 0)
        return error_set(
            err, EINVAL, "INVALID_VALUE",
            "entrypoint: only for a plain root file system; this archive brings a configuration of its own");
    x = json_read_strings(entrypoint, "entrypoint", ARGUMENT_MAX, &words, err);
    if (x < 0)
        return x;
    strv_free(r->config.entrypoint);
    r->config.entrypoint = words;
    json_object_set_new(json_object_get(r->result, "config"), "entrypoint", json_deep_copy(entrypoint));
    return digest_configured(r, err);
}

static void render_strings(const char *key, char *const *list, struct buffer *out)
{
    buffer_printf(out, "\"%s\":[", key);
    for (size_t i = 0; list && list[i]; i++) {
        if (i)
            buffer_char(out, ',');
        buffer_json(out, list[i]);
    }
    buffer_text(out, "],");
}

static void render_boot(const struct image_config *c, struct buffer *out)
{
    if (c->variant == VARIANT_PROCESS)
        return;
    buffer_printf(out, ",\"boot\":\"%s\",\"parameters\":", c->boot);
    buffer_json(out, c->parameters ? c->parameters : "");
    buffer_text(out, ",\"memory\":");
    buffer_u64(out, c->memory_min);
    buffer_printf(out, ",\"initrd\":%s,\"disk\":\"%s\"", c->initrd ? "true" : "false", c->disk ? c->disk : "");
}

static void render_config(const struct image_config *c, struct buffer *out)
{
    buffer_text(out, "\"config\":{");
    render_strings("entrypoint", c->entrypoint, out);
    render_strings("command", c->command, out);
    render_strings("env", c->env, out);
    buffer_text(out, "\"user\":");
    buffer_json(out, c->user ? c->user : "");
    buffer_text(out, ",\"workdir\":");
    buffer_json(out, c->workdir ? c->workdir : "");
    buffer_text(out, ",\"stop_signal\":");
    if (c->stop_signal >= 34)
        buffer_printf(out, "\"SIGRTMIN+%d\"", c->stop_signal - 34);
    else if (c->stop_signal > 0 && sigabbrev_np(c->stop_signal))
        buffer_printf(out, "\"SIG%s\"", sigabbrev_np(c->stop_signal));
    else
        buffer_text(out, "\"\"");
    render_boot(c, out);
    buffer_char(out, '}');
}

void record_render(const struct record *r, const char *name, struct buffer *out)
{
    buffer_text(out, "{\"reference\":");
    buffer_json(out, name ? name : r->names[0] ? r->names[0] : r->digest);
    buffer_printf(out, ",\"digest\":\"%s\",\"size_bytes\":", r->digest);
    buffer_u64(out, r->size_bytes);
    buffer_text(out, ",\"unpacked_bytes\":");
    buffer_u64(out, r->unpacked_bytes);
    buffer_text(out, ",\"layers\":[");
    for (size_t i = r->config.layer_count; i-- > 0;) /* lowest first, as in an OCI configuration */
        buffer_printf(out, "\"%s\"%s", r->config.layers[i], i ? "," : "");
    buffer_printf(out, "],\"format\":\"%s\",\"guest\":\"%s\",\"created_at\":", r->format, variant_name(r->config.variant));
    buffer_json_time(out, r->created_ns);
    buffer_char(out, ',');
    render_config(&r->config, out);
    buffer_char(out, '}');
}
