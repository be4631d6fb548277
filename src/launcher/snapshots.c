/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of snapshots that users keep (snapshots.h). A file gets its name when everything is in it and on the disk: a
 * launcher that dies in between leaves "UUID.part", which the next one removes; a full disk fails the snapshot only.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "launcher/files.h"
#include "launcher/snapshots.h"
#include "monitor/monitor_client.h"

enum { SNAPSHOT_TIMEOUT_MS = 120000, PART_NAME_SIZE = INSTANCE_ID_SIZE + 8 };

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

static int ask_monitor(struct launcher *l, const struct instance *i, int file, struct error **err)
{
    auto_fd int dir = -1, connection = -1;
    int r = instance_directory(l, i->id, &dir, err);

    if (r == 0)
        r = monitor_connect(dir, "init.sock", &connection, err);
    return r < 0 ? r : monitor_snapshot(connection, file, SNAPSHOT_TIMEOUT_MS, err);
}

int snapshot_write(struct launcher *l, const struct instance *i, const char *name, struct error **err)
{
    char part[PART_NAME_SIZE];
    int r;

    if (!i->record.machine) {
        error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "a container has no snapshot");
        return -ENOTSUP;
    }
    snprintf(part, sizeof(part), "%s.part", name);
    auto_fd int file = openat(l->snapshots_fd, part, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (file < 0)
        return failed(err, errno, "making its file");
    r = ask_monitor(l, i, file, err);
    if (r == 0 && (fsync(file) < 0 || fchown(file, 0, l->options.gid) < 0 || fchmod(file, 0440) < 0 ||
                   renameat(l->snapshots_fd, part, l->snapshots_fd, name) < 0))
        r = failed(err, errno, "keeping its file");
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
