/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits and figures of a container's cgroups, for v1 and v2.
 *
 * Every limit becomes one or two writes of a list; the list is checked for controllers this host lacks before anything
 * is written, and a write that fails puts back what was there, so a limit is in force or refused, never half of both.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "runtime/cgroup.h"
#include "runtime/cgroup_files.h"

enum { CPU, CPUSET, MEMORY, PIDS, IO, WRITES_MAX = 16, CPU_PERIOD_US = 100000, CPU_QUOTA_MIN_US = 1000 };

static const char *const limit_names[] = {"cpus", "cpuset", "memory", "pids", "io"};

struct limit_write {
    unsigned controller;
    const char *file;
    char value[CPUSET_TEXT_SIZE + 32];
    bool optional; /* the file need not exist on every kernel */
};

struct write_list {
    struct limit_write list[WRITES_MAX];
    unsigned count;
};

static void add(struct write_list *writes, unsigned controller, bool optional, const char *file, const char *format,
                ...) __attribute__((format(printf, 5, 6)));

static void add(struct write_list *writes, unsigned controller, bool optional, const char *file, const char *format,
                ...)
{
    struct limit_write *write = &writes->list[writes->count++];
    va_list arguments;

    write->controller = controller;
    write->optional = optional;
    write->file = file;
    va_start(arguments, format);
    vsnprintf(write->value, sizeof(write->value), format, arguments);
    va_end(arguments);
}

uint32_t cgroup_needed(const struct limits *limits)
{
    return (limits->cpu_milli ? RUNTIME_CPU : 0) | (limits->cpuset[0] ? RUNTIME_CPUSET : 0) |
           (limits->memory_bytes ? RUNTIME_MEMORY : 0) | (limits->pids ? RUNTIME_PIDS : 0) |
           (limits->io_read_bps || limits->io_write_bps || limits->io_read_iops || limits->io_write_iops ? RUNTIME_IO
                                                                                                         : 0);
}

int cgroup_check(const struct cgroups *cgroups, const struct limits *limits, struct error **err)
{
    uint32_t missing = cgroup_needed(limits) & ~cgroups_available(cgroups);

    for (unsigned i = 0; i <= IO; i++)
        if (missing & (1u << i)) {
            if (i == IO && ((cgroups->v1 | cgroups->v2) & RUNTIME_IO)) {
                error_set(err, EOPNOTSUPP, "LIMIT_NOT_ENFORCEABLE",
                          "io: the image store does not lie on a block device that can be limited");
                error_hint(err, "put the state directory on a disk's own file system, or leave the io limits out");
            } else {
                error_set(err, EOPNOTSUPP, "LIMIT_NOT_ENFORCEABLE", "%s: this host has no cgroup controller for it",
                          limit_names[i]);
                error_hint(err, "leave the limit out, or enable the %s controller (see coracle doctor)",
                           i == CPU ? "cpu" : limit_names[i]);
            }
            return -EOPNOTSUPP;
        }
    return 0;
}

static uint64_t quota_us(uint64_t milli)
{
    uint64_t quota = milli * (CPU_PERIOD_US / 1000);

    return quota < CPU_QUOTA_MIN_US ? CPU_QUOTA_MIN_US : quota;
}

static void list_cpu(const struct cgroups *cgroups, const struct limits *limits, bool all, struct write_list *writes)
{
    bool v1 = cgroups->v1 & RUNTIME_CPU;

    if (limits->cpu_milli && v1)
        add(writes, CPU, false, "cpu.cfs_quota_us", "%" PRIu64, quota_us(limits->cpu_milli));
    else if (limits->cpu_milli)
        add(writes, CPU, false, "cpu.max", "%" PRIu64 " %d", quota_us(limits->cpu_milli), CPU_PERIOD_US);
    else if (all)
        add(writes, CPU, true, v1 ? "cpu.cfs_quota_us" : "cpu.max", v1 ? "-1" : "max %d", CPU_PERIOD_US);
}

