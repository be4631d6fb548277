/* SPDX-License-Identifier: Apache-2.0 */
/* What launcher and monitors say to each other, the exit file, the log: good ones, and one rule broken at a time. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "monitor/exit_file.h"
#include "monitor/log_file.h"
#include "monitor/monitor_client.h"

struct pair {
    int ours, theirs;
};

static struct pair connected(void)
{
    int ends[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    return (struct pair){ends[0], ends[1]};
}

static void disconnect(struct pair *p)
{
    close(p->ours);
    close(p->theirs);
}

static int open_fds(void)
{
    int count = 0;

    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static struct monitor_load good_load(void)
{
    struct monitor_load l = {.flags = MONITOR_LOAD_LOGS | MONITOR_LOAD_INITRD,
                             .boot = MONITOR_BOOT_PVH,
                             .nic_count = 2,
                             .disk_count = 1,
                             .name = "one"};

    l.nics[0] = (struct monitor_nic){.mac = {2, 0, 0, 0, 0, 1}, .backend = MONITOR_NET_TAP, .queues = 2};
    l.nics[1] = (struct monitor_nic){.mac = {2, 0, 0, 0, 0, 2}, .backend = MONITOR_NET_VHOST, .queues = 3};
    return l;
}

static void test_layout(void **state)
{
    struct monitor_load l = good_load();
    struct monitor_load_fds at;

    monitor_load_layout(&l, &at);
    assert_int_equal(at.exit, 0);
    assert_int_equal(at.listen, 1);
    assert_int_equal(at.log, 2);
    assert_int_equal(at.kernel, 4);
    assert_int_equal(at.initrd, 5);
    assert_int_equal(at.nics[0], 6);
    assert_int_equal(at.nics[1], 8);
    assert_int_equal(at.disks[0], 14);
    assert_int_equal(at.disks[1], -1);
    assert_int_equal(at.count, 15);
    l.flags = MONITOR_LOAD_RESTORE | MONITOR_LOAD_INITRD; /* the snapshot replaces kernel and initrd */
    l.nics[1].backend = MONITOR_NET_VHOST_USER;
    l.nics[0].backend = MONITOR_NET_NONE;
    monitor_load_layout(&l, &at);
    assert_int_equal(at.log, -1);
    assert_int_equal(at.kernel, 2);
    assert_int_equal(at.initrd, -1);
    assert_int_equal(at.nics[0], -1);
    assert_int_equal(at.nics[1], 3);
    assert_int_equal(at.count, 5);
    l.flags = 0;
    l.boot = MONITOR_BOOT_DISK;
    monitor_load_layout(&l, &at);
    assert_int_equal(at.kernel, -1);
    assert_int_equal(at.disks[0], 3);
}

static void test_load_and_its_descriptors(void **state)
{
    static struct monitor_message m;
    struct pair p = connected();
    struct monitor_load l = good_load();
    struct monitor_load_fds at;
    int before = open_fds(), fds[32];
    struct error *err = NULL;

    monitor_load_layout(&l, &at);
    for (unsigned i = 0; i < at.count; i++)
        fds[i] = STDERR_FILENO;
    assert_int_equal(monitor_send_load(p.ours, &l, "a=b -- c", fds, at.count, &err), 0);
    assert_int_equal(monitor_receive(p.theirs, &m, &err), 1);
    assert_int_equal(m.header.type, MONITOR_LOAD);
    assert_int_equal(m.fd_count, at.count);
    assert_string_equal(monitor_parameters(&m.load), "a=b -- c");
    assert_string_equal(m.load.name, "one");
    assert_int_equal(open_fds(), before + (int)at.count);
    monitor_message_end(&m);
    assert_int_equal(open_fds(), before);
    assert_int_equal(monitor_send_load(p.ours, &l, "", fds, at.count - 1, &err), -EINVAL);
    error_free(err);
    err = NULL;
    char *long_text = calloc(1, MONITOR_PARAMETERS_MAX + 1);
    memset(long_text, 'x', MONITOR_PARAMETERS_MAX);
    assert_int_equal(monitor_send_load(p.ours, &l, long_text, fds, at.count, &err), -E2BIG);
    assert_string_equal(err->code, "INVALID_VALUE");
    error_free(err);
    free(long_text);
    disconnect(&p);
}

