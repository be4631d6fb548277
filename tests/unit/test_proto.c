/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every message of src/proto: random content survives encoding and decoding, every truncation and every surplus byte is
 * refused, descriptors are counted. With an argument, writes one sample of each type there (the fuzz corpus).
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "proto/proto.h"

enum { ROUNDS = 40 };

static uint64_t any(void)
{
    return (uint64_t)random() << 33 ^ (uint64_t)random() << 11 ^ (uint64_t)random();
}

static bool coin(void)
{
    return random() % 2;
}

/* Any bytes but NUL, 0 to size - 1 of them; the rest stays zero. */
static void text(char *to, size_t size)
{
    size_t n = (size_t)random() % size;

    for (size_t i = 0; i < n; i++)
        to[i] = (char)(1 + random() % 255);
}

static char *string(size_t max)
{
    char *s = calloc(1, max + 1);

    text(s, max + 1);
    return s;
}

static char **strings(void)
{
    size_t n = (size_t)random() % 20;
    char **list = calloc(n + 1, sizeof(*list));

    for (size_t i = 0; i < n; i++)
        list[i] = string(100);
    return list;
}

static void fill_hello(void *p)
{
    struct message_hello *m = p;
    struct host_facts *f = &m->facts;

    m->version = (uint32_t)any();
    text(m->software, sizeof(m->software));
    f->cgroup_v2 = coin();
    f->controllers = (uint32_t)any();
    f->landlock = coin();
    f->apparmor = coin();
    f->overlay = coin();
    f->kvm_present = coin();
    f->kvm_linux = coin();
    f->vhost_net = coin();
    f->tun = coin();
    text(f->kvm_flavour, sizeof(f->kvm_flavour));
    text(f->kvm_why_not, sizeof(f->kvm_why_not));
    text(f->qemu, sizeof(f->qemu));
    text(f->kernel, sizeof(f->kernel));
    text(f->fabric_netns, sizeof(f->fabric_netns));
    text(f->cgroup_parent, sizeof(f->cgroup_parent));
    text(f->uplink, sizeof(f->uplink));
    f->publish = coin();
    f->pool_depth = (uint32_t)any();
    f->instance_max = (uint32_t)any();
    f->cpus = (uint32_t)any();
    f->memory_bytes = any();
}

static void fill_limits(struct limits *l)
{
    l->cpu_milli = any();
    text(l->cpuset, sizeof(l->cpuset));
    l->memory_bytes = any();
    l->pids = any();
    l->io_read_bps = any();
    l->io_write_bps = any();
    l->io_read_iops = any();
    l->io_write_iops = any();
    l->storage_bytes = any();
    l->cpus_max = any();
    l->memory_max_bytes = any();
}

static void fill_process(struct plan_process *p)
{
    p->argv = coin() ? strings() : NULL;
    p->env = coin() ? strings() : NULL;
    p->cwd = coin() ? string(200) : NULL;
    p->user = coin() ? string(50) : NULL;
    p->tty = coin();
    p->open_stdin = coin();
}

static void random_bytes(void *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)p)[i] = (uint8_t)random();
}

static void fill_plan(void *p)
{
    struct launch_plan *m = p;

    text(m->id, sizeof(m->id));
    text(m->name, sizeof(m->name));
    text(m->hostname, sizeof(m->hostname));
    m->kind = (enum plan_kind)(1 + random() % 3);
    m->start_mode = (enum start_mode)(random() % 4);
    if (m->kind == PLAN_MACHINE) {
        m->machine.monitor = coin() ? PLAN_MONITOR_VMM : PLAN_MONITOR_QEMU;
        m->machine.boot = (enum plan_boot)(1 + random() % 5);
        m->machine.kvm = coin();
        m->machine.memory_bytes = any();
        m->machine.vcpus = (uint32_t)any();
        m->machine.memory_max_bytes = any();
        m->machine.vcpus_max = (uint32_t)any();
        text(m->machine.snapshot, sizeof(m->machine.snapshot));
        text(m->machine.carrier, sizeof(m->machine.carrier));
        m->machine.inner_memory_bytes = any();
        m->machine.inner_pids = (uint32_t)any();
        m->machine.stop_signal = (uint32_t)any();
        m->machine.restorable = coin();
        m->machine.identity = coin() ? string(300) : NULL;
        m->machine.parameters = coin() ? string(300) : NULL;
    }
    fill_process(&m->process);
    m->root.layer_count = (size_t)random() % (LAYER_MAX + 1);
    for (size_t i = 0; i < m->root.layer_count; i++)
        text(m->root.layers[i], DIGEST_HEX_SIZE);
    m->root.read_only = coin();
    m->root.writable_bytes = any();
    fill_limits(&m->limits);
    m->capabilities = (uint32_t)any();
    m->nic_count = (size_t)random() % (NETWORK_PER_INSTANCE_MAX + 1);
    for (size_t i = 0; i < m->nic_count; i++) {
        text(m->nics[i].link, sizeof(m->nics[i].link));
        random_bytes(m->nics[i].mac, 6);
        random_bytes(&m->nics[i].ipv4, 4);
        random_bytes(&m->nics[i].gateway6, 16);
        m->nics[i].prefix6 = (uint8_t)any();
    }
    m->port_count = (size_t)random() % (PORT_PER_INSTANCE_MAX + 1);
    for (size_t i = 0; i < m->port_count; i++)
        m->ports[i] = (struct spec_port){(uint16_t)any(), (uint16_t)any(), (uint8_t)any()};
    m->log_bytes_max = any();
    text(m->fault.step, sizeof(m->fault.step));
    m->fault.exit_status = (int32_t)any();
}

