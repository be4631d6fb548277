/* SPDX-License-Identifier: Apache-2.0 */
/*
 * up and down: the platform by hand, where no systemd runs it. up starts launcher and daemon detached from this
 * terminal and waits until they answer; down ends those two. Instances are nobody's children here and go on.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/program.h"

enum { POLL_MS = 20, READY_MS = 15000, END_MS = 15000 };

struct site {
    const char *run_dir, *state_dir, *cgroup, *user;
    struct passwd account;
    json_t *steps; /* for --json: [{"step", "detail"}] */
};

struct process {
    const char *name;
    bool is_privileged;
};

static const struct process launcher = {"coracle-launcher", true}, daemon_process = {"coracled", false};

static void say(const struct cli *cli, struct site *site, const char *step, const char *detail)
{
    json_array_append_new(site->steps, json_pack("{s:s, s:s}", "step", step, "detail", detail));
    if (!cli->json && !cli->quiet)
        printf("%s: %s\n", step, detail);
    fflush(stdout);
}

static int end_report(const struct cli *cli, struct site *site, int r)
{
    if (cli->json && r == 0) {
        json_t *all = json_pack("{s:O}", "steps", site->steps);

        print_json(all);
        json_decref(all);
    }
    json_decref(site->steps);
    return r;
}

static const char *or_default(const char *value, const char *fallback)
{
    return value ? value : fallback;
}

/* The account of the daemon: as given, else coracle when it exists; never silently root. */
static int pick_user(struct site *site, const char *given, struct error **err)
{
    bool as_root = geteuid() == 0;
    struct passwd *p = given || as_root ? getpwnam(given ? given : "coracle") : getpwuid(geteuid());
    const char *name = given ? given : as_root ? "coracle" : p ? p->pw_name : "of yours";

    if (p) {
        site->account = *p;
        site->user = p->pw_name;
        return 0;
    }
    error_set(err, ENOENT, "INVALID_VALUE", "there is no account %s for the daemon to run as", name);
    error_hint(err, "useradd --system --no-create-home --shell /usr/sbin/nologin coracle; or, to try things out: "
                    "coracle up --user root");
    return -ENOENT;
}

static int site_from_args(struct site *site, const struct args *args)
{
    *site = (struct site){
        .run_dir = or_default(args_get(args, "run-dir"), "/run/coracle"),
        .state_dir = or_default(args_get(args, "state-dir"), "/var/lib/coracle"),
        .steps = json_array(),
    };
    return 0;
}

/* As launcher and daemon would make it: shared by both, neither may remove what the other has there. */
static int make_run_directory(const struct site *site, struct error **err)
{
    if (mkdir(site->run_dir, 0750) < 0) {
        if (errno == EEXIST)
            return 0;
        const char *code = errno == EACCES || errno == EPERM ? "FORBIDDEN" : "INVALID_VALUE";

        error_set_errno(err, errno, code, "the directory %s cannot be made", site->run_dir);
        error_hint(err, "use sudo, or other places that exist: --run-dir and --state-dir");
        return -EACCES;
    }
    if (geteuid() == 0 && (chown(site->run_dir, 0, site->account.pw_gid) < 0 || chmod(site->run_dir, 01770) < 0))
        return error_set_errno(err, errno, "INTERNAL", "owner and mode of %s", site->run_dir);
    return 0;
}

static char *pid_path(const struct site *site, const struct process *p)
{
    return text_printf("%s/%s.pid", site->run_dir, p->name);
}

/* The pid in a process's file when that process still is the program meant; 0 otherwise. */
static pid_t running_pid(const struct site *site, const struct process *p)
{
    auto_free char *path = pid_path(site, p), *stat_path = NULL;
    auto_file FILE *in = fopen(path, "re"), *stat = NULL;
    char name[32] = "", state = 'Z';
    int pid = 0;

    if (!in || fscanf(in, "%d", &pid) != 1 || pid <= 1)
        return 0;
    stat_path = text_printf("/proc/%d/stat", pid);
    stat = fopen(stat_path, "re");
    /* One that was killed stays visible until somebody waits for it, which in a container may take its time. */
    if (!stat || fscanf(stat, "%*d (%31[^)]) %c", name, &state) != 2 || state == 'Z')
        return 0;
    /* The kernel keeps 15 bytes of a name. */
    return !strncmp(name, p->name, 15) ? pid : 0;
}

static int write_pid(const struct site *site, const struct process *p, pid_t pid, struct error **err)
{
    auto_free char *path = pid_path(site, p);
    auto_fd int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);

    if (fd < 0 || dprintf(fd, "%d\n", (int)pid) < 0)
        return error_set_errno(err, errno, "INTERNAL", "%s cannot be written", path);
    return 0;
}

