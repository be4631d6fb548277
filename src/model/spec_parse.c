/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptor to struct vnf_spec, one reader per field in one table.
 *
 * The only way in for what users ask: whatever passes here is within the bounds of spec.h. Runs in the daemon.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/capability.h"
#include "model/json_read.h"
#include "model/plan.h"
#include "model/spec_parse.h"
#include "model/units.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

enum { USER_TEXT_MAX = 255, PATH_TEXT_MAX = 4095, LABEL_KEY_MAX = 63, LABEL_VALUE_MAX = 255 };

static const char *const restart_words[] = {
    [RESTART_NO] = "no", [RESTART_ON_FAILURE] = "on-failure", [RESTART_ALWAYS] = "always"};
static const char *const start_mode_words[] = {
    [START_AUTO] = "auto", [START_COLD] = "cold", [START_POOL] = "pool", [START_SNAPSHOT] = "snapshot"};
static const char *const fault_words[] = {"plan", "start", "stop", "run", "hang-start", "hang-stop"};

const char *restart_policy_name(enum restart_policy policy)
{
    return restart_words[policy];
}

const char *start_mode_name(enum start_mode mode)
{
    return start_mode_words[mode];
}

static int no_memory(const char *path, struct error **err)
{
    return error_set(err, ENOMEM, "NO_MEMORY", "%s: out of memory", path);
}

/* ---- small values */

static int read_name(const json_t *v, const char *path, char *ret, struct error **err)
{
    const char *text;
    int r = json_read_string(v, path, &text, err);

    if (r < 0)
        return r;
    if (!units_is_name(text)) {
        error_set(err, EINVAL, "INVALID_VALUE", "%s: \"%.80s\" is not a name", path, text);
        error_hint(err, "1 to 63 of a-z 0-9 -, not beginning or ending with -");
        return -EINVAL;
    }
    memcpy(ret, text, strlen(text) + 1);
    return 0;
}

/* Printable text without white space, 1 to max bytes: references, technologies, accounts. */
static int read_word(const json_t *v, const char *path, size_t max, const char **ret, struct error **err)
{
    int r = json_read_string(v, path, ret, err);

    if (r < 0)
        return r;
    size_t n = strlen(*ret);
    if (n < 1 || n > max)
        return error_set(err, EINVAL, "INVALID_VALUE", "%s: %zu bytes, 1 to %zu are allowed", path, n, max);
    for (const unsigned char *p = (const unsigned char *)*ret; *p; p++)
        if (*p <= ' ' || *p >= 0x7f)
            return error_set(err, EINVAL, "INVALID_VALUE", "%s: white space and special characters are not allowed",
                             path);
    return 0;
}

static int read_size(const json_t *v, const char *path, uint64_t min, uint64_t *ret, struct error **err)
{
    uint64_t bytes;

    if (json_is_integer(v)) {
        if (json_integer_value(v) < 0)
            return error_set(err, EINVAL, "INVALID_VALUE", "%s: %lld is negative", path,
                             (long long)json_integer_value(v));
        bytes = (uint64_t)json_integer_value(v);
    } else if (json_is_string(v)) {
        int r = units_size(json_string_value(v), path, &bytes, err);
        if (r < 0)
            return r;
    } else {
        return error_set(err, EINVAL, "INVALID_VALUE", "%s: expected a size as 64MiB, found %s", path,
                         json_type_words(v));
    }
    if (bytes < min || bytes > (1ull << 50))
        return error_set(err, ERANGE, "INVALID_VALUE", "%s: %llu bytes, allowed are %llu to 2^50", path,
                         (unsigned long long)bytes, (unsigned long long)min);
    *ret = bytes;
    return 0;
}

static int read_duration(const json_t *v, const char *path, uint32_t *ret, struct error **err)
{
    if (json_is_string(v))
        return units_duration(json_string_value(v), path, ret, err);
    error_set(err, EINVAL, "INVALID_VALUE", "%s: expected a duration, found %s", path, json_type_words(v));
    error_hint(err, "write it with its unit: \"100ms\", \"10s\", \"2m\"");
    return -EINVAL;
}

