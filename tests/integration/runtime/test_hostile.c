/* SPDX-License-Identifier: Apache-2.0 */
/* What a hostile image or application tries against the runtime; each test is a line of the list of known attacks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "harness.h"
#include "sandbox/container_filter.h"

static unsigned next_layer = 100;

#define assert_runs(run)                                                                                               \
    do {                                                                                                               \
        char text_[512];                                                                                               \
        if (run_all(run))                                                                                              \
            fail_msg("%s", error_text((run)->err, text_, sizeof(text_)));                                              \
    } while (0)

#define assert_contains(text, part)                                                                                    \
    do {                                                                                                               \
        if (!strstr(text, part))                                                                                       \
            fail_msg("\"%s\" is not in:\n%s", part, text);                                                             \
    } while (0)

/* Names the line. */
#define assert_lacks(text, part)                                                                                       \
    do {                                                                                                               \
        const char *at_ = strstr(text, part);                                                                          \
        while (at_ && at_ > (text) && at_[-1] != '\n')                                                                 \
            at_--;                                                                                                     \
        if (at_)                                                                                                       \
            fail_msg("\"%s\" is in: %.*s", part, (int)strcspn(at_, "\n"), at_);                                        \
    } while (0)

static void use_layer(struct run *run, const char *digest)
{
    snprintf(run->plan.root.layers[0], DIGEST_HEX_SIZE, "%s", digest);
}

/* Replaces directory name of a layer by a symlink (or a file when target is NULL). */
static void replace(const char *layer, const char *name, const char *target)
{
    char path[400];

    snprintf(path, sizeof(path), "%s/%s", layer, name);
    rmdir(path);
    unlink(path);
    if (target)
        assert_int_equal(symlink(target, path), 0);
    else
        close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
}

static void hostile_01_proc_self_exe_overwrite(void **state)
{
    struct run run;

    run_init(&run, "overwrite", NULL);
    assert_runs(&run);
    /* Reaching /proc/1/exe in any way is the attack; only "still alive" may be DONE. */
    assert_contains(run.output, "still alive: DONE");
    *strstr(run.output, "still alive") = 0;
    assert_lacks(run.output, "DONE");
    run_clear(&run);

    run_init(&run, NULL);
    run.argv[0] = (char *)"/proc/self/exe"; /* executes the init itself, which has nothing to say to anybody */
    if (!run_start(&run)) {
        run_wait(&run);
        assert_true(run.exit.status_known);
        assert_int_not_equal(run.exit.wait_status, 0);
    }
    run_clear(&run);

    run_init(&run, "lurk", "2", NULL);
    assert_int_equal(run_start(&run), 0);
    for (int i = 0; i < 200; i++) {
        char *argv[] = {(char *)"/guest", (char *)"exit", (char *)"0", NULL};
        struct plan_process process = {.argv = argv, .cwd = (char *)"/", .user = (char *)"0"};
        struct runtime_exec exec;

        if (i == 100)
            argv[0] = (char *)"/proc/self/exe";
        if (container_exec(run.container, &process, NULL, &exec, NULL))
            continue;
        runtime_exec_close(&exec);
        usleep(2000);
    }
    run_wait(&run);
    assert_contains(run.output, "caught 0");
    run_clear(&run);

    /* The program is what it was: a fresh container still starts. */
    run_init(&run, "exit", "7", NULL);
    assert_runs(&run);
    assert_int_equal(run.exit.wait_status, 7 << 8);
    run_clear(&run);
}

static void hostile_02_cwd_through_inherited_descriptor(void **state)
{
    char cwd[32], text[512];
    struct run run;

    run_init(&run, "self", NULL);
    assert_runs(&run);
    assert_contains(run.output, "descriptors 0 1 2\n");
    run_clear(&run);
    for (int n = 0; n < 64; n += 7) {
        run_init(&run, "self", NULL);
        snprintf(cwd, sizeof(cwd), "/proc/self/fd/%d", n);
        run.plan.process.cwd = cwd;
        assert_int_not_equal(run_start(&run), 0);
        assert_string_equal(run.err->code, "START_FAILED");
        assert_contains(error_text(run.err, text, sizeof(text)), "working directory");
        run_clear(&run);
    }
    run_init(&run, "sleep", "60", NULL);
    assert_int_equal(run_start(&run), 0);
    for (int n = 0; n < 64; n++) {
        char *argv[] = {(char *)"/guest", (char *)"self", NULL};
        struct plan_process process = {.argv = argv, .cwd = cwd, .user = (char *)"0"};
        struct runtime_exec exec;

        snprintf(cwd, sizeof(cwd), "/proc/self/fd/%d", n);
        assert_int_not_equal(container_exec(run.container, &process, NULL, &exec, NULL), 0);
    }
    run_clear(&run);
}

