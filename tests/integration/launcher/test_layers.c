/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UNPACK and LAYER_REMOVE with the real coracle-unpack: a root file system tar becomes a layer an instance runs from;
 * rubbish leaves nothing; a removed tree takes nothing outside along; a kill in between is tidied by the next start.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tests/integration/launcher/bed.h"

enum { IMAGE_UID = 1 << 29, DEEP = 200 };

static struct bed bed;

static void shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void shell(const char *format, ...)
{
    char command[1024];
    va_list ap;

    va_start(ap, format);
    vsnprintf(command, sizeof(command), format, ap);
    va_end(ap);
    if (system(command) != 0)
        bed_die("failed: %s", command);
}

static unsigned scratch_entries(void)
{
    struct remains r;

    bed_count(&bed, &r);
    return r.scratch;
}

/* Unpacks the archive; *ret_answer is what coracle-unpack said. */
static enum message_type unpack(const char *path, char *ret_answer, size_t size)
{
    struct message_unpack m = {.archive_name = "test", .bytes_max = 64 << 20, .files_max = 1000};
    auto_fd int archive = open(path, O_RDONLY | O_CLOEXEC);
    struct proto_message answer;
    enum message_type type;
    int result[2];
    ssize_t n;

    BED_CHECK(archive >= 0 && pipe2(result, O_CLOEXEC) == 0);
    uint32_t request = bed_send(&bed, MESSAGE_UNPACK, &m, (int[]){archive, result[1]}, 2);
    close(result[1]);
    n = read(result[0], ret_answer, size - 1); /* ends because nobody keeps the other end */
    ret_answer[n > 0 ? n : 0] = '\0';
    close(result[0]);
    BED_CHECK(bed_receive(&bed, request, &answer));
    type = answer.type;
    if (type == MESSAGE_FAILED)
        printf("refused: %s: %s\n", ((struct error *)answer.body)->code, ((struct error *)answer.body)->message);
    proto_message_end(&answer);
    return type;
}

static void store_entries(char names[][256], unsigned max, unsigned *ret_count)
{
    char path[256];
    const struct dirent *e;

    snprintf(path, sizeof(path), "%s/images/layers", bed.state);
    auto_dir DIR *d = opendir(path);
    *ret_count = 0;
    while (d && (e = readdir(d)))
        if (e->d_name[0] != '.' && strcmp(e->d_name, bed.layer) != 0 && *ret_count < max)
            snprintf(names[(*ret_count)++], 256, "%s", e->d_name);
}

static void test_unpack(char digest[DIGEST_HEX_SIZE])
{
    char archive[128], answer[65536], names[4][256];
    struct launch_plan plan;
    struct message_exited e;
    unsigned count;

    snprintf(archive, sizeof(archive), "%s/rootfs.tar", bed.dir);
    shell("mkdir -p %s/r/dev %s/r/proc %s/r/sys %s/r/etc && cp %s %s/r/app && tar --owner=0 --group=0 -C %s/r -cf %s .",
          bed.dir, bed.dir, bed.dir, bed.dir, getenv("CORACLE_TEST_APP"), bed.dir, bed.dir, archive);
    for (int twice = 0; twice < 2; twice++) { /* the second time the layer is there already */
        BED_CHECK(unpack(archive, answer, sizeof(answer)) == MESSAGE_DONE && answer[0]);
        store_entries(names, 4, &count);
        BED_CHECK(count == 1 && strlen(names[0]) == 64 && strstr(answer, names[0]));
        BED_CHECK(scratch_entries() == 0);
    }
    memcpy(digest, names[0], DIGEST_HEX_SIZE);
    bed_plan(&bed, &plan, 1, "exit", "9");
    memcpy(plan.root.layers[0], digest, DIGEST_HEX_SIZE);
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_START, &plan), "") == 0);
    BED_CHECK(bed_wait_exited(&bed, plan.id, 5000, &e) && WEXITSTATUS(e.wait_status) == 9);
    BED_CHECK(bed_release(&bed, 1));
    plan_clear(&plan);
}

