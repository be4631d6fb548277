/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control thread. Theory of operation:
 *
 * A few connections, one request at a time each, answered before the next is read; a peer that does not read its answer
 * loses it (sockets do not block). Requests change the machine under m's pause: first the vCPU stands still, then the
 * device thread, so that nothing of the guest moves. The launcher is trusted with the guest, not with the monitor:
 * whatever comes goes through monitor_receive().
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "monitor/message.h"
#include "vmm/control.h"
#include "vmm/devices/balloon.h"
#include "vmm/devices/net.h"
#include "vmm/devices/vsock.h"
#include "vmm/guest_control.h"
#include "vmm/snapshot.h"

enum { CONNECTION_MAX = 8, STACK_BYTES = 64 * 1024 };

static struct {
    struct machine *machine;
    int listen_fd;                   /* the control thread's */
    int next_fd;                     /* to be listened to in its place, -1: none; atomic */
    int wake_fd;                     /* says so */
    int connections[CONNECTION_MAX]; /* -1: free */
    bool paused;
    uint64_t begun_ns;
    uint64_t ready_ns; /* atomic */
    sem_t started, serving;
    bool awaited;
    int result; /* of what the thread does first, and its error: theirs who waited for it */
    struct error *err;
    struct monitor_message message;
} self;

void control_ready(void)
{
    __atomic_store_n(&self.ready_ns, machine_now_ns(), __ATOMIC_RELEASE);
}

/* ---- requests ---- */

static void send_status(int fd)
{
    const struct machine *m = self.machine;
    const struct vcpu_counters *c = &m->counters;
    uint64_t ready = __atomic_load_n(&self.ready_ns, __ATOMIC_ACQUIRE);
    const struct boot_shared *shared = guest_memory_at(&m->vm->ram.memory, BOOT_SHARED_ADDRESS, sizeof(*shared));
    struct monitor_status s = {
        .header.type = MONITOR_STATUS_REPLY,
        .accelerator = MONITOR_ACCELERATOR_KVM,
        .ready = ready != 0,
        .paused = self.paused,
        .generation = shared ? (uint32_t)__atomic_load_n(&shared->generation, __ATOMIC_RELAXED) : 0,
        .exits = __atomic_load_n(&c->pio, __ATOMIC_RELAXED) + __atomic_load_n(&c->mmio, __ATOMIC_RELAXED),
        .exits_data = __atomic_load_n(&c->data, __ATOMIC_RELAXED),
        .memory_bytes = m->vm->ram.memory.bytes,
        .balloon_bytes = m->balloon ? balloon_actual(m->balloon) : 0,
        .boot_ns = ready ? ready - self.begun_ns : 0,
    };

    monitor_send(fd, &s.header, sizeof(s), NULL, 0, NULL);
}

static void set_paused(bool wanted)
{
    if (wanted == self.paused)
        return;
    if (wanted) {
        vcpu_pause(self.machine->vm);
        loop_pause(self.machine->loop);
    } else {
        loop_resume(self.machine->loop);
        vcpu_resume(self.machine->vm);
    }
    self.paused = wanted;
}

static void refuse(int fd, const char *what)
{
    auto_error struct error *err = NULL;

    error_set(&err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "%s", what);
    monitor_send_failed(fd, MONITOR_STAGE_SUPPORT, err);
}

static void fail(int fd, int error, const char *what)
{
    auto_error struct error *err = NULL;

    error_set_errno(&err, error, "INVALID_VALUE", "%s", what);
    monitor_send_failed(fd, MONITOR_STAGE_DEVICE, err);
}

static void set_memory(int fd, uint64_t bytes)
{
    if (!self.machine->balloon)
        refuse(fd, "this machine has no balloon");
    else if (balloon_set(self.machine->balloon, bytes) < 0)
        fail(fd, ERANGE, "the balloon would be larger than the memory");
    else
        monitor_send_done(fd, NULL, -1);
}

static void write_snapshot(int fd, int file)
{
    const bool before = self.paused;
    auto_error struct error *err = NULL;

    set_paused(true);
    int r = snapshot_write(self.machine->vm, file, &err);
    set_paused(before);
    if (r < 0)
        monitor_send_failed(fd, MONITOR_STAGE_SNAPSHOT, err);
    else
        monitor_send_done(fd, NULL, -1);
}

/* A packet may come into the guest's memory at any time, and nobody here can tell the mover to stop. */
static bool moved_outside(void)
{
    const struct vm *vm = self.machine->vm;

    for (unsigned i = 0; i < vm->device_count; i++)
        if (vm->devices[i]->outside)
            return true;
    return false;
}

static struct device *nth_nic(uint32_t n)
{
    const struct vm *vm = self.machine->vm;

    for (unsigned i = 0; i < vm->device_count; i++)
        if (vm->devices[i]->ops->type == VIRTIO_NET && n-- == 0)
            return vm->devices[i];
    return NULL;
}

static void replace_back_end(int fd, uint32_t nic, int socket)
{
    auto_error struct error *err = NULL;
    auto_fd int own = socket;
    struct device *d = nth_nic(nic);
    int r = 0;

    if (!d)
        r = error_set(&err, ENODEV, "INVALID_VALUE", "there is no network device %u", nic);
    else if (self.paused)
        r = error_set(&err, EBUSY, "INVALID_STATE", "the machine is paused: resume it first");
    else
        r = net_reconnect(d, take_fd(&own), &err);
    if (r < 0)
        monitor_send_failed(fd, MONITOR_STAGE_DEVICE, err);
    else
        monitor_send_done(fd, NULL, -1);
}

