/* SPDX-License-Identifier: Apache-2.0 */
/* Life of a container: what it sees, logs, signals, pause, exec, terminals, restart, adoption, remains. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "harness.h"
#include "runtime/internal.h"

static unsigned next_layer = 200;

#define assert_ok(run, call)                                                                                           \
    do {                                                                                                               \
        char text_[512];                                                                                               \
        if (call)                                                                                                      \
            fail_msg("%s: %s", #call, error_text((run)->err, text_, sizeof(text_)));                                   \
    } while (0)
#define assert_contains(text, part)                                                                                    \
    do {                                                                                                               \
        if (!strstr(text, part))                                                                                       \
            fail_msg("\"%s\" is not in:\n%s", part, text);                                                             \
    } while (0)
#define assert_lacks(text, part)                                                                                       \
    do {                                                                                                               \
        if (strstr(text, part))                                                                                        \
            fail_msg("\"%s\" is in:\n%s", part, text);                                                                 \
    } while (0)

static void use_writable(struct run *run, uint64_t bytes)
{
    run->plan.root.read_only = false;
    run->plan.root.writable_bytes = bytes;
}

/* Waits until the output holds text, at most 5 s. */
static void wait_output(struct run *run, const char *text)
{
    for (int i = 0; i < 500; i++) {
        run_logs(run);
        if (strstr(run->output, text))
            return;
        usleep(10000);
    }
    fail_msg("\"%s\" does not come; output:\n%s", text, run->output);
}

static void ordinary_programs_work(void **state)
{
    struct run run;

    for (int writable = 0; writable < 2; writable++) {
        run_init(&run, "ordinary", NULL);
        if (writable)
            use_writable(&run, 1 << 20);
        assert_ok(&run, run_all(&run));
        assert_lacks(run.output, "refused");
        assert_contains(run.output, "loopback up: 1");
        assert_contains(run.output, "/dev/pts: DONE");
        run_clear(&run);
    }
    run_init(&run, "orphans", NULL);
    assert_ok(&run, run_all(&run));
    assert_contains(run.output, "processes 2\n");
    run_clear(&run);
}

static void exit_status_is_recorded(void **state)
{
    struct run run;

    run_init(&run, "exit", "33", NULL);
    assert_ok(&run, run_all(&run));
    assert_true(run.exit.status_known && WIFEXITED(run.exit.wait_status));
    assert_int_equal(WEXITSTATUS(run.exit.wait_status), 33);
    assert_false(run.exit.oom);
    assert_true(run.exit.exited_at_ns > 1000000000ull * 1000000000ull);
    run_clear(&run);
    run_init(&run, "kill", "11", NULL);
    assert_ok(&run, run_all(&run));
    assert_true(WIFSIGNALED(run.exit.wait_status));
    assert_int_equal(WTERMSIG(run.exit.wait_status), SIGSEGV);
    run_clear(&run);
    /* Its init killed from outside: nobody could write a status. */
    run_init(&run, "sleep", "100", NULL);
    assert_ok(&run, run_start(&run));
    kill(container_pid(run.container), SIGKILL);
    run_wait(&run);
    assert_false(run.exit.status_known);
    run_clear(&run);
}

static void failures_say_what_and_what_to_do(void **state)
{
    static const struct {
        const char *argv0, *cwd, *user, *part;
    } cases[] = {
        {"/absent", "/", "0", "/absent: not found in the image"},
        {"absent", "/", "0", "absent: not found in the PATH"},
        {"/etc/file", "/", "0", "not executable"},
        {"/etc", "/", "0", "not executable"},
        {"/etc/text", "/", "0", "neither a program"},
        {"/guest", "/absent", "0", "working directory /absent"},
        {"/guest", "/etc/file", "0", "working directory /etc/file"},
        {"/guest", "/", "nobody", "user \"nobody\": unknown"},
        {"/guest", "/", "70000", "user \"70000\": unknown"},
        {"/guest", "/", "0:staff", "user \"0:staff\": unknown"},
        {"", "/", "0", "not found"},
    };
    char digest[DIGEST_HEX_SIZE], layer[256], path[400], text[512];
    struct run run;

    harness_layer(++next_layer, digest, layer, sizeof(layer));
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%s/etc/%s", layer, i ? "text" : "file");
        auto_fd int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

        assert_int_equal(write(fd, "hello\n", 6), 6);
        assert_int_equal(fchmod(fd, i ? 0755 : 0644), 0);
    }
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct counts before;

        count_resources(&before);
        run_init(&run, NULL);
        snprintf(run.plan.root.layers[0], DIGEST_HEX_SIZE, "%s", digest);
        run.argv[0] = (char *)(uintptr_t)cases[i].argv0;
        run.plan.process.cwd = (char *)(uintptr_t)cases[i].cwd;
        run.plan.process.user = (char *)(uintptr_t)cases[i].user;
        assert_int_not_equal(run_start(&run), 0);
        assert_string_equal(run.err->code, "START_FAILED");
        assert_non_null(run.err->hint);
        assert_contains(error_text(run.err, text, sizeof(text)), cases[i].part);
        run_clear(&run);
        assert_true(counts_same(&before));
    }
}

