/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines whose monitor is the guest's (rogue.c), and a daemon that is somebody else's: what they ask for is refused
 * or goes wrong for them alone. No KVM is needed.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/strv.h"
#include "tests/integration/launcher/bed.h"

enum { SILENT = 12, FIRST_SILENT = 100 };

static struct bed bed;

static void install(void)
{
    static const char *const names[] = {"coracle-vmm", "coracle-qemu", "coracle-pack"};
    char path[512];

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", bed.libexec, names[i]);
        BED_CHECK(symlink(getenv("CORACLE_ROGUE"), path) == 0);
    }
    snprintf(path, sizeof(path), "%s/images/layers/%s/boot", bed.state, bed.layer);
    BED_CHECK(mkdir(path, 0755) == 0);
    snprintf(path, sizeof(path), "%s/images/layers/%s/boot/kernel", bed.state, bed.layer);
    auto_fd int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    BED_CHECK(fd >= 0 && write(fd, "kernel", 6) == 6);
    snprintf(path, sizeof(path), "%s/images/layers/%s/boot/initrd", bed.state, bed.layer);
    auto_fd int initrd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    BED_CHECK(initrd >= 0 && write(initrd, "initrd", 6) == 6);
}

static void open_bed(const char *config)
{
    bed_open(&bed, config);
    install();
    bed_launch(&bed);
    bed_link(&bed);
}

static void machine_plan(struct launch_plan *p, unsigned n, const char *name)
{
    bed_plan(&bed, p, n, "unused", NULL);
    strv_free(p->process.argv);
    strv_free(p->process.env);
    free(p->process.cwd);
    memset(&p->process, 0, sizeof(p->process));
    snprintf(p->name, sizeof(p->name), "%s-%u", name, n);
    p->nic_count = 0;
    p->kind = PLAN_MACHINE;
    p->limits.memory_bytes = 64 << 20;
    p->machine = (struct plan_machine){.monitor = PLAN_MONITOR_VMM,
                                       .boot = PLAN_BOOT_UNIKERNEL,
                                       .memory_bytes = 8 << 20,
                                       .vcpus = 1,
                                       .parameters = strdup("")};
}

static int32_t start(struct launch_plan *p)
{
    struct proto_message m;
    char words[512] = "";
    int32_t pid;

    if (bed_ask(&bed, MESSAGE_START, p, &m) != MESSAGE_STARTED)
        bed_die("start of %s: %s", p->name, error_text(m.body, words, sizeof(words)));
    pid = ((struct message_started *)m.body)->pid;
    proto_message_end(&m);
    plan_clear(p);
    return pid;
}

static struct message_snapshot snapshot_of(unsigned n, unsigned name)
{
    struct message_snapshot m = {.id = ""};

    bed_id(n, m.id);
    bed_id(name, m.snapshot);
    return m;
}

static unsigned files_of_snapshots(void)
{
    char command[256];
    unsigned n = ~0u;

    snprintf(command, sizeof(command), "ls -A %s/snapshots | wc -l", bed.state);
    FILE *f = popen(command, "re");
    BED_CHECK(f && fscanf(f, "%u", &n) == 1);
    pclose(f);
    return n;
}

/* More of them than there are workers. */
static void test_monitors_that_never_answer_hold_up_nobody(void)
{
    struct message_snapshot snapshots[SILENT];
    int32_t pids[SILENT];
    struct launch_plan p;
    struct proto_message m;

    for (unsigned i = 0; i < SILENT; i++) {
        machine_plan(&p, FIRST_SILENT + i, "silent");
        pids[i] = start(&p);
        snapshots[i] = snapshot_of(FIRST_SILENT + i, FIRST_SILENT + i);
    }
    for (unsigned i = 0; i < SILENT; i++)
        bed_send(&bed, i % 2 ? MESSAGE_SNAPSHOT : MESSAGE_CONSOLE, &snapshots[i], NULL, 0);
    uint64_t begin = monotonic_ns();
    bed_start(&bed, 1, "sleep", NULL, NULL);
    printf("beside %d monitors that do not answer: %.1f ms\n", SILENT, (double)(monotonic_ns() - begin) / 1e6);
    BED_CHECK(monotonic_ns() - begin < 2 * UINT64_C(1000000000));
    BED_CHECK(bed_release(&bed, 1));
    for (unsigned i = 0; i < SILENT; i++)
        kill(pids[i], SIGKILL);
    for (unsigned failed = 0; failed < SILENT;) { /* in any order, with EXITED in between */
        BED_CHECK(proto_receive(bed.fd, &m, NULL) == 1 && (!m.request || m.type == MESSAGE_FAILED));
        failed += m.type == MESSAGE_FAILED;
        proto_message_end(&m);
    }
    BED_CHECK(files_of_snapshots() == 0);
    BED_CHECK(bed_release_all(&bed) == SILENT);
}

