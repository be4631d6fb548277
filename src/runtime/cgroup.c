/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroups of containers: finding the hierarchies, directories, moving, freezing, killing, removing.
 *
 * Limits and figures are in cgroup_limits.c. A controller is v1's where a v1 hierarchy has it, else the cgroup2 tree's;
 * the cgroup2 tree is used even when it has no controllers, for cgroup.freeze, cgroup.kill and cpu.stat.
 */
#include "runtime/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "runtime/cgroup_files.h"
#include "runtime/internal.h"

static const char *const v1_names[CGROUP_CONTROLLERS] = {"cpu", "cpuset", "memory", "pids", "blkio", "freezer"};
static const char *const v2_names[CGROUP_CONTROLLERS] = {"cpu", "cpuset", "memory", "pids", "io", NULL};

int cgroup_write(int dirfd, const char *path, const char *text)
{
    auto_fd int fd = openat(dirfd, path, O_WRONLY | O_CLOEXEC);
    size_t size = strlen(text);
    ssize_t n;

    if (fd < 0)
        return -errno;
    n = write(fd, text, size);
    if (n < 0)
        return -errno;
    return n == (ssize_t)size ? 0 : -EIO;
}

int cgroup_read(int dirfd, const char *path, char *buf, size_t size)
{
    auto_fd int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return -errno;
    n = read(fd, buf, size - 1);
    if (n < 0)
        return -errno;
    buf[n] = 0;
    while (n > 0 && buf[n - 1] == '\n')
        buf[--n] = 0;
    return 0;
}

static bool has_word(const char *list, const char *word, char separator)
{
    size_t length = strlen(word);

    for (const char *at = list; (at = strstr(at, word)); at += length)
        if ((at == list || at[-1] == separator) && (at[length] == 0 || at[length] == separator || at[length] == '\n'))
            return true;
    return false;
}

/* ---- finding ---- */

struct hierarchy {
    int mount_fd;
    char root[256]; /* which part of the hierarchy is mounted: "/" but in containers */
};

/* The launcher's own place in a hierarchy: "cgroup" lines of /proc/self/cgroup, relative to what is mounted. */
static int own_path(const char *controller, const char *root, char *ret_path, size_t size)
{
    auto_file FILE *f = fopen("/proc/self/cgroup", "re");
    char line[512];

    while (f && fgets(line, sizeof(line), f)) {
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;

        if (!path)
            continue;
        *path++ = 0;
        path[strcspn(path, "\n")] = 0;
        if (!has_word(names + 1, controller, ','))
            continue;
        if (strcmp(root, "/") && !strncmp(path, root, strlen(root)))
            path += strlen(root);
        return snprintf(ret_path, size, "./%s/tasks", path) < (int)size ? 0 : -ENAMETOOLONG;
    }
    return -ENOENT;
}

