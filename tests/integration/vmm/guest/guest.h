/* SPDX-License-Identifier: Apache-2.0 */
/* A guest for tests: drives each device of the monitor for real, or attacks it. One word of the boot parameters says
 * what it does. Built of the unikernel's platform without a network; runs at CPL 3 under coracle-vmm. */
#ifndef TESTS_VMM_GUEST_H
#define TESTS_VMM_GUEST_H

#include "../../../../nf/platform/platform.h"
#include "../../../../nf/platform/unikernel/unikernel.h"

#define say(...) nf_print(NF_OUTPUT, __VA_ARGS__)

enum { KIND_NET = 1, KIND_BLOCK = 2, KIND_BALLOON = 5, KIND_MAX = 20 };

/* Says why and ends with status 1. */
void fail(const char *what) __attribute__((noreturn));
void wait_ms(uint64_t ms);

/* A whole number behind name= in the parameters, or otherwise. */
uint64_t parameter(const char *name, uint64_t otherwise);

/* drive.c */
void drive_block(void);
void drive_console(void);
void drive_entropy(void);
void drive_balloon(void);
void drive_vsock(void);

/* hostile.c */
void hostile_12(void);
void hostile_13(void);
void hostile_14(void);
void hostile_15(void);
void hostile_16(void);
void hostile_17(void);
void hostile_18(void);
void hostile_storm(void);
void hostile_rings(void);

#endif