/* Both ends do not block: the caller's is its to change. */
static void connect_vsock(int fd, uint32_t port)
{
    int ends[2];

    if (!self.machine->vsock) {
        refuse(fd, "this machine has no vsock device");
        return;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0) {
        fail(fd, errno, "vsock");
        return;
    }
    auto_fd int near = ends[1], far = ends[0];
    int r = vsock_connect(self.machine->vsock, near, port);
    if (r < 0) {
        fail(fd, -r, "vsock: as many streams as there can be");
        return;
    }
    take_fd(&near);
    monitor_send_done(fd, NULL, far);
}

static void power(int fd)
{
    guest_control_stop(self.machine);
    monitor_send_done(fd, NULL, -1);
}

static void serve(int fd, struct monitor_message *request)
{
    switch (request->header.type) {
    case MONITOR_STATUS:
        send_status(fd);
        return;
    case MONITOR_PAUSE:
    case MONITOR_RESUME:
        set_paused(request->header.type == MONITOR_PAUSE);
        monitor_send_done(fd, NULL, -1);
        return;
    case MONITOR_SNAPSHOT:
        if (self.machine->vm->shape.ring0) { /* its interrupt controllers and vCPUs are not in the format */
            refuse(fd, "only a unikernel can be written to a snapshot");
            return;
        }
        if (moved_outside())
            refuse(fd, "a machine with vhost-net or vhost-user cannot be written to a snapshot");
        else
            write_snapshot(fd, request->fds[0]);
        return;
    case MONITOR_NET:
        replace_back_end(fd, request->net.nic, take_fd(&request->fds[0]));
        return;
    case MONITOR_MEMORY:
        set_memory(fd, request->memory.balloon_bytes);
        return;
    case MONITOR_CONSOLE:
        if (self.machine->console_fd < 0)
            refuse(fd, "this machine has no console input");
        else
            monitor_send_done(fd, NULL, self.machine->console_fd);
        return;
    case MONITOR_VSOCK:
        connect_vsock(fd, request->vsock.port);
        return;
    case MONITOR_POWER:
        if (!self.machine->vsock)
            refuse(fd, "this machine has no power button: it has no vsock device");
        else
            power(fd);
        return;
    default:
        refuse(fd, "no request of a running machine");
        return;
    }
}

/* ---- connections ---- */

static void receive(int *connection)
{
    auto_error struct error *err = NULL;
    int r = monitor_receive(*connection, &self.message, &err);

    if (r == -EAGAIN)
        return;
    if (r == 1) {
        serve(*connection, &self.message);
        monitor_message_end(&self.message);
        return;
    }
    if (r < 0)
        monitor_send_failed(*connection, MONITOR_STAGE_PROTOCOL, err);
    *connection = close_fd(*connection);
}

static void accept_one(void)
{
    for (unsigned i = 0; i < CONNECTION_MAX; i++) {
        if (self.connections[i] >= 0)
            continue;
        self.connections[i] = accept4(self.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        return;
    }
}

static void change_listener(void)
{
    uint64_t count;
    int next =
        read(self.wake_fd, &count, sizeof(count)) > 0 ? __atomic_exchange_n(&self.next_fd, -1, __ATOMIC_ACQUIRE) : -1;

    if (next < 0)
        return;
    close_fd(self.listen_fd);
    self.listen_fd = next;
}

static void *control_thread(void *unused)
{
    struct pollfd polled[CONNECTION_MAX + 2];

    (void)unused;
    self.result = vm_route_interrupts(self.machine->vm, &self.err);
    sem_post(&self.started);
    while (sem_wait(&self.serving) < 0)
        ;
    for (;;) {
        bool room = false;

        for (unsigned i = 0; i < CONNECTION_MAX; i++) {
            polled[i] = (struct pollfd){.fd = self.connections[i], .events = POLLIN};
            room |= self.connections[i] < 0;
        }
        polled[CONNECTION_MAX] = (struct pollfd){.fd = room ? self.listen_fd : -1, .events = POLLIN};
        polled[CONNECTION_MAX + 1] = (struct pollfd){.fd = self.wake_fd, .events = POLLIN};
        if (poll(polled, CONNECTION_MAX + 2, -1) < 0)
            continue;
        if (polled[CONNECTION_MAX + 1].revents) {
            change_listener();
            continue;
        }
        for (unsigned i = 0; i < CONNECTION_MAX; i++)
            if (polled[i].revents && self.connections[i] >= 0)
                receive(&self.connections[i]);
        if (polled[CONNECTION_MAX].revents)
            accept_one();
    }
    return NULL;
}

void control_serve(int listen_fd)
{
    self.listen_fd = listen_fd;
    self.begun_ns = machine_now_ns();
    sem_post(&self.serving);
}

void control_serve_instead(int listen_fd)
{
    const uint64_t one = 1;

    close_fd(__atomic_exchange_n(&self.next_fd, listen_fd, __ATOMIC_RELEASE));
    if (write(self.wake_fd, &one, sizeof(one)) < 0)
        return; /* it is told already */
}

int control_start(struct machine *machine, struct error **err)
{
    sigset_t all, before;
    pthread_attr_t attributes;
    pthread_t thread;

    self.machine = machine;
    self.next_fd = -1;
    self.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self.wake_fd < 0)
        return error_set_errno(err, errno, "INTERNAL", "cannot make the control thread's descriptor");
    memset(self.connections, 0xff, sizeof(self.connections));
    sem_init(&self.started, 0, 0);
    sem_init(&self.serving, 0, 0);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all); /* signals are the vCPU thread's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = pthread_create(&thread, &attributes, control_thread, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r != 0)
        return error_set_errno(err, r, "INTERNAL", "cannot start the control thread");
    return 0;
}

int control_await_start(struct error **err)
{
    while (!self.awaited && sem_wait(&self.started) < 0)
        ;
    self.awaited = true;
    if (self.result < 0 && err)
        *err = take_ptr(self.err);
    return self.result;
}
