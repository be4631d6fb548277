/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes the process that becomes coracle-init, in namespaces and cgroups of its own.
 *
 * Theory of operation. One clone3() with all namespaces; CLONE_VM instead of a copy of the launcher's page tables (the
 * copy would be thrown away by exec). The child therefore runs on a small stack inside struct shell, uses system calls
 * only through inline assembly (it shares errno and all of libc's state with the launcher's thread), and first closes
 * every descriptor but two: the control socket, and the memfd that it executes once the launcher has written its uid
 * maps and sent one byte. If the launcher dies instead, the read ends and so does the child.
 *
 * Descriptors: a copy of the launcher's table, and closing all of the copy, would cost more with each running instance
 * (300 us with 500). So the child shares the table at first (CLONE_FILES), and its first system call gives it one of
 * its own with the low numbers only (child_own_files(); a monitor of machine.c does the same). What it needs has such
 * numbers: the memfd, opened early, and the control socket, in one of a few places reserved when the runtime was
 * opened. A place is free again when the child is seen to have its table.
 *
 * cgroup v1: writing a pid to cgroup.procs waits for an RCU grace period (6-11 ms). A thread that writes "0" into a
 * tasks file moves only itself, without that wait (30 us), and its children are born there. So the calling thread goes
 * into the container's memory and pids cgroups, clones, and comes home. cgroup v2 has CLONE_INTO_CGROUP.
 *
 * Owner: the kernel charges what is limited per user (inotify, pending signals, message queues, namespaces ...) to a
 * process's user in its namespace and to the namespace's owner in the one above. The owner is the effective uid of who
 * cloned: for the clone that is the first id of the container's own range, so that no container can use up what belongs
 * to its neighbours, or to the host's root. Capabilities are raised again for that moment (cgroup permissions).
 *
 * Mounts: the thread steps into the stem namespace (stem.c) for the clone, so that the copy the child gets has five
 * mounts, however many instances the host's namespace has mounted.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "runtime/spawn.h"

enum { EXEC_FD = INIT_CONTROL_FD + 1 };

struct child_arguments {
    struct spawn_files files;
    int control, program;
};

static const char *const init_argv[] = {"coracle-init", NULL};
static const char *const init_env[] = {NULL};

static CHILD_CODE __attribute__((noreturn, used)) void child_run(const void *context)
{
    struct child_arguments *arguments = (struct child_arguments *)(uintptr_t)context;
    int control = arguments->control, program = arguments->program;
    char go;

    child_own_files(&arguments->files);
    /* Until it gets its root: where there is one processor for both, what the init prepares by itself (a third of a
     * millisecond) comes after the network that the launcher makes. */
    child_own_scheduling(SCHED_BATCH);
    if (program <= EXEC_FD)
        program = (int)child_call(SYS_fcntl, program, F_DUPFD, EXEC_FD + 1, 0, 0);
    if (control != INIT_CONTROL_FD)
        child_call(SYS_dup3, control, INIT_CONTROL_FD, 0, 0, 0);
    else
        child_call(SYS_fcntl, control, F_SETFD, 0, 0, 0);
    child_call(SYS_dup3, program, EXEC_FD, O_CLOEXEC, 0, 0);
    child_call(SYS_close_range, 0, INIT_CONTROL_FD - 1, 0, 0, 0);
    child_call(SYS_close_range, EXEC_FD + 1, ~0u, 0, 0, 0);
    if (child_call(SYS_read, INIT_CONTROL_FD, (long)&go, 1, 0, 0) == 1 && !child_call(SYS_setgroups, 0, 0, 0, 0, 0) &&
        !child_call(SYS_setresgid, 0, 0, 0, 0, 0) && !child_call(SYS_setresuid, 0, 0, 0, 0, 0))
        child_call(SYS_execveat, EXEC_FD, (long)"", (long)init_argv, (long)init_env, AT_EMPTY_PATH);
    for (;;)
        child_call(SYS_exit, 127, 0, 0, 0, 0);
}

