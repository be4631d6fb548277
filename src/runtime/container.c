/* SPDX-License-Identifier: Apache-2.0 */
/* Running containers: found again, signalled, frozen, limited, measured, and removed in the end. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "base/cleanup.h"
#include "monitor/exit_file.h"
#include "runtime/internal.h"

enum { DEATH_TIMEOUT_MS = 10000, ASK_TIMEOUT_MS = 2000 };

/* ---- processes ---- */

int pidfd_open_pid(pid_t pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);

    return fd < 0 ? -errno : fd;
}

int pidfd_signal(int pidfd, int signal)
{
    return syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0) ? -errno : 0;
}

bool pidfd_wait(int pidfd, int timeout_ms)
{
    return wait_readable(pidfd, timeout_ms) > 0;
}

uint64_t process_start_time(const struct runtime *runtime, pid_t pid)
{
    char path[32], text[1024], *at;
    ssize_t n;

    snprintf(path, sizeof(path), "%d/stat", pid);
    auto_fd int fd = openat(runtime->proc_fd, path, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n <= 0)
        return 0;
    text[n] = 0;
    at = strrchr(text, ')'); /* the name before it may hold anything */
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoull(at + 1, NULL, 10) : 0;
}

/* The init dies last: the kernel has killed and waited for everyone else of its pid namespace by then. */
static bool end_namespace(struct runtime *runtime, const char *tag, int pidfd)
{
    bool ended;

    pidfd_signal(pidfd, SIGKILL);
    ended = pidfd_wait(pidfd, 20);
    if (!ended) { /* frozen by the v1 freezer, or busy dying */
        cgroup_kill(&runtime->cgroups, tag);
        ended = pidfd_wait(pidfd, DEATH_TIMEOUT_MS);
    }
    if (ended)
        waitid(P_PIDFD, (id_t)pidfd, &(siginfo_t){0}, WEXITED | WNOHANG | __WALL); /* -ECHILD: not our child */
    return ended;
}

int remains_destroy(struct runtime *runtime, const char *tag, int pidfd, struct error **err)
{
    if (pidfd >= 0 && !end_namespace(runtime, tag, pidfd))
        return error_set(err, ETIMEDOUT, "INTERNAL", "the processes of %s do not end", tag);
    if (pidfd < 0)
        for (int round = 0; round < 100 && cgroup_kill(&runtime->cgroups, tag); round++)
            nanosleep(&(struct timespec){0, 2000000}, NULL);
    return cgroup_remove(&runtime->cgroups, tag, 2000, err);
}

/* ---- handles ---- */

void container_record(const struct container *container, struct container_record *ret_record)
{
    *ret_record = container->record;
}

int container_open(struct runtime *runtime, const struct container_record *record, int instance_dirfd,
                   struct container **ret_container, struct error **err)
{
    struct container *container = calloc(1, sizeof(*container));

    if (!container)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for an instance");
    container->runtime = runtime;
    container->record = *record;
    container->record.tag[RUNTIME_TAG_SIZE - 1] = 0;
    container->application_pidfd = -1;
    container->instance_fd = fcntl(instance_dirfd, F_DUPFD_CLOEXEC, 3);
    container->pidfd = pidfd_open_pid(record->pid);
    /* After the pidfd is open the pid cannot change hands unseen, so this comparison holds from then on. */
    if (container->pidfd >= 0 && process_start_time(runtime, record->pid) != record->start_time)
        container->pidfd = close_fd(container->pidfd);
    if (container->pidfd < 0)
        container->pidfd = -1;
    if (container->instance_fd < 0) {
        container_close(container);
        return error_set_errno(err, errno, "INTERNAL", "the instance's directory cannot be kept open");
    }
    *ret_container = container;
    return 0;
}

void container_close(struct container *container)
{
    if (!container)
        return;
    close_fd(container->pidfd);
    close_fd(container->application_pidfd);
    close_fd(container->instance_fd);
    free(container);
}

bool container_alive(const struct container *container)
{
    return container->pidfd >= 0 && !pidfd_wait(container->pidfd, 0);
}

pid_t container_pid(const struct container *container)
{
    return container->record.pid;
}

int container_pidfd(const struct container *container)
{
    return container->pidfd;
}

/* ---- signals and the freezer ---- */

/* The init's oldest child is the application: it is started first, and the container ends with it. */
static int first_child(const struct container *container)
{
    char path[48], text[32];
    ssize_t n;

    snprintf(path, sizeof(path), "%d/task/%d/children", container->record.pid, container->record.pid);
    auto_fd int fd = openat(container->runtime->proc_fd, path, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n <= 0)
        return -ESRCH;
    text[n] = 0;
    return pidfd_open_pid((pid_t)atoi(text));
}

/* A container adopted again: its init tells (it cannot when it is frozen, then the process tree must do). */
static int ask_application(struct container *container, struct error **err)
{
    struct init_header request = {INIT_PROTOCOL, INIT_APPLICATION, sizeof(request)};
    struct init_reply reply;
    int pidfd = -1;

    if (container_paused(container)) {
        pidfd = first_child(container);
        if (pidfd < 0)
            return error_set_errno(err, -pidfd, "CONFLICTING_STATE", "the paused application cannot be found");
        return pidfd;
    }
    auto_fd int socket = channel_connect(container->instance_fd, err);

    if (socket < 0)
        return socket;
    int result = channel_send(socket, &request, sizeof(request), NULL, 0);

    if (!result)
        result = channel_receive(socket, ASK_TIMEOUT_MS, &reply, &pidfd, 1);
    if (result || pidfd < 0)
        return error_set_errno(err, result ? -result : EPROTO, "CONFLICTING_STATE",
                               "the instance's init does not name its application");
    return pidfd;
}