static void users_of_the_image(void **state)
{
    static const char passwd[] = "root:x:0:0::/root:/bin/sh\nweb:x:101:102::/srv:/bin/sh\n",
                      group[] = "root:x:0:\nweb:x:102:\nlogs:x:200:web,other\nstaff:x:50:\n";
    static const struct {
        const char *user, *ids, *home;
    } cases[] = {
        {"web", "uid 101 gid 102 groups 200\n", "HOME=/srv"},
        {"101", "uid 101 gid 102 groups 200\n", "HOME=/srv"},
        {"web:staff", "uid 101 gid 50 groups\n", "HOME=/srv"},
        {"5:6", "uid 5 gid 6 groups\n", "HOME=/"},
        {"", "uid 0 gid 0 groups\n", "HOME=/root"},
        {"web:7", "uid 101 gid 7 groups\n", "HOME=/srv"},
    };
    char digest[DIGEST_HEX_SIZE], layer[256], path[400];
    struct run run;

    harness_layer(++next_layer, digest, layer, sizeof(layer));
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%s/etc/%s", layer, i ? "group" : "passwd");
        auto_fd int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

        assert_true(write(fd, i ? group : passwd, strlen(i ? group : passwd)) > 0);
    }
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        run_init(&run, "self", NULL);
        snprintf(run.plan.root.layers[0], DIGEST_HEX_SIZE, "%s", digest);
        run.plan.process.user = (char *)(uintptr_t)cases[i].user;
        assert_ok(&run, run_all(&run));
        assert_contains(run.output, cases[i].ids);
        assert_contains(run.output, cases[i].home);
        assert_contains(run.output, "env TESTED=yes");
        assert_contains(run.output, "hostname guest-host");
        run_clear(&run);
    }
    /* A fifo in place of the file must not block the start. */
    snprintf(path, sizeof(path), "%s/etc/passwd", layer);
    unlink(path);
    assert_int_equal(mkfifo(path, 0644), 0);
    run_init(&run, "self", NULL);
    snprintf(run.plan.root.layers[0], DIGEST_HEX_SIZE, "%s", digest);
    run.plan.process.user = (char *)"web";
    assert_int_not_equal(run_start(&run), 0);
    assert_contains(run.err->message, "unknown in the image");
    run_clear(&run);
}