/* In the child: away from the terminal, with its own log. The daemon changes to its account itself (--user). */
static void become_daemon(int log_fd)
{
    int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setsid();
    dup2(null_fd, STDIN_FILENO);
    dup2(log_fd, STDOUT_FILENO);
    dup2(log_fd, STDERR_FILENO);
    if (chdir("/") < 0)
        _exit(126);
    unsetenv("NOTIFY_SOCKET");
}

static int open_log(const struct site *site, const struct process *p, struct error **err)
{
    auto_free char *path = text_printf("%s/%s.log", site->run_dir, p->name);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);

    return fd >= 0 ? fd : error_set_errno(err, errno, "INTERNAL", "%s cannot be written", path);
}

/* Forks twice, so that the new process is nobody's child here; its pid comes back through a pipe. */
static int spawn(const struct site *site, const struct process *p, char **argv, pid_t *ret_pid, struct error **err)
{
    auto_fd int log_fd = open_log(site, p, err);
    pid_t child, pid = 0;
    int fds[2];
    char end;

    if (log_fd < 0)
        return log_fd;
    if (pipe2(fds, O_CLOEXEC) < 0)
        return error_set_errno(err, errno, "INTERNAL", "pipe");
    child = fork();
    if (child == 0) {
        pid = fork();
        if (pid > 0 && write(fds[1], &pid, sizeof(pid)) != sizeof(pid))
            _exit(1);
        if (pid != 0)
            _exit(pid < 0);
        become_daemon(log_fd);
        execv(argv[0], argv);
        dprintf(STDERR_FILENO, "%s: %s\n", argv[0], strerror(errno));
        _exit(127);
    }
    close(fds[1]);
    if (child < 0 || read(fds[0], &pid, sizeof(pid)) != sizeof(pid))
        pid = 0;
    /* The end of the pipe closes with exec(): from here on the process carries its own name. */
    while (pid > 0 && read(fds[0], &end, 1) > 0)
        ;
    close(fds[0]);
    waitpid(child, NULL, 0);
    if (pid <= 0)
        return error_set(err, EAGAIN, "INTERNAL", "%s cannot be started: no further process", p->name);
    *ret_pid = pid;
    return 0;
}

/* What the launcher starts; without the optional ones some technologies are not to be had. */
static const struct {
    const char *name;
    bool optional;
} helpers_wanted[] = {{"coracle-init", false},
                      {"coracle-unpack", false},
                      {"coracle-vmm", true},
                      {"coracle-qemu", true},
                      {"coracle-pack", true}};
enum { HELPERS = sizeof(helpers_wanted) / sizeof(helpers_wanted[0]) };

/* Links beside each other, where every account may follow them: RUN is closed to others. Returns an owned path. */
static char *link_helpers(char *const paths[HELPERS], struct error **err)
{
    auto_free char *own = program_directory(), *directory = text_printf("%s/../../libexec", own);
    char *real;

    if (mkdir(directory, 0755) < 0 && errno != EEXIST) {
        error_set_errno(err, errno, "INTERNAL", "the directory %s cannot be made", directory);
        return NULL;
    }
    for (int i = 0; i < HELPERS; i++) {
        auto_free char *link = text_printf("%s/%s", directory, helpers_wanted[i].name),
                       *made = text_printf("%s/.%s-%d", directory, helpers_wanted[i].name, (int)getpid());
        if (!paths[i]) {
            unlink(link);
        } else if (symlink(paths[i], made) < 0 || rename(made, link) < 0) { /* another `up` may be at it too */
            error_set_errno(err, errno, "INTERNAL", "links in %s", directory);
            return NULL;
        }
    }
    real = realpath(directory, NULL);
    return real ? real : take_ptr(directory);
}

/* Installed, the helpers lie in one folder; in a build tree in several, and the launcher wants one. */
static char *helper_directory(struct error **err)
{
    char *paths[HELPERS] = {NULL}, *directory = NULL;
    bool together = true;
    size_t length = 0;

    for (int i = 0; i < HELPERS; i++) {
        paths[i] = helper_find(helpers_wanted[i].name);
        if (!paths[i] && !helpers_wanted[i].optional) {
            error_set(err, ENOENT, "INVALID_VALUE", "the program %s is not installed", helpers_wanted[i].name);
            error_hint(err, "install all of coracle (meson install), or build it: ninja");
            goto out;
        }
        if (!paths[i])
            continue;
        size_t here = (size_t)(strrchr(paths[i], '/') - paths[i]);
        together = together && (!length || (here == length && strncmp(paths[i], paths[0], here) == 0));
        length = here;
    }
    directory = together ? text_printf("%.*s", (int)length, paths[0]) : link_helpers(paths, err);
out:
    for (int i = 0; i < HELPERS; i++)
        free(paths[i]);
    return directory;
}

