/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shells: containers without an application yet. Made, given a root, started or destroyed (runtime.h tells the order).
 *
 * Requests to the init are sent without waiting: it mounts the root on another processor while the launcher builds the
 * network. `pending` counts the answers still to come; whoever needs to know collects them all.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "model/capability.h"
#include "runtime/internal.h"

enum { START_TIMEOUT_MS = 10000 };

bool tag_valid(const char *tag)
{
    size_t length = strlen(tag);

    return length && length < RUNTIME_TAG_SIZE && tag[0] != '.' &&
           strspn(tag, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == length;
}

static void shell_free(struct shell *shell)
{
    spawn_settle(shell);
    close_fd(shell->control_fd);
    close_fd(shell->netns_fd);
    close_fd(shell->pidfd);
    close_fd(shell->writable_fd);
    close_fd(shell->reply_fd);
    free(shell);
}

int shell_create(struct runtime *runtime, const char *tag, uint32_t uid_base, struct shell **ret_shell,
                 struct steps *steps, struct error **err)
{
    struct shell *shell;
    uint64_t begun = monotonic_ns();
    int result;

    if (!tag_valid(tag))
        return error_set(err, EINVAL, "INVALID_VALUE", "tag \"%.80s\" cannot name a cgroup", tag);
    if (uid_base < RUNTIME_ID_COUNT || uid_base > UINT32_MAX - RUNTIME_ID_COUNT)
        return error_set(err, EINVAL, "INVALID_VALUE", "uid base %u is out of range", uid_base);
    shell = calloc(1, sizeof(*shell));
    if (!shell)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a shell");
    *shell = (struct shell){.runtime = runtime,
                            .uid_base = uid_base,
                            .place = -1,
                            .pidfd = -1,
                            .netns_fd = -1,
                            .control_fd = -1,
                            .writable_fd = -1,
                            .reply_fd = -1,
                            .created_ns = begun};
    strcpy(shell->tag, tag);
    shell->controllers = cgroup_default_set(&runtime->cgroups);
    result = cgroup_make(&runtime->cgroups, tag, shell->controllers, err);
    if (result) {
        shell_free(shell);
        return result;
    }
    steps_add(steps, "cgroups", begun, monotonic_ns());
    result = spawn_init(shell, steps, err);
    if (result) {
        shell_destroy(shell, NULL);
        return result;
    }
    *ret_shell = shell;
    return 0;
}

int shell_netns_fd(const struct shell *shell)
{
    return shell->netns_fd;
}

pid_t shell_pid(const struct shell *shell)
{
    return shell->pid;
}

int shell_pidfd(const struct shell *shell)
{
    return shell->pidfd;
}

const char *shell_tag(const struct shell *shell)
{
    return shell->tag;
}

uint32_t shell_uid_base(const struct shell *shell)
{
    return shell->uid_base;
}

/* The bounding set of the whole container: what any application may get, and what the init itself needs to set host
 * name and cgroup namespace (SYS_ADMIN, dropped once the application runs) and others' uids. */
static uint64_t container_bounding(void)
{
    return capability_allowed_set() | 1u << CAP_SETPCAP | 1u << CAP_SYS_ADMIN;
}

static int send_root(struct shell *shell, int root_fd, const struct root_mounts *mounts)
{
    const struct runtime *runtime = shell->runtime;
    size_t filter_bytes = runtime->filter_count * sizeof(struct sock_filter);
    size_t program_bytes = shell->program ? strlen(shell->program) + 1 : 0;
    auto_buffer struct buffer message = {0};
    struct init_root root = {
        .header = {INIT_PROTOCOL, INIT_ROOT, (uint32_t)(sizeof(root) + filter_bytes + program_bytes)},
        .flags = (mounts->read_only ? INIT_ROOT_READ_ONLY : 0) | (runtime->resolv_conf ? INIT_ROOT_RESOLV : 0),
        .landlock_abi = (uint32_t)runtime->facts.landlock_abi,
        .bounding = container_bounding(),
        .filter_count = runtime->filter_count,
        .present = mounts->masks_present,
        .program_size = (uint32_t)program_bytes,
    };

    buffer_add(&message, &root, sizeof(root));
    buffer_add(&message, runtime->filter, filter_bytes);
    buffer_add(&message, shell->program, program_bytes);
    if (message.failed)
        return -ENOMEM;
    return channel_send(shell->control_fd, message.data, message.length, &root_fd, 1);
}

static int give_root(struct shell *shell, const struct root_mounts *mounts, struct error **err)
{
    auto_fd int root_fd = mounts->root_fd;
    int result;

    shell->writable_fd = mounts->writable_fd;
    shell->read_only = mounts->read_only;
    result = send_root(shell, root_fd, mounts);
    shell->program = NULL;
    if (result)
        return error_set_errno(err, -result, "START_FAILED", "the container's init ended early");
    shell->pending++;
    return 0;
}

int shell_set_root(struct shell *shell, const struct plan_root *root, int instance_dirfd, struct steps *steps,
                   struct error **err)
{
    struct root_mounts mounts;
    int result = root_build(shell->runtime, shell->uid_base, root, instance_dirfd, &mounts, steps, err);

    return result ? result : give_root(shell, &mounts, err);
}

int shell_take_root(struct shell *shell, struct root_work *work, struct steps *steps, struct error **err)
{
    struct root_mounts mounts;
    int result = root_end(work, &mounts, steps, err);

    return result ? result : give_root(shell, &mounts, err);
}

void shell_expect(struct shell *shell, const char *program)
{
    shell->program = program;
}

int shell_preset(struct shell *shell, const struct limits *limits, struct error **err)
{
    int result = cgroup_apply(&shell->runtime->cgroups, shell->tag, limits, false, err);

    if (!result)
        shell->preset = *limits;
    return result;
}

/* Collects one answer into shell->reply. */
static int collect(struct shell *shell, int timeout_ms, const struct plan_process *process, struct error **err)
{
    int result;

    shell->reply_fd = close_fd(shell->reply_fd);
    result = channel_receive(shell->control_fd, timeout_ms, &shell->reply, &shell->reply_fd, 1);
    if (result) {
        shell->failed = true;
        if (result == -ETIMEDOUT)
            return error_set(err, ETIMEDOUT, "TIMEOUT", "the container's init did not answer within %d ms", timeout_ms);
        return error_set_errno(err, -result, "START_FAILED", "the container's init ended early");
    }
    shell->pending--;
    if (shell->reply.header.type == INIT_FAILED) {
        shell->failed = true;
        return failure_error(&shell->reply, process, false, err);
    }
    return 0;
}

int shell_wait(struct shell *shell, int timeout_ms, struct error **err)
{
    spawn_settle(shell);
    while (shell->pending) {
        int result = collect(shell, timeout_ms, NULL, err);

        if (result)
            return result;
    }
    return 0;
}

/* ---- start ---- */

/* The text of /etc/hosts: loopback, and the container's own addresses. */
static void add_hosts(struct buffer *text, const struct launch_plan *plan)
{
    char address[INET6_ADDRSTRLEN];

    buffer_text(text, "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    for (size_t i = 0; i < plan->nic_count; i++) {
        if (plan->nics[i].prefix4 && inet_ntop(AF_INET, &plan->nics[i].ipv4, address, sizeof(address)))
            buffer_printf(text, "%s %s\n", address, plan->hostname);
        if (plan->nics[i].prefix6 && inet_ntop(AF_INET6, &plan->nics[i].ipv6, address, sizeof(address)))
            buffer_printf(text, "%s %s\n", address, plan->hostname);
    }
}

/* Descriptors that go with INIT_START, in the order protocol.h says. The tasks files at the end are ours to close. */
struct start_fds {
    int list[INIT_FD_MAX];
    size_t count, borrowed;
    uint32_t flags;
};

static void close_start_fds(struct start_fds *fds)
{
    while (fds->count > fds->borrowed)
        close(fds->list[--fds->count]);
}

/* v1 controllers that this start needs and creation did not make: the init moves itself there before it forks. */
static int add_controllers(struct shell *shell, uint32_t needed, struct start_fds *fds, struct error **err)
{
    const struct cgroups *cgroups = &shell->runtime->cgroups;
    uint32_t more = needed & cgroups->v1 & ~shell->controllers;
    int result = 0;

    for (unsigned i = 0; i < CGROUP_CONTROLLERS && !result; i++) {
        if (!(more & (1u << i)))
            continue;
        /* The cgroup2 directory exists already: only the v1 one is made. */
        struct cgroups only = *cgroups;

        only.parent_fd[CGROUP_UNIFIED] = -1;
        result = cgroup_make(&only, shell->tag, 1u << i, err);
        if (result)
            break;
        shell->controllers |= 1u << i;
        fds->list[fds->count] = cgroup_open_tasks(cgroups, shell->tag, i);
        if (fds->list[fds->count] < 0)
            result = error_set_errno(err, errno, "START_FAILED", "the tasks of cgroup %s cannot be opened", shell->tag);
        else
            fds->count++;
    }
    return result;
}

static int gather_fds(struct shell *shell, const struct shell_start *start, struct start_fds *ret_fds,
                      struct error **err)
{
    ret_fds->list[ret_fds->count++] = start->exit_fd;
    if (start->log_fds[0] >= 0 && start->log_fds[1] >= 0) {
        ret_fds->list[ret_fds->count++] = start->log_fds[0];
        ret_fds->list[ret_fds->count++] = start->log_fds[1];
        ret_fds->flags |= INIT_START_LOG;
    }
    if (start->listen_fd >= 0) {
        ret_fds->list[ret_fds->count++] = start->listen_fd;
        ret_fds->flags |= INIT_START_LISTEN;
    }
    ret_fds->borrowed = ret_fds->count;
    return add_controllers(shell, cgroup_needed(&start->plan->limits), ret_fds, err);
}

static int send_start(struct shell *shell, const struct shell_start *start, const struct start_fds *fds)
{
    const struct launch_plan *plan = start->plan;
    const struct runtime *runtime = shell->runtime;
    auto_buffer struct buffer message = {0};
    struct init_start header = {
        .header = {INIT_PROTOCOL, INIT_START, 0},
        .flags = fds->flags,
        .tasks_count = (uint32_t)(fds->count - fds->borrowed),
        .log_bytes_max = plan->log_bytes_max,
        .capabilities = capability_default_set() | plan->capabilities,
        .ambient = plan->capabilities & ~capability_default_set(),
        .resolv_size = runtime->resolv_conf ? (uint32_t)strlen(runtime->resolv_conf) : 0,
        .label_size = runtime->label ? (uint32_t)strlen(runtime->label) : 0,
    };
    size_t mark;

    snprintf(header.hostname, sizeof(header.hostname), "%s", plan->hostname);
    buffer_add(&message, &header, sizeof(header));
    channel_add_process(&message, offsetof(struct init_start, process), &plan->process);
    mark = message.length;
    add_hosts(&message, plan);
    header.hosts_size = (uint32_t)(message.length - mark);
    buffer_add(&message, runtime->resolv_conf, header.resolv_size);
    buffer_add(&message, runtime->label, header.label_size);
    if (message.failed)
        return -ENOMEM;
    if (message.length > INIT_MESSAGE_MAX)
        return -E2BIG;
    struct init_start *sent = (struct init_start *)(void *)message.data;
    sent->header.size = (uint32_t)message.length;
    sent->hosts_size = header.hosts_size;
    return channel_send(shell->control_fd, message.data, message.length, fds->list, fds->count);
}

static int check_start(const struct shell *shell, const struct shell_start *start, struct error **err)
{
    uint32_t refused = start->plan->capabilities & ~runtime_capabilities_allowed();

    if (shell->failed)
        return error_set(err, EINVAL, "INTERNAL", "a failed shell cannot be started");
    if (refused)
        return error_set(err, EPERM, "INVALID_VALUE", "capabilities 0x%x are never given to an instance", refused);
    if (!start->plan->process.argv || !start->plan->process.argv[0])
        return error_set(err, EINVAL, "INVALID_VALUE", "no command to execute");
    return cgroup_check(&shell->runtime->cgroups, &start->plan->limits, err);
}

/* The shell's descriptors and pid become the container's. */
static struct container *container_from(struct shell *shell, int instance_fd)
{
    struct container *container = calloc(1, sizeof(*container));

    if (!container)
        return NULL;
    container->runtime = shell->runtime;
    strcpy(container->record.tag, shell->tag);
    container->record.pid = shell->pid;
    container->record.start_time = process_start_time(shell->runtime, shell->pid);
    container->record.uid_base = shell->uid_base;
    container->pidfd = take_fd(&shell->pidfd);
    container->application_pidfd = take_fd(&shell->reply_fd);
    container->instance_fd = instance_fd;
    return container;
}

static void add_init_steps(struct steps *steps, const struct init_reply *reply, const char *first, const char *second)
{
    if (reply->times[1] >= reply->times[0])
        steps_add(steps, first, reply->times[0], reply->times[1]);
    if (reply->times[2] >= reply->times[1])
        steps_add(steps, second, reply->times[1], reply->times[2]);
}

/* What the launcher does before the init hears of the start: cgroups, limits, the writable layer's place. */
static int prepare_start(struct shell *shell, const struct shell_start *start, struct start_fds *fds,
                         struct error **err)
{
    struct limits left = start->plan->limits;
    int result = gather_fds(shell, start, fds, err);

    if (left.memory_bytes == shell->preset.memory_bytes)
        left.memory_bytes = 0;
    if (left.pids == shell->preset.pids)
        left.pids = 0;
    if (!result)
        result = cgroup_apply(&shell->runtime->cgroups, shell->tag, &left, false, err);
    if (!result && shell->writable_fd >= 0) {
        result = root_keep_writable(shell->writable_fd, start->instance_dirfd, err);
        if (!result)
            shell->writable_fd = close_fd(shell->writable_fd);
    }
    return result;
}

/* When the init ended before it could be told to start, it said why. */
static int explain_early_end(struct shell *shell, int result, struct error **err)
{
    struct error *why = NULL;
    int cause = shell->pending ? shell_wait(shell, 100, &why) : 0;

    if (why)
        result = cause;
    else
        error_set_errno(&why, -result, "START_FAILED", "the container's init cannot be told what to run");
    if (err)
        *err = why;
    else
        error_free(why);
    return result;
}

static int await_start(struct shell *shell, const struct shell_start *start, struct steps *steps, struct error **err)
{
    int result = 0, timeout_ms = start->timeout_ms > 0 ? start->timeout_ms : START_TIMEOUT_MS;

    shell->pending++;
    while (shell->pending && !result) {
        bool last = shell->pending == 1;

        result = collect(shell, timeout_ms, &start->plan->process, err);
        if (!result)
            add_init_steps(steps, &shell->reply, last ? "prepare" : "mounts", last ? "exec" : "confine");
    }
    return result;
}

static int become_container(struct shell *shell, const struct shell_start *start, struct container **ret_container,
                            struct error **err)
{
    int instance_fd = fcntl(start->instance_dirfd, F_DUPFD_CLOEXEC, 3);
    struct container *container = instance_fd < 0 ? NULL : container_from(shell, instance_fd);

    if (!container) {
        close_fd(instance_fd);
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the running instance");
    }
    shell_free(shell);
    *ret_container = container;
    return 0;
}

int shell_start(struct shell *shell, const struct shell_start *start, struct container **ret_container,
                struct steps *steps, struct error **err)
{
    struct start_fds fds = {.count = 0};
    uint64_t begun = monotonic_ns();
    int result = check_start(shell, start, err);

    if (result)
        return result;
    shell->failed = true; /* until it has become a container */
    spawn_settle(shell);
    result = prepare_start(shell, start, &fds, err);
    if (!result) {
        result = send_start(shell, start, &fds);
        if (result)
            result = explain_early_end(shell, result, err);
    }
    close_start_fds(&fds);
    steps_add(steps, "limits", begun, monotonic_ns());
    if (!result)
        result = await_start(shell, start, steps, err);
    return result ? result : become_container(shell, start, ret_container, err);
}

int shell_destroy(struct shell *shell, struct error **err)
{
    int result;

    if (!shell)
        return 0;
    result = remains_destroy(shell->runtime, shell->tag, shell->pidfd, err);
    shell_free(shell);
    return result;
}

uint32_t runtime_capabilities_allowed(void)
{
    return capability_allowed_set();
}
