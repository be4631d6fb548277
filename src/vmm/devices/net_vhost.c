/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets between rings and taps by the kernel's vhost-net, one worker a pair. Theory of operation:
 *
 * The kernel is told where guest memory lies in this process before the sandbox closes. When the driver is ready it
 * gets the rings, the event descriptor KVM signals at the driver's notifications, and the one KVM raises the interrupt
 * from: from then on no thread of this process is on a packet's way. A reset takes the taps back. What features the
 * kernel's rings have not is not offered.
 */
#include <errno.h>
#include <linux/vhost.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "base/cleanup.h"
#include "vmm/devices/net_internal.h"

static const uint64_t ring_bits = VIRTIO_F_INDIRECT | VIRTIO_F_EVENT | VIRTIO_F_VERSION | NET_F(MRG_RXBUF);

static int set_owner(struct net *n, int fd, uint64_t *ret_features)
{
    auto_free struct vhost_memory *table = calloc(1, sizeof(*table) + sizeof(struct vhost_memory_region));
    const struct guest_memory *m = n->device.memory;

    if (!table)
        return -ENOMEM;
    table->nregions = 1;
    table->regions[0] = (struct vhost_memory_region){.memory_size = m->bytes, .userspace_addr = (uint64_t)m->base};
    if (ioctl(fd, VHOST_SET_OWNER) < 0 || ioctl(fd, VHOST_GET_FEATURES, ret_features) < 0 ||
        ioctl(fd, VHOST_SET_MEM_TABLE, table) < 0)
        return -errno;
    return 0;
}

int net_vhost_begin(struct net *n, const struct net_options *o, struct error **err)
{
    for (unsigned i = 0; i < o->pairs; i++) {
        uint64_t features = 0;
        int r = set_owner(n, o->vhost_fds[i], &features);
        if (r < 0)
            return error_set_errno(err, -r, "START_FAILED", "vhost-net of queue pair %u", i);
        if (!(features & VIRTIO_F_VERSION))
            return error_set(err, ENOTSUP, "TECHNOLOGY_UNAVAILABLE", "vhost-net of this kernel knows no virtio 1");
        n->device.features &= features | ~ring_bits;
    }
    return 0;
}

static int start_ring(struct net *n, int fd, unsigned pair, unsigned which)
{
    struct device_queue *q = &n->device.queues[2 * pair + which];
    struct vhost_vring_state size = {.index = which, .num = q->address.size}, base = {.index = which};
    struct vhost_vring_file kick = {.index = which, .fd = q->notify_fd},
                            call = {.index = which, .fd = n->device.irq_fd};
    struct vhost_vring_addr where = {
        .index = which,
        .desc_user_addr = (uint64_t)q->ring.descriptors,
        .avail_user_addr = (uint64_t)q->ring.available,
        .used_user_addr = (uint64_t)q->ring.used,
    };

    base.num = q->ring.next_available;
    if (ioctl(fd, VHOST_SET_VRING_NUM, &size) < 0 || ioctl(fd, VHOST_SET_VRING_BASE, &base) < 0 ||
        ioctl(fd, VHOST_SET_VRING_ADDR, &where) < 0 || ioctl(fd, VHOST_SET_VRING_KICK, &kick) < 0 ||
        ioctl(fd, VHOST_SET_VRING_CALL, &call) < 0)
        return -errno;
    return 0;
}

/* tap: -1 takes it back. The kernel stops using a ring when this returns. */
static int set_back_end(int fd, int tap)
{
    for (unsigned which = 0; which < 2; which++) {
        struct vhost_vring_file f = {.index = which, .fd = tap};
        if (ioctl(fd, VHOST_NET_SET_BACKEND, &f) < 0)
            return -errno;
    }
    return 0;
}

/* A pair whose rings the driver did not set up has none to be started. */
static int start_pair(struct net *n, unsigned pair)
{
    int r = 0, fd = n->vhost_fds[pair];

    if (!n->device.queues[2 * pair].ready || !n->device.queues[2 * pair + 1].ready)
        return 0;
    for (unsigned which = 0; r == 0 && which < 2; which++)
        r = start_ring(n, fd, pair, which);
    return r < 0 ? r : set_back_end(fd, n->tap_fds[pair]);
}

static int start(struct net *n)
{
    const uint64_t features = n->device.accepted & ring_bits;
    int r = net_tap.start(n); /* offloads, detached queues */

    for (unsigned i = 0; r == 0 && i < n->pairs; i++) {
        if (ioctl(n->vhost_fds[i], VHOST_SET_FEATURES, &features) < 0)
            return -errno;
        r = start_pair(n, i);
    }
    return r;
}

static void stop(struct net *n)
{
    for (unsigned i = 0; i < n->pairs; i++) {
        set_back_end(n->vhost_fds[i], -1);
        for (unsigned which = 0; which < 2; which++) {
            struct vhost_vring_file none = {.index = which, .fd = -1};
            ioctl(n->vhost_fds[i], VHOST_SET_VRING_KICK, &none);
        }
    }
    net_tap.stop(n);
}

static int set_offloads(struct net *n)
{
    return net_tap.set_offloads(n);
}

static int set_pairs(struct net *n)
{
    return net_tap.set_pairs(n);
}

static void destroy(struct net *n)
{
    for (unsigned i = 0; i < n->pairs; i++)
        close_fd(n->vhost_fds[i]);
    net_tap.destroy(n);
}

const struct net_back_end net_vhost = {
    .name = "vhost-net",
    .start = start,
    .stop = stop,
    .set_offloads = set_offloads,
    .set_pairs = set_pairs,
    .destroy = destroy,
};
