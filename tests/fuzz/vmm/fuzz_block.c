/* SPDX-License-Identifier: Apache-2.0 */
/* A driver of a disk that does anything: a private disk's file stays as it is, whatever is asked of it. */
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz_device.h"
#include "vmm/devices/block.h"

enum { DISK = 16384 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int file = -1;
    struct driver v;
    char byte;

    if (file < 0 && ((file = memfd_create("disk", MFD_CLOEXEC)) < 0 || ftruncate(file, DISK) < 0))
        abort();
    driver_memory(&v);
    if (block_create(&v.memory, dup(file), size > 0 && data[0] & 4 ? BLOCK_READ_ONLY : BLOCK_PRIVATE, "fuzz", &v.device,
                     NULL) < 0)
        abort();
    fuzz_run(&v, data, size, NULL, NULL);
    driver_end(&v);
    if (lseek(file, 0, SEEK_END) != DISK)
        abort();
    for (off_t at = lseek(file, 0, SEEK_DATA); at >= 0; at = -1) /* never written: there is no data in it */
        if (pread(file, &byte, 1, at) == 1 && byte != 0)
            abort();
    return 0;
}