static void etc_files_are_provided(void **state)
{
    struct run run;

    run_init(&run, "show", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", NULL);
    use_writable(&run, 1 << 20);
    run.plan.nic_count = 1;
    run.plan.nics[0].prefix4 = 24;
    run.plan.nics[0].ipv4.s_addr = htonl(0xc6120005);
    assert_ok(&run, run_all(&run));
    assert_contains(run.output, "198.18.0.5 guest-host");
    assert_contains(run.output, "/etc/hostname: guest-host");
    assert_contains(run.output, "/etc/resolv.conf: No such file");
    run_clear(&run);
}

static void log_rotates_and_keeps_the_newest(void **state)
{
    struct run run;
    char last[64];

    run_init(&run, "lines", "20000", "60", NULL);
    run.plan.log_bytes_max = 64 << 10;
    assert_ok(&run, run_all(&run));
    assert_true(run.log_bytes <= (64 << 10));
    assert_true(run.log_bytes >= (32 << 10));
    assert_lacks(run.output, "\n000000");
    snprintf(last, sizeof(last), "\n%06d", 19999);
    assert_contains(run.output, last);
    assert_contains(run.output, "no newline at the end");
    run_clear(&run);
    /* A line longer than any buffer comes in parts and is whole again. */
    run_init(&run, "lines", "2", "30000", NULL);
    assert_ok(&run, run_all(&run));
    assert_true(strcspn(run.output, "\n") == 30000);
    assert_contains(run.output, "to stderr\n");
    run_clear(&run);
}

static void signals_reach_the_application(void **state)
{
    struct run run;

    run_init(&run, "trap", NULL);
    assert_ok(&run, run_start(&run));
    wait_output(&run, "ready");
    assert_ok(&run, container_signal(run.container, SIGUSR1, &run.err));
    run_wait(&run);
    assert_contains(run.output, "signal 10");
    assert_int_equal(run.exit.wait_status, 42 << 8);
    assert_int_equal(container_signal(run.container, SIGTERM, &run.err), -ESRCH);
    assert_string_equal(run.err->code, "CONFLICTING_STATE");
    run_clear(&run);
}

static uint64_t cpu_ns(struct run *run)
{
    struct container_stats stats;

    assert_int_equal(container_stats(run->container, &stats, NULL), 0);
    return stats.cpu_ns;
}

/* Until the container has used that much more processor time; a busy host gives it late. */
static bool uses_cpu(struct run *run, uint64_t ns)
{
    uint64_t before = cpu_ns(run);

    for (int i = 0; i < 1000 && cpu_ns(run) - before < ns; i++)
        usleep(10000);
    return cpu_ns(run) - before >= ns;
}

/* One fifth of a second without any: what was used before the freeze may be accounted late. */
static bool stands_still(struct run *run)
{
    for (int i = 0; i < 10; i++) {
        uint64_t before = cpu_ns(run);
        usleep(200000);
        if (cpu_ns(run) - before < 2000000)
            return true;
    }
    return false;
}

static void pause_holds_and_resume_goes_on(void **state)
{
    struct run run;

    run_init(&run, "burn", "100", NULL);
    assert_ok(&run, run_start(&run));
    assert_true(uses_cpu(&run, 10000000));
    assert_ok(&run, container_pause(run.container, &run.err));
    assert_true(container_paused(run.container));
    assert_true(stands_still(&run));
    struct plan_process process = {.argv = run.argv, .cwd = (char *)"/"};
    struct runtime_exec exec;

    assert_int_equal(container_exec(run.container, &process, NULL, &exec, NULL), -EAGAIN);
    assert_ok(&run, container_resume(run.container, &run.err));
    assert_false(container_paused(run.container));
    assert_true(uses_cpu(&run, 10000000));
    /* Killing works while frozen. */
    assert_ok(&run, container_pause(run.container, &run.err));
    assert_ok(&run, container_kill_all(run.container, &run.err));
    run_wait(&run);
    assert_false(run.exit.status_known);
    run_clear(&run);
}

/* Runs argv inside; returns its wait status, its output in ret. */
static int execute(struct run *run, struct plan_process *process, char *ret, size_t size)
{
    int ends[2], status = -1;
    struct runtime_exec exec;
    size_t used = 0;
    ssize_t n;

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    int stdio[3] = {-1, ends[1], ends[1]};

    assert_ok(run, container_exec(run->container, process, stdio, &exec, &run->err));
    close(ends[1]);
    while ((n = read(ends[0], ret + used, size - used - 1)) > 0)
        used += (size_t)n;
    ret[used] = 0;
    close(ends[0]);
    struct pollfd wait = {exec.connection, POLLIN, 0};

    assert_int_equal(poll(&wait, 1, 5000), 1);
    assert_int_equal(runtime_exec_wait(&exec, &status), 0);
    runtime_exec_close(&exec);
    return status;
}

static void exec_runs_confined_commands(void **state)
{
    char *argv[4] = {(char *)"/guest", (char *)"self", NULL}, *env[] = {(char *)"EXTRA=1", NULL}, text[4096];
    struct plan_process process = {.argv = argv, .env = env, .cwd = (char *)"/etc", .user = (char *)"12:13"};
    struct runtime_exec execs[RUNTIME_EXEC_MAX + 1];
    struct run run;
    int status;

    run_init(&run, "sleep", "100", NULL);
    assert_ok(&run, run_start(&run));
    assert_int_equal(execute(&run, &process, text, sizeof(text)), 0);
    assert_contains(text, "uid 12 gid 13");
    assert_contains(text, "cwd /etc");
    assert_contains(text, "env EXTRA=1");
    assert_lacks(text, "TESTED");
    assert_contains(text, "NoNewPrivs:\t1");
    assert_contains(text, "Seccomp:\t2");
    assert_contains(text, "CapEff:\t0000000000000000");
    assert_contains(text, "descriptors 0 1 2\n");
    argv[1] = (char *)"exit";
    argv[2] = (char *)"5";
    assert_int_equal(execute(&run, &process, text, sizeof(text)), 5 << 8);
    argv[0] = (char *)"/absent";
    assert_int_not_equal(container_exec(run.container, &process, NULL, &execs[0], &run.err), 0);
    assert_string_equal(run.err->code, "EXEC_FAILED");
    error_free(run.err);
    run.err = NULL;
    /* As many as there may be, one more is refused, and a signal ends one. */
    argv[0] = (char *)"/guest";
    argv[1] = (char *)"sleep";
    argv[2] = (char *)"100";
    for (int i = 0; i < RUNTIME_EXEC_MAX; i++)
        assert_ok(&run, container_exec(run.container, &process, NULL, &execs[i], &run.err));
    assert_int_equal(execs[15].number, 18);
    assert_int_equal(runtime_exec_wait(&execs[0], &status), -EAGAIN);
    assert_ok(&run, runtime_exec_signal(&execs[0], SIGTERM, &run.err));
    assert_int_equal(poll(&(struct pollfd){execs[0].connection, POLLIN, 0}, 1, 5000), 1);
    assert_int_equal(runtime_exec_wait(&execs[0], &status), 0);
    assert_int_equal(WTERMSIG(status), SIGTERM);
    run_end(&run);
    assert_int_equal(runtime_exec_wait(&execs[1], &status), -ECONNRESET);
    for (int i = 0; i < RUNTIME_EXEC_MAX; i++)
        runtime_exec_close(&execs[i]);
    run_clear(&run);
}

static void terminals(void **state)
{
    char *argv[] = {(char *)"/guest", (char *)"terminal", NULL}, text[512];
    struct plan_process process = {.argv = argv, .cwd = (char *)"/", .user = (char *)"1000", .tty = true};
    struct runtime_exec exec;
    struct run run;
    size_t used = 0;
    ssize_t n;
    int console;

    run_init(&run, "cat", NULL);
    run.plan.process.open_stdin = true;
    assert_ok(&run, run_start(&run));
    assert_ok(&run, container_exec(run.container, &process, NULL, &exec, &run.err));
    assert_int_equal(write(exec.terminal, "abc\n", 4), 4);
    while (used < sizeof(text) - 1 && (n = read(exec.terminal, text + used, sizeof(text) - 1 - used)) > 0)
        used += (size_t)n;
    text[used] = 0;
    assert_contains(text, "terminal 1, device 136:0, type devpts, foreground 1");
    assert_contains(text, "read abc");
    runtime_exec_close(&exec);
    /* stdin of the application: given once, closing it is the end of file. */
    assert_ok(&run, container_console(run.container, &console, &run.err));
    assert_int_equal(write(console, "typed\n", 6), 6);
    assert_int_not_equal(container_console(run.container, &(int){-1}, &run.err), 0);
    assert_string_equal(run.err->code, "CONFLICTING_STATE");
    close(console);
    run_wait(&run);
    assert_contains(run.output, "typed\nend of file\n");
    run_clear(&run);
}

static void restart_keeps_the_writable_layer(void **state)
{
    struct run run;
    char text[256];

    run_init(&run, "write", "/tmp/kept", "first", "/new", "x", "/guest2", "y", "/proc/sys/kernel/x", "z", NULL);
    use_writable(&run, 1 << 20);
    assert_ok(&run, run_all(&run));
    assert_contains(run.output, "/tmp/kept: DONE");
    assert_contains(run.output, "/new: DONE");
    assert_contains(run.output, "/proc/sys/kernel/x: refused");
    assert_ok(&run, run_end(&run));
    /* The same instance, the same range, another shell. */
    run.argv[1] = (char *)"show";
    run.argv[2] = (char *)"/tmp/kept";
    run.argv[3] = (char *)"/new";
    run.argv[4] = NULL;
    assert_ok(&run, run_all(&run));
    assert_contains(run.output, "/tmp/kept: first");
    assert_contains(run.output, "/new: x");
    run_end(&run);
    snprintf(text, sizeof(text), "%s/writable/upper/tmp/kept", run.directory);
    struct stat st;

    assert_int_equal(stat(text, &st), 0);
    assert_int_equal(st.st_uid, run.uid_base);
    run_clear(&run);
    /* From a shell made ready without an instance: the layer moves to the instance that takes it. */
    run_init(&run, "write", "/tmp/kept", "pooled", NULL);
    use_writable(&run, 1 << 20);
    assert_ok(&run, shell_create(harness.runtime, run.tag, run.uid_base, &run.shell, &run.steps, &run.err));
    assert_ok(&run, shell_set_root(run.shell, &run.plan.root, -1, &run.steps, &run.err));
    assert_ok(&run, shell_wait(run.shell, 5000, &run.err));
    struct shell_start start = {
        .plan = &run.plan, .instance_dirfd = run.instance_fd, .log_fds = {-1, -1}, .listen_fd = -1};

    start.exit_fd = openat(run.instance_fd, "exit", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_ok(&run, shell_start(run.shell, &start, &run.container, &run.steps, &run.err));
    run.shell = NULL;
    close(start.exit_fd);
    run_wait(&run);
    snprintf(text, sizeof(text), "%s/writable/upper/tmp/kept", run.directory);
    assert_int_equal(stat(text, &st), 0);
    run_clear(&run);
    assert_int_not_equal(stat(text, &st), 0);
}

/* Layers over each other: files hidden by whiteouts and opaque directories, mount points missing everywhere. */
static void layers_are_merged(void **state)
{
    char lower[DIGEST_HEX_SIZE], upper[DIGEST_HEX_SIZE], low_path[256], up_path[256], path[400];
    struct run run;

    harness_layer(++next_layer, lower, low_path, sizeof(low_path));
    harness_empty_layer(++next_layer, upper, up_path, sizeof(up_path));
    static const char *const files[] = {"work/gone", "work/kept", "tmp/hidden"};

    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/%s", low_path, files[i]);
        close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    }
    snprintf(path, sizeof(path), "%s/work", up_path);
    mkdir(path, 0755);
    snprintf(path, sizeof(path), "%s/work/gone", up_path);
    assert_int_equal(mknod(path, S_IFCHR, makedev(0, 0)), 0);
    snprintf(path, sizeof(path), "%s/tmp", up_path);
    mkdir(path, 0777);
    snprintf(path, sizeof(path), "%s/tmp", up_path);
    assert_int_equal(setxattr(path, "user.overlay.opaque", "y", 1, 0), 0);
    for (int writable = 0; writable < 2; writable++) {
        run_init(&run, "show", "/work/gone", "/work/kept", "/tmp/hidden", NULL);
        snprintf(run.plan.root.layers[0], DIGEST_HEX_SIZE, "%s", upper);
        snprintf(run.plan.root.layers[1], DIGEST_HEX_SIZE, "%s", lower);
        run.plan.root.layer_count = 2;
        if (writable)
            use_writable(&run, 1 << 20);
        assert_ok(&run, run_all(&run));
        assert_contains(run.output, "/work/gone: No such file");
        assert_contains(run.output, "/work/kept: \n");
        assert_contains(run.output, "/tmp/hidden: No such file");
        run_clear(&run);
    }
    /* An image of one file: mount points come from the skeleton, or are made in the writable layer. */
    static const char *const removed[] = {"proc", "sys", "dev", "etc"};

    harness_layer(++next_layer, lower, low_path, sizeof(low_path));
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof(path), "%s/%s", low_path, removed[i]);
        assert_int_equal(rmdir(path), 0);
    }
    for (int writable = 0; writable < 2; writable++) {
        run_init(&run, "types", "/proc", "/sys", "/dev", "/", NULL);
        snprintf(run.plan.root.layers[0], DIGEST_HEX_SIZE, "%s", lower);
        if (writable)
            use_writable(&run, 1 << 20);
        assert_ok(&run, run_all(&run));
        assert_contains(run.output, "/proc proc\n/sys sysfs\n/dev tmpfs\n/ overlay\n");
        run_clear(&run);
    }
}

