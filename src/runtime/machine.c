/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starts monitors of virtual machines (machine.h). The process is made as a container's init is (spawn.c: clone3 with
 * CLONE_VM and CLONE_FILES from within its cgroups), but joins the namespaces of void.c instead of getting seven new
 * ones, and takes its uid from the host's, with no capability and no way to any.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "runtime/spawn.h"

enum { SETUP_FD = 3, EXEC_FD = SETUP_FD + 1 }; /* SETUP_FD: MONITOR_SETUP_FD of src/monitor/protocol.h */

static const char *const program_names[MACHINE_PROGRAMS] = {"coracle-vmm", "coracle-qemu"};
static const char *const program_argv[MACHINE_PROGRAMS][3] = {{"coracle-vmm", "--supervised", NULL},
                                                              {"coracle-qemu", "--supervised", NULL}};

struct monitor_arguments {
    struct spawn_files own;
    int setup, program, null;
    int namespaces[VOID_NAMESPACES + 1]; /* the mount namespace last: /proc is gone after it */
    bool emulator;                       /* mounts of its own on top: /tmp, /proc */
    gid_t kvm_gid;                       /* supplementary group, 0: none */
    uint32_t uid;
    struct rlimit files;
    const char *const *argv;
};

struct machine {
    struct runtime *runtime;
    char tag[RUNTIME_TAG_SIZE];
    uint32_t uid;
    uint32_t controllers;
    bool limited; /* machine_limit() was called */
    pid_t pid;
    int place; /* reserved descriptor its child still uses, -1: none any more */
    int pidfd, setup_fd;
    struct monitor_arguments arguments;     /* the child's, until its exec */
    _Alignas(16) unsigned char stack[4096]; /* of the child until its exec */
};

static const uint64_t no_signals; /* a kernel's sigset_t */
static const char *const monitor_env[] = {"PATH=/usr/bin:/bin", NULL};

static CHILD_CODE bool enter_namespaces(const struct monitor_arguments *a)
{
    for (int i = 0; i < VOID_NAMESPACES + 1; i++)
        if (child_call(SYS_setns, a->namespaces[i], 0, 0, 0, 0))
            return false;
    if (!a->emulator)
        return true;
    return !child_call(SYS_unshare, CLONE_NEWNS, 0, 0, 0, 0) &&
           !child_call(SYS_mount, (long)"tmpfs", (long)"/tmp", (long)"tmpfs", MS_NODEV | MS_NOSUID | MS_NOEXEC,
                       (long)"size=1m,mode=1777") &&
           !child_call(SYS_mount, (long)"proc", (long)"/proc", (long)"proc", MS_NODEV | MS_NOSUID | MS_NOEXEC, 0);
}

static CHILD_CODE bool take_uid(const struct monitor_arguments *a)
{
    return !child_call(SYS_setgroups, a->kvm_gid ? 1 : 0, (long)&a->kvm_gid, 0, 0, 0) &&
           !child_call(SYS_setresgid, a->uid, a->uid, a->uid, 0, 0) &&
           !child_call(SYS_setresuid, a->uid, a->uid, a->uid, 0, 0);
}

/* The descriptors it needs are lifted out of the way first: whatever numbers they had, none is overwritten. */
static CHILD_CODE __attribute__((noreturn, used)) void monitor_run(const void *arguments)
{
    struct monitor_arguments *a = (struct monitor_arguments *)(uintptr_t)arguments;

    child_own_files(&a->own);
    child_own_scheduling(SCHED_OTHER);
    bool ready = enter_namespaces(a);
    int setup = (int)child_call(SYS_fcntl, a->setup, F_DUPFD, EXEC_FD + 1, 0, 0);
    int program = (int)child_call(SYS_fcntl, a->program, F_DUPFD, EXEC_FD + 1, 0, 0);
    int null = (int)child_call(SYS_fcntl, a->null, F_DUPFD, EXEC_FD + 1, 0, 0);

    for (int i = 0; i <= 2; i++)
        child_call(SYS_dup3, null, i, 0, 0, 0);
    child_call(SYS_dup3, setup, SETUP_FD, 0, 0, 0);
    child_call(SYS_dup3, program, EXEC_FD, O_CLOEXEC, 0, 0);
    child_call(SYS_close_range, EXEC_FD + 1, ~0u, 0, 0, 0);
    child_call(SYS_prlimit64, 0, RLIMIT_FSIZE, (long)&a->files, 0, 0); /* refused only where there is a lower one */
    /* all were blocked for the clone; nobody knows this process yet, so none is pending for the launcher's handlers */
    child_call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&no_signals, 0, sizeof(no_signals), 0);
    if (ready && take_uid(a))
        child_call(SYS_execveat, EXEC_FD, (long)"", (long)a->argv, (long)monitor_env, AT_EMPTY_PATH);
    for (;;)
        child_call(SYS_exit, 127, 0, 0, 0, 0);
}

