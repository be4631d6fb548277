/* SPDX-License-Identifier: Apache-2.0 */
/* coracle-qemu's pure parts: golden command lines of both kinds of machine, the kernel's line, QMP with a peer that is
 * slow, wrong or silent, snapshots that fit and that do not. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "qemu/confine.h"
#include "qemu/image.h"
#include "qemu/machine.h"
#include "qemu/overlay.h"
#include "qemu/qmp.h"
#include "qemu/snapshot.h"

static struct machine machine_of(enum monitor_boot boot)
{
    return (struct machine){.boot = boot,
                            .memory_bytes = 64 << 20,
                            .vcpus = 2,
                            .name = "a,b",
                            .id = "6d3f2f5e-0a5b-4d9e-8a61-0d7d6b0a6a01",
                            .parameters = "x=1 -- run me",
                            .qmp_fd = 300,
                            .console_fd = 301,
                            .agent_fd = 302,
                            .virtio_console_fd = -1,
                            .ram_fd = 303,
                            .kernel_fd = 304,
                            .initrd_fd = -1,
                            .tsc_khz = 2000000};
}

/* Words joined by newlines, for strstr(). */
static void join(const struct machine *m, char *text, size_t size)
{
    struct buffer words = {0};

    assert_true(machine_words(m, &words) > 0);
    assert_true(words.length < size);
    for (size_t i = 0; i < words.length; i++)
        text[i] = words.data[i] ? words.data[i] : '\n';
    text[words.length] = '\0';
    buffer_clear(&words);
}

static void wants(const char *text, const char *words)
{
    if (!strstr(text, words))
        fail_msg("no \"%s\" in:\n%s", words, text);
}

static void test_microvm(void **state)
{
    struct machine m = machine_of(MONITOR_BOOT_LINUX);
    char text[8192];

    m.flags = MONITOR_LOAD_RANDOM;
    m.nic_count = 1;
    m.nics[0] = (struct machine_nic){.nic = {.mac = {2, 0, 0, 0, 0, 9}, .backend = MONITOR_NET_VHOST, .queues = 2},
                                     .fds = {310, 311, 312, 313}};
    join(&m, text, sizeof(text));
    wants(text, "-name\nguest=a,,b\n");
    wants(text, "-nodefaults\n-no-user-config\n-no-reboot\n-S\n");
    wants(text, "\non,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny\n");
    wants(text, "-accel\ntcg,thread=multi,tb-size=32\n-cpu\nmax\n-smp\n2\n-uuid\n6d3f2f5e-");
    wants(text, "-m\n65536K\n-object\nmemory-backend-file,id=ram,mem-path=/proc/self/fd/303,size=67108864,share=on\n");
    wants(text, "\nmicrovm,x-option-roms=off,");
    wants(
        text,
        "-kernel\n/proc/self/fd/304\n-append\nx=1 console=ttyS0 panic=-1 reboot=t no_timer_check tsc_early_khz=2000000 "
        "virtio_mmio.device=512@0xfeb00000:5 virtio_mmio.device=512@0xfeb00200:6 -- run me\n");
    wants(text, "-netdev\ntap,id=net0,fds=310:311,vhost=on,vhostfds=312:313\n-device\nvirtio-net-device,"
                "bus=virtio-mmio-bus.0,id=nic0,mac=02:00:00:00:00:09,netdev=net0,mq=on\n");
    wants(text, "-device\nvirtio-rng-device,bus=virtio-mmio-bus.1,rng=entropy\n");
    assert_null(strstr(text, "isa-debug-exit"));
    m.flags = MONITOR_LOAD_SESSIONS;
    m.sessions_fd = 330;
    join(&m, text, sizeof(text));
    wants(text, "-chardev\nsocket,id=sessions,fd=330\n-device\nvirtio-serial-device,bus=virtio-mmio-bus.1,id=ports\n"
                "-device\nvirtserialport,bus=ports.0,chardev=sessions,name=coracle.sessions\n");
    wants(text, "virtio_mmio.device=512@0xfeb00200:6 -- run me\n");
    m.flags = 0;
    m.boot = MONITOR_BOOT_UNIKERNEL;
    m.restore = m.ram_private = m.kvm = true;
    m.id = "not,a=uuid";
    join(&m, text, sizeof(text));
    wants(text, "size=67108864,share=off\n");
    wants(text, "-incoming\ndefer\n");
    wants(text, "-accel\nkvm\n-cpu\nhost\n");
    wants(text, "isa-debug-exit,iobase=0x604,iosize=4\n");
    assert_null(strstr(text, "\n-kernel\n"));
    assert_null(strstr(text, "-uuid"));
}

