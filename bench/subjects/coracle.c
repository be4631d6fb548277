/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A technology of Coracle's as the bench sees it: the REST API, as any client would use it. The create call's bytes are
 * made in prepare(); create() writes them on a connection that is already open, and reads the answer.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bench/http.h"
#include "bench/subject.h"

/* A Linux bridge has at most 1,023 ports (BR_MAX_PORTS), and the fabric makes one bridge a network. */
enum { NETWORK_INSTANCES = 900 };
enum { POOL_WAIT_MS = 5000, POOL_CALM_MS = 1000 };
/* A guest is booted for a snapshot, a whole Linux under emulation perhaps: the launcher gives that one four minutes. */
enum { SNAPSHOT_WAIT_MS = 300000, SNAPSHOT_TRY_MS = 500 };
enum { PORT_IPERF = 5001, ADDRESS_FROM_END = 7, ARCHIVE_MAX = 64 << 20 };

enum snapshot_state { SNAPSHOT_UNKNOWN, SNAPSHOT_READY, SNAPSHOT_NEVER };

struct coracle {
    struct http http;
    struct http_request request; /* the next create call */
    char image[256];
    char guest[16];        /* the variant of the image this technology runs */
    char cgroup_file[256]; /* "" : no memory controller */
    int daemon_pid, launcher_pid;
    enum snapshot_state snapshot; /* of this image */
};

