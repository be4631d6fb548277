/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The monitor as the launcher starts it: PREPARE and LOAD come on descriptor 3, the guest runs, the exit file tells how
 * it ended. Until LOAD is done the end of that socket ends the process: a parked machine does not outlive its launcher.
 * Main thread.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "monitor/exit_file.h"
#include "monitor/message.h"
#include "vmm/control.h"
#include "vmm/machine.h"
#include "vmm/output.h"
#include "vmm/sandbox.h"
#include "vmm/supervised.h"

enum { LOOK_MS = 10000 };

static struct {
    struct machine machine;
    struct monitor_message message; /* static: a large one on no stack */
    int setup_fd;
    int exit_fd;
    bool wait;  /* DONE is owed until the guest is ready */
    bool parks; /* the guest has no identity yet */
    uint64_t times[MONITOR_TIMES];
} self = {.setup_fd = MONITOR_SETUP_FD, .exit_fd = -1};

static void done(void)
{
    monitor_send_done(self.setup_fd, self.times, -1);
    self.wait = false;
}

/* The next message of type wanted. 0: the launcher is gone, or what it said was answered by FAILED. */
static int next(enum monitor_type wanted)
{
    auto_error struct error *err = NULL;
    int r = monitor_receive(self.setup_fd, &self.message, &err);

    self.times[0] = machine_now_ns();
    if (r == 1 && self.message.header.type != wanted) {
        r = error_set(&err, EPROTO, "PROTOCOL_ERROR", "%s where %s was expected",
                      monitor_type_name(self.message.header.type), monitor_type_name(wanted));
        monitor_message_end(&self.message);
    }
    if (r < 0)
        monitor_send_failed(self.setup_fd, MONITOR_STAGE_PROTOCOL, err);
    return r == 1;
}

static int unsupported(struct error **err, const char *what)
{
    self.machine.stage = MONITOR_STAGE_SUPPORT;
    return error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "%s", what);
}

static int prepare(struct error **err)
{
    const struct monitor_prepare *p = &self.message.prepare;

    if (self.message.fd_count == 0) {
        error_set(err, ENODEV, "TECHNOLOGY_UNAVAILABLE", "coracle-vmm needs /dev/kvm");
        error_hint(err, "without it the technology runs under QEMU's emulation");
        self.machine.stage = MONITOR_STAGE_VM;
        return -ENODEV;
    }
    if (p->boot != MONITOR_BOOT_UNIKERNEL && p->boot != MONITOR_BOOT_PVH && p->boot != MONITOR_BOOT_LINUX)
        return unsupported(err, "coracle-vmm boots unikernels and kernels only");
    if (p->vcpus != 1 && p->boot == MONITOR_BOOT_UNIKERNEL)
        return unsupported(err, "a unikernel has one vCPU");
    const struct vm_shape shape = {.vcpus = p->vcpus, .ring0 = p->boot != MONITOR_BOOT_UNIKERNEL};
    int r = machine_prepare(&self.machine, take_fd(&self.message.fds[0]), p->memory_bytes,
                            p->flags & MONITOR_MEMORY_SHARED, &shape, err);
    if (r == 0)
        r = machine_enclose(&self.machine, !(p->flags & MONITOR_PREPARE_LEAST), err);
    return r < 0 ? r : control_start(&self.machine, err);
}

static int take_nic(const struct monitor_nic *nic, int *fds, struct net_options *ret, struct error **err)
{
    *ret = net_options_none();
    memcpy(ret->mac, nic->mac, sizeof(ret->mac));
    ret->pairs = nic->queues;
    ret->control = nic->queues > 1;
    for (unsigned i = 0; i < nic->queues && nic->backend != MONITOR_NET_NONE; i++) {
        if (nic->backend == MONITOR_NET_TAP || nic->backend == MONITOR_NET_VHOST)
            ret->tap_fds[i] = take_fd(&fds[i]);
        if (nic->backend == MONITOR_NET_VHOST)
            ret->vhost_fds[i] = take_fd(&fds[nic->queues + i]);
    }
    if (nic->backend != MONITOR_NET_VHOST_USER)
        return 0;
    ret->user_fd = take_fd(&fds[0]);
    if (self.machine.vm->ram.memfd < 0)
        return unsupported(err, "vhost-user needs a machine prepared with shared memory");
    return 0;
}