static gid_t kvm_group(void)
{
    struct stat st;

    return stat("/dev/kvm", &st) == 0 ? st.st_gid : 0;
}

static int spawn_monitor(struct machine *m, enum machine_program program, uint64_t file_bytes, struct error **err)
{
    struct runtime *runtime = m->runtime;
    auto_fd int unified = cgroup_open_unified(&runtime->cgroups, m->tag);
    auto_fd int child_end = -1;
    struct clone_args args = {
        .flags = CLONE_VM | CLONE_FILES | CLONE_NEWPID | CLONE_PIDFD | (unified >= 0 ? CLONE_INTO_CGROUP : 0),
        .pidfd = (uintptr_t)&m->pidfd,
        .stack = (uintptr_t)m->stack,
        .stack_size = sizeof(m->stack),
        .cgroup = unified >= 0 ? (uint64_t)unified : 0,
    };
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        return error_set_errno(err, errno, "START_FAILED", "no setup socket for a monitor");
    m->setup_fd = ends[0];
    child_end = ends[1];
    m->arguments = (struct monitor_arguments){.program = runtime->monitor_fds[program],
                                              .null = runtime->null_fd,
                                              .emulator = program == MACHINE_QEMU,
                                              .kvm_gid = program == MACHINE_QEMU ? kvm_group() : 0,
                                              .uid = m->uid,
                                              .files = {file_bytes, file_bytes},
                                              .argv = program_argv[program]};
    memcpy(m->arguments.namespaces, runtime->void_fds, sizeof(runtime->void_fds));
    m->arguments.namespaces[VOID_NAMESPACES] =
        program == MACHINE_QEMU ? runtime->emulator_mounts_fd : runtime->void_mounts_fd;
    m->place = spawn_place_take(runtime, child_end, &m->arguments.own);
    if (m->place < 0)
        return error_set_errno(err, -m->place, "START_FAILED", "no setup socket for a monitor");
    m->arguments.setup = runtime->places[m->place].fd;
    long pid = spawn_clone(runtime, &(struct spawn_place){m->tag, m->controllers, -1, 0}, &args, monitor_run,
                           &m->arguments, err);
    if (pid < 0)
        return (int)pid;
    m->pid = (pid_t)pid;
    return spawn_reset_oom_score(runtime, m->pid, err);
}

bool machine_program_present(const struct runtime *runtime, enum machine_program program)
{
    return runtime->monitor_fds[program] >= 0;
}

static struct machine *machine_new(struct runtime *runtime, const char *tag, uint32_t uid)
{
    struct machine *m = calloc(1, sizeof(*m));

    if (!m)
        return NULL;
    m->runtime = runtime;
    m->uid = uid;
    m->place = m->pidfd = m->setup_fd = -1;
    snprintf(m->tag, sizeof(m->tag), "%s", tag);
    return m;
}

void machine_settle(struct machine *m)
{
    spawn_place_settle(m->runtime, m->place, m->pid, m->pidfd, &m->arguments.own);
    m->place = -1;
}

static void machine_free(struct machine *m)
{
    machine_settle(m);
    close_fd(m->setup_fd);
    close_fd(m->pidfd);
    free(m);
}

int machine_create(struct runtime *runtime, const char *tag, uint32_t uid, enum machine_program program,
                   uint64_t file_bytes, const struct limits *limits, struct machine **ret_machine, struct steps *steps,
                   struct error **err)
{
    uint64_t begun = monotonic_ns(), made;
    struct machine *m;
    int result;

