/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes the confined child, limits it and waits for it. The child of a process with threads may only make plain system
 * calls until it executes a program; everything it needs is prepared before.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "launcher/confined.h"

enum {
    MEMORY_MAX = 512 << 20,
    TASKS_MAX = 32,
    FIRST_SAFE_FD = 16, /* above every number the child hands on */
    EXIT_CANNOT = 125,  /* the child could not be set up */
};

/* ---- its cgroup ---- */

static const struct {
    const char *controller, *file_v1, *file_v2;
    uint64_t value;
} limits[] = {
    {"memory", "memory.limit_in_bytes", "memory.max", MEMORY_MAX},
    {"pids", "pids.max", "pids.max", TASKS_MAX},
};

static void cgroup_path(const struct launcher *l, const char *tag, bool v2, size_t which, const char *file, char *path,
                        size_t size)
{
    snprintf(path, size, "/sys/fs/cgroup%s%s/%s/%s/%s", v2 ? "" : "/", v2 ? "" : limits[which].controller,
             l->options.cgroup, tag, file);
}

static int write_number(const char *path, uint64_t value)
{
    auto_fd int fd = open(path, O_WRONLY | O_CLOEXEC);
    char text[24];
    int n = snprintf(text, sizeof(text), "%llu", (unsigned long long)value);

    return fd < 0 || write(fd, text, (size_t)n) < 0 ? -errno : 0;
}

/* Puts pid under the limits. A controller this host lacks is said in the log: the child's rlimits stay. */
static void enter_cgroup(const struct launcher *l, const char *tag, bool v2, pid_t pid)
{
    char path[512];

    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        cgroup_path(l, tag, v2, i, "", path, sizeof(path));
        if (mkdir(path, 0755) < 0 && errno != EEXIST) {
            log_line(LOG_LEVEL_WARNING, NULL, "%s: no %s limit: %s", tag, limits[i].controller, strerror(errno));
            continue;
        }
        cgroup_path(l, tag, v2, i, v2 ? limits[i].file_v2 : limits[i].file_v1, path, sizeof(path));
        int r = write_number(path, limits[i].value);
        cgroup_path(l, tag, v2, i, "cgroup.procs", path, sizeof(path));
        if (r == 0)
            r = write_number(path, (uint64_t)pid);
        if (r < 0)
            log_line(LOG_LEVEL_WARNING, NULL, "%s: no %s limit: %s", tag, limits[i].controller, strerror(-r));
    }
}

static void leave_cgroup(const struct launcher *l, const char *tag, bool v2)
{
    char path[512];

    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        cgroup_path(l, tag, v2, i, "", path, sizeof(path));
        for (int attempt = 0; attempt < 100 && rmdir(path) < 0 && errno == EBUSY; attempt++)
            usleep(1000);
    }
}

/* ---- the child ---- */

struct child {
    int start_fd; /* a byte arrives when its maps and limits are set; end of file: give up */
    int fds[3], null_fd, program_fd;
    char *const *argv;
    int (*run)(int dirfd);
};

static void set_limit(int which, rlim_t value)
{
    struct rlimit limit = {value, value};

    setrlimit((__rlimit_resource_t)which, &limit);
}

static _Noreturn void child_main(const struct child *c)
{
    char go;

    if (read(c->start_fd, &go, 1) != 1 || syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, 0, 0, 0) < 0 ||
        syscall(SYS_setresuid, 0, 0, 0) < 0)
        _exit(EXIT_CANNOT);
    umask(022);
    set_limit(RLIMIT_CORE, 0);
    if (dup2(c->null_fd, STDIN_FILENO) < 0)
        _exit(EXIT_CANNOT);
    if (c->program_fd < 0)
        _exit(c->run(c->fds[1]));
    for (int i = 0; i < 3; i++)
        if (c->fds[i] >= 0 && dup2(c->fds[i], 3 + i) < 0)
            _exit(EXIT_CANNOT);
    syscall(SYS_close_range, 6u, ~0u, CLOSE_RANGE_CLOEXEC); /* program_fd among them */
    syscall(SYS_execveat, c->program_fd, "", c->argv, (char *[]){NULL}, AT_EMPTY_PATH);
    _exit(EXIT_CANNOT);
}

static int write_map(pid_t pid, const char *which)
{
    char path[64], text[64];
    auto_fd int fd = -1;
    int n = snprintf(text, sizeof(text), "0 %d %d\n", IMAGE_UID_FIRST, RUNTIME_ID_COUNT);

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, which);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd < 0 || write(fd, text, (size_t)n) != n ? -errno : 0;
}

