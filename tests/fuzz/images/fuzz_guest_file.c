/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: the recognition of bare kernels and disks by `coracle image import --guest`. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cli/guest_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;

    if (fd < 0)
        fd = memfd_create("guest", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 0) < 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
        return 0;
    for (int v = 0; v < VARIANT_COUNT; v++) {
        const char *boot = guest_file_boot(guest_file_kind(fd), (enum image_variant)v);

        if (boot && boot_find((enum image_variant)v, boot) != boot)
            abort();
    }
    return 0;
}