/* Sends size bytes with fd_count descriptors past the codec; what monitor_receive says of them. */
static int receive_raw(const void *bytes, size_t size, unsigned fd_count, const char **ret_word)
{
    static struct monitor_message m;
    static char words[256];
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * 128)] = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
    struct pair p = connected();
    int before = open_fds();
    auto_error struct error *err = NULL;

    if (fd_count) {
        header.msg_control = control;
        header.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        struct cmsghdr *c = CMSG_FIRSTHDR(&header);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        for (unsigned i = 0; i < fd_count; i++)
            memcpy(CMSG_DATA(c) + i * sizeof(int), &(int){STDERR_FILENO}, sizeof(int));
    }
    assert_int_equal(sendmsg(p.ours, &header, 0), size);
    int r = monitor_receive(p.theirs, &m, &err);
    words[0] = '\0';
    if (err)
        snprintf(words, sizeof(words), "%s", err->message);
    *ret_word = words;
    if (r == 1)
        monitor_message_end(&m);
    assert_int_equal(open_fds(), before); /* whatever came, nothing stays open */
    disconnect(&p);
    return r;
}

static void expect(const void *bytes, size_t size, unsigned fds, int result, const char *word)
{
    const char *said;
    int r = receive_raw(bytes, size, fds, &said);

    if (r != result || (word && !strstr(said, word)))
        print_message("%d (wanted %d): %s (wanted %s)\n", r, result, said, word ? word : "");
    assert_int_equal(r, result);
    assert_true(!word || strstr(said, word));
}

static void test_headers(void **state)
{
    struct monitor_header h = {MONITOR_PROTOCOL, MONITOR_STATUS, sizeof(h)};

    expect(&h, sizeof(h), 0, 1, NULL);
    expect(&h, sizeof(h), 64, 1, NULL); /* a surplus is closed */
    expect(&h, sizeof(h), 65, -EPROTO, "too large");
    expect(&h, 7, 0, -EPROTO, "7 bytes");
    h.size = 9;
    expect(&h, sizeof(h), 0, -EPROTO, "length");
    h = (struct monitor_header){MONITOR_PROTOCOL + 1, MONITOR_STATUS, sizeof(h)};
    expect(&h, sizeof(h), 1, -EPROTO, "version 2");
    h = (struct monitor_header){MONITOR_PROTOCOL, 0, sizeof(h)};
    expect(&h, sizeof(h), 0, -EPROTO, "type 0");
    h.type = MONITOR_TYPE_COUNT;
    expect(&h, sizeof(h), 0, -EPROTO, "unknown type");
    h.type = MONITOR_SNAPSHOT;
    expect(&h, sizeof(h), 0, -EPROTO, "descriptors");
    expect(&h, sizeof(h), 1, 1, NULL);
    h.type = MONITOR_LOAD;
    expect(&h, sizeof(h), 4, -EPROTO, "length");
    struct {
        struct monitor_header h;
        char rest[MONITOR_MESSAGE_MAX];
    } large = {.h = {MONITOR_PROTOCOL, MONITOR_LOAD, sizeof(large)}};
    expect(&large, sizeof(large), 2, -EPROTO, "too large");
}

