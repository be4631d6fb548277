/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio-net device whatever moves its packets: features, configuration, life of its back end. Theory of operation:
 *
 * What is offered is what the back end has. What the driver accepted is in force from DRIVER_OK on, in each direction
 * by itself: offloads of what it sends are its own choice packet by packet, offloads of what it receives are switched
 * in the back end to no more than it asked for. A device starts with one pair in use; the driver asks for more through
 * the control queue. Creation on the main thread, registers on the vCPU's, data on the device thread or outside.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "vmm/devices/net_internal.h"

static const uint64_t receive_offloads = NET_F(GUEST_CSUM) | NET_F(GUEST_TSO4) | NET_F(GUEST_TSO6) | NET_F(GUEST_ECN) |
                                         NET_F(GUEST_UFO) | NET_F_GUEST_USO4 | NET_F_GUEST_USO6;

static int activate(struct device *d)
{
    struct net *n = net_of(d);

    if (!n->started) {
        n->active = 1;
        n->offloads = d->accepted & receive_offloads;
    }
    n->started = true;
    return n->back_end->start(n);
}

static void reset(struct device *d)
{
    struct net *n = net_of(d);

    n->active = 1;
    n->offloads = 0;
    if (n->started)
        n->back_end->stop(n);
    n->started = false;
}

static bool notified(struct device *d, unsigned queue)
{
    struct net *n = net_of(d);

    if (d->accepted & NET_F(CTRL_VQ) && queue == net_control_queue(n)) {
        net_control(n, queue);
        return true;
    }
    unsigned pair = queue / 2;
    if (!n->back_end->moves_data || pair >= n->active)
        return false;
    if (queue % 2 == 0)
        return n->rx_starved[pair] && n->back_end->receive(n, pair);
    n->back_end->transmit(n, pair);
    return true;
}

static void settle(struct device *d)
{
    struct net *n = net_of(d);

    if (n->back_end->settle)
        n->back_end->settle(n);
}

static bool ready(struct device *d, unsigned pair)
{
    struct net *n = net_of(d);

    return pair < n->active && n->back_end->receive(n, pair);
}

static void config(struct device *d, void *to, unsigned offset, unsigned length)
{
    const struct net *n = net_of(d);
    struct virtio_net_config c = {
        .status = n->link_up ? VIRTIO_NET_S_LINK_UP : 0,
        .max_virtqueue_pairs = (uint16_t)n->pairs,
        .mtu = n->mtu,
    };

    memcpy(c.mac, n->mac, sizeof(c.mac));
    if (offset < sizeof(c))
        memcpy(to, (const uint8_t *)&c + offset, length < sizeof(c) - offset ? length : sizeof(c) - offset);
}

/* ---- snapshots ---- */

struct own_state {
    uint64_t offloads;
    uint32_t active, reserved;
};

static size_t save(struct device *d, void *to)
{
    const struct net *n = net_of(d);
    const struct own_state s = {.offloads = n->offloads, .active = n->active};

    memcpy(to, &s, sizeof(s));
    return sizeof(s);
}

static int restore(struct device *d, const void *from, size_t size)
{
    struct net *n = net_of(d);
    struct own_state s;

    if (size != sizeof(s))
        return -EINVAL;
    memcpy(&s, from, sizeof(s));
    if (s.active < 1 || s.active > n->pairs || (s.offloads & ~(d->accepted & receive_offloads)))
        return -EINVAL;
    n->active = s.active;
    n->offloads = s.offloads;
    n->started = true; /* activate() follows and keeps them */
    return 0;
}

static void destroy(struct device *d)
{
    net_of(d)->back_end->destroy(net_of(d));
    free(d);
}

static const struct device_ops net_ops = {
    .name = "net",
    .type = VIRTIO_NET,
    .queue_count = 2,
    .activate = activate,
    .reset = reset,
    .notified = notified,
    .settle = settle,
    .config = config,
    .save = save,
    .restore = restore,
    .destroy = destroy,
};

/* ---- creation ---- */

struct net_options net_options_none(void)
{
    struct net_options o = {.pairs = 1, .user_fd = -1, .memory_fd = -1};

    for (unsigned i = 0; i < NET_PAIR_MAX; i++)
        o.tap_fds[i] = o.vhost_fds[i] = -1;
    return o;
}

