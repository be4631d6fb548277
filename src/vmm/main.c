/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coracle-vmm: one process, one VM. Started by a person (coracle-vmm(1)): parses its options, opens what they name, has
 * the machine made and run (machine.h), tells how it ended. Started by the launcher: see supervised.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "vmm/boot_pvh.h"
#include "vmm/devices/balloon.h"
#include "vmm/machine.h"
#include "vmm/options.h"
#include "vmm/output.h"
#include "vmm/probe.h"
#include "vmm/sandbox.h"
#include "vmm/supervised.h"
#include "vmm/wire.h"

/* Exit statuses besides the guest's own. */
enum { EXIT_WRONG_OPTIONS = 64, EXIT_NOT_STARTED = 125, EXIT_SIGNAL = 128 };

static int open_kvm(struct error **err)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (fd < 0) {
        error_set_errno(err, errno, "TECHNOLOGY_UNAVAILABLE", "/dev/kvm");
        error_hint(err, "load kvm_intel or kvm_amd, or join the group kvm");
        return -EACCES;
    }
    return fd;
}

/* A description of its own, so that what this process does not wait for, others may: a pipe or terminal is opened
 * again. */
static int open_input(int fd, struct error **err)
{
    char path[32];
    struct epoll_event event = {.events = EPOLLIN};

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    auto_fd int own = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (own < 0) { /* a socket */
        own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (own < 0 || fcntl(own, F_SETFL, O_NONBLOCK) < 0)
            return error_set_errno(err, errno, "START_FAILED", "--input %d", fd);
    }
    auto_fd int probe = epoll_create1(EPOLL_CLOEXEC);
    if (probe < 0 || epoll_ctl(probe, EPOLL_CTL_ADD, own, &event) < 0)
        return error_set(err, EINVAL, "INVALID_VALUE", "--input %d: not a pipe, socket or terminal", fd);
    return take_fd(&own);
}

static int open_disks(const struct options *o, struct machine_extras *x, struct error **err)
{
    for (unsigned i = 0; i < o->disk_count; i++) {
        struct machine_disk *disk = &x->disks[x->disk_count];
        auto_free char *path = strndup(o->disks[i].path, o->disks[i].length);

        if (!path)
            return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a path");
        disk->mode = o->disks[i].mode;
        disk->fd = open(path, (disk->mode == BLOCK_WRITABLE ? O_RDWR : O_RDONLY) | O_CLOEXEC);
        if (disk->fd < 0)
            return error_set_errno(err, errno, "IMAGE_NOT_FOUND", "disk %s", path);
        x->disk_count++;
    }
    return 0;
}

/* The socket of a monitor that is gone is in the way: later it could not take it away itself. */
static int open_vsock(const char *path, struct error **err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const struct sockaddr *a = (const struct sockaddr *)&address;
    auto_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    memcpy(address.sun_path, path, strnlen(path, sizeof(address.sun_path) - 1));
    if (fd >= 0 && connect(fd, a, sizeof(address)) < 0 && errno == ECONNREFUSED)
        unlink(path);
    fd = close_fd(fd);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, a, sizeof(address)) < 0 || listen(fd, SOMAXCONN) < 0)
        return error_set_errno(err, errno, "START_FAILED", "vsock %s", path);
    return take_fd(&fd);
}

static int open_extras(const struct options *o, struct machine_extras *x, struct error **err)
{
    *x = (struct machine_extras){
        .console = o->console, .entropy = o->entropy, .balloon = o->balloon, .console_fd = -1, .vsock_fd = -1};
    if (o->input_fd >= 0) {
        x->console_fd = open_input(o->input_fd, err);
        if (x->console_fd < 0)
            return x->console_fd;
    }
    if (o->vsock) {
        x->vsock = true;
        x->vsock_cid = o->cid;
        x->vsock_fd = open_vsock(o->vsock, err);
        if (x->vsock_fd < 0)
            return x->vsock_fd;
    }
    return open_disks(o, x, err);
}

