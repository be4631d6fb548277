/* SPDX-License-Identifier: Apache-2.0 */
/* A driver of a console that does anything, with somebody typing. */
#include <fcntl.h>
#include <unistd.h>

#include "fuzz_device.h"
#include "vmm/devices/console.h"

static void show(void *context, const void *bytes, size_t size)
{
    volatile uint8_t sum = 0;

    (void)context;
    for (size_t i = 0; i < size; i += 64) /* all of it can be read */
        sum ^= ((const uint8_t *)bytes)[i];
}

static void type(void *context, uint32_t value)
{
    if (write(*(int *)context, &value, value % 5) < 0)
        return; /* full */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct console_output output = {.write = show};
    struct driver v;
    int ends[2];

    driver_memory(&v);
    if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0 || console_create(&v.memory, &output, ends[0], &v.device, NULL) < 0)
        abort();
    fuzz_run(&v, data, size, type, &ends[1]);
    driver_end(&v);
    close(ends[1]);
    return 0;
}
