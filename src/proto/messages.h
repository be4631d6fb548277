/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The typed messages between coracled and coracle-launcher: SOCK_SEQPACKET, one message a packet, descriptors beside it.
 *
 * The daemon asks, the launcher answers with the same request number; EXITED and EXEC_EXITED come by themselves with
 * request 0. Any message that does not decode completely and exactly closes the connection (PROTOCOL_ERROR).
 * Encoding: little-endian fixed-width integers, strings and lists with u32 counts; see wire.h. One codec per message.
 */
#ifndef CORACLE_PROTO_MESSAGES_H
#define CORACLE_PROTO_MESSAGES_H

#include <stdint.h>

#include "model/plan.h"
#include "model/steps.h"

enum {
    PROTO_VERSION = 5,             /* raised on any change of a codec; peers of different versions refuse each other */
    PROTO_MESSAGE_MAX = 128 * 1024, /* bytes in one packet */
    PROTO_FD_MAX = 4,              /* descriptors beside one message; surplus ones are closed and end the connection */
};

enum message_type {
    MESSAGE_HELLO = 1,       /* both ways, first: versions, host facts from the launcher */
    MESSAGE_START,           /* struct launch_plan -> STARTED or FAILED */
    MESSAGE_STARTED,
    MESSAGE_SIGNAL,          /* id, signal number -> DONE; sent to the application, SIGKILL to the whole instance */
    MESSAGE_PAUSE,           /* id -> DONE (frozen) */
    MESSAGE_RESUME,          /* id -> DONE */
    MESSAGE_UPDATE,          /* id, struct limits -> DONE */
    MESSAGE_STATS,           /* id -> STATS_REPLY */
    MESSAGE_STATS_REPLY,
    MESSAGE_RELEASE,         /* id -> DONE; kills what still runs and frees everything the instance holds on the host */
    MESSAGE_LIST,            /* -> one INSTANCE per known instance, then DONE */
    MESSAGE_INSTANCE,
    MESSAGE_EXITED,          /* event: the application ended */
    MESSAGE_EXEC,            /* id, process; fds: stdin, stdout, stderr unless tty -> EXEC_STARTED (fd: pty master when tty) */
    MESSAGE_EXEC_STARTED,
    MESSAGE_EXEC_SIGNAL,     /* id, exec number, signal -> DONE */
    MESSAGE_EXEC_EXITED,     /* event */
    MESSAGE_LOGS,            /* id -> LOGS_REPLY with two read-only fds: log.0, log.1 */
    MESSAGE_LOGS_REPLY,
    MESSAGE_CONSOLE,         /* id -> CONSOLE_REPLY with an fd: pty master, or the write end of stdin */
    MESSAGE_CONSOLE_REPLY,
    MESSAGE_LINK_ADD,        /* struct link -> DONE; adding the same link again is no error */
    MESSAGE_LINK_REMOVE,     /* name -> DONE */
    MESSAGE_UNPACK,          /* struct unpack; fds: archive, result pipe's write end -> DONE when it ended well */
    MESSAGE_LAYER_REMOVE,    /* digest -> DONE */
    MESSAGE_POOL,            /* -> POOL_REPLY */
    MESSAGE_POOL_REPLY,
    MESSAGE_SNAPSHOT,        /* id, UUID for the file -> DONE: the machine was written and goes on */
    MESSAGE_SNAPSHOT_REMOVE, /* UUID -> DONE */
    MESSAGE_CANCEL,          /* request number of a START under way -> DONE; that START answers FAILED, CANCELLED */
    MESSAGE_DONE,
    MESSAGE_FAILED,          /* struct error with its causes */
    MESSAGE_TYPE_COUNT
};

struct message_hello {
    uint32_t version;
    char software[32];             /* release, for the log */
    struct host_facts {            /* zeroed in the daemon's own HELLO */
        bool cgroup_v2;            /* true: unified with controllers; false: v1 controllers */
        uint32_t controllers;      /* bit set of enum controller */
        bool landlock, seccomp, apparmor, selinux, user_namespaces, idmapped_mounts, overlay, cap_sys_resource;
        bool kvm_present;              /* /dev/kvm can make a machine */
        bool kvm_linux;                /* and runs ring-0 code natively: Linux guests are usable (VT-x, SVM) */
        bool vhost_net, tun;           /* /dev/vhost-net, /dev/net/tun */
        char kvm_flavour[16];          /* "vmx", "svm", "pvm", "unknown"; "" without KVM */
        char kvm_why_not[128];         /* why it cannot make one; "" */
        char qemu[32];                 /* version of qemu-system-x86_64; "": not installed */
        char kernel[64];
        char fabric_netns[128];    /* path of the fabric's network namespace */
        char cgroup_parent[128];
        char uplink[32];           /* "" when not configured */
        bool publish;              /* published ports are configured */
        uint32_t pool_depth;
        uint32_t instance_max;     /* uid ranges there are */
        uint32_t cpus;             /* online */
        uint64_t memory_bytes;
    } facts;
};

