/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of guest-init share. One process, one thread: PID 1 of a Tinyx guest, or (guest_is_service) a service
 * of a distribution, which then has mounts, users and the ssh server in its own hands.
 */
#ifndef GUEST_H
#define GUEST_H

#include "guest/config.h"

#include <sys/types.h>

enum { AGENT_VSOCK_PORT = 1024 };
/* The application of a guest that carries a container; it has the network to itself. */
#define GUEST_CONTAINER "/sbin/guest-container"
#define AGENT_SERIAL "/dev/ttyS1"

/* Prints a line to the console, with the program's name before it. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

extern bool guest_is_service;
extern bool guest_is_quiet; /* by the kernel's own word for it: what goes well is not told */

/* ---- where metadata is ---- */
/* The kernel's command line and, where a block device carries one, the metadata disk. Allocated for good. */
void sources_read(struct config *ret);
void complain(void *context, const char *word, const char *reason);

/* ---- network ---- */
/* Brings interfaces to what config says: address of the device, MTU, addresses, routes, neighbours; up. Addresses that
 * config does not name go away. Returns 0, or -errno of the first failure, which was said; the rest is done. */
int network_apply(const struct config *config);
/* Takes every interface but lo along into that network namespace, where the calling process is from then on. -errno. */
int network_enter(int namespace_fd);

/* ---- who this guest is ---- */
/* Entropy first, then clock, host name, machine id, resolver, users and keys. */
int identity_apply(const struct config *config);

/* ---- what runs ---- */
/* Starts the application in arguments; 0 when its program was found and runs, *ret_pid then its process. */
int application_start(const struct config *config, pid_t *ret_pid);
/* The ssh server, when there is a key and the image has one; ends the former and its sessions first. */
void ssh_restart(const struct config *config);
void ssh_reaped(pid_t pid);
/* Runs a program to its end; its exit status, or -errno. */
int run_program(char *const *arguments);

/* ---- the platform's agent ---- */
struct agent_calls {
    /* Who this guest is, as the platform says: at its first word, and after each restore. text is for the callee to
     * change and lives as long as the guest. */
    void (*identity)(struct config *told, char *parameters);
    void (*power_off)(void);
};
void agent_open(const struct agent_calls *calls);
/* Descriptors to poll, at most max; returns how many. */
struct pollfd;
int agent_poll_set(struct pollfd *set, int max);
void agent_serve(const struct pollfd *set, int count);
/* Tells whoever listens, now or later: "ready", or "exit N". */
void agent_report(const char *line);

#endif
