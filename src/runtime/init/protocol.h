/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the runtime library and coracle-init say to each other: SOCK_SEQPACKET, one message a packet, fds beside it.
 *
 * Both are built from the same tree and the init comes from a sealed memfd of the library's choosing, but a launcher
 * that was upgraded meets inits of its former release: INIT_PROTOCOL is in every header and checked by both sides.
 * Host byte order, fixed widths. The init trusts its peer (the launcher), yet checks every length.
 */
#ifndef CORACLE_RUNTIME_INIT_PROTOCOL_H
#define CORACLE_RUNTIME_INIT_PROTOCOL_H

#include <stdint.h>

enum {
    INIT_PROTOCOL = 1,
    INIT_CONTROL_FD = 3, /* the init's end of the control socket at exec */
    INIT_MESSAGE_MAX = 128 * 1024,
    INIT_FD_MAX = 12,
    INIT_DETAIL_SIZE = 96,
    INIT_TASKS_MAX = 4,
    INIT_HOSTNAME_SIZE = 65,
    INIT_STRING_MAX = 520, /* argv and env entries together, and the two before them */
};

enum init_type {
    INIT_ROOT = 1,    /* fd: the root mount, detached. Payload: seccomp program, expected program's path */
    INIT_START,       /* fds as counted in init_start */
    INIT_EXEC,        /* fds: stdin, stdout, stderr unless tty */
    INIT_CONSOLE,     /* -> DONE with fd: pty master, or the write end of stdin */
    INIT_APPLICATION, /* -> DONE with fd: pidfd of the application */
    INIT_DONE,
    INIT_FAILED,
    INIT_EXITED, /* event on the connection of an INIT_EXEC */
};

struct init_header {
    uint16_t protocol;
    uint16_t type;
    uint32_t size; /* of the whole message */
};

enum { INIT_ROOT_READ_ONLY = 1, INIT_ROOT_RESOLV = 2 };

struct init_root {
    struct init_header header;
    uint32_t flags;
    uint32_t landlock_abi; /* 0: no Landlock */
    uint64_t bounding;     /* capabilities the init and everything below it may ever hold */
    uint32_t filter_count; /* struct sock_filter, behind this struct */
    uint32_t present;      /* bits of masks.h: what of those lists this kernel has */
    uint32_t program_size; /* of the path with its 0; 0: none is expected */
    uint32_t reserved;
};

enum { INIT_PROCESS_TTY = 1, INIT_PROCESS_STDIN = 2 };

/* Behind it: user, cwd, argv[argc], env[envc], each with its terminating 0. */
struct init_process {
    uint32_t flags;
    uint32_t argc, envc;
    uint32_t strings_size;
};

enum { INIT_START_LOG = 1, INIT_START_LISTEN = 2 };

/* fds in this order: exit file, [log.0, log.1], [listening socket], tasks_count cgroup v1 tasks files. */
struct init_start {
    struct init_header header;
    uint32_t flags;
    uint32_t tasks_count;
    uint64_t log_bytes_max;
    uint64_t capabilities;            /* bounding set, and all of root's */
    uint64_t ambient;                 /* of a user other than root */
    uint32_t hosts_size, resolv_size; /* texts for /etc, behind the process's strings */
    uint32_t label_size;              /* LSM label written to attr/exec, behind those; 0: none */
    char hostname[INIT_HOSTNAME_SIZE];
    char padding[3];
    struct init_process process;
};

struct init_exec {
    struct init_header header;
    struct init_process process;
};

/* Where something failed; texts and hints for people are in src/runtime/failure.c. */
enum init_stage {
    STAGE_NONE,
    STAGE_PROTOCOL,
    STAGE_ATTACH_ROOT,
    STAGE_MOUNT_POINT, /* detail: proc, sys or dev; errno ENOTDIR/ELOOP: the image's is no directory */
    STAGE_DEV,
    STAGE_PROC,
    STAGE_SYS,
    STAGE_MASK,
    STAGE_ETC,
    STAGE_PIVOT,
    STAGE_SETTINGS, /* sysctls, rlimits, keyring */
    STAGE_LANDLOCK,
    STAGE_SECCOMP,
    STAGE_CGROUP,
    STAGE_HOSTNAME,
    STAGE_PIPES,
    STAGE_TERMINAL,
    STAGE_USER, /* detail: the user asked for */
    STAGE_SPAWN,
    STAGE_CAPABILITIES,
    STAGE_LABEL,
    STAGE_CWD,
    STAGE_LOOKUP, /* argv[0] not found in PATH */
    STAGE_EXECVE,
    STAGE_BUSY, /* RUNTIME_EXEC_MAX executions run already */
    STAGE_CONSOLE,
    STAGE_COUNT
};

enum { INIT_TIMES = 4 };

struct init_reply { /* DONE, FAILED, EXITED */
    struct init_header header;
    uint32_t stage;
    int32_t error; /* positive errno */
    int32_t wait_status;
    uint32_t number; /* of an exec */
    int32_t pid;     /* in the container's own pid namespace */
    uint32_t reserved;
    uint64_t times[INIT_TIMES]; /* CLOCK_MONOTONIC ns; ROOT: begun, mounted, done; START: begun, spawning, exec'd */
    char detail[INIT_DETAIL_SIZE];
};

#endif