/* The same on the ways taken for older kernels: layers by path, and a writable layer without user.* attributes. */
static void the_ways_for_older_kernels(void **state)
{
    bool by_fd = harness.runtime->overlay_by_fd, user_xattr = harness.runtime->tmpfs_user_xattr;

    for (int variant = 0; variant < 3; variant++) {
        harness.runtime->overlay_by_fd = variant == 1 && by_fd;
        harness.runtime->tmpfs_user_xattr = variant == 0;
        layers_are_merged(state);
        restart_keeps_the_writable_layer(state);
    }
    harness.runtime->overlay_by_fd = by_fd;
    harness.runtime->tmpfs_user_xattr = user_xattr;
}

static void a_container_is_found_again(void **state)
{
    struct container_record record;
    struct run run;

    run_init(&run, "trap", NULL);
    assert_ok(&run, run_start(&run));
    wait_output(&run, "ready");
    container_record(run.container, &record);
    container_close(run.container);
    run.container = NULL;
    struct container_record wrong = record;

    wrong.start_time++;
    assert_ok(&run, container_open(harness.runtime, &wrong, run.instance_fd, &run.container, &run.err));
    assert_false(container_alive(run.container));
    container_close(run.container);
    assert_ok(&run, container_open(harness.runtime, &record, run.instance_fd, &run.container, &run.err));
    assert_true(container_alive(run.container));
    /* Its application is known again, also while it is paused. */
    assert_ok(&run, container_pause(run.container, &run.err));
    assert_ok(&run, container_signal(run.container, SIGTERM, &run.err));
    assert_true(container_alive(run.container));
    assert_ok(&run, container_resume(run.container, &run.err));
    run_wait(&run);
    assert_contains(run.output, "signal 15");
    run_clear(&run);
}

