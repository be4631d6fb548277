/* SPDX-License-Identifier: Apache-2.0 */
/* Child processes of the bench: peers' commands, iperf, ip(8). Called by subjects and metrics, any thread. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bench/command.h"
#include "bench/probe/flood.h"
#include "bench/probe/netns.h"

enum { SHELL_ARGUMENT_MAX = 16, OUTPUT_MAX = 1 << 20 };

extern char **environ;

struct stream {
    int fd;
    char *text;
    size_t used, size;
};

struct run {
    const char *const *argv;
    struct stream out, error; /* fd: our ends */
    pid_t pid;
    int64_t t0_ns;
};

/* Returns false at the end of the stream. Beyond OUTPUT_MAX it is read and dropped, so that the child never blocks. */
static bool stream_read(struct stream *s)
{
    char chunk[4096];
    ssize_t n = read(s->fd, chunk, sizeof(chunk));

    if (n <= 0)
        return n < 0 && errno == EINTR;
    if (s->used + (size_t)n + 1 > s->size) {
        size_t size = s->size * 2 + (size_t)n + 1;
        char *bigger = size > OUTPUT_MAX ? NULL : realloc(s->text, size);
        if (!bigger)
            return true;
        s->text = bigger;
        s->size = size;
    }
    memcpy(s->text + s->used, chunk, (size_t)n);
    s->used += (size_t)n;
    s->text[s->used] = '\0';
    return true;
}

/* posix_spawn makes the child in the calling thread's network namespace, which is why this runs on netns_run's thread.
 */
static int spawn(void *context, struct error **err)
{
    struct run *r = context;
    posix_spawn_file_actions_t actions;
    int out[2], error[2], e;

    if (pipe2(out, O_CLOEXEC) < 0)
        return error_set_errno(err, errno, "INTERNAL", "no pipe for %s", r->argv[0]);
    if (pipe2(error, O_CLOEXEC) < 0) {
        e = errno;
        close(out[0]);
        close(out[1]);
        return error_set_errno(err, e, "INTERNAL", "no pipe for %s", r->argv[0]);
    }
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, error[1], STDERR_FILENO);
    r->t0_ns = realtime_ns();
    e = posix_spawnp(&r->pid, r->argv[0], &actions, NULL, (char *const *)(uintptr_t)r->argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    close(error[1]);
    r->out.fd = out[0];
    r->error.fd = error[0];
    if (e)
        return error_set_errno(err, e, "INTERNAL", "%s cannot be run", r->argv[0]);
    return 0;
}

/* A daemonised grandchild may keep the pipes open (conmon does), so the child's end counts, not the streams'. */
static int collect(struct run *r)
{
    bool out_open = true, error_open = true;
    int status;

    for (;;) {
        struct pollfd p[2] = {{.fd = out_open ? r->out.fd : -1, .events = POLLIN},
                              {.fd = error_open ? r->error.fd : -1, .events = POLLIN}};
        int ready = poll(p, 2, 5);

        if (p[0].revents && ready > 0)
            out_open = stream_read(&r->out);
        if (p[1].revents && ready > 0)
            error_open = stream_read(&r->error);
        if (ready <= 0 || (!out_open && !error_open)) {
            pid_t pid = waitpid(r->pid, &status, out_open || error_open ? WNOHANG : 0);
            if (pid == r->pid || (pid < 0 && errno != EINTR))
                return pid == r->pid ? status : -1;
        }
    }
}

/* The line that says "error", else the last one: tools put a hint about their --help behind it. */
static const char *telling_words(struct run *r)
{
    char *text = r->error.text ? r->error.text : r->out.text;
    char *line, *at;

    if (!text || !*command_trim(text))
        return "it said nothing";
    at = strstr(text, "rror");
    if (!at)
        return (line = strrchr(text, '\n')) ? line + 1 : text;
    for (line = at; line > text && line[-1] != '\n'; line--)
        ;
    at[strcspn(at, "\n")] = '\0';
    return line;
}

static int run(const char *netns, const char *mount_path, const char *const *argv, char **ret_output,
               int64_t *ret_t0_ns, struct error **err)
{
    struct run r = {.argv = argv, .out.fd = -1, .error.fd = -1};
    int status, result = netns_run_in(netns, mount_path, spawn, &r, err);

    if (result == 0) {
        status = collect(&r);
        if (status == -1 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
            result = error_set(err, EREMOTEIO, "EXEC_FAILED", "%s failed (status 0x%x): %s", argv[0], (unsigned)status,
                               telling_words(&r));
    }
    if (result == 0 && ret_t0_ns)
        *ret_t0_ns = r.t0_ns;
    if (result == 0 && ret_output) {
        *ret_output = r.out.text ? take_ptr(r.out.text) : strdup("");
        result = *ret_output ? 0 : error_set(err, ENOMEM, "NO_MEMORY", "no memory for the output of %s", argv[0]);
    }
    close_fd(r.out.fd);
    close_fd(r.error.fd);
    free(r.out.text);
    free(r.error.text);
    return result;
}

int command_run(const char *netns, const char *const *argv, char **ret_output, int64_t *ret_t0_ns, struct error **err)
{
    return run(netns, NULL, argv, ret_output, ret_t0_ns, err);
}

int command_run_in(const char *mount_path, const char *const *argv, int64_t *ret_t0_ns, struct error **err)
{
    return run(NULL, mount_path, argv, NULL, ret_t0_ns, err);
}

int command_shell(const char *netns, const char *script, const char *const *arguments, char **ret_output,
                  struct error **err)
{
    const char *argv[SHELL_ARGUMENT_MAX + 5] = {"sh", "-euc", script, "sh"};
    size_t n = 4;

    for (size_t i = 0; arguments && arguments[i] && i < SHELL_ARGUMENT_MAX; i++)
        argv[n++] = arguments[i];
    argv[n] = NULL;
    return command_run(netns, argv, ret_output, NULL, err);
}

int command_find(const char *program, const char *package, struct error **err)
{
    const char *path = getenv("PATH");
    auto_free char *copy = strdup(path ? path : "/usr/sbin:/usr/bin:/sbin:/bin");
    char *save = NULL;

    for (char *dir = copy ? strtok_r(copy, ":", &save) : NULL; dir; dir = strtok_r(NULL, ":", &save)) {
        auto_free char *full = NULL;
        if (asprintf(&full, "%s/%s", dir, program) < 0)
            full = NULL;
        if (full && access(full, X_OK) == 0)
            return 0;
    }
    error_set(err, ENOENT, "TECHNOLOGY_UNAVAILABLE", "%s is not installed", program);
    error_hint(err, "apt-get install %s", package);
    return -ENOENT;
}

char *command_trim(char *text)
{
    size_t n = strlen(text);

    while (n && strchr(" \t\r\n", text[n - 1]))
        text[--n] = '\0';
    return text;
}