struct swapper {
    char a[400], b[400];
    unsigned long swaps;
    bool stop;
};

static void *swap_for_ever(void *argument)
{
    struct swapper *swapper = argument;

    while (!__atomic_load_n(&swapper->stop, __ATOMIC_RELAXED)) {
        syscall(SYS_renameat2, AT_FDCWD, swapper->a, AT_FDCWD, swapper->b, RENAME_EXCHANGE);
        swapper->swaps++;
    }
    return NULL;
}

/* /proc of the layer is swapped with a symlink to /etc while containers start: either refused, or /proc is /proc. */
static void hostile_03_rename_exchange_during_mounts(void **state)
{
    struct swapper swapper = {.swaps = 0};
    struct counts before;
    char digest[DIGEST_HEX_SIZE], layer[256], text[512];
    pthread_t thread;
    struct run run;
    unsigned started = 0, refused = 0;

    count_resources(&before);
    harness_layer(++next_layer, digest, layer, sizeof(layer));
    snprintf(swapper.a, sizeof(swapper.a), "%s/proc", layer);
    snprintf(swapper.b, sizeof(swapper.b), "%s/swap", layer);
    assert_int_equal(symlink("/etc", swapper.b), 0);
    pthread_create(&thread, NULL, swap_for_ever, &swapper);
    for (unsigned i = 0; i < 2000 && (i < 60 || __atomic_load_n(&swapper.swaps, __ATOMIC_RELAXED) < 100000); i++) {
        run_init(&run, "types", "/proc", "/sys", "/dev", "/etc", NULL);
        use_layer(&run, digest);
        if (i % 2) {
            run.plan.root.read_only = false;
            run.plan.root.writable_bytes = 1 << 20;
        }
        if (run_start(&run)) {
            assert_non_null(run.err);
            if (getenv("SHOW"))
                print_message("%s\n", error_text(run.err, text, sizeof(text)));
            refused++;
        } else {
            run_wait(&run);
            assert_lacks(run.output, "/etc proc");
            assert_contains(run.output, "/sys sysfs");
            if (!strstr(run.output, "/proc proc")) /* swapped away after the mount: then the name is the symlink's */
                assert_contains(run.output, i % 2 ? "/proc overlay" : "/proc other");
            started++;
        }
        run_clear(&run);
    }
    __atomic_store_n(&swapper.stop, true, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    print_message("%lu swaps, %u started, %u refused\n", swapper.swaps, started, refused);
    assert_true(swapper.swaps >= 100000);
    assert_true(started > 0);
    assert_true(counts_same(&before));
}

static void hostile_04_dev_null_symlink_while_masking(void **state)
{
    char digest[DIGEST_HEX_SIZE], layer[256], path[400];
    struct stat st;
    struct run run;

    harness_layer(++next_layer, digest, layer, sizeof(layer));
    replace(layer, "dev/null", "/proc/sysrq-trigger");
    replace(layer, "mask", "/etc");
    run_init(&run, "masked", NULL);
    use_layer(&run, digest);
    assert_runs(&run);
    assert_lacks(run.output, "LEAKS");
    assert_contains(run.output, "/proc/keys: empty");
    run_clear(&run);
    run_init(&run, "ordinary", NULL);
    use_layer(&run, digest);
    assert_runs(&run);
    assert_contains(run.output, "/dev/null: DONE");
    snprintf(path, sizeof(path), "%s/dev/null", layer);
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    run_clear(&run);
}

static void hostile_05_console_target_swapped(void **state)
{
    char digest[DIGEST_HEX_SIZE], layer[256];
    struct run run;
    int master;

    harness_layer(++next_layer, digest, layer, sizeof(layer));
    replace(layer, "dev/console", "/proc/sys/kernel/core_pattern");
    replace(layer, "dev/ptmx", "/proc/sysrq-trigger");
    replace(layer, "dev/pts", "/proc/sys");
    run_init(&run, "terminal", NULL);
    use_layer(&run, digest);
    run.plan.process.tty = true;
    assert_int_equal(run_start(&run), 0);
    assert_int_equal(container_console(run.container, &master, &run.err), 0);
    assert_int_equal(write(master, "hello\n", 6), 6);
    run_wait(&run);
    close(master);
    assert_contains(run.output, "terminal 1, device 136:0, type devpts, foreground 1");
    assert_contains(run.output, "read hello");
    run_clear(&run);
}

static void hostile_06_procfs_writes_redirected(void **state)
{
    static const char *const files[] = {"proc/thread-self/attr/exec", "proc/sys/net/ipv4/ping_group_range",
                                        "proc/1/uid_map", "proc/self/oom_score_adj"};
    char digest[DIGEST_HEX_SIZE], layer[256], path[500];
    struct stat st;
    struct run run;

    harness_layer(++next_layer, digest, layer, sizeof(layer));
    for (size_t i = 0; i < 4; i++) {
        for (const char *slash = files[i]; (slash = strchr(slash + 1, '/'));) {
            snprintf(path, sizeof(path), "%s/%.*s", layer, (int)(slash - files[i]), files[i]);
            mkdir(path, 0777);
        }
        snprintf(path, sizeof(path), "%s/%s", layer, files[i]);
        close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
        chmod(path, 0666);
    }
    for (int writable = 0; writable < 2; writable++) {
        run_init(&run, "procwrite", NULL);
        use_layer(&run, digest);
        run.plan.root.read_only = !writable;
        run.plan.root.writable_bytes = writable ? 1 << 20 : 0;
        assert_runs(&run);
        assert_lacks(run.output, "DONE");
        assert_contains(run.output, "/proc/sys/kernel/core_pattern: refused");
        run_clear(&run);
    }
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof(path), "%s/%s", layer, files[i]);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_size, 0);
    }
}

