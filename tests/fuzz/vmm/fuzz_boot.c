/* SPDX-License-Identifier: Apache-2.0 */
/* A kernel of a tenant with its command line and initrd: whatever is accepted is written within the guest's memory, and
 * the first processor starts within what was loaded. Input: vCPUs, devices, command line and NUL, then the file. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/boot_pvh.h"

enum { MEMORY = 32 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_start(const struct pvh_start *start)
{
    if (start->entry < 0x100000 || start->entry >= MEMORY || start->argument >= 0x100000)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t *memory;
    struct guest_memory ram = {.bytes = MEMORY};
    struct error *err = NULL;
    struct pvh_start start;
    enum kernel_kind kind;
    const uint8_t *end;

    if (size < 3 || !(end = memchr(data + 2, '\0', size - 2)))
        return 0;
    if (!memory && !(memory = calloc(1, MEMORY)))
        abort();
    ram.base = memory;
    const struct pvh_boot boot = {.file = end + 1,
                                  .file_bytes = size - (size_t)(end + 1 - data),
                                  .initrd = data[1] & 0x80 ? data : NULL,
                                  .initrd_bytes = size,
                                  .parameters = (const char *)data + 2,
                                  .vcpus = 1 + data[0] % 64,
                                  .devices = data[1] % 9};
    if (kernel_kind(boot.file, boot.file_bytes, &kind, &err) < 0) {
        if (!err)
            abort();
        error_free(err);
        err = NULL;
    }
    if (pvh_boot_memory(&ram, &boot, &start, &err) == 0)
        check_start(&start);
    else if (!err)
        abort();
    error_free(err);
    return 0;
}
