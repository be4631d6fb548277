/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest-container: the application of a Tinyx guest that carries a container. It has the platform's container runtime
 * (src/runtime) within, and does for the one container of this guest what the launcher does for a host's: namespaces,
 * uid range, cgroups, capabilities, seccomp, the layer in memory.
 *
 * What is to run comes on two disks (docs/formats/guest-container.md): the image's root as an EROFS file system, and
 * the words that the launcher made of the plan. Who the guest is on the network the kernel's command line says, as for
 * every Tinyx guest; its interfaces move into the container. guest-init, process 1, started this program, asks it to
 * end with SIGTERM, and reports its exit status, which is the container's, as the machine's.
 */
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
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "guest/container.h"
#include "images/tinyx/container/sessions.h"
#include "images/tinyx/init/guest.h"
#include "model/capability.h"
#include "runtime/runtime.h"

enum { UID_BASE = 1 << 20, EXIT_NOT_STARTED = 125, EXIT_NOT_FOUND = 127, EROFS_AT = 1024, READ_BYTES = 16384 };
#define LAYER     "0000000000000000000000000000000000000000000000000000000000000000"
#define LAYERS    "/run/layers"
#define INSTANCE  "/run/instance"
#define INIT_PATH "/sbin/coracle-init"

static struct guest {
    struct config config;
    struct container_words words;
    char text[CONTAINER_TEXT_MAX];
    struct launch_plan plan; /* borrows from words */
    struct runtime *runtime;
    struct container *container;
    int instance, output[2]; /* directory; what the application wrote, as the log's records */
    int signals;
} guest;

void say(const char *format, ...)
{
    char line[800];
    va_list arguments;
    int n = snprintf(line, sizeof(line), "guest-container: ");

    va_start(arguments, format);
    vsnprintf(line + n, sizeof(line) - (size_t)n - 1, format, arguments);
    va_end(arguments);
    strcat(line, "\n");
    (void)!write(STDERR_FILENO, line, strlen(line));
}

static void __attribute__((noreturn)) give_up(const struct error *err)
{
    char text[600];

    say("%s", error_text(err, text, sizeof(text)));
    if (err && err->hint)
        say("try: %s", err->hint);
    exit(err && err->errnum == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_STARTED);
}

static void must(int result, const char *what)
{
    auto_error struct error *err = NULL;

    if (result >= 0)
        return;
    error_set_errno(&err, errno, "START_FAILED", "%s", what);
    error_hint(&err, "build the guest's image again: coracle build carrier --for tinyx.kvm");
    err->errnum = EIO;
    give_up(err);
}

/* ---- the two disks ---- */

static bool is_erofs(int fd)
{
    static const unsigned char magic[4] = {0xe2, 0xe1, 0xf5, 0xe0};
    unsigned char found[4];

    return pread(fd, found, sizeof(found), EROFS_AT) == sizeof(found) && memcmp(found, magic, sizeof(magic)) == 0;
}

/* 1: these are the words. */
static int read_words(int fd)
{
    const char *why = "";
    size_t used = 0;
    ssize_t n;

    while (used < sizeof(guest.text) && (n = read(fd, guest.text + used, sizeof(guest.text) - used)) > 0)
        used += (size_t)n;
    int result = container_words_parse(guest.text, used, &guest.words, &why);
    if (result == -EINVAL) {
        auto_error struct error *err = NULL;
        error_set(&err, EINVAL, "START_FAILED", "the container's words: %s", why);
        error_hint(&err, "build the guest's image again: coracle build carrier --for tinyx.kvm");
        give_up(err);
    }
    return result == 0;
}

static void look_at_disk(const char *name, bool *root, bool *words)
{
    char path[64];

    snprintf(path, sizeof(path), "/dev/%.32s", name);
    auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (!*root && is_erofs(fd)) {
        must(mount(path, LAYERS "/" LAYER, "erofs", MS_RDONLY | MS_NOSUID | MS_NODEV, NULL),
             "the image's root cannot be mounted");
        *root = true;
    } else if (!*words && read_words(fd)) {
        *words = true;
    }
}