static void test_prepare(void **state)
{
    const struct monitor_prepare good = {.header = {MONITOR_PROTOCOL, MONITOR_PREPARE, sizeof(good)},
                                         .memory_bytes = 1 << 24,
                                         .vcpus = MONITOR_VCPU_MAX,
                                         .boot = MONITOR_BOOT_MULTIBOOT,
                                         .flags = MONITOR_MEMORY_SHARED | MONITOR_PREPARE_LEAST,
                                         .nic_count = MONITOR_NIC_MAX};
    struct monitor_prepare p = good;

    expect(&p, sizeof(p), 1, 1, NULL);
    expect(&p, sizeof(p), 0, 1, NULL);
    p.vcpus = 0;
    expect(&p, sizeof(p), 1, -EPROTO, "vCPUs");
    p.vcpus = MONITOR_VCPU_MAX + 1;
    expect(&p, sizeof(p), 1, -EPROTO, "vCPUs");
    p = good;
    p.boot = 0;
    expect(&p, sizeof(p), 1, -EPROTO, "boot");
    p = good;
    p.flags = 4;
    expect(&p, sizeof(p), 1, -EPROTO, "flag");
    p = good;
    p.nic_count++;
    expect(&p, sizeof(p), 1, -EPROTO, "network");
    p = good;
    p.vcpus = 2;
    p.memory_max_bytes = 1 << 25;
    expect(&p, sizeof(p), 1, -EPROTO, "room"); /* no slots but on a disk's machine */
    p.boot = MONITOR_BOOT_DISK;
    expect(&p, sizeof(p), 1, 1, NULL);
    p.vcpus_max = 1;
    expect(&p, sizeof(p), 1, -EPROTO, "room");
    p.vcpus_max = MONITOR_VCPU_MAX + 1;
    expect(&p, sizeof(p), 1, -EPROTO, "room");
    p.vcpus_max = 3;
    p.memory_max_bytes = (1 << 24) - 4096;
    expect(&p, sizeof(p), 1, -EPROTO, "room");
}

struct whole_load {
    struct monitor_load load;
    char text[16];
};

static struct whole_load whole(void)
{
    struct whole_load w = {.load = good_load(), .text = "0123456789abcde"};

    w.load.header = (struct monitor_header){MONITOR_PROTOCOL, MONITOR_LOAD, sizeof(w)};
    w.load.parameters_size = sizeof(w.text);
    return w;
}

static void test_loads(void **state)
{
    struct whole_load w = whole();

    expect(&w, sizeof(w), 15, 1, NULL);
    expect(&w, sizeof(w), 40, 1, NULL);
    expect(&w, sizeof(w), 14, -EPROTO, "descriptors");
#define BROKEN(change, word)                                                                                           \
    w = whole();                                                                                                       \
    change;                                                                                                            \
    expect(&w, sizeof(w), 15, -EPROTO, word)
    BROKEN(w.load.parameters_size = 0, "length");
    BROKEN(w.load.parameters_size = 15, "length");
    BROKEN(w.load.parameters_size = UINT32_MAX, "length");
    BROKEN(w.text[15] = 'f', "one string");
    BROKEN(w.text[3] = '\0', "one string");
    BROKEN(memset(w.load.name, 'x', sizeof(w.load.name)), "name");
    BROKEN(memset(w.load.id, 'x', sizeof(w.load.id)), "name");
    BROKEN(w.load.nic_count = MONITOR_NIC_MAX + 1, "devices");
    BROKEN(w.load.disk_count = UINT32_MAX, "devices");
    BROKEN(w.load.flags |= MONITOR_LOAD_BALLOON << 1, "flag");
    BROKEN(w.load.boot = 6, "boot");
    BROKEN(w.load.nics[1].queues = 0, "network");
    BROKEN(w.load.nics[1].queues = MONITOR_QUEUE_MAX + 1, "network");
    BROKEN(w.load.nics[0].backend = 4, "network");
    BROKEN(w.load.nics[0].mac[0] = 1, "network");
    BROKEN(w.load.disks[0].format = 2, "disk");
    /* eight devices of sixteen descriptors each: more than a message may bring */
    w = whole();
    w.load.nic_count = MONITOR_NIC_MAX;
    for (unsigned i = 0; i < MONITOR_NIC_MAX; i++)
        w.load.nics[i] = (struct monitor_nic){.backend = MONITOR_NET_VHOST, .queues = MONITOR_QUEUE_MAX};
    expect(&w, sizeof(w), 64, -EPROTO, "descriptors");
}