/* What waits for its answer, and what is queued to wait after that, gives way to an end that was asked for. */
static void test_a_monitor_that_never_answers_is_ended_at_once(void)
{
    struct message_snapshot snapshot = snapshot_of(8, 8);
    struct message_signal kill_it = {.signal = SIGKILL};
    struct message_update update = {.vcpus = 2, .machine_bytes = 16 << 20};
    struct message_exited exited;
    struct proto_message m;
    struct launch_plan p;

    bed_id(8, update.id);
    bed_id(8, kill_it.id);
    for (int released = 0; released < 2; released++) {
        machine_plan(&p, 8, "silent");
        start(&p);
        uint32_t first = bed_send(&bed, MESSAGE_UPDATE, &update, NULL, 0);
        uint32_t second = bed_send(&bed, MESSAGE_SNAPSHOT, &snapshot, NULL, 0);
        usleep(300000); /* the first waits */
        uint64_t begin = monotonic_ns();
        if (released)
            BED_CHECK(bed_send(&bed, MESSAGE_RELEASE, &kill_it.id, NULL, 0));
        else
            BED_CHECK(bed_send(&bed, MESSAGE_SIGNAL, &kill_it, NULL, 0));
        BED_CHECK(bed_receive(&bed, first, &m) && m.type == MESSAGE_FAILED);
        BED_CHECK(strcmp(((struct error *)m.body)->code, "CONFLICTING_STATE") == 0);
        proto_message_end(&m);
        BED_CHECK(bed_receive(&bed, second, &m) && m.type == MESSAGE_FAILED);
        BED_CHECK(strcmp(((struct error *)m.body)->code, "CONFLICTING_STATE") == 0);
        proto_message_end(&m);
        BED_CHECK(released || bed_wait_exited(&bed, kill_it.id, 10000, &exited));
        printf("ended within %.1f ms\n", (double)(monotonic_ns() - begin) / 1e6);
        BED_CHECK(monotonic_ns() - begin < 10 * UINT64_C(1000000000)); /* what the daemon waits for an end */
        bed_release(&bed, 8);
    }
    BED_CHECK(bed_list(&bed, NULL, 0) == 0);
    BED_CHECK(files_of_snapshots() == 0);
}

static void test_snapshots_of_a_strange_daemon(void)
{
    struct message_snapshot m = snapshot_of(2, 7);
    struct message_id id = {.id = ""};
    struct launch_plan p;

    machine_plan(&p, 2, "polite");
    start(&p);
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_SNAPSHOT, &m), "") == 0);
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_SNAPSHOT, &m), "NAME_TAKEN") == 0); /* who started from it maps it */
    memcpy(m.snapshot, "../../logs/00000000000000000000000000", sizeof(m.snapshot) - 1);
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_SNAPSHOT, &m), "INVALID_VALUE") == 0);
    m = snapshot_of(3, 8);
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_SNAPSHOT, &m), "INSTANCE_NOT_FOUND") == 0);
    m = snapshot_of(2, 9);
    memcpy(id.id, m.id, sizeof(id.id));
    BED_CHECK(bed_ask(&bed, MESSAGE_PAUSE, &id, NULL) == MESSAGE_DONE);
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_SNAPSHOT, &m), "CONFLICTING_STATE") == 0);
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_CONSOLE, &id), "CONFLICTING_STATE") == 0);
    BED_CHECK(bed_ask(&bed, MESSAGE_RESUME, &id, NULL) == MESSAGE_DONE);
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_SNAPSHOT, &m), "") == 0);
    BED_CHECK(files_of_snapshots() == 2);
    BED_CHECK(bed_release(&bed, 2));
}

/* Logs lie on the disk of everybody. */
static void test_a_flood_of_the_log_ends(void)
{
    struct message_exited exited;
    struct launch_plan p;
    char path[512];
    struct stat st;

    machine_plan(&p, 4, "flood");
    start(&p);
    snprintf(path, sizeof(path), "%s/logs/", bed.state);
    bed_id(4, path + strlen(path));
    BED_CHECK(bed_wait_exited(&bed, strrchr(path, '/') + 1, 20000, &exited));
    strcat(path, "/log.0");
    BED_CHECK(stat(path, &st) == 0 && st.st_size > 1 << 20 && st.st_size <= (1 << 30) + (2 * 8 << 20));
    BED_CHECK(bed_release(&bed, 4));
}

