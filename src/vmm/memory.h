/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's RAM, one piece on the host. */
#ifndef CORACLE_VMM_MEMORY_H
#define CORACLE_VMM_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "virtqueue/guest_memory.h"

struct guest_ram {
    struct guest_memory memory;
    int memfd; /* -1: anonymous */
};

/* shared: a sealed memfd (against shrinking), for vhost-user and snapshots of running memory; else private anonymous
 * memory, which costs nothing until touched. bytes: a multiple of 4096, at least 1 MiB. */
int guest_ram_create(uint64_t bytes, int shared, struct guest_ram *ret, struct error **err);

void guest_ram_destroy(struct guest_ram *ram);

#endif
