/* SPDX-License-Identifier: Apache-2.0 */
/* The test bed of bed.h. Everything it makes carries its own random name, so that several run beside each other. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
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

#include "base/cleanup.h"
#include "netlink/netlink.h"
#include "tests/integration/launcher/bed.h"

enum { IMAGE_UID = 1 << 29, SKIP = 77, ANSWER_TIMEOUT_MS = 30000 };

static struct bed *current; /* for bed_die(): its launcher must not outlive the test */

void bed_die(const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    vfprintf(stderr, format, ap);
    va_end(ap);
    fputc('\n', stderr);
    if (current)
        bed_close(current);
    exit(1);
}

void bed_need_root(void)
{
    if (geteuid() == 0)
        return;
    fputs("skipped: the launcher needs root\n", stderr);
    exit(SKIP);
}

static const char *environment(const char *name)
{
    const char *value = getenv(name);

    if (!value)
        bed_die("%s is not set: run this by way of `meson test`", name);
    return value;
}

static void make(const char *path, mode_t mode, uid_t owner)
{
    if (mkdir(path, mode) < 0 || chmod(path, mode) < 0 || chown(path, owner, owner) < 0)
        bed_die("making %s: %s", path, strerror(errno));
}

static void copy_file(const char *from, const char *to, uid_t owner)
{
    auto_fd int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    char block[65536];
    ssize_t n;

    if (in < 0 || out < 0)
        bed_die("copying %s to %s: %s", from, to, strerror(errno));
    while ((n = read(in, block, sizeof(block))) > 0)
        if (write(out, block, (size_t)n) != n)
            bed_die("writing %s: %s", to, strerror(errno));
    if (fchmod(out, 0755) < 0 || fchown(out, owner, owner) < 0)
        bed_die("owner of %s: %s", to, strerror(errno));
}

/* One layer: /app, and the mount points a read-only root needs. */
static void make_image(struct bed *b)
{
    static const char *const folders[] = {"", "/dev", "/proc", "/sys", "/etc", "/tmp"};
    char path[512];

    memset(b->layer, 'a', sizeof(b->layer) - 1);
    snprintf(path, sizeof(path), "%s/images", b->state);
    make(path, 0750, 0);
    snprintf(path, sizeof(path), "%s/images/layers", b->state);
    make(path, 0750, 0);
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        snprintf(path, sizeof(path), "%s/images/layers/%s%s", b->state, b->layer, folders[i]);
        make(path, 0755, IMAGE_UID);
    }
    snprintf(path, sizeof(path), "%s/images/layers/%s/app", b->state, b->layer);
    copy_file(environment("CORACLE_TEST_APP"), path, IMAGE_UID);
}

static void make_libexec(struct bed *b)
{
    char path[512];

    make(b->libexec, 0700, 0); /* closed to the image range: coracle-unpack must be executed all the same */
    snprintf(path, sizeof(path), "%s/coracle-init", b->libexec);
    if (symlink(environment("CORACLE_INIT"), path) < 0)
        bed_die("linking %s: %s", path, strerror(errno));
    snprintf(path, sizeof(path), "%s/coracle-unpack", b->libexec);
    if (getenv("CORACLE_UNPACK") && symlink(getenv("CORACLE_UNPACK"), path) < 0)
        bed_die("linking %s: %s", path, strerror(errno));
}

/* /run is a tmpfs on every host, so it is one here. */
void bed_run_size(struct bed *b, const char *size)
{
    char options[64];

    snprintf(options, sizeof(options), "mode=755,size=%s", size);
    if (mount("coracle-bed", b->run, "tmpfs", 0, options) < 0)
        bed_die("mounting %s: %s", b->run, strerror(errno));
}

