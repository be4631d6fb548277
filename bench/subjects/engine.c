/* SPDX-License-Identifier: Apache-2.0 */
/*
 * docker and podman as a user has them: `run -d` on a bridge network of its own, the same function inside. The client's
 * process is part of the create call, as it is for their users.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bench/command.h"
#include "bench/http.h"
#include "bench/subjects/peer_image.h"

#include "bench/subject.h"

#define NETWORK "coracle-bench"
#define IMAGE   "coracle-bench/iperf"

#define LIMIT_OPTIONS "--ulimit nofile=4096:4096 --ulimit nproc=4096:4096"

enum { PORT_IPERF = 5001 };

struct engine {
    const char *program;
    bool is_clone;
    bool has_network;
    char name[48];       /* of the next container */
    char keeper[48];     /* a container that keeps podman's bridge alive; "" none */
    const char *runtime; /* podman's --runtime=, or NULL */
    bool sets_mac;       /* --mac-address is understood; without, the address determines it */
    bool sets_limits;    /* --ulimit: the defaults are above what this user may set */
    bool fixed;
};

/* docker's bridge is where dockerd is; the socket's owner tells (the daemon, or PID 1 when systemd listens for it). */
static void docker_netns(struct target *target)
{
    const char *host = getenv("DOCKER_HOST");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    struct ucred peer;
    socklen_t length = sizeof(peer);
    auto_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(to.sun_path, sizeof(to.sun_path), "%.100s",
             host && strncmp(host, "unix://", 7) == 0 ? host + 7 : "/var/run/docker.sock");
    if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 &&
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.pid > 0)
        snprintf(target->netns, sizeof(target->netns), "/proc/%d/ns/net", peer.pid);
}

static int engine_script(struct engine *e, const char *script, const char *argument, char **ret, struct error **err)
{
    const char *arguments[] = {e->program, argument, NULL};

    return command_shell(NULL, script, arguments, ret, err);
}

static int import_image(struct engine *e, const struct bench_options *options, struct error **err)
{
    struct peer_image image;
    auto_free char *change = NULL, *entrypoint = NULL;
    const char *arguments[4] = {e->program, NULL, NULL, NULL};
    int r = peer_image_open(&image, options, err);

    if (r < 0)
        return r;
    entrypoint = json_dumps(image.entrypoint, JSON_COMPACT);
    if (!entrypoint || asprintf(&change, "ENTRYPOINT %s", entrypoint) < 0)
        change = NULL;
    arguments[1] = change;
    arguments[2] = image.tar;
    r = change ? command_shell(NULL, "\"$1\" import --change \"$2\" \"$3\" " IMAGE, arguments, NULL, err)
               : error_set(err, ENOMEM, "NO_MEMORY", "no memory for an entry point");
    peer_image_close(&image);
    return r;
}

static int make_network(struct subject *s, struct engine *e, struct error **err)
{
    const char *subnet = strcmp(e->program, "docker") == 0 ? "198.19.250" : "198.19.251";
    char text[32];
    int r = engine_script(e,
                          "\"$1\" network rm " NETWORK " >/dev/null 2>&1 || :\n"
                          "\"$1\" network create --subnet \"$2.0/24\" --gateway \"$2.1\" " NETWORK,
                          subnet, NULL, err);

    e->has_network = r == 0;
    snprintf(text, sizeof(text), "%s.1", subnet);
    inet_aton(text, &s->target.source);
    snprintf(text, sizeof(text), "%s.200", subnet);
    inet_aton(text, &s->target.address);
    return r;
}

/*
 * A host may forbid podman's default limits (no CAP_SYS_RESOURCE) and its default runtime may refuse the host's cgroups
 * (crun 1.8 a hybrid hierarchy). What a user would then write is tried in turn; the version says what it came to.
 */
