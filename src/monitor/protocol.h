/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the launcher and a monitor say to each other: SOCK_SEQPACKET, one message a packet, descriptors beside it.
 *
 * A monitor is the process that holds one virtual machine: coracle-vmm (its own KVM monitor) or coracle-qemu (a
 * supervisor with QEMU as its child). Both speak this, so the launcher has one way to run a machine.
 *
 * Life of a monitor. It is started with its end of a socket pair as descriptor MONITOR_SETUP_FD and nothing else but
 * 0, 1, 2 on /dev/null. There it is sent PREPARE (a machine with its memory, nothing in it; a warm pool parks it here)
 * and then LOAD. Each is answered by DONE or FAILED. DONE after LOAD means: the sandbox is closed and the guest's first
 * instruction is next. Until LOAD is done, the end of this socket ends the monitor: a shell does not outlive its
 * launcher. After it the monitor does not care: it serves connections on the listening socket that LOAD brought, one
 * request at a time each, and lives until its guest ends or a signal comes.
 *
 * A guest may wait in the warm pool, too. A LOAD with MONITOR_LOAD_PARK is answered when the guest was ready and stands
 * still, with its wires cut and the sandbox closed; the end of the setup socket goes on to be the monitor's. IDENTITY
 * then says who the guest is: it takes that as a restored one does, and goes on. From there on it is as after any LOAD.
 * It is answered only when it cannot be carried out, by FAILED and the end: an answer would delay what it is about.
 *
 * At its end a monitor writes the exit file (exit_file.h). SIGTERM, SIGINT, SIGHUP: the guest is asked to shut down
 * where it can be asked (LINUX), else ended; the exit file then says WIFSIGNALED with that signal. SIGKILL is the
 * launcher's word for now. Guest output goes to the two log files (log_file.h).
 *
 * An upgraded launcher meets monitors of its former release: MONITOR_PROTOCOL is in every header, both sides check it.
 * Host byte order, fixed widths. Every length and count is checked by the receiver; surplus descriptors are closed.
 */
#ifndef CORACLE_MONITOR_PROTOCOL_H
#define CORACLE_MONITOR_PROTOCOL_H

#include <assert.h>
#include <stdint.h>

enum {
    MONITOR_PROTOCOL = 1,
    MONITOR_SETUP_FD = 3,
    MONITOR_MESSAGE_MAX = 16 * 1024,
    MONITOR_NIC_MAX = 8,
    MONITOR_DISK_MAX = 4,
    MONITOR_QUEUE_MAX = 8, /* queue pairs of one network device */
    MONITOR_FD_MAX = 64,   /* beside one message */
    MONITOR_VCPU_MAX = 64,
    MONITOR_PARAMETERS_MAX = 4096, /* boot parameters (unikernel) or kernel command line, with terminator */
    MONITOR_DETAIL_SIZE = 256,
    MONITOR_HINT_SIZE = 256,
    MONITOR_TIMES = 4,
    MONITOR_STRINGS_MAX = 512, /* arguments and environment of an EXEC */
};

enum monitor_type {
    /* on the setup socket */
    MONITOR_PREPARE = 1,
    MONITOR_LOAD,
    /* on connections to the listening socket */
    MONITOR_STATUS,   /* -> STATUS_REPLY */
    MONITOR_PAUSE,    /* vCPUs and devices stand still -> DONE; again: no error */
    MONITOR_RESUME,   /* -> DONE; again: no error */
    MONITOR_SNAPSHOT, /* fd: an empty file, writable -> DONE when everything is in it. The guest is paused meanwhile
                         and goes on as it was before. */
    MONITOR_MEMORY,   /* struct monitor_memory: balloon, or pages handed back -> DONE */
    MONITOR_CONSOLE,  /* -> DONE with fd: write end of the guest's console input */
    MONITOR_VSOCK,    /* struct monitor_vsock -> DONE with fd: a stream to that port of the guest's vsock */
    MONITOR_POWER,    /* ask the guest to shut down (ACPI, vsock agent) -> DONE when it was asked */
    /* answers */
    MONITOR_DONE,
    MONITOR_FAILED,
    MONITOR_STATUS_REPLY,
    /* on connections to the listening socket, later than the others */
    MONITOR_MIGRATE, /* fd: one end of a stream socket pair whose other end is a LOAD's with MONITOR_LOAD_INCOMING, in
                        another monitor of this host -> DONE: the guest runs there, this monitor ends and writes no exit
                        file. FAILED: it runs on here. coracle-qemu only */
    MONITOR_NET, /* struct monitor_net, fd: a connected stream socket to a new vhost-user back end, in place of one that
                    went; the guest saw its link go down, and sees it come up -> DONE. coracle-vmm only */
    /* on the setup socket, later than the others */
    MONITOR_IDENTITY, /* struct monitor_identity, to a parked guest -> no answer, or FAILED */
    /* on connections to the listening socket, later still */
    MONITOR_RESIZE, /* struct monitor_resize: processors and memory are added until the machine has so much -> DONE. It
                       has room for what PREPARE said; nothing is taken away. coracle-qemu only */
    MONITOR_EXEC, /* struct monitor_exec and strings; fds: stdin, stdout, stderr, or one terminal -> DONE when it runs,
                     and later, on the same connection, ENDED. Only a guest with MONITOR_LOAD_SESSIONS can */
    MONITOR_SIGNAL, /* struct monitor_signal. On the connection of an EXEC: to that command, without an answer; on
                       another to the application of a guest with MONITOR_LOAD_SESSIONS -> DONE */
    MONITOR_ENDED,  /* struct monitor_ended: an EXEC's command ended; it is the last on its connection */
    MONITOR_TYPE_COUNT
};

