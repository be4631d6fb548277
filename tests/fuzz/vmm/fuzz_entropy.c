/* SPDX-License-Identifier: Apache-2.0 */
/* A driver of the entropy device that does anything. */
#include "fuzz_device.h"
#include "vmm/devices/entropy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct driver v;

    driver_memory(&v);
    if (entropy_create(&v.memory, &v.device, NULL) < 0)
        abort();
    fuzz_run(&v, data, size, NULL, NULL);
    driver_end(&v);
    return 0;
}
