/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Monitors told what to do (machines.h): PREPARE with the host's KVM, LOAD with the files of an image's layers and the
 * descriptors of an instance. No byte of an image is looked at here: the monitor does that, in its sandbox.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "launcher/instance.h"
#include "launcher/machines.h"
#include "launcher/metadata.h"
#include "launcher/packed.h"
#include "monitor/log_file.h"
#include "monitor/monitor_client.h"

enum {
    PREPARE_TIMEOUT_MS = 10000,
    GROW_TIMEOUT_MS = 20000,
    LOAD_TIMEOUT_MS = 20000,
    GUEST_CID = 3
}; /* the first a guest may have (virtio 1.2, 5.10.4) */

static const char kernel_path[] = "boot/kernel", initrd_path[] = "boot/initrd";
static const struct {
    const char *path;
    uint8_t format;
} disk_paths[] = {{"boot/disk.qcow2", 1}, {"boot/disk.raw", 0}};

_Static_assert((int)PLAN_BOOT_UNIKERNEL == MONITOR_BOOT_UNIKERNEL && (int)PLAN_BOOT_PVH == MONITOR_BOOT_PVH &&
                   (int)PLAN_BOOT_LINUX == MONITOR_BOOT_LINUX && (int)PLAN_BOOT_DISK == MONITOR_BOOT_DISK &&
                   (int)PLAN_BOOT_MULTIBOOT == MONITOR_BOOT_MULTIBOOT,
               "one numbering");
_Static_assert((int)NETWORK_PER_INSTANCE_MAX <= MONITOR_NIC_MAX &&
                   (int)MACHINE_PARAMETERS_MAX <= MONITOR_PARAMETERS_MAX,
               "a plan fits a LOAD");

void machine_kind_of(const struct launch_plan *plan, struct machine_kind *ret)
{
    const struct plan_machine *m = &plan->machine;

    *ret = (struct machine_kind){.monitor = m->monitor,
                                 .boot = m->boot,
                                 .kvm = m->kvm,
                                 .memory_bytes = m->memory_bytes,
                                 .memory_max_bytes = m->memory_max_bytes,
                                 .vcpus = m->vcpus,
                                 .vcpus_max = m->vcpus_max,
                                 .nic_count = (uint32_t)plan->nic_count};
}

static int open_kvm(int *ret_fd, struct error **err)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (fd < 0) {
        error_set_errno(err, errno, "TECHNOLOGY_UNAVAILABLE", "/dev/kvm");
        error_hint(err, "load kvm_intel or kvm_amd, or choose a technology that coracle doctor shows as available");
        return -errno;
    }
    *ret_fd = fd;
    return 0;
}

/*
 * A monitor that its guest took over still has its log files, and a snapshot's: none of them gets longer than an honest
 * one can make it. Memory, and what was written to disks of its own, go into a snapshot; FILE_BYTES is the bound of
 * logs.
 */
#define FILE_BYTES (UINT64_C(1) << 30)

int machine_prepare(struct launcher *l, const struct machine_kind *kind, const char *tag, uint32_t uid,
                    const struct limits *limits, bool least, struct machine **ret_machine, struct steps *steps,
                    struct error **err)
{
    struct monitor_prepare prepare = {.memory_bytes = kind->memory_bytes,
                                      .memory_max_bytes = kind->memory_max_bytes,
                                      .vcpus = kind->vcpus,
                                      .vcpus_max = kind->vcpus_max,
                                      .boot = (uint32_t)kind->boot,
                                      .flags = least ? MONITOR_PREPARE_LEAST : 0,
                                      .nic_count = kind->nic_count};
    struct machine *machine = NULL;
    auto_fd int kvm = -1;
    int r = kind->kvm ? open_kvm(&kvm, err) : 0;

    if (r == 0)
        r = machine_create(l->runtime, tag, uid, kind->monitor == PLAN_MONITOR_VMM ? MACHINE_VMM : MACHINE_QEMU,
                           2 * kind->memory_bytes + FILE_BYTES, limits, &machine, steps, err);
    if (r == 0)
        r = monitor_send_prepare(machine_setup_fd(machine), &prepare, kvm, err);
    if (r < 0) {
        machine_destroy(machine, NULL);
        return r;
    }
    *ret_machine = machine;
    return 0;
}

/* The monitor's own times, as far as they go forward. */
static void add_steps(struct steps *steps, const struct monitor_reply *reply, const char *const names[3])
{
    for (int i = 0; i < 3; i++)
        if (reply->times[i] && reply->times[i + 1] >= reply->times[i])
            steps_add(steps, names[i], reply->times[i], reply->times[i + 1]);
}

