/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The monitor's one machine, from nothing to its end, the same for the plain tool (main.c) and under the launcher
 * (supervised.c): prepared (a VM with memory, which may wait in a pool), loaded (a guest and its devices), confined,
 * run.
 */
#ifndef CORACLE_VMM_MACHINE_H
#define CORACLE_VMM_MACHINE_H

#include "monitor/protocol.h"
#include "vmm/devices/loop.h"
#include "vmm/devices/net.h"
#include "vmm/machine_devices.h"
#include "vmm/vcpu.h"

struct machine {
    struct vm *vm;
    struct loop *loop;
    struct vcpu_counters counters;
    struct vcpu_callbacks callbacks;
    char kernel_name[256];          /* for words */
    enum monitor_stage stage;       /* where the last failure was */
    struct device *vsock, *balloon; /* NULL: it has none */
    int console_fd;                 /* write end of the console's input; -1: none */
    bool memory_shared;
    bool parked;               /* the guest is to wait for machine_identify() */
    uint8_t seed[32];          /* of the guest's next life, drawn while that is possible */
    uint64_t memory_ns, vm_ns; /* CLOCK_MONOTONIC: when PREPARE's steps were done */
};

uint64_t machine_now_ns(void);

struct machine_nic {
    struct net_options net; /* its descriptors are taken over */
};

/* What main.c's options and a LOAD have in common. */
struct machine_load {
    const char *kernel_name;
    int kernel_fd; /* borrowed: an image, or with restore a snapshot */
    bool restore;
    bool park;     /* it gets its identity later, and no packet until then */
    int initrd_fd; /* borrowed; -1: none */
    const char *parameters;
    unsigned nic_count;
    struct machine_nic nics[MONITOR_NIC_MAX];
    struct machine_extras extras;
};

/* kvm_fd: taken over. shape: with ring 0 it takes kernels, without it unikernels through the direct entry. */
int machine_prepare(struct machine *m, int kvm_fd, uint64_t memory_bytes, bool shared, const struct vm_shape *shape,
                    struct error **err);
/* On failure the machine is of no use any more. */
int machine_load(struct machine *m, struct machine_load *load, struct error **err);
/* A whole file, read-only. name: for words. */
int machine_map_file(int fd, const char *name, const uint8_t **ret, size_t *ret_size, struct error **err);
void machine_unmap_file(const uint8_t *map, size_t size); /* accepts NULL */
/* No capability, no file; starts the device thread. When everything that names a file is open: a parked machine has
 * this behind it, the plain tool does it before it loads.
 * run_once: a unikernel's processor runs now what its first entry would be slow with; for a machine that will wait. */
int machine_enclose(struct machine *m, bool run_once, struct error **err);
/* No system call but the listed: before the guest's first instruction. */
int machine_confine(struct machine *m, struct error **err);
/* Who the parked guest is. On the vCPU's thread while the guest stands still; the sandbox may be closed.
 * identity is checked, as monitor_receive() does; its files are the caller's business. */
int machine_identify(struct machine *m, const struct monitor_identity *identity, const char *parameters,
                     struct error **err);
/* Runs the guest to its end, says in the log how it ended. Returns the wait status (wait(2)) to be recorded. */
int machine_run(struct machine *m);

#endif
