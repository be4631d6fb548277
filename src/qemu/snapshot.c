/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshot files: parsed with distrust (a damaged or foreign one must be refused, never half restored), written with
 * holes where the guest's memory is zero. Called on the supervisor's thread, while the guest stands still.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "qemu/snapshot.h"

enum { SUM_BYTES = 1 << 20, COPY_BYTES = 256 * 1024 };

/* FNV-1a, 64 bits: finds damage, not malice. The launcher guards its snapshots by who may write them. */
static uint64_t sum_more(uint64_t sum, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;

    while (size--)
        sum = (sum ^ *at++) * UINT64_C(0x100000001b3);
    return sum;
}

static uint64_t sum_of(const void *bytes, size_t size)
{
    return sum_more(UINT64_C(0xcbf29ce484222325), bytes, size);
}

void snapshot_describe(const struct machine *m, const char *qemu, struct snapshot *ret)
{
    struct snapshot s = {
        .version = SNAPSHOT_VERSION,
        .memory_bytes = m->memory_bytes,
        .vcpus = m->vcpus,
        .boot = m->boot,
        .flags = m->flags & (MONITOR_LOAD_VSOCK | MONITOR_LOAD_RANDOM | MONITOR_LOAD_CONSOLE | MONITOR_LOAD_BALLOON),
        .kvm = m->kvm,
        .nic_count = m->nic_count,
        .disk_count = m->disk_count};

    memcpy(s.magic, SNAPSHOT_MAGIC, sizeof(s.magic));
    for (unsigned i = 0; i < m->nic_count; i++)
        s.nic_queues[i] = m->nics[i].nic.queues;
    for (unsigned i = 0; i < m->disk_count; i++) {
        const struct monitor_disk *d = &m->disks[i].disk;
        s.disk_kind[i] = (uint8_t)(d->format | d->overlay << 1 | d->read_only << 2);
        s.disk_bytes[i] = m->disks[i].bytes;
    }
    snprintf(s.qemu, sizeof(s.qemu), "%s", qemu);
    if (machine_has_room(m)) /* part of what QEMU's state fits to */
        snprintf(s.machine, sizeof(s.machine), "%s up to %u vCPUs, %" PRIu64 " MiB", machine_type(m->boot),
                 m->vcpus_max & 0xff, m->memory_max_bytes >> 20 & 0x7fffff);
    else
        snprintf(s.machine, sizeof(s.machine), "%s", machine_type(m->boot));
    snprintf(s.cpu, sizeof(s.cpu), "%s", machine_cpu(m->kvm));
    *ret = s;
}

/* ---- reading ---- */

static int damaged(struct error **err, const char *what)
{
    error_set(err, EINVAL, "SNAPSHOT_UNUSABLE", "snapshot: %s", what);
    error_hint(err, "make a new one from a running instance");
    return -EINVAL;
}

static bool within(const struct snapshot_part *p, uint64_t bytes)
{
    return p->offset <= bytes && p->size <= bytes - p->offset && p->offset % SNAPSHOT_PAGE == 0;
}

static bool ended(const char *text, size_t size)
{
    return memchr(text, '\0', size) != NULL;
}

void snapshot_seal(struct snapshot *s)
{
    s->sum = sum_of(s, offsetof(struct snapshot, sum));
}

int snapshot_check(const struct snapshot *s, struct error **err)
{
    if (memcmp(s->magic, SNAPSHOT_MAGIC, sizeof(s->magic)) != 0)
        return damaged(err, "truncated, or not made by coracle-qemu");
    if (s->version != SNAPSHOT_VERSION)
        return damaged(err, "made by another release of Coracle");
    if (s->sum != sum_of(s, offsetof(struct snapshot, sum)))
        return damaged(err, "its description is damaged");
    if (s->nic_count > MONITOR_NIC_MAX || s->disk_count > MONITOR_DISK_MAX || !ended(s->qemu, sizeof(s->qemu)) ||
        !ended(s->machine, sizeof(s->machine)) || !ended(s->cpu, sizeof(s->cpu)))
        return damaged(err, "its description is impossible");
    return 0;
}

int snapshot_parse(const uint8_t *page, size_t size, uint64_t file_bytes, struct snapshot *ret, struct error **err)
{
    struct snapshot s;

    if (size < sizeof(s) || file_bytes < SNAPSHOT_PAGE)
        return damaged(err, "truncated");
    memcpy(&s, page, sizeof(s));
    int r = snapshot_check(&s, err);
    if (r < 0)
        return r;
    const uint64_t bytes = file_bytes - SNAPSHOT_PAGE;
    if (s.state.size == 0 || !within(&s.state, bytes) || !within(&s.ram, bytes) ||
        (s.ram.size && (s.ram.offset || s.ram.size != s.memory_bytes)))
        return damaged(err, "its description is impossible");
    for (unsigned i = 0; i < MONITOR_DISK_MAX; i++)
        if (!within(&s.overlays[i], bytes) || (s.overlays[i].size && i >= s.disk_count))
            return damaged(err, "its disks are impossible");
    *ret = s;
    return 0;
}