static void fill_snapshot(void *p)
{
    struct message_snapshot *m = p;

    text(m->id, sizeof(m->id));
    text(m->snapshot, sizeof(m->snapshot));
}

static void fill_snapshot_remove(void *p)
{
    struct message_snapshot_remove *m = p;

    text(m->snapshot, sizeof(m->snapshot));
}

static void fill_started(void *p)
{
    struct message_started *m = p;

    m->pid = (int32_t)any();
    m->uid_base = (uint32_t)any();
    m->origin = (enum start_origin)(random() % 3);
    m->steps.count = (uint32_t)random() % (STEP_MAX + 1);
    for (uint32_t i = 0; i < m->steps.count; i++) {
        text(m->steps.list[i].name, STEP_NAME_SIZE);
        m->steps.list[i].start_ns = any();
        m->steps.list[i].duration_ns = any();
    }
}

static void fill_signal(void *p)
{
    struct message_signal *m = p;

    text(m->id, sizeof(m->id));
    m->signal = (int32_t)any();
}

static void fill_id(void *p)
{
    struct message_id *m = p;

    text(m->id, sizeof(m->id));
}

static void fill_update(void *p)
{
    struct message_update *m = p;

    text(m->id, sizeof(m->id));
    fill_limits(&m->limits);
    m->vcpus = (uint32_t)any();
    m->machine_bytes = any();
}

static void fill_stats(void *p)
{
    random_bytes(p, sizeof(struct instance_stats));
    memset((char *)p + sizeof(uint32_t), 0, 4); /* padding behind known */
}

static void fill_instance(void *p)
{
    struct message_instance *m = p;

    text(m->id, sizeof(m->id));
    text(m->name, sizeof(m->name));
    m->pid = (int32_t)any();
    m->uid_base = (uint32_t)any();
    m->running = coin();
    m->paused = coin();
    m->wait_status = (int32_t)any();
    m->oom = coin();
    m->status_known = coin();
    m->exited_at_ns = any();
}

static void fill_exited(void *p)
{
    struct message_exited *m = p;

    text(m->id, sizeof(m->id));
    m->wait_status = (int32_t)any();
    m->oom = coin();
    m->status_known = coin();
    m->exited_at_ns = any();
}

static void fill_exec(void *p)
{
    struct message_exec *m = p;

    text(m->id, sizeof(m->id));
    fill_process(&m->process);
}

static void fill_number(void *p)
{
    *(uint32_t *)p = (uint32_t)any(); /* EXEC_STARTED, CANCEL: one u32 */
}

static void fill_exec_signal(void *p)
{
    struct message_exec_signal *m = p;

    text(m->id, sizeof(m->id));
    m->exec = (uint32_t)any();
    m->signal = (int32_t)any();
}

static void fill_link(void *p)
{
    struct link *m = p;

    text(m->name, sizeof(m->name));
    random_bytes(&m->gateway4, 4);
    m->prefix4 = (uint8_t)any();
    random_bytes(&m->gateway6, 16);
    m->mtu = (uint16_t)any();
    m->uplink = coin();
}

static void fill_link_remove(void *p)
{
    text(((struct message_link_remove *)p)->name, LINK_NAME_SIZE);
}

