/* SPDX-License-Identifier: Apache-2.0 */
/* Guest RAM: made before the sandbox closes, by the vCPU thread; lives as long as the process. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/memory.h"

#define RAM_BYTES_MIN (UINT64_C(1) << 20)
#define RAM_BYTES_MAX (UINT64_C(1) << 40)

static int check_size(uint64_t bytes, struct error **err)
{
    if (bytes < RAM_BYTES_MIN || bytes % 4096 != 0 || bytes > RAM_BYTES_MAX)
        return error_set(err, EINVAL, "INVALID_VALUE",
                         "memory: %" PRIu64 " bytes; at least 1 MiB, at most 1 TiB, and whole pages are needed", bytes);
    return 0;
}

static int map_ram(uint64_t bytes, int flags, int fd, struct guest_ram *ret, struct error **err)
{
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, fd, 0);

    if (base == MAP_FAILED)
        return error_set_errno(err, errno, "NO_MEMORY", "cannot map %" PRIu64 " bytes of guest memory", bytes);
    /* A core dump of the monitor must not hold the guest's memory. */
    madvise(base, bytes, MADV_DONTDUMP);
    *ret = (struct guest_ram){.memory = {.base = base, .bytes = bytes}, .memfd = fd};
    return 0;
}

static int make_memfd(uint64_t bytes, struct error **err)
{
    auto_fd int fd = memfd_create("coracle-guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
        return error_set_errno(err, errno, "NO_MEMORY", "cannot make guest memory of %" PRIu64 " bytes", bytes);
    /* Whoever maps it, a vhost-user peer too, may count on its size: no SIGBUS for them or for us. */
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return error_set_errno(err, errno, "INTERNAL", "cannot seal guest memory");
    return take_fd(&fd);
}

int guest_ram_create(uint64_t bytes, int shared, struct guest_ram *ret, struct error **err)
{
    int r = check_size(bytes, err);

    if (r < 0)
        return r;
    if (!shared)
        return map_ram(bytes, MAP_PRIVATE | MAP_ANONYMOUS, -1, ret, err);
    auto_fd int fd = make_memfd(bytes, err);
    if (fd < 0)
        return fd;
    r = map_ram(bytes, MAP_SHARED, fd, ret, err);
    if (r == 0)
        take_fd(&fd);
    return r;
}

void guest_ram_destroy(struct guest_ram *ram)
{
    if (ram->memory.base)
        munmap(ram->memory.base, ram->memory.bytes);
    close_fd(ram->memfd);
    *ram = (struct guest_ram){.memfd = -1};
}
