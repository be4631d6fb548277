/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The front end's side of the vhost-user protocol (QEMU's docs/interop/vhost-user), over a connected stream socket.
 *
 * The back end is another process, perhaps an attacker: every reply is read to its exact length within a deadline and
 * compared with what was asked; descriptors, of which no reply has any, are closed. The first thing that is wrong ends
 * the connection: every call fails from then on. Calls block for at most VHOST_USER_TIMEOUT_MS.
 */
#ifndef CORACLE_VMM_VHOST_USER_H
#define CORACLE_VMM_VHOST_USER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "virtqueue/queue.h"

enum { VHOST_USER_TIMEOUT_MS = 1000, VHOST_USER_VERSION = 1, VHOST_USER_REPLY = 4, VHOST_USER_NEED_REPLY = 8 };

enum vhost_user_request {
    VHOST_USER_GET_FEATURES = 1,
    VHOST_USER_SET_FEATURES = 2,
    VHOST_USER_SET_OWNER = 3,
    VHOST_USER_SET_MEM_TABLE = 5,
    VHOST_USER_SET_VRING_NUM = 8,
    VHOST_USER_SET_VRING_ADDR = 9,
    VHOST_USER_SET_VRING_BASE = 10,
    VHOST_USER_GET_VRING_BASE = 11,
    VHOST_USER_SET_VRING_KICK = 12,
    VHOST_USER_SET_VRING_CALL = 13,
    VHOST_USER_GET_PROTOCOL_FEATURES = 15,
    VHOST_USER_SET_PROTOCOL_FEATURES = 16,
    VHOST_USER_GET_QUEUE_NUM = 17,
    VHOST_USER_SET_VRING_ENABLE = 18,
};

struct vhost_user_header {
    uint32_t request, flags, size; /* size: of what follows */
};

struct vhost_user {
    int fd;               /* -1: no back end */
    int timeout_ms;       /* VHOST_USER_TIMEOUT_MS but for tests */
    uint64_t features;    /* virtio features the back end has */
    uint64_t protocol;    /* protocol features in use */
    bool has_protocol;    /* rings start disabled */
    const char *broken;   /* what was wrong with it, in words; NULL: nothing */
    uint64_t deadline_ns; /* of the call under way */
};

/* The handshake. fd is borrowed until it succeeds, then it is *ret's. pairs: queue pairs the device has. */
int vhost_user_begin(int fd, unsigned pairs, int timeout_ms, struct vhost_user *ret, struct error **err);
int vhost_user_set_features(struct vhost_user *user, uint64_t features);
int vhost_user_set_memory(struct vhost_user *user, uint64_t bytes, int memory_fd);
/* base: the available entry to go on with. The ring is stopped or new. */
int vhost_user_start_ring(struct vhost_user *user, unsigned queue, const struct virtqueue_address *address,
                          uint16_t base, int kick_fd, int call_fd);
int vhost_user_enable_ring(struct vhost_user *user, unsigned queue, bool on);
/* The back end is done with the ring when it has answered. */
int vhost_user_stop_ring(struct vhost_user *user, unsigned queue, uint16_t *ret_base);
/* Whether something came that nobody asked for, or the other side is gone: then user->broken says so. Does not block.
 */
bool vhost_user_is_over(struct vhost_user *user);
void vhost_user_end(struct vhost_user *user); /* closes the socket */

#endif
