/* SPDX-License-Identifier: Apache-2.0 */
/* docker-like flags to the platform's descriptor. Values are handed on as written wherever the daemon can judge them.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/args.h"
#include "cli/descriptor.h"
#include "cli/text.h"
#include "cli/yaml.h"

#define RESOURCE_OPTIONS                                                                                               \
    {"cpus", 0, "N", "processor time, in cores: 0.5 is half of one"},                                                  \
        {"cpuset", 0, "LIST", "cores it may run on: 0-1,3", .alias = "cpuset-cpus"},                                   \
        {"memory", 'm', "SIZE", "memory: 64MiB (64m and 64Mi mean the same)"},                                         \
        {"pids", 0, "N", "processes and threads", .alias = "pids-limit"},                                              \
        {"io-read-bps", 0, "SIZE", "bytes a second read from the image store's device"},                               \
        {"io-write-bps", 0, "SIZE", "bytes a second written to it"}, {"io-read-iops", 0, "N", "reads a second"},       \
        {"io-write-iops", 0, "N", "writes a second"},                                                                  \
    {                                                                                                                  \
        "label", 'l', "KEY=VALUE", "label, may repeat"                                                                 \
    }

const struct option_spec descriptor_options[] = {
    {"file", 'f', "FILE", "start from this descriptor (YAML or JSON, - is standard input); flags go over it",
     WORD_FILE},
    {"name", 0, "NAME", "name of the instance"},
    {"technology", 0, "TECHNOLOGY", "what to run it as (coracle doctor lists them)", WORD_TECHNOLOGY, .alias = "on"},
    {"env", 'e', "KEY=VALUE", "environment variable, may repeat; KEY alone takes it from this shell"},
    {"env-file", 0, "FILE", "environment variables, one KEY=VALUE a line", WORD_FILE},
    RESOURCE_OPTIONS,
    {"cpus-max", 0, "N", "processors a running machine can be given with coracle update"},
    {"memory-max", 0, "SIZE", "memory a running machine can be given with it"},
    {"storage", 0, "SIZE", "writable layer, kept in memory: 16MiB"},
    {"read-only", 0, NULL, "no writable layer at all"},
    {"publish", 'p', "HOST:PORT[/udp]", "publish a port, may repeat"},
    {"network", 0, "NAME[:ip=A]", "network to join, may repeat; none: loopback only", WORD_NETWORK, .alias = "net"},
    {"hostname", 0, "NAME", "host name inside (default: the instance's name)"},
    {"cap-add", 0, "NAME", "capability inside the instance's own user namespace: NET_ADMIN"},
    {"restart", 0, "POLICY", "restart policy: no, on-failure[:N], always"},
    {"stop-signal", 0, "SIGNAL", "signal that asks it to end (default SIGTERM)"},
    {"stop-timeout", 0, "SECONDS", "grace before it is killed (default 10s)"},
    {"user", 'u', "USER[:GROUP]", "user of the process inside"},
    {"workdir", 'w', "DIR", "working directory inside"},
    {"entrypoint", 0, "PROGRAM", "program to run in place of the image's entry point"},
    {"interactive", 'i', NULL, "keep standard input open"},
    {"tty", 't', NULL, "give it a terminal"},
    {"start-mode", 0, "MODE", "where the shell comes from", WORD_LIST, "auto|cold|pool|snapshot"},
    {NULL},
};

const struct option_spec update_options[] = {RESOURCE_OPTIONS, {NULL}};

char *descriptor_size(const char *word)
{
    static const struct {
        const char *theirs, *ours;
    } units[] = {{"b", "B"},   {"k", "KiB"},  {"K", "KiB"},  {"m", "MiB"},  {"M", "MiB"}, {"g", "GiB"},
                 {"G", "GiB"}, {"Ki", "KiB"}, {"Mi", "MiB"}, {"Gi", "GiB"}, {"mb", "MB"}, {"gb", "GB"}};
    size_t n = strspn(word, "0123456789.");

    for (size_t i = 0; n > 0 && i < sizeof(units) / sizeof(units[0]); i++)
        if (!strcmp(word + n, units[i].theirs))
            return text_printf("%.*s%s", (int)n, word, units[i].ours);
    return text_dup(word);
}

/* A number stays one, as the interface wants it; a size with its unit is a string. */
static json_t *number_or_text(const char *word)
{
    char *end;

    if (*word && strspn(word, "-0123456789") == strlen(word))
        return json_integer(strtoll(word, NULL, 10));
    if (isdigit((unsigned char)*word) || *word == '.' || *word == '-') {
        double value = strtod(word, &end);

        if (!*end)
            return json_real(value);
    }
    return json_string(word);
}

static json_t *child(json_t *object, const char *key, json_t *(*make)(void))
{
    json_t *value = json_object_get(object, key);

    if (!value) {
        value = make();
        json_object_set_new(object, key, value);
    }
    return value;
}

static void put_text(json_t *object, const char *key, const char *value)
{
    if (value)
        json_object_set_new(object, key, json_string(value));
}