void bed_open(struct bed *b, const char *config)
{
    memset(b, 0, sizeof(*b));
    b->fd = -1;
    snprintf(b->dir, sizeof(b->dir), "/tmp/coracle-bed-XXXXXX");
    if (!mkdtemp(b->dir))
        bed_die("making %s: %s", b->dir, strerror(errno));
    chmod(b->dir, 0755);
    snprintf(b->run, sizeof(b->run), "%s/run", b->dir);
    snprintf(b->state, sizeof(b->state), "%s/state", b->dir);
    snprintf(b->libexec, sizeof(b->libexec), "%s/libexec", b->dir);
    snprintf(b->config, sizeof(b->config), "%s/host.conf", b->dir);
    snprintf(b->cgroup, sizeof(b->cgroup), "coracle-%s", b->dir + strlen(b->dir) - 6);
    current = b;
    make(b->run, 0755, 0);
    bed_run_size(b, "64m");
    make(b->state, 0755, 0);
    make_image(b);
    make_libexec(b);
    auto_file FILE *f = fopen(b->config, "we");
    if (!f || fputs(config ? config : "", f) < 0)
        bed_die("writing %s: %s", b->config, strerror(errno));
}

static void run_quietly(const char *format, ...)
{
    char command[1024];
    va_list ap;

    va_start(ap, format);
    vsnprintf(command, sizeof(command), format, ap);
    va_end(ap);
    if (system(command) != 0)
        fprintf(stderr, "failed: %s\n", command);
}

void bed_close(struct bed *b)
{
    current = NULL;
    for (size_t i = 0; i < b->event_count; i++)
        proto_message_end(&b->events[i]);
    b->event_count = 0;
    if (b->launcher > 0)
        bed_kill(b, SIGKILL);
    /* what a failed test left; a test that passed has counted before */
    run_quietly("for d in $(find /sys/fs/cgroup -depth -type d -path '*/%s*' 2>/dev/null); do"
                " for p in $(cat $d/cgroup.procs 2>/dev/null); do kill -9 $p 2>/dev/null; done;"
                " [ -w $d/freezer.state ] && echo THAWED > $d/freezer.state; done; true",
                b->cgroup);
    run_quietly("sleep 0.1; for d in $(find /sys/fs/cgroup -depth -type d -path '*/%s*' 2>/dev/null); do"
                " rmdir $d 2>/dev/null; done; true",
                b->cgroup);
    run_quietly(
        "for m in $(awk '{print $5}' /proc/self/mountinfo | grep '^%s/' | sort -r); do umount -l $m; done; true",
        b->dir);
    run_quietly("rm -rf --one-file-system %s", b->dir);
}

/* HELLO and its answer; false when the connection ends: the socket of a launcher that was killed while it cloned can
 * stay open in the child for a moment, and takes a connection nobody will ever serve. */
static bool greet(struct bed *b)
{
    struct message_hello hello = {.version = PROTO_VERSION, .software = "test"};
    struct proto_message m;
    bool answered;

    answered =
        proto_send(b->fd, MESSAGE_HELLO, ++b->request, &hello, NULL, 0, NULL) == 0 && bed_receive(b, b->request, &m);
    if (!answered)
        return false;
    if (m.type != MESSAGE_HELLO)
        bed_die("the launcher does not say HELLO");
    proto_message_end(&m);
    return true;
}

void bed_connect(struct bed *b)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct timespec pause = {.tv_nsec = 2000000};

    snprintf(a.sun_path, sizeof(a.sun_path), "%.90s/launcher.sock", b->run);
    for (int i = 0;; i++) {
        b->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        if (connect(b->fd, (struct sockaddr *)&a, sizeof(a)) == 0 && greet(b))
            return;
        b->fd = close_fd(b->fd);
        int status = 0;
        if (b->launcher > 0 && waitpid(b->launcher, &status, WNOHANG) == b->launcher)
            bed_die("the launcher ended before it listened, wait status %#x", (unsigned)status);
        if (i > 30000)
            bed_die("the launcher does not listen");
        nanosleep(&pause, NULL);
    }
}

void bed_launch(struct bed *b)
{
    const char *program = environment("CORACLE_LAUNCHER");
    char *const argv[] = {(char *)program,
                          "--run-dir",
                          b->run,
                          "--state-dir",
                          b->state,
                          "--cgroup",
                          b->cgroup,
                          "--user",
                          "root",
                          "--libexec-dir",
                          b->libexec,
                          "--config",
                          b->config,
                          "--log-level",
                          (char *)(getenv("BED_LOG") ? getenv("BED_LOG") : "warning"),
                          NULL};

    b->launcher = fork();
    if (b->launcher == 0) {
        execv(program, argv);
        _exit(127);
    }
    bed_connect(b);
}