static int take_nics(const struct monitor_load *l, const struct monitor_load_fds *at, struct machine_load *ret,
                     struct error **err)
{
    int r = 0;

    ret->nic_count = l->nic_count;
    for (unsigned i = 0; r == 0 && i < l->nic_count; i++)
        r = take_nic(&l->nics[i], at->nics[i] < 0 ? NULL : &self.message.fds[at->nics[i]], &ret->nics[i].net, err);
    return r;
}

static void take_extras(const struct monitor_load *l, const struct monitor_load_fds *at, struct machine_extras *ret)
{
    *ret = (struct machine_extras){
        .disk_count = l->disk_count,
        .console = (l->flags & MONITOR_LOAD_CONSOLE) != 0,
        .entropy = (l->flags & MONITOR_LOAD_RANDOM) != 0,
        .balloon = (l->flags & MONITOR_LOAD_BALLOON) != 0,
        .console_fd = CONSOLE_PIPE,
        .vsock = (l->flags & MONITOR_LOAD_VSOCK) != 0,
        .vsock_cid = l->vsock_cid,
        .vsock_fd = -1,
    };
    for (unsigned i = 0; i < l->disk_count; i++)
        ret->disks[i] = (struct machine_disk){
            .fd = take_fd(&self.message.fds[at->disks[i]]),
            .mode = l->disks[i].overlay     ? BLOCK_PRIVATE
                    : l->disks[i].read_only ? BLOCK_READ_ONLY
                                            : BLOCK_WRITABLE,
        };
}

static int check_support(const struct monitor_load *l, struct error **err)
{
    bool ring0 = l->boot != MONITOR_BOOT_UNIKERNEL;

    if (ring0 != self.machine.vm->shape.ring0)
        return unsupported(err, ring0 ? "the machine was prepared for a unikernel"
                                      : "the machine was prepared for a kernel");
    if (!ring0 && (l->flags & MONITOR_LOAD_INITRD))
        return unsupported(err, "a unikernel has no initrd");
    for (unsigned i = 0; i < l->disk_count; i++)
        if (l->disks[i].format != 0)
            return unsupported(err, "coracle-vmm reads raw disks only");
    if (ring0 && (l->flags & (MONITOR_LOAD_RESTORE | MONITOR_LOAD_PARK)))
        return unsupported(err, "coracle-vmm restores and parks unikernels only");
    return 0;
}

static int load(struct error **err)
{
    const struct monitor_load *l = &self.message.load;
    struct machine_load what = {.kernel_name = l->name, .parameters = monitor_parameters(l)};
    struct monitor_load_fds at;
    int r = check_support(l, err);

    if (r < 0)
        return r;
    monitor_load_layout(l, &at);
    self.exit_fd = take_fd(&self.message.fds[at.exit]);
    if (at.log >= 0) {
        const int fds[2] = {take_fd(&self.message.fds[at.log]), take_fd(&self.message.fds[at.log + 1])};
        output_to_log(fds, l->log_bytes_max);
    } else {
        output_to_log(NULL, 0);
    }
    self.parks = what.park = (l->flags & MONITOR_LOAD_PARK) != 0;
    self.wait = (l->flags & MONITOR_LOAD_WAIT) && !self.parks;
    what.restore = (l->flags & MONITOR_LOAD_RESTORE) != 0;
    what.kernel_fd = self.message.fds[at.kernel];
    take_extras(l, &at, &what.extras);
    what.initrd_fd = at.initrd >= 0 ? self.message.fds[at.initrd] : -1;
    r = take_nics(l, &at, &what, err);
    if (r == 0 && what.restore) /* its devices raise interrupts at once */
        r = control_await_start(err);
    if (r == 0)
        r = machine_load(&self.machine, &what, err);
    auto_fd int listen_fd = take_fd(&self.message.fds[at.listen]);
    self.times[1] = machine_now_ns();
    monitor_message_end(&self.message);
    if (r == 0)
        r = control_await_start(err);
    if (r == 0)
        r = machine_confine(&self.machine, err);
    if (r == 0)
        control_serve(take_fd(&listen_fd));
    self.times[2] = machine_now_ns();
    return r;
}