/* Lives only to have been in a user namespace. */
static CHILD_CODE __attribute__((noreturn, used)) void child_end(const void *arguments)
{
    (void)arguments;
    for (;;)
        child_call(SYS_exit, 0, 0, 0, 0, 0);
}

/* clone3() whose child calls run(arguments) on the stack named in args and never returns. -errno on failure. */
static long clone_run(struct clone_args *args, void (*run)(const void *), const void *arguments)
{
    register void (*r8)(const void *) __asm__("r8") = run;
    register const void *r9 __asm__("r9") = arguments;
    long result;

    __asm__ volatile("syscall\n\t"
                     "testq %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xorl %%ebp, %%ebp\n\t"
                     "movq %%r9, %%rdi\n\t"
                     "callq *%%r8\n\t"
                     "1:"
                     : "=a"(result)
                     : "a"(SYS_clone3), "D"(args), "S"(sizeof(*args)), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

/* ---- places for control sockets ---- */

int spawn_reserve(struct runtime *runtime)
{
    for (int i = 0; i < SPAWN_PLACES; i++) {
        runtime->places[i].fd = fcntl(runtime->init_fd, F_DUPFD_CLOEXEC, 3);
        if (runtime->places[i].fd < 0)
            return -errno;
        spawn_keep(runtime, runtime->places[i].fd);
    }
    spawn_keep(runtime, runtime->init_fd);
    return 0;
}

void spawn_keep(struct runtime *runtime, int fd)
{
    if (fd > runtime->place_high)
        runtime->place_high = fd;
}

int spawn_place_take(struct runtime *runtime, int fd, struct spawn_files *ret_files)
{
    int taken = -1;

    pthread_mutex_lock(&runtime->lock);
    while (taken < 0) {
        for (int i = 0; i < SPAWN_PLACES && taken < 0; i++)
            if (!runtime->places[i].taken)
                taken = i;
        if (taken < 0)
            pthread_cond_wait(&runtime->place_free, &runtime->lock);
    }
    runtime->places[taken].taken = true;
    pthread_mutex_unlock(&runtime->lock);
    *ret_files = (struct spawn_files){.high = (unsigned)runtime->place_high};
    if (dup3(fd, runtime->places[taken].fd, O_CLOEXEC) < 0) {
        int e = errno;
        spawn_place_settle(runtime, taken, 0, -1, ret_files);
        return -e;
    }
    return taken;
}

void spawn_place_settle(struct runtime *runtime, int place, pid_t pid, int pidfd, const struct spawn_files *files)
{
    struct timespec pause = {0, 20000};

    if (place < 0)
        return;
    while (pid && !__atomic_load_n(&files->own, __ATOMIC_ACQUIRE) && !pidfd_wait(pidfd, 0))
        nanosleep(&pause, NULL);
    dup3(runtime->init_fd, runtime->places[place].fd, O_CLOEXEC); /* the socket's end goes, the number stays */
    pthread_mutex_lock(&runtime->lock);
    runtime->places[place].taken = false;
    pthread_cond_signal(&runtime->place_free);
    pthread_mutex_unlock(&runtime->lock);
}

void spawn_settle(struct shell *shell)
{
    const struct child_arguments *arguments = (const struct child_arguments *)(const void *)shell->stack;

    spawn_place_settle(shell->runtime, shell->place, shell->pid, shell->pidfd, &arguments->files);
    shell->place = -1;
}

int spawn_prepare_thread(void)
{
    return unshare(CLONE_FS) ? -errno : 0;
}

static int write_map(const struct runtime *runtime, pid_t pid, const char *name, uint32_t inside, uint32_t outside)
{
    char path[48], line[48];
    int length = snprintf(line, sizeof(line), "%u %u %u\n", inside, outside, RUNTIME_ID_COUNT);
    auto_fd int fd = -1;

    snprintf(path, sizeof(path), "%d/%s", pid, name);
    fd = openat(runtime->proc_fd, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, line, (size_t)length) != length)
        return -errno;
    return 0;
}

/* The process may have ended already: its user namespace can be reached as long as it is not reaped. */
int spawn_idmap_namespace(const struct runtime *runtime, uint32_t inside, uint32_t outside)
{
    _Alignas(16) unsigned char stack[1024];
    struct clone_args args = {.flags = CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_NEWUSER,
                              .stack = (uintptr_t)stack,
                              .stack_size = sizeof(stack)};
    char path[48];
    long pid = clone_run(&args, child_end, NULL);
    int fd, result;

    if (pid < 0)
        return (int)pid;
    result = write_map(runtime, (pid_t)pid, "uid_map", inside, outside);
    if (!result)
        result = write_map(runtime, (pid_t)pid, "gid_map", inside, outside);
    snprintf(path, sizeof(path), "%ld/ns/user", pid);
    fd = result ? result : openat(runtime->proc_fd, path, O_RDONLY | O_CLOEXEC);
    if (!result && fd < 0)
        fd = -errno;
    while (waitpid((pid_t)pid, NULL, __WALL) < 0 && errno == EINTR)
        ;
    return fd;
}

/* This thread only (raw system calls), with its permitted capabilities in force whatever the uid. */
static int become(uint32_t uid)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    if (syscall(SYS_setresuid, -1, uid, -1) || syscall(SYS_capget, &header, data))
        return -errno;
    for (int i = 0; i < 2; i++)
        data[i].effective = data[i].permitted;
    return syscall(SYS_capset, &header, data) ? -errno : 0;
}