/* One directory replaced: refused when started at once and when made ready first, with one layer and with two. */
static void check_mount_point(const char *name, const char *target)
{
    char digest[DIGEST_HEX_SIZE], layer[256], text[512];
    struct run run;

    harness_layer(++next_layer, digest, layer, sizeof(layer));
    replace(layer, name, target);
    for (int variant = 0; variant < 6; variant++) {
        int result;

        run_init(&run, "types", "/", NULL);
        use_layer(&run, digest);
        if (variant & 1) {
            run.plan.root.read_only = false;
            run.plan.root.writable_bytes = 1 << 20;
        }
        if (variant >= 4) {
            snprintf(run.plan.root.layers[1], DIGEST_HEX_SIZE, "%064x", 1);
            run.plan.root.layer_count = 2;
        }
        if (variant & 2) {
            assert_int_equal(run_create(&run), 0);
            result = run_root(&run);
            if (!result)
                result = shell_wait(run.shell, 5000, &run.err);
        } else {
            result = run_start(&run);
        }
        assert_int_not_equal(result, 0);
        assert_string_equal(run.err->code, "IMAGE_MALFORMED");
        assert_non_null(run.err->hint);
        assert_contains(error_text(run.err, text, sizeof(text)), name);
        run_clear(&run);
    }
}

static void hostile_07_dev_symlink(void **state)
{
    check_mount_point("dev", "/etc");
    check_mount_point("dev", "etc");
    check_mount_point("dev", "../../../../../../../../tmp");
    check_mount_point("dev", NULL);
}

static void hostile_08_proc_or_sys_symlink(void **state)
{
    check_mount_point("proc", "/etc");
    check_mount_point("proc", "tmp");
    check_mount_point("proc", NULL);
    check_mount_point("sys", "/");
    check_mount_point("sys", "../..");
}

static void hostile_09_release_agent_through_user_namespace(void **state)
{
    struct run run;

    print_message("Landlock %d, AppArmor %d\n", harness.facts.landlock_abi, harness.facts.apparmor);
    for (int variant = 0; variant < 3; variant++) {
        run_init(&run, "escape", NULL);
        if (variant == 1)
            run.plan.process.user = (char *)"1000:1000";
        if (variant == 2) /* everything a plan may ask for */
            run.plan.capabilities = runtime_capabilities_allowed();
        assert_runs(&run);
        assert_contains(run.output, "clone3 with a user namespace: refused");
        assert_lacks(run.output, "DONE");
        run_clear(&run);
    }
}

/* Two containers of one image share its pages, not its inodes: a lock of one does not stop the other, and neither sees
 * what the other opens. */
static void neighbours_share_no_inodes(void **state)
{
    struct run watcher, other;

    run_init(&watcher, "shared", "1500", NULL);
    assert_int_equal(run_start(&watcher), 0);
    for (int i = 0; i < 100 && !strstr(watcher.output, "lock"); i++) {
        usleep(10000);
        run_logs(&watcher);
    }
    run_init(&other, "shared", "1", "touch", NULL);
    assert_runs(&other);
    assert_contains(other.output, "lock 0\n");
    run_wait(&watcher);
    assert_contains(watcher.output, "lock 0\n");
    assert_contains(watcher.output, "saw 0\n");
    run_clear(&other);
    run_clear(&watcher);
}