static void fill_unpack(void *p)
{
    struct message_unpack *m = p;

    text(m->archive_name, sizeof(m->archive_name));
    m->bytes_max = any();
    m->files_max = any();
}

static void fill_layer_remove(void *p)
{
    text(((struct message_layer_remove *)p)->digest, DIGEST_HEX_SIZE);
}

static void fill_pool(void *p)
{
    struct message_pool_reply *m = p;

    m->depth = (uint32_t)any();
    m->ready = (uint32_t)any();
    m->taken = any();
    m->snapshots = (uint32_t)any();
    m->missed = any();
}

static void fill_failed(void *p)
{
    static const char *const codes[] = {"NAME_TAKEN", "NO_SPACE", "START_FAILED"};
    struct error *e = p;

    for (int depth = random() % 5; depth >= 0; depth--) {
        e->code = codes[random() % 3];
        e->message = string(300);
        e->hint = coin() ? string(100) : NULL;
        e->errnum = (int)(random() % 200);
        if (depth)
            e = e->cause = calloc(1, sizeof(*e));
    }
}

/* NULL: the message has no body. exact: the struct holds no pointer, so it must come back byte by byte. */
static const struct {
    void (*fill)(void *);
    bool exact;
} samples[MESSAGE_TYPE_COUNT] = {
    [MESSAGE_HELLO] = {fill_hello, true},
    [MESSAGE_START] = {fill_plan, false},
    [MESSAGE_STARTED] = {fill_started, true},
    [MESSAGE_SIGNAL] = {fill_signal, true},
    [MESSAGE_PAUSE] = {fill_id, true},
    [MESSAGE_RESUME] = {fill_id, true},
    [MESSAGE_UPDATE] = {fill_update, true},
    [MESSAGE_STATS] = {fill_id, true},
    [MESSAGE_STATS_REPLY] = {fill_stats, true},
    [MESSAGE_RELEASE] = {fill_id, true},
    [MESSAGE_INSTANCE] = {fill_instance, true},
    [MESSAGE_EXITED] = {fill_exited, true},
    [MESSAGE_EXEC] = {fill_exec, false},
    [MESSAGE_EXEC_STARTED] = {fill_number, true},
    [MESSAGE_EXEC_SIGNAL] = {fill_exec_signal, true},
    [MESSAGE_EXEC_EXITED] = {fill_exec_signal, true},
    [MESSAGE_LOGS] = {fill_id, true},
    [MESSAGE_CONSOLE] = {fill_id, true},
    [MESSAGE_LINK_ADD] = {fill_link, true},
    [MESSAGE_LINK_REMOVE] = {fill_link_remove, true},
    [MESSAGE_UNPACK] = {fill_unpack, true},
    [MESSAGE_LAYER_REMOVE] = {fill_layer_remove, true},
    [MESSAGE_POOL_REPLY] = {fill_pool, true},
    [MESSAGE_SNAPSHOT] = {fill_snapshot, true},
    [MESSAGE_SNAPSHOT_REMOVE] = {fill_snapshot_remove, true},
    [MESSAGE_CANCEL] = {fill_number, true},
    [MESSAGE_FAILED] = {fill_failed, false},
};

static void *sample(enum message_type type)
{
    size_t size = proto_body_size(type);
    void *body = size ? calloc(1, size) : NULL;

    assert_int_equal(size != 0, samples[type].fill != NULL);
    if (body)
        samples[type].fill(body);
    return body;
}

static void drop(enum message_type type, void *body)
{
    proto_message_clear(type, body);
    free(body);
}

static void check_type(enum message_type type)
{
    auto_free uint8_t *first = NULL, *second = NULL;
    struct proto_message m = {0};
    size_t size, again;
    void *body = sample(type);

    assert_int_equal(proto_encode(type, 77, body, &first, &size, NULL), 0);
    assert_int_equal(proto_decode(first, size, &m, NULL), 0);
    assert_int_equal(m.type, type);
    assert_int_equal(m.request, 77);
    if (samples[type].exact)
        assert_memory_equal(m.body, body, proto_body_size(type));
    assert_int_equal(proto_encode(type, 77, m.body, &second, &again, NULL), 0);
    assert_int_equal(size, again);
    assert_memory_equal(first, second, size);
    proto_message_end(&m);
    drop(type, body);
}

