/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RUN/instances. Everything there is gone after a reboot by design, and every start writes there: on a disk each of
 * those writes waits for the journal while the daemon commits next to it (0.5 to 1 ms). Most hosts have /run in memory;
 * on one that has not, the launcher mounts a memory file system, which the next launcher finds. Main thread, start and
 * end.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/vfs.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "launcher/files.h"
#include "launcher/run_files.h"

#define INSTANCES_SIZE "size=256m,mode=0700" /* a bound: two pages an instance, 16,384 instances */

static void instances_path(const struct launcher *l, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/instances", l->options.run_dir);
}

static bool in_memory(int fd)
{
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

int instances_open(struct launcher *l, struct error **err)
{
    char path[PATH_MAX];
    int r = directory_open(l->run_fd, "instances", 0700, &l->instances_fd, err);

    if (r < 0 || in_memory(l->instances_fd))
        return r;
    instances_path(l, path);
    if (mount("coracle-instances", path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, INSTANCES_SIZE) < 0) {
        log_line(LOG_LEVEL_WARNING, NULL, "%s is on a disk and no memory file system can be mounted there: %s", path,
                 strerror(errno));
        return 0; /* slower, not wrong */
    }
    l->instances_fd = close_fd(l->instances_fd);
    return directory_open(l->run_fd, "instances", 0700, &l->instances_fd, err);
}

static bool is_empty(int fd)
{
    auto_dir DIR *d = fdopendir(fd);
    struct dirent *e;

    if (!d)
        close_fd(fd);
    while (d && (e = readdir(d)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            return false;
    return d != NULL;
}

void instances_close(struct launcher *l)
{
    char path[PATH_MAX];

    if (l->instances_fd < 0 || !is_empty(openat(l->instances_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)))
        return;
    l->instances_fd = close_fd(l->instances_fd);
    instances_path(l, path);
    umount2(path, UMOUNT_NOFOLLOW); /* EINVAL where RUN itself is in memory */
}
