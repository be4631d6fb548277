/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot's header, as a file may hold it: checked, then its devices restored into a machine of the same make with
 * memory that is the file's too, and their queues run. Checksum, release and processor are made right first, so that
 * the rest is reached. Input: the header's bytes behind its fixed part, then memory.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "vmm/devices/net.h"
#include "vmm/snapshot.h"

enum { MEMORY = 1 << 20, TAKEN = 65536 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run_queues(struct device *d)
{
    pthread_mutex_lock(&d->lock);
    for (unsigned i = 0; i < d->queue_count; i++)
        if (virtqueue_has_work(&d->queues[i].ring))
            d->ops->notified(d, i);
    pthread_mutex_unlock(&d->lock);
}

static void restore(const struct snapshot_header *h, const uint8_t *content, size_t size)
{
    const struct net_options options = net_options_none();
    struct guest_memory memory = {.base = calloc(1, MEMORY), .bytes = MEMORY};
    struct error *err = NULL;
    struct device *d;

    if (!memory.base || net_create(&memory, &options, &d, NULL) < 0)
        abort();
    for (size_t at = 0; at < MEMORY && size > 0; at += 4096) /* the same bytes wherever a ring may point */
        memcpy(memory.base + at, content, size < 4096 ? size : 4096);
    if (h->device_count == 1 && device_restore(d, &h->devices[0], &err) == 0) {
        run_queues(d);
        struct device_state again;
        if (device_save(d, &again, NULL) < 0)
            abort();
        if (again.accepted != h->devices[0].accepted)
            abort();
    }
    error_free(err);
    device_destroy(d);
    free(memory.base);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const size_t fixed = offsetof(struct snapshot_header, memory_bytes), whole = sizeof(struct snapshot_header);
    static struct snapshot_header h;
    struct error *err = NULL;
    size_t part = size < whole - fixed ? size : whole - fixed;

    log_open("fuzz", LOG_LEVEL_ERROR);
    memset(&h, 0, sizeof(h));
    memcpy((uint8_t *)&h + fixed, data, part);
    snapshot_check(&h, SNAPSHOT_MEMORY_OFFSET + MEMORY, &err); /* as it is: no snapshot */
    error_free(err);
    err = NULL;
    snapshot_seal(&h);
    if (snapshot_check(&h, SNAPSHOT_MEMORY_OFFSET + MEMORY, &err) == 0) {
        if (h.memory_bytes > MEMORY || h.free_start > MEMORY || h.device_count > VM_DEVICE_MAX)
            abort();
        restore(&h, data + part, size - part);
    }
    error_free(err);
    return 0;
}
