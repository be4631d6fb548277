/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream of the monitor's own to the guest's agent, made of a socket pair at the start, because later no
 * socket can be made. The message lies in it before the guest is connected. When the stream ends before the guest does,
 * there is nobody who could shut it down, and the vCPU is ended as by a second signal.
 */
#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "abi/agent.h"
#include "base/cleanup.h"
#include "vmm/devices/vsock.h"
#include "vmm/guest_control.h"

static struct {
    int own_fd, guest_fd;
    bool asked; /* atomic */
} self = {-1, -1, false};

/* Device thread: the agent's words, which change nothing, or the end. */
static bool ready(struct device *vsock, unsigned index)
{
    (void)index;
    char words[64];
    ssize_t got;

    (void)vsock;
    if (!__atomic_load_n(&self.asked, __ATOMIC_ACQUIRE) || self.own_fd < 0)
        return false;
    while ((got = read(self.own_fd, words, sizeof(words))) > 0)
        ;
    if (got < 0 && errno == EAGAIN)
        return false;
    self.own_fd = close_fd(self.own_fd);
    vcpu_end(SIGTERM);
    return true;
}

int guest_control_prepare(struct machine *m, struct error **err)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
        return error_set_errno(err, errno, "INTERNAL", "cannot make the guest's control socket");
    self.own_fd = ends[0];
    self.guest_fd = ends[1];
    return loop_add_back_end(m->loop, m->vsock, self.own_fd, 0, ready, err);
}

bool guest_control_stop(struct machine *m)
{
    const char stop[] = AGENT_POWEROFF;
    const ssize_t length = sizeof(stop) - 1;

    if (!m->vsock || self.own_fd < 0 || __atomic_exchange_n(&self.asked, true, __ATOMIC_ACQ_REL))
        return false;
    if (write(self.own_fd, stop, (size_t)length) != length ||
        vsock_connect(m->vsock, self.guest_fd, AGENT_VSOCK_PORT) < 0)
        return false;
    return true;
}