static void list_cpuset(const struct cgroups *cgroups, const struct limits *limits, bool all, struct write_list *writes)
{
    char text[CPUSET_TEXT_SIZE];

    if (limits->cpuset[0])
        add(writes, CPUSET, false, "cpuset.cpus", "%s", limits->cpuset);
    else if (all && !(cgroups->v1 & RUNTIME_CPUSET))
        add(writes, CPUSET, true, "cpuset.cpus", "\n");
    else if (all && !cgroup_read(cgroups->parent_fd[CPUSET], "cpuset.cpus", text, sizeof(text)))
        add(writes, CPUSET, true, "cpuset.cpus", "%s", text);
}

/* v1 keeps limit <= memsw at every moment, so growing begins with memsw and shrinking with limit. */
static void list_memory(const struct cgroups *cgroups, const char *tag, const struct limits *limits, bool all,
                        struct write_list *writes)
{
    char path[RUNTIME_TAG_SIZE + 40], text[32], value[32];
    bool grow;

    if (!limits->memory_bytes && !all)
        return;
    if (!(cgroups->v1 & RUNTIME_MEMORY)) {
        if (limits->memory_bytes)
            add(writes, MEMORY, false, "memory.max", "%" PRIu64, limits->memory_bytes);
        else
            add(writes, MEMORY, true, "memory.max", "max");
        add(writes, MEMORY, true, "memory.swap.max", limits->memory_bytes ? "0" : "max");
        add(writes, MEMORY, true, "memory.oom.group", limits->memory_bytes ? "1" : "0");
        return;
    }
    snprintf(value, sizeof(value), limits->memory_bytes ? "%" PRIu64 : "-1", limits->memory_bytes);
    snprintf(path, sizeof(path), "%s/memory.limit_in_bytes", tag);
    grow = !limits->memory_bytes || (!cgroup_read(cgroups->parent_fd[MEMORY], path, text, sizeof(text)) &&
                                     strtoull(text, NULL, 10) < limits->memory_bytes);
    if (grow)
        add(writes, MEMORY, true, "memory.memsw.limit_in_bytes", "%s", value);
    add(writes, MEMORY, !limits->memory_bytes, "memory.limit_in_bytes", "%s", value);
    if (!grow)
        add(writes, MEMORY, true, "memory.memsw.limit_in_bytes", "%s", value);
}

/* The platform's own init is one more task. */
static void list_pids(const struct limits *limits, bool all, struct write_list *writes)
{
    if (limits->pids)
        add(writes, PIDS, false, "pids.max", "%" PRIu64, limits->pids + 1);
    else if (all)
        add(writes, PIDS, true, "pids.max", "max");
}

static void list_io(const struct cgroups *cgroups, const struct limits *limits, bool all, struct write_list *writes)
{
    static const char *const v1_files[] = {"blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device",
                                           "blkio.throttle.read_iops_device", "blkio.throttle.write_iops_device"};
    static const char *const v2_keys[] = {"rbps", "wbps", "riops", "wiops"};
    uint64_t values[] = {limits->io_read_bps, limits->io_write_bps, limits->io_read_iops, limits->io_write_iops};
    char text[32];

    for (int i = 0; i < 4; i++) {
        if ((!values[i] && !all) || !cgroups->io_device[0])
            continue;
        if (cgroups->v1 & RUNTIME_IO) {
            add(writes, IO, !values[i], v1_files[i], "%s %" PRIu64, cgroups->io_device, values[i]); /* 0: no limit */
        } else {
            snprintf(text, sizeof(text), values[i] ? "%" PRIu64 : "max", values[i]);
            add(writes, IO, !values[i], "io.max", "%s %s=%s", cgroups->io_device, v2_keys[i], text);
        }
    }
}

static unsigned hierarchy_of(const struct cgroups *cgroups, unsigned controller)
{
    return cgroups->v1 & (1u << controller) ? controller : (unsigned)CGROUP_UNIFIED;
}

/* What stands in the file now, in a form that can be written back; false when that cannot be done. */
static bool save_old(int parent_fd, const char *path, struct limit_write *old, const char *io_device)
{
    char text[1024], *line;
    size_t length = strlen(io_device);

    if (old->controller != IO)
        return !cgroup_read(parent_fd, path, old->value, sizeof(old->value));
    if (cgroup_read(parent_fd, path, text, sizeof(text)))
        return false;
    line = length ? strstr(text, io_device) : NULL;
    if (line && line[length] == ' ')
        snprintf(old->value, sizeof(old->value), "%.*s", (int)strcspn(line, "\n"), line);
    else if (!strcmp(old->file, "io.max"))
        snprintf(old->value, sizeof(old->value), "%s rbps=max wbps=max riops=max wiops=max", io_device);
    else
        snprintf(old->value, sizeof(old->value), "%s 0", io_device);
    return true;
}