static void test_round_trip(void **state)
{
    for (unsigned type = MESSAGE_HELLO; type < MESSAGE_TYPE_COUNT; type++)
        for (int i = 0; i < ROUNDS; i++)
            check_type((enum message_type)type);
}

/* Cut anywhere, or with a byte too many, a message is refused with its code; the copy is exact for the sanitizer. */
static void test_truncation(void **state)
{
    for (unsigned type = MESSAGE_HELLO; type < MESSAGE_TYPE_COUNT; type++) {
        auto_free uint8_t *data = NULL;
        void *body = sample((enum message_type)type);
        struct proto_message m;
        size_t size;

        assert_int_equal(proto_encode((enum message_type)type, 1, body, &data, &size, NULL), 0);
        for (size_t cut = 0; cut <= size + 1; cut++) {
            auto_error struct error *err = NULL;
            auto_free uint8_t *copy = calloc(1, cut ? cut : 1);
            memcpy(copy, data, cut < size ? cut : size);
            if (cut == size)
                continue;
            assert_int_equal(proto_decode(copy, cut, &m, &err), -EPROTO);
            assert_string_equal(err->code, "PROTOCOL_ERROR");
        }
        drop((enum message_type)type, body);
    }
}

/* Where a field lies, found by changing it and looking which byte of the packet changes first. */
static size_t place_of(struct launch_plan *plan, void *field, size_t size, const void *value)
{
    auto_free uint8_t *before = NULL, *after = NULL;
    uint8_t saved[64];
    size_t n, m, at = 0;

    assert_int_equal(proto_encode(MESSAGE_START, 0, plan, &before, &n, NULL), 0);
    memcpy(saved, field, size);
    memcpy(field, value, size);
    assert_int_equal(proto_encode(MESSAGE_START, 0, plan, &after, &m, NULL), 0);
    memcpy(field, saved, size);
    while (at < n && at < m && before[at] == after[at])
        at++;
    return at;
}

static int decode_with(const struct launch_plan *plan, size_t at, uint8_t value)
{
    auto_free uint8_t *data = NULL;
    struct proto_message m = {0};
    size_t size;
    int r;

    assert_int_equal(proto_encode(MESSAGE_START, 0, plan, &data, &size, NULL), 0);
    data[at] = value;
    r = proto_decode(data, size, &m, NULL);
    if (r == 0)
        proto_message_end(&m);
    return r;
}

static void test_bad_values(void **state)
{
    struct launch_plan plan = {.name = "aaaa", .kind = PLAN_CONTAINER};
    enum plan_kind fake = PLAN_FAKE;
    bool yes = true;
    char other[] = "abaa";
    size_t at;

    at = place_of(&plan, &plan.kind, sizeof(fake), &fake);
    assert_int_equal(decode_with(&plan, at, PLAN_CONTAINER), 0);
    assert_int_equal(decode_with(&plan, at, 0), -EPROTO);
    assert_int_equal(decode_with(&plan, at, PLAN_FAKE + 1), -EPROTO);
    at = place_of(&plan, &plan.root.read_only, sizeof(yes), &yes);
    assert_int_equal(decode_with(&plan, at, 1), 0);
    assert_int_equal(decode_with(&plan, at, 2), -EPROTO);
    at = place_of(&plan, plan.name, 4, other);
    assert_int_equal(decode_with(&plan, at, 'x'), 0);
    assert_int_equal(decode_with(&plan, at, '\0'), -EPROTO); /* "a\0aa" */
}

static void test_too_much(void **state)
{
    auto_error struct error *err = NULL;
    struct launch_plan plan = {.kind = PLAN_CONTAINER, .nic_count = NETWORK_PER_INSTANCE_MAX + 1};
    uint8_t *data;
    size_t size;
    char *big = calloc(1, 3 * ARGUMENT_BYTES_MAX);

    assert_true(proto_encode(MESSAGE_START, 0, &plan, &data, &size, &err) < 0);
    plan.nic_count = 0;
    memset(big, 'x', 3 * ARGUMENT_BYTES_MAX - 1);
    plan.process.argv = (char *[]){big, NULL};
    assert_true(proto_encode(MESSAGE_START, 0, &plan, &data, &size, NULL) < 0);
    plan.process.argv = NULL;
    memset(plan.id, 'x', sizeof(plan.id)); /* no terminator */
    assert_true(proto_encode(MESSAGE_START, 0, &plan, &data, &size, NULL) < 0);
    assert_true(proto_encode(MESSAGE_TYPE_COUNT, 0, NULL, &data, &size, NULL) < 0);
    free(big);
}

