/* SPDX-License-Identifier: Apache-2.0 */
/* QEMU as a child process. Called on the supervisor's one thread. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "qemu/child.h"

enum { START_TIMEOUT_MS = 20000, RESULT_TEXT = 64 };

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u /* Linux 6.3 */
#endif

/* The library as meson built it (tools/embed), so that there is no second file to find or to mismatch. */
extern const unsigned char preload_library[];
extern const size_t preload_library_size;

int child_fds_add(struct child_fds *list, int fd)
{
    if (fd < 0)
        return -1;
    list->fds[list->count] = fd;
    return PRELOAD_FD_BASE + (int)list->count++;
}

const char *child_program(void)
{
    static const char *const places[] = {"/usr/local/bin/qemu-system-x86_64", "/usr/bin/qemu-system-x86_64",
                                         "/usr/libexec/qemu-kvm"};
    const char *asked = getenv("CORACLE_QEMU");

    if (asked && *asked)
        return access(asked, X_OK) == 0 ? asked : NULL;
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
        if (access(places[i], X_OK) == 0)
            return places[i];
    return NULL;
}

static int make_library(struct error **err)
{
    auto_fd int fd = memfd_create("coracle-qemu-preload", MFD_EXEC);

    if (fd < 0)
        fd = memfd_create("coracle-qemu-preload", 0); /* a kernel that does not know the flag */
    if (fd < 0)
        return error_set_errno(err, errno, "START_FAILED", "memfd for QEMU's start");
    if (write(fd, preload_library, preload_library_size) != (ssize_t)preload_library_size)
        return error_set_errno(err, errno ? errno : ENOSPC, "START_FAILED", "memfd for QEMU's start");
    return take_fd(&fd);
}

/* ---- in the child: only calls that are safe after fork ---- */

struct exec_fds {
    int start, errors, library;
};

static void become_qemu(const char *program, const struct exec_fds *fds, pid_t parent)
{
    char preload[RESULT_TEXT], room[sizeof(PRELOAD_ROOM) + PRELOAD_ROOM_BYTES];
    char *argv[] = {(char *)"qemu-system-x86_64", (char *)"--version", NULL}; /* if the library is not taken */
    char *env[] = {preload,
                   (char *)"PATH=/usr/bin:/bin",
                   (char *)"TMPDIR=/tmp",
                   (char *)"LC_ALL=C",
                   (char *)"MALLOC_ARENA_MAX=1",
                   room,
                   NULL};
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
        _exit(125);
    snprintf(room, sizeof(room), "%s=%*s", PRELOAD_ROOM, PRELOAD_ROOM_BYTES - 1, "");
    snprintf(preload, sizeof(preload), "LD_PRELOAD=/proc/self/fd/%d", PRELOAD_SOCKET + 1);
    /* to high numbers first: a source may be another's destination */
    int start = fcntl(fds->start, F_DUPFD, 16), errors = fcntl(fds->errors, F_DUPFD, 16);
    int library = fcntl(fds->library, F_DUPFD, 16), null = open("/dev/null", O_RDWR);
    if (start < 0 || errors < 0 || library < 0 || null < 0)
        _exit(125);
    if (dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(errors, 2) < 0 || dup2(start, PRELOAD_SOCKET) < 0 ||
        dup2(library, PRELOAD_SOCKET + 1) < 0 || syscall(SYS_close_range, PRELOAD_SOCKET + 2, ~0u, 0) < 0)
        _exit(125);
    execve(program, argv, env);
    _exit(errno == ENOENT ? 127 : 126);
}

/* ---- in the supervisor ---- */

static int wait_until_it_waits(struct child *c, const char *program, struct error **err)
{
    struct pollfd p = {.fd = c->start, .events = POLLIN};
    char byte;
    int n;

    do
        n = poll(&p, 1, START_TIMEOUT_MS);
    while (n < 0 && errno == EINTR);
    if (n > 0 && read(c->start, &byte, 1) == 1)
        return 0;
    child_kill(c);
    child_read_errors(c);
    error_set(err, n == 0 ? ETIMEDOUT : ENOEXEC, "START_FAILED", "%s %s%s%s", program,
              n == 0 ? "did not start in time" : "cannot be started", c->kept ? ": " : "", child_last_words(c));
    error_hint(err, "run %s --version by hand; reinstall package qemu-system-x86", program);
    return n == 0 ? -ETIMEDOUT : -ENOEXEC;
}

