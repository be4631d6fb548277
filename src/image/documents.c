/* SPDX-License-Identifier: Apache-2.0 */
/* Parsing the JSON documents of an image into bounded structs. See documents.h. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/documents.h"

static void cleanup_json(json_t **j)
{
    json_decref(*j);
}
#define auto_json __attribute__((cleanup(cleanup_json)))

static int malformed(struct error **err, const char *what, const char *why)
{
    error_set(err, EINVAL, "IMAGE_MALFORMED", "%s: %s", what, why);
    error_hint(err, "the archive is damaged or was not made by an OCI tool; export the image again");
    return -EINVAL;
}

/* Nesting is counted before the recursive parser runs. */
static bool too_deep(const char *text, size_t size)
{
    unsigned int depth = 0;
    bool quoted = false;

    for (size_t i = 0; i < size; i++) {
        if (quoted) {
            if (text[i] == '\\')
                i++;
            else if (text[i] == '"')
                quoted = false;
        } else if (text[i] == '"') {
            quoted = true;
        } else if (text[i] == '{' || text[i] == '[') {
            if (++depth > DOCUMENT_DEPTH_MAX)
                return true;
        } else if ((text[i] == '}' || text[i] == ']') && depth > 0) {
            depth--;
        }
    }
    return false;
}

int document_parse(const char *what, const void *text, size_t size, json_t **ret, struct error **err)
{
    char shown[IMAGE_PRINTABLE_SIZE];
    json_error_t where;
    json_t *j;

    if (size > DOCUMENT_BYTES_MAX)
        return malformed(err, what, "is larger than the 4 MiB a document may have");
    if (too_deep(text, size))
        return malformed(err, what, "is nested deeper than 32 levels");
    j = json_loadb(text, size, JSON_REJECT_DUPLICATES, &where);
    if (!j) {
        error_set(err, EINVAL, "IMAGE_MALFORMED", "%s: not valid JSON: line %d: %s", what, where.line,
                  image_printable(where.text, shown));
        return -EINVAL;
    }
    *ret = j;
    return 0;
}

/* A member that is absent or null counts as "". One that does not fit or is no string is refused. */
static int get_text(const json_t *object, const char *key, char *ret, size_t size)
{
    const json_t *v = json_object_get(object, key);

    if (!v || json_is_null(v)) {
        ret[0] = '\0';
        return 0;
    }
    if (!json_is_string(v) || json_string_length(v) >= size)
        return -EINVAL;
    memcpy(ret, json_string_value(v), json_string_length(v) + 1);
    return 0;
}

static int parse_descriptor(const char *what, const json_t *j, struct descriptor *ret, struct error **err)
{
    struct descriptor d = {0};
    char digest[IMAGE_TEXT_SIZE];
    const json_t *size = json_object_get(j, "size");
    const json_t *platform = json_object_get(j, "platform"), *notes = json_object_get(j, "annotations");

    if (!json_is_object(j))
        return malformed(err, what, "a descriptor is not an object");
    if (get_text(j, "digest", digest, sizeof(digest)) < 0 || digest_parse(digest, d.digest) < 0)
        return malformed(err, what, "a descriptor has no sha256 digest (no other algorithm is supported)");
    if (!json_is_integer(size) || json_integer_value(size) < 0)
        return malformed(err, what, "a descriptor has no valid size");
    d.size = (uint64_t)json_integer_value(size);
    if (get_text(j, "mediaType", d.media_type, sizeof(d.media_type)) < 0)
        return malformed(err, what, "a descriptor has no valid mediaType");
    if (get_text(platform, "os", d.os, sizeof(d.os)) < 0 ||
        get_text(platform, "architecture", d.architecture, sizeof(d.architecture)) < 0)
        return malformed(err, what, "a descriptor has no valid platform");
    if (get_text(notes, "io.containerd.image.name", d.name, sizeof(d.name)) < 0 || !d.name[0])
        if (get_text(notes, "org.opencontainers.image.ref.name", d.name, sizeof(d.name)) < 0)
            d.name[0] = '\0';
    *ret = d;
    return 0;
}

