/* SPDX-License-Identifier: Apache-2.0 */
/* A tenant's kernel, boot sector and qcow2 header: whatever is said of them, only their own bytes are read, and a
 * refusal comes with its reason. First byte: kind of boot and memory size. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "qemu/image.h"
#include "qemu/overlay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void refused(int r, struct error *err)
{
    if (r < 0 && !err)
        abort();
    error_free(err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error *err = NULL;
    uint64_t bytes = 0;

    if (size == 0)
        return 0;
    uint8_t *copy = malloc(size); /* of the exact size, so that a read behind it is seen */
    if (!copy)
        abort();
    memcpy(copy, data + 1, size - 1);
    int r = image_check_kernel(copy, size - 1, (enum monitor_boot)(1 + data[0] % 5), UINT64_C(1) << (20 + data[0] / 16),
                               &err);
    refused(r, err);
    err = NULL;
    r = image_check_boot_sector(copy, size - 1, &err);
    refused(r, err);
    err = NULL;
    r = qcow2_check(copy, size - 1 < QCOW2_HEADER_BYTES ? size - 1 : QCOW2_HEADER_BYTES, size - 1, &bytes, &err);
    refused(r, err);
    if (r == 0 && (bytes == 0 || bytes > UINT64_C(1) << 44))
        abort();
    free(copy);
    return 0;
}