/* A launcher that dies takes its shells with it, and leaves its containers alone; the sweep finds the rest. */
static bool keep_tag(void *context, const char *tag)
{
    return !strcmp(tag, context);
}

static void what_a_dead_launcher_leaves(void **state)
{
    struct container_record record;
    struct run run, shell;
    unsigned removed = 0;
    int ends[2];

    run_init(&run, "sleep", "100", NULL);
    use_writable(&run, 1 << 20);
    run_init(&shell, "sleep", "100", NULL);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid_t pid = fork();

    if (!pid) {
        pid_t pids[2];

        runtime_use_beside(harness.runtime, NULL); /* its threads are not here */
        if (run_start(&run) || run_create(&shell) || run_root(&shell) || shell_wait(shell.shell, 5000, NULL))
            _exit(1);
        container_record(run.container, &record);
        pids[0] = shell_pid(shell.shell);
        if (write(ends[1], &record, sizeof(record)) < 0 || write(ends[1], pids, sizeof(pids[0])) < 0)
            _exit(1);
        kill(getpid(), SIGKILL);
    }
    int status;
    pid_t shell_process = 0;

    waitpid(pid, &status, 0);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(read(ends[0], &record, sizeof(record)), sizeof(record));
    assert_int_equal(read(ends[0], &shell_process, sizeof(shell_process)), sizeof(shell_process));
    close(ends[0]);
    close(ends[1]);
    for (int i = 0; i < 200 && !kill(shell_process, 0); i++)
        usleep(10000);
    assert_int_equal(kill(shell_process, 0), -1);
    assert_ok(&run, container_open(harness.runtime, &record, run.instance_fd, &run.container, &run.err));
    assert_true(container_alive(run.container));
    assert_ok(&run, runtime_sweep(harness.runtime, keep_tag, run.tag, &removed, &run.err));
    assert_int_equal(removed, 1);
    assert_true(container_alive(run.container));
    assert_ok(&run, runtime_sweep(harness.runtime, keep_tag, (void *)"nobody", &removed, &run.err));
    assert_int_equal(removed, 1);
    run_wait(&run);
    run_end(&run);
    char path[128];

    snprintf(path, sizeof(path), "%s/instances", harness.base);
    assert_ok(&run, runtime_sweep_mounts(path, keep_tag, run.tag, &removed, &run.err));
    assert_int_equal(removed, 0);
    assert_ok(&run, runtime_sweep_mounts(path, keep_tag, (void *)"nobody", &removed, &run.err));
    assert_int_equal(removed, 1);
    run_clear(&run);
    run_clear(&shell);
}