static void put_resource(const struct args *args, json_t *spec, const char *option, const char *group, const char *key,
                         bool is_size)
{
    const char *value = args_get(args, option);
    auto_free char *size = value && is_size ? descriptor_size(value) : NULL;
    json_t *target;

    if (!value)
        return;
    target = child(spec, "resources", json_object);
    if (group)
        target = child(target, group, json_object);
    json_object_set_new(target, key, !strcmp(key, "cpuset") ? json_string(value) : number_or_text(size ? size : value));
}

static int put_resources(const struct args *args, json_t *spec, struct error **err)
{
    const char *label;

    put_resource(args, spec, "cpus", NULL, "cpus", false);
    put_resource(args, spec, "cpuset", NULL, "cpuset", false);
    put_resource(args, spec, "memory", NULL, "memory", true);
    put_resource(args, spec, "pids", NULL, "pids", false);
    put_resource(args, spec, "io-read-bps", "io", "read_bps", true);
    put_resource(args, spec, "io-write-bps", "io", "write_bps", true);
    put_resource(args, spec, "io-read-iops", "io", "read_iops", false);
    put_resource(args, spec, "io-write-iops", "io", "write_iops", false);
    for (size_t i = 0; (label = args_next(args, "label", &i));) {
        auto_free char *key = NULL;
        const char *value;

        if (text_split_pair(label, "--label", &key, &value, err) < 0)
            return -EINVAL;
        put_text(child(spec, "labels", json_object), key, value);
    }
    return 0;
}

/* "KEY=VALUE", or "KEY" from the shell's environment (unset there: left out, as docker does). */
static int put_env(json_t *spec, const char *entry, const char *what, struct error **err)
{
    auto_free char *key = NULL;
    const char *value;

    if (!strchr(entry, '=')) {
        put_text(child(spec, "env", json_object), entry, getenv(entry));
        return 0;
    }
    if (text_split_pair(entry, what, &key, &value, err) < 0)
        return -EINVAL;
    put_text(child(spec, "env", json_object), key, value);
    return 0;
}

static int read_env_file(json_t *spec, const char *path, struct error **err)
{
    auto_file FILE *in = fopen(path, "re");
    auto_free char *line = NULL;
    size_t size = 0;
    ssize_t n;

    if (!in)
        return error_set_errno(err, errno, "INVALID_VALUE", "--env-file: %s cannot be read", path);
    while ((n = getline(&line, &size, in)) >= 0) {
        if (n > 0 && line[n - 1] == '\n')
            line[n - 1] = 0;
        if (*line && *line != '#' && put_env(spec, line, path, err) < 0)
            return -EINVAL;
    }
    return 0;
}

static int put_environment(const struct args *args, json_t *spec, struct error **err)
{
    const char *value;

    for (size_t i = 0; (value = args_next(args, "env-file", &i));)
        if (read_env_file(spec, value, err) < 0)
            return -EINVAL;
    for (size_t i = 0; (value = args_next(args, "env", &i));)
        if (put_env(spec, value, "--env", err) < 0)
            return -EINVAL;
    return 0;
}