static int differs(struct error **err, const char *what, const char *has, const char *wanted)
{
    error_set(err, EINVAL, "SNAPSHOT_UNUSABLE", "snapshot: %s %s, this machine has %s", what, has, wanted);
    error_hint(err, "make a new one from a running instance of this kind");
    return -EINVAL;
}

static int differs_number(struct error **err, const char *what, uint64_t has, uint64_t wanted)
{
    char a[24], b[24];

    snprintf(a, sizeof(a), "%" PRIu64, has);
    snprintf(b, sizeof(b), "%" PRIu64, wanted);
    return differs(err, what, a, b);
}

int snapshot_match(const struct snapshot *s, const struct snapshot *w, struct error **err)
{
    if (w->qemu[0] && strcmp(s->qemu, w->qemu) != 0)
        return differs(err, "made with QEMU", s->qemu, w->qemu);
    if (strcmp(s->machine, w->machine) != 0)
        return differs(err, "of machine type", s->machine, w->machine);
    if (s->kvm != w->kvm || strcmp(s->cpu, w->cpu) != 0)
        return differs(err, "with processor", s->cpu, w->cpu);
    if (s->memory_bytes != w->memory_bytes)
        return differs_number(err, "with bytes of memory:", s->memory_bytes, w->memory_bytes);
    if (s->vcpus != w->vcpus)
        return differs_number(err, "with vCPUs:", s->vcpus, w->vcpus);
    if (s->boot != w->boot)
        return differs_number(err, "with kind of boot", s->boot, w->boot);
    if (s->flags != w->flags)
        return differs_number(err, "with device flags", s->flags, w->flags);
    if (s->nic_count != w->nic_count || memcmp(s->nic_queues, w->nic_queues, sizeof(s->nic_queues)) != 0)
        return differs_number(err, "with network devices:", s->nic_count, w->nic_count);
    if (s->disk_count != w->disk_count || memcmp(s->disk_kind, w->disk_kind, sizeof(s->disk_kind)) != 0)
        return differs_number(err, "with disks:", s->disk_count, w->disk_count);
    for (unsigned i = 0; i < s->disk_count; i++)
        if (s->disk_bytes[i] != w->disk_bytes[i] && (s->disk_kind[i] & 2))
            return differs_number(err, "over a disk image of bytes:", s->disk_bytes[i], w->disk_bytes[i]);
    return 0;
}

static int sum_of_state(int fd, const struct snapshot_part *state, uint64_t *ret)
{
    uint64_t left = state->size < SUM_BYTES ? state->size : SUM_BYTES, at = state->offset;
    uint64_t sum = sum_of(NULL, 0);
    uint8_t buffer[16384];

    while (left) {
        ssize_t n = pread(fd, buffer, left < sizeof(buffer) ? left : sizeof(buffer), (off_t)at);
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        sum = sum_more(sum, buffer, (size_t)n);
        at += (uint64_t)n;
        left -= (uint64_t)n;
    }
    *ret = sum;
    return 0;
}

int snapshot_read(int fd, struct snapshot *ret, struct error **err)
{
    uint8_t page[SNAPSHOT_PAGE];
    struct snapshot s;
    struct stat st;
    uint64_t sum;

    if (fstat(fd, &st) < 0)
        return error_set_errno(err, errno, "SNAPSHOT_UNUSABLE", "snapshot");
    if (st.st_size < SNAPSHOT_PAGE)
        return damaged(err, "truncated");
    ssize_t n = pread(fd, page, sizeof(page), st.st_size - SNAPSHOT_PAGE);
    if (n < 0)
        return error_set_errno(err, errno, "SNAPSHOT_UNUSABLE", "snapshot");
    int r = snapshot_parse(page, (size_t)n, (uint64_t)st.st_size, &s, err);
    if (r < 0)
        return r;
    r = sum_of_state(fd, &s.state, &sum);
    if (r < 0)
        return error_set_errno(err, -r, "SNAPSHOT_UNUSABLE", "snapshot");
    if (sum != s.state_sum)
        return damaged(err, "its state is damaged");
    *ret = s;
    return 0;
}

/* ---- writing ---- */