static void test_rubbish(void)
{
    char archive[128], answer[65536];

    snprintf(archive, sizeof(archive), "%s/rubbish.tar", bed.dir);
    shell("head -c 100000 /dev/urandom > %s", archive);
    BED_CHECK(unpack(archive, answer, sizeof(answer)) == MESSAGE_FAILED);
    BED_CHECK(scratch_entries() == 0);
    shell("mkdir -p %s/big && head -c 100000000 /dev/zero > %s/big/zeros && tar -C %s/big -czf %s .", bed.dir, bed.dir,
          bed.dir, archive); /* 100 MB from 100 kB: beyond the 64 MiB allowed */
    BED_CHECK(unpack(archive, answer, sizeof(answer)) == MESSAGE_FAILED);
    BED_CHECK(scratch_entries() == 0);
}

/* A layer no unpacking would make: deep, with links out, folders without permission, ids spread over the range. */
static void make_wild_layer(const char *digest)
{
    char path[256], name[32];
    int dir;

    snprintf(path, sizeof(path), "%s/images/layers/%s", bed.state, digest);
    BED_CHECK(mkdir(path, 0755) == 0);
    shell("echo precious > %s/precious && ln -s %s %s/out && ln -s ../../../.. %s/up && mkdir -m 0 %s/locked && touch "
          "%s/locked/file && mkfifo %s/pipe",
          bed.dir, bed.dir, path, path, path, path, path);
    dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < DEEP; i++) {
        snprintf(name, sizeof(name), "deeper-%d", i % 3);
        BED_CHECK(mkdirat(dir, name, 0700) == 0);
        int next = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        BED_CHECK(next >= 0 && mkdirat(dir, "beside", 0700) == 0);
        close(dir);
        dir = next;
    }
    close(dir);
    shell("chown -hR %d:%d %s && chown -h %d:%d %s/locked %s/locked/file", IMAGE_UID, IMAGE_UID, path, IMAGE_UID + 1000,
          IMAGE_UID + 65535, path, path);
}

static void test_remove(const char *unpacked)
{
    struct message_layer_remove m;
    char path[256];
    struct stat st;

    memset(m.digest, 'c', sizeof(m.digest) - 1);
    m.digest[sizeof(m.digest) - 1] = '\0';
    make_wild_layer(m.digest);
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_LAYER_REMOVE, &m), "") == 0);
    snprintf(path, sizeof(path), "%s/images/layers/%s", bed.state, m.digest);
    BED_CHECK(lstat(path, &st) < 0 && errno == ENOENT && scratch_entries() == 0);
    snprintf(path, sizeof(path), "%s/precious", bed.dir);
    BED_CHECK(lstat(path, &st) == 0);
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_LAYER_REMOVE, &m), "") == 0); /* gone is gone */
    memcpy(m.digest, unpacked, DIGEST_HEX_SIZE);
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_LAYER_REMOVE, &m), "") == 0);
    strcpy(m.digest, "../tmp");
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_LAYER_REMOVE, &m), "INVALID_VALUE") == 0);
}

static void test_kill_between(void)
{
    char digest[DIGEST_HEX_SIZE] = "";

    memset(digest, 'd', sizeof(digest) - 1);
    make_wild_layer(digest);
    shell("mv %s/images/layers/%s %s/images/tmp/remove-%s && mkdir %s/images/tmp/unpack-1-1", bed.state, digest,
          bed.state, digest, bed.state);
    bed_kill(&bed, SIGKILL);
    bed_launch(&bed);
    BED_CHECK(scratch_entries() == 0);
}

int main(void)
{
    char digest[DIGEST_HEX_SIZE];
    struct remains left;

    bed_need_root();
    if (!getenv("CORACLE_UNPACK") || access(getenv("CORACLE_UNPACK"), X_OK) < 0) {
        fputs("skipped: coracle-unpack is not built\n", stderr);
        return 77;
    }
    bed_open(&bed, "pool_depth = 2\n");
    bed_launch(&bed);
    bed_link(&bed);
    test_unpack(digest);
    test_rubbish();
    test_remove(digest);
    test_kill_between();
    bed_kill(&bed, SIGTERM);
    BED_CHECK(bed_clean(&bed, 10000, &left));
    bed_close(&bed);
    puts("ok");
    return 0;
}
