/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The setup socket: PREPARE makes memory and a QEMU that waits before its main(), LOAD makes it the wanted machine.
 * Everything a tenant brought (kernel, disks, snapshot) is looked at here before QEMU sees it.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <x86intrin.h>

#include "base/cleanup.h"
#include "qemu/confine.h"
#include "qemu/image.h"
#include "qemu/overlay.h"
#include "qemu/supervisor.h"

enum { GREETING_MS = 20000, RESTORE_MS = 60000, KERNEL_MAX = 256 << 20, LOCK_BYTES = 100 };

/* One LOAD under way. */
struct load {
    struct supervisor *s;
    struct monitor_message *message;
    const struct monitor_load *request;
    struct monitor_load_fds where;
    struct child_fds fds; /* what QEMU gets; borrowed */
    int owned[16];        /* closed at the end: QEMU has its own */
    unsigned owned_count;
    int kernel; /* of these, one that QEMU reads once; -1: none */
    struct snapshot snapshot;
    int state; /* where QEMU reads it: a snapshot's file, or a stream; owned, -1: none */
    enum monitor_stage stage;
    struct error *err;
};

static uint64_t note_time(struct supervisor *s, unsigned i)
{
    return s->times[i] = now_ns();
}

/* ---- PREPARE ---- */

static int make_ram(uint64_t bytes, struct error **err)
{
    auto_fd int fd = -1;

    if (bytes < (1u << 20) || bytes % 4096)
        return error_set(err, EINVAL, "INVALID_VALUE", "memory: %" PRIu64 " bytes: at least 1 MiB, whole pages", bytes);
    fd = memfd_create("coracle-guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return error_set_errno(err, errno, "NO_MEMORY", "the guest's memory");
    return take_fd(&fd);
}

static uint64_t at_least(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

bool load_prepare(struct supervisor *s, const struct monitor_prepare *p, int *kvm)
{
    auto_error struct error *err = NULL;
    enum monitor_stage stage = MONITOR_STAGE_MEMORY;

    note_time(s, 0);
    int r = s->ram = make_ram(p->memory_bytes, &err);
    note_time(s, 1);
    if (r >= 0) {
        stage = MONITOR_STAGE_EMULATOR;
        r = child_start(&s->child, &err);
    }
    note_time(s, 2);
    if (r < 0) {
        monitor_send_failed(s->setup, stage, err);
        return false;
    }
    s->machine = (struct machine){.boot = (enum monitor_boot)p->boot,
                                  .kvm = *kvm >= 0,
                                  .memory_bytes = p->memory_bytes,
                                  .memory_max_bytes = at_least(p->memory_bytes, p->memory_max_bytes),
                                  .vcpus = p->vcpus,
                                  .vcpus_max = (uint32_t)at_least(p->vcpus, p->vcpus_max),
                                  .name = s->name,
                                  .id = s->id,
                                  .parameters = s->parameters,
                                  .virtio_console_fd = -1,
                                  .sessions_fd = -1,
                                  .kernel_fd = -1,
                                  .initrd_fd = -1};
    s->kvm = take_fd(kvm);
    s->share_memory = p->flags & MONITOR_MEMORY_SHARED;
    s->phase = PHASE_PREPARED;
    note_time(s, 3);
    monitor_send_done(s->setup, s->times, -1);
    return true;
}

/* ---- files of a tenant ---- */

static int fd_of(const struct load *l, int index)
{
    return index < 0 ? -1 : l->message->fds[index];
}

/* For QEMU; closed here when it has it. */
static int give(struct load *l, int *fd)
{
    l->owned[l->owned_count++] = *fd;
    return child_fds_add(&l->fds, take_fd(fd));
}

/* A copy cannot change after it was looked at. */
static int copy_file(int from, const char *what, uint64_t most, struct error **err)
{
    struct stat st;
    auto_fd int copy = -1;

    if (fstat(from, &st) < 0 || !S_ISREG(st.st_mode))
        return error_set(err, EINVAL, "IMAGE_MALFORMED", "%s: not a regular file", what);
    if ((uint64_t)st.st_size > most)
        return error_set(err, E2BIG, "IMAGE_TOO_LARGE", "%s: %lld bytes do not fit into the machine's memory", what,
                         (long long)st.st_size);
    copy = memfd_create(what, MFD_CLOEXEC);
    if (copy < 0 || ftruncate(copy, st.st_size) < 0)
        return error_set_errno(err, errno, "NO_MEMORY", "%s", what);
    for (off_t at = 0; at < st.st_size;) {
        ssize_t n = sendfile(copy, from, &at, (size_t)(st.st_size - at));
        if (n <= 0)
            return error_set_errno(err, n < 0 ? errno : EIO, "IMAGE_MALFORMED", "reading the %s", what);
    }
    return take_fd(&copy);
}

static int check_kernel(struct load *l, int fd)
{
    const struct machine *m = &l->s->machine;
    struct stat st;

    if (fstat(fd, &st) < 0)
        return error_set_errno(&l->err, errno, "INTERNAL", "kernel");
    if (st.st_size == 0)
        return image_check_kernel(NULL, 0, m->boot, m->memory_bytes, &l->err);
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        return error_set_errno(&l->err, errno, "NO_MEMORY", "kernel");
    int r = image_check_kernel(map, (size_t)st.st_size, m->boot, m->memory_bytes, &l->err);
    munmap(map, (size_t)st.st_size);
    return r;
}

static bool is_elf(int fd)
{
    char magic[4];

    return pread(fd, magic, sizeof(magic), 0) == sizeof(magic) && memcmp(magic, "\177ELF", sizeof(magic)) == 0;
}

static int take_kernel(struct load *l)
{
    struct machine *m = &l->s->machine;

    l->stage = MONITOR_STAGE_IMAGE;
    if (m->restore || l->where.kernel < 0)
        return 0;
    auto_fd int kernel = copy_file(fd_of(l, l->where.kernel), "kernel", KERNEL_MAX, &l->err);
    if (kernel < 0)
        return kernel;
    int r = check_kernel(l, kernel);
    if (r < 0)
        return r;
    if (m->boot == MONITOR_BOOT_LINUX && !is_elf(kernel))
        l->kernel = kernel;
    m->kernel_fd = give(l, &kernel);
    if (l->where.initrd >= 0) {
        struct stat st;
        int initrd = fd_of(l, l->where.initrd);
        if (fstat(initrd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size > m->memory_bytes)
            return error_set(&l->err, E2BIG, "IMAGE_TOO_LARGE", "initrd: does not fit into the machine's memory");
        m->initrd_fd = child_fds_add(&l->fds, initrd);
    }
    return 0;
}

/* ---- disks ---- */

static int disk_error(struct load *l, unsigned i, int errnum, const char *code, const char *what)
{
    return error_set(&l->err, errnum, code, "disk %u: %s", i, what);
}

/* QEMU wants the access mode it asks for. */
static int right_mode(struct load *l, unsigned i, int *fd, bool write)
{
    int mode = fcntl(*fd, F_GETFL) & O_ACCMODE;
    char path[40];

    if (mode == (write ? O_RDWR : O_RDONLY))
        return 0;
    if (write || mode != O_RDWR)
        return disk_error(l, i, EACCES, "START_FAILED", "its descriptor is not open for what the machine does with it");
    snprintf(path, sizeof(path), "/proc/self/fd/%d", *fd);
    int again = open(path, O_RDONLY | O_CLOEXEC);
    if (again < 0)
        return disk_error(l, i, errno, "START_FAILED", "its descriptor is open for writing");
    close_fd(*fd);
    *fd = again;
    return 0;
}

/* QEMU has locks of its own on bytes from 100 on, which find other users that are QEMU; these find the rest, early. */
static int lock_disk(struct load *l, unsigned i, int fd, bool write)
{
    struct flock lock = {.l_type = write ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = LOCK_BYTES};

    if (l->request->flags & MONITOR_LOAD_INCOMING) /* the other side has it still; QEMU's own locks go over */
        return 0;
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0 || (errno != EAGAIN && errno != EACCES))
        return 0; /* a file system without locks: QEMU's decide */
    l->stage = MONITOR_STAGE_DEVICE;
    disk_error(l, i, EBUSY, "CONFLICTING_STATE", "another machine uses it");
    error_hint(&l->err, "stop that one, or use the disk read-only or with private writes in both");
    return -EBUSY;
}

static int check_disk(struct load *l, unsigned i, struct machine_disk *d, int fd)
{
    uint8_t head[512];
    struct stat st;
    ssize_t n = pread(fd, head, sizeof(head), 0);
    off_t end = lseek(fd, 0, SEEK_END);

    if (n < 0 || end < 0 || fstat(fd, &st) < 0)
        return error_set_errno(&l->err, errno, "IMAGE_MALFORMED", "disk %u", i);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return disk_error(l, i, EINVAL, "IMAGE_MALFORMED", "neither a file nor a block device");
    d->block_device = S_ISBLK(st.st_mode);
    d->bytes = (uint64_t)end;
    d->virtual_bytes = d->bytes;
    if (d->disk.format)
        return qcow2_check(head, (size_t)n, d->bytes, &d->virtual_bytes, &l->err);
    if (d->bytes == 0)
        return disk_error(l, i, EINVAL, "IMAGE_MALFORMED", "empty");
    if (i == 0 && l->s->machine.boot == MONITOR_BOOT_DISK)
        return image_check_boot_sector(head, (size_t)n, &l->err);
    return 0;
}

static int take_disk(struct load *l, unsigned i)
{
    struct machine_disk *d = &l->s->machine.disks[i];
    int *fd = &l->message->fds[l->where.disks[i]];
    bool write = !l->request->disks[i].read_only && !l->request->disks[i].overlay;

    *d = (struct machine_disk){.disk = l->request->disks[i], .overlay_fd = -1, .snapshot_fd = -1};
    if (d->disk.overlay)
        d->disk.read_only = 0;
    int r = check_disk(l, i, d, *fd);
    if (r == 0)
        r = right_mode(l, i, fd, write);
    if (r == 0)
        r = lock_disk(l, i, *fd, write);
    if (r < 0)
        return r;
    d->fd = child_fds_add(&l->fds, *fd);
    if (!d->disk.overlay)
        return 0;
    int overlay = overlay_create(d->virtual_bytes, &l->err);
    if (overlay < 0)
        return overlay;
    l->s->overlays[i] = overlay;
    d->overlay_fd = child_fds_add(&l->fds, overlay);
    return 0;
}

static int take_disks(struct load *l)
{
    int r = 0;

    l->stage = MONITOR_STAGE_IMAGE;
    for (unsigned i = 0; i < l->request->disk_count && r == 0; i++)
        r = take_disk(l, i);
    if (r == 0 && l->request->boot == MONITOR_BOOT_DISK && l->request->disk_count == 0)
        r = error_set(&l->err, EINVAL, "IMAGE_MALFORMED", "no disk to boot from");
    l->s->machine.disk_count = l->request->disk_count;
    return r;
}

/* ---- network ---- */

static void take_nics(struct load *l)
{
    for (unsigned i = 0; i < l->request->nic_count; i++) {
        struct machine_nic *n = &l->s->machine.nics[i];
        n->nic = l->request->nics[i];
        for (unsigned j = 0; j < monitor_nic_fds(&n->nic); j++)
            n->fds[j] = child_fds_add(&l->fds, l->message->fds[l->where.nics[i] + (int)j]);
    }
    l->s->machine.nic_count = l->request->nic_count;
}

/* ---- channels ---- */

static int make_channel(struct load *l, int *ret_here, int *ret_qemu)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
        return error_set_errno(&l->err, errno, "START_FAILED", "socketpair");
    *ret_here = ends[0];
    *ret_qemu = give(l, &ends[1]);
    return 0;
}

static int make_channels(struct load *l, int *ret_qmp)
{
    struct supervisor *s = l->s;
    struct machine *m = &s->machine;
    int r = make_channel(l, ret_qmp, &m->qmp_fd);

    l->stage = MONITOR_STAGE_DEVICE;
    if (r == 0)
        r = make_channel(l, &s->console, &m->console_fd);
    if (r == 0)
        r = make_channel(l, &s->agent, &m->agent_fd);
    if (r == 0 && (m->flags & MONITOR_LOAD_CONSOLE))
        r = make_channel(l, &s->virtio_console, &m->virtio_console_fd);
    if (r == 0 && (m->flags & MONITOR_LOAD_SESSIONS))
        r = make_channel(l, &s->sessions.port, &m->sessions_fd);
    return r;
}

/* ---- snapshot ---- */

/* The memory and what was written to private disks come as the files that they are. */
static int take_arrival(struct load *l)
{
    struct supervisor *s = l->s;
    struct arrival a;
    struct snapshot wanted;
    int control = fd_of(l, l->where.kernel);
    int r = migrate_receive(control, &a, &l->err);

    if (r < 0)
        return r;
    l->snapshot = a.snapshot;
    snapshot_describe(&s->machine, "", &wanted);
    if (a.ram >= 0) {
        close_fd(s->ram);
        s->ram = a.ram;
    }
    for (unsigned i = 0; i < MONITOR_DISK_MAX; i++) {
        if (a.overlays[i] < 0 || s->overlays[i] < 0) {
            close_fd(a.overlays[i]);
            continue;
        }
        close_fd(s->overlays[i]);
        s->overlays[i] = a.overlays[i];
        l->fds.fds[s->machine.disks[i].overlay_fd - PRELOAD_FD_BASE] = a.overlays[i];
    }
    s->machine.ram_fd = child_fds_add(&l->fds, s->ram);
    s->generation = a.snapshot.generation;
    s->agent_there = a.snapshot.moving & MOVING_AGENT;
    s->ready = a.snapshot.moving & MOVING_READY;
    s->paused = a.snapshot.moving & MOVING_PAUSED;
    r = snapshot_match(&a.snapshot, &wanted, &l->err);
    return r < 0 ? r : migrate_offer(control, &l->state, &l->err);
}

/* Memory is mapped from the file, where what this guest writes stays its own; only with a switch it must be a copy. */
static int take_snapshot(struct load *l)
{
    struct supervisor *s = l->s;
    struct snapshot wanted;

    if (!s->machine.restore) {
        s->machine.ram_fd = child_fds_add(&l->fds, s->ram);
        return 0;
    }
    l->stage = MONITOR_STAGE_SNAPSHOT;
    if (l->request->flags & MONITOR_LOAD_INCOMING)
        return take_arrival(l);
    int r = snapshot_read(fd_of(l, l->where.kernel), &l->snapshot, &l->err);
    for (unsigned i = 0; r == 0 && i < s->machine.disk_count; i++)
        if (l->snapshot.overlays[i].size) /* a template's file is open for both */
            r = right_mode(l, i, &l->message->fds[l->where.kernel], false);
    if (r < 0)
        return r;
    const int fd = fd_of(l, l->where.kernel);
    snapshot_describe(&s->machine, "", &wanted);
    r = snapshot_match(&l->snapshot, &wanted, &l->err);
    if (r < 0)
        return r;
    s->generation = l->snapshot.generation + 1;
    s->machine.ram_private = l->snapshot.ram.size && !s->share_memory;
    if (l->snapshot.ram.size && s->share_memory)
        r = snapshot_load_ram(fd, s->ram, s->machine.memory_bytes, &l->err);
    if (r < 0)
        return r;
    s->machine.ram_fd = child_fds_add(&l->fds, s->machine.ram_private ? fd : s->ram);
    for (unsigned i = 0; i < s->machine.disk_count; i++) {
        struct machine_disk *d = &s->machine.disks[i];
        if (!l->snapshot.overlays[i].size)
            continue;
        d->snapshot_fd = child_fds_add(&l->fds, fd);
        d->snapshot_offset = l->snapshot.overlays[i].offset;
        d->snapshot_size = l->snapshot.overlays[i].size;
    }
    return 0;
}

/* An open file of its own for QEMU to read on: the one that came may be read by others at this moment, at its one
 * offset. */
static int open_state(struct load *l, int fd)
{
    const struct snapshot_part *state = &l->snapshot.state;
    char path[40];
    off_t from = (off_t)state->offset, to = 0;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    auto_fd int own = open(path, O_RDONLY | O_CLOEXEC);
    if (own < 0) { /* a file that this uid may not open: the state alone */
        own = memfd_create("coracle-state", MFD_CLOEXEC);
        for (uint64_t left = state->size; own >= 0 && left;) {
            ssize_t n = sendfile(own, fd, &from, left);
            if (n <= 0)
                return error_set_errno(&l->err, n < 0 ? errno : EIO, "SNAPSHOT_UNUSABLE", "snapshot");
            left -= (uint64_t)n;
        }
    } else {
        to = from;
    }
    if (own < 0 || lseek(own, to, SEEK_SET) < 0)
        return error_set_errno(&l->err, errno, "SNAPSHOT_UNUSABLE", "snapshot");
    return l->state = take_fd(&own);
}

static int restore_state(struct load *l)
{
    const bool incoming = l->request->flags & MONITOR_LOAD_INCOMING;
    struct supervisor *s = l->s;
    struct snapshot wanted;

    l->stage = MONITOR_STAGE_SNAPSHOT;
    snapshot_describe(&s->machine, s->qmp.version, &wanted);
    int r = snapshot_match(&l->snapshot, &wanted, &l->err);
    if (r == 0 && !incoming)
        r = open_state(l, fd_of(l, l->where.kernel));
    if (r >= 0)
        r = save_capabilities(s, l->snapshot.ram.size > 0, &l->err);
    if (r == 0)
        r = qmp_call(&s->qmp, "getfd", json_pack("{s:s}", "fdname", "state"), l->state, QMP_TIMEOUT_MS, NULL, &l->err);
    if (r == 0)
        r = qmp_call(&s->qmp, "migrate-incoming", json_pack("{s:s}", "uri", "fd:state"), -1, RESTORE_MS, NULL, &l->err);
    if (r == 0)
        r = save_wait_restored(s, RESTORE_MS, &l->err);
    l->state = close_fd(l->state);
    return r == 0 && incoming ? migrate_await(fd_of(l, l->where.kernel), &l->err) : r;
}

/* ---- LOAD ---- */

static int check_request(struct load *l)
{
    const struct monitor_load *q = l->request;
    const struct machine *m = &l->s->machine;

    l->stage = MONITOR_STAGE_SUPPORT;
    if (q->boot != m->boot)
        return error_set(&l->err, EINVAL, "INTERNAL", "LOAD for another kind of machine than PREPARE");
    if (q->flags & MONITOR_LOAD_VSOCK) {
        error_set(&l->err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY",
                  "vsock: QEMU has one only by a kernel module of the host");
        error_hint(&l->err, "the guest's agent port or its network does instead");
        return -ENOTSUP;
    }
    return 0;
}

static void take_settings(struct load *l)
{
    struct supervisor *s = l->s;
    const struct monitor_load *q = l->request;
    uint64_t ns = now_ns() - s->tsc_base_ns, ticks = __rdtsc() - s->tsc_base;

    snprintf(s->name, sizeof(s->name), "%s", q->name);
    snprintf(s->id, sizeof(s->id), "%s", q->id);
    snprintf(s->parameters, sizeof(s->parameters), "%s", monitor_parameters(q));
    s->machine.flags = q->flags;
    s->machine.restore = q->flags & MONITOR_LOAD_RESTORE;
    s->machine.tsc_khz = ns > 1000000 ? (uint32_t)((double)ticks * 1e6 / (double)ns) : 0;
    s->wait_ready = q->flags & MONITOR_LOAD_WAIT;
    if (l->where.log >= 0)
        memcpy(s->log_fds, l->message->fds + l->where.log, sizeof(s->log_fds));
    log_file_setup(&s->log, s->log_fds, q->log_bytes_max); /* the guest talks before LOAD is answered */
}

/* What outlives LOAD. */
static void keep(struct load *l)
{
    struct supervisor *s = l->s;

    s->exit_file = take_fd(&l->message->fds[l->where.exit]);
    s->listen = take_fd(&l->message->fds[l->where.listen]);
    if (l->where.log >= 0) {
        take_fd(&l->message->fds[l->where.log]);
        take_fd(&l->message->fds[l->where.log + 1]);
    }
    if (s->machine.ram_private)
        s->ram = close_fd(s->ram);
    if (s->machine.restore && !(l->request->flags & MONITOR_LOAD_INCOMING))
        s->snapshot = take_fd(&l->message->fds[l->where.kernel]);
}

static int check_machine(struct load *l)
{
    const struct machine *m = &l->s->machine;
    auto_buffer struct buffer line = {0};

    l->stage = MONITOR_STAGE_SUPPORT;
    if (machine_type(m->boot)[0] == 'm' && machine_mmio_devices(m) > MACHINE_MMIO_MAX)
        return error_set(&l->err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY",
                         "devices: %u network devices, disks and others, a microvm has %d", machine_mmio_devices(m),
                         MACHINE_MMIO_MAX);
    machine_kernel_line(m, &line);
    if (m->boot == MONITOR_BOOT_LINUX && !m->restore && line.length > MACHINE_LINUX_LINE_MAX)
        return error_set(&l->err, E2BIG, "INVALID_VALUE",
                         "arguments: the kernel's command line has %zu bytes, Linux takes %d", line.length,
                         MACHINE_LINUX_LINE_MAX);
    return 0;
}

static int launch(struct load *l)
{
    auto_buffer struct buffer words = {0};
    struct supervisor *s = l->s;
    int qmp = -1;
    int r = make_channels(l, &qmp);

    if (r == 0 && s->kvm >= 0)
        l->fds.kvm = give(l, &s->kvm);
    if (r == 0)
        r = machine_words(&s->machine, &words);
    if (r >= 0)
        r = child_launch(&s->child, &words, r, &l->fds, &l->err);
    for (unsigned i = 0; i < l->owned_count; i++)
        if (l->owned[i] != l->kernel)
            close_fd(l->owned[i]);
    l->stage = MONITOR_STAGE_EMULATOR;
    supervisor_connect(s, qmp);
    if (r >= 0)
        r = qmp_greet(&s->qmp, GREETING_MS, &l->err);
    /* QEMU has a bzImage in memory of its own by now, and this copy open for ever (an ELF file it maps) */
    if (r == 0 && l->kernel >= 0 && ftruncate(l->kernel, 0) < 0)
        r = error_set_errno(&l->err, errno, "INTERNAL", "kernel");
    l->kernel = close_fd(l->kernel);
    return r;
}

/* What QEMU wrote on its way out says more than that it is gone. */
static void use_last_words(struct load *l)
{
    struct child *c = &l->s->child;
    const char *words;

    if (!child_wait(c, 200) && l->err && l->err->errnum != EPIPE)
        return;
    child_read_errors(c);
    words = child_last_words(c);
    if (!*words)
        return;
    error_free(l->err);
    l->err = NULL;
    if (strstr(words, " lock") || strstr(words, "another process using the image")) {
        l->stage = MONITOR_STAGE_DEVICE;
        error_set(&l->err, EBUSY, "CONFLICTING_STATE", "a disk is used by another machine: %s", words);
        error_hint(&l->err, "stop that one, or use the disk read-only or with private writes in both");
        return;
    }
    if (strstr(words, "KVM") || strstr(words, "kvm"))
        l->stage = MONITOR_STAGE_VM;
    error_set(&l->err, EIO, "START_FAILED", "QEMU: %s", words);
}

static int run(struct load *l)
{
    struct supervisor *s = l->s;
    const bool incoming = l->request->flags & MONITOR_LOAD_INCOMING;

    l->stage = MONITOR_STAGE_EMULATOR;
    int r = incoming && s->paused ? 0 : qmp_call(&s->qmp, "cont", NULL, -1, QMP_TIMEOUT_MS, NULL, &l->err);
    if (r < 0)
        use_last_words(l);
    return r == 0 && incoming ? migrate_confirm(fd_of(l, l->where.kernel), &l->err) : r;
}

static int load(struct load *l)
{
    struct supervisor *s = l->s;
    int r = check_request(l);

    if (r < 0)
        return r;
    take_settings(l);
    r = take_kernel(l);
    if (r == 0)
        r = take_disks(l);
    if (r < 0)
        return r;
    take_nics(l);
    r = check_machine(l);
    if (r == 0)
        r = take_snapshot(l);
    if (r < 0)
        return r;
    r = launch(l);
    if (r == 0 && s->machine.restore)
        r = restore_state(l);
    note_time(s, 1);
    if (r == 0) {
        l->stage = MONITOR_STAGE_SANDBOX;
        r = confine_supervisor(&l->err);
    }
    note_time(s, 2);
    if (r < 0)
        use_last_words(l);
    if (r < 0)
        return r;
    return run(l);
}

void load_answer_ready(struct supervisor *s)
{
    auto_error struct error *err = NULL;

    if (s->setup < 0 || s->phase != PHASE_RUNNING)
        return;
    if (s->ready) {
        monitor_send_done(s->setup, s->times, -1);
    } else {
        error_set(&err, EIO, "START_FAILED", "the guest ended before it was ready");
        error_hint(&err, "its log says more: coracle logs");
        monitor_send_failed(s->setup, MONITOR_STAGE_GUEST, err);
    }
    s->setup = close_fd(s->setup);
}

bool load_guest(struct supervisor *s, struct monitor_message *m)
{
    struct load l = {.s = s, .message = m, .request = &m->load, .kernel = -1, .state = -1};

    note_time(s, 0);
    monitor_load_layout(&m->load, &l.where);
    int r = load(&l);
    note_time(s, 3);
    if (r < 0) {
        monitor_send_failed(s->setup, l.stage, l.err);
        error_free(l.err);
        return false;
    }
    keep(&l);
    s->phase = PHASE_RUNNING;
    s->beating = true;
    s->beaten_ns = now_ns();
    if (s->machine.restore && !(m->load.flags & MONITOR_LOAD_INCOMING)) /* one that came over is who it was */
        agent_send_identity(s);
    if (!s->wait_ready) {
        monitor_send_done(s->setup, s->times, -1);
        s->setup = close_fd(s->setup);
    }
    return true;
}
