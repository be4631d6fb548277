/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-console (virtio 1.2, 5.3), one port. What the guest sends is handed on as it lies in its memory; input that
 * finds no buffer stays in its pipe until the guest gives one. Runs on the device thread, except creation and
 * configuration.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/devices/console.h"

enum { QUEUE_RX = 0, QUEUE_TX = 1, BATCH = 64, OUTPUT_MAX = 65536 };

struct console {
    struct device device;
    struct console_output output;
    int input_fd;
};

static struct console *console_of(struct device *d)
{
    return (struct console *)d;
}

/* At most OUTPUT_MAX bytes of a chain are shown: a chain may name all of memory 128 times over. */
static void show(struct console *c, const struct virtqueue_chain *chain)
{
    struct iovec parts[VIRTQUEUE_SEGMENT_MAX];
    unsigned count = virtqueue_chain_slice(chain, false, 0, OUTPUT_MAX, parts);

    for (unsigned i = 0; i < count; i++)
        c->output.write(c->output.context, parts[i].iov_base, parts[i].iov_len);
}

static bool transmit(struct device *d)
{
    struct virtqueue *q = &d->queues[QUEUE_TX].ring;
    struct virtqueue_chain chain;
    int r = 0;

    for (unsigned i = 0; i < BATCH && (r = virtqueue_pop(q, &chain)) > 0; i++) {
        show(console_of(d), &chain);
        virtqueue_push(q, chain.head, 0);
    }
    device_publish(d, QUEUE_TX);
    if (r < 0)
        device_fail(d, q->broken);
    return true;
}

static bool receive(struct device *d)
{
    struct console *c = console_of(d);
    struct virtqueue *q = &d->queues[QUEUE_RX].ring;
    struct virtqueue_chain chain;
    ssize_t got = -1;
    int r = 0;

    if (c->input_fd < 0 || !q->available)
        return false;
    r = virtqueue_pop(q, &chain);
    if (r > 0 && chain.writable == 0)
        got = 0; /* a buffer of no use: given back empty */
    else if (r > 0)
        got = readv(c->input_fd, chain.segments + chain.readable, chain.writable);
    if (r > 0 && got <= 0 && chain.writable > 0) {
        virtqueue_unpop(q); /* buffers wait for input: no work */
        return false;
    }
    if (r > 0) {
        virtqueue_push(q, chain.head, (uint32_t)got);
        device_publish(d, QUEUE_RX);
    }
    if (r < 0)
        device_fail(d, q->broken);
    return r > 0;
}

static bool ready(struct device *d, unsigned index)
{
    (void)index;
    return receive(d);
}

static bool notified(struct device *d, unsigned queue)
{
    return queue == QUEUE_RX ? receive(d) : transmit(d);
}

static void destroy(struct device *d)
{
    close_fd(console_of(d)->input_fd);
    free(d);
}

static const struct device_ops console_ops = {.name = "console",
                                              .type = VIRTIO_CONSOLE,
                                              .queue_count = 2,
                                              .patient = true,
                                              .notified = notified,
                                              .destroy = destroy};

int console_create(const struct guest_memory *memory, const struct console_output *output, int input_fd,
                   struct device **ret, struct error **err)
{
    struct console *c = calloc(1, sizeof(*c));

    if (!c)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a console device");
    int r = device_init(&c->device, &console_ops, memory, VIRTIO_F_INDIRECT | VIRTIO_F_EVENT, err);
    if (r < 0) {
        free(c);
        return r;
    }
    c->output = *output;
    c->input_fd = input_fd;
    *ret = &c->device;
    return 0;
}

int console_attach(struct device *d, struct loop *loop, struct error **err)
{
    return loop_add(loop, d, console_of(d)->input_fd, ready, err);
}