struct monitor_header {
    uint16_t protocol;
    uint16_t type;
    uint32_t size; /* of the whole message */
};

enum monitor_boot {
    MONITOR_BOOT_UNIKERNEL = 1, /* an image of include/abi/boot.h: direct entry at CPL 3 where the monitor has it */
    MONITOR_BOOT_PVH,       /* an ELF with XEN_ELFNOTE_PHYS32_ENTRY; initrd and command line as struct hvm_start_info */
    MONITOR_BOOT_LINUX,     /* a bzImage or vmlinux: the monitor picks PVH or the Linux boot protocol */
    MONITOR_BOOT_DISK,      /* firmware and boot loader from the first disk; coracle-qemu only */
    MONITOR_BOOT_MULTIBOOT, /* a multiboot kernel; coracle-qemu only */
};

/* Everything that takes time and does not need to know which guest will run. fds: KVM device (absent: emulation). */
struct monitor_prepare {
    struct monitor_header header;
    uint64_t memory_bytes;
    uint32_t vcpus;
    uint32_t boot;      /* enum monitor_boot: the kind of machine to prepare */
    uint32_t flags;     /* enum monitor_prepare_flag */
    uint32_t nic_count; /* network devices it will have, for a monitor that must know */
    uint64_t memory_max_bytes; /* room for RESIZE, BOOT_DISK only; 0 or what it begins with: none */
    uint32_t vcpus_max;
    uint32_t reserved;
};
enum monitor_prepare_flag {
    MONITOR_MEMORY_SHARED = 1, /* a memfd: for vhost-user */
    MONITOR_PREPARE_LEAST = 2, /* LOAD follows at once: nothing is done ahead that costs more than it saves then */
};

enum monitor_net_backend {
    MONITOR_NET_NONE = 0,  /* a device without a wire: the template of a snapshot */
    MONITOR_NET_TAP = 1,   /* fds: one tap queue for each queue pair, IFF_VNET_HDR, header of 12 bytes, non-blocking */
    MONITOR_NET_VHOST = 2, /* fds: the taps, then as many /dev/vhost-net */
    MONITOR_NET_VHOST_USER = 3, /* fd: a connected stream socket to the switch */
};

struct monitor_nic {
    uint8_t mac[6];
    uint8_t backend; /* enum monitor_net_backend */
    uint8_t queues;  /* queue pairs, 1 to MONITOR_QUEUE_MAX */
};

struct monitor_disk {
    uint8_t read_only;
    uint8_t format;  /* 0 raw, 1 qcow2 (coracle-qemu only) */
    uint8_t overlay; /* 1: writes go to memory of this machine, the file is never written */
    uint8_t reserved[5];
};

enum monitor_load_flag {
    MONITOR_LOAD_RESTORE = 1, /* from a snapshot: its fd replaces kernel and initrd; parameters, MACs, seed are new;
                                 disks come as they did at the start */
    MONITOR_LOAD_INITRD = 2,
    MONITOR_LOAD_LOGS = 4,    /* log.0 and log.1 come along; without: output is discarded */
    MONITOR_LOAD_WAIT = 8,    /* DONE comes when the guest said that it is ready (unikernel: its application listens) */
    MONITOR_LOAD_VSOCK = 16,  /* it has a vsock device; cid below */
    MONITOR_LOAD_RANDOM = 32, /* it has an entropy device */
    MONITOR_LOAD_CONSOLE = 64, /* it has a virtio console besides the early one */
    MONITOR_LOAD_BALLOON = 128,
    MONITOR_LOAD_INCOMING = 256, /* with RESTORE: the snapshot's fd is a stream from a monitor that is asked to MIGRATE; the
                                    guest, its identity and its writes come over it. Disks, taps, files are given anew */
    MONITOR_LOAD_PARK = 512, /* DONE comes when the guest is ready and stands still, to be told who it is. Unikernels of
                                coracle-vmm only */
    MONITOR_LOAD_SESSIONS = 1024, /* it has a port for sessions (guest/session.h): EXEC, SIGNAL. coracle-qemu only */
};

/*
 * Which guest runs. fds in this order: exit file; listening socket; [log.0, log.1]; kernel, or the snapshot, or none
 * (BOOT_DISK); [initrd]; the fds of nics[0], nics[1], ...; disks[0], disks[1], ...
 * Behind the struct: parameters_size bytes, NUL-terminated.
 */
