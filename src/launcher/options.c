/* SPDX-License-Identifier: Apache-2.0 */
/* Reads what root has decided: arguments first, then host.conf. Anything unknown or malformed stops the launcher. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "launcher/options.h"
#include "model/units.h"

enum { POOL_DEPTH_MAX = 64, CONFIG_BYTES_MAX = 65536, PIDS_MAX = 1 << 22, MEMORY_MIN = 1 << 20 };

static const char default_config[] = "/etc/coracle/host.conf";

const char options_usage[] =
    "usage: coracle-launcher [options]\n"
    "The only privileged process of Coracle: carries out launch plans sent by coracled.\n\n"
    "  --run-dir DIR      sockets, records and mount points (/run/coracle)\n"
    "  --state-dir DIR    images and logs (/var/lib/coracle)\n"
    "  --cgroup NAME      cgroup parent (coracle)\n"
    "  --config FILE      host.conf (/etc/coracle/host.conf)\n"
    "  --user NAME        the account that may connect beside root (coracle)\n"
    "  --libexec-dir DIR  where coracle-init and coracle-unpack are (" CORACLE_LIBEXEC_DIR ")\n"
    "  --log-level WORD   error, warning, notice, info or debug (info)\n"
    "  --version, --help\n";

static int bad(struct error **err, const char *path, unsigned line, const char *what)
{
    error_set(err, EINVAL, "INVALID_VALUE", "%s line %u: %s", path, line, what);
    error_hint(err, "keys and values are listed in coracle-launcher(8)");
    return -EINVAL;
}

static int set_number(const char *value, uint64_t max, uint64_t *ret)
{
    char *end;

    errno = 0;
    unsigned long long n = strtoull(value, &end, 10);
    if (errno || end == value || *end || value[0] == '-' || n > max)
        return -EINVAL;
    *ret = n;
    return 0;
}

static int set_size(const char *value, uint64_t max, uint64_t *ret)
{
    auto_error struct error *ignored = NULL;
    uint64_t n;

    if (units_size(value, "", &n, &ignored) < 0 || n > max)
        return -EINVAL;
    *ret = n;
    return 0;
}

static int set_uplink(struct options *o, const char *value)
{
    if (strlen(value) >= sizeof(o->uplink) || strchr(value, '/') || strcmp(value, ".") == 0 || strcmp(value, "..") == 0)
        return -EINVAL;
    strcpy(o->uplink, strcmp(value, "none") == 0 ? "" : value);
    return 0;
}

static int set_publish(struct options *o, const char *value)
{
    o->publish = strcmp(value, "no") != 0;
    return !o->publish || inet_pton(AF_INET, value, &o->publish4) == 1 ? 0 : -EINVAL;
}

/* A number of processes, or "none". */
static int set_pids(struct options *o, const char *value)
{
    o->pids_default = 0;
    return strcmp(value, "none") == 0 || (set_number(value, PIDS_MAX, &o->pids_default) == 0 && o->pids_default)
               ? 0
               : -EINVAL;
}

/* A size, a share of the host's memory ("50%"), or "none". */
static int set_memory(struct options *o, const char *value)
{
    size_t length = strlen(value);
    char number[8];
    uint64_t n = 0;

    o->memory_default = o->memory_percent = 0;
    if (strcmp(value, "none") == 0)
        return 0;
    if (length == 0 || value[length - 1] != '%')
        return set_size(value, 1ull << 50, &o->memory_default) == 0 && o->memory_default >= MEMORY_MIN ? 0 : -EINVAL;
    if (length > sizeof(number))
        return -EINVAL;
    memcpy(number, value, length - 1);
    number[length - 1] = '\0';
    if (set_number(number, 100, &n) < 0 || n == 0)
        return -EINVAL;
    o->memory_percent = (unsigned)n;
    return 0;
}

static int set_publish6(struct options *o, const char *value)
{
    o->publish6 = strcmp(value, "no") != 0;
    return !o->publish6 || inet_pton(AF_INET6, value, &o->publish6_on) == 1 ? 0 : -EINVAL;
}

static int set_key(struct options *o, const char *key, const char *value)
{
    uint64_t n;

    if (strcmp(key, "pool_depth") == 0) {
        if (set_number(value, POOL_DEPTH_MAX, &n) < 0)
            return -EINVAL;
        o->pool_depth = (unsigned)n;
        return 0;
    }
    if (strcmp(key, "kvm") == 0) {
        o->no_kvm = strcmp(value, "no") == 0;
        return o->no_kvm || strcmp(value, "yes") == 0 ? 0 : -EINVAL;
    }
    if (strcmp(key, "snapshot_count") == 0) {
        if (set_number(value, POOL_DEPTH_MAX, &n) < 0)
            return -EINVAL;
        o->snapshot_count = (unsigned)n;
        return 0;
    }
    if (strcmp(key, "snapshot_memory") == 0)
        return set_size(value, 1ull << 50, &o->snapshot_memory);
    if (strcmp(key, "uplink") == 0)
        return set_uplink(o, value);
    if (strcmp(key, "publish") == 0)
        return set_publish(o, value);
    if (strcmp(key, "publish6") == 0)
        return set_publish6(o, value);
    if (strcmp(key, "uplink6") == 0) {
        o->uplink6 = strcmp(value, "yes") == 0;
        return o->uplink6 || strcmp(value, "no") == 0 ? 0 : -EINVAL;
    }
    if (strcmp(key, "log_bytes") == 0)
        return set_size(value, 1 << 30, &o->log_bytes);
    if (strcmp(key, "pids_default") == 0)
        return set_pids(o, value);
    if (strcmp(key, "memory_default") == 0)
        return set_memory(o, value);
    if (strcmp(key, "storage_default") == 0)
        return set_size(value, 1ull << 50, &o->storage_default);
    return -ENOENT;
}

