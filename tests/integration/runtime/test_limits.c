/* SPDX-License-Identifier: Apache-2.0 */
/* Limits: in force, felt by the container alone, changed while it runs, refused where nothing here enforces them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "harness.h"

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
#define need(controller)                                                                                               \
    do {                                                                                                               \
        if (!(harness.facts.controllers & (controller))) {                                                             \
            print_message("skipped: no %s here\n", #controller);                                                       \
            skip();                                                                                                    \
        }                                                                                                              \
    } while (0)

static void memory_kills_only_inside(void **state)
{
    struct run bystander, run;

    need(RUNTIME_MEMORY);
    run_init(&bystander, "sleep", "100", NULL);
    assert_ok(&bystander, run_start(&bystander));
    run_init(&run, "memory", "200", NULL);
    run.plan.limits.memory_bytes = 32 << 20;
    assert_ok(&run, run_all(&run));
    assert_true(run.exit.oom);
    assert_false(strstr(run.output, "DONE") != NULL);
    struct container_stats stats;

    assert_int_equal(container_stats(run.container, &stats, NULL), 0);
    assert_true(stats.oom_kills >= 1);
    assert_true(stats.memory_peak_bytes <= 33 << 20);
    run_clear(&run);
    assert_true(container_alive(bystander.container));
    run_clear(&bystander);
    /* Below the limit nothing happens. */
    run_init(&run, "memory", "20", NULL);
    run.plan.limits.memory_bytes = 32 << 20;
    assert_ok(&run, run_all(&run));
    assert_contains(run.output, "used 20 MiB: DONE");
    assert_false(run.exit.oom);
    run_clear(&run);
}

/* The writable layer and /dev/shm are memory, and count as such. */
static void files_in_memory_count(void **state)
{
    struct run run;

    need(RUNTIME_MEMORY);
    run_init(&run, "fill", "/dev/shm/big", NULL);
    run.plan.limits.memory_bytes = 16 << 20;
    assert_ok(&run, run_all(&run));
    assert_true(run.exit.oom || strstr(run.output, "wrote 1") || strstr(run.output, "wrote 0"));
    run_clear(&run);
    run_init(&run, "fill", "/big", NULL);
    run.plan.root.read_only = false;
    run.plan.root.writable_bytes = 5 << 20;
    assert_ok(&run, run_all(&run));
    assert_contains(run.output, "wrote 5 MiB: No space left on device");
    run_clear(&run);
}

/* What the kernel counts per user is a container's own: all of it taken by one is there for the next, and for us. */
static void counts_per_user_are_a_containers_own(void **state)
{
    struct run greedy, next;
    char first[sizeof(greedy.output)];

    run_init(&greedy, "exhaust", "100", NULL);
    assert_ok(&greedy, run_start(&greedy));
    for (int i = 0; i < 500 && !strstr(greedy.output, "signals"); i++) {
        usleep(20000);
        run_logs(&greedy);
    }
    strcpy(first, greedy.output);
    run_init(&next, "exhaust", "0", NULL);
    assert_ok(&next, run_all(&next));
    print_message("%s", first);
    assert_contains(first, "inotify");
    assert_null(strstr(first, "inotify 0"));
    assert_null(strstr(first, "signals 0."));
    assert_string_equal(first, next.output);
    auto_fd int own = inotify_init1(IN_CLOEXEC);

    assert_true(own >= 0);
    run_clear(&next);
    run_clear(&greedy);
}

static void pids_stop_a_fork_bomb(void **state)
{
    struct run run;

    need(RUNTIME_PIDS);
    run_init(&run, "forks", "1000", NULL);
    run.plan.limits.pids = 20;
    assert_ok(&run, run_all(&run));
    assert_contains(run.output, "forked 19: Resource temporarily unavailable");
    run_clear(&run);
}

