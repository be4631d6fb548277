/* SPDX-License-Identifier: Apache-2.0 */
/* Options of coracled: getopt_long for the command line, "key = value" for coracled.conf. Before the loop runs. */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/suggest.h"
#include "daemon/options.h"

enum { VALUE_MAX = 1000000 };

static const char usage[] = "Usage: coracled [OPTION]...\n"
                            "The Coracle daemon: REST API and life cycle of network functions.\n"
                            "\n"
                            "  --run-dir DIR     sockets and records of running instances (/run/coracle)\n"
                            "  --state-dir DIR   database, images, logs (/var/lib/coracle)\n"
                            "  --config FILE     configuration (/etc/coracle/coracled.conf)\n"
                            "  --user NAME       account to become when started as root (coracle)\n"
                            "  --log-level WORD  error, warning, notice, info or debug (info)\n"
                            "  --help, --version\n";

static int set(char **place, const char *value, struct error **err)
{
    char *copy = strdup(value);

    if (!copy)
        return error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
    free(*place);
    *place = copy;
    return 0;
}

static int set_defaults(struct daemon_options *o, struct error **err)
{
    *o = (struct daemon_options){.log_level = LOG_LEVEL_INFO};
    int r = set(&o->run_dir, "/run/coracle", err);

    if (r == 0)
        r = set(&o->state_dir, "/var/lib/coracle", err);
    if (r == 0)
        r = set(&o->config, "/etc/coracle/coracled.conf", err);
    return r == 0 ? set(&o->user, "coracle", err) : r;
}

static int apply(struct daemon_options *o, int letter, const char *value, struct error **err)
{
    switch (letter) {
    case 'r':
        return set(&o->run_dir, value, err);
    case 's':
        return set(&o->state_dir, value, err);
    case 'c':
        o->config_named = true;
        return set(&o->config, value, err);
    case 'u':
        return set(&o->user, value, err);
    case 'l':
        if (log_level_parse(value, &o->log_level) == 0)
            return 0;
        error_set(err, EINVAL, "INVALID_VALUE", "--log-level: \"%s\" is no level", value);
        error_hint(err, "error, warning, notice, info or debug");
        return -EINVAL;
    case 'h':
        fputs(usage, stdout);
        return 1;
    case 'v':
        puts("coracled " CORACLE_VERSION);
        return 1;
    default:
        error_set(err, EINVAL, "INVALID_VALUE", "the command line was not understood");
        error_hint(err, "coracled --help");
        return -EINVAL;
    }
}

int options_parse(int argc, char **argv, struct daemon_options *ret, struct error **err)
{
    static const struct option long_options[] = {
        {"run-dir", required_argument, NULL, 'r'},   {"state-dir", required_argument, NULL, 's'},
        {"config", required_argument, NULL, 'c'},    {"user", required_argument, NULL, 'u'},
        {"log-level", required_argument, NULL, 'l'}, {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},         {NULL, 0, NULL, 0},
    };
    int letter, r = set_defaults(ret, err);

    while (r == 0 && (letter = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        r = apply(ret, letter, optarg, err);
    if (r == 0 && optind < argc) {
        error_set(err, EINVAL, "INVALID_VALUE", "\"%s\" is not an option", argv[optind]);
        error_hint(err, "coracled --help");
        r = -EINVAL;
    }
    return r;
}

static const struct {
    const char *key;
    size_t offset;
    bool is_number;
} keys[] = {
#define TEXT(name)                                                                                                     \
    {                                                                                                                  \
#name, offsetof(struct daemon_options, name), false                                                            \
    }
#define NUMBER(name)                                                                                                   \
    {                                                                                                                  \
#name, offsetof(struct daemon_options, name), true                                                             \
    }
    TEXT(listen),    TEXT(tls_cert),  TEXT(tls_key),           TEXT(tls_client_ca),       TEXT(token_file),
    TEXT(ipv4_pool), TEXT(ipv6_pool), NUMBER(max_connections), NUMBER(operation_history),
#undef TEXT
#undef NUMBER
};

static int set_number(uint32_t *place, const char *value, const char *where, struct error **err)
{
    char *end;
    unsigned long number = strtoul(value, &end, 10);

    if (!isdigit((unsigned char)*value) || *end || number < 1 || number > VALUE_MAX)
        return error_set(err, EINVAL, "INVALID_VALUE", "%s: \"%.32s\" is not a number from 1 to %d", where, value,
                         VALUE_MAX);
    *place = (uint32_t)number;
    return 0;
}

static int set_key(struct daemon_options *o, const char *key, const char *value, const char *where, struct error **err)
{
    const char *nearest = NULL;

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (strcmp(key, keys[i].key) == 0) {
            void *place = (char *)o + keys[i].offset;
            return keys[i].is_number ? set_number(place, value, where, err) : set(place, value, err);
        }
        suggest_offer(key, keys[i].key, &nearest);
    }
    error_set(err, EINVAL, "UNKNOWN_FIELD", "%s: there is no key \"%.32s\"", where, key);
    if (nearest)
        error_hint(err, "did you mean \"%s\"?", nearest);
    return -EINVAL;
}

static char *trim(char *text)
{
    size_t n;

    text += strspn(text, " \t\r\n");
    n = strlen(text);
    while (n && strchr(" \t\r\n", text[n - 1]))
        text[--n] = '\0';
    return text;
}

static int read_line(struct daemon_options *o, char *line, const char *where, struct error **err)
{
    char *text = trim(line), *equals;

    if (!*text || *text == '#')
        return 0;
    equals = strchr(text, '=');
    if (!equals)
        return error_set(err, EINVAL, "INVALID_VALUE", "%s: not of the form key = value", where);
    *equals = '\0';
    return set_key(o, trim(text), trim(equals + 1), where, err);
}

int options_read_file(struct daemon_options *o, struct error **err)
{
    auto_file FILE *f = fopen(o->config, "re");
    auto_free char *line = NULL;
    size_t size = 0;
    int r = 0;

    if (!f && errno == ENOENT && !o->config_named)
        return 0;
    if (!f)
        return error_set_errno(err, errno, "INVALID_VALUE", "%s", o->config);
    for (unsigned number = 1; r == 0 && getline(&line, &size, f) >= 0; number++) {
        char where[300];
        snprintf(where, sizeof(where), "%.256s line %u", o->config, number);
        r = read_line(o, line, where, err);
    }
    return r;
}

void options_clear(struct daemon_options *o)
{
    free(o->run_dir);
    free(o->state_dir);
    free(o->config);
    free(o->user);
    free(o->listen);
    free(o->tls_cert);
    free(o->tls_key);
    free(o->tls_client_ca);
    free(o->token_file);
    free(o->ipv4_pool);
    free(o->ipv6_pool);
}
