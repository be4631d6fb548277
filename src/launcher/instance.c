/* SPDX-License-Identifier: Apache-2.0 */
/* The registry of instances and what they hold on the host. Callers hold the launcher's lock where the header says so.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "launcher/files.h"
#include "launcher/instance.h"
#include "launcher/uplink.h"

enum {
    LISTEN_BACKLOG = 16,
    EXIT_FILE_BYTES = 4096, /* reserved beforehand: the exit status must not be lost to a full /run */
};

bool instance_id_valid(const char *text)
{
    for (size_t i = 0; i < INSTANCE_ID_SIZE - 1; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? text[i] != '-' : !text[i] || !strchr("0123456789abcdef", text[i]))
            return false;
    }
    return text[INSTANCE_ID_SIZE - 1] == '\0';
}

static struct instance **bucket(struct launcher *l, const char *id)
{
    uint32_t h = 2166136261u; /* FNV-1a, 32 bits */

    for (; *id; id++)
        h = (h ^ (unsigned char)*id) * 16777619u;
    return &l->registry[h % REGISTRY_BUCKETS];
}

struct instance *instance_find(struct launcher *l, const char *id)
{
    struct instance *i = *bucket(l, id);

    while (i && strcmp(i->id, id) != 0)
        i = i->next;
    return i;
}

struct instance *instance_find_serial(struct launcher *l, uint64_t serial)
{
    for (size_t b = 0; b < REGISTRY_BUCKETS; b++)
        for (struct instance *i = l->registry[b]; i; i = i->next)
            if (i->serial == serial)
                return i;
    return NULL;
}

struct instance *instance_find_or_add(struct launcher *l, const char *id)
{
    struct instance *i = instance_find(l, id), **place = bucket(l, id);

    if (i)
        return i;
    i = calloc(1, sizeof(*i));
    if (!i)
        return NULL;
    memcpy(i->id, id, sizeof(i->id));
    i->serial = ++l->next_serial;
    i->next = *place;
    *place = i;
    return i;
}

void instance_forget(struct launcher *l, struct instance *i)
{
    struct instance **place = bucket(l, i->id);

    while (*place != i)
        place = &(*place)->next;
    *place = i->next;
    free(i);
}

void instance_each(struct launcher *l, bool (*each)(void *context, struct instance *i), void *context)
{
    for (size_t b = 0; b < REGISTRY_BUCKETS; b++)
        for (struct instance *i = l->registry[b]; i; i = i->next)
            if (!each(context, i))
                return;
}

int instance_directory(struct launcher *l, const char *id, int *ret_fd, struct error **err)
{
    return directory_open(l->instances_fd, id, 0700, ret_fd, err);
}

/* The socket lies in a folder of arbitrary depth: bound by way of the folder's descriptor, sun_path is short. */
static int listen_in(int dirfd, int *ret_fd, struct error **err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    auto_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/init.sock", dirfd);
    if (fd >= 0 && (unlinkat(dirfd, "init.sock", 0) == 0 || errno == ENOENT) &&
        bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, LISTEN_BACKLOG) == 0) {
        *ret_fd = take_fd(&fd);
        return 0;
    }
    int e = errno;
    return error_set_errno(err, e, e == ENOSPC || e == EDQUOT ? "NO_SPACE" : "START_FAILED", "making init.sock");
}

int instance_files_open(int dirfd, int *ret_exit_fd, int *ret_listen_fd, struct error **err)
{
    auto_fd int fd = openat(dirfd, "exit", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    int r;

    if (fd < 0 || fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, EXIT_FILE_BYTES) < 0) {
        int e = errno;
        return error_set_errno(err, e, e == ENOSPC || e == EDQUOT ? "NO_SPACE" : "START_FAILED",
                               "making the exit file");
    }
    r = listen_in(dirfd, ret_listen_fd, err);
    if (r == 0)
        *ret_exit_fd = take_fd(&fd);
    return r;
}

static void remove_named(int parent, const char *id, const char *const *files, size_t count)
{
    auto_fd int dir = openat(parent, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

    if (dir < 0)
        return;
    for (size_t i = 0; i < count; i++)
        if (unlinkat(dir, files[i], 0) < 0 && errno == EISDIR)
            unlinkat(dir, files[i], AT_REMOVEDIR);
    if (unlinkat(parent, id, AT_REMOVEDIR) < 0 && errno != ENOENT)
        log_line(LOG_LEVEL_WARNING, id, "its directory cannot be removed: %s", strerror(errno));
}

static const char *const logs[] = {"log.0", "log.1"};

int logs_open(struct launcher *l, const char *name, int ret_fds[2], struct error **err)
{
    auto_fd int dir = -1, first = -1, second = -1;
    const int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW;
    int r;

    r = directory_open(l->logs_fd, name, 0700, &dir, err);
    if (r < 0)
        return r;
    first = openat(dir, logs[0], flags, 0600);
    second = openat(dir, logs[1], flags, 0600);
    if (first < 0 || second < 0) {
        int e = errno;
        return error_set_errno(err, e, e == ENOSPC || e == EDQUOT ? "NO_SPACE" : "START_FAILED", "opening log files");
    }
    ret_fds[0] = take_fd(&first);
    ret_fds[1] = take_fd(&second);
    return 0;
}

void logs_remove(struct launcher *l, const char *name)
{
    remove_named(l->logs_fd, name, logs, sizeof(logs) / sizeof(logs[0]));
}

void instance_remove_folder(struct launcher *l, const char *name)
{
    static const char *const files[] = {"init.sock", "exit", "lower", "writable", "root", "record.tmp", "record"};

    remove_named(l->instances_fd, name, files, sizeof(files) / sizeof(files[0]));
}

void instance_remove_files(struct launcher *l, const char *id)
{
    logs_remove(l, id);
    instance_remove_folder(l, id);
}

void instance_release_host(struct launcher *l, struct instance *i, bool keep_uid)
{
    if (i->published_count)
        uplink_unpublish(l->uplink, i->id);
    i->published_count = 0;
    if (i->has_number) {
        fabric_unclaim(l->fabric, &i->ports);
        fabric_unwire(l->fabric, &i->ports);
        slots_free(&l->numbers, i->ports.number);
        i->has_number = false;
        memset(&i->ports, 0, sizeof(i->ports));
    }
    if (i->has_uid && !keep_uid) {
        slots_free(&l->uids, i->uid_slot);
        i->has_uid = false;
    }
}
