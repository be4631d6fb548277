/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A launch plan: what a driver worked out and the launcher carries out. Names no host path: layers are digests, links
 * are names, so that a plan from a compromised daemon can reach nothing but the image store and the fabric.
 *
 * Made by driver.plan (pure), carried by src/proto, checked again by the launcher (plan_validate, same bounds).
 */
#ifndef CORACLE_MODEL_PLAN_H
#define CORACLE_MODEL_PLAN_H

#include "model/spec.h"

enum {
    LAYER_MAX = 64,            /* image layers of one root; the kernel's own overlay bound is 500 */
    DIGEST_HEX_SIZE = 65,      /* SHA-256 (FIPS 180-4) in lower-case hex and its terminator */
    LINK_NAME_SIZE = NAME_SIZE,
    SUPPLEMENTARY_GID_MAX = 32,
};

enum plan_kind { PLAN_CONTAINER = 1, PLAN_FAKE = 2, PLAN_MACHINE = 3 };

/* The process that holds a virtual machine. */
enum plan_monitor { PLAN_MONITOR_VMM = 1, PLAN_MONITOR_QEMU = 2 };

/* How a machine's guest is entered; the numbers are those of enum monitor_boot (src/monitor/protocol.h). */
enum plan_boot {
    PLAN_BOOT_UNIKERNEL = 1, /* an image of include/abi/boot.h */
    PLAN_BOOT_PVH,           /* an ELF kernel with a PVH note */
    PLAN_BOOT_LINUX,         /* a bzImage or vmlinux */
    PLAN_BOOT_DISK,          /* firmware and boot loader, from the image's disk */
    PLAN_BOOT_MULTIBOOT,     /* a multiboot kernel */
};

enum {
    MACHINE_VCPU_MAX = 64,
    MACHINE_PARAMETERS_MAX = 4096, /* identity, a space, parameters, a terminator */
};
#define MACHINE_MEMORY_STEP (UINT64_C(128) << 20) /* of memory that is added: what Linux switches on at once (x86) */
#define MACHINE_MEMORY_MIN (UINT64_C(1) << 20)
#define MACHINE_MEMORY_MAX (UINT64_C(1) << 42)

/* Kind PLAN_MACHINE without a carrier: its kernel, initrd and disk are /boot/kernel, /boot/initrd, /boot/disk of the root's layers. */
struct plan_machine {
    enum plan_monitor monitor;
    enum plan_boot boot;
    bool kvm;                  /* false: the guest's instructions are emulated */
    uint64_t memory_bytes;     /* the guest's; a multiple of 4096 */
    uint32_t vcpus;
    uint64_t memory_max_bytes; /* as it runs, memory can be added up to here (PLAN_BOOT_DISK); 0: none */
    uint32_t vcpus_max;        /* and processors */
    char snapshot[INSTANCE_ID_SIZE]; /* UUID of a kept snapshot its guest comes from; "": from its image */
    /* The layer whose /boot/kernel and /boot/initrd are a guest that carries a container: the plan's root and process
     * are then the container's, in limits inside; "": the guest is the root's own. */
    char carrier[DIGEST_HEX_SIZE];
    uint64_t inner_memory_bytes; /* bounds of the container in its guest; 0: none */
    uint32_t inner_pids;
    uint32_t stop_signal;      /* what its application is asked to end with */
    bool restorable;           /* its guest takes a new identity when it is restored from a snapshot */
    char *identity;            /* this instance's boot parameters: addresses, host name; NULL: none */
    char *parameters;          /* the others, arguments last; follow the identity; NULL: none */
};

struct plan_process {
    char **argv;               /* NULL-terminated, argv[0] absolute or looked up in env's PATH inside the root */
    char **env;                /* NULL-terminated "KEY=value" */
    char *cwd;                 /* absolute, inside the root */
    char *user;                /* "uid[:gid]" or "name[:group]", resolved inside the root by the instance's own init */
    bool tty;
    bool open_stdin;
};

struct plan_root {
    char layers[LAYER_MAX][DIGEST_HEX_SIZE]; /* directories of the image store, uppermost first */
    size_t layer_count;
    bool read_only;
    uint64_t writable_bytes;   /* size of the in-memory writable layer; 0 when read_only */
};

struct plan_nic {
    char link[LINK_NAME_SIZE]; /* virtual link (network) to join */
    uint8_t mac[6];
    struct in_addr ipv4, gateway4;
    uint8_t prefix4;           /* 0: no IPv4 */
    struct in6_addr ipv6, gateway6;
    uint8_t prefix6;           /* 0: no IPv6 */
};

struct launch_plan {
    char id[INSTANCE_ID_SIZE];
    char name[NAME_SIZE];
    char hostname[NAME_SIZE];
    enum plan_kind kind;
    enum start_mode start_mode;
    struct plan_process process;
    struct plan_root root;
    struct plan_machine machine; /* kind PLAN_MACHINE only */
    struct limits limits;
    uint32_t capabilities;     /* bits of CAP_x kept in the bounding set for the instance's processes */
    struct plan_nic nics[NETWORK_PER_INSTANCE_MAX]; /* nics[i] is eth<i> */
    size_t nic_count;
    struct spec_port ports[PORT_PER_INSTANCE_MAX];
    size_t port_count;
    uint64_t log_bytes_max;    /* both log files together */
    struct spec_fault fault;   /* kind PLAN_FAKE only */
};

/* What every driver's plan begins with, of descriptor, image and addresses; the rest is zero. layers: layer_count of them. */
void plan_begin(enum plan_kind kind, const struct vnf_spec *spec, const char *id, const char (*layers)[DIGEST_HEX_SIZE],
                size_t layer_count, const struct plan_nic *nics, size_t nic_count, struct launch_plan *ret);

/* And ends with: r is what became of it so far. Validates it into *ret, or frees it. */
int plan_finish(struct launch_plan *plan, int r, struct launch_plan *ret, struct error **err);

/* Refuses published ports on a host without them (publish: host_facts'). */
int plan_check_ports(const struct vnf_spec *spec, bool publish, struct error **err);

/* Frees what a plan owns; accepts a zeroed one. */
void plan_clear(struct launch_plan *plan);

/* Checks every bound stated above and in spec.h. The launcher calls it on what it received. 0 or -EINVAL with *err. */
int plan_validate(const struct launch_plan *plan, struct error **err);

#endif
