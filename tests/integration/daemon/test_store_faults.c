/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store that fails: disk full and I/O errors at every write, a damaged file, a newer schema, a tiny disk.
 *
 * An SQLite VFS over the real one fails the n-th write, sync or truncation with a chosen code, for every n until a
 * whole scenario passes; each time what was refused must have left nothing, in memory and on the disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "harness.h"

/* ---- the failing VFS: every file's methods are the real ones but three */

static sqlite3_vfs *real_vfs;
static sqlite3_vfs shim;
/* The real methods with ours put in; the database has others than its log (locks). */
static sqlite3_io_methods methods[2];
static const sqlite3_io_methods *real_methods[2];
static long countdown = -1; /* fails when it reaches 0; -1: never */
static bool sticky;         /* and every later one, too */
static int fail_code;
static int last_errno;

static bool fails(void)
{
    if (countdown < 0)
        return false;
    if (countdown > 0) {
        countdown--;
        return false;
    }
    if (!sticky)
        countdown = -1;
    last_errno = fail_code == SQLITE_FULL ? ENOSPC : EIO;
    return true;
}

static const sqlite3_io_methods *real_of(const sqlite3_file *file)
{
    return real_methods[file->pMethods == &methods[1]];
}

static int shim_write(sqlite3_file *file, const void *bytes, int n, sqlite3_int64 offset)
{
    return fails() ? (fail_code == SQLITE_FULL ? SQLITE_FULL : SQLITE_IOERR_WRITE)
                   : real_of(file)->xWrite(file, bytes, n, offset);
}

static int shim_sync(sqlite3_file *file, int flags)
{
    return fails() ? SQLITE_IOERR_FSYNC : real_of(file)->xSync(file, flags);
}

static int shim_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    return fails() ? SQLITE_IOERR_TRUNCATE : real_of(file)->xTruncate(file, size);
}

static int shim_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *ret_flags)
{
    int result = real_vfs->xOpen(real_vfs, name, file, flags, ret_flags);

    if (result == SQLITE_OK && file->pMethods) {
        bool log = !(flags & SQLITE_OPEN_MAIN_DB);
        real_methods[log] = file->pMethods;
        methods[log] = *file->pMethods;
        methods[log].xWrite = shim_write;
        methods[log].xSync = shim_sync;
        methods[log].xTruncate = shim_truncate;
        file->pMethods = &methods[log];
    }
    return result;
}

static int shim_last_error(sqlite3_vfs *vfs, int n, char *text)
{
    return last_errno ? last_errno : real_vfs->xGetLastError(real_vfs, n, text);
}

static void install(void)
{
    real_vfs = sqlite3_vfs_find(NULL);
    shim = *real_vfs;
    shim.zName = "failing";
    shim.xOpen = shim_open;
    shim.xGetLastError = shim_last_error;
    assert_int_equal(sqlite3_vfs_register(&shim, 1), SQLITE_OK);
}

/* ---- scenarios */

static struct bed bed;
static char op[INSTANCE_ID_SIZE];

static size_t instances(void)
{
    auto_buffer struct buffer out = {0};

    core_render_instances(bed.core, NULL, &out);
    json_t *list = json_loads(out.data, 0, NULL);
    size_t n = json_array_size(json_object_get(list, "items"));
    json_decref(list);
    return n;
}

static size_t addresses_held(void)
{
    auto_buffer struct buffer out = {0};

    core_render_networks(bed.core, &out);
    json_t *list = json_loads(out.data, 0, NULL);
    json_int_t n = json_integer_value(json_object_get(json_array_get(json_object_get(list, "items"), 0), "instances"));
    json_decref(list);
    return (size_t)n;
}

static bool is_refusal(const char *code)
{
    return strcmp(code, "NO_SPACE") == 0 || strcmp(code, "STORE_FAILED") == 0;
}

/* One of each request. Returns how many were refused for the store's sake; checks memory after each. */
static unsigned requests(unsigned round)
{
    char name[64], descriptor[128];
    unsigned refused = 0;
    size_t before = instances();
    const char *code;

    snprintf(name, sizeof(name), "x%u", round);
    snprintf(descriptor, sizeof(descriptor), "{\"technology\":\"fake\",\"name\":\"%s\"}", name);
    code = bed_create(&bed, descriptor, true, NULL, op);
    if (*code) {
        assert_true(is_refusal(code));
        assert_int_equal(instances(), before);
        assert_int_equal(addresses_held(), before);
        assert_null(core_instance_find(bed.core, name, NULL));
        return 1;
    }
    json_decref(bed_wait(&bed, op));
    code = bed_change(&bed, name, CORE_STOP, NULL, op);
    if (*code) {
        assert_true(is_refusal(code));
        refused++;
        assert_true(bed_wait_state(&bed, name, "STARTED", 100)); /* as it was */
        assert_null(core_instance_operation(core_instance_find(bed.core, name, NULL)));
    } else {
        json_decref(bed_wait(&bed, op));
        assert_true(bed_wait_state(&bed, name, "STOPPED", 100));
        code = bed_change(&bed, name, CORE_START, NULL, op);
        if (*code) { /* it had been sent: it is taken back */
            assert_true(is_refusal(code));
            refused++;
            assert_true(bed_wait_state(&bed, name, "STOPPED", 1000));
        } else {
            json_decref(bed_wait(&bed, op));
        }
    }
    code = bed_terminate(&bed, name, true, op);
    if (*code) {
        assert_true(is_refusal(code));
        refused++;
        assert_non_null(core_instance_find(bed.core, name, NULL));
    } else {
        json_decref(bed_wait(&bed, op));
    }
    return refused;
}