static void refused(struct launch_plan *p, const char *code)
{
    const char *got = bed_refusal(&bed, MESSAGE_START, p);

    if (strcmp(got, code) != 0)
        bed_die("expected %s, got %s", code, *got ? got : "success");
    plan_clear(p);
}

static void test_machine_plans_of_a_strange_daemon(void)
{
    struct launch_plan p;

    machine_plan(&p, 3, "bad");
    p.machine.memory_bytes = UINT64_C(8) << 40;
    refused(&p, "INVALID_VALUE");
    machine_plan(&p, 3, "bad");
    p.machine.vcpus = 65;
    refused(&p, "INVALID_VALUE");
    machine_plan(&p, 3, "bad");
    memcpy(p.machine.snapshot, "../../../../../../../etc/shadow-etc-", sizeof(p.machine.snapshot) - 1);
    refused(&p, "INVALID_VALUE");
    machine_plan(&p, 3, "bad");
    bed_id(77, p.machine.snapshot);
    refused(&p, "SNAPSHOT_NOT_FOUND");
    machine_plan(&p, 3, "bad");
    p.root.read_only = false;
    p.root.writable_bytes = 1 << 20;
    refused(&p, "INVALID_VALUE");
    machine_plan(&p, 3, "bad");
    p.machine.boot = PLAN_BOOT_DISK; /* which the image has not */
    refused(&p, "IMAGE_MALFORMED");
    BED_CHECK(bed_list(&bed, NULL, 0) == 0);
}

/* What stands at /boot/kernel is the image's author's. */
static void test_kernels_that_are_no_files(void)
{
    static const char *const recipes[] = {"ln -s /etc/shadow kernel", "ln -s ../app kernel", "mkfifo kernel",
                                          "mkdir kernel", "cd .. && rmdir boot && ln -s /etc boot"};
    char layer[512];
    struct launch_plan p;

    for (size_t i = 0; i < sizeof(recipes) / sizeof(recipes[0]); i++) {
        machine_plan(&p, 4, "bad");
        memset(p.root.layers[0], "01234"[i], DIGEST_HEX_SIZE - 1);
        snprintf(layer, sizeof(layer), "mkdir -p %s/images/layers/%s/boot && cd %s/images/layers/%s/boot && %s",
                 bed.state, p.root.layers[0], bed.state, p.root.layers[0], recipes[i]);
        BED_CHECK(system(layer) == 0);
        refused(&p, "IMAGE_MALFORMED");
    }
    BED_CHECK(bed_list(&bed, NULL, 0) == 0);
}

/* A container in a guest of its own: the image's root has to be packed first. */
static void carried_plan(struct launch_plan *p, unsigned n)
{
    bed_plan(&bed, p, n, "unused", NULL);
    p->nic_count = 0;
    p->kind = PLAN_MACHINE;
    p->limits.memory_bytes = 256 << 20;
    p->machine = (struct plan_machine){.monitor = PLAN_MONITOR_QEMU,
                                       .boot = PLAN_BOOT_LINUX,
                                       .memory_bytes = 64 << 20,
                                       .vcpus = 1,
                                       .inner_memory_bytes = 32 << 20,
                                       .inner_pids = 100,
                                       .stop_signal = SIGTERM,
                                       .parameters = strdup("")};
    memcpy(p->machine.carrier, bed.layer, sizeof(p->machine.carrier));
}

static unsigned roots_being_packed(void)
{
    char command[256];
    unsigned n = ~0u;

    snprintf(command, sizeof(command), "ls -A %s/images/packed | grep -c '^[.]new-'", bed.state);
    FILE *f = popen(command, "re");
    BED_CHECK(f && fscanf(f, "%u", &n) == 1);
    pclose(f);
    return n;
}

/* An image of gigabytes that many starts want at once is on the disk once, not once for each. */
static void test_one_root_is_packed_once(void)
{
    struct launch_plan p;
    struct proto_message m;
    char words[512] = "";
    unsigned most = 0;

    for (unsigned i = 0; i < 4; i++) {
        carried_plan(&p, 30 + i);
        bed_send(&bed, MESSAGE_START, &p, NULL, 0);
        plan_clear(&p);
    }
    for (int i = 0; i < 8; i++) {
        usleep(100000);
        unsigned now = roots_being_packed();
        most = now > most ? now : most;
    }
    for (unsigned started = 0; started < 4; proto_message_end(&m)) { /* in any order */
        BED_CHECK(proto_receive(bed.fd, &m, NULL) == 1);
        if (m.type == MESSAGE_FAILED)
            bed_die("start of one with a carrier: %s", error_text(m.body, words, sizeof(words)));
        started += m.type == MESSAGE_STARTED;
    }
    printf("packed at one time: %u\n", most);
    BED_CHECK(most == 1 && roots_being_packed() == 0);
    BED_CHECK(bed_release_all(&bed) == 4);
}

