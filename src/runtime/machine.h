/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The envelope of a virtual machine: its monitor as a process of its own uid, in namespaces that hold nothing, in
 * cgroups of its own. What is said to the monitor is the caller's matter (src/monitor/protocol.h).
 *
 * Used by coracle-launcher on its worker and pool threads. Life: machine_create(); the caller prepares and loads the
 * guest over machine_setup_fd(); machine_become() turns it into a struct container, with which everything else is done:
 * signals (to the monitor), freezer, limits, figures, the end (runtime.h). It has no container_exec() and no
 * container_console(). A machine whose creator dies ends by itself; a container does not notice.
 */
#ifndef CORACLE_RUNTIME_MACHINE_H
#define CORACLE_RUNTIME_MACHINE_H

#include "runtime/runtime.h"

struct machine;

/* The monitors a runtime knows; the programs lie beside coracle-init. */
enum machine_program { MACHINE_VMM, MACHINE_QEMU, MACHINE_PROGRAMS };

/* Whether that monitor is installed. */
bool machine_program_present(const struct runtime *runtime, enum machine_program program);

/* Starts a monitor. tag as in shell_create(); uid: its own, no other process has it. file_bytes: the longest file it
 * may write; limits: NULL for a pool, else the cgroups they need are made at once. */
int machine_create(struct runtime *runtime, const char *tag, uint32_t uid, enum machine_program program,
                   uint64_t file_bytes, const struct limits *limits, struct machine **ret_machine, struct steps *steps,
                   struct error **err);

int machine_setup_fd(const struct machine *machine); /* borrowed; SOCK_SEQPACKET */
/* Gives back what only the making of the monitor needed: one of the few places all of them share. To be called before
 * its first answer is waited for; waits itself until the new process has done its first system call. */
void machine_settle(struct machine *machine);
int machine_pidfd(const struct machine *machine); /* borrowed; readable when it ended */
uint32_t machine_uid(const struct machine *machine);

/* Applies the limits, in place of those of a call before: before the guest is somebody's. Some cost 10 ms in a cgroup v1 that machine_create() did not make. */
int machine_limit(struct machine *machine, const struct limits *limits, struct error **err);

/* The guest is loaded: the handle is freed, *ret_container replaces it. On failure it is still the caller's. */
int machine_become(struct machine *machine, int instance_dirfd, struct container **ret_container, struct error **err);

/* Kills and removes everything; accepts NULL. As shell_destroy(). */
int machine_destroy(struct machine *machine, struct error **err);

#endif
