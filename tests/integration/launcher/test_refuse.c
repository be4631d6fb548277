/* SPDX-License-Identifier: Apache-2.0 */
/* What the launcher refuses, and that a refusal or a failed start leaves nothing: bad plans, strangers, a full /run. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tests/integration/launcher/bed.h"

static struct bed bed;

static void expect(struct launch_plan *plan, const char *code)
{
    const char *got = bed_refusal(&bed, MESSAGE_START, plan);

    if (strcmp(got, code) != 0)
        bed_die("expected %s, got %s", code, *got ? got : "success");
    plan_clear(plan);
}

static void test_bad_plans(void)
{
    struct launch_plan p;

    bed_plan(&bed, &p, 1, "sleep", NULL);
    memcpy(p.id, "../../../../etc/cron.d/00000000000000", sizeof(p.id) - 1);
    expect(&p, "INVALID_VALUE");
    bed_plan(&bed, &p, 1, "sleep", NULL);
    memset(p.root.layers[0], 'b', DIGEST_HEX_SIZE - 1);
    expect(&p, "IMAGE_NOT_FOUND");
    bed_plan(&bed, &p, 1, "sleep", NULL);
    strcpy(p.root.layers[0], "../../../..");
    expect(&p, "INVALID_VALUE");
    bed_plan(&bed, &p, 1, "sleep", NULL);
    strcpy(p.nics[0].link, "elsewhere");
    expect(&p, "NETWORK_NOT_FOUND");
    bed_plan(&bed, &p, 1, "sleep", NULL);
    p.capabilities = ~0u;
    expect(&p, "INVALID_VALUE");
    bed_plan(&bed, &p, 1, "sleep", NULL);
    p.kind = PLAN_FAKE;
    expect(&p, "LAUNCHER_REFUSED");
    bed_plan(&bed, &p, 1, "sleep", NULL);
    p.port_count = 1;
    p.ports[0] = (struct spec_port){8080, 80, IPPROTO_TCP};
    expect(&p, "UNSUPPORTED_BY_TECHNOLOGY");
    bed_plan(&bed, &p, 1, "sleep", NULL);
    p.limits.cpu_milli = 4096000;
    expect(&p, "INSUFFICIENT_RESOURCES");
    bed_plan(&bed, &p, 1, "sleep", NULL);
    p.limits.memory_bytes = 1ull << 50;
    expect(&p, "INSUFFICIENT_RESOURCES");
    bed_plan(&bed, &p, 1, "sleep", NULL);
    strcpy(p.limits.cpuset, "0; rm -rf /");
    expect(&p, "INVALID_VALUE");
    bed_plan(&bed, &p, 1, "sleep", NULL);
    free(p.process.argv[0]);
    p.process.argv[0] = strdup("/missing");
    expect(&p, "START_FAILED");
    bed_plan(&bed, &p, 1, "sleep", NULL);
    p.root.read_only = false;
    p.root.writable_bytes = 1 << 20;
    free(p.process.argv[0]);
    p.process.argv[0] = strdup("/missing"); /* its writable layer was mounted already */
    expect(&p, "START_FAILED");
    bed_plan(&bed, &p, 1, "sleep", NULL);
    p.process.user = strdup("nobody-knows-me");
    expect(&p, "START_FAILED");
    bed_plan(&bed, &p, 1, "sleep", NULL);
    p.start_mode = START_POOL;
    expect(&p, "CONFLICTING_STATE");
}

static void test_bad_links(void)
{
    struct link link = {.name = "../x", .prefix4 = 24};
    struct message_link_remove gone = {.name = "default"};

    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_LINK_ADD, &link), "INVALID_VALUE") == 0);
    strcpy(link.name, "wide");
    link.prefix4 = 33;
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_LINK_ADD, &link), "INVALID_VALUE") == 0);
    link.prefix4 = 24;
    inet_pton(AF_INET, "198.19.77.1", &link.gateway4);
    link.uplink = true;
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_LINK_ADD, &link), "UNSUPPORTED_BY_TECHNOLOGY") == 0);
    link.uplink = false;
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_LINK_ADD, &link), "") == 0);
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_LINK_ADD, &link), "") == 0); /* the same again */
    bed_start(&bed, 2, "sleep", NULL, NULL);
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_LINK_REMOVE, &gone), "NETWORK_IN_USE") == 0);
    BED_CHECK(bed_release(&bed, 2));
    strcpy(gone.name, "wide");
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_LINK_REMOVE, &gone), "") == 0);
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_LINK_REMOVE, &gone), "") == 0); /* gone is gone */
}

