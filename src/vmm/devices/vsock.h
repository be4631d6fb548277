/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-vsock: streams between programs in the guest and programs on the host, without a network.
 *
 * On the host a stream is a unix socket. A program connects to the device's listening socket and sends one line:
 *   "CONNECT <port>\n"  a stream to what listens on that port in the guest; "OK <port>\n" is the answer when it is
 * there "ACCEPT <port>\n"   waits until a program in the guest connects to that port of the host (CID 2); then "OK
 * <port>\n" and from then on bytes both ways. A refused or broken stream is the end of the socket. The monitor itself
 * connects to nothing. Streams do not outlive a reset of the device or a restore of a snapshot.
 */
#ifndef CORACLE_VMM_VSOCK_H
#define CORACLE_VMM_VSOCK_H

#include "vmm/devices/device.h"
#include "vmm/devices/loop.h"

enum { VSOCK_STREAM_MAX = 64, VSOCK_CID_HOST = 2, VSOCK_CID_MIN = 3 };

struct vsock_counters {
    uint64_t to_guest_bytes, to_host_bytes, streams, resets;
};

/* listen_fd: a listening unix stream socket, non-blocking, taken over; -1: streams come by vsock_connect() only. */
int vsock_create(const struct guest_memory *memory, uint32_t cid, int listen_fd, struct device **ret,
                 struct error **err);
int vsock_attach(struct device *vsock, struct loop *loop, struct error **err);

/* The rest may be called from any thread. */

/* fd, a connected non-blocking stream socket, becomes a stream to that port of the guest; taken over on success. When
 * nobody listens there its other end reads the end. -ENOSPC: there are VSOCK_STREAM_MAX already. */
int vsock_connect(struct device *vsock, int fd, uint32_t port);
struct vsock_counters vsock_counters(struct device *vsock);

#endif
