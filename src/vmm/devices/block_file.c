/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The back end of a block device. A private disk has its written sectors in an anonymous file (sparse, so it costs what
 * was written, and counts as the VM's memory), each at its own place, and a bit that says which of the two files a
 * sector is in: no copy-up, no allocation at run time. Files are read and written, never mapped: one that shrinks is an
 * I/O error of the guest's, not a SIGBUS of ours. Runs on the device thread, except open and close.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/devices/block_file.h"

enum { ZERO_BYTES = 65536 };

static const uint32_t read_calls[] = {SYS_preadv, 0};
static const uint32_t write_calls[] = {SYS_preadv, SYS_pwritev, SYS_fallocate, SYS_fdatasync, 0};
static const uint32_t private_calls[] = {SYS_preadv, SYS_pwritev, SYS_fallocate, 0};

const uint32_t *block_file_calls(enum block_mode mode)
{
    return mode == BLOCK_READ_ONLY ? read_calls : mode == BLOCK_WRITABLE ? write_calls : private_calls;
}

static int make_overlay(struct block_file *f, struct error **err)
{
    auto_fd int overlay = memfd_create("coracle-disk", MFD_CLOEXEC);

    if (overlay < 0 || ftruncate(overlay, (off_t)(f->sectors * SECTOR)) < 0)
        return error_set_errno(err, errno, "NO_MEMORY", "private disk: cannot make its memory");
    f->written = calloc(f->sectors / 64 + 1, sizeof(uint64_t));
    if (!f->written)
        return error_set(err, ENOMEM, "NO_MEMORY", "private disk: no memory for its map");
    f->overlay_fd = take_fd(&overlay);
    return 0;
}

int block_file_open(int fd, enum block_mode mode, struct block_file *ret, struct error **err)
{
    struct block_file f = {.mode = mode, .fd = fd, .overlay_fd = -1};
    off_t size = lseek(fd, 0, SEEK_END);
    int r;

    if (size < 0)
        return error_set_errno(err, errno, "IMAGE_MALFORMED", "disk: its size cannot be had");
    if (size < SECTOR)
        return error_set(err, EINVAL, "IMAGE_MALFORMED", "disk: %lld bytes are less than a sector", (long long)size);
    f.sectors = (uint64_t)size / SECTOR;
    if (mode == BLOCK_PRIVATE && (r = make_overlay(&f, err)) < 0)
        return r;
    *ret = f;
    return 0;
}

void block_file_close(struct block_file *f)
{
    close_fd(f->fd);
    close_fd(f->overlay_fd);
    free(f->written);
    *f = (struct block_file){.fd = -1, .overlay_fd = -1};
}

static bool in_overlay(const struct block_file *f, uint64_t sector)
{
    return f->written && (f->written[sector / 64] >> (sector % 64) & 1);
}

static void set_written(struct block_file *f, uint64_t sector, uint64_t count)
{
    f->changed = true;
    for (; count > 0; sector++, count--)
        f->written[sector / 64] |= UINT64_C(1) << (sector % 64);
}

/* Sectors from `sector` on, at most count, that lie in the same file. */
static uint64_t run_length(const struct block_file *f, uint64_t sector, uint64_t count)
{
    uint64_t n = 1;

    if (!f->written)
        return count;
    while (n < count && in_overlay(f, sector + n) == in_overlay(f, sector))
        n++;
    return n;
}

static void advance(struct iovec **segments, unsigned *count, uint64_t bytes)
{
    while (*count > 0 && bytes >= (*segments)->iov_len) {
        bytes -= (*segments)->iov_len;
        (*segments)++;
        (*count)--;
    }
    if (*count > 0) {
        (*segments)->iov_base = (uint8_t *)(*segments)->iov_base + bytes;
        (*segments)->iov_len -= bytes;
    }
}

typedef ssize_t (*vector_call)(int fd, const struct iovec *segments, int count, off_t offset);

/* All of the bytes, through short counts and signals. segments move on. */
static int whole(vector_call call, int fd, off_t offset, struct iovec **segments, unsigned *count, uint64_t bytes)
{
    while (bytes > 0) {
        struct iovec part[VIRTQUEUE_SEGMENT_MAX];
        uint64_t covered = 0;
        unsigned n = 0;

        for (; n < *count && covered < bytes; n++) {
            part[n] = (*segments)[n];
            if (part[n].iov_len > bytes - covered)
                part[n].iov_len = bytes - covered;
            covered += part[n].iov_len;
        }
        ssize_t done = call(fd, part, (int)n, offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? -errno : -EIO; /* the file is shorter than it was */
        advance(segments, count, (uint64_t)done);
        bytes -= (uint64_t)done;
        offset += done;
    }
    return 0;
}

int block_file_read(struct block_file *f, uint64_t sector, struct iovec *segments, unsigned count, uint64_t bytes)
{
    int r = 0;

    while (r == 0 && bytes > 0) {
        uint64_t n = run_length(f, sector, bytes / SECTOR);
        r = whole(preadv, in_overlay(f, sector) ? f->overlay_fd : f->fd, (off_t)(sector * SECTOR), &segments, &count,
                  n * SECTOR);
        sector += n;
        bytes -= n * SECTOR;
    }
    return r;
}

int block_file_write(struct block_file *f, uint64_t sector, struct iovec *segments, unsigned count, uint64_t bytes)
{
    if (f->mode == BLOCK_READ_ONLY)
        return -EROFS;
    int r = whole(pwritev, f->mode == BLOCK_PRIVATE ? f->overlay_fd : f->fd, (off_t)(sector * SECTOR), &segments,
                  &count, bytes);
    if (r == 0 && f->mode == BLOCK_PRIVATE)
        set_written(f, sector, bytes / SECTOR);
    return r;
}

int block_file_flush(struct block_file *f)
{
    return f->mode == BLOCK_WRITABLE && fdatasync(f->fd) < 0 ? -errno : 0;
}

/* For files on which no hole can be made. */
static int write_zeroes(int fd, uint64_t offset, uint64_t bytes)
{
    static const uint8_t zeroes[ZERO_BYTES];

    while (bytes > 0) {
        struct iovec part = {.iov_base = (void *)(uintptr_t)zeroes, .iov_len = bytes < ZERO_BYTES ? bytes : ZERO_BYTES};
        struct iovec *segments = &part;
        unsigned count = 1;
        uint64_t n = part.iov_len;
        int r = whole(pwritev, fd, (off_t)offset, &segments, &count, n);
        if (r < 0)
            return r;
        offset += n;
        bytes -= n;
    }
    return 0;
}

int block_file_zero(struct block_file *f, uint64_t sector, uint64_t sectors)
{
    int fd = f->mode == BLOCK_PRIVATE ? f->overlay_fd : f->fd;
    uint64_t offset = sector * SECTOR, bytes = sectors * SECTOR;

    if (f->mode == BLOCK_READ_ONLY)
        return -EROFS;
    int r = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes);
    if (r < 0)
        r = errno == EOPNOTSUPP ? write_zeroes(fd, offset, bytes) : -errno;
    if (r == 0 && f->mode == BLOCK_PRIVATE)
        set_written(f, sector, sectors);
    return r;
}

int block_file_discard(struct block_file *f, uint64_t sector, uint64_t sectors)
{
    if (f->mode != BLOCK_WRITABLE)
        return block_file_zero(f, sector, sectors);
    int r = fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(sector * SECTOR),
                      (off_t)(sectors * SECTOR));
    return r < 0 && errno != EOPNOTSUPP ? -errno : 0;
}