static int step(enum monitor_type wanted, int (*carry_out)(struct error **err))
{
    auto_error struct error *err = NULL;

    if (!next(wanted))
        return -1;
    int r = carry_out(&err);
    if (r < 0)
        monitor_send_failed(self.setup_fd, self.machine.stage, err);
    return r;
}

/* ---- a parked guest ---- */

/* False: a signal wants the end. */
static bool wait_for_word(void)
{
    struct pollfd p = {.fd = self.setup_fd, .events = POLLIN};

    while (!vcpu_is_stopping()) /* a signal that comes just before the wait is seen after it */
        if (poll(&p, 1, LOOK_MS) > 0)
            return true;
    return false;
}

static int identify(struct error **err)
{
    const struct monitor_identity *i = &self.message.identity;

    self.machine.stage = MONITOR_STAGE_DEVICE;
    if (machine_identify(&self.machine, i, monitor_identity_parameters(i), err) < 0)
        return -1;
    if (!(i->flags & MONITOR_IDENTITY_FILES))
        return 0;
    const int logs[2] = {take_fd(&self.message.fds[2]), take_fd(&self.message.fds[3])};
    output_to_other_log(logs, i->log_current, i->log_written);
    close_fd(self.exit_fd);
    self.exit_fd = take_fd(&self.message.fds[0]);
    control_serve_instead(take_fd(&self.message.fds[1]));
    return 0;
}

/* The guest stands still in here, on its own thread: what it has to know is in its memory when it goes on. A parked
 * machine that cannot become anybody, or whose launcher is gone, ends. */
static bool park(void *context)
{
    (void)context;
    if (!self.parks)
        return false;
    done();
    self.parks = false;
    if (!wait_for_word())
        return true;
    if (step(MONITOR_IDENTITY, identify) < 0)
        _exit(EXIT_FAILURE);
    return true;
}

static void on_ready(void *context)
{
    (void)context;
    control_ready();
    if (self.wait)
        done();
}

/* Never returns: destructors would need calls that are gone. */
static void __attribute__((noreturn)) run(void)
{
    auto_error struct error *err = NULL;
    int status;

    self.machine.callbacks.ready = on_ready;
    self.machine.callbacks.park = park;
    self.times[3] = machine_now_ns();
    if (!self.wait && !self.parks)
        done();
    status = machine_run(&self.machine);
    if (self.wait || self.parks) {
        error_set(&err, ECHILD, "START_FAILED", "the guest ended before it was ready");
        error_hint(&err, "its log says why");
        monitor_send_failed(self.setup_fd, MONITOR_STAGE_GUEST, err);
    }
    exit_file_write(self.exit_fd, status);
    _exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

int supervised_run(void)
{
    auto_error struct error *err = NULL;

    log_open("coracle-vmm", LOG_LEVEL_INFO);
    if (sandbox_begin(self.setup_fd, -1, &err) < 0) {
        monitor_send_failed(self.setup_fd, MONITOR_STAGE_SANDBOX, err);
        return EXIT_FAILURE;
    }
    signal(SIGPIPE, SIG_IGN);
    if (step(MONITOR_PREPARE, prepare) < 0)
        return EXIT_FAILURE;
    self.times[1] = self.machine.memory_ns;
    self.times[2] = self.machine.vm_ns;
    self.times[3] = machine_now_ns();
    done();
    monitor_message_end(&self.message);
    if (step(MONITOR_LOAD, load) < 0)
        return EXIT_FAILURE;
    run();
}