static void test_running_twice(void)
{
    struct launch_plan p;

    bed_start(&bed, 3, "sleep", NULL, NULL);
    bed_plan(&bed, &p, 3, "sleep", NULL);
    expect(&p, "CONFLICTING_STATE");
    BED_CHECK(bed_release(&bed, 3));
    BED_CHECK(!bed_release(&bed, 3));
}

static void test_cancel(void)
{
    struct message_cancel cancel;
    struct launch_plan p;
    struct proto_message m;
    uint32_t start, other;
    bool started = false;

    bed_plan(&bed, &p, 4, "sleep", NULL);
    p.start_mode = START_COLD;
    start = bed_send(&bed, MESSAGE_START, &p, NULL, 0);
    cancel.request = start;
    other = bed_send(&bed, MESSAGE_CANCEL, &cancel, NULL, 0);
    /* the start's answer comes before or after the other one, and is one of two */
    for (int answers = 0; answers < 2; answers++) {
        BED_CHECK(proto_receive(bed.fd, &m, NULL) == 1 && (m.request == start || m.request == other));
        if (m.request == start)
            started = m.type == MESSAGE_STARTED;
        if (m.type == MESSAGE_FAILED)
            BED_CHECK(m.request == start && strcmp(((struct error *)m.body)->code, "CANCELLED") == 0);
        proto_message_end(&m);
    }
    BED_CHECK(bed_release(&bed, 4) == started);
    plan_clear(&p);
}

static int connect_raw(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    snprintf(a.sun_path, sizeof(a.sun_path), "%.90s/launcher.sock", bed.run);
    return connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ? -1 : fd;
}

/* A child under another account: connect() or the first answer must fail. 0 from it means it got in. */
static void test_stranger(void)
{
    int status;
    pid_t pid;

    chmod(bed.run, 0777);
    char path[128];
    snprintf(path, sizeof(path), "%s/launcher.sock", bed.run);
    chmod(path, 0777); /* even where the file system would let it */
    pid = fork();
    if (pid == 0) {
        struct message_hello hello = {.version = PROTO_VERSION};
        struct proto_message m;
        if (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0)
            _exit(2);
        int fd = connect_raw();
        bool in =
            fd >= 0 && proto_send(fd, MESSAGE_HELLO, 1, &hello, NULL, 0, NULL) == 0 && proto_receive(fd, &m, NULL) == 1;
        _exit(in ? 0 : 1);
    }
    BED_CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 1);
    BED_CHECK(bed_list(&bed, NULL, 0) == 0); /* the daemon's own connection was not disturbed */
}

/* Rubbish on the socket ends that connection and nothing else. */
static void test_rubbish(void)
{
    static const char rubbish[] = "\x01\0\0\0\xff\xff\xff\x7fGET / HTTP/1.1\r\n";
    struct message_hello hello = {.version = PROTO_VERSION + 1};
    struct message_started s;
    struct proto_message m;
    char byte;
    int fd;

    bed_start(&bed, 5, "serve", "7", &s);
    close(bed.fd);
    fd = connect_raw();
    BED_CHECK(fd >= 0 && send(fd, rubbish, sizeof(rubbish), 0) > 0 && recv(fd, &byte, 1, 0) == 0);
    close(fd);
    fd = connect_raw();
    BED_CHECK(proto_send(fd, MESSAGE_HELLO, 1, &hello, NULL, 0, NULL) == 0);
    BED_CHECK(proto_receive(fd, &m, NULL) == 1 && m.type == MESSAGE_FAILED);
    proto_message_end(&m);
    close(fd);
    fd = connect_raw(); /* a request before HELLO */
    BED_CHECK(proto_send(fd, MESSAGE_LIST, 1, NULL, NULL, 0, NULL) == 0);
    BED_CHECK(proto_receive(fd, &m, NULL) == 1 && m.type == MESSAGE_FAILED);
    proto_message_end(&m);
    close(fd);
    bed_connect(&bed);
    BED_CHECK(bed_knock(&bed, 5, 7, false, 5000) >= 0);
    BED_CHECK(bed_release(&bed, 5));
}