/* Lines of /proc/PID/maps that are not the program itself: the vsyscall page, which is no memory, stays. */
static unsigned foreign_mappings(pid_t pid)
{
    char path[32], line[512];
    unsigned n = 0;

    snprintf(path, sizeof(path), "/proc/%d/maps", pid);
    auto_file FILE *f = fopen(path, "re");

    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        n += strtoul(line, NULL, 16) > 0x10000000 && !strstr(line, "[vsyscall]");
    return n;
}

/* Each further region would cost page tables of 12 KiB; also after an exec, whose request is mapped for a while. */
static void the_init_keeps_nothing_but_itself(void **state)
{
    char *argv[] = {(char *)"/guest", (char *)"exit", (char *)"0", NULL};
    struct plan_process process = {.argv = argv, .cwd = (char *)"/", .user = (char *)"0"};
    static const int stdio[3] = {-1, -1, -1};
    struct runtime_exec exec;
    struct run run;
    int status;

    run_init(&run, "sleep", "100", NULL);
    assert_ok(&run, run_start(&run));
    for (int turn = 0; turn < 2; turn++) {
        for (int i = 0; i < 1000 && foreign_mappings(container_pid(run.container)); i++)
            usleep(5000);
        assert_int_equal(foreign_mappings(container_pid(run.container)), 0);
        if (turn)
            break;
        assert_ok(&run, container_exec(run.container, &process, stdio, &exec, &run.err));
        for (int i = 0; i < 1000 && runtime_exec_wait(&exec, &status) == -EAGAIN; i++)
            usleep(5000);
        runtime_exec_close(&exec);
    }
    run_clear(&run);
}

