/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work inside another network namespace: a short-lived thread enters it, so that the bench itself never leaves its own.
 * A socket stays in the namespace it was made in, which is all a probe needs.
 */
#ifndef CORACLE_BENCH_PROBE_NETNS_H
#define CORACLE_BENCH_PROBE_NETNS_H

#include <net/if.h>
#include <netinet/in.h>
#include <stdint.h>

#include "base/error.h"

/* Runs call(context) on a thread inside the namespace at path (NULL or "": the caller's own). Returns what call
 * returned, or -errno with *err when the namespace cannot be entered. call fills *err itself on failure. */
int netns_run(const char *path, int (*call)(void *context, struct error **err), void *context, struct error **err);

/* As netns_run(), and inside the mount namespace at mount_path too (NULL: the caller's own). */
int netns_run_in(const char *path, const char *mount_path, int (*call)(void *context, struct error **err),
                 void *context, struct error **err);

/* socket(2) inside the namespace. Says in *err which capability is missing when it is one. */
int netns_socket(const char *path, int domain, int type, int protocol, int *ret_fd, struct error **err);

struct netns_device {
    char name[IFNAMSIZ];
    int index;
    uint8_t mac[6];
};

/* The device that holds the IPv4 address. -ENODEV with *err when none does. */
int netns_device_of(const char *path, struct in_addr address, struct netns_device *ret_device, struct error **err);

#endif