struct whole_identity {
    struct monitor_identity identity;
    char text[16];
};

static struct whole_identity somebody(void)
{
    struct whole_identity w = {.identity = {.flags = MONITOR_IDENTITY_FILES, .nic_count = 2, .name = "one"},
                               .text = "0123456789abcde"};

    w.identity.header = (struct monitor_header){MONITOR_PROTOCOL, MONITOR_IDENTITY, sizeof(w)};
    w.identity.parameters_size = sizeof(w.text);
    w.identity.nics[1].mac[0] = 2;
    return w;
}

static void test_identities(void **state)
{
    struct whole_identity w = somebody();

    expect(&w, sizeof(w), 4, 1, NULL);
    expect(&w, sizeof(w), 9, 1, NULL);
    expect(&w, sizeof(w), 3, -EPROTO, "descriptors");
    w.identity.flags = 0;
    expect(&w, sizeof(w), 0, 1, NULL);
#define UNFIT(change, word)                                                                                            \
    w = somebody();                                                                                                    \
    change;                                                                                                            \
    expect(&w, sizeof(w), 4, -EPROTO, word)
    UNFIT(w.identity.parameters_size = 0, "length");
    UNFIT(w.identity.parameters_size = 17, "length");
    UNFIT(w.identity.parameters_size = UINT32_MAX, "length");
    UNFIT(w.text[15] = 'f', "one string");
    UNFIT(w.text[3] = '\0', "one string");
    UNFIT(memset(w.identity.name, 'x', sizeof(w.identity.name)), "name");
    UNFIT(memset(w.identity.id, 'x', sizeof(w.identity.id)), "name");
    UNFIT(w.identity.nic_count = MONITOR_NIC_MAX + 1, "number");
    UNFIT(w.identity.log_current = 2, "number");
    UNFIT(w.identity.flags = 2, "flag");
    UNFIT(w.identity.nics[1].mac[0] = 1, "network");
    w = somebody();
    expect(&w, sizeof(w.identity) - 1, 4, -EPROTO, "length");
}

static void test_identity_and_its_descriptors(void **state)
{
    static struct monitor_message m;
    struct pair p = connected();
    struct monitor_identity i = {.flags = MONITOR_IDENTITY_FILES, .nic_count = 1, .log_written = 77, .name = "one"};
    int before = open_fds(), fds[4] = {STDERR_FILENO, STDERR_FILENO, STDERR_FILENO, STDERR_FILENO};
    char long_text[MONITOR_PARAMETERS_MAX + 1];
    struct error *err = NULL;

    assert_int_equal(monitor_send_identity(p.ours, &i, "ip4=1.2.3.4/24", fds, 4, &err), 0);
    assert_int_equal(monitor_receive(p.theirs, &m, &err), 1);
    assert_int_equal(m.header.type, MONITOR_IDENTITY);
    assert_int_equal(m.fd_count, 4);
    assert_int_equal(m.identity.log_written, 77);
    assert_string_equal(monitor_identity_parameters(&m.identity), "ip4=1.2.3.4/24");
    monitor_message_end(&m);
    assert_int_equal(open_fds(), before);
    memset(long_text, 'x', sizeof(long_text) - 1);
    long_text[sizeof(long_text) - 1] = '\0';
    assert_int_equal(monitor_send_identity(p.ours, &i, long_text, fds, 4, &err), -E2BIG);
    error_free(err);
    close(p.ours);
    close(p.theirs);
}