static void test_q35(void **state)
{
    struct machine m = machine_of(MONITOR_BOOT_DISK);
    char text[8192];

    m.kernel_fd = -1;
    m.disk_count = 2;
    m.disks[0] = (struct machine_disk){.disk = {.format = 1, .overlay = 1},
                                       .fd = 320,
                                       .overlay_fd = 321,
                                       .snapshot_fd = 322,
                                       .snapshot_offset = 4096,
                                       .snapshot_size = 8192};
    m.disks[1] = (struct machine_disk){.disk = {.read_only = 1}, .fd = 323, .overlay_fd = -1, .block_device = true};
    m.nic_count = 1;
    m.nics[0] = (struct machine_nic){.nic = {.mac = {2}, .backend = MONITOR_NET_VHOST_USER, .queues = 1}, .fds = {330}};
    join(&m, text, sizeof(text));
    wants(text, "\nq35,usb=off,");
    wants(text, "-add-fd\nfd=320,set=1\n-blockdev\n{\"driver\":\"file\",\"node-name\":\"imagefile0\",\"filename\":"
                "\"/dev/fdset/1\",\"read-only\":true}\n");
    wants(
        text,
        "{\"driver\":\"qcow2\",\"node-name\":\"image0\",\"file\":\"imagefile0\",\"read-only\":true,\"backing\":null}");
    wants(text, "\"file\":\"writtenfile0\",\"offset\":4096,\"size\":8192,\"read-only\":true}");
    wants(text,
          "{\"driver\":\"qcow2\",\"node-name\":\"written0\",\"file\":\"writtenpart0\",\"read-only\":true,\"backing\":"
          "\"image0\"}");
    wants(text,
          "{\"driver\":\"qcow2\",\"node-name\":\"disk0\",\"file\":\"overlayfile0\",\"read-only\":false,\"backing\":"
          "\"written0\"}");
    wants(text, "virtio-blk-pci,id=blk0,drive=disk0,bootindex=0\n");
    wants(text, "{\"driver\":\"host_device\",\"node-name\":\"imagefile1\"");
    wants(text,
          "-chardev\nsocket,id=switch0,path=/proc/self/fd/330\n-netdev\nvhost-user,id=net0,chardev=switch0,queues=1\n");
    wants(text, "romfile=,vectors=4\n");
    wants(text, "-smp\n2\n");
    wants(text, "-m\n65536K\n");
    assert_null(strstr(text, "virtio_mmio"));
    m.vcpus_max = 6;
    m.memory_max_bytes = (64 + 3 * 128) << 20;
    join(&m, text, sizeof(text));
    wants(text, "-smp\ncpus=2,maxcpus=6\n");
    wants(text, "-m\n65536K,slots=3,maxmem=458752K\n");
}