void bed_kill(struct bed *b, int signal)
{
    int status = 0;

    kill(b->launcher, signal);
    while (waitpid(b->launcher, &status, 0) < 0 && errno == EINTR)
        ;
    b->launcher = -1;
    b->fd = close_fd(b->fd);
    if (signal == SIGTERM && status)
        bed_die("the launcher was to end, and did with wait status %#x", (unsigned)status);
}

uint32_t bed_send(struct bed *b, enum message_type type, const void *message, const int *fds, size_t fd_count)
{
    struct error *err = NULL;

    if (proto_send(b->fd, type, ++b->request, message, fds, fd_count, &err) < 0)
        bed_die("sending %s: %s", proto_type_name(type), err ? err->message : "the socket is full");
    return b->request;
}

static bool receive_any(struct bed *b, int timeout_ms, struct proto_message *ret)
{
    struct pollfd p = {.fd = b->fd, .events = POLLIN};
    struct error *err = NULL;
    int r;

    if (poll(&p, 1, timeout_ms) <= 0)
        return false;
    r = proto_receive(b->fd, ret, &err);
    if (r < 0)
        bed_die("the launcher's message: %s", err ? err->message : strerror(-r));
    return r == 1;
}

bool bed_receive(struct bed *b, uint32_t request, struct proto_message *ret)
{
    struct proto_message m;

    while (receive_any(b, ANSWER_TIMEOUT_MS, &m)) {
        if (m.request == request) {
            *ret = m;
            return true;
        }
        if (b->event_count == BED_EVENTS_MAX) {
            proto_message_end(&b->events[0]);
            memmove(b->events, b->events + 1, --b->event_count * sizeof(m));
        }
        b->events[b->event_count++] = m;
    }
    return false;
}

enum message_type bed_ask(struct bed *b, enum message_type type, const void *message, struct proto_message *ret)
{
    struct proto_message m;

    if (!bed_receive(b, bed_send(b, type, message, NULL, 0), &m))
        bed_die("no answer to %s", proto_type_name(type));
    enum message_type answer = m.type;
    if (ret)
        *ret = m;
    else
        proto_message_end(&m);
    return answer;
}

const char *bed_refusal(struct bed *b, enum message_type type, const void *message)
{
    static char code[64];
    struct proto_message m;

    code[0] = '\0';
    if (bed_ask(b, type, message, &m) == MESSAGE_FAILED)
        snprintf(code, sizeof(code), "%s", ((struct error *)m.body)->code);
    proto_message_end(&m);
    return code;
}

bool bed_wait_exited(struct bed *b, const char *id, int timeout_ms, struct message_exited *ret)
{
    for (;;) {
        for (size_t i = 0; i < b->event_count; i++) {
            const struct message_exited *e = b->events[i].body;
            if (b->events[i].type != MESSAGE_EXITED || strcmp(e->id, id) != 0)
                continue;
            *ret = *e;
            proto_message_end(&b->events[i]);
            memmove(&b->events[i], &b->events[i + 1], (--b->event_count - i) * sizeof(b->events[0]));
            return true;
        }
        if (b->event_count == BED_EVENTS_MAX || !receive_any(b, timeout_ms, &b->events[b->event_count]))
            return false;
        b->event_count++;
    }
}

void bed_link(struct bed *b)
{
    struct link link = {.name = "default", .prefix4 = 15, .prefix6 = 64};

    inet_pton(AF_INET, "198.18.0.1", &link.gateway4);
    inet_pton(AF_INET6, "fd00:c0:ffee::1", &link.gateway6);
    BED_CHECK(strcmp(bed_refusal(b, MESSAGE_LINK_ADD, &link), "") == 0);
}

void bed_id(unsigned n, char id[INSTANCE_ID_SIZE])
{
    snprintf(id, INSTANCE_ID_SIZE, "00000000-0000-4000-8000-%012x", n);
}

static char **strings(const char *a, const char *b, const char *c)
{
    char **list = calloc(4, sizeof(*list));

    list[0] = strdup(a);
    list[1] = b ? strdup(b) : NULL;
    list[2] = b && c ? strdup(c) : NULL;
    return list;
}