static void test_answers(void **state)
{
    struct monitor_reply done = {.header = {MONITOR_PROTOCOL, MONITOR_DONE, sizeof(done)}};
    struct monitor_reply failed = {.header = {MONITOR_PROTOCOL, MONITOR_FAILED, sizeof(failed)}, .error = ENOMEM};

    expect(&done, sizeof(done), 1, 1, NULL);
    failed.stage = MONITOR_STAGE_COUNT;
    expect(&failed, sizeof(failed), 0, -EPROTO, "stage");
    failed.stage = MONITOR_STAGE_MEMORY;
    failed.error = -1;
    expect(&failed, sizeof(failed), 0, -EPROTO, "error");
    failed.error = 0;
    memset(failed.detail, 'x', sizeof(failed.detail));
    expect(&failed, sizeof(failed), 0, -EPROTO, "words");
}

static void test_client(void **state)
{
    struct pair p = connected();
    auto_error struct error *why = NULL;
    struct error *err = NULL;
    struct monitor_reply reply;
    struct monitor_status status;
    int fd = -1;

    error_set(&why, ENOSPC, "NO_SPACE", "no room for it");
    error_hint(&why, "make some");
    monitor_send_failed(p.theirs, MONITOR_STAGE_SNAPSHOT, why);
    assert_int_equal(monitor_wait(p.ours, 100, &reply, &err), -ENOSPC);
    assert_string_equal(err->code, "SNAPSHOT_UNUSABLE");
    assert_string_equal(err->message, "no room for it");
    assert_string_equal(err->hint, "make some");
    error_free(err);
    err = NULL;
    monitor_send_done(p.theirs, (uint64_t[MONITOR_TIMES]){1, 2, 3, 4}, -1);
    assert_int_equal(monitor_wait(p.ours, 100, &reply, &err), 0);
    assert_int_equal(reply.times[3], 4);
    assert_int_equal(monitor_wait(p.ours, 20, &reply, &err), -ETIMEDOUT);
    assert_string_equal(err->code, "TIMEOUT");
    error_free(err);
    err = NULL;
    monitor_send_done(p.theirs, NULL, STDERR_FILENO);
    assert_int_equal(monitor_open_console(p.ours, 100, &fd, &err), 0);
    assert_true(fcntl(fd, F_GETFD) == FD_CLOEXEC);
    close(fd);
    monitor_send_done(p.theirs, NULL, -1); /* a DONE that should have brought one */
    assert_int_equal(monitor_open_vsock(p.ours, 1, 100, &fd, &err), -EPROTO);
    error_free(err);
    err = NULL;
    monitor_send_done(p.theirs, NULL, STDERR_FILENO); /* another answer than asked for: its descriptor is closed */
    int before = open_fds();
    assert_int_equal(monitor_get_status(p.ours, 100, &status, &err), -EPROTO);
    assert_int_equal(open_fds(), before);
    error_free(err);
    err = NULL;
    close(p.theirs);
    assert_int_equal(monitor_wait(p.ours, 100, &reply, &err), -EPIPE);
    assert_string_equal(err->code, "INSTANCE_LOST");
    error_free(err);
    close(p.ours);
}

static void test_exit_file(void **state)
{
    static const char *const bad[] = {
        "",         "15",     "15 ",   "15 1",   " 15 1\n",        "15  1\n",
        "15 1\n\n", "-1 1\n", "x 1\n", "15 x\n", "4294967296 1\n", "1 18446744073709551616\n",
        "15 1\n2"};
    auto_fd int fd = memfd_create("exit", MFD_CLOEXEC);
    char text[64];
    uint64_t when = 0;
    int status = 0;

    assert_int_equal(exit_file_write(fd, 126 << 8), 0);
    ssize_t n = pread(fd, text, sizeof(text), 0);
    assert_true(exit_file_parse(text, (size_t)n, &status, &when));
    assert_int_equal(status, 126 << 8);
    assert_true(when > UINT64_C(1700000000000000000));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(exit_file_parse(bad[i], strlen(bad[i]), &status, &when));
    assert_int_equal(status, 126 << 8);
    assert_true(exit_file_parse("4294967295 18446744073709551615\n", 32, &status, &when));
    assert_int_equal(exit_file_write(-1, 0), -EBADF);
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    assert_int_equal(exit_file_write(full, 0), -ENOSPC);
    close(full);
}