/* With every signal blocked, so that no handler of the launcher runs in the child. */
static long clone_blocked(uint32_t owner, struct clone_args *args, void (*run)(const void *), const void *arguments)
{
    uid_t own = geteuid();
    sigset_t all, before;
    long pid;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = owner ? become(owner) : 0;
    if (!pid)
        pid = clone_run(args, run, arguments);
    if (owner && become(own))
        abort(); /* a launcher thread with a tenant's uid */
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pid;
}

/* From within the cgroups and the mount namespace the child is to be born in. */
long spawn_clone(const struct runtime *runtime, const struct spawn_place *place, struct clone_args *args,
                 void (*run)(const void *), const void *arguments, struct error **err)
{
    int result = cgroup_enter(&runtime->cgroups, place->tag, place->controllers, err);
    long pid;

    if (result)
        return result;
    if (place->mounts_fd >= 0 && setns(place->mounts_fd, CLONE_NEWNS)) {
        result = errno;
        cgroup_leave(&runtime->cgroups, place->controllers);
        return error_set_errno(err, result, "START_FAILED", "the stem mount namespace cannot be entered");
    }
    pid = clone_blocked(place->owner, args, run, arguments);
    if (place->mounts_fd >= 0 && setns(runtime->home_mounts_fd, CLONE_NEWNS))
        abort(); /* a thread that stays in the stem would resolve every path wrongly */
    cgroup_leave(&runtime->cgroups, place->controllers);
    if (pid < 0) {
        error_set_errno(err, (int)-pid, "START_FAILED", "new namespaces cannot be made");
        if (pid == -ENOSPC || pid == -EUSERS)
            error_hint(err, "raise user.max_user_namespaces and user.max_net_namespaces");
        else if (pid == -EAGAIN)
            error_hint(err, "the host's limit of processes is reached");
    }
    return pid;
}

int spawn_reset_oom_score(const struct runtime *runtime, pid_t pid, struct error **err)
{
    char path[48];

    if (!runtime->reset_oom_score)
        return 0;
    snprintf(path, sizeof(path), "%d/oom_score_adj", pid);
    auto_fd int fd = openat(runtime->proc_fd, path, O_WRONLY | O_CLOEXEC);

    if (fd >= 0 && write(fd, "0", 1) != 1 && errno != EACCES && errno != EPERM)
        return error_set_errno(err, errno, "START_FAILED", "oom_score_adj of process %d cannot be set", pid);
    return 0;
}