struct monitor_load {
    struct monitor_header header;
    uint32_t flags; /* enum monitor_load_flag */
    uint32_t boot;  /* as in PREPARE */
    uint64_t log_bytes_max;
    uint32_t vsock_cid;
    uint32_t nic_count;
    uint32_t disk_count;
    uint32_t parameters_size; /* 1 to MONITOR_PARAMETERS_MAX */
    char name[64];            /* of the instance, for log lines and QEMU's -name */
    char id[40];              /* UUID: VM generation id's first value, SMBIOS */
    struct monitor_nic nics[MONITOR_NIC_MAX];
    struct monitor_disk disks[MONITOR_DISK_MAX];
};

/*
 * Who a parked guest is. fds: none, or with MONITOR_IDENTITY_FILES exit file, listening socket, log.0, log.1 in place of
 * LOAD's. Behind the struct: parameters_size bytes, NUL-terminated.
 */
enum monitor_identity_flag { MONITOR_IDENTITY_FILES = 1 };
struct monitor_identity {
    struct monitor_header header;
    uint32_t flags;         /* enum monitor_identity_flag */
    uint32_t nic_count;     /* as many as it has */
    uint64_t log_written;   /* with files: bytes in the one that is written now, */
    uint32_t log_current;   /* 0 or 1 */
    uint32_t parameters_size;
    char name[64], id[40];  /* as in LOAD */
    struct {
        uint8_t mac[6], reserved[2];
    } nics[MONITOR_NIC_MAX];
};

struct monitor_memory {
    struct monitor_header header;
    uint64_t balloon_bytes; /* what the guest is asked to give up; 0: all of its memory is its own again */
};

struct monitor_resize {
    struct monitor_header header;
    uint64_t memory_bytes; /* in all */
    uint32_t vcpus;
    uint32_t reserved;
};

struct monitor_vsock {
    struct monitor_header header;
    uint32_t port;
    uint32_t reserved;
};

struct monitor_net {
    struct monitor_header header;
    uint32_t nic; /* which of LOAD's */
    uint32_t reserved;
};

/* Behind it: user ("": root), directory, arguments, environment, each with its 0; strings_size bytes. */
struct monitor_exec {
    struct monitor_header header;
    uint32_t terminal; /* 1, or 0 */
    uint32_t argc, envc;
    uint32_t strings_size;
};

struct monitor_signal {
    struct monitor_header header;
    int32_t signal;
    uint32_t reserved;
};

struct monitor_ended {
    struct monitor_header header;
    int32_t wait_status; /* as wait(2) has it */
    uint32_t reserved;
};

/* Where something failed: the launcher's words for it are chosen by this, detail says which part. */
enum monitor_stage {
    MONITOR_STAGE_NONE,
    MONITOR_STAGE_PROTOCOL,
    MONITOR_STAGE_VM, /* KVM refused */
    MONITOR_STAGE_MEMORY,
    MONITOR_STAGE_IMAGE,    /* the kernel, initrd or disk: malformed, wrong architecture, too large for the memory */
    MONITOR_STAGE_SNAPSHOT, /* other version, other CPU, damaged */
    MONITOR_STAGE_DEVICE,
    MONITOR_STAGE_SANDBOX,
    MONITOR_STAGE_GUEST,    /* it ended before it was ready */
    MONITOR_STAGE_SUPPORT,  /* this monitor cannot do that: detail says what */
    MONITOR_STAGE_EMULATOR, /* QEMU: not installed, ended, silent */
    MONITOR_STAGE_EXEC,     /* a command in the guest cannot be executed */
    MONITOR_STAGE_COUNT
};

struct monitor_reply { /* DONE, FAILED */
    struct monitor_header header;
    uint32_t stage;
    int32_t error;                    /* positive errno, 0: none */
    uint64_t times[MONITOR_TIMES];    /* CLOCK_MONOTONIC ns. PREPARE: begun, memory, VM, done. LOAD: begun, loaded,
                                         sandboxed,    entered */
    char detail[MONITOR_DETAIL_SIZE]; /* FAILED: what and where, for the user */
    char hint[MONITOR_HINT_SIZE];     /* FAILED: what to do next; "": nothing to add */
};

enum monitor_accelerator { MONITOR_ACCELERATOR_NONE, MONITOR_ACCELERATOR_KVM, MONITOR_ACCELERATOR_TCG };

struct monitor_status {
    struct monitor_header header;
    uint32_t accelerator; /* enum monitor_accelerator */
    uint32_t ready;       /* the guest said so */
    uint32_t paused;
    uint32_t generation;        /* restores of this guest's memory */
    uint64_t exits, exits_data; /* to the monitor: all; of these while packets flowed through rings (should stay 0) */
    uint64_t memory_bytes, balloon_bytes;
    uint64_t boot_ns; /* LOAD to ready; 0: not yet */
};

static_assert(sizeof(struct monitor_load) + MONITOR_PARAMETERS_MAX <= MONITOR_MESSAGE_MAX, "a message holds a LOAD");
static_assert(sizeof(struct monitor_identity) == 8 + 8 + 16 + 104 + 64, "no padding");
static_assert(sizeof(struct monitor_header) == 8 && sizeof(struct monitor_nic) == 8 && sizeof(struct monitor_disk) == 8,
              "no padding");

#endif