int index_parse(const char *what, const void *text, size_t size, struct image_index *ret, struct error **err)
{
    auto_json json_t *j = NULL;
    auto_free struct descriptor *entries = NULL;
    const json_t *list;
    int r = document_parse(what, text, size, &j, err);

    if (r < 0)
        return r;
    list = json_object_get(j, "manifests");
    if (!json_is_array(list))
        return malformed(err, what, "has no list of manifests");
    if (json_array_size(list) == 0 || json_array_size(list) > INDEX_ENTRY_MAX)
        return malformed(err, what, "lists no manifest, or more than 256");
    entries = calloc(json_array_size(list), sizeof(*entries));
    if (!entries)
        return error_set(err, ENOMEM, "NO_MEMORY", "%s: no memory", what);
    for (size_t i = 0; i < json_array_size(list); i++) {
        r = parse_descriptor(what, json_array_get(list, i), &entries[i], err);
        if (r < 0)
            return r;
    }
    ret->count = json_array_size(list);
    ret->entries = take_ptr(entries);
    return 0;
}

void index_clear(struct image_index *index)
{
    free(index->entries);
    *index = (struct image_index){0};
}

/* "tar" in its type: an artifact of another kind (a chart, a signature) is not something one can run. */
static bool is_layer_type(const char *type)
{
    return !type[0] || ((strstr(type, "tar") || strstr(type, "rootfs.diff")) && !strstr(type, "encrypted"));
}

int manifest_parse(const char *what, const void *text, size_t size, struct manifest *ret, struct error **err)
{
    auto_json json_t *j = NULL;
    auto_free struct manifest *m = calloc(1, sizeof(*m));
    const json_t *list;
    int r = m ? document_parse(what, text, size, &j, err) : error_set(err, ENOMEM, "NO_MEMORY", "%s: no memory", what);

    if (r < 0)
        return r;
    r = parse_descriptor(what, json_object_get(j, "config"), &m->config, err);
    if (r < 0)
        return r;
    list = json_object_get(j, "layers");
    if (!json_is_array(list) || json_array_size(list) == 0)
        return malformed(err, what, "has no layers");
    if (json_array_size(list) > IMAGE_LAYER_MAX * 2)
        return malformed(err, what, "has more than 128 layers; squash the image");
    for (; m->layer_count < json_array_size(list); m->layer_count++) {
        struct descriptor *d = &m->layers[m->layer_count];

        r = parse_descriptor(what, json_array_get(list, m->layer_count), d, err);
        if (r < 0)
            return r;
        if (!is_layer_type(d->media_type))
            return malformed(err, what, "has a layer that is no tar: an artifact or an encrypted image cannot be run");
    }
    *ret = *m;
    return 0;
}

void docker_manifest_clear(struct docker_manifest *m)
{
    free(m->config);
    for (size_t i = 0; i < m->layer_count; i++)
        free(m->layers[i]);
    *m = (struct docker_manifest){0};
}

static int copy_member_name(const char *what, const json_t *j, char **ret, struct error **err)
{
    if (!json_is_string(j) || json_string_length(j) == 0 || json_string_length(j) >= IMAGE_PATH_SIZE)
        return malformed(err, what, "names a configuration or layer with something that is no file name");
    *ret = strdup(json_string_value(j));
    return *ret ? 0 : error_set(err, ENOMEM, "NO_MEMORY", "%s: no memory", what);
}

static int fill_docker_manifest(const char *what, const json_t *one, struct docker_manifest *m, struct error **err)
{
    const json_t *list = json_object_get(one, "Layers"), *tag = json_array_get(json_object_get(one, "RepoTags"), 0);
    int r = copy_member_name(what, json_object_get(one, "Config"), &m->config, err);

    if (r < 0)
        return r;
    if (!json_is_array(list) || json_array_size(list) == 0)
        return malformed(err, what, "has no layers");
    if (json_array_size(list) > IMAGE_LAYER_MAX * 2)
        return malformed(err, what, "has more than 128 layers; squash the image");
    for (size_t i = 0; i < json_array_size(list); i++) {
        r = copy_member_name(what, json_array_get(list, i), &m->layers[i], err);
        if (r < 0)
            return r;
        m->layer_count++;
    }
    if (json_is_string(tag) && json_string_length(tag) < sizeof(m->name))
        memcpy(m->name, json_string_value(tag), json_string_length(tag) + 1);
    return 0;
}