static int make_keeper(struct subject *s, struct error **err)
{
    static const struct {
        const char *runtime, *options, *words;
        bool sets_limits;
    } ways[] = {
        {NULL, "", "", false},
        {NULL, LIMIT_OPTIONS, ", lower ulimits", true},
        {"--runtime=runc", LIMIT_OPTIONS, ", with runc, lower ulimits", true},
    };
    struct engine *e = s->state;
    struct error *last = NULL;
    size_t used = strlen(s->version);
    int r = -1;

    snprintf(e->keeper, sizeof(e->keeper), "coracle-bench-keeper-%d", (int)getpid());
    for (size_t i = 0; r < 0 && i < sizeof(ways) / sizeof(ways[0]); i++) {
        const char *arguments[] = {e->program, e->keeper, ways[i].runtime ? ways[i].runtime : "", ways[i].options,
                                   NULL};

        error_free(last);
        last = NULL;
        e->runtime = ways[i].runtime;
        e->sets_limits = ways[i].sets_limits;
        snprintf(s->version + used, sizeof(s->version) - used, "%s", ways[i].words);
        r = command_shell(NULL,
                          "\"$1\" rm -f -t 0 \"$2\" >/dev/null 2>&1 || :\n"
                          "exec \"$1\" $3 run -d --name \"$2\" $4 --network " NETWORK " " IMAGE,
                          arguments, NULL, &last);
    }
    if (r < 0 && err && !*err)
        *err = last;
    else
        error_free(last);
    return r;
}

static void engine_close(struct subject *s)
{
    struct engine *e = s->state;

    if (e && !e->is_clone && *e->keeper)
        engine_script(e, "\"$1\" rm -f -t 0 \"$2\"", e->keeper, NULL, NULL);
    if (e && !e->is_clone && e->has_network)
        engine_script(e, "\"$1\" network rm " NETWORK, NULL, NULL, NULL);
    if (e && !e->is_clone)
        engine_script(e, "\"$1\" rmi " IMAGE, NULL, NULL, NULL);
    free(e);
    s->state = NULL;
}

static int open_common(struct subject *s, const char *program, const char *package, const char *version_script,
                       const struct bench_options *options, struct error **err)
{
    struct engine *e = calloc(1, sizeof(*e));
    auto_free char *version = NULL;
    int r = e ? command_find(program, package, err) : error_set(err, ENOMEM, "NO_MEMORY", "no memory for a peer");

    if (r < 0) {
        free(e);
        return r;
    }
    e->program = program;
    s->state = e;
    s->target.port = PORT_IPERF;
    e->sets_mac = strcmp(program, "podman") == 0;
    r = engine_script(e, version_script, NULL, &version, err);
    if (r < 0)
        error_hint(err, "is its daemon running, and may this user reach it?");
    else
        snprintf(s->version, sizeof(s->version), "%s %.64s", program, command_trim(version));
    if (r == 0)
        r = import_image(e, options, err);
    if (r == 0)
        r = make_network(s, e, err);
    return r;
}

/* Since API 1.44 a container's hardware address is random unless it is given; before, the address determines it. */
static int docker_mac_option(struct subject *s, struct error **err)
{
    struct engine *e = s->state;
    auto_free char *text = NULL;
    int major, minor, r = engine_script(e, "\"$1\" version -f '{{.Server.APIVersion}}'", NULL, &text, err);

    if (r == 0)
        e->sets_mac = sscanf(text, "%d.%d", &major, &minor) == 2 && (major > 1 || minor >= 44);
    else
        engine_close(s);
    return r;
}

static int docker_open(struct subject *s, const struct bench_options *options, struct error **err)
{
    int r = open_common(s, "docker", "docker.io", "\"$1\" version -f '{{.Server.Version}}'", options, err);

    if (r < 0) {
        engine_close(s);
        return r;
    }
    docker_netns(&s->target);
    return docker_mac_option(s, err);
}

static int podman_open(struct subject *s, const struct bench_options *options, struct error **err)
{
    int r = open_common(s, "podman", "podman", "\"$1\" version -f '{{.Client.Version}}'", options, err);

    if (r == 0)
        r = make_keeper(s, err);
    if (r < 0)
        engine_close(s);
    return r;
}

static int engine_prepare(struct subject *s, enum subject_start start, bool fixed_address, struct error **err)
{
    struct engine *e = s->state;

    if (start == SUBJECT_START_POOL)
        return error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "%s has no warm pool", e->program);
    e->fixed = fixed_address;
    snprintf(e->name, sizeof(e->name), "coracle-bench-%d-%u", (int)getpid(), subject_serial());
    return 0;
}

