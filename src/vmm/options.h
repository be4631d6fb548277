/* SPDX-License-Identifier: Apache-2.0 */
/* coracle-vmm's command line. */
#ifndef CORACLE_VMM_OPTIONS_H
#define CORACLE_VMM_OPTIONS_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "vmm/machine_devices.h"

struct options {
    const char *kernel;     /* NULL: only help or the version was wanted, and printed */
    const char *parameters; /* boot parameters */
    unsigned tap_count;
    struct {
        char name[IFNAMSIZ];
        uint8_t mac[6]; /* zeros: of the mac below, counted up */
    } taps[MONITOR_NIC_MAX];
    const char *vhost_user; /* path of a back end's socket; NULL: none. Then no taps */
    unsigned queues;        /* queue pairs of each network device */
    bool vhost;             /* the kernel moves their packets */
    const char *initrd;     /* NULL: none */
    uint64_t memory_bytes;
    unsigned vcpus;
    bool pvh;   /* a unikernel too is entered as a kernel */
    bool probe; /* say what KVM this is, run nothing */
    int console_fd;
    bool console, entropy, balloon;
    int input_fd; /* of the virtio console; -1: none */
    unsigned disk_count;
    struct {
        const char *path; /* into argv, not terminated there */
        size_t length;
        enum block_mode mode;
    } disks[MONITOR_DISK_MAX];
    const char *vsock; /* path of its socket; NULL: none */
    uint32_t cid;
    uint64_t balloon_bytes; /* asked of the guest at the start */
    uint8_t mac[6];         /* of the first network device */
    bool supervised; /* by the launcher: everything comes on descriptor 3 */
};

int options_parse(int argc, char **argv, struct options *ret, struct error **err);

#endif