/* A number in a file of an instance's cgroup, v1's or v2's; -1: no such file. */
static long long cgroup_value(const char *controller, unsigned n, const char *v1, const char *v2)
{
    char path[256], id[INSTANCE_ID_SIZE];
    long long value = -1;

    bed_id(n, id);
    snprintf(path, sizeof(path), "/sys/fs/cgroup/%s/%s/%s/%s", controller, bed.cgroup, id, v1);
    if (access(path, F_OK) != 0)
        snprintf(path, sizeof(path), "/sys/fs/cgroup/%s/%s/%s", bed.cgroup, id, v2);
    auto_file FILE *f = fopen(path, "re");

    if (f && fscanf(f, "%lld", &value) != 1)
        value = -1;
    return value;
}

/* Nothing asked for is not without limit: the defaults of host.conf hold, after an update too. */
static void test_default_limits(void)
{
    struct message_update update = {.limits = {.pids = 77}};

    bed_start(&bed, 8, "sleep", NULL, NULL);
    if (cgroup_value("pids", 8, "pids.current", "pids.current") < 0) {
        puts("no pids controller: defaults not looked at");
    } else {
        BED_CHECK(cgroup_value("pids", 8, "pids.max", "pids.max") == 301); /* the init is on top */
        BED_CHECK(cgroup_value("memory", 8, "memory.limit_in_bytes", "memory.max") == 96 << 20);
        bed_id(8, update.id);
        BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_UPDATE, &update), "") == 0);
        BED_CHECK(cgroup_value("pids", 8, "pids.max", "pids.max") == 78);
        BED_CHECK(cgroup_value("memory", 8, "memory.limit_in_bytes", "memory.max") == 96 << 20);
        update.limits.memory_bytes = 1ull << 50;
        BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_UPDATE, &update), "INSUFFICIENT_RESOURCES") == 0);
    }
    BED_CHECK(bed_release(&bed, 8));
}

/* Surplus descriptors, kept, would show as a growing table. */
static void test_surplus_descriptors(void)
{
    char path[64];
    unsigned before = 0, after = 0;

    snprintf(path, sizeof(path), "ls /proc/%d/fd | wc -l", (int)bed.launcher);
    for (int round = 0; round < 2; round++) {
        FILE *p = popen(path, "re");
        BED_CHECK(p && fscanf(p, "%u", round ? &after : &before) == 1);
        pclose(p);
        for (int i = 0; round == 0 && i < 200; i++) {
            struct message_hello hello = {.version = PROTO_VERSION};
            _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * 6)] = {0};
            auto_free uint8_t *data = NULL;
            size_t size;
            int fd = connect_raw();
            BED_CHECK(fd >= 0 && proto_encode(MESSAGE_HELLO, 1, &hello, &data, &size, NULL) == 0);
            struct iovec iov = {data, size};
            struct msghdr h = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
            struct cmsghdr *c = CMSG_FIRSTHDR(&h);
            *c = (struct cmsghdr){
                .cmsg_len = CMSG_LEN(sizeof(int) * 6), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
            for (int n = 0; n < 6; n++)
                memcpy(CMSG_DATA(c) + n * sizeof(int), &fd, sizeof(int));
            BED_CHECK(sendmsg(fd, &h, MSG_NOSIGNAL) > 0);
            close(fd);
        }
        usleep(100000);
    }
    BED_CHECK(after <= before);
    bed.fd = close_fd(bed.fd);
    bed_connect(&bed);
}