static void test_kernel_line(void **state)
{
    static const struct {
        const char *parameters, *line;
    } cases[] = {
        {"", "console=ttyS0 panic=-1 reboot=t no_timer_check tsc_early_khz=2000000"},
        {"-- --x", "console=ttyS0 panic=-1 reboot=t no_timer_check tsc_early_khz=2000000 -- --x"},
        {"console=hvc0 reboot=k panic=5 tsc_early_khz=1",
         "console=hvc0 reboot=k panic=5 tsc_early_khz=1 no_timer_check"},
        {"netconsole=x a--b --c -- console=1",
         "netconsole=x a--b --c console=ttyS0 panic=-1 reboot=t no_timer_check tsc_early_khz=2000000 "
         "-- console=1"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct machine m = machine_of(MONITOR_BOOT_LINUX);
        struct buffer line = {0};
        m.parameters = cases[i].parameters;
        machine_kernel_line(&m, &line);
        assert_string_equal(line.data, cases[i].line);
        buffer_clear(&line);
    }
}

/* ---- QMP ---- */

static struct qmp q;
static const char *script[8]; /* what the peer says, one a turn */
static unsigned at, events;
static int peer;

static void event(void *context, const char *name, const json_t *data)
{
    events++;
}

static int pump(void *context, int timeout_ms)
{
    if (at < 8 && script[at]) {
        assert_int_equal(write(peer, script[at], strlen(script[at])), strlen(script[at]));
        at++;
    } else {
        poll(NULL, 0, timeout_ms < 20 ? timeout_ms : 20);
    }
    return qmp_read(&q);
}

static int converse(const char *const lines[8], int timeout_ms, struct error **err)
{
    static const char greeting[] = "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 7, \"minor\": 2, \"micro\": 22}, "
                                   "\"package\": \"p\"}, \"capabilities\": []}}\r\n";
    int ends[2];
    json_t *value = NULL;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    peer = ends[1];
    qmp_open(&q, ends[0], event, pump, NULL);
    at = events = 0;
    memset(script, 0, sizeof(script));
    script[0] = greeting;
    script[1] = "{\"return\": {}, \"id\": 1}\r\n";
    assert_int_equal(qmp_greet(&q, 1000, err), 0);
    assert_string_equal(q.version, "7.2.22 p");
    at = 0;
    memcpy(script, lines, sizeof(script));
    int r = qmp_call(&q, "query-status", NULL, -1, timeout_ms, &value, err);
    json_decref(value);
    qmp_close(&q);
    close(peer);
    return r;
}

static void test_qmp(void **state)
{
    struct error *err = NULL;

    assert_int_equal(
        converse((const char *[8]){"{\"return\": {\"status\"", ": \"running\"}, \"id\": 2}\n"}, 1000, &err), 0);
    assert_int_equal(converse((const char *[8]){"{\"event\": \"STOP\"}\r\n{\"event\": \"RESUME\", \"data\": {}}\r\n",
                                                "{\"return\": {}, \"id\": 77}\r\n", "{\"return\": {}, \"id\": 2}\r\n"},
                              1000, &err),
                     0);
    assert_int_equal(events, 2);
    assert_int_equal(
        converse((const char *[8]){"{\"id\": 2, \"error\": {\"class\": \"x\", \"desc\": \"not now\"}}\n"}, 1000, &err),
        -EREMOTEIO);
    wants(err->message, "not now");
    error_free(err);
    err = NULL;
    assert_int_equal(converse((const char *[8]){NULL}, 60, &err), -ETIMEDOUT);
    error_free(err);
    err = NULL;
    assert_int_equal(converse((const char *[8]){"Segmentation fault\n"}, 1000, &err), -EPROTO);
    error_free(err);
}

/* ---- snapshots, disks ---- */

static void test_snapshot_match(void **state)
{
    struct machine m = machine_of(MONITOR_BOOT_LINUX), other = m;
    struct snapshot a, b;
    struct error *err = NULL;

    snapshot_describe(&m, "7.2.22 p", &a);
    snapshot_describe(&m, "", &b);
    assert_int_equal(snapshot_match(&a, &b, &err), 0);
    other.flags = MONITOR_LOAD_WAIT | MONITOR_LOAD_RESTORE | MONITOR_LOAD_LOGS; /* no devices */
    snapshot_describe(&other, "7.2.22 p", &b);
    assert_int_equal(snapshot_match(&a, &b, &err), 0);
    snapshot_describe(&m, "8.0.0 p", &b);
    assert_int_equal(snapshot_match(&a, &b, &err), -EINVAL);
    wants(err->message, "made with QEMU 7.2.22 p, this machine has 8.0.0 p");
    error_free(err);
    err = NULL;
    other = m;
    other.kvm = true;
    snapshot_describe(&other, "7.2.22 p", &b);
    assert_int_equal(snapshot_match(&a, &b, &err), -EINVAL);
    wants(err->message, "with processor max, this machine has host");
    error_free(err);
    err = NULL;
    other = machine_of(MONITOR_BOOT_DISK);
    snapshot_describe(&other, "7.2.22 p", &a);
    other.vcpus_max = MONITOR_VCPU_MAX;
    other.memory_max_bytes = UINT64_C(4) << 40;
    snapshot_describe(&other, "7.2.22 p", &b);
    assert_int_equal(snapshot_match(&a, &b, &err), -EINVAL);
    wants(err->message, "of machine type q35, this machine has q35 up to 64 vCPUs, 4194304 MiB");
    error_free(err);
}

static void test_overlay(void **state)
{
    uint8_t head[QCOW2_HEADER_BYTES];
    uint64_t bytes = 0;
    struct error *err = NULL;
    int fd = overlay_create((UINT64_C(3) << 40) + 1, &err);

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, head, sizeof(head), 0), sizeof(head));
    assert_int_equal(qcow2_check(head, sizeof(head), (uint64_t)lseek(fd, 0, SEEK_END), &bytes, &err), 0);
    assert_true(bytes == (UINT64_C(3) << 40) + 512);
    close(fd);
    assert_true(overlay_create(0, &err) < 0);
    error_free(err);
}

/* ---- the sandbox ---- */

/* In a child: each line of what must not be possible any more; the exit status names the first that was. */
static int forbidden_that_work(void)
{
    const bool worked[] = {
        open("/etc/passwd", O_RDONLY) >= 0,
        open("/tmp/coracle-qemu-test", O_RDWR | O_CREAT, 0600) >= 0,
        open("/proc/self/comm", O_RDWR) >= 0,
        socket(AF_INET, SOCK_STREAM, 0) >= 0,
        socket(AF_UNIX, SOCK_STREAM, 0) >= 0,
        syscall(SYS_fork) >= 0,
        execl("/bin/true", "true", (char *)NULL) >= 0,
        ptrace(PTRACE_ATTACH, getppid(), NULL, NULL) >= 0,
        unlink("/tmp/coracle-qemu-test") == 0,
        setuid(getuid()) == 0,
        memfd_create("x", 0) >= 0,
        open("/proc/self/status", O_RDONLY) < 0, /* this must */
    };

    for (size_t i = 0; i < sizeof(worked) / sizeof(worked[0]); i++)
        if (worked[i])
            return (int)i + 1;
    return 0;
}

static void test_confine(void **state)
{
    int status;
    pid_t pid = fork();

    if (pid == 0)
        _exit(confine_supervisor(NULL) < 0 ? 100 : forbidden_that_work());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_microvm), cmocka_unit_test(test_q35),     cmocka_unit_test(test_kernel_line),
        cmocka_unit_test(test_qmp),     cmocka_unit_test(test_overlay), cmocka_unit_test(test_snapshot_match),
        cmocka_unit_test(test_confine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