static uint64_t features(const struct net_options *o)
{
    uint64_t all = VIRTIO_F_INDIRECT | VIRTIO_F_EVENT | NET_F(MAC) | NET_F(STATUS) | NET_F(MRG_RXBUF);

    if (o->mtu)
        all |= NET_F(MTU);
    if (o->control)
        all |= NET_F(CTRL_VQ);
    if (o->control && o->user_fd < 0) /* a vhost-user back end cannot be told while it runs */
        all |= NET_F(CTRL_GUEST_OFFLOADS);
    if (o->control && o->pairs > 1)
        all |= NET_F(MQ);
    return all | net_tap_features(o->user_fd < 0 && o->control ? o->tap_fds[0] : -1);
}

static int check(const struct net_options *o, struct error **err)
{
    if (o->pairs < 1 || o->pairs > NET_PAIR_MAX || (o->pairs > 1 && !o->control))
        return error_set(err, EINVAL, "INVALID_VALUE", "a network device of %u queue pairs", o->pairs);
    if (o->cut && (o->user_fd >= 0 || o->vhost_fds[0] >= 0)) /* who moves its packets cannot be told */
        return error_set(err, EINVAL, "INVALID_VALUE", "only a tap can wait for its guest to be somebody");
    if (o->user_fd >= 0 && o->memory_fd < 0)
        return error_set(err, EINVAL, "INVALID_VALUE", "vhost-user needs guest memory that can be shared");
    return 0;
}

static int choose_back_end(struct net *n, const struct net_options *o, struct error **err)
{
    n->back_end = o->user_fd >= 0 ? &net_user : o->vhost_fds[0] >= 0 ? &net_vhost : &net_tap;
    n->device.outside = !n->back_end->moves_data;
    if (n->back_end == &net_user)
        return net_user_begin(n, o, err);
    return n->back_end == &net_vhost ? net_vhost_begin(n, o, err) : 0;
}

int net_create(const struct guest_memory *memory, const struct net_options *o, struct device **ret, struct error **err)
{
    struct net *n;
    int r = check(o, err);

    if (r < 0)
        return r;
    n = calloc(1, sizeof(*n));
    if (!n)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a network device");
    r = device_init(&n->device, &net_ops, memory, features(o), err);
    if (r < 0) {
        free(n);
        return r;
    }
    n->pairs = o->pairs;
    n->active = 1;
    n->mtu = o->mtu;
    n->link_up = true;
    n->cut = o->cut;
    memcpy(n->mac, o->mac, sizeof(n->mac));
    r = device_add_queues(&n->device, 2 * n->pairs + (o->control ? 1 : 0), err);
    if (r == 0)
        r = choose_back_end(n, o, err);
    if (r < 0) {
        device_end(&n->device);
        free(n);
        return r;
    }
    memcpy(n->tap_fds, o->tap_fds, sizeof(n->tap_fds));
    memcpy(n->vhost_fds, o->vhost_fds, sizeof(n->vhost_fds));
    *ret = &n->device;
    return 0;
}

int net_attach(struct device *d, struct loop *loop, struct error **err)
{
    struct net *n = net_of(d);
    int r = 0;

    n->loop = loop;
    for (unsigned q = n->back_end->moves_data ? 0 : 2; r == 0 && q < d->queue_count; q++)
        if (n->back_end->moves_data || q == 2 || q == 2 * n->pairs) /* outside: only where commands may come */
            r = loop_add_queue(loop, d, q, err);
    for (unsigned i = 0; r == 0 && n->back_end->moves_data && i < n->pairs; i++)
        if (n->tap_fds[i] >= 0)
            r = loop_add_back_end(loop, d, n->tap_fds[i], i, ready, err);
    if (r == 0 && n->back_end == &net_user)
        r = net_user_watch(n, err);
    return r;
}

/* ---- link ---- */

void net_change_link(struct net *n, bool up)
{
    if (n->link_up == up)
        return;
    n->link_up = up;
    device_config_changed(&n->device);
}

void net_set_link(struct device *d, bool up)
{
    pthread_mutex_lock(&d->lock);
    net_change_link(net_of(d), up);
    pthread_mutex_unlock(&d->lock);
}

void net_identify(struct device *d, const uint8_t mac[6])
{
    struct net *n = net_of(d);

    pthread_mutex_lock(&d->lock);
    memcpy(n->mac, mac, sizeof(n->mac));
    n->cut = false;
    pthread_mutex_unlock(&d->lock);
}

struct net_counters net_counters(struct device *d)
{
    pthread_mutex_lock(&d->lock);
    struct net_counters counters = net_of(d)->counters;
    pthread_mutex_unlock(&d->lock);
    return counters;
}
