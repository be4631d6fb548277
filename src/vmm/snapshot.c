/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots of unikernels. Written by the control thread while the machine is paused, read by the main thread before the
 * sandbox closes. The file is foreign input: other releases, other processors, truncation and damage are refused with
 * words; memory is the guest's own business, as its image's content is.
 */
#include <cpuid.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/snapshot.h"

enum { PAGE = 4096, RUN_BYTES_MAX = 1 << 20 };

#define RFLAGS_KEPT UINT64_C(0xcd5) /* arithmetic and direction flags; interrupts are on at CPL 3 for ever */
#define RFLAGS_SET  UINT64_C(0x202)

static int unusable(struct error **err, const char *what)
{
    int r = error_set(err, EINVAL, "SNAPSHOT_UNUSABLE", "the snapshot %s", what);

    error_hint(err, "make a new one on this host with this release");
    return r;
}

/* ---- header ---- */

/* FNV-1a: against damage, not against forgery. */
static uint64_t checksum(const struct snapshot_header *header)
{
    struct snapshot_header copy = *header;
    const uint8_t *bytes = (const uint8_t *)&copy;
    uint64_t sum = UINT64_C(0xcbf29ce484222325);

    copy.checksum = 0;
    for (size_t i = 0; i < sizeof(copy); i++)
        sum = (sum ^ bytes[i]) * UINT64_C(0x100000001b3);
    return sum;
}

static void describe_cpu(struct snapshot_cpu *ret)
{
    unsigned a, b, c, d;

    memset(ret, 0, sizeof(*ret));
    __cpuid(0, a, b, c, d);
    memcpy(ret->vendor, &b, 4);
    memcpy(ret->vendor + 4, &d, 4);
    memcpy(ret->vendor + 8, &c, 4);
    __cpuid(1, a, b, c, d);
    ret->signature = a;
    ret->features[0] = c;
    ret->features[1] = d;
    __cpuid_count(7, 0, a, b, c, d);
    ret->features[2] = b;
    ret->features[3] = c;
    ret->features[4] = d;
    __cpuid(0x80000001, a, b, c, d);
    ret->features[5] = d;
}

void snapshot_seal(struct snapshot_header *h)
{
    h->magic = SNAPSHOT_MAGIC;
    h->version = SNAPSHOT_VERSION;
    h->header_bytes = sizeof(*h);
    memset(h->monitor, 0, sizeof(h->monitor));
    snprintf(h->monitor, sizeof(h->monitor), "%s", CORACLE_VERSION);
    describe_cpu(&h->cpu);
    h->checksum = checksum(h);
}

int snapshot_check(const struct snapshot_header *h, uint64_t file_bytes, struct error **err)
{
    struct snapshot_cpu cpu;

    if (file_bytes < SNAPSHOT_MEMORY_OFFSET || h->magic != SNAPSHOT_MAGIC)
        return unusable(err, "is no snapshot");
    if (h->version != SNAPSHOT_VERSION || h->header_bytes != sizeof(*h))
        return unusable(err, "is of another version of the format");
    if (h->checksum != checksum(h))
        return unusable(err, "is damaged");
    if (strncmp(h->monitor, CORACLE_VERSION, sizeof(h->monitor)) != 0)
        return unusable(err, "was made by another release of the monitor");
    describe_cpu(&cpu);
    if (memcmp(&cpu, &h->cpu, sizeof(cpu)) != 0)
        return unusable(err, "was made on another kind of processor");
    if (h->memory_bytes % PAGE || h->memory_bytes > file_bytes - SNAPSHOT_MEMORY_OFFSET)
        return unusable(err, "is cut off");
    if (h->vcpu_count != 1 || h->device_count > VM_DEVICE_MAX || h->free_start > h->memory_bytes ||
        h->free_start < BOOT_IMAGE_ADDRESS)
        return unusable(err, "makes no sense");
    return 0;
}

int snapshot_read(int file, struct snapshot_header *ret, struct error **err)
{
    struct snapshot_header h;
    struct stat st;

    if (fstat(file, &st) < 0)
        return error_set_errno(err, errno, "SNAPSHOT_UNUSABLE", "the snapshot cannot be read");
    if (!S_ISREG(st.st_mode) || pread(file, &h, sizeof(h), 0) != (ssize_t)sizeof(h))
        return unusable(err, "is no snapshot");
    int r = snapshot_check(&h, (uint64_t)st.st_size, err);
    if (r == 0)
        *ret = h;
    return r;
}

/* ---- writing ---- */