int docker_manifest_parse(const char *what, const void *text, size_t size, struct docker_manifest *ret,
                          struct error **err)
{
    auto_json json_t *j = NULL;
    auto_free struct docker_manifest *m = calloc(1, sizeof(*m));
    int r = m ? document_parse(what, text, size, &j, err) : error_set(err, ENOMEM, "NO_MEMORY", "%s: no memory", what);

    if (r < 0)
        return r;
    if (!json_is_array(j) || json_array_size(j) == 0)
        return malformed(err, what, "is not a list of images");
    if (json_array_size(j) > 1) {
        error_set(err, EINVAL, "IMAGE_MALFORMED", "%s: the archive holds %zu images", what, json_array_size(j));
        error_hint(err, "save one image at a time: docker save NAME > FILE");
        return -EINVAL;
    }
    r = fill_docker_manifest(what, json_array_get(j, 0), m, err);
    if (r < 0) {
        docker_manifest_clear(m);
        return r;
    }
    *ret = *m;
    return 0;
}

int stop_signal_parse(const char *text, int *ret)
{
    const char *name = strncmp(text, "SIG", 3) == 0 ? text + 3 : text;
    char *end;
    long n;

    if (*text >= '0' && *text <= '9') {
        n = strtol(text, &end, 10);
        if (*end || n < 1 || n > 64)
            return -EINVAL;
        *ret = (int)n;
        return 0;
    }
    if (strncmp(name, "RTMIN+", 6) == 0 && name[6] >= '0' && name[6] <= '9') {
        n = strtol(name + 6, &end, 10);
        if (*end || n < 0 || n > 30)
            return -EINVAL;
        *ret = 34 + (int)n; /* what every libc in use calls SIGRTMIN */
        return 0;
    }
    for (int s = 1; s < 32; s++)
        if (sigabbrev_np(s) && strcmp(sigabbrev_np(s), name) == 0) {
            *ret = s;
            return 0;
        }
    return -EINVAL;
}

void image_run_clear(struct image_run *run)
{
    json_decref(run->entrypoint);
    json_decref(run->command);
    json_decref(run->env);
    json_decref(run->labels);
    json_decref(run->exposed_ports);
    free(run->user);
    free(run->workdir);
    image_guest_clear(&run->guest);
    *run = (struct image_run){0};
}

/* A list of strings within the bounds the descriptor of an instance has too (model/spec.h). */
static int get_strings(const char *what, const json_t *config, const char *key, json_t **ret, struct error **err)
{
    json_t *list = json_object_get(config, key), *entry;
    size_t i, bytes = 0;

    if (!list || json_is_null(list))
        return 0;
    if (!json_is_array(list) || json_array_size(list) > 256)
        return malformed(err, what, "Entrypoint, Cmd or Env is no list, or has more than 256 entries");
    json_array_foreach(list, i, entry)
    {
        if (!json_is_string(entry))
            return malformed(err, what, "Entrypoint, Cmd or Env holds something that is no string");
        bytes += json_string_length(entry) + 1;
    }
    if (bytes > 32768)
        return malformed(err, what, "Entrypoint, Cmd or Env is larger than 32,768 bytes");
    if (i > 0)
        *ret = json_incref(list);
    return 0;
}