static int write_error(const struct limit_write *write, int result, struct error **err)
{
    /* A processor list was checked for its form long before: what the kernel refuses is what this host has not got. */
    bool host_lacks = result == -ENOENT || write->controller == CPUSET;
    const char *code = host_lacks ? "LIMIT_NOT_ENFORCEABLE" : "INVALID_VALUE";

    error_set_errno(err, -result, code, "%s: the kernel refused \"%s\" for %s", limit_names[write->controller],
                    write->value, write->file);
    if (result == -EBUSY && write->controller == MEMORY)
        error_hint(err, "the instance uses more than that already, and it cannot be reclaimed");
    else if (write->controller == CPUSET)
        error_hint(err, "name only processors that exist and that the launcher itself may use");
    else if (result == -ENOENT)
        error_hint(err, "leave the limit out: this kernel has no %s", write->file);
    return result;
}

/* old: NULL while putting back. */
static int apply_list(const struct cgroups *cgroups, const char *tag, const struct write_list *writes,
                      struct write_list *old, struct error **err)
{
    char path[RUNTIME_TAG_SIZE + 64];

    for (unsigned i = 0; i < writes->count; i++) {
        const struct limit_write *write = &writes->list[i];
        int result, parent = cgroups->parent_fd[hierarchy_of(cgroups, write->controller)];

        snprintf(path, sizeof(path), "%s/%s", tag, write->file);
        if (old) {
            struct limit_write *saved = &old->list[old->count];

            *saved = *write;
            if (save_old(parent, path, saved, cgroups->io_device))
                old->count++;
        }
        result = parent < 0 ? -ENOENT : cgroup_write(parent, path, write->value);
        /* Without memory.memsw (no swap accounting) there is nothing to bound. */
        if (result && !(write->optional && (result == -ENOENT || result == -EOPNOTSUPP)))
            return write_error(write, result, err);
    }
    return 0;
}

int cgroup_apply(const struct cgroups *cgroups, const char *tag, const struct limits *limits, bool all,
                 struct error **err)
{
    struct write_list writes = {.count = 0}, old = {.count = 0}, back = {.count = 0};
    int result = cgroup_check(cgroups, limits, err);

    if (result)
        return result;
    list_cpu(cgroups, limits, all, &writes);
    list_cpuset(cgroups, limits, all, &writes);
    list_memory(cgroups, tag, limits, all, &writes);
    list_pids(limits, all, &writes);
    list_io(cgroups, limits, all, &writes);
    if (!all)
        return apply_list(cgroups, tag, &writes, NULL, err);
    result = apply_list(cgroups, tag, &writes, &old, err);
    while (result && old.count)
        back.list[back.count++] = old.list[--old.count];
    if (result)
        apply_list(cgroups, tag, &back, NULL, NULL);
    return result;
}

/* ---- figures ---- */

static bool read_number(int parent_fd, const char *tag, const char *file, uint64_t *ret_value)
{
    char path[RUNTIME_TAG_SIZE + 64], text[64], *end;
    uint64_t value;

    snprintf(path, sizeof(path), "%s/%s", tag, file);
    if (parent_fd < 0 || cgroup_read(parent_fd, path, text, sizeof(text)))
        return false;
    value = strtoull(text, &end, 10);
    if (end == text)
        return false;
    *ret_value = value;
    return true;
}

/* The number behind "key " at the begin of a line. */
static bool read_key(int parent_fd, const char *tag, const char *file, const char *key, uint64_t *ret_value)
{
    char path[RUNTIME_TAG_SIZE + 64], text[2048];
    size_t length = strlen(key);

    snprintf(path, sizeof(path), "%s/%s", tag, file);
    if (parent_fd < 0 || cgroup_read(parent_fd, path, text, sizeof(text)))
        return false;
    for (char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (!strncmp(line, key, length) && line[length] == ' ') {
            *ret_value = strtoull(line + length + 1, NULL, 10);
            return true;
        }
    }
    return false;
}

