/* SPDX-License-Identifier: Apache-2.0 */
/* A tenant's kernel image: whatever the reader accepts lies within the file and within the guest's memory. */
#include <stdint.h>
#include <stdlib.h>

#include "vmm/elf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint64_t memory = 16 << 20;
    struct elf_image image;
    struct error *err = NULL;

    if (elf_read(data, size, memory, 0, &image, &err) < 0) {
        if (!err)
            abort();
        error_free(err);
        return 0;
    }
    for (uint32_t i = 0; i < image.segment_count; i++) {
        const struct elf_segment *s = &image.segments[i];
        if (s->file_offset > size || s->file_bytes > size - s->file_offset || s->file_bytes > s->memory_bytes ||
            s->address > memory || s->memory_bytes > memory - s->address || (s->flags & 3) == 3)
            abort();
    }
    return 0;
}