static void find_disks(void)
{
    auto_dir DIR *block = opendir("/sys/block");
    bool root = false, words = false;
    struct dirent *entry;

    while (block && (entry = readdir(block)))
        if (entry->d_name[0] != '.')
            look_at_disk(entry->d_name, &root, &words);
    errno = ENODEV;
    must(root ? 0 : -1, "no disk has the image's root");
    must(words ? 0 : -1, "no disk has the container's words");
}

/* ---- the places the runtime wants ---- */

/* The first file system cannot be pivoted away from, and containers are made by that: a mount of it can. */
static void leave_initramfs(void)
{
    mkdir("/run/root", 0700);
    must(unshare(CLONE_NEWNS), "no mount namespace");
    must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private mounts");
    must(mount("/", "/run/root", NULL, MS_BIND | MS_REC, NULL), "the initramfs cannot be bound");
    must(chdir("/run/root"), "/run/root");
    must(mount(".", "/", NULL, MS_MOVE, NULL), "the root cannot be moved");
    must(chroot("."), "chroot");
}

static void make_places(void)
{
    mkdir(LAYERS, 0755);
    mkdir(LAYERS "/" LAYER, 0755);
    mkdir(INSTANCE, 0700);
    must(mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "no cgroups");
    guest.instance = open(INSTANCE, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    must(guest.instance, INSTANCE);
}

/* ---- the plan ---- */

/* For /etc/hosts alone: the interfaces get their addresses from the words themselves. */
static void take_addresses(void)
{
    struct launch_plan *plan = &guest.plan;

    for (unsigned i = 0; i < CONFIG_NIC_MAX && i < NETWORK_PER_INSTANCE_MAX; i++) {
        const struct config_nic *from = &guest.config.nics[i];
        for (unsigned j = 0; j < from->address_count; j++) {
            struct plan_nic *to = &plan->nics[i];
            if (from->addresses[j].family == 4) {
                memcpy(&to->ipv4, from->addresses[j].ip, sizeof(to->ipv4));
                to->prefix4 = from->addresses[j].prefix;
            } else {
                memcpy(&to->ipv6, from->addresses[j].ip, sizeof(to->ipv6));
                to->prefix6 = from->addresses[j].prefix;
            }
            plan->nic_count = i + 1;
        }
    }
}

static void make_plan(void)
{
    const struct container_words *w = &guest.words;
    struct launch_plan *plan = &guest.plan;

    *plan = (struct launch_plan){
        .kind = PLAN_CONTAINER,
        .process = {.argv = guest.words.arguments,
                    .env = guest.words.env,
                    .cwd = (char *)(uintptr_t)w->directory,
                    .user = (char *)(uintptr_t)w->user,
                    .tty = w->terminal,
                    .open_stdin = w->open_stdin},
        .root = {.layers = {LAYER}, .layer_count = 1, .read_only = w->read_only, .writable_bytes = w->writable_bytes},
        .limits = {.memory_bytes = w->memory_bytes, .pids = w->pids},
        .capabilities = w->capabilities,
        .log_bytes_max = UINT64_C(1) << 62};
    snprintf(plan->hostname, sizeof(plan->hostname), "%.63s",
             *guest.config.hostname ? guest.config.hostname : "container");
    take_addresses();
}

/* ---- the start ---- */

static void open_runtime(void)
{
    auto_fd int layers = open(LAYERS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const struct runtime_config config = {.layers_dirfd = layers, .cgroup_parent = "coracle", .init_path = INIT_PATH};
    auto_error struct error *err = NULL;

    if (runtime_open(&config, &guest.runtime, &err) < 0)
        give_up(err);
}

/* Where the container's init takes commands from this program. */
static int listen_for_commands(void)
{
    const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = INSTANCE "/init.sock"};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    must(fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 16) < 0 ? -1 : 0,
         "init.sock");
    return fd;
}