/* "default:ip=198.18.0.10,ip=fd00::10": the address with a colon is the IPv6 one. */
static int network_entry(const char *word, json_t **ret, struct error **err)
{
    size_t n = strcspn(word, ":");
    auto_free char *name = text_printf("%.*s", (int)n, word), *rest = text_dup(word[n] ? word + n + 1 : "");
    json_t *entry = json_pack("{s:s}", "name", name);
    char *save = NULL;

    for (char *p = strtok_r(rest, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
        const char *address = strchr(p, '=');

        if (strncmp(p, "ip=", 3) != 0 && strncmp(p, "ip6=", 4) != 0) {
            json_decref(entry);
            error_set(err, EINVAL, "INVALID_VALUE", "--network: \"%s\" is not ip=ADDRESS", p);
            error_hint(err, "write --network %s:ip=198.18.0.10", name);
            return -EINVAL;
        }
        put_text(entry, strchr(address, ':') ? "ipv6" : "ipv4", address + 1);
    }
    *ret = entry;
    return 0;
}

static int put_networks(const struct args *args, json_t *spec, struct error **err)
{
    json_t *list = NULL, *entry;
    const char *word;

    for (size_t i = 0; (word = args_next(args, "network", &i));) {
        if (!list) {
            list = json_array();
            json_object_set_new(spec, "networks", list);
        }
        if (!strcmp(word, "none"))
            continue;
        if (network_entry(word, &entry, err) < 0)
            return -EINVAL;
        json_array_append_new(list, entry);
    }
    return 0;
}

static void put_ports(const struct args *args, json_t *spec)
{
    const char *word;

    for (size_t i = 0; (word = args_next(args, "publish", &i));) {
        auto_free char *port = text_printf("%s%s", word, strchr(word, '/') ? "" : "/tcp");

        json_array_append_new(child(spec, "ports", json_array), json_string(port));
    }
}

/* "on-failure:3" is docker's way to bound restarts. */
static int put_restart(const struct args *args, json_t *spec, struct error **err)
{
    const char *policy = args_get(args, "restart");
    const char *colon = policy ? strchr(policy, ':') : NULL;
    uint64_t max;

    if (!colon) {
        put_text(spec, "restart", policy);
        return 0;
    }
    if (text_parse_u64(colon + 1, "--restart", &max, err) < 0)
        return -EINVAL;
    json_object_set_new(spec, "restart",
                        json_pack("{s:s%, s:I}", "policy", policy, (size_t)(colon - policy), "max", (json_int_t)max));
    return 0;
}

static int put_stop(const struct args *args, json_t *spec, struct error **err)
{
    const char *timeout = args_get(args, "stop-timeout");
    uint64_t ms;

    if (args_get(args, "stop-signal"))
        put_text(child(spec, "stop", json_object), "signal", args_get(args, "stop-signal"));
    if (timeout) {
        auto_free char *grace = NULL;

        if (text_parse_duration_ms(timeout, "--stop-timeout", &ms, err) < 0)
            return -EINVAL;
        grace = text_printf("%llums", (unsigned long long)ms);
        put_text(child(spec, "stop", json_object), "grace", grace);
    }
    return 0;
}

static void put_words(const struct args *args, json_t *spec)
{
    size_t from = 1;
    json_t *list = json_array();

    if (args->word_count > 0)
        put_text(spec, "image", args->words[0]);
    for (; from < args->word_count; from++)
        json_array_append_new(list, json_string(args->words[from]));
    if (args_get(args, "entrypoint")) {
        json_object_set_new(spec, "command", json_pack("[s]", args_get(args, "entrypoint")));
        json_object_set(spec, "args", list);
    } else if (json_array_size(list) > 0) {
        json_object_set(spec, "args", list);
    }
    json_decref(list);
}

static void put_simple(const struct args *args, json_t *spec)
{
    static const char *const texts[][2] = {
        {"name", "name"}, {"technology", "technology"}, {"hostname", "hostname"},
        {"user", "user"}, {"workdir", "workdir"},       {"start-mode", "start_mode"},
    };
    static const char *const flags[][2] = {{"read-only", "read_only"}, {"interactive", "stdin"}, {"tty", "tty"}};
    const char *capability;

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        put_text(spec, texts[i][1], args_get(args, texts[i][0]));
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
        if (args_flag(args, flags[i][0]))
            json_object_set_new(spec, flags[i][1], json_true());
    for (size_t i = 0; (capability = args_next(args, "cap-add", &i));)
        json_array_append_new(child(spec, "capabilities", json_array), json_string(capability));
}

static int read_base(const struct args *args, json_t **ret, struct error **err)
{
    const char *path = args_get(args, "file");
    json_t *documents, *first;

    if (!path) {
        *ret = json_object();
        return 0;
    }
    if (yaml_read_path(path, &documents, err) < 0)
        return -EINVAL;
    first = json_array_get(documents, 0);
    if (json_array_size(documents) != 1 || !json_is_object(first)) {
        error_set(err, EINVAL, "MALFORMED_BODY", "%s holds %zu documents; one descriptor is wanted", path,
                  json_array_size(documents));
        error_hint(err, "coracle apply -f %s takes several", path);
        json_decref(documents);
        return -EINVAL;
    }
    *ret = json_incref(first);
    json_decref(documents);
    return 0;
}

int descriptor_from_args(const struct args *args, json_t **ret, struct error **err)
{
    json_t *spec;
    int r = read_base(args, &spec, err);

    if (r < 0)
        return r;
    put_simple(args, spec);
    put_ports(args, spec);
    put_words(args, spec);
    put_resource(args, spec, "storage", NULL, "storage", true);
    put_resource(args, spec, "cpus-max", NULL, "cpus_max", false);
    put_resource(args, spec, "memory-max", NULL, "memory_max", true);
    if (put_resources(args, spec, err) < 0 || put_environment(args, spec, err) < 0 ||
        put_networks(args, spec, err) < 0 || put_restart(args, spec, err) < 0 || put_stop(args, spec, err) < 0)
        r = -EINVAL;
    else if (!json_object_get(spec, "image") && !json_object_get(spec, "technology")) {
        r = error_set(err, EINVAL, "MISSING_FIELD", "which image? coracle %s [OPTIONS] IMAGE [WORD...]",
                      args->command->name);
        error_hint(err, "coracle images lists those that are here; -f FILE takes a descriptor that names one");
    }
    if (r < 0) {
        json_decref(spec);
        return r;
    }
    *ret = spec;
    return 0;
}

int descriptor_update(const struct args *args, json_t **ret, struct error **err)
{
    json_t *change = json_object();

    if (put_resources(args, change, err) < 0) {
        json_decref(change);
        return -EINVAL;
    }
    if (json_object_size(change) == 0) {
        json_decref(change);
        error_set(err, EINVAL, "MISSING_FIELD", "update: nothing to change was given");
        error_hint(err, "for example: coracle update NAME --cpus 0.5 --memory 128MiB");
        return -EINVAL;
    }
    *ret = change;
    return 0;
}