static int read_signal(const json_t *v, const char *path, int *ret, struct error **err)
{
    uint64_t number;

    if (json_is_string(v))
        return units_signal(json_string_value(v), path, ret, err);
    int r = json_read_u64(v, path, 1, 64, &number, err);
    if (r == 0)
        *ret = (int)number;
    return r;
}

/* ---- resources */

#define LIMIT_SIZE(field, member, min)                                                                                 \
    static int limit_##field(void *limits, const json_t *v, const char *path, struct error **err)                      \
    {                                                                                                                  \
        return read_size(v, path, min, &((struct limits *)limits)->member, err);                                       \
    }
LIMIT_SIZE(memory, memory_bytes, 1u << 20)
LIMIT_SIZE(memory_max, memory_max_bytes, 1u << 20)
LIMIT_SIZE(storage, storage_bytes, 1u << 16)
LIMIT_SIZE(read_bps, io_read_bps, 1)
LIMIT_SIZE(write_bps, io_write_bps, 1)

#define LIMIT_NUMBER(field, member, max)                                                                               \
    static int limit_##field(void *limits, const json_t *v, const char *path, struct error **err)                      \
    {                                                                                                                  \
        return json_read_u64(v, path, 1, max, &((struct limits *)limits)->member, err);                                \
    }
LIMIT_NUMBER(read_iops, io_read_iops, 1u << 30)
LIMIT_NUMBER(write_iops, io_write_iops, 1u << 30)
LIMIT_NUMBER(pids, pids, 1u << 22)
LIMIT_NUMBER(cpus_max, cpus_max, MACHINE_VCPU_MAX)

static int limit_cpus(void *limits, const json_t *v, const char *path, struct error **err)
{
    double cpus = json_number_value(v);

    if (!json_is_number(v)) {
        int r = error_set(err, EINVAL, "INVALID_VALUE", "%s: expected a number of cores, found %s", path,
                          json_type_words(v));
        error_hint(err, "write a number: 0.5 is half a core");
        return r;
    }
    if (!(cpus >= 0.01 && cpus <= 4096)) {
        int r = error_set(err, ERANGE, "INVALID_VALUE", "%s: %g is outside 0.01 to 4096", path, cpus);
        error_hint(err, "1 is one core, 0.5 half of one");
        return r;
    }
    ((struct limits *)limits)->cpu_milli = (uint64_t)(cpus * 1000 + 0.5);
    return 0;
}

static int limit_cpuset(void *limits, const json_t *v, const char *path, struct error **err)
{
    const char *text;
    int r = json_read_string(v, path, &text, err);

    if (r < 0)
        return r;
    if (strlen(text) >= CPUSET_TEXT_SIZE || !units_is_cpuset(text)) {
        error_set(err, EINVAL, "INVALID_VALUE", "%s: \"%.64s\" is not a list of CPUs", path, text);
        error_hint(err, "write as the kernel does: \"0-1,3\"");
        return -EINVAL;
    }
    memcpy(((struct limits *)limits)->cpuset, text, strlen(text) + 1);
    return 0;
}

static const struct json_field io_fields[] = {{"read_bps", limit_read_bps},
                                              {"write_bps", limit_write_bps},
                                              {"read_iops", limit_read_iops},
                                              {"write_iops", limit_write_iops}};

static int limit_io(void *limits, const json_t *v, const char *path, struct error **err)
{
    return json_read_object(v, path, io_fields, COUNT(io_fields), limits, err);
}

static const struct json_field resource_fields[] = {{"cpus", limit_cpus},         {"cpuset", limit_cpuset},
                                                    {"memory", limit_memory},     {"pids", limit_pids},
                                                    {"storage", limit_storage},   {"io", limit_io},
                                                    {"cpus_max", limit_cpus_max}, {"memory_max", limit_memory_max}};

static bool is_null(const json_t *object, const char *name)
{
    return json_is_null(json_object_get(object, name));
}

