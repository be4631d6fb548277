/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coracle-init: process 1 of every container. Mounts the root, confines itself, starts the application, reaps, writes
 * the log, serves exec requests, records how the application ended; then ends, and with it the pid namespace.
 *
 * Started by the runtime library (src/runtime/spawn.c) from a sealed memfd that the container cannot read, so it is not
 * dumpable: the application cannot trace it or open its descriptors. Until the application runs, the end of the
 * control socket (its launcher died) ends it too; from then on it depends on nobody.
 */
#include "init.h"

#include "monitor/exit_file.h"
#include "monitor/log_file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "sys.h"

struct failure failure;

struct request {
    char *bytes; /* INIT_MESSAGE_MAX, mapped while a request is handled */
    size_t size;
    int fds[INIT_FD_MAX];
    size_t fd_count;
};

struct execution {
    pid_t pid;      /* 0: free slot, or a connection without a process yet */
    int connection; /* -1: the caller went away */
    uint32_t number;
};

static struct {
    int listen_fd, exit_fd;
    int output[LOG_STREAM_COUNT];   /* read ends of the application's pipes; output[0]: master of its terminal */
    int console;                    /* write end of stdin, or -1 */
    int spare[LOG_STREAM_COUNT][2]; /* pipes made ahead for the output */
    bool own_cgroups;               /* has its cgroup namespace */
    bool terminal;
    bool prompt; /* somebody may type: terminal or open stdin */
    pid_t application;
    int application_pidfd;
    uint32_t last_number;
    uint64_t capabilities, ambient, held;
    const char *label;
    char label_text[256];
    struct execution executions[EXEC_SLOTS];
} self = {.listen_fd = -1,
          .exit_fd = -1,
          .output = {-1, -1},
          .console = -1,
          .spare = {{-1, -1}, {-1, -1}},
          .application_pidfd = -1};

static struct log_file
    output_log; /* in .bss, untouched until log_file_setup(): an initial value would make pages of it */

int fail(enum init_stage stage, int error, const char *detail)
{
    failure.stage = stage;
    failure.error = error;
    failure.detail[0] = 0;
    if (detail)
        strncpy(failure.detail, detail, sizeof(failure.detail) - 1);
    return -1;
}

