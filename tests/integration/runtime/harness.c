/* SPDX-License-Identifier: Apache-2.0 */
/* See harness.h. The guest program's path and the init's come from the environment (meson sets them). */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/beside.h"
#include "base/cleanup.h"

enum { BESIDE_THREADS = 2 };

struct harness harness;
static unsigned next_number;

static void die(const char *what)
{
    fprintf(stderr, "harness: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void copy_file(const char *from, const char *to, mode_t mode)
{
    auto_fd int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    char buffer[65536];
    ssize_t n;

    if (in < 0 || out < 0)
        die(from);
    while ((n = read(in, buffer, sizeof(buffer))) > 0)
        if (write(out, buffer, (size_t)n) != n)
            die(to);
    if (fchown(out, IMAGE_UID, IMAGE_UID) || fchmod(out, mode))
        die(to);
}

void harness_layer_path(unsigned number, char *ret_path, size_t size)
{
    snprintf(ret_path, size, "%s/layers/%064x", harness.base, number);
}

void harness_empty_layer(unsigned number, char ret_digest[DIGEST_HEX_SIZE], char *ret_path, size_t size)
{
    char path[256];

    snprintf(ret_digest, DIGEST_HEX_SIZE, "%064x", number);
    harness_layer_path(number, path, sizeof(path));
    if (mkdir(path, 0755) || chown(path, IMAGE_UID, IMAGE_UID))
        die(path);
    if (ret_path)
        snprintf(ret_path, size, "%s", path);
}

void harness_layer(unsigned number, char ret_digest[DIGEST_HEX_SIZE], char *ret_path, size_t size)
{
    static const char *const directories[] = {"proc", "sys", "dev", "etc", "tmp", "work"};
    char path[256], file[300];

    harness_empty_layer(number, ret_digest, path, sizeof(path));
    for (size_t i = 0; i < sizeof(directories) / sizeof(directories[0]); i++) {
        snprintf(file, sizeof(file), "%s/%s", path, directories[i]);
        if (mkdir(file, 0755) || chown(file, IMAGE_UID, IMAGE_UID))
            die(file);
    }
    snprintf(file, sizeof(file), "%s/tmp", path);
    chmod(file, 01777);
    snprintf(file, sizeof(file), "%s/guest", path);
    copy_file(getenv("TEST_GUEST"), file, 0755);
    if (ret_path)
        snprintf(ret_path, size, "%s", path);
}

void harness_open(void)
{
    struct error *err = NULL;
    char path[128], text[512];
    struct runtime_config config = {
        .cgroup_parent = "coracle-test", .init_path = getenv("TEST_INIT"), .image_uid_base = IMAGE_UID};

    if (geteuid()) {
        fprintf(stderr, "skipped: needs root\n");
        exit(SKIP_STATUS);
    }
    if (!config.init_path || !getenv("TEST_GUEST")) {
        fprintf(stderr, "TEST_INIT and TEST_GUEST must name the programs\n");
        exit(1);
    }
    /* A file system that can be idmapped: tmpfs only since Linux 6.3. */
    snprintf(harness.base, sizeof(harness.base), "%.40s/coracle-test-XXXXXX",
             getenv("TEST_BASE") ? getenv("TEST_BASE") : "/tmp");
    if (!mkdtemp(harness.base))
        die(harness.base);
    chmod(harness.base, 0755);
    /* Shared, as everything is on a host with systemd: what is cloned from it must not stay so. */
    if (mount(harness.base, harness.base, NULL, MS_BIND, NULL) || mount(NULL, harness.base, NULL, MS_SHARED, NULL))
        die(harness.base);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%s/%s", harness.base, i ? "instances" : "layers");
        if (mkdir(path, 0700))
            die(path);
    }
    snprintf(path, sizeof(path), "%s/layers", harness.base);
    harness.layers_fd = config.layers_dirfd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    char own_parent[64];

    snprintf(own_parent, sizeof(own_parent), "coracle-test-%d", getpid());
    config.cgroup_parent = own_parent;
    if (runtime_open(&config, &harness.runtime, &err)) {
        fprintf(stderr, "runtime_open: %s\n", error_text(err, text, sizeof(text)));
        exit(1);
    }
    harness.beside = beside_open(BESIDE_THREADS);
    runtime_use_beside(harness.runtime, harness.beside);
    runtime_facts(harness.runtime, &harness.facts);
    if (!harness.facts.user_namespaces || !harness.facts.idmapped_mounts) {
        fprintf(stderr, "skipped: no user namespaces or idmapped mounts here\n");
        exit(SKIP_STATUS);
    }
    char digest[DIGEST_HEX_SIZE];

    harness_layer(1, digest, NULL, 0);
}

/* The cgroup parent of this process in every hierarchy; it must be empty by now. */
static int remove_parents(void)
{
    auto_file FILE *f = fopen("/proc/self/mountinfo", "re");
    char line[1024], path[400];
    int left = 0;

    while (f && fgets(line, sizeof(line), f)) {
        char *save, *point, *dash = strstr(line, " - cgroup");

        if (!dash)
            continue;
        point = strtok_r(line, " ", &save);
        for (int i = 1; i < 5; i++)
            point = strtok_r(NULL, " ", &save);
        snprintf(path, sizeof(path), "%s/coracle-test-%d", point, getpid());
        if (rmdir(path) && errno != ENOENT) {
            fprintf(stderr, "%s: %s\n", path, strerror(errno));
            left++;
        }
    }
    return left;
}

void harness_close(void)
{
    beside_close(harness.beside);
    runtime_close(harness.runtime);
    close(harness.layers_fd);
    umount2(harness.base, MNT_DETACH);
    nftw(harness.base, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    if (remove_parents())
        exit(1);
}

/* ---- one container ---- */

void run_init(struct run *run, ...)
{
    va_list arguments;
    size_t n = 0;

    memset(run, 0, sizeof(*run));
    run->instance_fd = -1;
    run->argv[n++] = (char *)"/guest";
    va_start(arguments, run);
    while (n < 15 && (run->argv[n] = va_arg(arguments, char *)))
        n++;
    va_end(arguments);
    run->env[0] = (char *)"TESTED=yes";
    next_number++;
    snprintf(run->tag, sizeof(run->tag), "t%u", next_number);
    run->uid_base = TEST_UID_BASE + next_number % 4096 * RUNTIME_ID_COUNT;
    snprintf(run->plan.hostname, sizeof(run->plan.hostname), "guest-host");
    run->plan.process =
        (struct plan_process){.argv = run->argv, .env = run->env, .cwd = (char *)"/", .user = (char *)"0"};
    snprintf(run->plan.root.layers[0], DIGEST_HEX_SIZE, "%064x", 1);
    run->plan.root.layer_count = 1;
    run->plan.root.read_only = true;
    run->plan.log_bytes_max = 1 << 20;
    snprintf(run->directory, sizeof(run->directory), "%s/instances/%s", harness.base, run->tag);
    if (mkdir(run->directory, 0700))
        die(run->directory);
    run->instance_fd = open(run->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int run_create(struct run *run)
{
    run->root = root_begin(harness.runtime, run->uid_base, &run->plan.root, run->instance_fd);
    return shell_create(harness.runtime, run->tag, run->uid_base, &run->shell, &run->steps, &run->err);
}

int run_root(struct run *run)
{
    run->rooted = true;
    return shell_take_root(run->shell, take_ptr(run->root), &run->steps, &run->err);
}

static int make_listener(const struct run *run)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    unlinkat(run->instance_fd, "init.sock", 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%.95s/init.sock", run->directory);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 16))
        die("listen");
    return fd;
}

int run_start(struct run *run)
{
    struct shell_start start = {.plan = &run->plan, .instance_dirfd = run->instance_fd};
    const int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC;
    int result;

    if (!run->shell && (result = run_create(run)))
        return result;
    if (!run->rooted && (result = run_root(run)))
        return result;
    run->rooted = false;
    auto_fd int log0 = openat(run->instance_fd, "log.0", flags, 0600),
                log1 = openat(run->instance_fd, "log.1", flags, 0600);
    auto_fd int listener = make_listener(run), out = openat(run->instance_fd, "exit", flags | O_TRUNC, 0600);

    start.log_fds[0] = log0;
    start.log_fds[1] = log1;
    start.exit_fd = out;
    start.listen_fd = listener;
    result = shell_start(run->shell, &start, &run->container, &run->steps, &run->err);
    if (!result)
        run->shell = NULL;
    return result;
}

/* Both log files, the older one first, without time and stream. */
void run_logs(struct run *run)
{
    static char text[2 << 20];
    size_t used = 0;
    bool swap = false;
    char first[2][40] = {"", ""};

    for (int i = 0; i < 2; i++) {
        auto_fd int fd = openat(run->instance_fd, i ? "log.1" : "log.0", O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? 0 : read(fd, first[i], 30);

        first[i][n > 0 ? n : 0] = 0;
    }
    swap = first[1][0] && strcmp(first[1], first[0]) < 0;
    run->output[0] = 0;
    run->log_bytes = 0;
    for (int i = 0; i < 2; i++) {
        auto_fd int fd = openat(run->instance_fd, (i == 1) != swap ? "log.1" : "log.0", O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
        char *save, *line;

        text[n > 0 ? n : 0] = 0;
        run->log_bytes += n > 0 ? (unsigned)n : 0;
        for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
            char *body = line;

            for (int k = 0; k < 3 && body; k++)
                body = strchr(body, ' ') ? strchr(body, ' ') + 1 : NULL;
            if (!body || used + strlen(body) + 2 >= sizeof(run->output))
                continue;
            used += (size_t)snprintf(run->output + used, sizeof(run->output) - used, "%s%s", body,
                                     body[-2] == 'F' ? "\n" : "");
        }
    }
}

void run_wait(struct run *run)
{
    struct pollfd wait = {container_pidfd(run->container), POLLIN, 0};

    if (poll(&wait, 1, 30000) != 1)
        die("the container does not end");
    if (container_exit_read(run->container, run->instance_fd, &run->exit, &run->err))
        die("exit");
    run_logs(run);
}

int run_end(struct run *run)
{
    int result = 0;

    if (run->container)
        result = container_destroy(run->container, run->err ? NULL : &run->err);
    if (run->shell)
        result = shell_destroy(run->shell, run->err ? NULL : &run->err);
    root_drop(run->root);
    run->root = NULL;
    run->container = NULL;
    run->shell = NULL;
    run->rooted = false;
    return result;
}

void run_clear(struct run *run)
{
    if (run_end(run))
        die("destroy");
    if (runtime_writable_release(run->instance_fd, NULL))
        die("writable");
    close(run->instance_fd);
    run->instance_fd = -1;
    nftw(run->directory, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    error_free(run->err);
    run->err = NULL;
}

int run_all(struct run *run)
{
    int result = run_start(run);

    if (!result)
        run_wait(run);
    return result;
}

/* ---- what is in use ---- */

/* Mounts below the test's own directory: others on this machine come and go. */
static unsigned count_mounts(void)
{
    auto_file FILE *f = fopen("/proc/self/mountinfo", "re");
    char line[2048];
    unsigned n = 0;

    while (f && fgets(line, sizeof(line), f))
        n += strstr(line, harness.base) != NULL;
    return n;
}

/* Without the user namespaces the runtime keeps for idmapping: their number is bounded, and checked to be. */
static unsigned count_fds(unsigned *ret_cached)
{
    auto_dir DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    unsigned n = 0;
    char link[64];

    *ret_cached = 0;
    while (dir && (entry = readdir(dir))) {
        ssize_t size = readlinkat(dirfd(dir), entry->d_name, link, sizeof(link) - 1);

        link[size > 0 ? size : 0] = 0;
        if (!strncmp(link, "user:[", 6))
            ++*ret_cached;
        else
            n++;
    }
    return n;
}

static unsigned own_cgroups;

static int count_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    char own[48];

    (void)st;
    (void)ftw;
    snprintf(own, sizeof(own), "/coracle-test-%d/", getpid());
    if (type == FTW_D && strstr(path, own))
        own_cgroups++;
    return 0;
}

/* Children of this thread, zombies included. */
static unsigned count_children(void)
{
    char path[64], text[4096];
    unsigned n = 0;

    snprintf(path, sizeof(path), "/proc/self/task/%d/children", gettid());
    auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof(text));

    for (ssize_t i = 0; i < size; i++)
        n += text[i] == ' ';
    return n;
}

/* The kernel's own count of network namespaces, whoever made them; 0 where it is not told. */
unsigned count_netns(void)
{
    auto_file FILE *f = fopen("/proc/slabinfo", "re");
    char line[512];
    unsigned active = 0;

    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "net_namespace %u", &active) == 1)
            return active;
    return 0;
}

void count_resources(struct counts *ret)
{
    beside_close(harness.beside); /* what it is still to close */
    harness.beside = beside_open(BESIDE_THREADS);
    runtime_use_beside(harness.runtime, harness.beside);
    own_cgroups = 0;
    nftw("/sys/fs/cgroup", count_one, 32, FTW_PHYS);
    ret->mounts = count_mounts();
    ret->cgroups = own_cgroups;
    ret->fds = count_fds(&ret->cached);
    ret->children = count_children();
}

bool counts_same(const struct counts *before)
{
    struct counts now;

    count_resources(&now);
    fprintf(stderr,
            "mounts %u -> %u, cgroups %u -> %u, descriptors %u -> %u (and %u user namespaces), children %u -> %u\n",
            before->mounts, now.mounts, before->cgroups, now.cgroups, before->fds, now.fds, now.cached,
            before->children, now.children);
    return now.mounts == before->mounts && now.cgroups == before->cgroups && now.fds == before->fds &&
           now.cached <= 64 && now.children == before->children;
}
