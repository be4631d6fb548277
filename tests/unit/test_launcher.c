/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the launcher that need no privilege: host.conf, number slots, records, ids. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "launcher/instance.h"

static int parse(struct options *o, const char *text, struct error **err)
{
    char copy[256];

    snprintf(copy, sizeof(copy), "%s", text);
    *o = (struct options){.pool_depth = 4};
    return options_parse_config(o, copy, "host.conf", err);
}

static void test_config(void **state)
{
    static const char *const bad[] = {
        "pool_depth = 65",     "pool_depth = -1",       "pool_depth =",       "depth = 1",
        "pool_depth",          "log_bytes = 8 MB",      "uplink = a/b",       "publish = yes",
        "log_bytes=1x",        "uplink = ..",           "publish = 10.0.0.1", "pids_default = 0",
        "memory_default = 0%", "memory_default = 101%", "memory_default = %", "memory_default = 12",
    };
    struct options o;

    assert_int_equal(
        parse(&o, "# comment\n\n pool_depth = 7 # here\nlog_bytes = 1MiB\r\nstorage_default=65536\n", NULL), 0);
    assert_int_equal(o.pool_depth, 7);
    assert_int_equal(o.log_bytes, 1 << 20);
    assert_int_equal(o.storage_default, 65536);
    assert_int_equal(parse(&o, "pids_default = 100\nmemory_default = 25%", NULL), 0);
    assert_int_equal(o.pids_default, 100);
    assert_true(o.memory_percent == 25 && !o.memory_default);
    assert_int_equal(parse(&o, "pids_default = none\nmemory_default = 64MiB", NULL), 0);
    assert_true(!o.pids_default && !o.memory_percent && o.memory_default == 64 << 20);
    assert_int_equal(parse(&o, "memory_default = none", NULL), 0);
    assert_true(!o.memory_percent && !o.memory_default);
    assert_int_equal(parse(&o, "uplink = eth0\npublish = 192.0.2.1\n", NULL), 0);
    assert_string_equal(o.uplink, "eth0");
    assert_true(o.publish && o.publish4.s_addr == inet_addr("192.0.2.1"));
    assert_int_equal(parse(&o, "publish = no\nuplink = none", NULL), 0);
    assert_true(!o.publish && !o.uplink[0]);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        auto_error struct error *err = NULL;
        assert_int_equal(parse(&o, bad[i], &err), -EINVAL);
        assert_non_null(strstr(err->message, "host.conf line 1"));
    }
}

static void test_slots(void **state)
{
    static struct slots s;
    uint32_t slot, first, again;

    slots_init(&s);
    assert_int_equal(slots_take(&s, &first), 0);
    slots_free(&s, first);
    assert_int_equal(slots_take(&s, &again), 0);
    assert_int_not_equal(first, again); /* a number just given back is not handed out at once */
    for (unsigned i = 1; i < SLOT_COUNT; i++)
        assert_int_equal(slots_take(&s, &slot), 0);
    assert_int_equal(slots_take(&s, &slot), -ENOSPC);
    slots_free(&s, 4711);
    assert_int_equal(slots_claim(&s, 4711), 0);
    assert_int_equal(slots_claim(&s, 4711), -EEXIST);
    assert_int_equal(slots_claim(&s, SLOT_COUNT), -EEXIST);
    slots_free(&s, 17);
    assert_int_equal(slots_take(&s, &slot), 0);
    assert_int_equal(slot, 17);
}

static void test_ids(void **state)
{
    char id[INSTANCE_ID_SIZE] = "01234567-89ab-4cde-8f01-23456789abcd";

    assert_true(instance_id_valid(id));
    for (size_t i = 0; i < sizeof(id) - 1; i++) {
        char bad[INSTANCE_ID_SIZE];
        memcpy(bad, id, sizeof(id));
        bad[i] = '/';
        assert_false(instance_id_valid(bad));
        bad[i] = '\0';
        assert_false(instance_id_valid(bad));
    }
    id[0] = 'A';
    assert_false(instance_id_valid(id));
}

static void fill(struct instance *i)
{
    *i = (struct instance){.id = "01234567-89ab-4cde-8f01-23456789abcd",
                           .name = "edge",
                           .state = INSTANCE_RUNNING,
                           .uid_slot = 99,
                           .has_uid = true,
                           .has_number = true,
                           .writable = true,
                           .published_count = 1,
                           .published = {{8080, 80, IPPROTO_TCP}}};
    i->record = (struct container_record){.tag = "pool-1-2", .pid = 77, .start_time = 123456789012ull, .uid_base = 5};
    i->ports = (struct fabric_ports){.number = 12, .count = 2, .list = {{.link = "default"}, {.link = "b"}}};
    inet_pton(AF_INET, "198.18.0.9", &i->ports.list[0].ipv4);
    inet_pton(AF_INET6, "fd00::9", &i->ports.list[1].ipv6);
}

static void test_record(void **state)
{
    char directory[] = "/tmp/coracle-record-XXXXXX";
    struct instance i, back = {0};
    struct launcher l = {0};
    auto_fd int dir = -1, file = -1;
    char text[2048];
    ssize_t size;

    assert_non_null(mkdtemp(directory));
    dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(record_read(dir, &back), -ENOENT);
    fill(&i);
    assert_int_equal(record_write(&l, &i, dir, NULL), 0);
    assert_int_equal(record_read(dir, &back), 0);
    assert_string_equal(back.id, i.id);
    assert_string_equal(back.name, "edge");
    assert_int_equal(back.state, INSTANCE_RUNNING);
    assert_true(back.has_uid && back.uid_slot == 99 && back.writable && back.has_number);
    assert_memory_equal(&back.ports, &i.ports, sizeof(i.ports));
    assert_memory_equal(&back.record, &i.record, sizeof(i.record));
    assert_int_equal(back.published_count, 1);
    assert_memory_equal(back.published, i.published, sizeof(i.published));

    /* cut anywhere it is damaged, not half believed */
    file = openat(dir, "record", O_RDWR | O_CLOEXEC);
    size = read(file, text, sizeof(text));
    assert_true(size > 100);
    for (ssize_t cut = 0; cut < size - 1; cut++) {
        assert_int_equal(ftruncate(file, cut), 0);
        assert_int_equal(record_read(dir, &back), -EINVAL);
        assert_int_equal(pwrite(file, text, (size_t)size, 0), size);
    }
    i.state = INSTANCE_ENDED;
    i.has_uid = i.has_number = false;
    i.exit = (struct container_exit){true, 256, true, 42};
    assert_int_equal(record_write(&l, &i, dir, NULL), 0);
    memset(&back, 0, sizeof(back));
    assert_int_equal(record_read(dir, &back), 0);
    assert_true(!back.has_uid && !back.has_number && back.exit.status_known && back.exit.oom);
    assert_int_equal(back.exit.wait_status, 256);
    assert_int_equal(back.exit.exited_at_ns, 42);
    unlinkat(dir, "record", 0);
    rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_config), cmocka_unit_test(test_slots),
                                       cmocka_unit_test(test_ids), cmocka_unit_test(test_record)};

    return cmocka_run_group_tests_name("launcher", tests, NULL, NULL);
}
