/* SPDX-License-Identifier: Apache-2.0 */
/* The devices of a machine besides its network: disks, console, entropy, vsock, balloon. */
#ifndef CORACLE_VMM_MACHINE_DEVICES_H
#define CORACLE_VMM_MACHINE_DEVICES_H

#include <stdbool.h>

#include "monitor/protocol.h"
#include "vmm/devices/block.h"

enum { CONSOLE_PIPE = -2 }; /* machine_extras.console_fd: a pipe is made, whose other end machine.console_fd is */

struct machine_disk {
    int fd; /* taken over */
    enum block_mode mode;
};

struct machine_extras {
    unsigned disk_count;
    struct machine_disk disks[MONITOR_DISK_MAX];
    bool console, entropy, vsock, balloon;
    int console_fd;     /* console's input, non-blocking, taken over; CONSOLE_PIPE; -1: none */
    uint32_t vsock_cid;
    int vsock_fd;       /* listening socket, taken over; -1: none */
};

struct machine;

/* Before the sandbox closes. On failure the machine is of no use any more. */
int machine_add_extras(struct machine *m, struct machine_extras *extras, bool shared_memory, struct error **err);

/* System calls of the machine's devices beyond every machine's; returns how many, at most max. */
unsigned machine_device_calls(const struct machine *m, uint32_t *ret, unsigned max);

#endif