int container_kill_all(struct container *container, struct error **err)
{
    int result = container->pidfd < 0 ? -ESRCH : pidfd_signal(container->pidfd, SIGKILL);

    if (result == -ESRCH)
        return error_set(err, ESRCH, "CONFLICTING_STATE", "the instance has ended");
    if (result)
        return error_set_errno(err, -result, "INTERNAL", "the instance cannot be killed");
    if (!container->runtime->cgroups.freeze)
        cgroup_kill(&container->runtime->cgroups, container->record.tag); /* thaws: v1 holds even the killed */
    return 0;
}

int container_signal(struct container *container, int signal, struct error **err)
{
    int result;

    if (signal < 1 || signal > SIGRTMAX)
        return error_set(err, EINVAL, "INVALID_VALUE", "%d is not a signal", signal);
    if (signal == SIGKILL)
        return container_kill_all(container, err);
    if (!container_alive(container))
        return error_set(err, ESRCH, "CONFLICTING_STATE", "the instance has ended");
    if (container->record.machine) { /* its monitor: it asks or ends its guest */
        result = pidfd_signal(container->pidfd, signal);
        return result ? error_set_errno(err, -result, "CONFLICTING_STATE", "signal %d cannot be sent", signal) : 0;
    }
    if (container->application_pidfd < 0) {
        result = ask_application(container, err);
        if (result < 0)
            return result;
        container->application_pidfd = result;
    }
    result = pidfd_signal(container->application_pidfd, signal);
    if (result)
        return error_set_errno(err, -result, "CONFLICTING_STATE", "signal %d cannot be sent", signal);
    return 0;
}

int container_pause(struct container *container, struct error **err)
{
    if (!container_alive(container))
        return error_set(err, ESRCH, "CONFLICTING_STATE", "the instance has ended");
    return cgroup_freeze(&container->runtime->cgroups, container->record.tag, true, err);
}

int container_resume(struct container *container, struct error **err)
{
    return cgroup_freeze(&container->runtime->cgroups, container->record.tag, false, err);
}

bool container_paused(const struct container *container)
{
    return cgroup_frozen(&container->runtime->cgroups, container->record.tag);
}

/* ---- limits and figures ---- */

int container_update(struct container *container, const struct limits *limits, int instance_dirfd, struct error **err)
{
    const struct runtime *runtime = container->runtime;
    int result = runtime_check_limits(runtime, limits, err);

    if (result)
        return result;
    if (!container_alive(container))
        return error_set(err, ESRCH, "CONFLICTING_STATE", "the instance has ended");
    result = cgroup_join_missing(&runtime->cgroups, container->record.tag, limits, err);
    if (!result && instance_dirfd >= 0 && limits->storage_bytes)
        result = root_resize_writable(instance_dirfd, limits->storage_bytes, err);
    return result ? result : cgroup_apply(&runtime->cgroups, container->record.tag, limits, true, err);
}

int container_stats(const struct container *container, struct container_stats *ret_stats, struct error **err)
{
    struct container_stats stats;
    int result = cgroup_stats(&container->runtime->cgroups, container->record.tag, &stats);

    if (result)
        return error_set_errno(err, -result, "INTERNAL", "the instance's figures cannot be read");
    *ret_stats = stats;
    return 0;
}

/* ---- the end ---- */

/* A monitor that was killed wrote nothing, but its parent can ask the kernel: the launcher that started it. */
static bool ask_parent(const struct container *container, int *ret_wait_status)
{
    siginfo_t info = {0};

    if (!container->record.machine || container->pidfd < 0 ||
        waitid(P_PIDFD, (id_t)container->pidfd, &info, WEXITED | WNOWAIT | WNOHANG | __WALL) || !info.si_pid)
        return false;
    *ret_wait_status = info.si_code == CLD_EXITED ? (info.si_status & 0xff) << 8 : info.si_status;
    return true;
}

int container_exit_read(const struct container *container, int instance_dirfd, struct container_exit *ret_exit,
                        struct error **err)
{
    struct container_exit result = {.wait_status = SIGKILL};
    char text[64];
    uint64_t kills;

    auto_fd int fd = openat(instance_dirfd, "exit", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));

    if (n < 0)
        return error_set_errno(err, errno, "INTERNAL", "instances/ID/exit cannot be read");
    if (exit_file_parse(text, (size_t)n, &result.wait_status, &result.exited_at_ns)) {
        result.status_known = true;
    } else {
        struct timespec now;

        result.status_known = ask_parent(container, &result.wait_status);
        clock_gettime(CLOCK_REALTIME, &now);
        result.exited_at_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    }
    result.oom = cgroup_oom_kills(&container->runtime->cgroups, container->record.tag, &kills) && kills;
    *ret_exit = result;
    return 0;
}

int container_destroy(struct container *container, struct error **err)
{
    int result;

    if (!container)
        return 0;
    result = remains_destroy(container->runtime, container->record.tag, container->pidfd, err);
    container_close(container);
    return result;
}