/* By the pidfd since Linux 6.11: shorter, and without entries of /proc that are kept in memory as long as the process
 * lives (2 KiB). */
static int open_netns(const struct shell *shell)
{
    const unsigned get_net_namespace = _IO(0xFF, 4); /* PIDFD_GET_NET_NAMESPACE, newer than the headers of Debian 12 */
    int fd = ioctl(shell->pidfd, get_net_namespace, 0);
    char path[48];

    if (fd >= 0)
        return fd;
    snprintf(path, sizeof(path), "%d/ns/net", shell->pid);
    return openat(shell->runtime->proc_fd, path, O_RDONLY | O_CLOEXEC);
}

/* Between clone and exec: maps, the network namespace's descriptor, the launcher's oom_score_adj not inherited. */
static int release_child(struct shell *shell, struct error **err)
{
    const struct runtime *runtime = shell->runtime;
    int result = write_map(runtime, shell->pid, "uid_map", 0, shell->uid_base);

    if (!result)
        result = write_map(runtime, shell->pid, "gid_map", 0, shell->uid_base);
    if (result)
        return error_set_errno(err, -result, "START_FAILED", "uid map of process %d cannot be written", shell->pid);
    shell->netns_fd = open_netns(shell);
    if (shell->netns_fd < 0)
        return error_set_errno(err, errno, "START_FAILED", "network namespace of process %d cannot be opened",
                               shell->pid);
    result = spawn_reset_oom_score(runtime, shell->pid, err);
    if (result)
        return result;
    if (send(shell->control_fd, "g", 1, MSG_NOSIGNAL) != 1)
        return error_set_errno(err, errno, "START_FAILED", "the new process ended at once");
    return 0;
}

int spawn_init(struct shell *shell, struct steps *steps, struct error **err)
{
    struct runtime *runtime = shell->runtime;
    auto_fd int unified = cgroup_open_unified(&runtime->cgroups, shell->tag);
    struct clone_args args = {
        .flags = CLONE_VM | CLONE_FILES | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS |
                 CLONE_NEWNET | CLONE_PIDFD | (unified >= 0 ? CLONE_INTO_CGROUP : 0),
        .pidfd = (uintptr_t)&shell->pidfd,
        .stack = (uintptr_t)shell->stack,
        .stack_size = sizeof(shell->stack),
        .cgroup = unified >= 0 ? (uint64_t)unified : 0,
    };
    int ends[2];
    uint64_t begun = monotonic_ns(), cloned;
    long pid;

    if (spawn_prepare_thread())
        return error_set_errno(err, errno, "START_FAILED", "unshare(CLONE_FS)");
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        return error_set_errno(err, errno, "START_FAILED", "no control socket");
    auto_fd int child_end_fd = ends[1];
    shell->control_fd = ends[0];
    /* In the first bytes of the stack, which grows down from the other end. */
    struct child_arguments *arguments = (struct child_arguments *)(void *)shell->stack;
    shell->place = spawn_place_take(runtime, child_end_fd, &arguments->files);
    if (shell->place < 0)
        return error_set_errno(err, -shell->place, "START_FAILED", "no control socket");
    arguments->control = runtime->places[shell->place].fd;
    arguments->program = runtime->init_fd;
    pid = spawn_clone(runtime, &(struct spawn_place){shell->tag, shell->controllers, runtime->stem_fd, shell->uid_base},
                      &args, child_run, arguments, err);
    if (pid < 0)
        return (int)pid;
    shell->pid = (pid_t)pid;
    cloned = monotonic_ns();
    steps_add(steps, "namespaces", begun, cloned);
    int result = release_child(shell, err);
    steps_add(steps, "maps", cloned, monotonic_ns());
    return result;
}