    if (!tag_valid(tag) || uid < RUNTIME_ID_COUNT)
        return error_set(err, EINVAL, "INVALID_VALUE", "a monitor needs a tag and a uid of its own");
    if (!machine_program_present(runtime, program)) {
        error_set(err, ENOENT, "TECHNOLOGY_UNAVAILABLE", "%s is not installed", program_names[program]);
        error_hint(err, "it belongs beside coracle-init: install Coracle again");
        return -ENOENT;
    }
    m = machine_new(runtime, tag, uid);
    if (!m)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a machine");
    m->controllers = cgroup_default_set(&runtime->cgroups);
    if (limits)
        m->controllers |= cgroup_needed(limits) & runtime->cgroups.v1;
    result = cgroup_make(&runtime->cgroups, tag, m->controllers, err);
    if (result) {
        machine_free(m);
        return result;
    }
    made = monotonic_ns();
    steps_add(steps, "cgroups", begun, made);
    result = spawn_monitor(m, program, file_bytes, err);
    steps_add(steps, "monitor", made, monotonic_ns());
    if (result) {
        machine_destroy(m, NULL);
        return result;
    }
    *ret_machine = m;
    return 0;
}

int machine_setup_fd(const struct machine *m)
{
    return m->setup_fd;
}

int machine_pidfd(const struct machine *m)
{
    return m->pidfd;
}

uint32_t machine_uid(const struct machine *m)
{
    return m->uid;
}

int machine_limit(struct machine *m, const struct limits *limits, struct error **err)
{
    const struct cgroups *cgroups = &m->runtime->cgroups;
    int result = cgroup_check(cgroups, limits, err);

    if (!result)
        result = cgroup_join_missing(cgroups, m->tag, limits, err);
    if (!result) /* from the second time on what is not asked for is taken back: it was another's wish */
        result = cgroup_apply(cgroups, m->tag, limits, m->limited, err);
    m->limited = true;
    return result;
}

int machine_become(struct machine *m, int instance_dirfd, struct container **ret_container, struct error **err)
{
    auto_fd int instance_fd = fcntl(instance_dirfd, F_DUPFD_CLOEXEC, 3);
    struct container *container = instance_fd < 0 ? NULL : calloc(1, sizeof(*container));

    if (!container)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the running instance");
    container->runtime = m->runtime;
    memcpy(container->record.tag, m->tag, sizeof(m->tag));
    container->record.pid = m->pid;
    container->record.start_time = process_start_time(m->runtime, m->pid);
    container->record.uid_base = m->uid;
    container->record.machine = true;
    machine_settle(m);
    container->pidfd = take_fd(&m->pidfd);
    container->application_pidfd = -1;
    container->instance_fd = take_fd(&instance_fd);
    machine_free(m);
    *ret_container = container;
    return 0;
}

int machine_destroy(struct machine *m, struct error **err)
{
    int result;

    if (!m)
        return 0;
    result = remains_destroy(m->runtime, m->tag, m->pidfd, err);
    machine_free(m);
    return result;
}

int monitor_descriptors_keep(struct runtime *runtime, struct error **err)
{
    runtime->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (runtime->null_fd < 0)
        return error_set_errno(err, errno, "INTERNAL", "/dev/null: cannot be opened");
    spawn_keep(runtime, runtime->null_fd);
    for (int i = 0; i < MACHINE_PROGRAMS; i++)
        spawn_keep(runtime, runtime->monitor_fds[i]);
    for (int i = 0; i < VOID_NAMESPACES; i++)
        spawn_keep(runtime, runtime->void_fds[i]);
    spawn_keep(runtime, runtime->void_mounts_fd);
    spawn_keep(runtime, runtime->emulator_mounts_fd);
    return 0;
}

int monitor_programs_load(struct runtime *runtime, const char *directory, struct error **err)
{
    char path[4096];
    int result;

    for (int i = 0; i < MACHINE_PROGRAMS; i++) {
        snprintf(path, sizeof(path), "%s/%s", directory, program_names[i]);
        if (access(path, F_OK))
            continue;
        result = program_load(path, program_names[i], &runtime->monitor_fds[i], err);
        if (result)
            return result;
    }
    return 0;
}