void bed_plan(struct bed *b, struct launch_plan *plan, unsigned n, const char *arg, const char *value)
{
    struct plan_nic *nic = &plan->nics[0];

    memset(plan, 0, sizeof(*plan));
    bed_id(n, plan->id);
    snprintf(plan->name, sizeof(plan->name), "t%u", n);
    snprintf(plan->hostname, sizeof(plan->hostname), "t%u", n);
    plan->kind = PLAN_CONTAINER;
    plan->process.argv = strings("/app", arg, value);
    plan->process.env = strings("PATH=/", NULL, NULL);
    plan->process.cwd = strdup("/");
    plan->root.read_only = true;
    plan->root.layer_count = 1;
    memcpy(plan->root.layers[0], b->layer, sizeof(b->layer));
    plan->nic_count = 1;
    snprintf(nic->link, sizeof(nic->link), "default");
    nic->ipv4.s_addr = htonl(0xc6120000 + 256 + n);
    nic->prefix4 = 15;
    inet_pton(AF_INET, "198.18.0.1", &nic->gateway4);
    inet_pton(AF_INET6, "fd00:c0:ffee::1", &nic->gateway6);
    nic->ipv6 = nic->gateway6;
    nic->ipv6.s6_addr[13] = 1;
    nic->ipv6.s6_addr[14] = (uint8_t)(n >> 8);
    nic->ipv6.s6_addr[15] = (uint8_t)n;
    nic->prefix6 = 64;
    memcpy(nic->mac, (uint8_t[]){2, 0, 0, (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n}, 6);
}

void bed_start(struct bed *b, unsigned n, const char *arg, const char *value, struct message_started *ret)
{
    struct proto_message m;
    struct launch_plan plan;

    bed_plan(b, &plan, n, arg, value);
    if (bed_ask(b, MESSAGE_START, &plan, &m) != MESSAGE_STARTED) {
        char words[1024] = "";
        bed_die("start of %u: %s", n, m.type == MESSAGE_FAILED ? error_text(m.body, words, sizeof(words)) : "?");
    }
    if (ret)
        *ret = *(struct message_started *)m.body;
    proto_message_end(&m);
    plan_clear(&plan);
}

bool bed_release(struct bed *b, unsigned n)
{
    struct message_id m;

    bed_id(n, m.id);
    return bed_ask(b, MESSAGE_RELEASE, &m, NULL) == MESSAGE_DONE;
}

unsigned bed_list(struct bed *b, struct message_instance *list, unsigned max)
{
    uint32_t request = bed_send(b, MESSAGE_LIST, NULL, NULL, 0);
    struct proto_message m;
    unsigned count = 0;

    while (bed_receive(b, request, &m) && m.type == MESSAGE_INSTANCE) {
        if (count < max)
            list[count] = *(struct message_instance *)m.body;
        count++;
        proto_message_end(&m);
    }
    if (m.type != MESSAGE_DONE)
        bed_die("LIST does not end");
    return count;
}

unsigned bed_release_all(struct bed *b)
{
    static struct message_instance list[1024];
    unsigned count = bed_list(b, list, 1024);

    for (unsigned i = 0; i < count; i++) {
        struct message_id m;
        memcpy(m.id, list[i].id, sizeof(m.id));
        if (bed_ask(b, MESSAGE_RELEASE, &m, NULL) != MESSAGE_DONE)
            bed_die("%s is not released", m.id);
    }
    return count;
}

static int enter_fabric(const struct bed *b)
{
    char path[128];
    auto_fd int fd = -1;

    snprintf(path, sizeof(path), "%s/fabric", b->run);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -1 : setns(fd, CLONE_NEWNET);
}

static long elapsed_us(const struct timespec *from)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - from->tv_sec) * 1000000 + (now.tv_nsec - from->tv_nsec) / 1000;
}

/* One connection attempt and the byte; false: not yet. */
static bool knock_once(const struct plan_nic *nic, int port, bool v6)
{
    struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = nic->ipv4};
    struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port), .sin6_addr = nic->ipv6};
    auto_fd int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {.tv_sec = 1};
    char byte;

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    return connect(fd, v6 ? (struct sockaddr *)&a6 : (struct sockaddr *)&a4, v6 ? sizeof(a6) : sizeof(a4)) == 0 &&
           read(fd, &byte, 1) == 1 && byte == '!';
}