static void test_error_chain(void **state)
{
    auto_error struct error *err = NULL;
    auto_free uint8_t *data = NULL;
    struct proto_message m;
    char words[256];
    size_t size;

    error_set(&err, ENOSPC, "NO_SPACE", "inner");
    error_hint(&err, "free some");
    error_wrap(&err, "START_FAILED", "outer");
    assert_int_equal(proto_encode(MESSAGE_FAILED, 9, err, &data, &size, NULL), 0);
    assert_int_equal(proto_decode(data, size, &m, NULL), 0);
    auto_error struct error *copy = take_ptr(m.body); /* as a caller keeps it */
    proto_message_end(&m);
    assert_string_equal(error_text(copy, words, sizeof(words)), "outer: inner");
    assert_string_equal(copy->code, "START_FAILED");
    assert_string_equal(copy->cause->code, "NO_SPACE");
    assert_string_equal(copy->cause->hint, "free some");
    assert_int_equal(copy->errnum, ENOSPC);
}

static unsigned open_descriptors(void)
{
    unsigned n = 0;

    for (int fd = 0; fd < 200; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* Sends raw bytes with count copies of descriptor 1 beside them. */
static void send_raw(int to, const void *data, size_t size, int count)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * 8)] = {0};
    struct iovec iov = {(void *)data, size};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};

    if (count) {
        h.msg_control = control;
        h.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)count);
        struct cmsghdr *c = CMSG_FIRSTHDR(&h);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count);
        for (int i = 0; i < count; i++)
            memcpy(CMSG_DATA(c) + (size_t)i * sizeof(int), (int[]){1}, sizeof(int));
    }
    assert_int_equal(sendmsg(to, &h, 0), size);
}

static void test_descriptors(void **state)
{
    auto_free uint8_t *data = NULL;
    struct proto_message m;
    unsigned before;
    size_t size;
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
    before = open_descriptors();
    assert_int_equal(proto_receive(pair[1], &m, NULL), -EAGAIN);
    assert_int_equal(proto_send(pair[0], MESSAGE_LOGS_REPLY, 3, NULL, (int[]){0, 1}, 2, NULL), 0);
    assert_int_equal(proto_receive(pair[1], &m, NULL), 1);
    assert_int_equal(m.fd_count, 2);
    assert_int_equal(open_descriptors(), before + 2);
    proto_message_end(&m);
    assert_true(proto_send(pair[0], MESSAGE_LOGS_REPLY, 3, NULL, (int[]){0, 1}, 1, NULL) < 0);
    assert_true(proto_send(pair[0], MESSAGE_DONE, 3, NULL, (int[]){0}, 1, NULL) < 0);

    assert_int_equal(proto_encode(MESSAGE_DONE, 3, NULL, &data, &size, NULL), 0);
    for (int count = 1; count <= 8; count++) { /* DONE carries none; above PROTO_FD_MAX the kernel cuts */
        send_raw(pair[0], data, size, count);
        assert_int_equal(proto_receive(pair[1], &m, NULL), -EPROTO);
        assert_int_equal(open_descriptors(), before);
    }
    send_raw(pair[0], "rubbish", 7, 3);
    assert_int_equal(proto_receive(pair[1], &m, NULL), -EPROTO);
    assert_int_equal(open_descriptors(), before);
    close(pair[0]);
    assert_int_equal(proto_receive(pair[1], &m, NULL), 0);
    close(pair[1]);
}

static int write_corpus(const char *directory)
{
    for (unsigned type = MESSAGE_HELLO; type < MESSAGE_TYPE_COUNT; type++) {
        auto_free uint8_t *data = NULL;
        void *body = sample((enum message_type)type);
        char path[256];
        size_t size;

        if (proto_encode((enum message_type)type, 1, body, &data, &size, NULL) < 0)
            return 1;
        snprintf(path, sizeof(path), "%s/%s", directory, proto_type_name((enum message_type)type));
        auto_file FILE *f = fopen(path, "we");
        if (!f || fwrite(data, 1, size, f) != size)
            return 1;
        drop((enum message_type)type, body);
    }
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_truncation),  cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_too_much),   cmocka_unit_test(test_error_chain), cmocka_unit_test(test_descriptors),
    };

    srandom(20);
    if (argc > 1)
        return write_corpus(argv[1]);
    return cmocka_run_group_tests_name("proto", tests, NULL, NULL);
}