static void cpu_quota_is_felt(void **state)
{
    struct container_stats stats;
    struct run run;

    need(RUNTIME_CPU);
    run_init(&run, "burn", "1", NULL);
    run.plan.limits.cpu_milli = 200;
    assert_ok(&run, run_all(&run));
    int percent = atoi(run.output);

    print_message("%d%% of a core with a limit of 20%%\n", percent);
    assert_true(percent < 32);
    assert_int_equal(container_stats(run.container, &stats, NULL), 0);
    assert_true(stats.throttled_ns > 0 || percent < 20); /* a busy host may not even leave it its share */
    run_clear(&run);
}

static void cpuset_holds(void **state)
{
    struct run run;

    need(RUNTIME_CPUSET);
    run_init(&run, "show", "/proc/self/status", NULL);
    strcpy(run.plan.limits.cpuset, "0");
    assert_ok(&run, run_all(&run));
    assert_contains(run.output, "Cpus_allowed_list:\t0\n");
    run_clear(&run);
    run_init(&run, "show", "/proc/self/status", NULL);
    strcpy(run.plan.limits.cpuset, "4000");
    assert_int_not_equal(run_start(&run), 0);
    assert_string_equal(run.err->code, "LIMIT_NOT_ENFORCEABLE");
    run_clear(&run);
}

static void io_limits_reach_the_kernel(void **state)
{
    struct run run;

    need(RUNTIME_IO);
    run_init(&run, "sleep", "100", NULL);
    run.plan.limits.io_read_bps = 1 << 20;
    run.plan.limits.io_write_iops = 100;
    assert_ok(&run, run_start(&run));
    char path[256], text[64] = "";

    snprintf(path, sizeof(path), "/sys/fs/cgroup/blkio/coracle-test-%d/%s/blkio.throttle.read_bps_device", getpid(),
             run.tag);
    auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd >= 0) { /* v1; on v2 the write's success is the proof */
        assert_true(read(fd, text, sizeof(text) - 1) > 0);
        assert_contains(text, " 1048576");
        snprintf(path, sizeof(path), "/proc/%d/cgroup", container_pid(run.container));
        auto_file FILE *f = fopen(path, "re");
        char line[256];
        bool member = false;

        while (f && fgets(line, sizeof(line), f))
            member |= strstr(line, "blkio") && strstr(line, run.tag);
        assert_true(member);
    }
    run_clear(&run);
}

/* Every limit on a container started with none, then off again; a refused one changes nothing. */
static void limits_change_while_it_runs(void **state)
{
    struct limits limits = {.cpu_milli = 300, .memory_bytes = 64 << 20, .pids = 30}, worse;
    struct container_stats a, b;
    struct run run;

    need(RUNTIME_CPU | RUNTIME_MEMORY | RUNTIME_PIDS);
    run_init(&run, "burn", "100", NULL);
    assert_ok(&run, run_start(&run));
    assert_ok(&run, container_update(run.container, &limits, run.instance_fd, &run.err));
    usleep(100000);
    assert_int_equal(container_stats(run.container, &a, NULL), 0);
    usleep(1000000);
    assert_int_equal(container_stats(run.container, &b, NULL), 0);
    print_message("%.0f%% of a core after setting 30%%\n", (double)(b.cpu_ns - a.cpu_ns) / 1e7);
    assert_true(b.cpu_ns - a.cpu_ns < 450000000);
    if (harness.facts.controllers & RUNTIME_CPUSET) {
        worse = limits;
        worse.cpu_milli = 900;
        strcpy(worse.cpuset, "777");
        assert_int_not_equal(container_update(run.container, &worse, run.instance_fd, &run.err), 0);
        assert_string_equal(run.err->code, "LIMIT_NOT_ENFORCEABLE");
        assert_int_equal(container_stats(run.container, &a, NULL), 0);
        usleep(1000000);
        assert_int_equal(container_stats(run.container, &b, NULL), 0);
        assert_true(b.cpu_ns - a.cpu_ns < 450000000); /* the old quota is back */
        error_free(run.err);
        run.err = NULL;
    }
    limits = (struct limits){.pids = 0};
    assert_ok(&run, container_update(run.container, &limits, run.instance_fd, &run.err));
    usleep(100000);
    assert_int_equal(container_stats(run.container, &a, NULL), 0);
    usleep(1000000);
    assert_int_equal(container_stats(run.container, &b, NULL), 0);
    print_message("%.0f%% without a limit\n", (double)(b.cpu_ns - a.cpu_ns) / 1e7);
    /* on a busy host it gets less, but nobody holds it back any more */
    assert_true(b.cpu_ns - a.cpu_ns > 350000000 || b.throttled_ns == a.throttled_ns);
    limits.storage_bytes = 1 << 20;
    assert_int_not_equal(container_update(run.container, &limits, run.instance_fd, &run.err), 0);
    assert_string_equal(run.err->code, "LIMIT_NOT_ENFORCEABLE");
    run_clear(&run);
    run_init(&run, "sleep", "100", NULL);
    run.plan.root.read_only = false;
    run.plan.root.writable_bytes = 1 << 20;
    assert_ok(&run, run_start(&run));
    limits.storage_bytes = 8 << 20;
    assert_ok(&run, container_update(run.container, &limits, run.instance_fd, &run.err));
    run_clear(&run);
}