static int put(int file, const void *bytes, size_t size, uint64_t offset, struct error **err)
{
    const uint8_t *from = bytes;

    while (size > 0) {
        ssize_t n = pwrite(file, from, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set_errno(err, n ? errno : ENOSPC,
                                   errno == ENOSPC || errno == EDQUOT ? "NO_SPACE" : "SNAPSHOT_UNUSABLE",
                                   "the snapshot cannot be written");
        from += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

static int zero(const uint8_t *page)
{
    const uint64_t *words = (const void *)page;

    for (unsigned i = 0; i < PAGE / 8; i += 8)
        if (words[i] | words[i + 1] | words[i + 2] | words[i + 3] | words[i + 4] | words[i + 5] | words[i + 6] |
            words[i + 7])
            return 0;
    return 1;
}

static int put_memory(int file, const struct guest_memory *m, struct error **err)
{
    uint64_t at = 0;
    int r = 0;

    while (r == 0 && at < m->bytes) {
        uint64_t end = at;
        while (end < m->bytes && end - at < RUN_BYTES_MAX && !zero(m->base + end))
            end += PAGE;
        if (end > at)
            r = put(file, m->base + at, end - at, SNAPSHOT_MEMORY_OFFSET + at, err);
        at = end < m->bytes && end - at < RUN_BYTES_MAX ? end + PAGE : end;
    }
    return r;
}

static int describe(struct vm *vm, struct snapshot_header *h, struct error **err)
{
    const struct boot_info *info = guest_memory_at(&vm->ram.memory, BOOT_INFO_ADDRESS, sizeof(*info));

    memset(h, 0, sizeof(*h));
    h->memory_bytes = vm->ram.memory.bytes;
    h->free_start = info ? info->free_start : 0;
    h->vcpu_count = 1;
    h->device_count = vm->device_count;
    if (ioctl(vm->vcpu_fd, KVM_GET_REGS, &h->regs) < 0 || ioctl(vm->vcpu_fd, KVM_GET_FPU, &h->fpu) < 0)
        return error_set_errno(err, errno, "SNAPSHOT_UNUSABLE", "the processor's state cannot be read");
    int r = 0;
    for (unsigned i = 0; r == 0 && i < vm->device_count; i++)
        r = device_save(vm->devices[i], &h->devices[i], err);
    snapshot_seal(h);
    return r;
}

int snapshot_write(struct vm *vm, int file, struct error **err)
{
    static struct snapshot_header h; /* the control thread's, whose stack is small */
    int r = describe(vm, &h, err);

    if (r == 0 && ftruncate(file, (off_t)(SNAPSHOT_MEMORY_OFFSET + vm->ram.memory.bytes)) < 0)
        r = error_set_errno(err, errno, "SNAPSHOT_UNUSABLE", "the snapshot's file cannot be written");
    if (r == 0)
        r = put_memory(file, &vm->ram.memory, err);
    return r < 0 ? r : put(file, &h, sizeof(h), 0, err); /* last: a file without it is none */
}

/* ---- restoring ---- */

/* Shared memory belongs to its memfd, which others map: the content goes into it. Holes stay holes. */
static int copy_memory(int file, struct guest_ram *ram, struct error **err)
{
    const off_t end = (off_t)(SNAPSHOT_MEMORY_OFFSET + ram->memory.bytes);
    off_t at = lseek(file, (off_t)SNAPSHOT_MEMORY_OFFSET, SEEK_DATA);

    while (at >= 0 && at < end) {
        off_t hole = lseek(file, at, SEEK_HOLE);
        size_t size = (size_t)((hole < 0 || hole > end ? end : hole) - at);
        ssize_t n = pread(file, ram->memory.base + ((uint64_t)at - SNAPSHOT_MEMORY_OFFSET), size, at);
        if (n <= 0)
            return unusable(err, "cannot be read to its end");
        at = lseek(file, at + n, SEEK_DATA);
    }
    return 0;
}

int snapshot_map(int file, const struct snapshot_header *h, struct guest_ram *ram, struct error **err)
{
    if (h->memory_bytes != ram->memory.bytes)
        return error_set(err, EINVAL, "SNAPSHOT_UNUSABLE",
                         "the snapshot has %" PRIu64 " KiB of memory, this machine %" PRIu64 " KiB",
                         h->memory_bytes / 1024, ram->memory.bytes / 1024);
    if (ram->memfd >= 0)
        return copy_memory(file, ram, err);
    /* The memory slot is of addresses, not of what is mapped there: KVM sees the change. */
    void *map = mmap(ram->memory.base, ram->memory.bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, file, (off_t)SNAPSHOT_MEMORY_OFFSET);
    if (map == MAP_FAILED)
        return error_set_errno(err, errno, "SNAPSHOT_UNUSABLE", "the snapshot cannot be mapped");
    madvise(map, ram->memory.bytes, MADV_DONTDUMP);
    return 0;
}

int snapshot_processor(int vcpu, const struct snapshot_header *h, struct error **err)
{
    struct kvm_regs regs = h->regs;
    struct kvm_fpu fpu = h->fpu;

    regs.rflags = (regs.rflags & RFLAGS_KEPT) | RFLAGS_SET;
    fpu.mxcsr &= 0xffff;
    if (ioctl(vcpu, KVM_SET_REGS, &regs) < 0 || ioctl(vcpu, KVM_SET_FPU, &fpu) < 0)
        return error_set_errno(err, errno, "SNAPSHOT_UNUSABLE", "the snapshot's processor state is refused");
    return 0;
}
