/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file that holds a machine of coracle-qemu (docs/formats/qemu-snapshot.md): memory at its front, so that QEMU maps
 * it and all guests of one snapshot share it; then the devices' state as QEMU migrates it, what was written to private
 * disks, and at the end one page that says what is where and what it fits to. Host byte order: a file of one host.
 */
#ifndef CORACLE_QEMU_SNAPSHOT_H
#define CORACLE_QEMU_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "monitor/protocol.h"
#include "qemu/machine.h"

enum { SNAPSHOT_VERSION = 1, SNAPSHOT_PAGE = 4096 };
#define SNAPSHOT_MAGIC "CoraQemu"

struct snapshot_part {
    uint64_t offset, size; /* of the file; size 0: none */
};

struct snapshot {
    char magic[8];
    uint32_t version;
    uint32_t generation; /* restores that this memory went through */
    /* what it fits to */
    uint64_t memory_bytes;
    uint32_t vcpus, boot, flags, kvm;
    uint32_t nic_count, disk_count;
    uint8_t nic_queues[MONITOR_NIC_MAX];
    uint8_t disk_kind[MONITOR_DISK_MAX];   /* bit 0 qcow2, 1 overlay, 2 read-only */
    uint32_t moving;                       /* enum snapshot_moving; 0 in a file */
    uint64_t disk_bytes[MONITOR_DISK_MAX]; /* size of the file below */
    char qemu[96], machine[32], cpu[32];
    /* where it is */
    struct snapshot_part ram; /* size 0: the memory is within the state */
    struct snapshot_part state;
    uint64_t state_sum; /* of its first bytes, snapshot_sum() */
    struct snapshot_part overlays[MONITOR_DISK_MAX];
    uint64_t sum; /* of all above */
};

/* What else goes along when the machine moves to another supervisor. */
enum snapshot_moving {
    MOVING_AGENT = 1,
    MOVING_READY = 2,
    MOVING_PAUSED = 4,
    MOVING_RAM = 8 /* its file comes along */
};

/* What a snapshot of that machine, running under that QEMU, fits to. */
void snapshot_describe(const struct machine *m, const char *qemu, struct snapshot *ret);

/* Pure: the last page of a file of that size. */
int snapshot_parse(const uint8_t *page, size_t size, uint64_t file_bytes, struct snapshot *ret, struct error **err);

/* Pure: whether it can be restored into the wanted machine; *err says what differs. QEMU's version is compared only
 * when wanted->qemu is known. */
int snapshot_match(const struct snapshot *s, const struct snapshot *wanted, struct error **err);

/* The page alone, without the parts of a file: seal before it is sent, check what came. */
void snapshot_seal(struct snapshot *s);
int snapshot_check(const struct snapshot *s, struct error **err);

/* From a file. Checks the sum of the state. */
int snapshot_read(int fd, struct snapshot *ret, struct error **err);

/* Pieces of making one. Each returns 0 or -errno (ENOSPC: the file system is full). */
int snapshot_write_ram(int fd, int ram_fd, uint64_t bytes, struct error **err);
int snapshot_append(int fd, int from, uint64_t at, struct snapshot_part *ret, struct error **err);
int snapshot_finish(int fd, struct snapshot *s, struct error **err);

/* Copies the memory of a snapshot, for a machine that must share its memory with a switch. */
int snapshot_load_ram(int fd, int ram_fd, uint64_t bytes, struct error **err);

#endif
