/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU's command line for one machine. Pure: descriptors are numbers as QEMU will see them, so every machine has a
 * golden test without QEMU. Two kinds of machine: microvm (virtio-mmio, no firmware, no PCI) for kernels that are
 * entered directly, q35 (PCI, SeaBIOS) for disks and for kernels that want a PC.
 */
#ifndef CORACLE_QEMU_MACHINE_H
#define CORACLE_QEMU_MACHINE_H

#include <stdbool.h>

#include "base/buffer.h"
#include "monitor/protocol.h"

struct machine_nic {
    struct monitor_nic nic;
    int fds[2 * MONITOR_QUEUE_MAX]; /* as many as the back end brings; see protocol.h */
};

struct machine_disk {
    struct monitor_disk disk;
    bool block_device;
    uint64_t bytes, virtual_bytes; /* of the file or device; of the disk that it is */
    int fd;
    int overlay_fd;  /* an empty qcow2 (overlay.h); -1: none */
    int snapshot_fd; /* what the machine of a snapshot had written, between this offset ... */
    uint64_t snapshot_offset;
    uint64_t snapshot_size; /* ... and this size further; 0: nothing */
};

struct machine {
    enum monitor_boot boot;
    bool kvm;
    bool restore;     /* the guest comes from a snapshot: no kernel, and QEMU waits for the state */
    bool ram_private; /* what the guest writes does not reach ram_fd: it is a snapshot that others use too */
    uint64_t memory_bytes, memory_max_bytes; /* at the start; what can be plugged in, at least as much */
    uint32_t vcpus, vcpus_max;
    uint32_t flags;   /* enum monitor_load_flag: devices */
    uint32_t tsc_khz; /* of the host; 0: unknown */
    const char *name;
    const char *id; /* UUID; one that is none is left out */
    const char *parameters;
    int qmp_fd, console_fd, agent_fd, virtio_console_fd, sessions_fd, ram_fd, kernel_fd, initrd_fd; /* -1: none */
    unsigned nic_count, disk_count;
    struct machine_nic nics[MONITOR_NIC_MAX];
    struct machine_disk disks[MONITOR_DISK_MAX];
};

/* "microvm" or "q35": what a kind of boot runs on. */
const char *machine_type(enum monitor_boot boot);

/* Whether more can be plugged in as it runs: slots for memory, sockets for processors. */
bool machine_has_room(const struct machine *m);

/* QEMU's name for the processor the guest sees. */
const char *machine_cpu(bool kvm);

/* NUL-terminated words, one behind the other, into words. Returns their number, or -ENOMEM. */
int machine_words(const struct machine *m, struct buffer *words);

enum { MACHINE_MMIO_MAX = 8, MACHINE_LINUX_LINE_MAX = 2047 }; /* devices of a microvm; what Linux takes (x86) */
unsigned machine_mmio_devices(const struct machine *m);

/* Adds the kernel's command line: the user's words, those for Linux where the user says nothing about them, and where a
 * microvm's devices are; then "--" and what follows it. */
void machine_kernel_line(const struct machine *m, struct buffer *line);

#endif