enum controller { CONTROLLER_CPU, CONTROLLER_CPUSET, CONTROLLER_MEMORY, CONTROLLER_PIDS, CONTROLLER_IO, CONTROLLER_FREEZER };

struct message_started {
    int32_t pid;                   /* of the instance's init, in the host's pid namespace */
    uint32_t uid_base;             /* first host uid of its range of 65,536 */
    enum start_origin origin;
    struct steps steps;
};

struct message_signal {
    char id[INSTANCE_ID_SIZE];
    int32_t signal;
};

struct message_id {                /* PAUSE, RESUME, STATS, RELEASE, LOGS, CONSOLE */
    char id[INSTANCE_ID_SIZE];
};

struct message_update {
    char id[INSTANCE_ID_SIZE];
    struct limits limits;          /* the whole set wanted, not a difference; of a machine, its monitor's part included */
    uint32_t vcpus;                /* a machine that can grow: processors and memory that it shall have; 0: as it is */
    uint64_t machine_bytes;
};

struct instance_stats {            /* STATS_REPLY; 0 in known: the host cannot tell */
    uint32_t known;                /* bit set of enum stat_bit */
    uint64_t cpu_ns, memory_bytes, memory_peak_bytes, pids, oom_kills, throttled_ns;
    uint64_t io_read_bytes, io_write_bytes;
    uint64_t rx_packets, rx_bytes, rx_dropped, tx_packets, tx_bytes, tx_dropped; /* as seen from the instance */
};
enum stat_bit { STAT_CPU, STAT_MEMORY, STAT_MEMORY_PEAK, STAT_PIDS, STAT_OOM, STAT_THROTTLED, STAT_IO, STAT_NET };

/* What the launcher knows of one instance: for re-adoption after either side was killed. */
struct message_instance {
    char id[INSTANCE_ID_SIZE];
    char name[NAME_SIZE];
    int32_t pid;
    uint32_t uid_base;
    bool running;                  /* false: ended, status below, not yet released */
    bool paused;
    int32_t wait_status;           /* as of waitpid(2) */
    bool oom;
    bool status_known;             /* false: it was killed from outside while nobody could wait for it */
    uint64_t exited_at_ns;         /* CLOCK_REALTIME, 0 while running */
};

struct message_exited {
    char id[INSTANCE_ID_SIZE];
    int32_t wait_status;
    bool oom;                      /* the kernel killed something in it for memory */
    bool status_known;
    uint64_t exited_at_ns;
};

struct message_exec {
    char id[INSTANCE_ID_SIZE];
    struct plan_process process;
};

struct message_exec_started {
    uint32_t exec;                 /* number of this execution within its instance, from 1 */
};

struct message_exec_signal {
    char id[INSTANCE_ID_SIZE];
    uint32_t exec;
    int32_t signal;
};

struct message_exec_exited {
    char id[INSTANCE_ID_SIZE];
    uint32_t exec;
    int32_t wait_status;
};

struct link {                      /* a virtual link: one bridge in the fabric, the platform's address on it */
    char name[LINK_NAME_SIZE];
    struct in_addr gateway4;
    uint8_t prefix4;               /* 0: no IPv4 */
    struct in6_addr gateway6;
    uint8_t prefix6;
    uint16_t mtu;                  /* 0: the kernel's default */
    bool uplink;                   /* may reach the outside when the host profile has an uplink */
};

struct message_link_remove {
    char name[LINK_NAME_SIZE];
};

struct message_unpack {            /* the launcher starts coracle-unpack in its sandbox; it never reads the archive */
    char archive_name[NAME_SIZE];  /* for the log only */
    uint64_t bytes_max;            /* unpacked bytes allowed (bomb) */
    uint64_t files_max;
};

struct message_layer_remove {
    char digest[DIGEST_HEX_SIZE];
};

struct message_pool_reply {
    uint32_t depth;                /* wanted */
    uint32_t ready;                /* shells parked now */
    uint32_t snapshots;            /* machine images there is a snapshot of to start from */
    uint64_t taken, missed;        /* since the launcher started */
};

struct message_snapshot {
    char id[INSTANCE_ID_SIZE];
    char snapshot[INSTANCE_ID_SIZE];
};

struct message_snapshot_remove {
    char snapshot[INSTANCE_ID_SIZE];
};

struct message_cancel {
    uint32_t request;
};

#endif