static void start(void)
{
    struct shell_start order = {.plan = &guest.plan, .instance_dirfd = guest.instance, .listen_fd = -1};
    auto_error struct error *err = NULL;
    struct steps steps = {0};
    struct shell *shell;
    int pipe_fds[2];

    must(pipe2(pipe_fds, O_CLOEXEC), "pipe");
    guest.output[0] = pipe_fds[0];
    order.log_fds[0] = order.log_fds[1] = pipe_fds[1];
    order.listen_fd = listen_for_commands();
    order.exit_fd = openat(guest.instance, "exit", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    must(order.exit_fd, "the exit file");
    if (shell_create(guest.runtime, "container", UID_BASE, &shell, &steps, &err) < 0 ||
        shell_set_root(shell, &guest.plan.root, guest.instance, &steps, &err) < 0)
        give_up(err);
    errno = -network_enter(shell_netns_fd(shell));
    must(-errno, "the interfaces cannot be moved to the container");
    network_apply(&guest.config);
    if (shell_start(shell, &order, &guest.container, &steps, &err) < 0)
        give_up(err);
    close_fd(pipe_fds[1]);
    close_fd(order.exit_fd);
    close_fd(order.listen_fd);
    sessions_open(guest.container);
}

/* ---- while it runs ---- */

/* A record is "TIME STREAM F text\n", or P where no end of line was written. What is left of an unfinished one stays.
 */
static size_t forward_records(char *bytes, size_t size)
{
    size_t done = 0;
    char *end;

    while ((end = memchr(bytes + done, '\n', size - done))) {
        char *stream = memchr(bytes + done, ' ', (size_t)(end - bytes) - done);
        if (stream && end - stream > 10) { /* " stdout F " */
            const bool error = memcmp(stream + 1, "stderr", 6) == 0, whole = stream[8] == 'F';
            sessions_application_wrote(error, stream + 10, (size_t)(end - stream) - 10 + whole);
        }
        done = (size_t)(end - bytes) + 1;
    }
    return done;
}

/* False when the application and all of its kind have closed their ends. */
static bool forward_output(void)
{
    static char bytes[READ_BYTES];
    static size_t used;
    ssize_t n = read(guest.output[0], bytes + used, sizeof(bytes) - used);
    size_t done;

    if (n <= 0)
        return n < 0 && (errno == EINTR || errno == EAGAIN);
    used += (size_t)n;
    done = forward_records(bytes, used);
    used -= done;
    memmove(bytes, bytes + done, used);
    if (used == sizeof(bytes))
        used = 0; /* no record is that long */
    return true;
}

static void take_signals(void)
{
    struct signalfd_siginfo info;

    while (read(guest.signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
        if (info.ssi_signo == SIGTERM)
            container_signal(guest.container, (int)guest.words.stop_signal, NULL);
}

static int exit_status(void)
{
    struct container_exit how = {.wait_status = SIGKILL};
    auto_error struct error *err = NULL;

    container_exit_read(guest.container, guest.instance, &how, &err);
    if (how.oom)
        say("out of memory: it was allowed %llu bytes", (unsigned long long)guest.words.memory_bytes);
    return WIFEXITED(how.wait_status) ? WEXITSTATUS(how.wait_status) : 128 + WTERMSIG(how.wait_status);
}

static int serve(void)
{
    struct pollfd polled[3 + SESSIONS_POLL_MAX] = {
        {container_pidfd(guest.container), POLLIN, 0}, {guest.signals, POLLIN, 0}, {guest.output[0], POLLIN, 0}};

    while (!polled[0].revents) {
        int sessions = sessions_poll_set(polled + 3);
        if (poll(polled, (nfds_t)(3 + sessions), -1) < 0)
            continue;
        sessions_serve(polled + 3, sessions);
        if (polled[1].revents)
            take_signals();
        if (polled[2].revents && !forward_output())
            polled[2].fd = -1;
    }
    fcntl(guest.output[0], F_SETFL, O_NONBLOCK);
    while (polled[2].fd >= 0 && poll(&polled[2], 1, 0) > 0)
        if (!forward_output())
            break;
    return exit_status();
}

static void block_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    guest.signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    must(guest.signals, "signalfd");
}

int main(void)
{
    block_signals();
    sources_read(&guest.config);
    leave_initramfs();
    make_places();
    find_disks();
    make_plan();
    open_runtime();
    start();
    return serve();
}