/* Fills the run directory's tmpfs, leaving `room` pages. */
static void fill_run(unsigned room)
{
    auto_fd int fd = -1;
    char path[128], page[4096];

    memset(page, 1, sizeof(page));
    snprintf(path, sizeof(path), "%s/filler", bed.run);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    off_t size = 0;
    while (write(fd, page, sizeof(page)) == sizeof(page))
        size += sizeof(page);
    BED_CHECK(errno == ENOSPC && size > room * (off_t)sizeof(page));
    BED_CHECK(ftruncate(fd, size - room * (off_t)sizeof(page)) == 0);
}

static void test_full_run(void)
{
    struct message_exited e;
    struct launch_plan p;
    struct remains left;
    char path[128], id[INSTANCE_ID_SIZE];
    unsigned failed = 0;

    bed_start(&bed, 10, "serve", "7", NULL);
    bed_start(&bed, 11, "sleep", NULL, NULL);
    bed_count(&bed, &left);
    for (unsigned room = 0; room < 8; room++) {
        fill_run(room);
        bed_plan(&bed, &p, 12, "sleep", NULL);
        p.start_mode = START_COLD;
        const char *code = bed_refusal(&bed, MESSAGE_START, &p);
        BED_CHECK(strcmp(code, "") == 0 || strcmp(code, "NO_SPACE") == 0);
        failed += *code != '\0';
        if (!*code)
            BED_CHECK(bed_release(&bed, 12));
        plan_clear(&p);
        BED_CHECK(bed_knock(&bed, 10, 7, false, 5000) >= 0);
        struct remains now;
        for (int i = 0; i < 100; i++) { /* interfaces die a little later */
            bed_count(&bed, &now);
            if (memcmp(&now, &left, sizeof(now)) == 0)
                break;
            usleep(20000);
        }
        if (memcmp(&now, &left, sizeof(now)) != 0) {
            remains_print(&left);
            remains_print(&now);
            bed_die("a start on a full /run left something (%u pages free)", room);
        }
    }
    BED_CHECK(failed >= 2); /* the test did fill it */
    fill_run(0);            /* an instance's end is known and reported all the same */
    struct message_signal stop = {.signal = SIGTERM};
    bed_id(11, id);
    memcpy(stop.id, id, sizeof(id));
    BED_CHECK(bed_ask(&bed, MESSAGE_SIGNAL, &stop, NULL) == MESSAGE_DONE);
    BED_CHECK(bed_wait_exited(&bed, id, 5000, &e) && e.status_known && WTERMSIG(e.wait_status) == SIGTERM);
    bed_kill(&bed, SIGKILL);
    snprintf(path, sizeof(path), "%s/filler", bed.run);
    BED_CHECK(unlink(path) == 0);
    bed_launch(&bed);
    BED_CHECK(bed_release_all(&bed) == 2);
}

/* A second one for the same folders says so and goes: by itself, and the first serves on. */
static void test_second_launcher(void)
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        execl(getenv("CORACLE_LAUNCHER"), "coracle-launcher", "--run-dir", bed.run, "--state-dir", bed.state,
              "--cgroup", bed.cgroup, "--user", "root", "--libexec-dir", bed.libexec, NULL);
        _exit(127);
    }
    BED_CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 1);
    BED_CHECK(bed_list(&bed, NULL, 0) == 0);
}

int main(void)
{
    struct remains left;

    bed_need_root();
    bed_open(&bed, "pool_depth = 0\npids_default = 300\nmemory_default = 96MiB\n");
    bed_run_size(&bed, "512k");
    bed_launch(&bed);
    bed_link(&bed);
    test_bad_plans();
    test_bad_links();
    test_running_twice();
    test_default_limits();
    test_cancel();
    test_stranger();
    test_rubbish();
    test_surplus_descriptors();
    test_second_launcher();
    test_full_run();
    bed_kill(&bed, SIGTERM);
    BED_CHECK(bed_clean(&bed, 10000, &left));
    bed_close(&bed);
    puts("ok");
    return 0;
}
