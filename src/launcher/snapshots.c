/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of snapshots that users keep (snapshots.h). A file gets its name when everything is in it and on the disk: a
 * launcher that dies in between leaves "UUID.part", which the next one removes. A snapshot is refused while it could
 * fill the disk that the images, the logs and the daemon's database share: what is being written counts as written.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "launcher/files.h"
#include "launcher/snapshots.h"
#include "monitor/monitor_client.h"

enum { SNAPSHOT_TIMEOUT_MS = 120000, STATUS_TIMEOUT_MS = 5000, PART_NAME_SIZE = INSTANCE_ID_SIZE + 8 };

#define DISK_RESERVE (UINT64_C(64) << 20) /* left to everybody else, or a twentieth of a small disk */

static _Atomic uint64_t promised; /* bytes of the snapshots being written */

static int failed(struct error **err, int e, const char *what)
{
    error_set_errno(err, e, e == ENOSPC || e == EDQUOT ? "NO_SPACE" : "SNAPSHOT_FAILED", "snapshot: %s", what);
    if (e == ENOSPC || e == EDQUOT)
        error_hint(err, "a snapshot needs as much space below the state directory as the guest has touched memory");
    return -e;
}

static void sweep(struct launcher *l)
{
    auto_dir DIR *d = fdopendir(fcntl(l->snapshots_fd, F_DUPFD_CLOEXEC, 0));
    const struct dirent *e;

    if (!d)
        return;
    rewinddir(d);
    while ((e = readdir(d)))
        if (strstr(e->d_name, ".part"))
            unlinkat(l->snapshots_fd, e->d_name, 0);
}

int snapshots_open(struct launcher *l, int state_fd, struct error **err)
{
    int r = directory_open(state_fd, "snapshots", 0750, &l->snapshots_fd, err);

    if (r < 0)
        return r;
    if (fchown(l->snapshots_fd, 0, l->options.gid) < 0) /* the daemon looks for files nobody names */
        return error_set_errno(err, errno, "START_FAILED", "setting the owner of snapshots");
    sweep(l);
    return 0;
}

static uint64_t reserve_of(uint64_t disk_bytes)
{
    return disk_bytes / 20 < DISK_RESERVE ? disk_bytes / 20 : DISK_RESERVE;
}

/* Until it is given back, bytes are taken from what others may still write. */
static int promise(struct launcher *l, uint64_t bytes, struct error **err)
{
    uint64_t sum = atomic_fetch_add(&promised, bytes) + bytes, left;
    struct statvfs disk;

    if (fstatvfs(l->snapshots_fd, &disk) == 0) {
        left = (uint64_t)disk.f_bavail * disk.f_frsize;
        if (sum >= bytes && sum <= left && left - sum >= reserve_of((uint64_t)disk.f_blocks * disk.f_frsize))
            return 0;
        errno = ENOSPC;
    }
    int r = failed(err, errno, "no room below the state directory for all of the guest's memory");
    atomic_fetch_sub(&promised, bytes);
    return r;
}

static int write_file(struct launcher *l, int connection, int file, struct error **err)
{
    struct monitor_status status;
    int r = monitor_get_status(connection, STATUS_TIMEOUT_MS, &status, err);

    if (r == 0)
        r = promise(l, status.memory_bytes, err);
    if (r < 0)
        return r;
    r = monitor_snapshot(connection, file, SNAPSHOT_TIMEOUT_MS, err);
    atomic_fetch_sub(&promised, status.memory_bytes);
    return r;
}

/* As long as a guest has memory, or a monitor no answer: another worker does this one's work. */
static int ask_monitor(struct launcher *l, struct instance *i, int file, struct error **err)
{
    auto_fd int dir = -1, connection = -1;
    int r = instance_directory(l, i->id, &dir, err);

    if (r == 0)
        r = monitor_connect(dir, "init.sock", &connection, err);
    if (r == 0)
        r = instance_asks(i, connection, err);
    if (r < 0)
        return r;
    r = write_file(l, connection, file, err);
    return instance_asked(i, r, err);
}

/* It has its name when all of it is on the disk; a name is given once. */
static int keep(struct launcher *l, int file, const char *part, const char *name, struct error **err)
{
    if (fsync(file) < 0 || fchown(file, 0, l->options.gid) < 0 || fchmod(file, 0440) < 0 ||
        renameat2(l->snapshots_fd, part, l->snapshots_fd, name, RENAME_NOREPLACE) < 0)
        return failed(err, errno, "keeping its file");
    return 0;
}

static int check(struct launcher *l, const struct instance *i, const char *name, struct error **err)
{
    if (!i->record.machine)
        return error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "a container has no snapshot");
    if (i->paused) { /* the freezer holds its monitor too: nobody would answer */
        error_set(err, EBUSY, "CONFLICTING_STATE", "%s is paused: its monitor cannot write a snapshot", i->name);
        error_hint(err, "resume it first; a snapshot stops the guest by itself");
        return -EBUSY;
    }
    if (faccessat(l->snapshots_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return error_set(err, EEXIST, "NAME_TAKEN", "there is a snapshot %s already", name);
    return 0;
}

int snapshot_write(struct launcher *l, struct instance *i, const char *name, struct error **err)
{
    char part[PART_NAME_SIZE];
    int r = check(l, i, name, err);

    if (r < 0)
        return r;
    snprintf(part, sizeof(part), "%s.part", name);
    auto_fd int file = openat(l->snapshots_fd, part, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (file < 0)
        return failed(err, errno, "making its file");
    r = ask_monitor(l, i, file, err);
    if (r == 0)
        r = keep(l, file, part, name, err);
    if (r < 0)
        unlinkat(l->snapshots_fd, part, 0);
    return r;
}

int snapshot_read(struct launcher *l, const char *name, int *ret_fd, struct error **err)
{
    int fd = openat(l->snapshots_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0)
        return error_set_errno(err, errno, "SNAPSHOT_NOT_FOUND", "the file of snapshot %s", name);
    *ret_fd = fd;
    return 0;
}

int snapshot_remove(struct launcher *l, const char *name, struct error **err)
{
    if (!instance_id_valid(name))
        return error_set(err, EINVAL, "INVALID_VALUE", "a snapshot's file is not named by a UUID");
    if (unlinkat(l->snapshots_fd, name, 0) < 0 && errno != ENOENT)
        return failed(err, errno, "removing its file");
    return 0;
}