/* A guest's image can make a monitor slow: the worker that waits is replaced meanwhile. */
static int await(struct machine *machine, int timeout_ms, struct monitor_reply *ret, struct error **err)
{
    if (runtime_wait_readable(machine_setup_fd(machine), timeout_ms) == 0)
        return error_set(err, ETIMEDOUT, "TIMEOUT", "the machine was not ready within %d ms", timeout_ms);
    return monitor_wait(machine_setup_fd(machine), 1, ret, err);
}

int machine_await_prepared(struct machine *machine, struct steps *steps, struct error **err)
{
    static const char *const names[3] = {"memory", "vm", "vcpu"};
    struct monitor_reply reply;

    machine_settle(machine); /* before a wait: one that does not answer keeps no other from being made */
    int r = await(machine, PREPARE_TIMEOUT_MS, &reply, err);

    if (r == 0)
        add_steps(steps, &reply, names);
    return r;
}

/* A file of the image: in the uppermost layer that has it. No link leads out of a layer, and none inside is followed.
 */
static int open_file(struct launcher *l, const struct plan_root *root, const char *path, int *ret_fd)
{
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    char full[DIGEST_HEX_SIZE + 32];
    struct stat st;

    for (size_t i = 0; i < root->layer_count; i++) {
        snprintf(full, sizeof(full), "%s/%s", root->layers[i], path);
        auto_fd int fd = (int)syscall(SYS_openat2, l->layers_fd, full, &how, sizeof(how));
        if (fd < 0)
            continue;
        if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
            return -EINVAL;
        *ret_fd = take_fd(&fd);
        return 0;
    }
    return -ENOENT;
}

/* The image's files, in the order LOAD wants them. */
struct guest_files {
    int kernel, initrd, disk;
    int metadata; /* a second disk, of the launcher's making; -1: the guest is told by its parameters */
    uint8_t disk_format;
    bool disk_shared; /* the first disk is for many: nothing is written, nor seems to be */
};

static void close_files(struct guest_files *f)
{
    f->kernel = close_fd(f->kernel);
    f->initrd = close_fd(f->initrd);
    f->disk = close_fd(f->disk);
    f->metadata = close_fd(f->metadata);
}

/* The guest's own files are the carrier's; the plan's root comes as a file system. */
static int open_carried(struct launcher *l, const struct launch_plan *plan, struct guest_files *ret, struct error **err)
{
    struct guest_files f = {-1, -1, -1, -1, 0, true};
    struct plan_root carrier = {.layer_count = 1};
    int r;

    memcpy(carrier.layers[0], plan->machine.carrier, sizeof(carrier.layers[0]));
    r = open_file(l, &carrier, kernel_path, &f.kernel);
    if (r == 0)
        r = open_file(l, &carrier, initrd_path, &f.initrd);
    if (r < 0) {
        error_set_errno(err, -r, "IMAGE_MALFORMED", "the image of the carrier has no /%s",
                        f.kernel < 0 ? kernel_path : initrd_path);
        error_hint(err, "build it again: coracle build carrier --for tinyx.kvm");
    }
    if (r == 0)
        r = packed_open(l, &plan->root, &f.disk, err);
    if (r == 0)
        r = container_disk(plan, &f.metadata, err);
    if (r < 0) {
        close_files(&f);
        return r;
    }
    *ret = f;
    return 0;
}

/* restored: kernel and initrd are in the snapshot; the disk below its private writes is not. */
static int open_files(struct launcher *l, const struct launch_plan *plan, bool restored, struct guest_files *ret,
                      struct error **err)
{
    bool from_disk = plan->machine.boot == PLAN_BOOT_DISK, kernel = !from_disk && !restored;
    struct guest_files f = {-1, -1, -1, -1, 0, false};
    int r = kernel ? open_file(l, &plan->root, kernel_path, &f.kernel) : 0;

    if (r == 0 && kernel)
        open_file(l, &plan->root, initrd_path, &f.initrd);
    for (size_t i = 0; i < sizeof(disk_paths) / sizeof(disk_paths[0]) && f.disk < 0; i++)
        if (open_file(l, &plan->root, disk_paths[i].path, &f.disk) == 0)
            f.disk_format = disk_paths[i].format;
    if (r == 0 && from_disk && f.disk < 0)
        r = -ENOENT;
    if (r < 0) {
        close_files(&f);
        error_set_errno(err, -r, "IMAGE_MALFORMED", "the image has no file /%s",
                        from_disk ? "boot/disk.qcow2 or disk.raw" : kernel_path);
        error_hint(err, "build it with coracle build, or import a kernel with coracle image import --guest");
        return r;
    }
    *ret = f;
    return 0;
}

