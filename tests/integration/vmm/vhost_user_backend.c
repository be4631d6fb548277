/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vhost-user back end for test_wires.py: moves frames between the first ring pair and a tap of the present network
 * namespace. vhost_user_backend SOCKET TAP; serves one front end, ends with it.
 */
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/un.h>

#include "../../unit/vhost_user_peer.h"

static void raise_call(const struct peer_ring *r, struct virtqueue *q)
{
    const uint64_t one = 1;

    virtqueue_publish(q);
    if (virtqueue_wants_interrupt(q) && write(r->call, &one, sizeof(one)) < 0)
        abort();
}

static bool from_tap(struct peer *p)
{
    struct peer_ring *rx = &p->rings[0];
    struct virtqueue_chain chain;

    if (!rx->running || !rx->enabled || virtqueue_pop(&rx->queue, &chain) <= 0)
        return false;
    ssize_t n = readv(p->other_fd, chain.segments + chain.readable, chain.writable);
    if (n <= 0) {
        virtqueue_unpop(&rx->queue);
        return false;
    }
    const uint16_t one = 1;
    virtqueue_chain_write(&chain, 10, &one, sizeof(one)); /* num_buffers */
    virtqueue_push(&rx->queue, chain.head, (uint32_t)n);
    raise_call(rx, &rx->queue);
    return true;
}

static bool to_tap(struct peer *p)
{
    struct peer_ring *tx = &p->rings[1];
    struct virtqueue_chain chain;

    if (!tx->running || !tx->enabled || virtqueue_pop(&tx->queue, &chain) <= 0)
        return false;
    if (writev(p->other_fd, chain.segments, chain.readable) < 0)
        p->frames++; /* dropped, as on a wire */
    virtqueue_push(&tx->queue, chain.head, 0);
    raise_call(tx, &tx->queue);
    return true;
}

/* Notifications are wished for before the last look. A packet without a buffer waits for the driver's next one. */
static void move(struct peer *p)
{
    bool worked;

    do {
        worked = from_tap(p);
        worked |= to_tap(p);
        for (unsigned i = 0; !worked && i < 2; i++)
            if (p->rings[i].running)
                virtqueue_notify_enable(&p->rings[i].queue);
        if (!worked)
            worked = from_tap(p) | to_tap(p);
    } while (worked);
}

static int open_tap(const char *name)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    const int header = 12, fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &header) < 0 ||
        ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4) < 0)
        return -1;
    return fd;
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int tap = argc == 3 ? open_tap(argv[2]) : -1, listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (tap < 0 || listener < 0)
        return 2;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", argv[1]);
    unlink(argv[1]);
    if (bind(listener, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 1) < 0)
        return 2;
    puts("listening");
    fflush(stdout);
    int fd = accept(listener, NULL, NULL);
    if (fd < 0)
        return 2;
    struct peer *p = peer_new(fd);
    p->other_fd = tap;
    p->move = move;
    peer_thread(p);
    return 0;
}