int child_start(struct child *c, struct error **err)
{
    const char *program = child_program();
    const pid_t parent = getpid();
    int start[2], errors[2];

    if (!program) {
        error_set(err, ENOENT, "TECHNOLOGY_UNAVAILABLE", "qemu-system-x86_64 is not installed");
        error_hint(err, "apt-get install qemu-system-x86");
        return -ENOENT;
    }
    auto_fd int library = make_library(err);
    if (library < 0)
        return library;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, start) < 0)
        return error_set_errno(err, errno, "START_FAILED", "socketpair");
    if (pipe2(errors, O_CLOEXEC | O_NONBLOCK) < 0) {
        int r = error_set_errno(err, errno, "START_FAILED", "pipe");
        close_fd(start[0]);
        close_fd(start[1]);
        return r;
    }
    const struct exec_fds fds = {.start = start[1], .errors = errors[1], .library = library};
    *c = (struct child){.pid = fork(), .start = start[0], .errors = errors[0]};
    if (c->pid == 0)
        become_qemu(program, &fds, parent);
    close_fd(start[1]);
    close_fd(errors[1]);
    if (c->pid < 0) {
        c->pid = 0;
        return error_set_errno(err, errno, "START_FAILED", "fork");
    }
    return wait_until_it_waits(c, program, err);
}

int child_launch(struct child *c, const struct buffer *words, int word_count, const struct child_fds *fds,
                 struct error **err)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * PRELOAD_FD_MAX)] = {0};
    struct preload_packet header = {
        .words = (uint32_t)word_count, .bytes = (uint32_t)words->length, .kvm = (uint32_t)fds->kvm};
    struct iovec iov[] = {{&header, sizeof(header)}, {words->data, words->length}};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2, .msg_control = control};

    if (words->length > PRELOAD_BYTES_MAX || word_count > PRELOAD_WORD_MAX)
        return error_set(err, E2BIG, "INTERNAL", "QEMU's command line is too long");
    m.msg_controllen = CMSG_SPACE(sizeof(int) * fds->count);
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&m);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int) * fds->count);
    memcpy(CMSG_DATA(cmsg), fds->fds, sizeof(int) * fds->count);
    if (sendmsg(c->start, &m, MSG_NOSIGNAL) < 0)
        return error_set_errno(err, errno, "START_FAILED", "QEMU's process ended while it waited");
    c->start = close_fd(c->start);
    return 0;
}

/* Bounded in memory whatever comes: the end is kept. */
void child_read_errors(struct child *c)
{
    char more[512];
    ssize_t n;

    for (int round = 0; round < 16 && (n = read(c->errors, more, sizeof(more))) > 0; round++) {
        size_t size = (size_t)n;
        if (c->kept + size >= sizeof(c->words)) {
            size_t drop = c->kept + size - (sizeof(c->words) - 1);
            drop = drop > c->kept ? c->kept : drop;
            memmove(c->words, c->words + drop, c->kept - drop);
            c->kept -= drop;
        }
        memcpy(c->words + c->kept, more, size);
        c->kept += size;
        c->words[c->kept] = '\0';
    }
}

const char *child_last_words(struct child *c)
{
    char *line;

    while (c->kept && isspace((unsigned char)c->words[c->kept - 1]))
        c->words[--c->kept] = '\0';
    line = c->kept ? strrchr(c->words, '\n') : NULL;
    line = line ? line + 1 : c->words;
    for (char *p = line; *p; p++)
        if (!isprint((unsigned char)*p))
            *p = ' ';
    return strncmp(line, "qemu-system-x86_64: ", 20) == 0 ? line + 20 : line;
}

static bool reap(struct child *c, int flags)
{
    pid_t r;

    if (c->pid <= 0 || c->ended)
        return true;
    do
        r = waitpid(c->pid, &c->status, flags);
    while (r < 0 && errno == EINTR);
    c->ended = r != 0; /* -1: no such child, which is as ended as can be */
    return c->ended;
}

bool child_has_ended(struct child *c)
{
    return reap(c, WNOHANG);
}

bool child_wait(struct child *c, int timeout_ms)
{
    for (int i = 0; i < timeout_ms && !reap(c, WNOHANG); i++)
        poll(NULL, 0, 1);
    return reap(c, WNOHANG);
}

void child_kill(struct child *c)
{
    if (c->pid > 0 && !c->ended) {
        kill(c->pid, SIGKILL);
        reap(c, 0);
    }
    c->start = close_fd(c->start);
}

/* /proc/PID/task/TID/schedstat: time on a processor, time waiting for one, number of turns. */
static void add_times(struct child_times *sum, int tasks, const char *tid)
{
    char path[RESULT_TEXT], text[96];
    struct child_times t;

    snprintf(path, sizeof(path), "%.16s/schedstat", tid);
    auto_fd int fd = openat(tasks, path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n <= 0)
        return;
    text[n] = '\0';
    if (sscanf(text, "%" SCNu64 " %" SCNu64, &t.ran_ns, &t.starved_ns) != 2)
        return;
    sum->ran_ns += t.ran_ns;
    sum->starved_ns += t.starved_ns;
}

struct child_times child_times(const struct child *c)
{
    struct child_times sum = {0};
    char path[RESULT_TEXT];

    snprintf(path, sizeof(path), "/proc/%d/task", (int)c->pid);
    auto_dir DIR *dir = opendir(path);
    for (const struct dirent *e; dir && (e = readdir(dir));)
        if (e->d_name[0] != '.')
            add_times(&sum, dirfd(dir), e->d_name);
    return sum;
}