static int get_pairs(const char *what, const json_t *config, struct image_run *run, struct error **err)
{
    json_t *labels = json_object_get(config, "Labels"), *ports = json_object_get(config, "ExposedPorts"), *value;
    const char *key;

    if (json_object_size(labels) > 1024 || json_object_size(ports) > 1024)
        return malformed(err, what, "has more than 1,024 labels or exposed ports");
    json_object_foreach(labels, key, value)
    {
        if (!json_is_string(value))
            return malformed(err, what, "has a label that is no string");
    }
    if (json_object_size(labels) > 0)
        run->labels = json_incref(labels);
    if (json_object_size(ports) > 0)
        run->exposed_ports = json_array();
    json_object_foreach(ports, key, value)
    {
        if (strlen(key) > 16 || strspn(key, "0123456789/-abcdefghijklmnopqrstuvwxyz") != strlen(key))
            return malformed(err, what, "has an exposed port that is no PORT/PROTOCOL");
        json_array_append_new(run->exposed_ports, json_string(key));
    }
    return 0;
}

static int get_word(const char *what, const json_t *config, const char *key, size_t max, char **ret, struct error **err)
{
    auto_free char *text = calloc(1, max);

    if (!text)
        return error_set(err, ENOMEM, "NO_MEMORY", "%s: no memory", what);
    if (get_text(config, key, text, max) < 0)
        return malformed(err, what, "User, WorkingDir or StopSignal is no string, or too long");
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20)
            return malformed(err, what, "User, WorkingDir or StopSignal holds control characters");
    if (*text)
        *ret = take_ptr(text);
    return 0;
}

static int parse_run(const char *what, const json_t *config, struct image_run *run, struct error **err)
{
    auto_free char *signal = NULL;
    int r = get_strings(what, config, "Entrypoint", &run->entrypoint, err);

    if (r == 0)
        r = get_strings(what, config, "Cmd", &run->command, err);
    if (r == 0)
        r = get_strings(what, config, "Env", &run->env, err);
    if (r == 0)
        r = get_pairs(what, config, run, err);
    if (r == 0)
        r = image_guest_parse(what, run->labels, &run->guest, err);
    if (r == 0)
        r = get_word(what, config, "User", 256, &run->user, err);
    if (r == 0)
        r = get_word(what, config, "WorkingDir", IMAGE_PATH_SIZE, &run->workdir, err);
    if (r == 0)
        r = get_word(what, config, "StopSignal", 32, &signal, err);
    if (r < 0)
        return r;
    if (signal && stop_signal_parse(signal, &run->stop_signal) < 0)
        return malformed(err, what, "StopSignal is no signal");
    if (run->workdir && run->workdir[0] != '/')
        return malformed(err, what, "WorkingDir is not absolute");
    return 0;
}

static int parse_diff_ids(const char *what, const json_t *rootfs, struct configuration *c, struct error **err)
{
    const json_t *list = json_object_get(rootfs, "diff_ids"), *entry;
    size_t i;

    if (!json_is_array(list) || json_array_size(list) == 0 || json_array_size(list) > IMAGE_LAYER_MAX * 2)
        return malformed(err, what, "rootfs.diff_ids is missing, empty or longer than 128");
    json_array_foreach(list, i, entry)
    {
        if (!json_is_string(entry) || digest_parse(json_string_value(entry), c->diff_ids[i]) < 0)
            return malformed(err, what, "a diff id is no sha256 digest");
    }
    c->diff_id_count = i;
    return 0;
}

int configuration_parse(const char *what, const void *text, size_t size, struct configuration *ret, struct error **err)
{
    auto_json json_t *j = NULL;
    struct configuration c = {0};
    int r = document_parse(what, text, size, &j, err);

    if (r < 0)
        return r;
    if (!json_is_object(j))
        return malformed(err, what, "is not an object");
    if (get_text(j, "os", c.os, sizeof(c.os)) < 0 ||
        get_text(j, "architecture", c.architecture, sizeof(c.architecture)) < 0)
        return malformed(err, what, "has no valid os or architecture");
    r = parse_diff_ids(what, json_object_get(j, "rootfs"), &c, err);
    if (r == 0)
        r = parse_run(what, json_object_get(j, "config"), &c.run, err);
    if (r < 0) {
        image_run_clear(&c.run);
        return r;
    }
    *ret = c;
    return 0;
}