static int engine_create(struct subject *s, struct subject_instance *ret, struct error **err)
{
    struct engine *e = s->state;
    const uint8_t *a = (const uint8_t *)&s->target.address;
    char ip[32], mac[24];
    const char *argv[24] = {e->program};
    const char *const common[] = {"run", "-d", "--name", e->name, "--network", NETWORK};
    static const char *const limits[] = {"--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096"};
    size_t n = 1;
    int r;

    if (e->runtime)
        argv[n++] = e->runtime;
    for (size_t i = 0; i < sizeof(common) / sizeof(common[0]); i++)
        argv[n++] = common[i];
    for (size_t i = 0; e->sets_limits && i < sizeof(limits) / sizeof(limits[0]); i++)
        argv[n++] = limits[i];

    if (e->fixed) {
        snprintf(ip, sizeof(ip), "%u.%u.%u.%u", a[0], a[1], a[2], a[3]);
        snprintf(mac, sizeof(mac), "02:42:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3]);
        argv[n++] = "--ip";
        argv[n++] = ip;
    }
    if (e->fixed && e->sets_mac) {
        argv[n++] = "--mac-address";
        argv[n++] = mac;
    }
    argv[n] = IMAGE;
    *ret = (struct subject_instance){0};
    r = command_run(NULL, argv, NULL, &ret->t0_ns, err);
    if (r < 0) {
        engine_script(e, "\"$1\" rm -f \"$2\"", e->name, NULL, NULL);
        return r;
    }
    snprintf(ret->id, sizeof(ret->id), "%s", e->name);
    return 0;
}

static int engine_inspect(struct subject *s, struct subject_instance *i, struct error **err)
{
    auto_free char *text = NULL;
    char address[64];
    uint8_t *m = i->mac;
    int r = engine_script(s->state,
                          "\"$1\" inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.MacAddress}}"
                          "{{end}}' \"$2\"",
                          i->id, &text, err);

    if (r < 0)
        return r;
    if (sscanf(text, "%63s %hhx:%hhx:%hhx:%hhx:%hhx:%hhx", address, &m[0], &m[1], &m[2], &m[3], &m[4], &m[5]) != 7 ||
        !inet_aton(address, &i->address))
        return error_set(err, EPROTO, "PROTOCOL_ERROR", "inspect of %s: no address: %.80s", i->id, command_trim(text));
    return 0;
}

static int engine_destroy(struct subject *s, struct subject_instance *i, struct error **err)
{
    /* podman's -f would wait 10 s for an application that leaves SIGTERM alone; docker's does not. */
    return engine_script(s->state, "case \"$1\" in podman) exec podman rm -f -t 0 \"$2\";; esac; \"$1\" rm -f \"$2\"",
                         i->id, NULL, err);
}

static int engine_image_bytes(struct subject *s, uint64_t *ret_bytes, struct error **err)
{
    auto_free char *text = NULL;
    int r = engine_script(s->state, "\"$1\" save " IMAGE " | wc -c", NULL, &text, err);

    if (r == 0)
        *ret_bytes = strtoull(text, NULL, 10);
    return r;
}

static int engine_clone(const struct subject *subject, struct subject *ret, struct error **err)
{
    struct engine *e = malloc(sizeof(*e));

    if (!e)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a peer");
    *e = *(const struct engine *)subject->state;
    e->is_clone = true;
    *ret = *subject;
    ret->state = e;
    return 0;
}

#define ENGINE_OPS                                                                                                     \
    .close = engine_close, .prepare = engine_prepare, .create = engine_create, .inspect = engine_inspect,              \
    .destroy = engine_destroy, .image_bytes = engine_image_bytes, .clone = engine_clone

/* No wait: `run -d` returns when the container runs. No footprint: their processes and cgroups are many and differ by
 * version; the host's account has them all. */
const struct subject_ops subject_docker = {.name = "docker", .open = docker_open, ENGINE_OPS};
const struct subject_ops subject_podman = {.name = "podman", .open = podman_open, ENGINE_OPS};
