/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-balloon: memory the guest gives up when it is asked to, or reports as free by itself, goes back to the host.
 */
#ifndef CORACLE_VMM_BALLOON_H
#define CORACLE_VMM_BALLOON_H

#include "vmm/devices/device.h"
#include "vmm/devices/loop.h"

struct balloon_counters {
    uint64_t inflated_bytes; /* taken by inflation, ever */
    uint64_t reported_bytes; /* taken by free page reports, ever */
};

/* What the guest last said of its memory, in bytes; UINT64_MAX: it did not say. */
struct balloon_memory {
    uint64_t free, total, available, caches;
};

/* shared: guest memory is a shared mapping (a memfd), where giving back is punching a hole. */
int balloon_create(const struct guest_memory *memory, bool shared, struct device **ret, struct error **err);
int balloon_attach(struct device *balloon, struct loop *loop, struct error **err);

/* The rest may be called from any thread. */

/* Asks the guest to give up bytes, rounded down to pages; 0: all is its own again. Returns -ERANGE when it is more than
 * the guest has. */
int balloon_set(struct device *balloon, uint64_t bytes);
uint64_t balloon_actual(struct device *balloon); /* what the guest says it has given up */
struct balloon_counters balloon_counters(struct device *balloon);

/* The last figures, and asks for new ones. False: the guest's driver gives none. */
bool balloon_memory(struct device *balloon, struct balloon_memory *ret);

#endif