/* A member that is null takes the limit back. */
static void apply_nulls(const json_t *resources, struct limits *l)
{
    const json_t *io = json_object_get(resources, "io");
    bool all_io = is_null(resources, "io");

    if (is_null(resources, "cpus"))
        l->cpu_milli = 0;
    if (is_null(resources, "cpuset"))
        l->cpuset[0] = '\0';
    if (is_null(resources, "memory"))
        l->memory_bytes = 0;
    if (is_null(resources, "pids"))
        l->pids = 0;
    if (is_null(resources, "cpus_max"))
        l->cpus_max = 0;
    if (is_null(resources, "memory_max"))
        l->memory_max_bytes = 0;
    if (all_io || is_null(io, "read_bps"))
        l->io_read_bps = 0;
    if (all_io || is_null(io, "write_bps"))
        l->io_write_bps = 0;
    if (all_io || is_null(io, "read_iops"))
        l->io_read_iops = 0;
    if (all_io || is_null(io, "write_iops"))
        l->io_write_iops = 0;
}

int limits_parse(const json_t *resources, const char *path, struct limits *limits, struct error **err)
{
    struct limits merged = *limits;
    int r = json_read_object(resources, path, resource_fields, COUNT(resource_fields), &merged, err);

    if (r < 0)
        return r;
    apply_nulls(resources, &merged);
    *limits = merged;
    return 0;
}

/* ---- pairs */

void pairs_free(struct spec_pair *pairs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(pairs[i].key);
        free(pairs[i].value);
    }
    free(pairs);
}

typedef int pair_check(const char *key, const char *value, const char *path, struct error **err);

static int read_pairs(const json_t *v, const char *path, size_t max, pair_check *check, struct spec_pair **ret,
                      size_t *ret_count, struct error **err)
{
    size_t n = json_object_size(v), i = 0;
    struct spec_pair *pairs;
    const char *key;
    json_t *value;

    if (!json_is_object(v)) {
        error_set(err, EINVAL, "INVALID_VALUE", "%s: expected an object, found %s", path, json_type_words(v));
        error_hint(err, "write {\"KEY\": \"value\"}");
        return -EINVAL;
    }
    if (n > max)
        return error_set(err, E2BIG, "INVALID_VALUE", "%s: %zu entries, at most %zu are allowed", path, n, max);
    pairs = calloc(n + 1, sizeof(*pairs));
    if (!pairs)
        return no_memory(path, err);
    json_object_foreach((json_t *)v, key, value)
    {
        char where[JSON_PATH_SIZE];
        const char *text;
        int r = json_read_string(value, json_path_member(where, path, key), &text, err);
        if (r == 0)
            r = check(key, text, where, err);
        if (r == 0) {
            pairs[i].key = strdup(key);
            pairs[i].value = strdup(text);
            if (!pairs[i].key || !pairs[i].value)
                r = no_memory(path, err);
        }
        i++;
        if (r < 0) {
            pairs_free(pairs, n);
            return r;
        }
    }
    *ret = pairs;
    *ret_count = n;
    return 0;
}

static int check_env(const char *key, const char *value, const char *path, struct error **err)
{
    if (!*key || strchr(key, '='))
        return error_set(err, EINVAL, "INVALID_VALUE", "%s: a variable's name must not be empty or hold \"=\"", path);
    return 0;
}