static char *trim(char *text)
{
    size_t n;

    text += strspn(text, " \t\r");
    n = strlen(text);
    while (n && strchr(" \t\r", text[n - 1]))
        text[--n] = '\0';
    return text;
}

int options_parse_config(struct options *o, char *text, const char *path, struct error **err)
{
    unsigned number = 0;
    char *line;

    while ((line = strsep(&text, "\n"))) {
        number++;
        line[strcspn(line, "#")] = '\0';
        line = trim(line);
        if (!*line)
            continue;
        char *value = strchr(line, '=');
        if (!value)
            return bad(err, path, number, "not of the form key = value");
        *value++ = '\0';
        int r = set_key(o, trim(line), trim(value));
        if (r < 0)
            return bad(err, path, number, r == -ENOENT ? "unknown key" : "the value is malformed or out of range");
    }
    if ((o->publish || o->publish6 || o->uplink6) && !o->uplink[0])
        return bad(err, path, number, "publish, publish6 and uplink6 need an uplink");
    return 0;
}

static int read_config(struct options *o, struct error **err)
{
    auto_fd int fd = open(o->config, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    auto_free char *text = calloc(1, CONFIG_BYTES_MAX);
    ssize_t n;

    if (!text)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for %s", o->config);
    if (fd < 0 && errno == ENOENT && o->config == default_config)
        return 0;
    n = fd < 0 ? -1 : read(fd, text, CONFIG_BYTES_MAX - 1);
    if (n < 0)
        return error_set_errno(err, errno, "INVALID_VALUE", "reading %s", o->config);
    if (n == CONFIG_BYTES_MAX - 1 || memchr(text, '\0', (size_t)n))
        return error_set(err, EINVAL, "INVALID_VALUE", "%s is no configuration file", o->config);
    return options_parse_config(o, text, o->config, err);
}

static int find_account(struct options *o, struct error **err)
{
    const struct passwd *p;

    if (strcmp(o->user, "nobody") == 0)
        return error_set(err, EINVAL, "INVALID_VALUE", "--user nobody: every unprivileged service would be trusted");
    p = getpwnam(o->user);
    if (!p) {
        error_set(err, ENOENT, "INVALID_VALUE", "--user %s: no such account", o->user);
        error_hint(err, "adduser --system --group %s", o->user);
        return -ENOENT;
    }
    o->uid = p->pw_uid;
    o->gid = p->pw_gid;
    return 0;
}

static int check_words(const struct options *o, struct error **err)
{
    if (o->run_dir[0] != '/' || o->state_dir[0] != '/' || o->libexec_dir[0] != '/')
        return error_set(err, EINVAL, "INVALID_VALUE", "--run-dir, --state-dir and --libexec-dir must be absolute");
    if (!o->cgroup[0] || strlen(o->cgroup) > 64 ||
        strspn(o->cgroup, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != strlen(o->cgroup))
        return error_set(err, EINVAL, "INVALID_VALUE", "--cgroup %s: only letters, digits, - and _", o->cgroup);
    return 0;
}

int options_read(struct options *o, int argc, char **argv, struct error **err)
{
    static const struct option table[] = {
        {"run-dir", required_argument, NULL, 'r'},
        {"state-dir", required_argument, NULL, 's'},
        {"cgroup", required_argument, NULL, 'g'},
        {"config", required_argument, NULL, 'c'},
        {"user", required_argument, NULL, 'u'},
        {"libexec-dir", required_argument, NULL, 'x'},
        {"log-level", required_argument, NULL, 'l'},
        {"version", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    const char **texts[] = {['r'] = &o->run_dir, ['s'] = &o->state_dir, ['g'] = &o->cgroup,
                            ['c'] = &o->config,  ['u'] = &o->user,      ['x'] = &o->libexec_dir};
    int c, r;

    *o = (struct options){.run_dir = "/run/coracle",
                          .state_dir = "/var/lib/coracle",
                          .cgroup = "coracle",
                          .config = default_config,
                          .user = "coracle",
                          .libexec_dir = CORACLE_LIBEXEC_DIR,
                          .log_level = LOG_LEVEL_INFO,
                          .pool_depth = 4,
                          .snapshot_count = 4,
                          .log_bytes = 8 << 20,
                          .storage_default = 64 << 20,
                          .pids_default = 2048,
                          .memory_percent = 50};
    while ((c = getopt_long(argc, argv, "", table, NULL)) >= 0) {
        if (c == '?')
            return error_set(err, EINVAL, "INVALID_VALUE", "bad arguments; see --help");
        o->help |= c == 'h';
        o->version |= c == 'v';
        if (c == 'l' && log_level_parse(optarg, &o->log_level) < 0)
            return error_set(err, EINVAL, "INVALID_VALUE", "--log-level %s: no such level", optarg);
        if (c != 'h' && c != 'v' && c != 'l')
            *texts[c] = optarg;
    }
    if (optind < argc)
        return error_set(err, EINVAL, "INVALID_VALUE", "unexpected argument %s; see --help", argv[optind]);
    if (o->help || o->version)
        return 0;
    r = check_words(o, err);
    if (r == 0)
        r = read_config(o, err);
    return r < 0 ? r : find_account(o, err);
}