/* What is in memory is on the disk: after a good flush a reopened core shows the same. */
static void compare_with_disk(void)
{
    size_t before = instances();

    countdown = -1;
    last_errno = 0;
    assert_string_equal(bed_create(&bed, "{\"technology\":\"fake\",\"name\":\"last\"}", false, NULL, NULL), "");
    bed_shut(&bed);
    struct error *err = NULL;
    if (bed_reopen(&bed, &err) < 0)
        fail_msg("%s", err->message);
    bed_turn(&bed, 20);
    assert_int_equal(instances(), before + 1);
    assert_int_equal(addresses_held(), before + 1);
}

static void fail_each(int code, bool all_later)
{
    unsigned round = 0, refusals = 0, refused;

    do {
        bed_open(&bed, NULL);
        fail_code = code;
        sticky = all_later;
        countdown = round;
        refused = requests(round);
        refusals += refused;
        bool was_hit = countdown != (long)round && countdown <= 0;
        compare_with_disk();
        bed_close(&bed);
        round++;
        if (!refused && !was_hit && countdown < 0 && round > 60)
            break;
    } while (round < 80);
    print_message("%u places failed, %u requests refused\n", round, refusals);
    assert_true(refusals >= 4);
}

static void test_disk_full_at_every_write(void **state)
{
    fail_each(SQLITE_FULL, false);
}

static void test_disk_stays_full(void **state)
{
    fail_each(SQLITE_FULL, true);
}

static void test_io_error_at_every_write(void **state)
{
    fail_each(SQLITE_IOERR, false);
}

static void damage(const char *file, off_t offset, size_t size)
{
    char path[160];
    char junk[4096];

    snprintf(path, sizeof(path), "%s/state/%s", bed.dir, file);
    memset(junk, 0xa5, sizeof(junk));
    auto_fd int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    for (; size; size -= size < sizeof(junk) ? size : sizeof(junk), offset += (off_t)sizeof(junk))
        assert_true(pwrite(fd, junk, size < sizeof(junk) ? size : sizeof(junk), offset) > 0);
}

static void expect_refusal(const char *words)
{
    struct error *err = NULL;

    assert_true(bed_reopen(&bed, &err) < 0);
    assert_string_equal(err->code, "STORE_FAILED");
    if (!strstr(err->message, words) || !strstr(err->message, bed.dir) || !err->hint)
        fail_msg("\"%s\" does not say \"%s\" and where, or what to do", err->message, words);
    error_free(err);
}

static void test_damage_is_reported_at_start(void **state)
{
    bed_open(&bed, NULL);
    for (int i = 0; i < 50; i++)
        assert_string_equal(bed_create(&bed, "{\"technology\":\"fake\"}", false, NULL, NULL), "");
    bed_shut(&bed);
    damage("coracle.db", 8192, 16384);
    expect_refusal("damaged");
    damage("coracle.db", 0, 100);
    expect_refusal("damaged");
    assert_int_equal(bed.core == NULL, 1);
    bed_close(&bed);
}

static void test_newer_schema_is_refused(void **state)
{
    char path[160];
    sqlite3 *db;

    bed_open(&bed, NULL);
    bed_shut(&bed);
    snprintf(path, sizeof(path), "%s/state/coracle.db", bed.dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "INSERT INTO schema_migrations VALUES(999,'later')", NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(db);
    expect_refusal("newer");
    bed_close(&bed);
}

static void test_two_daemons_cannot_share_a_store(void **state)
{
    struct bed second;
    struct error *err = NULL;

    bed_open(&bed, NULL);
    second = bed;
    assert_true(bed_reopen(&second, &err) < 0);
    assert_string_equal(err->code, "STORE_FAILED");
    error_free(err);
    bed_close(&bed);
}

/* A real disk that fills up: the state directory on a tmpfs of 256 KiB. */
static void test_tiny_disk(void **state)
{
    char path[] = "/tmp/coracle-tiny-XXXXXX";
    unsigned made = 0;
    const char *code;

    assert_non_null(mkdtemp(path));
    if (mount("tmpfs", path, "tmpfs", 0, "size=256k") < 0) {
        rmdir(path);
        print_message("skipped: mounting a tmpfs needs root (%s)\n", strerror(errno));
        skip();
    }
    bed_open(&bed, path);
    while (!*(code = bed_create(&bed, "{\"technology\":\"fake\"}", false, NULL, NULL)))
        made++;
    assert_string_equal(code, "NO_SPACE");
    assert_true(made >= 1);
    assert_int_equal(instances(), made);
    char remount[] = "size=8m";
    assert_int_equal(mount("tmpfs", path, "tmpfs", MS_REMOUNT, remount), 0);
    assert_string_equal(bed_create(&bed, "{\"technology\":\"fake\"}", false, NULL, NULL),
                        ""); /* it goes on by itself */
    bed_shut(&bed);
    assert_int_equal(bed_reopen(&bed, NULL), 0);
    assert_int_equal(instances(), made + 1);
    bed_close(&bed);
    assert_int_equal(umount(path), 0);
    rmdir(path);
}

static int heal_disk(void **state)
{
    countdown = -1;
    last_errno = 0;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_disk_full_at_every_write, heal_disk),
        cmocka_unit_test_setup(test_disk_stays_full, heal_disk),
        cmocka_unit_test_setup(test_io_error_at_every_write, heal_disk),
        cmocka_unit_test_setup(test_damage_is_reported_at_start, heal_disk),
        cmocka_unit_test_setup(test_newer_schema_is_refused, heal_disk),
        cmocka_unit_test_setup(test_two_daemons_cannot_share_a_store, heal_disk),
        cmocka_unit_test_setup(test_tiny_disk, heal_disk),
    };

    install();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