static int check_label(const char *key, const char *value, const char *path, struct error **err)
{
    size_t n = strlen(key);

    if (n < 1 || n > LABEL_KEY_MAX ||
        strspn(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/-") != n)
        return error_set(err, EINVAL, "INVALID_VALUE", "%s: a label's key is 1 to %d of letters, digits, . _ / -", path,
                         LABEL_KEY_MAX);
    if (strlen(value) > LABEL_VALUE_MAX)
        return error_set(err, EINVAL, "INVALID_VALUE", "%s: a label's value has at most %d bytes", path,
                         LABEL_VALUE_MAX);
    for (const unsigned char *p = (const unsigned char *)value; *p; p++)
        if (*p < ' ' || *p == 0x7f)
            return error_set(err, EINVAL, "INVALID_VALUE", "%s: a label's value holds no control characters", path);
    return 0;
}

int labels_parse(const json_t *labels, const char *path, struct spec_pair **ret, size_t *ret_count, struct error **err)
{
    return read_pairs(labels, path, LABEL_MAX, check_label, ret, ret_count, err);
}

/* ---- networks and ports */

static int network_name(void *net, const json_t *v, const char *path, struct error **err)
{
    return read_name(v, path, ((struct spec_network *)net)->name, err);
}

static int read_address(const json_t *v, const char *path, int family, void *ret, struct error **err)
{
    const char *text;
    int r = json_read_string(v, path, &text, err);

    if (r == 0 && inet_pton(family, text, ret) != 1)
        r = error_set(err, EINVAL, "INVALID_VALUE", "%s: \"%.64s\" is not an IPv%d address", path, text,
                      family == AF_INET ? 4 : 6);
    return r;
}

static int network_ipv4(void *net, const json_t *v, const char *path, struct error **err)
{
    return read_address(v, path, AF_INET, &((struct spec_network *)net)->ipv4, err);
}

static int network_ipv6(void *net, const json_t *v, const char *path, struct error **err)
{
    return read_address(v, path, AF_INET6, &((struct spec_network *)net)->ipv6, err);
}

static const struct json_field network_fields[] = {
    {"name", network_name}, {"ipv4", network_ipv4}, {"ipv6", network_ipv6}};

static int read_networks(void *target, const json_t *v, const char *path, struct error **err)
{
    struct vnf_spec *spec = target;
    size_t n = json_array_size(v);

    if (!json_is_array(v) || n > NETWORK_PER_INSTANCE_MAX)
        return error_set(err, EINVAL, "INVALID_VALUE", "%s: expected a list of at most %d networks", path,
                         NETWORK_PER_INSTANCE_MAX);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(v, i);
        struct spec_network *net = &spec->networks[i];
        char where[JSON_PATH_SIZE];
        int r;

        json_path_item(where, path, i);
        r = json_is_string(item) ? read_name(item, where, net->name, err)
                                 : json_read_object(item, where, network_fields, COUNT(network_fields), net, err);
        if (r < 0)
            return r;
        if (!*net->name)
            return error_set(err, EINVAL, "MISSING_FIELD", "%s.name: a network needs its name", where);
        for (size_t k = 0; k < i; k++)
            if (strcmp(spec->networks[k].name, net->name) == 0)
                return error_set(err, EINVAL, "INVALID_VALUE", "%s: network \"%s\" is there twice", where, net->name);
    }
    spec->network_count = n;
    spec->no_network = n == 0;
    return 0;
}

/* A decimal port number 1-65535 up to `end`. Returns false when it is none. */
static bool parse_port(const char **text, char end, uint16_t *ret)
{
    unsigned value = 0;
    const char *p = *text;

    for (; *p >= '0' && *p <= '9' && value < 65536; p++)
        value = value * 10 + (unsigned)(*p - '0');
    if (p == *text || value < 1 || value > 65535 || (*p != end && !(end == '/' && *p == '\0')))
        return false;
    *ret = (uint16_t)value;
    *text = *p ? p + 1 : p;
    return true;
}

static int read_port(const json_t *v, const char *path, struct spec_port *ret, struct error **err)
{
    const char *text, *p;
    int r = json_read_string(v, path, &text, err);

    if (r < 0)
        return r;
    p = text;
    bool good = parse_port(&p, ':', &ret->host_port) && parse_port(&p, '/', &ret->port);
    if (good && strcmp(p, "udp") == 0)
        ret->protocol = IPPROTO_UDP;
    else if (good && (strcmp(p, "tcp") == 0 || (!*p && !strchr(text, '/'))))
        ret->protocol = IPPROTO_TCP;
    else
        good = false;
    if (!good) {
        error_set(err, EINVAL, "INVALID_VALUE", "%s: \"%.48s\" is not a published port", path, text);
        error_hint(err, "write HOST:INSTANCE/PROTOCOL, for example \"8080:80/tcp\"");
        return -EINVAL;
    }
    return 0;
}

static int read_ports(void *target, const json_t *v, const char *path, struct error **err)
{
    struct vnf_spec *spec = target;
    size_t n = json_array_size(v);

    if (!json_is_array(v) || n > PORT_PER_INSTANCE_MAX)
        return error_set(err, EINVAL, "INVALID_VALUE", "%s: expected a list of at most %d ports", path,
                         PORT_PER_INSTANCE_MAX);
    for (size_t i = 0; i < n; i++) {
        struct spec_port *port = &spec->ports[i];
        char where[JSON_PATH_SIZE];
        int r = read_port(json_array_get(v, i), json_path_item(where, path, i), port, err);

        if (r < 0)
            return r;
        for (size_t k = 0; k < i; k++)
            if (spec->ports[k].host_port == port->host_port && spec->ports[k].protocol == port->protocol)
                return error_set(err, EINVAL, "INVALID_VALUE", "%s: host port %u is there twice", where,
                                 port->host_port);
    }
    spec->port_count = n;
    return 0;
}

/* ---- restart, stop, fault */

static int restart_policy(void *target, const json_t *v, const char *path, struct error **err)
{
    size_t word;
    int r = json_read_word(v, path, restart_words, COUNT(restart_words), &word, err);

    if (r == 0)
        ((struct vnf_spec *)target)->restart = (enum restart_policy)word;
    return r;
}

static int restart_max(void *target, const json_t *v, const char *path, struct error **err)
{
    uint64_t n;
    int r = json_read_u64(v, path, 0, 1000000, &n, err);

    if (r == 0)
        ((struct vnf_spec *)target)->restart_max = (uint32_t)n;
    return r;
}

static int restart_backoff(void *target, const json_t *v, const char *path, struct error **err)
{
    return read_duration(v, path, &((struct vnf_spec *)target)->restart_backoff_ms, err);
}

static int restart_backoff_max(void *target, const json_t *v, const char *path, struct error **err)
{
    return read_duration(v, path, &((struct vnf_spec *)target)->restart_backoff_max_ms, err);
}

static const struct json_field restart_fields[] = {{"policy", restart_policy},
                                                   {"max", restart_max},
                                                   {"backoff", restart_backoff},
                                                   {"backoff_max", restart_backoff_max}};

static int read_restart(void *target, const json_t *v, const char *path, struct error **err)
{
    if (json_is_string(v))
        return restart_policy(target, v, path, err);
    if (json_is_false(v)) { /* YAML 1.1 reads a bare no as false */
        ((struct vnf_spec *)target)->restart = RESTART_NO;
        return 0;
    }
    return json_read_object(v, path, restart_fields, COUNT(restart_fields), target, err);
}

static int stop_signal(void *target, const json_t *v, const char *path, struct error **err)
{
    return read_signal(v, path, &((struct vnf_spec *)target)->stop_signal, err);
}

static int stop_grace(void *target, const json_t *v, const char *path, struct error **err)
{
    return read_duration(v, path, &((struct vnf_spec *)target)->stop_grace_ms, err);
}

static const struct json_field stop_fields[] = {{"signal", stop_signal}, {"grace", stop_grace}};

static int read_stop(void *target, const json_t *v, const char *path, struct error **err)
{
    return json_read_object(v, path, stop_fields, COUNT(stop_fields), target, err);
}

static int fault_step(void *fault, const json_t *v, const char *path, struct error **err)
{
    size_t word;
    int r = json_read_word(v, path, fault_words, COUNT(fault_words), &word, err);

    if (r == 0)
        snprintf(((struct spec_fault *)fault)->step, NAME_SIZE, "%s", fault_words[word]);
    return r;
}

static int fault_number(const json_t *v, const char *path, uint32_t *ret, struct error **err)
{
    uint64_t n;
    int r = json_read_u64(v, path, 0, 3600000, &n, err);

    if (r == 0)
        *ret = (uint32_t)n;
    return r;
}

static int fault_after(void *fault, const json_t *v, const char *path, struct error **err)
{
    return fault_number(v, path, &((struct spec_fault *)fault)->after_ms, err);
}

static int fault_start(void *fault, const json_t *v, const char *path, struct error **err)
{
    return fault_number(v, path, &((struct spec_fault *)fault)->start_ms, err);
}

static int fault_exit(void *fault, const json_t *v, const char *path, struct error **err)
{
    uint64_t n;
    int r = json_read_u64(v, path, 0, 255, &n, err);

    if (r == 0)
        ((struct spec_fault *)fault)->exit_status = (int32_t)n;
    return r;
}

static const struct json_field fault_fields[] = {
    {"step", fault_step}, {"after_ms", fault_after}, {"start_ms", fault_start}, {"exit_status", fault_exit}};

static int read_fault(void *target, const json_t *v, const char *path, struct error **err)
{
    return json_read_object(v, path, fault_fields, COUNT(fault_fields), &((struct vnf_spec *)target)->fault, err);
}

/* ---- the top of the descriptor */

static int top_name(void *target, const json_t *v, const char *path, struct error **err)
{
    return read_name(v, path, ((struct vnf_spec *)target)->name, err);
}

static int top_hostname(void *target, const json_t *v, const char *path, struct error **err)
{
    return read_name(v, path, ((struct vnf_spec *)target)->hostname, err);
}

static int top_technology(void *target, const json_t *v, const char *path, struct error **err)
{
    const char *text;
    int r = read_word(v, path, TECHNOLOGY_SIZE - 1, &text, err);

    if (r == 0)
        memcpy(((struct vnf_spec *)target)->technology, text, strlen(text) + 1);
    return r;
}

static int top_image(void *target, const json_t *v, const char *path, struct error **err)
{
    const char *text;
    int r = read_word(v, path, IMAGE_REF_SIZE - 1, &text, err);

    if (r == 0)
        memcpy(((struct vnf_spec *)target)->image, text, strlen(text) + 1);
    return r;
}

static int top_command(void *target, const json_t *v, const char *path, struct error **err)
{
    struct vnf_spec *spec = target;

    if (json_is_array(v) && json_array_size(v) == 0)
        return error_set(err, EINVAL, "INVALID_VALUE", "%s: an empty command cannot be run", path);
    return json_read_strings(v, path, ARGUMENT_MAX, &spec->command, err);
}

static int top_args(void *target, const json_t *v, const char *path, struct error **err)
{
    return json_read_strings(v, path, ARGUMENT_MAX, &((struct vnf_spec *)target)->args, err);
}

static int top_env(void *target, const json_t *v, const char *path, struct error **err)
{
    struct vnf_spec *spec = target;
    return read_pairs(v, path, ARGUMENT_MAX, check_env, &spec->env, &spec->env_count, err);
}

static int top_labels(void *target, const json_t *v, const char *path, struct error **err)
{
    struct vnf_spec *spec = target;
    return labels_parse(v, path, &spec->labels, &spec->label_count, err);
}

static int top_user(void *target, const json_t *v, const char *path, struct error **err)
{
    struct vnf_spec *spec = target;
    const char *text;
    int r = read_word(v, path, USER_TEXT_MAX, &text, err);

    if (r == 0 && !(spec->user = strdup(text)))
        r = no_memory(path, err);
    return r;
}

static int top_workdir(void *target, const json_t *v, const char *path, struct error **err)
{
    struct vnf_spec *spec = target;
    const char *text;
    int r = json_read_string(v, path, &text, err);

    if (r < 0)
        return r;
    if (*text != '/' || strlen(text) > PATH_TEXT_MAX)
        return error_set(err, EINVAL, "INVALID_VALUE", "%s: \"%.64s\" is not an absolute path of at most %d bytes",
                         path, text, PATH_TEXT_MAX);
    spec->workdir = strdup(text);
    return spec->workdir ? 0 : no_memory(path, err);
}

static int top_read_only(void *target, const json_t *v, const char *path, struct error **err)
{
    return json_read_bool(v, path, &((struct vnf_spec *)target)->read_only, err);
}

static int top_tty(void *target, const json_t *v, const char *path, struct error **err)
{
    return json_read_bool(v, path, &((struct vnf_spec *)target)->tty, err);
}

static int top_stdin(void *target, const json_t *v, const char *path, struct error **err)
{
    return json_read_bool(v, path, &((struct vnf_spec *)target)->open_stdin, err);
}

static int top_resources(void *target, const json_t *v, const char *path, struct error **err)
{
    return limits_parse(v, path, &((struct vnf_spec *)target)->limits, err);
}

static int top_capabilities(void *target, const json_t *v, const char *path, struct error **err)
{
    struct vnf_spec *spec = target;

    if (!json_is_array(v))
        return error_set(err, EINVAL, "INVALID_VALUE", "%s: expected a list of capabilities, found %s", path,
                         json_type_words(v));
    for (size_t i = 0; i < json_array_size(v); i++) {
        char where[JSON_PATH_SIZE];
        const char *text;
        unsigned number;
        int r = json_read_string(json_array_get(v, i), json_path_item(where, path, i), &text, err);
        if (r == 0)
            r = capability_parse(text, where, &number, err);
        if (r < 0)
            return r;
        spec->capabilities |= 1u << number;
    }
    return 0;
}

static int top_start_mode(void *target, const json_t *v, const char *path, struct error **err)
{
    size_t word;
    int r = json_read_word(v, path, start_mode_words, COUNT(start_mode_words), &word, err);

    if (r == 0)
        ((struct vnf_spec *)target)->start_mode = (enum start_mode)word;
    return r;
}

static const struct json_field spec_fields[] = {
    {"name", top_name},
    {"technology", top_technology},
    {"image", top_image},
    {"command", top_command},
    {"args", top_args},
    {"env", top_env},
    {"labels", top_labels},
    {"user", top_user},
    {"workdir", top_workdir},
    {"hostname", top_hostname},
    {"read_only", top_read_only},
    {"tty", top_tty},
    {"stdin", top_stdin},
    {"resources", top_resources},
    {"networks", read_networks},
    {"ports", read_ports},
    {"capabilities", top_capabilities},
    {"restart", read_restart},
    {"stop", read_stop},
    {"start_mode", top_start_mode},
    {"fault", read_fault},
};

const char *const *spec_field_names(void)
{
    static const char *names[COUNT(spec_fields) + 1];

    for (size_t i = 0; i < COUNT(spec_fields); i++)
        names[i] = spec_fields[i].name;
    return names;
}

static size_t bytes_of(char *const *strings)
{
    size_t n = 0;

    for (; strings && *strings; strings++)
        n += strlen(*strings) + 1;
    return n;
}

/* What no single field can check. */
static int check_whole(const struct vnf_spec *spec, struct error **err)
{
    size_t bytes = bytes_of(spec->command) + bytes_of(spec->args);

    for (size_t i = 0; i < spec->env_count; i++)
        bytes += strlen(spec->env[i].key) + strlen(spec->env[i].value) + 2;
    if (bytes > ARGUMENT_BYTES_MAX)
        return error_set(err, E2BIG, "INVALID_VALUE", "command, args and env: %zu bytes together, at most %d", bytes,
                         ARGUMENT_BYTES_MAX);
    if (spec->read_only && spec->limits.storage_bytes) {
        error_set(err, EINVAL, "INVALID_VALUE", "resources.storage: read_only leaves no writable layer to bound");
        error_hint(err, "leave out read_only or resources.storage");
        return -EINVAL;
    }
    if (spec->port_count && spec->no_network)
        return error_set(err, EINVAL, "INVALID_VALUE", "ports: nothing can be published without a network");
    if (spec->restart_backoff_max_ms < spec->restart_backoff_ms)
        return error_set(err, EINVAL, "INVALID_VALUE", "restart.backoff_max: shorter than restart.backoff");
    return 0;
}

int spec_parse(const json_t *descriptor, struct vnf_spec *ret, struct error **err)
{
    struct vnf_spec spec = {
        .technology = "container",
        .restart_backoff_ms = 100,
        .restart_backoff_max_ms = 30000,
        .stop_grace_ms = 10000,
    };
    int r = json_read_object(descriptor, "", spec_fields, COUNT(spec_fields), &spec, err);

    if (r == 0)
        r = check_whole(&spec, err);
    if (r < 0) {
        spec_clear(&spec);
        return r;
    }
    if (!spec.network_count && !spec.no_network) {
        strcpy(spec.networks[0].name, "default");
        spec.network_count = 1;
    }
    *ret = spec;
    return 0;
}