static void nothing_is_left_after_a_hundred(void **state)
{
    struct counts before;
    unsigned namespaces;
    struct run run;

    run_init(&run, "exit", "0", NULL);
    assert_ok(&run, run_all(&run));
    run_clear(&run);
    usleep(500000);
    count_resources(&before);
    namespaces = count_netns();
    for (int i = 0; i < 100; i++) {
        run_init(&run, i % 5 == 3 ? "absent" : "exit", "0", NULL);
        if (i % 2)
            use_writable(&run, 1 << 20);
        if (i % 5 == 4) { /* a shell nobody takes */
            assert_ok(&run, run_create(&run));
            assert_ok(&run, run_root(&run));
        } else if (i % 5 == 2) {
            run.argv[0] = (char *)"/absent";
            assert_int_not_equal(run_start(&run), 0);
        } else {
            assert_ok(&run, run_all(&run));
        }
        run_clear(&run);
    }
    assert_true(counts_same(&before));
    /* Network namespaces end asynchronously, and others on this machine make some, too. */
    for (int i = 0; i < 100 && count_netns() > namespaces + 30; i++)
        usleep(100000);
    assert_true(count_netns() <= namespaces + 30);
}

static int setup(void **state)
{
    harness_open();
    return 0;
}

static int teardown(void **state)
{
    harness_close();
    return 0;
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(ordinary_programs_work),           cmocka_unit_test(exit_status_is_recorded),
        cmocka_unit_test(failures_say_what_and_what_to_do), cmocka_unit_test(users_of_the_image),
        cmocka_unit_test(etc_files_are_provided),           cmocka_unit_test(log_rotates_and_keeps_the_newest),
        cmocka_unit_test(signals_reach_the_application),    cmocka_unit_test(pause_holds_and_resume_goes_on),
        cmocka_unit_test(exec_runs_confined_commands),      cmocka_unit_test(terminals),
        cmocka_unit_test(restart_keeps_the_writable_layer), cmocka_unit_test(layers_are_merged),
        cmocka_unit_test(the_ways_for_older_kernels),       cmocka_unit_test(a_container_is_found_again),
        cmocka_unit_test(what_a_dead_launcher_leaves),      cmocka_unit_test(the_init_keeps_nothing_but_itself),
        cmocka_unit_test(nothing_is_left_after_a_hundred),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