static int cannot_write(struct error **err, ssize_t n)
{
    int errnum = n < 0 ? errno : ENOSPC;

    error_set_errno(err, errnum, errnum == ENOSPC ? "NO_SPACE" : "SNAPSHOT_UNUSABLE", "writing the snapshot");
    if (errnum == ENOSPC)
        error_hint(err, "make room, or remove old snapshots");
    return -errnum;
}

static int write_all(int fd, const uint8_t *bytes, size_t size, uint64_t at, struct error **err)
{
    while (size) {
        ssize_t n = pwrite(fd, bytes, size, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return cannot_write(err, n);
        bytes += n;
        at += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

static bool is_zero(const uint8_t *page)
{
    return page[0] == 0 && memcmp(page, page + 1, SNAPSHOT_PAGE - 1) == 0;
}

/* What is not zero between two addresses that the file of the memory has data for; runs of pages at a time. */
static int write_run(int to, const uint8_t *map, uint64_t begin, uint64_t end, struct error **err)
{
    for (uint64_t at = begin; at < end;) {
        if (is_zero(map + at)) {
            at += SNAPSHOT_PAGE;
            continue;
        }
        uint64_t stop = at + SNAPSHOT_PAGE;
        while (stop < end && stop - at < COPY_BYTES && !is_zero(map + stop))
            stop += SNAPSHOT_PAGE;
        int r = write_all(to, map + at, (size_t)(stop - at), at, err);
        if (r < 0)
            return r;
        at = stop;
    }
    return 0;
}

static int copy_sparse(int to, int from, uint64_t bytes, struct error **err)
{
    uint8_t *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, from, 0);
    off_t data = 0;
    int r = 0;

    if (map == MAP_FAILED)
        return error_set_errno(err, errno, "NO_MEMORY", "mapping the guest's memory");
    while (r == 0 && (data = lseek(from, data, SEEK_DATA)) >= 0 && (uint64_t)data < bytes) {
        off_t hole = lseek(from, data, SEEK_HOLE);
        uint64_t end = hole < 0 || (uint64_t)hole > bytes ? bytes : (uint64_t)hole;
        end = (end + SNAPSHOT_PAGE - 1) & ~(uint64_t)(SNAPSHOT_PAGE - 1);
        uint64_t begin = (uint64_t)data & ~(uint64_t)(SNAPSHOT_PAGE - 1);
        r = write_run(to, map, begin, end > bytes ? bytes : end, err);
        data = (off_t)end;
    }
    munmap(map, bytes);
    return r;
}

int snapshot_write_ram(int fd, int ram_fd, uint64_t bytes, struct error **err)
{
    if (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)bytes) < 0)
        return cannot_write(err, -1);
    return copy_sparse(fd, ram_fd, bytes, err);
}

int snapshot_load_ram(int fd, int ram_fd, uint64_t bytes, struct error **err)
{
    return copy_sparse(ram_fd, fd, bytes, err);
}

int snapshot_append(int fd, int from, uint64_t at, struct snapshot_part *ret, struct error **err)
{
    uint8_t buffer[65536];
    uint64_t done = 0;
    ssize_t n;

    at = (at + SNAPSHOT_PAGE - 1) & ~(uint64_t)(SNAPSHOT_PAGE - 1);
    while ((n = pread(from, buffer, sizeof(buffer), (off_t)done)) > 0) {
        int r = write_all(fd, buffer, (size_t)n, at + done, err);
        if (r < 0)
            return r;
        done += (uint64_t)n;
    }
    if (n < 0)
        return error_set_errno(err, errno, "SNAPSHOT_UNUSABLE", "reading a private disk");
    *ret = (struct snapshot_part){.offset = at, .size = done};
    return 0;
}

int snapshot_finish(int fd, struct snapshot *s, struct error **err)
{
    _Alignas(struct snapshot) uint8_t page[SNAPSHOT_PAGE] = {0};
    uint64_t end = s->state.offset + s->state.size;

    _Static_assert(sizeof(*s) <= SNAPSHOT_PAGE, "one page");
    for (unsigned i = 0; i < MONITOR_DISK_MAX; i++)
        if (s->overlays[i].offset + s->overlays[i].size > end)
            end = s->overlays[i].offset + s->overlays[i].size;
    if (sum_of_state(fd, &s->state, &s->state_sum) < 0)
        return cannot_write(err, -1);
    snapshot_seal(s);
    memcpy(page, s, sizeof(*s));
    end = (end + SNAPSHOT_PAGE - 1) & ~(uint64_t)(SNAPSHOT_PAGE - 1);
    int r = write_all(fd, page, sizeof(page), end, err);
    if (r == 0 && ftruncate(fd, (off_t)(end + SNAPSHOT_PAGE)) < 0)
        r = cannot_write(err, -1);
    return r;
}
