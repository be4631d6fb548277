/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MONITOR_SNAPSHOT, and the state's way back in. The guest stands still while its memory is copied: that is the copy's
 * time, for memory once touched. Memory that this machine maps privately from another snapshot is not in a file of its
 * own: then it goes into QEMU's state, and the snapshot is restored by reading instead of mapping.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "qemu/supervisor.h"

enum { STEP_MS = 2, MIGRATE_MS = 120000 };

int save_capabilities(struct supervisor *s, bool memory_apart, struct error **err)
{
    json_t *list =
        json_pack("{s:[{s:s, s:b}]}", "capabilities", "capability", "x-ignore-shared", "state", memory_apart);

    return qmp_call(&s->qmp, "migrate-set-capabilities", list, -1, QMP_TIMEOUT_MS, NULL, err);
}

/* The word of a query's status, compared by done until it says 1 or -errno. */
static int wait_status(struct supervisor *s, const char *query, int timeout_ms, int (*done)(const json_t *),
                       struct error **err)
{
    uint64_t end = now_ns() + (uint64_t)timeout_ms * 1000000u;

    for (;;) {
        json_t *answer = NULL;
        int r = qmp_call(&s->qmp, query, NULL, -1, timeout_ms, &answer, err);
        if (r < 0)
            return r;
        r = done(answer);
        if (r < 0) {
            const char *why = json_string_value(json_object_get(answer, "error-desc"));
            error_set(err, -r, "SNAPSHOT_UNUSABLE", "snapshot: %s", why ? why : "QEMU could not take the state");
        }
        json_decref(answer);
        if (r)
            return r < 0 ? r : 0;
        if (now_ns() > end)
            return error_set(err, ETIMEDOUT, "TIMEOUT", "snapshot: it takes too long");
        supervisor_turn(s, STEP_MS, false);
    }
}

static int has_migrated(const json_t *answer)
{
    const char *status = json_string_value(json_object_get(answer, "status"));

    if (!status)
        return 0;
    return strcmp(status, "completed") == 0                                    ? 1
           : strcmp(status, "failed") == 0 || strcmp(status, "cancelled") == 0 ? -EIO
                                                                               : 0;
}

static int has_arrived(const json_t *answer)
{
    const char *status = json_string_value(json_object_get(answer, "status"));

    return status && strcmp(status, "inmigrate") != 0 ? 1 : 0;
}

int save_wait_restored(struct supervisor *s, int timeout_ms, struct error **err)
{
    return wait_status(s, "query-status", timeout_ms, has_arrived, err);
}

static int call(struct supervisor *s, const char *command, json_t *arguments, int fd, struct error **err)
{
    return qmp_call(&s->qmp, command, arguments, fd, QMP_TIMEOUT_MS, NULL, err);
}

int save_state(struct supervisor *s, int to, struct error **err)
{
    int r = save_capabilities(s, s->ram >= 0, err);

    if (r == 0)
        r = call(s, "migrate-set-parameters", json_pack("{s:I}", "max-bandwidth", (json_int_t)1 << 40), -1, err);
    if (r == 0)
        r = call(s, "getfd", json_pack("{s:s}", "fdname", "state"), to, err);
    if (r == 0)
        r = call(s, "migrate", json_pack("{s:s}", "uri", "fd:state"), -1, err);
    return r < 0 ? r : wait_status(s, "query-migrate", MIGRATE_MS, has_migrated, err);
}

static int write_state(struct supervisor *s, int file, struct snapshot *snapshot, struct error **err)
{
    off_t begin = (off_t)snapshot->ram.size;

    if (lseek(file, begin, SEEK_SET) < 0)
        return error_set_errno(err, errno, "SNAPSHOT_UNUSABLE", "the file of the snapshot");
    int r = save_state(s, file, err);
    if (r < 0)
        return r;
    off_t end = lseek(file, 0, SEEK_CUR); /* QEMU wrote through the same open file */
    if (end <= begin)
        return error_set(err, EIO, "SNAPSHOT_UNUSABLE", "QEMU wrote no state");
    snapshot->state = (struct snapshot_part){.offset = (uint64_t)begin, .size = (uint64_t)(end - begin)};
    return 0;
}

/* What the machine wrote, and what its own snapshot had brought, cannot both be one part: refused by the caller. */
static int write_overlays(struct supervisor *s, int file, struct snapshot *snapshot, struct error **err)
{
    uint64_t at = snapshot->state.offset + snapshot->state.size;
    int r = 0;

    for (unsigned i = 0; i < s->machine.disk_count && r == 0; i++) {
        if (s->overlays[i] < 0)
            continue;
        r = snapshot_append(file, s->overlays[i], at, &snapshot->overlays[i], err);
        at = snapshot->overlays[i].offset + snapshot->overlays[i].size;
    }
    return r;
}

static int save(struct supervisor *s, int file, struct error **err)
{
    struct snapshot snapshot;
    int r = 0;

    snapshot_describe(&s->machine, s->qmp.version, &snapshot);
    snapshot.generation = s->generation;
    if (s->ram >= 0) {
        snapshot.ram.size = s->machine.memory_bytes;
        r = snapshot_write_ram(file, s->ram, s->machine.memory_bytes, err);
    }
    if (r == 0)
        r = write_state(s, file, &snapshot, err);
    if (r == 0)
        r = write_overlays(s, file, &snapshot, err);
    return r < 0 ? r : snapshot_finish(file, &snapshot, err);
}

static int refuse(struct supervisor *s, struct error **err)
{
    int r = resize_refuse(s, "a snapshot", err);

    if (r < 0)
        return r;
    for (unsigned i = 0; i < s->machine.disk_count; i++) {
        const struct machine_disk *d = &s->machine.disks[i];
        if (!d->disk.read_only && !d->disk.overlay) {
            error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY",
                      "disk %u is written in place: a snapshot would not hold what is on it", i);
            error_hint(err, "run the instance with private writes");
            return -ENOTSUP;
        }
        if (d->snapshot_size)
            return error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY",
                             "disk %u: the instance comes from a snapshot in which the disk had been written", i);
    }
    return 0;
}

int save_snapshot(struct supervisor *s, int file, struct error **err)
{
    const bool was_paused = s->paused;
    int r = refuse(s, err);

    if (r == 0 && !was_paused)
        r = call(s, "stop", NULL, -1, err);
    if (r < 0)
        return r;
    r = save(s, file, err);
    if (!was_paused && call(s, "cont", NULL, -1, r < 0 ? NULL : err) < 0 && r == 0)
        r = -EIO;
    if (r < 0 && ftruncate(file, 0) < 0) {
        /* what is there is no snapshot: it has no last page */
    }
    return r;
}
