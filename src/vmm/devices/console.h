/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-console with one port: output to whoever keeps the guest's log, input from a pipe or a terminal. */
#ifndef CORACLE_VMM_CONSOLE_H
#define CORACLE_VMM_CONSOLE_H

#include "vmm/devices/device.h"
#include "vmm/devices/loop.h"

/* Called on the device thread; bytes lie in guest memory and may change while they are read. */
struct console_output {
    void (*write)(void *context, const void *bytes, size_t size);
    void *context;
};

/* input_fd: non-blocking, taken over; -1: nobody types. At its end the guest simply gets no more. */
int console_create(const struct guest_memory *memory, const struct console_output *output, int input_fd,
                   struct device **ret, struct error **err);
int console_attach(struct device *console, struct loop *loop, struct error **err);

#endif