static int start_process(const struct cli *cli, struct site *site, const struct args *args, const struct process *p,
                         struct error **err)
{
    auto_free char *path = program_find(p->name, err), *helpers = NULL, *detail = NULL;
    char *argv[16] = {path, (char *)"--run-dir", (char *)site->run_dir, (char *)"--state-dir", (char *)site->state_dir};
    const char *config = args_get(args, p->is_privileged ? "launcher-config" : "daemon-config");
    size_t n = 5;
    pid_t pid = 0;

    if (!path)
        return -ENOENT;
    if (p->is_privileged) {
        helpers = helper_directory(err);
        if (!helpers)
            return -ENOENT;
        argv[n++] = (char *)"--libexec-dir";
        argv[n++] = helpers;
    }
    argv[n++] = (char *)"--user";
    argv[n++] = (char *)site->user;
    if (p->is_privileged && args_get(args, "cgroup")) {
        argv[n++] = (char *)"--cgroup";
        argv[n++] = (char *)args_get(args, "cgroup");
    }
    if (config) {
        argv[n++] = (char *)"--config";
        argv[n++] = (char *)config;
    }
    if (spawn(site, p, argv, &pid, err) < 0 || write_pid(site, p, pid, err) < 0)
        return -EIO;
    detail = text_printf("%s started as process %d, log %s/%s.log", path, (int)pid, site->run_dir, p->name);
    say(cli, site, p->name, detail);
    return 0;
}

static int not_ready(const struct site *site, const struct process *p, const char *what, struct error **err)
{
    error_set(err, ETIMEDOUT, "DAEMON_UNAVAILABLE", "%s %s", p->name, what);
    error_hint(err, "its log says why: %s/%s.log; coracle doctor checks this host", site->run_dir, p->name);
    return -ETIMEDOUT;
}

static bool is_healthy(struct cli *cli, bool with_launcher)
{
    json_t *health = NULL;
    bool healthy = api_peek(cli, "/v1/health", &health, NULL) == 0 &&
                   (!with_launcher || json_is_true(json_object_get(health, "launcher")));

    json_decref(health);
    return healthy;
}

static int wait_ready(struct cli *cli, const struct site *site, bool with_launcher, struct error **err)
{
    uint64_t end = clock_ns() + READY_MS * 1000000ULL;

    while (!is_healthy(cli, with_launcher)) {
        if (with_launcher && !running_pid(site, &launcher))
            return not_ready(site, &launcher, "ended at once", err);
        if (!running_pid(site, &daemon_process))
            return not_ready(site, &daemon_process, "ended at once", err);
        if (clock_ns() > end)
            return not_ready(site, &daemon_process, "does not answer", err);
        term_status(cli, "waiting for the daemon");
        usleep(POLL_MS * 1000);
    }
    term_status_clear(cli);
    return 0;
}

/* up and down speak to the platform of --run-dir, whatever --host says otherwise. */
static int use_site_socket(struct cli *cli, const struct args *args, struct site *site, struct error **err)
{
    static char host[PATH_MAX];

    if (!args_get(args, "run-dir"))
        return 0;
    api_close(cli);
    snprintf(host, sizeof(host), "unix://%s/api.sock", site->run_dir);
    cli->connection.host = host;
    return api_open(cli, err);
}

static int start_all(struct cli *cli, struct site *site, const struct args *args, struct error **err)
{
    bool with_launcher = !args_flag(args, "no-launcher");
    int r;

    if (with_launcher && geteuid() != 0) {
        error_set(err, EPERM, "FORBIDDEN", "the launcher has to be started by root");
        error_hint(err, "sudo coracle up; or without it, for the simulated technology only: coracle up --no-launcher");
        return -EPERM;
    }
    if ((r = pick_user(site, args_get(args, "user"), err)) < 0 || (r = make_run_directory(site, err)) < 0)
        return r;
    if (with_launcher && !running_pid(site, &launcher))
        r = start_process(cli, site, args, &launcher, err);
    if (r == 0 && !running_pid(site, &daemon_process))
        r = start_process(cli, site, args, &daemon_process, err);
    return r < 0 ? r : wait_ready(cli, site, with_launcher, err);
}

static int run_up(struct cli *cli, const struct args *args, struct error **err)
{
    uint64_t start = clock_ns();
    struct site site;
    int r;

    site_from_args(&site, args);
    r = use_site_socket(cli, args, &site, err);
    if (r == 0 && cli->explain) {
        json_decref(site.steps);
        return api_get(cli, "/v1/health", NULL, err);
    }
    if (r == 0 && is_healthy(cli, !args_flag(args, "no-launcher"))) {
        say(cli, &site, "coracle", "is running already");
    } else if (r == 0) {
        r = start_all(cli, &site, args, err);
        if (r == 0) {
            auto_free char *time = text_duration_us((clock_ns() - start) / 1000);
            auto_free char *detail = text_printf("ready after %s at %s", time, cli->connection.host);

            say(cli, &site, "coracle", detail);
        }
    }
    r = end_report(cli, &site, r);
    return r;
}