/* An image store on tmpfs has no device: io limits are refused before anything is made. */
static void missing_controller_is_refused(void **state)
{
    struct runtime_config config = {
        .cgroup_parent = "coracle-test-none", .init_path = getenv("TEST_INIT"), .image_uid_base = IMAGE_UID};
    struct limits limits = {.io_read_bps = 1000};
    struct runtime *runtime;
    struct error *err = NULL;
    char path[128];

    snprintf(path, sizeof(path), "%s/tmpfs", harness.base);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(mount("tmpfs", path, "tmpfs", 0, NULL), 0);
    config.layers_dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(runtime_open(&config, &runtime, &err), 0);
    assert_int_equal(runtime_check_limits(runtime, &limits, &err), -EOPNOTSUPP);
    assert_string_equal(err->code, "LIMIT_NOT_ENFORCEABLE");
    assert_non_null(err->hint);
    error_free(err);
    runtime_close(runtime);
    close(config.layers_dirfd);
    assert_int_equal(umount2(path, MNT_DETACH), 0);
    /* Every hierarchy's empty parent. */
    if (system("for d in /sys/fs/cgroup/coracle-test-none /sys/fs/cgroup/*/coracle-test-none; do rmdir $d 2>/dev/null; "
               "done; true"))
        fail();
}

/* Without CAP_SYS_RESOURCE: said in the facts, and containers start all the same. */
static void without_cap_sys_resource(void **state)
{
    struct run run;

    run_init(&run, "self", NULL);
    pid_t pid = fork();

    if (!pid) {
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct data[2];
        auto_fd int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

        if (write(score, "300", 3) != 3 || syscall(SYS_capget, &header, data))
            _exit(1);
        data[0].effective &= ~(1u << CAP_SYS_RESOURCE);
        data[0].permitted &= ~(1u << CAP_SYS_RESOURCE);
        if (syscall(SYS_capset, &header, data))
            _exit(2);
        if (run_all(&run) || run.exit.wait_status || run_end(&run))
            _exit(3);
        _exit(0);
    }
    int status;

    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    run_clear(&run);
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
        cmocka_unit_test(memory_kills_only_inside),
        cmocka_unit_test(files_in_memory_count),
        cmocka_unit_test(counts_per_user_are_a_containers_own),
        cmocka_unit_test(pids_stop_a_fork_bomb),
        cmocka_unit_test(cpu_quota_is_felt),
        cmocka_unit_test(cpuset_holds),
        cmocka_unit_test(io_limits_reach_the_kernel),
        cmocka_unit_test(limits_change_while_it_runs),
        cmocka_unit_test(missing_controller_is_refused),
        cmocka_unit_test(without_cap_sys_resource),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