/* LOAD and its descriptors. */
struct load {
    struct monitor_load message;
    int fds[MONITOR_FD_MAX];
    unsigned fd_count;
};

static void add_fd(struct load *load, int fd)
{
    load->fds[load->fd_count++] = fd;
}

static void add_nics(struct load *load, const struct machine_guest *guest)
{
    const struct launch_plan *plan = guest->plan;

    load->message.nic_count = (uint32_t)plan->nic_count;
    for (size_t i = 0; i < plan->nic_count; i++) {
        struct monitor_nic *nic = &load->message.nics[i];
        memcpy(nic->mac, plan->nics[i].mac, sizeof(nic->mac));
        nic->backend = guest->taps ? MONITOR_NET_TAP : MONITOR_NET_NONE;
        nic->queues = 1;
        if (guest->taps)
            add_fd(load, guest->taps[i]);
    }
}

static void fill(struct load *load, const struct machine_guest *guest, const struct guest_files *files)
{
    const struct launch_plan *plan = guest->plan;

    load->message = (struct monitor_load){.boot = (uint32_t)plan->machine.boot, .log_bytes_max = plan->log_bytes_max};
    load->message.flags = (guest->wait ? MONITOR_LOAD_WAIT : 0u) | (guest->park ? MONITOR_LOAD_PARK : 0u);
    if (plan->machine.boot == PLAN_BOOT_UNIKERNEL && plan->machine.monitor == PLAN_MONITOR_VMM &&
        plan->nic_count < MONITOR_NIC_MAX) { /* eight devices are all that it has room for: such a one is just ended */
        load->message.flags |= MONITOR_LOAD_VSOCK; /* its program is told to stop (abi/control.h) */
        load->message.vsock_cid = GUEST_CID;
    }
    if (plan->machine.boot != PLAN_BOOT_UNIKERNEL) /* that one finds its seed in its boot page */
        load->message.flags |= MONITOR_LOAD_RANDOM;
    if (plan->machine.carrier[0])
        load->message.flags |= MONITOR_LOAD_SESSIONS; /* commands in the container, and its output */
    snprintf(load->message.name, sizeof(load->message.name), "%s", plan->name);
    snprintf(load->message.id, sizeof(load->message.id), "%s", plan->id);
    add_fd(load, guest->exit_fd);
    add_fd(load, guest->listen_fd);
    if (guest->log_fds[0] >= 0) {
        load->message.flags |= MONITOR_LOAD_LOGS;
        add_fd(load, guest->log_fds[0]);
        add_fd(load, guest->log_fds[1]);
    }
    if (guest->snapshot_fd >= 0) {
        load->message.flags |= MONITOR_LOAD_RESTORE;
        add_fd(load, guest->snapshot_fd);
    } else if (files->kernel >= 0) {
        add_fd(load, files->kernel);
    }
    if (files->initrd >= 0) {
        load->message.flags |= MONITOR_LOAD_INITRD;
        add_fd(load, files->initrd);
    }
    add_nics(load, guest);
    if (files->disk >= 0) {
        load->message.disks[load->message.disk_count++] =
            files->disk_shared ? (struct monitor_disk){.read_only = 1}
                               : (struct monitor_disk){.format = files->disk_format, .overlay = 1};
        add_fd(load, files->disk);
    }
    if (files->metadata >= 0) {
        load->message.disks[load->message.disk_count++] = (struct monitor_disk){.read_only = 1};
        add_fd(load, files->metadata);
    }
}

/* plan_validate() saw that they fit. */
static void join_parameters(const struct plan_machine *m, char ret[MACHINE_PARAMETERS_MAX])
{
    const char *identity = m->identity ? m->identity : "", *parameters = m->parameters ? m->parameters : "";

    snprintf(ret, MACHINE_PARAMETERS_MAX, "%s%s%s", identity, *identity && *parameters ? " " : "", parameters);
}