long bed_knock(struct bed *b, unsigned n, int port, bool v6, int timeout_ms)
{
    auto_fd int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    struct launch_plan plan;
    struct timespec begin;
    bool there = false;

    clock_gettime(CLOCK_MONOTONIC, &begin);
    bed_plan(b, &plan, n, NULL, NULL);
    if (enter_fabric(b) < 0)
        bed_die("entering the fabric: %s", strerror(errno));
    while (!(there = knock_once(&plan.nics[0], port, v6)) && elapsed_us(&begin) < timeout_ms * 1000L)
        usleep(1000);
    plan_clear(&plan);
    if (setns(home, CLONE_NEWNET) < 0)
        bed_die("leaving the fabric: %s", strerror(errno));
    return there ? elapsed_us(&begin) : -1;
}

/* ---- what is left ---- */

static unsigned count_lines(const char *format, ...)
{
    char command[1024];
    unsigned n = 0;
    va_list ap;
    FILE *p;

    va_start(ap, format);
    vsnprintf(command, sizeof(command), format, ap);
    va_end(ap);
    p = popen(command, "re");
    if (!p || fscanf(p, "%u", &n) != 1)
        bed_die("counting with: %s", command);
    pclose(p);
    return n;
}

static unsigned count_entries(const char *format, ...)
{
    const struct dirent *e;
    char path[256];
    unsigned n = 0;
    va_list ap;

    va_start(ap, format);
    vsnprintf(path, sizeof(path), format, ap);
    va_end(ap);
    auto_dir DIR *d = opendir(path);
    while (d && (e = readdir(d)))
        n += e->d_name[0] != '.';
    return n;
}

static void count_veth(void *context, uint32_t index, const char *name, const char *kind)
{
    *(unsigned *)context += strcmp(kind, "veth") == 0 && name[0] == 'v';
}

static unsigned count_veths(const struct bed *b)
{
    auto_fd int netns = -1, fd = -1;
    char path[128];
    unsigned n = 0;

    snprintf(path, sizeof(path), "%s/fabric", b->run);
    netns = open(path, O_RDONLY | O_CLOEXEC);
    if (netns < 0 || netlink_open(netns, &fd, NULL) < 0 || netlink_list(fd, count_veth, &n, NULL) < 0)
        return 0; /* no fabric, nothing in it */
    return n;
}

void bed_count(struct bed *b, struct remains *ret)
{
    *ret = (struct remains){
        .processes = count_lines("cat /sys/fs/cgroup/*/%s/*/cgroup.procs /sys/fs/cgroup/%s/*/cgroup.procs 2>/dev/null"
                                 " | sort -u | wc -l",
                                 b->cgroup, b->cgroup),
        .cgroups = count_lines("find /sys/fs/cgroup -mindepth 2 -type d -path '*/%s/*' 2>/dev/null | wc -l", b->cgroup),
        .mounts = count_lines("grep -c ' %s/run/instances' /proc/self/mountinfo; true", b->dir),
        .veths = count_veths(b),
        .instance_folders = count_entries("%s/instances", b->run),
        .log_folders = count_entries("%s/logs", b->state),
        .scratch = count_entries("%s/images/tmp", b->state),
    };
}

void remains_print(const struct remains *r)
{
    fprintf(stderr,
            "left: %u processes, %u cgroups, %u mounts, %u veths, %u instance folders, %u log folders, %u scratch\n",
            r->processes, r->cgroups, r->mounts, r->veths, r->instance_folders, r->log_folders, r->scratch);
}

bool bed_clean(struct bed *b, int timeout_ms, struct remains *ret)
{
    static const struct remains none;
    struct timespec begin;

    clock_gettime(CLOCK_MONOTONIC, &begin);
    do {
        bed_count(b, ret);
        if (memcmp(ret, &none, sizeof(none)) == 0)
            return true;
        usleep(20000);
    } while (elapsed_us(&begin) < timeout_ms * 1000L);
    remains_print(ret);
    return false;
}

long bed_rss(const struct bed *b)
{
    char path[64], line[128];
    long kib = -1;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)b->launcher);
    auto_file FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "VmRSS: %ld", &kib) == 1)
            break;
    return kib;
}
