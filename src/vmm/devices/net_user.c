/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets by another process over vhost-user: coracle-switch, or any back end of that protocol. Theory of operation:
 *
 * Guest memory is a memfd sealed against changes of its size, so that neither side can make the other fault. The back
 * end gets the descriptor KVM signals when the driver notifies, and the one KVM raises the interrupt from. When it
 * goes, or says what makes no sense, it is let go: the driver sees the link go down and its rings stand still. A new
 * one goes on behind the last entry its predecessor gave back (the used index in guest memory): what that one had taken
 * and not given back is done again, and nothing is lost; a packet may be sent twice, as on any wire. Then the link
 * comes up.
 */
#include <errno.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "vmm/devices/net_internal.h"

static const uint32_t calls[] = {SYS_epoll_ctl, SYS_poll, SYS_sendmsg, SYS_recvmsg, SYS_close, 0};
/* Of what the device offers, what depends on the back end; the rest (MAC, link, pairs) is the monitor's own. */
static const uint64_t own_bits = NET_F(MAC) | NET_F(STATUS) | NET_F(MTU) | NET_F(CTRL_VQ) | NET_F(MQ);

int net_user_begin(struct net *n, const struct net_options *o, struct error **err)
{
    int r = vhost_user_begin(o->user_fd, n->pairs, VHOST_USER_TIMEOUT_MS, &n->user, err);

    if (r < 0)
        return r;
    if (vhost_user_set_memory(&n->user, n->device.memory->bytes, o->memory_fd) < 0)
        return error_set(err, EPROTO, "START_FAILED", "vhost-user back end: %s", n->user.broken);
    n->device.features &= n->user.features | own_bits;
    n->device.calls = calls;
    n->memory_fd = o->memory_fd;
    return 0;
}

/* The back end is let go; the driver sees its link go down. */
static void lose(struct net *n)
{
    if (n->user.fd < 0)
        return;
    log_line(LOG_LEVEL_WARNING, NULL, "net: vhost-user back end: %s; the link is down until there is another",
             n->user.broken ? n->user.broken : "it failed");
    vhost_user_end(&n->user);
    net_change_link(n, false);
}

/* Taken and not given back is taken again: the used index is what is certain. */
static int start_ring(struct net *n, struct vhost_user *u, unsigned queue)
{
    struct device_queue *q = &n->device.queues[queue];
    uint16_t base;

    if (!q->ready)
        return 0;
    base = __atomic_load_n(&q->ring.used[1], __ATOMIC_ACQUIRE);
    int r = vhost_user_start_ring(u, queue, &q->address, base, q->notify_fd, n->device.irq_fd);
    return r < 0 ? r : vhost_user_enable_ring(u, queue, queue / 2 < n->active);
}

static int start_rings(struct net *n, struct vhost_user *u)
{
    int r = vhost_user_set_features(u, n->device.accepted & ~own_bits);

    for (unsigned q = 0; r == 0 && q < 2 * n->pairs; q++)
        r = start_ring(n, u, q);
    return r;
}

/* A guest whose back end is not there runs without a link. */
static int start(struct net *n)
{
    if (n->user.fd >= 0 && start_rings(n, &n->user) < 0)
        lose(n);
    return 0;
}

static void stop(struct net *n)
{
    uint16_t base;

    for (unsigned q = 0; q < 2 * n->pairs && n->user.fd >= 0; q++)
        if (n->device.queues[q].ready && vhost_user_stop_ring(&n->user, q, &base) < 0)
            lose(n); /* whoever does not stop loses the rings with the connection, but keeps the memory it mapped */
}

static int set_pairs(struct net *n)
{
    int r = 0;

    for (unsigned q = 0; r == 0 && q < 2 * n->pairs && n->user.fd >= 0; q++)
        if (n->device.queues[q].ready)
            r = vhost_user_enable_ring(&n->user, q, q / 2 < n->active);
    if (r < 0)
        lose(n);
    return r;
}

static void destroy(struct net *n)
{
    vhost_user_end(&n->user);
}

const struct net_back_end net_user = {
    .name = "vhost-user",
    .start = start,
    .stop = stop,
    .set_pairs = set_pairs,
    .destroy = destroy,
};

/* ---- the end of a back end, and a new one ---- */

static bool on_socket(struct device *d, unsigned index)
{
    struct net *n = net_of(d);

    if (n->user.fd >= 0 && vhost_user_is_over(&n->user))
        lose(n);
    return false;
}

int net_user_watch(struct net *n, struct error **err)
{
    return loop_add_back_end(n->loop, &n->device, n->user.fd, 0, on_socket, err);
}

/* Everything a new back end must be told, before it takes its predecessor's place. */
static int introduce(struct net *n, struct vhost_user *u, struct error **err)
{
    const uint64_t needed = (n->started ? n->device.accepted : n->device.features) & ~own_bits;

    if (needed & ~u->features)
        return error_set(err, ENOTSUP, "START_FAILED", "vhost-user back end: it lacks features the guest uses");
    if (vhost_user_set_memory(u, n->device.memory->bytes, n->memory_fd) < 0 || (n->started && start_rings(n, u) < 0))
        return error_set(err, EPROTO, "START_FAILED", "vhost-user back end: %s", u->broken);
    return 0;
}

static int replace(struct net *n, struct vhost_user *u, struct error **err)
{
    if (n->user.fd >= 0 && !vhost_user_is_over(&n->user))
        return error_set(err, EBUSY, "CONFLICT", "the network device has a back end");
    lose(n);
    int r = introduce(n, u, err);
    if (r < 0)
        return r;
    n->user = *u;
    r = loop_replace(n->loop, &n->device, n->user.fd);
    if (r < 0) {
        n->user.fd = -1;
        return error_set_errno(err, -r, "INTERNAL", "cannot watch the vhost-user socket");
    }
    net_change_link(n, true);
    return 0;
}

int net_reconnect(struct device *d, int socket, struct error **err)
{
    struct net *n = net_of(d);
    struct vhost_user fresh;
    auto_fd int fd = socket;
    int r;

    if (d->ops->type != VIRTIO_NET || n->back_end != &net_user)
        return error_set(err, ENOTSUP, "INVALID_STATE", "the device has no vhost-user back end");
    r = vhost_user_begin(fd, n->pairs, VHOST_USER_TIMEOUT_MS, &fresh, err);
    if (r < 0)
        return r;
    loop_pause(n->loop);
    pthread_mutex_lock(&d->lock);
    r = replace(n, &fresh, err);
    pthread_mutex_unlock(&d->lock);
    loop_resume(n->loop);
    if (r == 0)
        take_fd(&fd);
    return r;
}