static unsigned templates(void)
{
    struct proto_message m;

    BED_CHECK(bed_ask(&bed, MESSAGE_POOL, NULL, &m) == MESSAGE_POOL_REPLY);
    unsigned count = ((struct message_pool_reply *)m.body)->snapshots;
    proto_message_end(&m);
    return count;
}

/* Nobody is charged for them when their monitors are gone: two of a page each fit here. */
static void test_templates_keep_to_their_share(void)
{
    struct launch_plan p;
    unsigned most = 0, now = 0;

    for (unsigned n = 20; n < 24; n++) {
        machine_plan(&p, n, "polite");
        free(p.machine.parameters);
        BED_CHECK(asprintf(&p.machine.parameters, "ready%u", n) > 0);
        p.machine.restorable = true;
        start(&p);
        for (int i = 0; i < 15; i++) {
            usleep(100000);
            now = templates();
            most = now > most ? now : most;
        }
    }
    printf("at most %u templates, %u in the end\n", most, now);
    BED_CHECK(most == 2 && now == 2);
    BED_CHECK(bed_release_all(&bed) == 4);
}

static void wait_for_pool(unsigned ready)
{
    struct message_pool_reply pool = {0};
    struct proto_message m;

    for (int i = 0; i < 100 && pool.ready < ready; i++) {
        usleep(100000);
        BED_CHECK(bed_ask(&bed, MESSAGE_POOL, NULL, &m) == MESSAGE_POOL_REPLY);
        pool = *(struct message_pool_reply *)m.body;
        proto_message_end(&m);
    }
    BED_CHECK(pool.ready >= ready);
}

/* An emulated guest has four minutes to get ready: neither the pool nor the launcher's end waits for it. */
static void test_a_template_that_never_gets_ready(void)
{
    struct launch_plan p;
    struct remains left;

    machine_plan(&p, 5, "polite");
    p.machine.monitor = PLAN_MONITOR_QEMU;
    p.machine.restorable = true;
    start(&p);
    usleep(1000000); /* its template is under way */
    bed_start(&bed, 6, "sleep", NULL, NULL);
    wait_for_pool(2);
    BED_CHECK(bed_release_all(&bed) == 2);
    uint64_t begin = monotonic_ns();
    bed_kill(&bed, SIGTERM);
    printf("the launcher ended within %.1f ms\n", (double)(monotonic_ns() - begin) / 1e6);
    BED_CHECK(monotonic_ns() - begin < 10 * UINT64_C(1000000000));
    BED_CHECK(bed_clean(&bed, 5000, &left) || (remains_print(&left), false));
}

/* The disk is everybody's: what could fill it is refused before it is begun. */
static void test_a_disk_without_room(void)
{
    struct message_snapshot m = snapshot_of(2, 7);
    struct launch_plan p;
    char path[512];

    bed_open(&bed, "pool_depth = 0\n");
    install();
    snprintf(path, sizeof(path), "%s/snapshots", bed.state);
    BED_CHECK(mkdir(path, 0750) == 0 && mount("small", path, "tmpfs", 0, "size=1040k") == 0);
    bed_launch(&bed);
    machine_plan(&p, 2, "polite");
    start(&p);
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_SNAPSHOT, &m), "NO_SPACE") == 0);
    BED_CHECK(files_of_snapshots() == 0);
    BED_CHECK(mount("small", path, "tmpfs", MS_REMOUNT, "size=4m") == 0);
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_SNAPSHOT, &m), "") == 0);
    BED_CHECK(bed_release(&bed, 2));
}

int main(void)
{
    bed_need_root();
    setvbuf(stdout, NULL, _IOLBF, 0);
    open_bed("pool_depth = 0\nsnapshot_count = 0\n");
    test_monitors_that_never_answer_hold_up_nobody();
    test_a_monitor_that_never_answers_is_ended_at_once();
    test_snapshots_of_a_strange_daemon();
    test_a_flood_of_the_log_ends();
    test_machine_plans_of_a_strange_daemon();
    test_kernels_that_are_no_files();
    test_one_root_is_packed_once();
    bed_close(&bed);
    test_a_disk_without_room();
    bed_close(&bed);
    open_bed("pool_depth = 0\nsnapshot_memory = 8KiB\n");
    test_templates_keep_to_their_share();
    bed_close(&bed);
    open_bed("pool_depth = 2\n");
    test_a_template_that_never_gets_ready();
    bed_close(&bed);
    return 0;
}