int machine_load(struct launcher *l, struct machine *machine, const struct machine_guest *guest, struct steps *steps,
                 struct error **err)
{
    static const char *const names[3] = {"load", "sandbox", "enter"};
    struct guest_files files = {-1, -1, -1, -1, 0, false};
    char parameters[MACHINE_PARAMETERS_MAX];
    struct load load = {.fd_count = 0};
    struct monitor_reply reply;
    const uint64_t begin = monotonic_ns();
    int r = guest->plan->machine.carrier[0] ? open_carried(l, guest->plan, &files, err)
                                            : open_files(l, guest->plan, guest->snapshot_fd >= 0, &files, err);

    if (r < 0)
        return r;
    if (guest->plan->machine.carrier[0])
        steps_add(steps, "root", begin, monotonic_ns());
    join_parameters(&guest->plan->machine, parameters);
    if (guest->plan->machine.boot == PLAN_BOOT_DISK)
        r = metadata_disk(guest->plan, parameters, &files.metadata, err);
    if (r < 0) {
        close_files(&files);
        return r;
    }
    fill(&load, guest, &files);
    if (guest->preparing)
        r = machine_await_prepared(machine, steps, err);
    if (r == 0)
        r = monitor_send_load(machine_setup_fd(machine), &load.message, parameters, load.fds, load.fd_count, err);
    close_files(&files);
    if (r == 0)
        r = await(machine, guest->timeout_ms ? guest->timeout_ms : LOAD_TIMEOUT_MS, &reply, err);
    if (r == 0)
        add_steps(steps, &reply, names);
    return r;
}

/* ---- guests that wait for an identity ---- */

bool machine_parks(const struct launch_plan *plan)
{
    const struct plan_machine *m = &plan->machine;

    return plan->kind == PLAN_MACHINE && m->restorable && m->monitor == PLAN_MONITOR_VMM &&
           m->boot == PLAN_BOOT_UNIKERNEL && !m->snapshot[0];
}

/* Which of the two is written and how long it is: the monitor's sandbox does not let it ask. */
static int describe_logs(const int fds[2], struct monitor_identity *identity, struct error **err)
{
    struct stat st[2];

    if (fstat(fds[0], &st[0]) < 0 || fstat(fds[1], &st[1]) < 0)
        return error_set_errno(err, errno, "START_FAILED", "the log files");
    identity->flags |= MONITOR_IDENTITY_FILES;
    identity->log_current = log_file_newer(&st[0], &st[1]);
    identity->log_written = (uint64_t)st[identity->log_current].st_size;
    return 0;
}

int machine_identify(struct machine *machine, const struct machine_guest *guest, struct error **err)
{
    const struct launch_plan *plan = guest->plan;
    struct monitor_identity identity = {.nic_count = (uint32_t)plan->nic_count};
    const int fds[] = {guest->exit_fd, guest->listen_fd, guest->log_fds[0], guest->log_fds[1]};
    const bool files = guest->log_fds[0] >= 0;
    char parameters[MACHINE_PARAMETERS_MAX];
    int r = files ? describe_logs(guest->log_fds, &identity, err) : 0;

    if (r < 0)
        return r;
    snprintf(identity.name, sizeof(identity.name), "%s", plan->name);
    snprintf(identity.id, sizeof(identity.id), "%s", plan->id);
    for (size_t i = 0; i < plan->nic_count; i++)
        memcpy(identity.nics[i].mac, plan->nics[i].mac, sizeof(identity.nics[i].mac));
    join_parameters(&plan->machine, parameters);
    return monitor_send_identity(machine_setup_fd(machine), &identity, parameters, fds, files ? 4 : 0, err);
}

int machine_check_identified(struct machine *machine, struct error **err)
{
    struct pollfd p = {.fd = machine_setup_fd(machine), .events = POLLIN};

    return poll(&p, 1, 0) > 0 ? monitor_wait(p.fd, 1, NULL, err) : 0;
}

int machine_grow(struct instance *i, int dir, uint32_t vcpus, uint64_t memory_bytes, struct error **err)
{
    auto_fd int connection = -1;
    int r;

    if (!i->record.machine)
        return error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "%s is no machine", i->name);
    if (i->paused) /* the freezer holds its monitor too: nobody would answer */
        return error_set(err, EBUSY, "CONFLICTING_STATE", "%s is paused: its monitor cannot change the machine",
                         i->name);
    r = monitor_connect(dir, "init.sock", &connection, err);
    if (r == 0)
        r = instance_asks(i, connection, err);
    if (r < 0)
        return r;
    r = monitor_resize(connection, vcpus, memory_bytes, GROW_TIMEOUT_MS, err);
    return instance_asked(i, r, err);
}
