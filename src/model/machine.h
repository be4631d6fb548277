/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a machine's guest is told at boot: words "key=value", then "--" and the program with its arguments. The language
 * of docs/formats/boot-parameters.md, which our unikernel and our Tinyx init read. Pure; used by the drivers of
 * machines.
 */
#ifndef CORACLE_MODEL_MACHINE_H
#define CORACLE_MODEL_MACHINE_H

#include "model/plan.h"

/* "hostname=NAME ip4=A/P gw4=A ip6=A/P gw6=A gwmac=M eth1.ip4=..."; the caller frees it. NULL: out of memory. */
char *machine_identity(const char *hostname, const struct plan_nic *nics, size_t nic_count);

/* "PARAMETERS -- WORD WORD ..."; bytes that would end a word are written %XX. parameters and argv may be NULL. */
char *machine_parameters(const char *parameters, char *const *argv);

/* Guest memory in whole pages: what was asked for, else the default, at least what the image needs. */
uint64_t machine_memory(uint64_t asked, uint64_t normal, uint64_t least);

/* Whole processors: a quota below one is the cgroup's. */
uint32_t machine_vcpus(const struct limits *limits);

/* plan_begin() for a machine. */
void machine_plan_begin(const struct vnf_spec *spec, const char *id, const char (*layers)[DIGEST_HEX_SIZE],
                        size_t layer_count, const struct plan_nic *nics, size_t nic_count, struct launch_plan *ret);

/* Refuses less memory than the technology needs. */
int machine_check_least(const struct vnf_spec *spec, uint64_t least, struct error **err);

/* Adds to a plan's limits what QEMU needs besides the guest's memory: itself, under emulation its translated code, the
 * private writes to a disk; and its threads. After machine is filled. */
void machine_qemu_bounds(struct launch_plan *plan, bool private_disk);

/* Whether a running machine can become the wanted one: processors and memory can be added where it was started with
 * room for them, nothing can be taken away. UNSUPPORTED_BY_TECHNOLOGY or INVALID_VALUE; names are those of resources.
 */
int machine_check_growth(const struct plan_machine *now, const struct plan_machine *wanted, struct error **err);

/* Fills vcpus_max and memory_max_bytes; refuses a maximum below what it starts with, and any where the machine has no
 * slots (can_grow false). After vcpus and memory_bytes. */
int machine_set_room(const struct vnf_spec *spec, bool can_grow, struct plan_machine *m, struct error **err);

/* Refuses what no machine has (of a descriptor that the user wrote for a container): UNSUPPORTED_BY_TECHNOLOGY. */
int machine_check_spec(const struct vnf_spec *spec, struct error **err);

#endif
