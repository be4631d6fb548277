/* SPDX-License-Identifier: Apache-2.0 */
/* A driver of a balloon that does anything, and gives up anything; guarded memory on both sides stays what it is. */
#include "fuzz_device.h"
#include "vmm/devices/balloon.h"

static void ask(void *context, uint32_t value)
{
    struct balloon_memory m;

    balloon_set(context, value);
    balloon_memory(context, &m);
    balloon_actual(context);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { GUARD = 4096 };
    uint8_t *all = mmap(NULL, DRIVER_MEMORY + 2 * GUARD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct driver v = {.memory = {.base = all + GUARD, .bytes = DRIVER_MEMORY}};

    memset(all, 0x5a, GUARD);
    memset(all + GUARD + DRIVER_MEMORY, 0x5a, GUARD);
    if (balloon_create(&v.memory, false, &v.device, NULL) < 0)
        abort();
    fuzz_run(&v, data, size, ask, v.device);
    device_destroy(v.device);
    for (unsigned i = 0; i < GUARD; i++)
        if (all[i] != 0x5a || all[GUARD + DRIVER_MEMORY + i] != 0x5a)
            abort();
    munmap(all, DRIVER_MEMORY + 2 * GUARD);
    return 0;
}