uint64_t now_ns(void)
{
    struct timespec now;

    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void close_to(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

int raise_fd(int fd)
{
    int raised = fd;

    if (fd >= 0 && fd <= 2) {
        raised = fcntl(fd, F_DUPFD_CLOEXEC, INIT_CONTROL_FD + 1);
        close(fd);
    }
    return raised;
}

int write_file_at(int dirfd, const char *path, const char *text, size_t size)
{
    int fd = openat(dirfd, path, O_WRONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return -1;
    n = write(fd, text, size);
    close(fd);
    return n == (ssize_t)size ? 0 : -1;
}

/* ---- messages ---- */

static void request_release(struct request *request)
{
    for (size_t i = 0; i < request->fd_count; i++)
        close_to(&request->fds[i]);
    if (request->bytes)
        munmap(request->bytes, INIT_MESSAGE_MAX);
    request->bytes = NULL;
    request->fd_count = 0;
}

/* Hands over descriptor i of a request; -1 when there is none. */
static int request_take(struct request *request, size_t i)
{
    int fd = -1;

    if (i < request->fd_count) {
        fd = request->fds[i];
        request->fds[i] = -1;
    }
    return fd;
}

/* 1: a message; 0: end of the connection; -1: not a message of ours. */
static int receive(int socket, struct request *ret_request)
{
    char control[CMSG_SPACE(sizeof(int) * INIT_FD_MAX)];
    struct iovec part;
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    const struct init_header *header;
    ssize_t got;

    memset(ret_request, 0, sizeof(*ret_request));
    ret_request->bytes = mmap(NULL, INIT_MESSAGE_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ret_request->bytes == MAP_FAILED) {
        ret_request->bytes = NULL;
        return -1;
    }
    part.iov_base = ret_request->bytes;
    part.iov_len = INIT_MESSAGE_MAX;
    do
        got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got <= 0)
        return 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            ret_request->fd_count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            memcpy(ret_request->fds, CMSG_DATA(c), ret_request->fd_count * sizeof(int));
        }
    ret_request->size = (size_t)got;
    header = (const struct init_header *)ret_request->bytes;
    if ((size_t)got < sizeof(*header) || header->protocol != INIT_PROTOCOL || header->size != (size_t)got ||
        (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
        return -1;
    return 1;
}

static void send_reply(int socket, struct init_reply *reply, const int *fds, size_t fd_count)
{
    char control[CMSG_SPACE(sizeof(int) * 2)] = {0};
    struct iovec part = {reply, sizeof(*reply)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    reply->header.protocol = INIT_PROTOCOL;
    reply->header.size = sizeof(*reply);
    if (fd_count) {
        struct cmsghdr *c;

        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * fd_count);
    }
    /* Never waits for a peer that does not read: replies are few and small. */
    sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void send_failure(int socket)
{
    struct init_reply reply = {.header.type = INIT_FAILED, .stage = failure.stage, .error = failure.error};

    memcpy(reply.detail, failure.detail, sizeof(reply.detail));
    send_reply(socket, &reply, NULL, 0);
}

/* ---- the root ---- */

static void replace_stdio(void)
{
    int null = openat(root_state.dev_fd, "null", O_RDWR | O_CLOEXEC);

    for (int i = 0; i < 3 && null >= 0; i++)
        dup2(null, i);
    if (null > 2)
        close(null);
}

/* As the root of the cgroup namespace is where its maker is, it is made when the places are final. */
static int make_cgroup_namespace(void)
{
    self.own_cgroups = !syscall(SYS_unshare, 0x02000000 /* CLONE_NEWCGROUP */);
    return self.own_cgroups ? 0 : fail(STAGE_CGROUP, errno, "namespace");
}

/* What nearly every start needs, after the root is reported: while the launcher builds the network, or in the pool.
 * What fails here is tried again, and reported, by the start. */
static void prepare_ahead(const char *program)
{
    if (helper_join() || chdir("/"))
        return;
    make_cgroup_namespace();
    /* Looking at it is enough to have the overlay know it, and opens nothing that the image could have put there. */
    if (program)
        faccessat(AT_FDCWD, program, X_OK, 0);
    faccessat(AT_FDCWD, "/etc/passwd", R_OK, 0);
    faccessat(AT_FDCWD, "/etc/group", R_OK, 0);
    for (int stream = 0; stream < LOG_STREAM_COUNT; stream++)
        if (pipe2(self.spare[stream], O_CLOEXEC))
            return;
}

static int handle_root(struct request *request)
{
    const struct init_root *root = (const struct init_root *)request->bytes;
    struct init_reply reply = {.header.type = INIT_DONE};
    const struct sched_param ordinary = {0};
    int root_fd = request_take(request, 0);
    int result;

    reply.times[0] = now_ns();
    syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, &ordinary); /* SCHED_BATCH until now (spawn.c) */
    if (request->size < sizeof(*root) || root_fd < 0 ||
        request->size != sizeof(*root) + root->filter_count * (size_t)8 + root->program_size ||
        (root->program_size && request->bytes[request->size - 1]))
        result = fail(STAGE_PROTOCOL, EBADMSG, "root");
    else
        result = set_root(root_fd, root, &reply.times[1]);
    close_to(&root_fd);
    if (!result)
        result = helper_start();
    if (!result) {
        self.held = root->bounding;
        replace_stdio();
        result = confine(root, root + 1);
        close_to(&root_state.dev_fd);
    }
    reply.times[2] = now_ns();
    if (result)
        send_failure(INIT_CONTROL_FD);
    else
        send_reply(INIT_CONTROL_FD, &reply, NULL, 0);
    if (!result)
        prepare_ahead(root->program_size ? request->bytes + request->size - root->program_size : NULL);
    return result;
}

/* ---- the application ---- */

/* The pipe for an output of the application, the one made ahead if there is. */
static int take_pipe(int stream, int ret_ends[2])
{
    if (self.spare[stream][0] < 0)
        return pipe2(ret_ends, O_CLOEXEC);
    memcpy(ret_ends, self.spare[stream], sizeof(self.spare[stream]));
    self.spare[stream][0] = self.spare[stream][1] = -1;
    return 0;
}

static void drop_spare_pipes(void)
{
    for (int stream = 0; stream < LOG_STREAM_COUNT; stream++) {
        close_to(&self.spare[stream][0]);
        close_to(&self.spare[stream][1]);
    }
}

/* Pipes (or a terminal) between the application and the init. ret_stdio are the application's ends. */
static int make_output(bool discard, bool want_stdin, int ret_stdio[3])
{
    int ends[2];

    for (int i = 0; i < 3; i++)
        ret_stdio[i] = -1;
    if (self.terminal) {
        if (open_terminal(&self.output[0], &ret_stdio[0]))
            return -1;
        fcntl(self.output[0], F_SETFL, O_NONBLOCK);
        ret_stdio[1] = raise_fd(dup(ret_stdio[0]));
        ret_stdio[2] = raise_fd(dup(ret_stdio[0]));
        return 0;
    }
    if (want_stdin) {
        if (pipe2(ends, O_CLOEXEC))
            return fail(STAGE_PIPES, errno, NULL);
        ret_stdio[0] = ends[0];
        self.console = ends[1];
    }
    for (int i = 1; i < 3 && !discard; i++) {
        if (take_pipe(i - 1, ends))
            return fail(STAGE_PIPES, errno, NULL);
        fcntl(ends[0], F_SETFL, O_NONBLOCK);
        self.output[i - 1] = ends[0];
        ret_stdio[i] = ends[1];
    }
    for (int i = 0; i < 3; i++)
        if (ret_stdio[i] < 0)
            ret_stdio[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
    return 0;
}

/* Moves this process, alone and therefore without the kernel's global locks, into cgroups of the v1 controllers. */
static int join_cgroups(struct request *request, size_t first, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int fd = request_take(request, first + i);
        ssize_t n = write(fd, "0", 1);

        close_to(&fd);
        if (n != 1)
            return fail(STAGE_CGROUP, errno, NULL);
    }
    return 0;
}

static void write_text(int *fd, const char *text, size_t size)
{
    if (*fd >= 0 && write(*fd, text, size) != (ssize_t)size) {
        /* Its tmpfs is at least 64 MiB; only a memory limit of nothing at all makes this fail, and exec fails then. */
    }
    close_to(fd);
}

static void write_etc(const struct init_start *start, const char *hosts, const char *resolv)
{
    if (root_state.hostname_fd >= 0) {
        char line[INIT_HOSTNAME_SIZE + 1];
        size_t length = strnlen(start->hostname, INIT_HOSTNAME_SIZE - 1);

        memcpy(line, start->hostname, length);
        line[length] = '\n';
        write_text(&root_state.hostname_fd, line, length + 1);
    }
    write_text(&root_state.hosts_fd, hosts, start->hosts_size);
    write_text(&root_state.resolv_fd, resolv, start->resolv_size);
}

static int take_start_fds(struct request *request, const struct init_start *start)
{
    int logs[2] = {-1, -1};
    size_t at = 0;

    self.exit_fd = request_take(request, at++);
    if (start->flags & INIT_START_LOG) {
        logs[0] = request_take(request, at++);
        logs[1] = request_take(request, at++);
    }
    if (start->flags & INIT_START_LISTEN)
        self.listen_fd = request_take(request, at++);
    log_file_setup(&output_log, logs, start->log_bytes_max);
    if (request->fd_count != at + start->tasks_count || start->tasks_count > INIT_TASKS_MAX)
        return fail(STAGE_PROTOCOL, EBADMSG, "descriptors");
    if (join_cgroups(request, at, start->tasks_count))
        return -1;
    /* A place that came late moves the root of the namespace with it. */
    return self.own_cgroups && !start->tasks_count ? 0 : make_cgroup_namespace();
}

static int start_application(struct request *request, struct init_reply *reply)
{
    struct init_start *start = (struct init_start *)request->bytes;
    char *vector[INIT_STRING_MAX + 8], *strings = (char *)(start + 1);
    struct child child = {0};
    size_t texts;
    int result;

    if (request->size < sizeof(*start))
        return fail(STAGE_PROTOCOL, EBADMSG, "start");
    texts = (size_t)start->hosts_size + start->resolv_size + start->label_size;
    if (request->size != sizeof(*start) + start->process.strings_size + texts ||
        start->label_size >= sizeof(self.label_text))
        return fail(STAGE_PROTOCOL, EBADMSG, "start");
    if (parse_process(&start->process, strings, start->process.strings_size, vector, &child))
        return -1;
    strings += start->process.strings_size;
    memcpy(self.label_text, strings + start->hosts_size + start->resolv_size, start->label_size);
    self.label = start->label_size ? self.label_text : NULL;
    self.terminal = start->process.flags & INIT_PROCESS_TTY;
    self.prompt = start->process.flags & (INIT_PROCESS_TTY | INIT_PROCESS_STDIN);
    self.capabilities = start->capabilities;
    self.ambient = start->ambient;
    if (helper_join() || chdir("/") || take_start_fds(request, start))
        return -1;
    if (start->hostname[0] && sethostname(start->hostname, strnlen(start->hostname, INIT_HOSTNAME_SIZE - 1)))
        return fail(STAGE_HOSTNAME, errno, NULL);
    write_etc(start, strings, strings + start->hosts_size);
    if (make_output(!(start->flags & INIT_START_LOG) && !self.terminal, start->process.flags & INIT_PROCESS_STDIN,
                    child.stdio))
        return -1;
    drop_spare_pipes();
    child.label = self.label;
    child.terminal = self.terminal;
    child.capabilities = self.capabilities;
    child.ambient = self.ambient;
    child.held = self.held;
    reply->times[1] = now_ns();
    result = spawn(&child, &self.application, &self.application_pidfd);
    for (int i = 0; i < 3; i++)
        close_to(&child.stdio[i]);
    return result;
}

static int handle_start(struct request *request)
{
    struct init_reply reply = {.header.type = INIT_DONE};

    reply.times[0] = now_ns();
    if (start_application(request, &reply)) {
        send_failure(INIT_CONTROL_FD);
        return -1;
    }
    reply.times[2] = now_ns();
    reply.pid = self.application;
    send_reply(INIT_CONTROL_FD, &reply, &self.application_pidfd, 1);
    return 0;
}

/* ---- requests while it runs ---- */

static struct execution *free_slot(void)
{
    for (int i = 0; i < EXEC_SLOTS; i++)
        if (!self.executions[i].pid && self.executions[i].connection < 0)
            return &self.executions[i];
    return NULL;
}

static int start_execution(struct execution *slot, struct request *request, struct init_reply *reply, int ret_fds[2],
                           size_t *ret_fd_count)
{
    struct init_exec *exec = (struct init_exec *)request->bytes;
    char *vector[INIT_STRING_MAX + 8];
    struct child child = {
        .label = self.label, .capabilities = self.capabilities, .ambient = self.ambient, .held = self.held};
    int master = -1, pidfd, result;

    if (request->size < sizeof(*exec) ||
        parse_process(&exec->process, (char *)(exec + 1), request->size - sizeof(*exec), vector, &child))
        return fail(STAGE_PROTOCOL, EBADMSG, "exec");
    child.terminal = exec->process.flags & INIT_PROCESS_TTY;
    if (child.terminal) {
        if (open_terminal(&master, &child.stdio[0]))
            return -1;
        child.stdio[1] = raise_fd(dup(child.stdio[0]));
        child.stdio[2] = raise_fd(dup(child.stdio[0]));
    } else {
        for (size_t i = 0; i < 3; i++)
            if ((child.stdio[i] = request_take(request, i)) < 0)
                child.stdio[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
    }
    result = spawn(&child, &slot->pid, &pidfd);
    for (int i = 0; i < 3; i++)
        close_to(&child.stdio[i]);
    if (result) {
        close_to(&master);
        return -1;
    }
    reply->number = slot->number = ++self.last_number;
    reply->pid = slot->pid;
    ret_fds[0] = pidfd;
    ret_fds[1] = master;
    *ret_fd_count = master >= 0 ? 2 : 1;
    return 0;
}

static int give_console(int *ret_fd)
{
    if (self.terminal && self.output[0] >= 0)
        *ret_fd = fcntl(self.output[0], F_DUPFD_CLOEXEC, INIT_CONTROL_FD + 1);
    else {
        *ret_fd = self.console; /* given away: its new owner's close is the application's end of file */
        self.console = -1;
    }
    return *ret_fd < 0 ? fail(STAGE_CONSOLE, ENOTCONN, NULL) : 0;
}

/* One request on a connection. The connection stays open only while an execution runs on it. */
static void handle_request(struct execution *slot)
{
    struct init_reply reply = {.header.type = INIT_DONE};
    struct request request;
    int fds[2] = {-1, -1}, result = -1;
    size_t fd_count = 0;

    if (receive(slot->connection, &request) <= 0 || slot->pid) {
        request_release(&request);
        close_to(&slot->connection);
        return;
    }
    switch (((const struct init_header *)request.bytes)->type) {
    case INIT_EXEC:
        result = start_execution(slot, &request, &reply, fds, &fd_count);
        break;
    case INIT_CONSOLE:
        result = give_console(&fds[0]);
        fd_count = 1;
        break;
    case INIT_APPLICATION:
        reply.pid = self.application;
        result = fds[0] = fcntl(self.application_pidfd, F_DUPFD_CLOEXEC, INIT_CONTROL_FD + 1);
        fd_count = 1;
        break;
    default:
        fail(STAGE_PROTOCOL, EBADMSG, "type");
    }
    if (result < 0)
        send_failure(slot->connection);
    else
        send_reply(slot->connection, &reply, fds, fd_count);
    close_to(&fds[0]);
    close_to(&fds[1]);
    request_release(&request);
    if (!slot->pid)
        close_to(&slot->connection);
}

static void accept_connection(void)
{
    struct execution *slot = free_slot();
    int fd = accept4(self.listen_fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0)
        return;
    if (!slot) {
        fail(STAGE_BUSY, EAGAIN, NULL);
        send_failure(fd);
        close(fd);
        return;
    }
    slot->connection = fd;
}

static void end_execution(pid_t pid, int wait_status)
{
    for (int i = 0; i < EXEC_SLOTS; i++) {
        struct execution *slot = &self.executions[i];

        if (slot->pid == pid) {
            struct init_reply reply = {.header.type = INIT_EXITED, .number = slot->number, .wait_status = wait_status};

            if (slot->connection >= 0)
                send_reply(slot->connection, &reply, NULL, 0);
            close_to(&slot->connection);
            slot->pid = 0;
        }
    }
}

/* Collects every child that ended. True, with its status, when the application was among them. */
static bool reap(int *ret_wait_status)
{
    bool ended = false;
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0) {
        if (pid == self.application) {
            *ret_wait_status = status;
            ended = true;
        } else {
            end_execution(pid, status);
        }
    }
    return ended;
}

/* What the application wrote last is still in the pipes. A child of it that holds the pipe open is not waited for. */
static void drain(void)
{
    for (int stream = 0; stream < LOG_STREAM_COUNT; stream++)
        if (self.output[stream] >= 0) {
            for (int rounds = 0; rounds < 4096 && log_file_read(&output_log, (enum log_stream)stream,
                                                                self.output[stream], self.terminal, self.prompt) == 0;)
                rounds++;
            log_file_finish(&output_log, (enum log_stream)stream);
        }
}

static void on_child(int signal)
{
    (void)signal; /* only interrupts ppoll() */
}

static unsigned char serve_stack[49152] __attribute__((aligned(16)));

/* After an exec went deep: gives the untouched part's pages back. */
static void trim_stack(void)
{
    unsigned char *keep = (unsigned char *)(((uintptr_t)__builtin_frame_address(0) & ~(uintptr_t)4095) - 4096);
    unsigned char *first = (unsigned char *)(((uintptr_t)serve_stack + 4095) & ~(uintptr_t)4095);

    if (keep > first)
        madvise(first, (size_t)(keep - first), MADV_DONTNEED);
}

static void serve(void)
{
    struct pollfd polled[LOG_STREAM_COUNT + 1 + EXEC_SLOTS];
    sigset_t none;
    int wait_status = 0;

    sigemptyset(&none);
    while (!reap(&wait_status)) {
        size_t n = LOG_STREAM_COUNT + 1;

        for (int stream = 0; stream < LOG_STREAM_COUNT; stream++)
            polled[stream] = (struct pollfd){self.output[stream], POLLIN, 0};
        polled[LOG_STREAM_COUNT] = (struct pollfd){free_slot() ? self.listen_fd : -1, POLLIN, 0};
        for (int i = 0; i < EXEC_SLOTS; i++)
            polled[n++] = (struct pollfd){self.executions[i].connection, POLLIN, 0};
        if (ppoll(polled, n, NULL, &none) < 0)
            continue;
        for (int stream = 0; stream < LOG_STREAM_COUNT; stream++)
            if (polled[stream].revents && log_file_read(&output_log, (enum log_stream)stream, self.output[stream],
                                                        self.terminal, self.prompt) < 0) {
                log_file_finish(&output_log, (enum log_stream)stream);
                /* For a terminal: every slave was closed, which the application will not open again by a path. */
                close_to(&self.output[stream]);
            }
        for (int i = 0; i < EXEC_SLOTS; i++)
            if (polled[LOG_STREAM_COUNT + 1 + i].revents) {
                handle_request(&self.executions[i]);
                trim_stack();
            }
        if (polled[LOG_STREAM_COUNT].revents)
            accept_connection();
    }
    drain();
    exit_file_write(self.exit_fd, wait_status); /* else the launcher reports an unknown status */
}

/*
 * Serving goes on on a small stack beside the other data, and everything above is unmapped: the stack of exec, into
 * which starting went deep, with arguments, environment and auxiliary vector; and the vdso, beside which requests were
 * mapped. The page tables of each of the two are 12 KiB per container. (For the same reason the clock is read by system
 * call.) Nothing of it is used any more.
 */
extern const unsigned char end_of_program[] __asm__("_end"); /* the linker's: where .bss ends */

static __attribute__((noreturn, used)) void serve_on_new_stack(void)
{
    const uintptr_t top = 0x7ffffffff000, low = ((uintptr_t)end_of_program + 4095) & ~(uintptr_t)4095;

    munmap((void *)low, top - low);
    serve();
    _exit(0);
}

static __attribute__((noreturn)) void change_stack(void)
{
    __asm__ volatile("movq %0, %%rsp\n\t"
                     "xorl %%ebp, %%ebp\n\t"
                     "callq *%1"
                     :
                     : "r"(serve_stack + sizeof(serve_stack)), "r"(serve_on_new_stack)
                     : "memory");
    __builtin_unreachable();
}

static void set_signals(void)
{
    struct sigaction action = {.sa_handler = on_child};
    sigset_t all;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    sigaction(SIGCHLD, &action, NULL);
}

int main(void)
{
    struct request request;
    int result = 0;

    set_signals();
    for (int i = 0; i < 3; i++)
        dup2(INIT_CONTROL_FD, i);
    fcntl(INIT_CONTROL_FD, F_SETFD, FD_CLOEXEC);
    for (int i = 0; i < EXEC_SLOTS; i++)
        self.executions[i].connection = -1;
    if (apply_settings()) {
        send_failure(INIT_CONTROL_FD);
        return 1;
    }
    mounts_ahead();
    while (!self.application && !result) {
        if (receive(INIT_CONTROL_FD, &request) <= 0)
            return 1;
        switch (((const struct init_header *)request.bytes)->type) {
        case INIT_ROOT:
            result = handle_root(&request);
            break;
        case INIT_START:
            result = handle_start(&request);
            break;
        default:
            result = -1;
        }
        request_release(&request);
    }
    if (result)
        return 1;
    close(INIT_CONTROL_FD);
    if (drop_admin(self.held))
        return 1;
    change_stack();
}