/* SIGTERM, then SIGKILL when the time is over: the database and the instances take neither amiss. */
static int end_process(const struct cli *cli, struct site *site, const struct process *p, struct error **err)
{
    pid_t pid = running_pid(site, p);
    uint64_t end = clock_ns() + END_MS * 1000000ULL;
    auto_free char *path = pid_path(site, p), *detail = NULL;

    if (!pid) {
        say(cli, site, p->name, "is not running (or was not started by coracle up)");
        return 0;
    }
    if (kill(pid, SIGTERM) < 0) {
        error_set_errno(err, errno, "FORBIDDEN", "%s (process %d) cannot be stopped", p->name, (int)pid);
        error_hint(err, "use sudo");
        return -EPERM;
    }
    while (running_pid(site, p) == pid && clock_ns() < end)
        usleep(POLL_MS * 1000);
    if (running_pid(site, p) == pid)
        kill(pid, SIGKILL);
    unlink(path);
    detail = text_printf("process %d has ended", (int)pid);
    say(cli, site, p->name, detail);
    return 0;
}

static int stop_instances(struct cli *cli, struct site *site, struct error **err)
{
    json_t *answer = NULL, *item, *operations = json_array();
    size_t i, count = 0;
    int r = api_get(cli, "/v1/instances?state=STARTED&state=STARTING&state=PAUSED", &answer, err);

    json_array_foreach(json_object_get(answer, "items"), i, item)
    {
        auto_free char *path = text_path("/v1/instances/%s/stop", text_member(item, "id"));
        json_t *operation = NULL;

        if (r == 0)
            r = api_call(cli, "POST", path, NULL, &operation, err);
        if (operation)
            json_array_append_new(operations, operation);
    }
    json_array_foreach(operations, i, item)
    {
        if (r == 0)
            r = operation_wait(cli, item, NULL, err);
        count += r == 0;
    }
    if (r == 0 && !cli->explain) {
        auto_free char *detail = text_printf("%zu stopped", count);

        say(cli, site, "instances", detail);
    }
    json_decref(operations);
    json_decref(answer);
    return r;
}

static int run_down(struct cli *cli, const struct args *args, struct error **err)
{
    struct site site;
    int r;

    site_from_args(&site, args);
    r = use_site_socket(cli, args, &site, err);
    if (r == 0 && args_flag(args, "all"))
        r = stop_instances(cli, &site, err);
    if (cli->explain) {
        json_decref(site.steps);
        return r;
    }
    if (r == 0)
        r = end_process(cli, &site, &daemon_process, err);
    if (r == 0)
        r = end_process(cli, &site, &launcher, err);
    return end_report(cli, &site, r);
}

#define SITE_OPTIONS                                                                                                   \
    {"run-dir", 0, "DIR", "sockets and records (default /run/coracle)", WORD_DIRECTORY},                               \
    {                                                                                                                  \
        "state-dir", 0, "DIR", "database, images, logs (default /var/lib/coracle)", WORD_DIRECTORY                     \
    }

static const struct option_spec up_options[] = {
    SITE_OPTIONS,
    {"cgroup", 0, "NAME", "cgroup parent (default coracle)"},
    {"user", 0, "NAME", "account of the daemon (default coracle)"},
    {"launcher-config", 0, "FILE", "host.conf of the launcher", WORD_FILE},
    {"daemon-config", 0, "FILE", "coracled.conf of the daemon", WORD_FILE},
    {"no-launcher", 0, NULL, "the daemon alone: only the simulated technology runs"},
    {NULL},
};

static const struct option_spec down_options[] = {
    SITE_OPTIONS,
    {"all", 0, NULL, "stop all instances first"},
    {NULL},
};

const struct command command_up = {
    .name = "up",
    .section = "This host",
    .synopsis = "[OPTIONS]",
    .summary = "Start launcher and daemon by hand, where systemd does not",
    .text = "Finds the programs beside this one, where they are installed, or in the build tree; waits until they "
            "answer. With systemd: systemctl start coracled.",
    .options = up_options,
    .run = run_up,
};

const struct command command_down = {
    .name = "down",
    .section = "This host",
    .synopsis = "[OPTIONS]",
    .summary = "Stop launcher and daemon that coracle up started",
    .text = "Instances go on without them, and are found again by the next coracle up. --all stops them first.",
    .options = down_options,
    .run = run_down,
};