/* v1: "MAJ:MIN Read N" lines; v2: "MAJ:MIN rbytes=N wbytes=N ...". Summed over devices. */
static bool read_io(const struct cgroups *cgroups, const char *tag, struct container_stats *stats)
{
    bool v1 = cgroups->v1 & RUNTIME_IO;
    char path[RUNTIME_TAG_SIZE + 64], text[4096], *save;
    int parent = cgroups->parent_fd[v1 ? (unsigned)IO : (unsigned)CGROUP_UNIFIED];

    snprintf(path, sizeof(path), "%s/%s", tag, v1 ? "blkio.throttle.io_service_bytes" : "io.stat");
    if (parent < 0 || cgroup_read(parent, path, text, sizeof(text)))
        return false;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        const char *read = strstr(line, v1 ? " Read " : " rbytes="), *write = strstr(line, v1 ? " Write " : " wbytes=");

        if (read)
            stats->io_read_bytes += strtoull(read + (v1 ? 6 : 8), NULL, 10);
        if (write)
            stats->io_write_bytes += strtoull(write + (v1 ? 7 : 8), NULL, 10);
    }
    return true;
}

bool cgroup_oom_kills(const struct cgroups *cgroups, const char *tag, uint64_t *ret_count)
{
    if (cgroups->v1 & RUNTIME_MEMORY)
        return read_key(cgroups->parent_fd[MEMORY], tag, "memory.oom_control", "oom_kill", ret_count);
    return read_key(cgroups->parent_fd[CGROUP_UNIFIED], tag, "memory.events", "oom_kill", ret_count);
}

int cgroup_stats(const struct cgroups *cgroups, const char *tag, struct container_stats *ret_stats)
{
    enum {
        KNOW_CPU = 1,
        KNOW_MEMORY = 2,
        KNOW_PEAK = 4,
        KNOW_PIDS = 8,
        KNOW_OOM = 16,
        KNOW_THROTTLED = 32,
        KNOW_IO = 64
    };
    struct container_stats stats = {0};
    int unified = cgroups->parent_fd[CGROUP_UNIFIED];
    bool v1 = cgroups->v1 & RUNTIME_MEMORY;

    if (read_key(unified, tag, "cpu.stat", "usage_usec", &stats.cpu_ns)) {
        stats.cpu_ns *= 1000;
        stats.known |= KNOW_CPU;
    }
    if (read_number(cgroups->parent_fd[v1 ? (unsigned)MEMORY : (unsigned)CGROUP_UNIFIED], tag,
                    v1 ? "memory.usage_in_bytes" : "memory.current", &stats.memory_bytes))
        stats.known |= KNOW_MEMORY;
    if (read_number(cgroups->parent_fd[v1 ? (unsigned)MEMORY : (unsigned)CGROUP_UNIFIED], tag,
                    v1 ? "memory.max_usage_in_bytes" : "memory.peak", &stats.memory_peak_bytes))
        stats.known |= KNOW_PEAK;
    if (read_number(cgroups->parent_fd[hierarchy_of(cgroups, PIDS)], tag, "pids.current", &stats.pids)) {
        stats.pids -= stats.pids > 0; /* the platform's own init */
        stats.known |= KNOW_PIDS;
    }
    if (cgroup_oom_kills(cgroups, tag, &stats.oom_kills))
        stats.known |= KNOW_OOM;
    if (cgroups->v1 & RUNTIME_CPU) {
        if (read_key(cgroups->parent_fd[CPU], tag, "cpu.stat", "throttled_time", &stats.throttled_ns))
            stats.known |= KNOW_THROTTLED;
    } else if (read_key(unified, tag, "cpu.stat", "throttled_usec", &stats.throttled_ns)) {
        stats.throttled_ns *= 1000;
        stats.known |= KNOW_THROTTLED;
    }
    if (read_io(cgroups, tag, &stats))
        stats.known |= KNOW_IO;
    *ret_stats = stats;
    return 0;
}