static void coracle_close(struct subject *subject)
{
    struct coracle *c = subject->state;

    if (!c)
        return;
    http_close(&c->http);
    http_request_clear(&c->request);
    free(c);
    subject->state = NULL;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

static const char *first_text(const json_t *list)
{
    const char *text = json_string_value(json_array_get(list, 0));

    return text ? text : "";
}

static bool has_text(const json_t *list, const char *wanted)
{
    json_t *item;
    size_t i;

    json_array_foreach(list, i, item)
    {
        if (json_string_value(item) && strcmp(json_string_value(item), wanted) == 0)
            return true;
    }
    return false;
}

static int check_technology(struct subject *s, struct coracle *c, const json_t *host, struct error **err)
{
    json_t *technology;
    size_t i;

    json_array_foreach(json_object_get(host, "technologies"), i, technology)
    {
        if (strcmp(text_of(technology, "name"), s->technology) != 0)
            continue;
        snprintf(s->accelerator, sizeof(s->accelerator), "%s", text_of(technology, "accelerator"));
        s->target.emulated = strcmp(s->accelerator, "tcg") == 0;
        snprintf(c->guest, sizeof(c->guest), "%s", first_text(json_object_get(technology, "guests")));
        s->has_snapshots = has_text(json_object_get(technology, "start_modes"), "snapshot");
        if (json_is_true(json_object_get(technology, "available")))
            return 0;
        error_set(err, ENOTSUP, "TECHNOLOGY_UNAVAILABLE", "%s", text_of(technology, "why_not"));
        if (*text_of(technology, "what_would_help"))
            error_hint(err, "%s", text_of(technology, "what_would_help"));
        return -ENOTSUP;
    }
    return error_set(err, ENOTSUP, "UNKNOWN_TECHNOLOGY", "this version of Coracle has no driver for it yet");
}

/* An address near the end of the network, where the address management, which counts from the front, comes last; a
 * different one for each technology, since their long-lived instances run beside each other. */
static int choose_address(struct subject *s, struct coracle *c, struct error **err)
{
    json_t *network = NULL;
    char cidr[64], *slash;
    struct in_addr base;
    int prefix, r = http_call(&c->http, "GET", "/v1/networks/default", NULL, &network, err);

    if (r < 0)
        return r;
    snprintf(cidr, sizeof(cidr), "%s", text_of(network, "ipv4"));
    slash = strchr(cidr, '/');
    prefix = slash ? atoi(slash + 1) : 0;
    if (slash)
        *slash = '\0';
    r = prefix >= 8 && prefix <= 28 && inet_aton(cidr, &base) &&
        inet_aton(text_of(network, "gateway4"), &s->target.source);
    if (r)
        s->target.address.s_addr =
            htonl((ntohl(base.s_addr) | (UINT32_MAX >> prefix)) - ADDRESS_FROM_END - subject_serial());
    else
        error_set(err, EPROTO, "PROTOCOL_ERROR", "network default: no usable IPv4 range and gateway");
    json_decref(network);
    return r ? 0 : -EPROTO;
}

static void find_accounts(struct coracle *c, const json_t *host)
{
    const json_t *cgroup = json_object_get(host, "cgroup");
    const char *parent = text_of(cgroup, "parent");
    struct ucred peer;
    socklen_t length = sizeof(peer);

    snprintf(c->cgroup_file, sizeof(c->cgroup_file), "/sys/fs/cgroup/%s/memory.current", parent);
    if (access(c->cgroup_file, R_OK) < 0)
        snprintf(c->cgroup_file, sizeof(c->cgroup_file), "/sys/fs/cgroup/memory/%s/memory.usage_in_bytes", parent);
    if (access(c->cgroup_file, R_OK) < 0)
        c->cgroup_file[0] = '\0';
    c->launcher_pid = (int)json_integer_value(json_object_get(json_object_get(host, "launcher"), "pid"));
    if (getsockopt(c->http.fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0)
        c->daemon_pid = peer.pid;
}

static void percent_encode(const char *from, char *to, size_t size)
{
    size_t used = 0;

    for (; *from && used + 4 < size; from++) {
        if (strchr("/:@%?#& ", *from))
            used += (size_t)snprintf(to + used, size - used, "%%%02X", (unsigned char)*from);
        else
            to[used++] = *from;
    }
    to[used] = '\0';
}

static int read_whole(const char *path, char **ret_bytes, size_t *ret_n, struct error **err)
{
    auto_file FILE *f = fopen(path, "rbe");
    auto_free char *bytes = NULL;
    struct stat st;

    if (!f || fstat(fileno(f), &st) < 0)
        return error_set_errno(err, errno, "IMAGE_NOT_FOUND", "image archive %s", path);
    if (st.st_size > ARCHIVE_MAX)
        return error_set(err, EFBIG, "IMAGE_TOO_LARGE", "image archive %s is over 64 MiB", path);
    bytes = malloc((size_t)st.st_size + 1);
    if (!bytes || fread(bytes, 1, (size_t)st.st_size, f) != (size_t)st.st_size)
        return error_set(err, EIO, "IMAGE_NOT_FOUND", "image archive %s cannot be read", path);
    *ret_bytes = take_ptr(bytes);
    *ret_n = (size_t)st.st_size;
    return 0;
}

static int ensure_image(struct coracle *c, const struct bench_options *options, struct error **err)
{
    char encoded[600], path[700];
    auto_free char *bytes = NULL;
    struct error *missing = NULL;
    size_t n = 0;
    int r;

    percent_encode(c->image, encoded, sizeof(encoded));
    snprintf(path, sizeof(path), "/v1/images/%s?guest=%s", encoded, c->guest);
    r = http_call(&c->http, "GET", path, NULL, NULL, &missing);
    if (r == 0)
        return 0;
    if (r != -ENOENT || !options->archive || strcmp(c->guest, "process") != 0) {
        if (err)
            *err = missing;
        else
            error_free(missing);
        error_hint(err, "import it first, or name the archive with --archive FILE");
        return r;
    }
    error_free(missing);
    r = read_whole(options->archive, &bytes, &n, err);
    if (r < 0)
        return r;
    snprintf(path, sizeof(path), "/v1/images?name=%s", encoded);
    return http_upload(&c->http, path, "application/x-tar", bytes, n, NULL, err);
}

static int connect_and_check(struct subject *s, struct coracle *c, const struct bench_options *options,
                             struct error **err)
{
    json_t *host = NULL;
    int r = http_open(&c->http, options->socket, err);

    if (r < 0)
        return r;
    r = http_call(&c->http, "GET", "/v1/host", NULL, &host, err);
    if (r < 0)
        return r;
    snprintf(s->version, sizeof(s->version), "coracle %s", text_of(host, "version"));
    snprintf(s->target.netns, sizeof(s->target.netns), "%s", text_of(host, "fabric_netns"));
    s->has_pool = json_integer_value(json_object_get(json_object_get(host, "pool"), "depth")) > 0;
    find_accounts(c, host);
    r = check_technology(s, c, host, err);
    json_decref(host);
    return r;
}

static int coracle_open(struct subject *s, const struct bench_options *options, struct error **err)
{
    struct coracle *c = calloc(1, sizeof(*c));
    int r;

    if (!c)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a client");
    c->http.fd = -1;
    s->state = c;
    s->target.port = PORT_IPERF;
    s->reference = s->technology;
    snprintf(s->label, sizeof(s->label), "%s", s->technology);
    snprintf(c->image, sizeof(c->image), "%s", options->image);
    r = connect_and_check(s, c, options, err);
    if (r == 0)
        r = choose_address(s, c, err);
    if (r == 0)
        r = ensure_image(c, options, err);
    if (r < 0)
        coracle_close(s);
    return r;
}

/* A refill under way would share the processor with what is timed next: full, or unchanged for long (a shell that
 * cannot be made). */
static int wait_for_pool(struct coracle *c, struct error **err)
{
    struct timespec pause = {0, 5000000};
    int64_t since = monotonic_ns(), changed = since;
    json_int_t before = -1;

    while (monotonic_ns() - since < (int64_t)POOL_WAIT_MS * 1000000) {
        json_t *host = NULL, *pool;
        json_int_t ready, depth;
        int r = http_call(&c->http, "GET", "/v1/host", NULL, &host, err);

        if (r < 0)
            return r;
        pool = json_object_get(host, "pool");
        ready = json_integer_value(json_object_get(pool, "ready"));
        depth = json_integer_value(json_object_get(pool, "depth"));
        json_decref(host);
        if (ready != before)
            changed = monotonic_ns();
        before = ready;
        if (ready > 0 && (ready >= depth || monotonic_ns() - changed > (int64_t)POOL_CALM_MS * 1000000))
            return 0;
        nanosleep(&pause, NULL);
    }
    return error_set(err, ETIMEDOUT, "TIMEOUT", "no warm shell was ready within %d s", POOL_WAIT_MS / 1000);
}

static atomic_uint living; /* instances of a crowd; all subjects of this process share the networks */

/* Name of the network the next instance of a crowd goes to; those beyond the default one are made when needed. */
static int choose_network(struct coracle *c, char name[32], struct error **err)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static unsigned made;
    unsigned n = atomic_load(&living) / NETWORK_INSTANCES;
    int r = 0;

    snprintf(name, 32, "default");
    if (n == 0)
        return 0;
    snprintf(name, 32, "bench-%u", n);
    pthread_mutex_lock(&lock);
    if (n > made) {
        struct error *there = NULL;
        char range[32];
        snprintf(range, sizeof(range), "198.19.%u.0/20",
                 (n - 1) % 16 * 16); /* of RFC 2544's block, where no default network is */
        json_t *body = json_pack("{s:s, s:s}", "name", name, "ipv4", range);
        r = http_call(&c->http, "POST", "/v1/networks", body, NULL, &there);
        json_decref(body);
        if (r == -EEXIST || (there && strcmp(there->code, "NAME_TAKEN") == 0))
            r = 0; /* of an earlier run */
        if (r < 0 && err)
            *err = take_ptr(there);
        error_free(there);
        made = r < 0 ? made : n;
    }
    pthread_mutex_unlock(&lock);
    return r;
}

static int make_request(struct subject *s, enum subject_start start, bool fixed_address, struct error **err)
{
    static const char *const modes[] = {[SUBJECT_START_DEFAULT] = "auto",
                                        [SUBJECT_START_COLD] = "cold",
                                        [SUBJECT_START_POOL] = "pool",
                                        [SUBJECT_START_SNAPSHOT] = "snapshot"};
    struct coracle *c = s->state;
    auto_free char *text = NULL;
    char name[64], network[32] = "default";
    json_t *d;
    int r;

    snprintf(name, sizeof(name), "bench-%d-%u", (int)getpid(), subject_serial());
    d = json_pack("{s:s, s:s, s:s, s:s, s:b, s:{s:s}}", "name", name, "technology", s->technology, "image", c->image,
                  "start_mode", modes[start], "read_only", 1, "labels", "bench", "1");
    if (d && fixed_address)
        json_object_set_new(d, "networks",
                            json_pack("[{s:s, s:s}]", "name", "default", "ipv4", inet_ntoa(s->target.address)));
    if (d && !fixed_address && (r = choose_network(c, network, err)) < 0) {
        json_decref(d);
        return r;
    }
    if (d && !fixed_address && strcmp(network, "default") != 0)
        json_object_set_new(d, "networks", json_pack("[s]", network));
    text = d ? json_dumps(d, JSON_COMPACT) : NULL;
    json_decref(d);
    if (!text)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a descriptor");
    r = http_refresh(&c->http, err);
    if (r < 0)
        return r;
    http_request_clear(&c->request);
    return http_request_make("POST", "/v1/instances", "application/json", text, strlen(text), &c->request, err);
}

static int coracle_create(struct subject *s, struct subject_instance *ret, struct error **err)
{
    struct coracle *c = s->state;
    struct subject_instance instance = {0};
    json_t *body;
    int status, r = http_send(&c->http, &c->request, &instance.t0_ns, err);

    if (r == 0)
        r = http_receive(&c->http, &status, &body, err);
    if (r < 0)
        return r;
    if (status >= 400)
        r = http_problem(status, body, err);
    snprintf(instance.id, sizeof(instance.id), "%s", text_of(json_object_get(body, "instance"), "id"));
    snprintf(instance.operation, sizeof(instance.operation), "%s", text_of(json_object_get(body, "operation"), "id"));
    json_decref(body);
    if (r == 0 && !*instance.id)
        r = error_set(err, EPROTO, "PROTOCOL_ERROR", "the create call's answer names no instance");
    if (r == 0) {
        atomic_fetch_add(&living, 1);
        *ret = instance;
    }
    return r;
}

static int wait_operation(struct coracle *c, const char *id, struct error **err)
{
    char path[160];
    json_t *operation = NULL;
    const json_t *problem;
    int r;

    snprintf(path, sizeof(path), "/v1/operations/%s?wait_ms=60000", id);
    r = http_call(&c->http, "GET", path, NULL, &operation, err);
    if (r < 0)
        return r;
    problem = json_object_get(operation, "error");
    if (strcmp(text_of(operation, "operationState"), "COMPLETED") != 0)
        r = json_is_object(problem) ? http_problem(500, problem, err)
                                    : error_set(err, EREMOTEIO, "START_FAILED", "operation ended as %s",
                                                text_of(operation, "operationState"));
    json_decref(operation);
    return r;
}

static int coracle_wait(struct subject *s, struct subject_instance *instance, struct error **err)
{
    return *instance->operation ? wait_operation(s->state, instance->operation, err) : 0;
}

static int coracle_inspect(struct subject *s, struct subject_instance *instance, struct error **err)
{
    struct coracle *c = s->state;
    char path[128];
    json_t *body = NULL, *nic;
    uint8_t *m = instance->mac;
    int r;

    snprintf(path, sizeof(path), "/v1/instances/%s", instance->id);
    r = http_call(&c->http, "GET", path, NULL, &body, err);
    if (r < 0)
        return r;
    nic = json_array_get(json_object_get(body, "networks"), 0);
    if (!inet_aton(text_of(nic, "ipv4"), &instance->address) ||
        sscanf(text_of(nic, "mac"), "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5]) != 6)
        r = error_set(err, EPROTO, "PROTOCOL_ERROR", "instance %s: no network with an address and a mac", instance->id);
    json_decref(body);
    return r;
}

static int coracle_destroy(struct subject *s, struct subject_instance *instance, struct error **err)
{
    struct coracle *c = s->state;
    char path[128];
    json_t *operation = NULL;
    int r;

    snprintf(path, sizeof(path), "/v1/instances/%s?force=true", instance->id);
    r = http_call(&c->http, "DELETE", path, NULL, &operation, err);
    if (r < 0)
        return r;
    if (*text_of(operation, "id"))
        r = wait_operation(c, text_of(operation, "id"), err);
    json_decref(operation);
    if (r == 0)
        atomic_fetch_sub(&living, 1);
    return r;
}

/* One start from a snapshot, not timed. -EBUSY: there is none. */
static int try_snapshot(struct subject *s, struct error **err)
{
    struct subject_instance instance = {0};
    struct error *why = NULL;
    int r = make_request(s, SUBJECT_START_SNAPSHOT, false, err);

    if (r == 0)
        r = coracle_create(s, &instance, err);
    if (r < 0)
        return r;
    r = coracle_wait(s, &instance, &why);
    if (r < 0 && strcmp(why->code, "CONFLICTING_STATE") == 0)
        r = -EBUSY;
    int removed = coracle_destroy(s, &instance, r < 0 ? NULL : err);
    if (r < 0 && err)
        *err = take_ptr(why);
    error_free(why);
    return r < 0 ? r : removed;
}

/*
 * Until a snapshot of this very image is there: GET /v1/host counts those of all images. It is made after the image's
 * first start, by booting it once more. One that does not come in time is not waited for again.
 */
static int wait_for_snapshot(struct subject *s, struct error **err)
{
    struct timespec pause = {0, SNAPSHOT_TRY_MS * 1000000};
    struct coracle *c = s->state;
    int64_t since = monotonic_ns();

    while (c->snapshot == SNAPSHOT_UNKNOWN) {
        struct error *why = NULL;
        int r = try_snapshot(s, &why);

        if (r == 0) {
            c->snapshot = SNAPSHOT_READY;
        } else if (r != -EBUSY) {
            if (err)
                *err = take_ptr(why);
            error_free(why);
            return r;
        } else if (monotonic_ns() - since > (int64_t)SNAPSHOT_WAIT_MS * 1000000) {
            c->snapshot = SNAPSHOT_NEVER;
        }
        error_free(why);
        if (c->snapshot == SNAPSHOT_UNKNOWN)
            nanosleep(&pause, NULL);
    }
    if (c->snapshot == SNAPSHOT_READY)
        return 0;
    return error_set(err, ETIMEDOUT, "TIMEOUT", "no snapshot of this image was ready within %d s",
                     SNAPSHOT_WAIT_MS / 1000);
}

static int coracle_prepare(struct subject *s, enum subject_start start, bool fixed_address, struct error **err)
{
    int r = start == SUBJECT_START_SNAPSHOT ? wait_for_snapshot(s, err) : 0;

    if (r == 0 && (start == SUBJECT_START_POOL || start == SUBJECT_START_SNAPSHOT))
        r = wait_for_pool(s->state, err);
    return r < 0 ? r : make_request(s, start, fixed_address, err);
}

static int coracle_image_bytes(struct subject *s, uint64_t *ret_bytes, struct error **err)
{
    struct coracle *c = s->state;
    char encoded[600], path[700];
    json_t *image = NULL, *size;
    int r;

    percent_encode(c->image, encoded, sizeof(encoded));
    snprintf(path, sizeof(path), "/v1/images/%s?guest=%s", encoded, c->guest);
    r = http_call(&c->http, "GET", path, NULL, &image, err);
    if (r < 0)
        return r;
    size = json_object_get(image, "size_bytes");
    if (json_is_integer(size))
        *ret_bytes = (uint64_t)json_integer_value(size);
    else
        r = error_set(err, EPROTO, "PROTOCOL_ERROR", "image %s: no size_bytes", c->image);
    json_decref(image);
    return r;
}

static uint64_t proportional_bytes(int pid)
{
    char path[64], line[256];
    unsigned long long kib = 0;

    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
    auto_file FILE *f = pid > 0 ? fopen(path, "re") : NULL;
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "Pss: %llu kB", &kib) == 1)
            break;
    return kib * 1024;
}

static int coracle_footprint(struct subject *s, struct footprint *ret, struct error **err)
{
    struct coracle *c = s->state;
    unsigned long long bytes = 0;
    auto_file FILE *f = *c->cgroup_file ? fopen(c->cgroup_file, "re") : NULL;

    if (!f || fscanf(f, "%llu", &bytes) != 1)
        return error_set(err, ENOENT, "LIMIT_NOT_ENFORCEABLE", "the host has no memory cgroup controller");
    *ret = (struct footprint){bytes, proportional_bytes(c->daemon_pid) + proportional_bytes(c->launcher_pid)};
    return 0;
}

static int coracle_clone(const struct subject *subject, struct subject *ret, struct error **err)
{
    const struct coracle *from = subject->state;
    struct coracle *c = malloc(sizeof(*c));
    int r;

    if (!c)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a client");
    *c = *from;
    c->request = (struct http_request){0};
    r = http_open(&c->http, from->http.path, err);
    if (r < 0) {
        free(c);
        return r;
    }
    *ret = *subject;
    ret->state = c;
    return 0;
}

const struct subject_ops subject_coracle = {
    .name = "coracle",
    .open = coracle_open,
    .close = coracle_close,
    .prepare = coracle_prepare,
    .create = coracle_create,
    .wait = coracle_wait,
    .inspect = coracle_inspect,
    .destroy = coracle_destroy,
    .image_bytes = coracle_image_bytes,
    .footprint = coracle_footprint,
    .clone = coracle_clone,
};
