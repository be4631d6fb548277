/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Executing another command in a running container, and its console: requests to its init over instances/ID/init.sock.
 *
 * The init starts the command, so it is confined exactly as the application is. One connection per command: the init
 * tells its wait status on it; a connection that is lost changes nothing for the command.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "runtime/internal.h"

enum { EXEC_TIMEOUT_MS = 10000 };

static int check_running(const struct container *container, struct error **err)
{
    if (!container_alive(container))
        return error_set(err, ESRCH, "CONFLICTING_STATE", "the instance has ended");
    if (container_paused(container)) {
        error_set(err, EAGAIN, "CONFLICTING_STATE", "the instance is paused");
        error_hint(err, "resume it first");
        return -EAGAIN;
    }
    return 0;
}

static int send_exec(int socket, const struct plan_process *process, const int stdio[3])
{
    auto_buffer struct buffer message = {0};
    struct init_exec header = {.header = {INIT_PROTOCOL, INIT_EXEC, 0}};
    int fds[3];
    auto_fd int null = -1;

    buffer_add(&message, &header, sizeof(header));
    channel_add_process(&message, offsetof(struct init_exec, process), process);
    if (message.failed)
        return -ENOMEM;
    if (message.length > INIT_MESSAGE_MAX)
        return -E2BIG;
    ((struct init_exec *)(void *)message.data)->header.size = (uint32_t)message.length;
    if (process->tty)
        return channel_send(socket, message.data, message.length, NULL, 0);
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int i = 0; i < 3; i++)
        fds[i] = stdio && stdio[i] >= 0 ? stdio[i] : null;
    return channel_send(socket, message.data, message.length, fds, 3);
}

int container_exec(struct container *container, const struct plan_process *process, const int stdio[3],
                   struct runtime_exec *ret_exec, struct error **err)
{
    struct init_reply reply;
    int fds[2], result = check_running(container, err);

    if (result)
        return result;
    if (container->record.machine)
        return error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "nothing can be executed in a machine from outside");
    if (!process->argv || !process->argv[0])
        return error_set(err, EINVAL, "INVALID_VALUE", "no command to execute");
    auto_fd int socket = channel_connect(container->instance_fd, err);

    if (socket < 0)
        return socket;
    result = send_exec(socket, process, stdio);
    if (!result)
        result = channel_receive(socket, EXEC_TIMEOUT_MS, &reply, fds, 2);
    if (result)
        return error_set_errno(err, -result, "EXEC_FAILED", "the instance's init does not answer");
    if (reply.header.type != INIT_DONE)
        return failure_error(&reply, process, true, err);
    *ret_exec = (struct runtime_exec){reply.number, take_fd(&socket), fds[0], fds[1]};
    return 0;
}

int runtime_exec_signal(const struct runtime_exec *exec, int signal, struct error **err)
{
    int result = pidfd_signal(exec->pidfd, signal);

    if (result)
        return error_set_errno(err, -result, "CONFLICTING_STATE", "signal %d cannot be sent to the command", signal);
    return 0;
}

int runtime_exec_wait(const struct runtime_exec *exec, int *ret_wait_status)
{
    struct init_reply reply;
    int result = channel_receive(exec->connection, 0, &reply, NULL, 0);

    if (result == -ETIMEDOUT || result == -EAGAIN)
        return -EAGAIN;
    if (result)
        return -ECONNRESET;
    *ret_wait_status = reply.wait_status;
    return 0;
}

void runtime_exec_close(struct runtime_exec *exec)
{
    exec->connection = close_fd(exec->connection);
    exec->pidfd = close_fd(exec->pidfd);
    exec->terminal = close_fd(exec->terminal);
}

int container_console(struct container *container, int *ret_fd, struct error **err)
{
    struct init_header request = {INIT_PROTOCOL, INIT_CONSOLE, sizeof(request)};
    struct init_reply reply;
    int fd = -1, result = check_running(container, err);

    if (result)
        return result;
    auto_fd int socket = channel_connect(container->instance_fd, err);

    if (socket < 0)
        return socket;
    result = channel_send(socket, &request, sizeof(request), NULL, 0);
    if (!result)
        result = channel_receive(socket, EXEC_TIMEOUT_MS, &reply, &fd, 1);
    if (result)
        return error_set_errno(err, -result, "EXEC_FAILED", "the instance's init does not answer");
    if (reply.header.type != INIT_DONE || fd < 0)
        return failure_error(&reply, NULL, true, err);
    *ret_fd = fd;
    return 0;
}
