/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fabric: a network namespace of its own that holds one bridge per virtual link and the host ends of all instances.
 * It is bind-mounted at RUN/fabric and survives the launcher. Any thread may call; each has its own netlink socket.
 */
#ifndef CORACLE_LAUNCHER_FABRIC_H
#define CORACLE_LAUNCHER_FABRIC_H

#include <stdbool.h>

#include "base/error.h"
#include "model/plan.h"
#include "netlink/netlink.h"
#include "proto/messages.h"

struct fabric;

/* What one interface of an instance holds in the fabric; persisted in the instance's record. */
struct fabric_port {
    char link[LINK_NAME_SIZE];
    struct in_addr ipv4;  /* 0: none */
    struct in6_addr ipv6; /* :: none */
    uint8_t mac[6];       /* 0: no address of it is claimed */
};

struct fabric_ports {
    uint32_t number; /* of slots: names v<number>.<i> and interface indexes derive from it */
    uint32_t count;
    struct fabric_port list[NETWORK_PER_INSTANCE_MAX];
};

/* Opens the namespace at RUN/fabric, or makes it, and the links it holds. run_fd: the run directory, borrowed. */
int fabric_open(int run_fd, const char *run_dir, struct fabric **ret_fabric, struct error **err);
void fabric_close(struct fabric *fabric);
int fabric_netns_fd(const struct fabric *fabric); /* borrowed */

/* The calling thread's socket in the fabric, opened at the first use and closed with the thread; borrowed. */
int fabric_socket(struct fabric *fabric, int *ret_fd, struct error **err);

/* Makes or completes a virtual link. The same one again is no error; another gateway while instances are attached
 * is CONFLICTING_STATE. */
int fabric_link_add(struct fabric *fabric, const struct link *link, struct error **err);
/* No error when there is none. NETWORK_IN_USE while instances are attached. */
int fabric_link_remove(struct fabric *fabric, const char *name, struct error **err);
/* Copies the link. -ENOENT (no *err) when there is none. */
int fabric_link_get(struct fabric *fabric, const char *name, struct link *ret_link);

/*
 * Wires ports->count interfaces between the fabric and netns_fd: eth0 ... up on both ends, no address, silent. nics
 * brings the MAC addresses, NULL for random ones (a shell of the pool). ret_netns_socket: owned by the caller.
 */
int fabric_wire(struct fabric *fabric, const struct fabric_ports *ports, int netns_fd, const struct plan_nic *nics,
                int *ret_netns_socket, struct error **err);

/* The MAC addresses of interfaces that were wired without: before fabric_address(). */
int fabric_set_macs(const struct fabric_ports *ports, int netns_socket, const struct plan_nic *nics,
                    struct error **err);
/* Gives wired interfaces their addresses, neighbours and routes; netns_socket comes from fabric_wire(). After a
 * failure call fabric_unwire(). */
int fabric_address(struct fabric *fabric, const struct fabric_ports *ports, int netns_socket,
                   const struct plan_nic *nics, struct error **err);

/*
 * The other kind of wire: ports->count taps in the fabric, for a virtual machine's monitor. Each is up on its link's
 * bridge, with virtio-net headers of 12 bytes, non-blocking, one queue, and lives as long as a descriptor of it is open
 * somewhere. ret_fds: ports->count descriptors, owned by the caller. fabric_announce() makes their addresses known, as
 * fabric_address() does for interfaces; fabric_unwire() and fabric_stats() serve both kinds.
 */
int fabric_tap(struct fabric *fabric, const struct fabric_ports *ports, int *ret_fds, struct error **err);
int fabric_announce(struct fabric *fabric, const struct fabric_ports *ports, const struct plan_nic *nics,
                    struct error **err);

/*
 * Takes the addresses of the plan's interfaces for ports (their number is chosen already) and writes them there. Before
 * anything is wired. LAUNCHER_REFUSED: outside the link, or the gateway's; ADDRESS_TAKEN: a living instance has it.
 */
int fabric_claim(struct fabric *fabric, struct fabric_ports *ports, const struct plan_nic *nics, uint32_t count,
                 struct error **err);
void fabric_unclaim(struct fabric *fabric, struct fabric_ports *ports);
/* The same for an adopted instance, whose addresses nobody checks again. fabric_settle() when all are adopted: then the
 * kernel lets through exactly what is claimed. */
void fabric_reclaim(struct fabric *fabric, struct fabric_ports *ports);
int fabric_settle(struct fabric *fabric, struct error **err);
/* Whether the kernel keeps instances to their addresses. */
bool fabric_guarded(const struct fabric *fabric);

/* Forgets addresses and detaches the links; the interfaces go with the instance's namespace. */
void fabric_unwire(struct fabric *fabric, const struct fabric_ports *ports);

/* Counts an adopted instance's interfaces as attached. */
void fabric_adopt(struct fabric *fabric, const struct fabric_ports *ports);

/* Counters of all interfaces of an instance, as seen from it. */
int fabric_stats(struct fabric *fabric, const struct fabric_ports *ports, struct netlink_stats *ret_stats,
                 struct error **err);

/* Deletes host ends whose number keep() denies: what a dead launcher was wiring. */
int fabric_sweep(struct fabric *fabric, bool (*keep)(void *context, uint32_t number), void *context,
                 unsigned *ret_removed, struct error **err);

#endif
