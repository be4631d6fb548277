/* SPDX-License-Identifier: Apache-2.0 */
/* Asking a monitor for a command in its guest's container (machine_exec.h). */
#include "launcher/machine_exec.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "monitor/monitor_client.h"

enum {
    EXEC_TIMEOUT_MS = 60000, /* an emulated guest on a busy host may still be starting */
    SIGNAL_TIMEOUT_MS = 5000,
};

static int connect_monitor(struct launcher *l, struct instance *i, int *ret_fd, struct error **err)
{
    auto_fd int dir = -1;
    int r;

    if (i->paused) {
        error_set(err, EAGAIN, "CONFLICTING_STATE", "the instance is paused");
        error_hint(err, "resume it first");
        return -EAGAIN;
    }
    r = instance_directory(l, i->id, &dir, err);
    return r < 0 ? r : monitor_connect(dir, "init.sock", ret_fd, err);
}

/* A terminal's two ends on this host: the master is the client's, and the other passes bytes on as they are: what a
 * terminal makes of them is done by the one in the guest. */
static int make_terminal(int *ret_master, int *ret_slave, struct error **err)
{
    auto_fd int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), slave = -1;
    struct termios settings;
    int unlock = 0;

    if (master >= 0 && ioctl(master, TIOCSPTLCK, &unlock) == 0)
        slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0 || tcgetattr(slave, &settings) < 0)
        return error_set_errno(err, errno, "EXEC_FAILED", "a terminal cannot be made");
    cfmakeraw(&settings);
    if (tcsetattr(slave, TCSANOW, &settings) < 0)
        return error_set_errno(err, errno, "EXEC_FAILED", "a terminal cannot be set up");
    *ret_master = take_fd(&master);
    *ret_slave = take_fd(&slave);
    return 0;
}

int machine_exec(struct launcher *l, struct instance *i, const struct plan_process *process, const int stdio[3],
                 struct runtime_exec *ret_exec, struct error **err)
{
    const struct monitor_command command = {.user = process->user,
                                            .directory = process->cwd,
                                            .arguments = process->argv,
                                            .env = process->env,
                                            .terminal = process->tty};
    auto_fd int connection = -1, master = -1, slave = -1;
    int r = connect_monitor(l, i, &connection, err);

    if (r == 0 && process->tty)
        r = make_terminal(&master, &slave, err);
    if (r == 0)
        r = instance_asks(i, connection, err);
    if (r < 0)
        return r;
    r = monitor_exec(connection, &command, process->tty ? &slave : stdio, EXEC_TIMEOUT_MS, err);
    r = instance_asked(i, r, err);
    if (r < 0)
        return r;
    *ret_exec = (struct runtime_exec){
        .number = ++i->last_execution, .connection = take_fd(&connection), .pidfd = -1, .terminal = take_fd(&master)};
    return 0;
}

int machine_exec_signal(const struct runtime_exec *exec, int signal, struct error **err)
{
    return monitor_signal_command(exec->connection, signal, err);
}

int machine_exec_wait(const struct runtime_exec *exec, int *ret_wait_status)
{
    return monitor_read_ended(exec->connection, ret_wait_status);
}

int machine_signal(struct launcher *l, struct instance *i, int signal, struct error **err)
{
    auto_fd int connection = -1;
    int r = connect_monitor(l, i, &connection, err);

    if (r == 0)
        r = instance_asks(i, connection, err);
    if (r < 0)
        return r;
    r = monitor_signal(connection, signal, SIGNAL_TIMEOUT_MS, err);
    return instance_asked(i, r, err);
}