static int make_parent(int mount_fd, const char *name)
{
    int fd;

    if (mkdirat(mount_fd, name, 0755) && errno != EEXIST)
        return -errno;
    fd = openat(mount_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* A new cpuset is empty, and nothing can be moved into an empty one. */
static int fill_cpuset(int parent_fd, const char *directory)
{
    static const char *const files[] = {"cpuset.cpus", "cpuset.mems"};
    char path[RUNTIME_TAG_SIZE + 32], text[512];

    for (size_t i = 0; i < 2; i++) {
        int result = cgroup_read(parent_fd, files[i], text, sizeof(text));

        snprintf(path, sizeof(path), "%s/%s", directory, files[i]);
        if (!result)
            result = cgroup_write(parent_fd, path, text);
        if (result)
            return result;
    }
    return 0;
}

static void open_v1(struct cgroups *cgroups, unsigned controller, const struct hierarchy *hierarchy, const char *name)
{
    char path[512];
    int parent, home;

    if (own_path(v1_names[controller], hierarchy->root, path, sizeof(path)))
        return;
    home = openat(hierarchy->mount_fd, path, O_WRONLY | O_CLOEXEC);
    parent = home < 0 ? -1 : make_parent(hierarchy->mount_fd, name);
    if (parent >= 0 && (controller != 1 || !fill_cpuset(hierarchy->mount_fd, name))) {
        cgroups->parent_fd[controller] = parent;
        cgroups->home_fd[controller] = home;
        cgroups->v1 |= 1u << controller;
        return;
    }
    close_fd(parent);
    close_fd(home);
}

/* Enables what can be for NAME's children. Processes in an inner node forbid it (EBUSY): then that controller is not
 * available, and limits that need it are refused. */
static void open_unified(struct cgroups *cgroups, const struct hierarchy *hierarchy, const char *name)
{
    char controllers[256], enabled[256], probe[64], word[16];
    int parent;

    if (cgroup_read(hierarchy->mount_fd, "cgroup.controllers", controllers, sizeof(controllers)))
        return;
    parent = make_parent(hierarchy->mount_fd, name);
    if (parent < 0)
        return;
    for (unsigned i = 0; i < CGROUP_CONTROLLERS; i++)
        if (v2_names[i] && has_word(controllers, v2_names[i], ' ')) {
            snprintf(word, sizeof(word), "+%s", v2_names[i]);
            cgroup_write(hierarchy->mount_fd, "cgroup.subtree_control", word);
            cgroup_write(parent, "cgroup.subtree_control", word);
        }
    if (!cgroup_read(parent, "cgroup.subtree_control", enabled, sizeof(enabled)))
        for (unsigned i = 0; i < CGROUP_CONTROLLERS; i++)
            if (v2_names[i] && has_word(enabled, v2_names[i], ' '))
                cgroups->v2 |= 1u << i;
    cgroups->parent_fd[CGROUP_UNIFIED] = parent;
    cgroups->freeze = !cgroup_read(parent, "cgroup.freeze", probe, sizeof(probe));
    cgroups->kill = !faccessat(parent, "cgroup.kill", W_OK, 0);
}

/* One line of mountinfo: "... ROOT POINT ... - TYPE SOURCE OPTIONS". */
static void look_at_mount(struct cgroups *cgroups, char *line, const char *name)
{
    char *save, *fields[5], *dash = strstr(line, " - "), *type, *options;
    struct hierarchy hierarchy;

    if (!dash)
        return;
    *dash = 0;
    type = strtok_r(dash + 3, " ", &save);
    strtok_r(NULL, " ", &save);
    options = strtok_r(NULL, " \n", &save);
    if (!type || !options || strncmp(type, "cgroup", 6))
        return;
    fields[0] = strtok_r(line, " ", &save);
    for (int i = 1; i < 5; i++)
        fields[i] = strtok_r(NULL, " ", &save);
    if (!fields[4])
        return;
    auto_fd int fd = open(fields[4], O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    hierarchy.mount_fd = fd;
    snprintf(hierarchy.root, sizeof(hierarchy.root), "%s", fields[3]);
    if (fd < 0)
        return;
    if (!strcmp(type, "cgroup2")) {
        if (cgroups->parent_fd[CGROUP_UNIFIED] < 0)
            open_unified(cgroups, &hierarchy, name);
        return;
    }
    for (unsigned i = 0; i < CGROUP_CONTROLLERS; i++)
        if (cgroups->parent_fd[i] < 0 && has_word(options, v1_names[i], ','))
            open_v1(cgroups, i, &hierarchy, name);
}

/* The whole disk that dirfd's file system lies on: limits of a partition are not supported by the kernel. */
static void find_io_device(struct cgroups *cgroups, int dirfd)
{
    char path[96], text[24];
    struct stat st;

    cgroups->io_device[0] = 0;
    if (fstat(dirfd, &st) || !major(st.st_dev))
        return;
    snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/partition", major(st.st_dev), minor(st.st_dev));
    if (access(path, F_OK)) {
        snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major(st.st_dev), minor(st.st_dev));
        if (!access(path, F_OK))
            snprintf(cgroups->io_device, sizeof(cgroups->io_device), "%u:%u", major(st.st_dev), minor(st.st_dev));
        return;
    }
    snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/../dev", major(st.st_dev), minor(st.st_dev));
    if (!cgroup_read(AT_FDCWD, path, text, sizeof(text)))
        memcpy(cgroups->io_device, text, sizeof(text));
}

int cgroups_open(struct cgroups *ret_cgroups, const char *parent, int io_dirfd, struct error **err)
{
    struct cgroups cgroups = {0};
    auto_file FILE *f = fopen("/proc/self/mountinfo", "re");
    char line[2048];

    if (!f)
        return error_set_errno(err, errno, "INTERNAL", "/proc/self/mountinfo: cannot be read");
    if (!*parent || strchr(parent, '/') || parent[0] == '.')
        return error_set(err, EINVAL, "INVALID_VALUE", "cgroup parent \"%s\" is not a single directory name", parent);
    memset(cgroups.parent_fd, -1, sizeof(cgroups.parent_fd));
    memset(cgroups.home_fd, -1, sizeof(cgroups.home_fd));
    while (fgets(line, sizeof(line), f))
        look_at_mount(&cgroups, line, parent);
    cgroups.v2 &= ~cgroups.v1;
    find_io_device(&cgroups, io_dirfd);
    *ret_cgroups = cgroups;
    return 0;
}

void cgroups_close(struct cgroups *cgroups)
{
    for (int i = 0; i < CGROUP_HIERARCHIES; i++)
        close_fd(cgroups->parent_fd[i]);
    for (int i = 0; i < CGROUP_CONTROLLERS; i++)
        close_fd(cgroups->home_fd[i]);
}

uint32_t cgroups_available(const struct cgroups *cgroups)
{
    uint32_t set = (cgroups->v1 | cgroups->v2) & ~(uint32_t)RUNTIME_FREEZER;

    if (!cgroups->io_device[0])
        set &= ~(uint32_t)RUNTIME_IO;
    if (cgroups->freeze || (cgroups->v1 & RUNTIME_FREEZER))
        set |= RUNTIME_FREEZER;
    return set;
}

uint32_t cgroup_default_set(const struct cgroups *cgroups)
{
    uint32_t set = RUNTIME_MEMORY | RUNTIME_PIDS | (cgroups->freeze ? 0 : RUNTIME_FREEZER);

    return set & cgroups->v1;
}

/* ---- directories ---- */

static int make_in(const struct cgroups *cgroups, unsigned hierarchy, const char *tag)
{
    if (mkdirat(cgroups->parent_fd[hierarchy], tag, 0755))
        return -errno;
    return hierarchy == 1 ? fill_cpuset(cgroups->parent_fd[1], tag) : 0;
}

int cgroup_make(const struct cgroups *cgroups, const char *tag, uint32_t controllers, struct error **err)
{
    for (unsigned i = 0; i < CGROUP_HIERARCHIES; i++) {
        int result;

        if (i < CGROUP_CONTROLLERS ? !(controllers & cgroups->v1 & (1u << i)) : cgroups->parent_fd[i] < 0)
            continue;
        result = make_in(cgroups, i, tag);
        if (result) {
            for (unsigned k = 0; k <= i; k++)
                if (k < i || result != -EEXIST)
                    if (k == CGROUP_UNIFIED ? cgroups->parent_fd[k] >= 0 : controllers & cgroups->v1 & (1u << k))
                        unlinkat(cgroups->parent_fd[k], tag, AT_REMOVEDIR);
            error_set_errno(err, -result, "START_FAILED", "cgroup %s cannot be made (%s)", tag,
                            i < CGROUP_CONTROLLERS ? v1_names[i] : "cgroup2");
            if (result == -ENOSPC)
                error_hint(err, "the kernel's limit of cgroups is reached: remove instances");
            return result;
        }
    }
    return 0;
}

int cgroup_open_unified(const struct cgroups *cgroups, const char *tag)
{
    if (cgroups->parent_fd[CGROUP_UNIFIED] < 0)
        return -1;
    return openat(cgroups->parent_fd[CGROUP_UNIFIED], tag, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int cgroup_open_tasks(const struct cgroups *cgroups, const char *tag, unsigned controller)
{
    char path[RUNTIME_TAG_SIZE + 8];

    snprintf(path, sizeof(path), "%s/tasks", tag);
    return openat(cgroups->parent_fd[controller], path, O_WRONLY | O_CLOEXEC);
}

void cgroup_leave(const struct cgroups *cgroups, uint32_t controllers)
{
    for (unsigned i = 0; i < CGROUP_CONTROLLERS; i++)
        if ((controllers & cgroups->v1 & (1u << i)) && write(cgroups->home_fd[i], "0", 1) != 1)
            abort(); /* a launcher thread accounted to a container could be killed or stopped with it */
}

int cgroup_enter(const struct cgroups *cgroups, const char *tag, uint32_t controllers, struct error **err)
{
    uint32_t entered = 0;

    for (unsigned i = 0; i < CGROUP_CONTROLLERS; i++) {
        if (!(controllers & cgroups->v1 & (1u << i)))
            continue;
        auto_fd int fd = cgroup_open_tasks(cgroups, tag, i);

        if (fd < 0 || write(fd, "0", 1) != 1) {
            int saved = errno;

            cgroup_leave(cgroups, entered);
            return error_set_errno(err, saved, "START_FAILED", "cgroup %s of %s cannot be entered", tag, v1_names[i]);
        }
        entered |= 1u << i;
    }
    return 0;
}

uint32_t cgroup_present(const struct cgroups *cgroups, const char *tag)
{
    uint32_t set = 0;

    for (unsigned i = 0; i < CGROUP_CONTROLLERS; i++)
        if ((cgroups->v1 & (1u << i)) && !faccessat(cgroups->parent_fd[i], tag, F_OK, 0))
            set |= 1u << i;
    return set;
}

/* Processes that fork while being moved take their children along only from the moment they were moved themselves, so
 * rounds go on until nobody new is found. */
int cgroup_move_all(const struct cgroups *cgroups, const char *tag, unsigned controller, struct error **err)
{
    static const unsigned sources[] = {CGROUP_UNIFIED, 3, 2};
    char from[RUNTIME_TAG_SIZE + 16], to[RUNTIME_TAG_SIZE + 16], pid[16];
    unsigned moved = 1;

    snprintf(from, sizeof(from), "%s/cgroup.procs", tag);
    snprintf(to, sizeof(to), "%s/cgroup.procs", tag);
    for (int round = 0; round < 10 && moved; round++) {
        auto_file FILE *f = NULL;

        moved = 0;
        for (size_t i = 0; i < 3 && !f; i++)
            if (cgroups->parent_fd[sources[i]] >= 0) {
                int fd = openat(cgroups->parent_fd[sources[i]], from, O_RDONLY | O_CLOEXEC);

                f = fd >= 0 ? fdopen(fd, "r") : NULL;
            }
        if (!f)
            return error_set(err, ENOENT, "INTERNAL", "cgroup %s: its processes cannot be listed", tag);
        while (fgets(pid, sizeof(pid), f)) {
            char mine[64], path[32];
            int result;

            pid[strcspn(pid, "\n")] = 0;
            snprintf(path, sizeof(path), "/proc/%s/cgroup", pid);
            snprintf(mine, sizeof(mine), "%s", v1_names[controller]);
            if (cgroup_is_member(path, mine, tag))
                continue;
            result = cgroup_write(cgroups->parent_fd[controller], to, pid);
            if (result && result != -ESRCH)
                return error_set_errno(err, -result, "INTERNAL", "process %s cannot be moved to cgroup %s", pid, tag);
            moved++;
        }
    }
    return 0;
}

int cgroup_join_missing(const struct cgroups *cgroups, const char *tag, const struct limits *limits, struct error **err)
{
    uint32_t missing = cgroup_needed(limits) & cgroups->v1 & ~cgroup_present(cgroups, tag);
    struct cgroups only = *cgroups; /* the directory in the cgroup2 tree is there already */
    int result = 0;

    only.parent_fd[CGROUP_UNIFIED] = -1;
    for (unsigned i = 0; i < CGROUP_CONTROLLERS && !result; i++)
        if (missing & (1u << i)) {
            result = cgroup_make(&only, tag, 1u << i, err);
            if (!result)
                result = cgroup_move_all(cgroups, tag, i, err);
        }
    return result;
}

/* Whether a /proc/PID/cgroup file names .../TAG for that controller. */
bool cgroup_is_member(const char *path, const char *controller, const char *tag)
{
    auto_file FILE *f = fopen(path, "re");
    char line[512];

    while (f && fgets(line, sizeof(line), f)) {
        char *names = strchr(line, ':'), *place = names ? strchr(names + 1, ':') : NULL, *last;

        if (!place)
            continue;
        *place++ = 0;
        place[strcspn(place, "\n")] = 0;
        last = strrchr(place, '/');
        if (has_word(names + 1, controller, ',') && last && !strcmp(last + 1, tag))
            return true;
    }
    return false;
}

/* ---- freezing and killing ---- */

static void pause_us(unsigned us)
{
    struct timespec time = {0, (long)us * 1000};

    nanosleep(&time, NULL);
}

bool cgroup_frozen(const struct cgroups *cgroups, const char *tag)
{
    char path[RUNTIME_TAG_SIZE + 32], text[128];

    if (cgroups->freeze) {
        snprintf(path, sizeof(path), "%s/cgroup.events", tag);
        return !cgroup_read(cgroups->parent_fd[CGROUP_UNIFIED], path, text, sizeof(text)) && strstr(text, "frozen 1");
    }
    if (!(cgroups->v1 & RUNTIME_FREEZER))
        return false;
    snprintf(path, sizeof(path), "%s/freezer.state", tag);
    return !cgroup_read(cgroups->parent_fd[5], path, text, sizeof(text)) && !strcmp(text, "FROZEN");
}

static bool look_frozen(const struct cgroups *cgroups, const char *tag, bool frozen, unsigned for_us)
{
    for (unsigned waited = 0; cgroup_frozen(cgroups, tag) != frozen; waited += 200) {
        if (waited > for_us)
            return false;
        pause_us(200);
    }
    return true;
}

static bool await_frozen(const struct cgroups *cgroups, const char *tag, bool frozen)
{
    bool done = look_frozen(cgroups, tag, frozen, 5000);

    if (!done) {
        wait_long(true);
        done = look_frozen(cgroups, tag, frozen, 2000000);
        wait_long(false);
    }
    return done;
}

int cgroup_freeze(const struct cgroups *cgroups, const char *tag, bool frozen, struct error **err)
{
    char path[RUNTIME_TAG_SIZE + 32];
    int result;

    if (cgroups->freeze) {
        snprintf(path, sizeof(path), "%s/cgroup.freeze", tag);
        result = cgroup_write(cgroups->parent_fd[CGROUP_UNIFIED], path, frozen ? "1" : "0");
    } else if (cgroups->v1 & RUNTIME_FREEZER) {
        snprintf(path, sizeof(path), "%s/freezer.state", tag);
        result = cgroup_write(cgroups->parent_fd[5], path, frozen ? "FROZEN" : "THAWED");
    } else {
        error_set(err, EOPNOTSUPP, "UNSUPPORTED_BY_TECHNOLOGY", "this host has no cgroup freezer");
        error_hint(err, "mount cgroup2, or the v1 freezer");
        return -EOPNOTSUPP;
    }
    if (result)
        return error_set_errno(err, -result, "INTERNAL", "cgroup %s cannot be %s", tag, frozen ? "frozen" : "thawed");
    if (!await_frozen(cgroups, tag, frozen)) {
        cgroup_write(cgroups->parent_fd[cgroups->freeze ? CGROUP_UNIFIED : 5], path, cgroups->freeze ? "0" : "THAWED");
        return error_set(err, ETIMEDOUT, "TIMEOUT", "cgroup %s did not freeze within 2 s", tag);
    }
    return 0;
}

static int kill_listed(int parent_fd, const char *tag)
{
    char path[RUNTIME_TAG_SIZE + 16], line[16];
    auto_file FILE *f = NULL;
    int fd, seen = 0;

    snprintf(path, sizeof(path), "%s/cgroup.procs", tag);
    fd = openat(parent_fd, path, O_RDONLY | O_CLOEXEC);
    f = fd < 0 ? NULL : fdopen(fd, "r");
    while (f && fgets(line, sizeof(line), f)) {
        pid_t pid = (pid_t)atoi(line);

        if (pid > 0 && pid != getpid()) {
            kill(pid, SIGKILL);
            seen++;
        }
    }
    return seen;
}

int cgroup_kill(const struct cgroups *cgroups, const char *tag)
{
    char path[RUNTIME_TAG_SIZE + 32];
    int seen = 0;

    if (cgroups->kill) {
        snprintf(path, sizeof(path), "%s/cgroup.kill", tag);
        cgroup_write(cgroups->parent_fd[CGROUP_UNIFIED], path, "1");
    }
    for (unsigned i = 0; i < CGROUP_HIERARCHIES; i++)
        if (cgroups->parent_fd[i] >= 0)
            seen += kill_listed(cgroups->parent_fd[i], tag);
    if (!cgroups->freeze && (cgroups->v1 & RUNTIME_FREEZER)) { /* the v1 freezer holds even the killed */
        snprintf(path, sizeof(path), "%s/freezer.state", tag);
        cgroup_write(cgroups->parent_fd[5], path, "THAWED");
    }
    return seen;
}

int cgroup_remove(const struct cgroups *cgroups, const char *tag, int timeout_ms, struct error **err)
{
    int result = 0;

    for (unsigned i = 0; i < CGROUP_HIERARCHIES; i++) {
        unsigned step = 50, waited = 0;

        if (cgroups->parent_fd[i] < 0)
            continue;
        while (unlinkat(cgroups->parent_fd[i], tag, AT_REMOVEDIR) && errno != ENOENT) {
            if (errno != EBUSY || waited >= (unsigned)timeout_ms * 1000) {
                result = error_set_errno(err, errno, "INTERNAL", "cgroup %s was left behind", tag);
                break;
            }
            pause_us(step);
            waited += step;
            step = step < 5000 ? step * 2 : step;
        }
    }
    return result;
}

int cgroup_each(const struct cgroups *cgroups, void (*each)(void *context, const char *tag), void *context,
                struct error **err)
{
    for (unsigned i = 0; i < CGROUP_HIERARCHIES; i++) {
        struct dirent *entry;
        int fd =
            cgroups->parent_fd[i] < 0 ? -1 : openat(cgroups->parent_fd[i], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        auto_dir DIR *dir = fd < 0 ? NULL : fdopendir(fd);

        if (cgroups->parent_fd[i] >= 0 && !dir)
            return error_set_errno(err, errno, "INTERNAL", "the cgroups cannot be listed");
        while (dir && (entry = readdir(dir)))
            if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
                each(context, entry->d_name);
    }
    return 0;
}