static size_t content(int fd, char *text, size_t size)
{
    ssize_t n = pread(fd, text, size - 1, 0);

    assert_true(n >= 0);
    text[n] = '\0';
    return (size_t)n;
}

static void test_log(void **state)
{
    static struct log_file log;
    const int fds[2] = {memfd_create("0", MFD_CLOEXEC), memfd_create("1", MFD_CLOEXEC)};
    static char text[65536];

    log_file_setup(&log, fds, 1 << 20);
    log_file_write(&log, LOG_STREAM_OUT, "one\r\ntwo", 8);
    log_file_write(&log, LOG_STREAM_ERR, "else\n", 5);
    log_file_write(&log, LOG_STREAM_OUT, " goes on\n", 9);
    log_file_write(&log, LOG_STREAM_OUT, "open", 4);
    log_file_finish(&log, LOG_STREAM_OUT);
    content(fds[0], text, sizeof(text));
    assert_non_null(strstr(text, "Z stdout F one\n"));
    assert_non_null(strstr(text, "Z stderr F else\n"));
    assert_non_null(strstr(text, "Z stdout F two goes on\n"));
    assert_non_null(strstr(text, "Z stdout P open\n"));
    assert_int_equal(text[4], '-');
    char *longest = malloc(10000);
    memset(longest, 'x', 10000);
    longest[9999] = '\n';
    log_file_write(&log, LOG_STREAM_OUT, longest, 10000);
    content(fds[0], text, sizeof(text));
    unsigned parts = 0;
    for (const char *at = text; (at = strstr(at, "stdout P xxx")); at++)
        parts++;
    assert_int_equal(parts, 2);
    assert_non_null(strstr(text, "stdout F xxx"));
    free(longest);
    close(fds[0]);
    close(fds[1]);
}

static void test_log_takes_turns(void **state)
{
    static struct log_file log, later;
    const int fds[2] = {memfd_create("0", MFD_CLOEXEC), memfd_create("1", MFD_CLOEXEC)};
    static const int none[2] = {-1, -1};
    static char text[65536];
    char line[32];

    assert_int_equal(fcntl(fds[0], F_SETFL, O_APPEND) | fcntl(fds[1], F_SETFL, O_APPEND), 0); /* as the launcher does */
    log_file_setup(&log, fds, 4096);
    for (unsigned i = 0; i < 500; i++) {
        int n = snprintf(line, sizeof(line), "line %u\n", i);
        log_file_write(&log, LOG_STREAM_OUT, line, (size_t)n);
    }
    size_t size = content(fds[0], text, sizeof(text));
    size += content(fds[1], text + size, sizeof(text) - size);
    assert_in_range(size, 2048, 4096);
    assert_non_null(strstr(text, "line 499\n"));
    assert_null(strstr(text, "line 100\n"));
    int current = log.current;
    log_file_setup(&later, fds, 4096); /* after a restart the same one goes on */
    assert_int_equal(later.current, current);
    log_file_setup(&later, none, 4096);
    log_file_write(&later, LOG_STREAM_OUT, "nowhere\n", 8);
    close(fds[0]);
    close(fds[1]);
}