/* The kernel decides what machine it gets: a unikernel one without ring 0. */
static int choose_shape(int kernel_fd, const struct options *o, struct vm_shape *ret, struct error **err)
{
    enum kernel_kind kind = KERNEL_PVH;
    const uint8_t *file = NULL;
    size_t size = 0;
    int r = machine_map_file(kernel_fd, o->kernel, &file, &size, err);

    if (r == 0)
        r = kernel_kind(file, size, &kind, err);
    machine_unmap_file(file, size);
    if (r < 0)
        return r;
    *ret = (struct vm_shape){.vcpus = o->vcpus, .ring0 = kind != KERNEL_UNIKERNEL || o->pvh};
    if (!ret->ring0 && (o->vcpus > 1 || o->initrd))
        return error_set(err, EINVAL, "INVALID_VALUE", "a unikernel has one vCPU and no initrd");
    return 0;
}

static int start(struct machine *m, const struct options *o, struct error **err)
{
    struct machine_load load = {.kernel_name = o->kernel, .parameters = o->parameters};
    struct vm_shape shape;
    auto_fd int kernel = open(o->kernel, O_RDONLY | O_CLOEXEC);
    auto_fd int initrd = o->initrd ? open(o->initrd, O_RDONLY | O_CLOEXEC) : -1;

    if (kernel < 0 || (o->initrd && initrd < 0))
        return error_set_errno(err, errno, "IMAGE_NOT_FOUND", "%s", kernel < 0 ? o->kernel : o->initrd);
    int r = choose_shape(kernel, o, &shape, err);
    int kvm = r < 0 ? r : open_kvm(err);
    if (kvm < 0)
        return kvm;
    r = machine_prepare(m, kvm, o->memory_bytes, o->vhost_user != NULL, &shape, err);
    if (r == 0)
        r = wires_open(o, &load, err);
    if (r == 0)
        r = open_extras(o, &load.extras, err);
    if (r < 0)
        return r;
    load.kernel_fd = kernel;
    load.initrd_fd = initrd;
    r = machine_enclose(m, true, err);
    if (r == 0)
        r = vm_route_interrupts(m->vm, err);
    if (r == 0)
        r = machine_load(m, &load, err);
    if (r == 0 && o->balloon_bytes && balloon_set(m->balloon, o->balloon_bytes) < 0)
        r = error_set(err, ERANGE, "INVALID_VALUE", "--balloon: more than the guest's memory");
    kernel = close_fd(kernel);
    initrd = close_fd(initrd);
    return r < 0 ? r : machine_confine(m, err);
}

int main(int argc, char **argv)
{
    static struct machine machine;
    struct options o;
    auto_error struct error *err = NULL;

    if (options_parse(argc, argv, &o, &err) < 0) {
        fprintf(stderr, "coracle-vmm: %s%s%s\n", err->message, err->hint ? "; try: " : "", err->hint ? err->hint : "");
        return EXIT_WRONG_OPTIONS;
    }
    if (o.supervised)
        return supervised_run();
    if (o.probe)
        return kvm_probe_print();
    if (!o.kernel)
        return EXIT_SUCCESS;
    int r = sandbox_begin(o.console_fd, o.input_fd, &err);
    log_open("coracle-vmm", getenv("CORACLE_DEBUG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
    output_to_descriptor(o.console_fd);
    tzset(); /* reads a file, which is not possible later */
    if (r == 0)
        r = start(&machine, &o, &err);
    if (r < 0) {
        log_error(NULL, err, "cannot run %s", o.kernel);
        return EXIT_NOT_STARTED;
    }
    int status = machine_run(&machine);
    _exit(WIFSIGNALED(status) ? EXIT_SIGNAL + WTERMSIG(status)
                              : WEXITSTATUS(status)); /* no destructors: they would need calls that are gone */
}
