/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of /proc and /sys a container does not see or may not write, in the manner of the OCI defaults. The library
 * looks which of them this kernel has and sets a bit for each (struct init_root), so that the init need not ask for the
 * others.
 */
#ifndef CORACLE_RUNTIME_INIT_MASKS_H
#define CORACLE_RUNTIME_INIT_MASKS_H

/* Hidden: what the OCI defaults hide, and pressure stall information. Files only the host's root may open (kpagecount,
 * slabinfo, vmallocinfo, kmsg, ...) need no mount: each costs time and memory. */
static const char *const proc_masked[] = {"acpi",       "asound",        "interrupts",  "kcore",
                                          "keys",       "latency_stats", "timer_stats", "sched_debug",
                                          "timer_list", "scsi",          "pressure"};

/* Read-only; with a read-only root all of /proc is. */
static const char *const proc_read_only[] = {"bus", "driver", "fs", "irq", "sys", "sysrq-trigger"};

static const char *const sys_masked[] = {"firmware", "devices/virtual/powercap", "kernel/slab"};

#define MASK_COUNT(list) (sizeof(list) / sizeof((list)[0]))

enum {
    MASK_PROC_FIRST = 0,
    MASK_READ_ONLY_FIRST = MASK_COUNT(proc_masked),
    MASK_SYS_FIRST = MASK_READ_ONLY_FIRST + MASK_COUNT(proc_read_only),
};

#endif