/* Every process of the container is inside the filter, without new privileges and with few capabilities. */
static void confinement_as_seen_from_inside(void **state)
{
    struct run run;

    run_init(&run, "self", NULL);
    assert_runs(&run);
    assert_contains(run.output, "NoNewPrivs:\t1");
    assert_contains(run.output, "Seccomp:\t2");
    assert_contains(run.output, "CapInh:\t0000000000000000");
    assert_contains(run.output, "CapBnd:\t00000000000004fb");
    assert_contains(run.output, "CapEff:\t00000000000004fb");
    assert_contains(run.output, "CapAmb:\t0000000000000000");
    run_clear(&run);
    run_init(&run, "self", NULL);
    run.plan.process.user = (char *)"1000:1001";
    run.plan.capabilities = 1u << 13; /* NET_RAW, asked for by name: the only one a user other than root holds */
    assert_runs(&run);
    assert_contains(run.output, "uid 1000 gid 1001 groups\n");
    assert_contains(run.output, "CapEff:\t0000000000002000");
    assert_contains(run.output, "CapAmb:\t0000000000002000");
    run_clear(&run);
    run_init(&run, "self", NULL);
    run.plan.capabilities = 1u << 21; /* SYS_ADMIN */
    assert_int_not_equal(run_start(&run), 0);
    assert_string_equal(run.err->code, "INVALID_VALUE");
    run_clear(&run);
}

/* uretprobe and uprobe: since 6.15 the kernel answers them before any filter (with a signal, outside a probe). */
static bool beside_filter(int number)
{
    return number == 335 || number == 336;
}

/* Every refused number, in a real container. */
static void refused_system_calls_are_refused(void **state)
{
    static char list[8192];
    size_t used = 0;
    struct run run;

    for (int number = 0; number < 600; number++)
        if (seccomp_container_verdict(number) != SECCOMP_VERDICT_ALLOW && !beside_filter(number) &&
            seccomp_container_verdict(number) != SECCOMP_VERDICT_CONDITIONAL)
            used += (size_t)snprintf(list + used, sizeof(list) - used, "%d,", number);
    run_init(&run, "syscalls", list, NULL);
    assert_int_equal(run_all(&run), 0);
    assert_int_equal(run.exit.wait_status, 0);
    for (int number = 0; number < 600; number++) {
        char part[32];

        if (seccomp_container_verdict(number) == SECCOMP_VERDICT_ALLOW || beside_filter(number) ||
            seccomp_container_verdict(number) == SECCOMP_VERDICT_CONDITIONAL)
            continue;
        snprintf(part, sizeof(part), "%s%d:%d ", number ? " " : "", number,
                 seccomp_container_verdict(number) == SECCOMP_VERDICT_EPERM ? EPERM : ENOSYS);
        if (!strstr(run.output, part) && strncmp(run.output, part + 1, strlen(part) - 1) != 0)
            fail_msg("system call%s is not in %s", part, run.output);
    }
    run_clear(&run);
}

static void foreign_architectures_end_the_process(void **state)
{
    static const char *const names[] = {"i386", "x32"};
    struct run run;

    for (int i = 0; i < 2; i++) {
        run_init(&run, "foreign", names[i], NULL);
        assert_runs(&run);
        assert_lacks(run.output, "DONE");
        assert_true(WIFSIGNALED(run.exit.wait_status));
        run_clear(&run);
    }
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
        cmocka_unit_test(hostile_01_proc_self_exe_overwrite),
        cmocka_unit_test(hostile_02_cwd_through_inherited_descriptor),
        cmocka_unit_test(hostile_03_rename_exchange_during_mounts),
        cmocka_unit_test(hostile_04_dev_null_symlink_while_masking),
        cmocka_unit_test(hostile_05_console_target_swapped),
        cmocka_unit_test(hostile_06_procfs_writes_redirected),
        cmocka_unit_test(hostile_07_dev_symlink),
        cmocka_unit_test(hostile_08_proc_or_sys_symlink),
        cmocka_unit_test(hostile_09_release_agent_through_user_namespace),
        cmocka_unit_test(neighbours_share_no_inodes),
        cmocka_unit_test(confinement_as_seen_from_inside),
        cmocka_unit_test(refused_system_calls_are_refused),
        cmocka_unit_test(foreign_architectures_end_the_process),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