/* A command: its strings must be as many as its counts say, and its descriptors three, or one terminal. */
static void test_exec(void **state)
{
    static struct monitor_message m;
    struct pair p = connected();
    char *const arguments[] = {(char *)"sh", (char *)"", NULL}, *const env[] = {(char *)"A=b", NULL};
    const struct monitor_command command = {.directory = "/", .arguments = arguments, .env = env};
    const int fds[3] = {STDERR_FILENO, STDERR_FILENO, STDERR_FILENO};
    int before = open_fds(), status = 0;
    struct error *err = NULL;

    fcntl(p.ours, F_SETFL, O_NONBLOCK);    /* as monitor_connect() has it */
    monitor_send_done(p.theirs, NULL, -1); /* the answer is there before the question */
    assert_int_equal(monitor_exec(p.ours, &command, fds, 1000, &err), 0);
    assert_int_equal(monitor_receive(p.theirs, &m, &err), 1);
    assert_int_equal(m.header.type, MONITOR_EXEC);
    assert_int_equal(m.fd_count, 3);
    assert_int_equal(m.exec.argc, 2);
    assert_int_equal(m.exec.envc, 1);
    assert_memory_equal(&m.exec + 1, "\0/\0sh\0\0A=b", 12);
    monitor_message_end(&m);
    assert_int_equal(monitor_read_ended(p.ours, &status), -EAGAIN);
    struct monitor_ended ended = {.header.type = MONITOR_ENDED, .wait_status = 1792};
    assert_int_equal(monitor_send(p.theirs, &ended.header, sizeof(ended), NULL, 0, &err), 0);
    assert_int_equal(monitor_read_ended(p.ours, &status), 0);
    assert_int_equal(status, 1792);
    assert_int_equal(open_fds(), before);
    char *large = calloc(1, MONITOR_MESSAGE_MAX + 1);
    memset(large, 'x', MONITOR_MESSAGE_MAX);
    char *const too_much[] = {large, NULL};
    const struct monitor_command larger = {.directory = "/", .arguments = too_much};
    assert_int_equal(monitor_exec(p.ours, &larger, fds, 1000, &err), -E2BIG);
    error_free(err);
    free(large);
    p.theirs = close_fd(p.theirs);
    assert_int_equal(monitor_read_ended(p.ours, &status), -ECONNRESET);
    close_fd(p.ours);
}

static void test_exec_that_is_wrong(void **state)
{
    static const struct {
        uint32_t terminal, argc, envc, strings_size;
        unsigned fds;
        bool good;
    } cases[] = {
        {0, 2, 1, 15, 3, true},    {1, 2, 1, 15, 1, true},           {0, 2, 1, 15, 2, false}, {2, 2, 1, 15, 3, false},
        {0, 0, 3, 15, 3, false},   {0, 3, 1, 15, 3, false},          {0, 2, 0, 15, 3, false}, {0, 2, 1, 14, 3, false},
        {0, 512, 1, 15, 3, false}, {0, 1, UINT32_MAX, 15, 3, false},
    };
    _Alignas(8) char w[sizeof(struct monitor_exec) + 15];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error *err = NULL;
        unsigned fds;
        const struct monitor_exec exec = {.header = {MONITOR_PROTOCOL, MONITOR_EXEC, sizeof(w)},
                                          .terminal = cases[i].terminal,
                                          .argc = cases[i].argc,
                                          .envc = cases[i].envc,
                                          .strings_size = cases[i].strings_size};

        memcpy(w, &exec, sizeof(exec));
        memcpy(w + sizeof(exec), "app\0/\0ls\0-l\0A=", 15);
        int r = monitor_check(w, sizeof(w), cases[i].fds, &fds, &err);
        if ((r == 0) != cases[i].good)
            fail_msg("case %zu: %d", i, r);
        error_free(err);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_load_and_its_descriptors),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_prepare),
        cmocka_unit_test(test_loads),
        cmocka_unit_test(test_identities),
        cmocka_unit_test(test_identity_and_its_descriptors),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_client),
        cmocka_unit_test(test_exit_file),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_log_takes_turns),
        cmocka_unit_test(test_exec),
        cmocka_unit_test(test_exec_that_is_wrong),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