static pid_t spawn(const struct child *c, int *ret_pidfd)
{
    struct clone_args args = {
        .flags = CLONE_PIDFD | CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC,
        .pidfd = (uint64_t)(uintptr_t)ret_pidfd,
        .exit_signal = SIGCHLD,
    };
    long pid = syscall(SYS_clone3, &args, sizeof(args));

    if (pid == 0)
        child_main(c);
    return pid < 0 ? -errno : (pid_t)pid;
}

/* ---- waiting ---- */

static int judge(const struct confined *c, const siginfo_t *end, bool timed_out, struct error **err)
{
    if (timed_out)
        return error_set(err, ETIMEDOUT, "TIMEOUT", "%s: not done after %u s", c->what, c->timeout_s);
    if (end->si_code == CLD_EXITED && end->si_status == 0)
        return 0;
    if (end->si_code == CLD_EXITED && end->si_status == EXIT_CANNOT)
        return error_set(err, EIO, "INTERNAL", "%s: the confined process could not be set up", c->what);
    if (end->si_code != CLD_EXITED && end->si_status == SIGKILL)
        return error_set(err, ENOMEM, "NO_MEMORY", "%s: killed, most likely for using more than %d MiB", c->what,
                         MEMORY_MAX >> 20);
    return error_set(err, EINVAL, "IMAGE_MALFORMED", "%s: %s %d", c->what,
                     end->si_code == CLD_EXITED ? "exit status" : "ended by signal", end->si_status);
}

static int wait_end(const struct confined *c, int pidfd, struct error **err)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    siginfo_t end = {0};
    bool timed_out;
    int n;

    do {
        n = poll(&p, 1, (int)c->timeout_s * 1000);
    } while (n < 0 && errno == EINTR);
    timed_out = n <= 0;
    if (timed_out)
        syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    while (waitid(P_PIDFD, (id_t)pidfd, &end, WEXITED) < 0 && errno == EINTR)
        ;
    return judge(c, &end, timed_out, err);
}

static int raise_fd(int fd)
{
    return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, FIRST_SAFE_FD);
}

static int supervise(struct launcher *l, const struct confined *c, pid_t pid, int pidfd, int start_fd,
                     struct error **err)
{
    static atomic_uint number;
    struct runtime_facts facts;
    char tag[RUNTIME_TAG_SIZE];
    int r;

    runtime_facts(l->runtime, &facts);
    snprintf(tag, sizeof(tag), "%s-%u", c->what, atomic_fetch_add(&number, 1));
    enter_cgroup(l, tag, facts.cgroup_v2, pid);
    r = write_map(pid, "uid_map");
    if (r == 0)
        r = write_map(pid, "gid_map");
    if (r < 0)
        error_set_errno(err, -r, "INTERNAL", "%s: mapping the image's ids", c->what);
    else if (write(start_fd, "g", 1) != 1)
        r = error_set_errno(err, errno, "INTERNAL", "%s: releasing the confined process", c->what);
    if (r < 0)
        syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    int end = wait_end(c, pidfd, err);
    leave_cgroup(l, tag, facts.cgroup_v2);
    return r < 0 ? r : end;
}

int confined_run(struct launcher *l, const struct confined *c, struct error **err)
{
    auto_fd int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    auto_fd int first = raise_fd(c->fds[0]), second = raise_fd(c->fds[1]), third = raise_fd(c->fds[2]);
    auto_fd int program = raise_fd(c->program_fd);
    auto_fd int start_read = -1, start_write = -1, pidfd = -1;
    struct child child = {
        .fds = {first, second, third}, .null_fd = null_fd, .program_fd = program, .argv = c->argv, .run = c->run};
    int pair[2];
    pid_t pid;

    if (pipe2(pair, O_CLOEXEC) < 0 || null_fd < 0)
        return error_set_errno(err, errno, "INTERNAL", "%s: preparing the confined process", c->what);
    start_read = raise_fd(pair[0]);
    close_fd(pair[0]);
    start_write = pair[1];
    child.start_fd = start_read;
    pid = spawn(&child, &pidfd);
    if (pid < 0)
        return error_set_errno(err, -pid, "INTERNAL", "%s: starting the confined process", c->what);
    return supervise(l, c, pid, pidfd, start_write, err);
}
