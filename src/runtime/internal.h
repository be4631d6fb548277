/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the runtime library share; nobody outside src/runtime includes it. */
#ifndef CORACLE_RUNTIME_INTERNAL_H
#define CORACLE_RUNTIME_INTERNAL_H

#include <pthread.h>
#include <stddef.h>

#include "base/beside.h"
#include "runtime/cgroup.h"
#include "runtime/init/protocol.h"
#include "runtime/machine.h"
#include "runtime/runtime.h"

struct sock_filter;

enum { IDMAP_CACHE = 64, SPAWN_PLACES = 12 };
enum { VOID_NET, VOID_IPC, VOID_UTS, VOID_NAMESPACES };

struct runtime {
    struct runtime_facts facts;
    struct cgroups cgroups;
    int layers_fd;                     /* own duplicate */
    int proc_fd;                       /* the host's /proc */
    int home_mounts_fd;                /* the mount namespace every thread comes back to */
    int init_fd;                       /* sealed memfd, executable but not readable by a container */
    int monitor_fds[MACHINE_PROGRAMS]; /* sealed memfds of the monitors, -1: not installed */
    int void_fds[VOID_NAMESPACES];     /* namespaces of all monitors (void.c) */
    int void_mounts_fd, emulator_mounts_fd;
    int null_fd;                   /* /dev/null, for monitors */
    int stem_fd;                   /* mount namespace every container starts from a copy of (stem.c) */
    int stem_proc_fd, stem_sys_fd; /* its complete /proc and /sys, for looking what there is */
    int skeleton_fd;               /* detached mount: mount points for images that bring none */
    bool overlay_by_fd;            /* overlayfs takes layers as descriptors (Linux 6.13) */
    bool tmpfs_user_xattr;         /* Linux 6.6: tmpfs can hold overlayfs's user.overlay.* */
    uint32_t image_uid_base;
    char *label; /* written to attr/exec; NULL: none */
    char *resolv_conf;
    struct sock_filter *filter;
    uint32_t filter_count;
    struct beside *beside; /* borrowed; NULL: everything is done by the calling thread */
    bool reset_oom_score;  /* the launcher's own score is not 0 */
    pthread_mutex_t lock;  /* guards the cache */
    struct idmap_entry {
        uint32_t uid_base; /* 0: free */
        int fd;            /* user namespace that maps the image range to uid_base */
    } idmap_cache[IDMAP_CACHE];
    unsigned idmap_next;
    struct {
        int fd; /* a low number, held from the beginning */
        bool taken;
    } places[SPAWN_PLACES]; /* for the control socket of a child that is being made (spawn.c) */
    int place_high;         /* the highest number of those and of what else children take with them */
    pthread_cond_t place_free;
};

struct shell {
    const char *program; /* what it will probably run; borrowed until it has its root */
    struct runtime *runtime;
    char tag[RUNTIME_TAG_SIZE];
    uint32_t uid_base;
    uint32_t controllers; /* whose cgroups exist */
    pid_t pid;
    struct limits preset; /* in force already */
    int place;            /* reserved descriptor it holds, -1: none any more */
    int pidfd, netns_fd, control_fd;
    int writable_fd; /* a new writable layer, not yet at instances/ID/writable; -1: none */
    bool read_only;
    bool failed;      /* only fit to be destroyed */
    unsigned pending; /* requests without an answer yet */
    uint64_t created_ns;
    struct init_reply reply;                /* the last answer */
    int reply_fd;                           /* descriptor beside it, -1: none */
    _Alignas(16) unsigned char stack[4096]; /* of the child until its exec */
};

struct container {
    struct runtime *runtime;
    struct container_record record;
    int pidfd;             /* -1: it had ended before */
    int application_pidfd; /* -1: not asked yet */
    int instance_fd;       /* own duplicate of instances/ID */
};

/* stem.c */
int stem_make(struct runtime *runtime, struct error **err);
/* Which entries of init/masks.h this kernel has now (a module may have added one). */
uint32_t stem_masks_present(const struct runtime *runtime);

/* void.c */
int void_make(struct runtime *runtime, struct error **err);
void void_close(struct runtime *runtime);

/* machine.c: loads the monitors found in directory. */
int monitor_programs_load(struct runtime *runtime, const char *directory, struct error **err);
/* machine.c: opens what else monitors get, and has it all kept (spawn_keep()). After void_make(). */
int monitor_descriptors_keep(struct runtime *runtime, struct error **err);

/* runtime.c: path into a sealed memory file that anybody may execute and nobody read. */
int program_load(const char *path, const char *name, int *ret_fd, struct error **err);

/* shell.c */
bool tag_valid(const char *tag);

/* spawn.c */
int spawn_init(struct shell *shell, struct steps *steps, struct error **err);
/* Once: low descriptors for what children need. */
int spawn_reserve(struct runtime *runtime);
/* A descriptor that children take with them; all of them while the runtime is opened, when numbers are low. */
void spawn_keep(struct runtime *runtime, int fd);
/* Gives the shell's place back, when its child no longer needs it: waits if need be, so best called when other things
 * were done meanwhile. The end of the child is seen on the control socket only afterwards. */
void spawn_settle(struct shell *shell);
/* A user namespace that maps [inside, +RUNTIME_ID_COUNT) to [outside, ...): an fd, to be closed by the caller. */
int spawn_idmap_namespace(const struct runtime *runtime, uint32_t inside, uint32_t outside);
/* The calling thread gets a root and working directory of its own, which setns() to a mount namespace needs. Asked for
 * each time (the kernel does nothing when it is so): a thread that was the only one shares them with those it starts.
 */
int spawn_prepare_thread(void);

/* root.c */
struct root_mounts {
    int root_fd;     /* detached; to be sent to the init */
    int writable_fd; /* detached tmpfs to be kept, -1: none or already in place */
    bool read_only;
    uint32_t masks_present; /* stem_masks_present(): 20 lookups, best made beside */
};
int root_build(struct runtime *runtime, uint32_t uid_base, const struct plan_root *root, int instance_dirfd,
               struct root_mounts *ret_mounts, struct steps *steps, struct error **err);
/* The result of root_begin(), which is gone afterwards. */
int root_end(struct root_work *work, struct root_mounts *ret_mounts, struct steps *steps, struct error **err);
int root_keep_writable(int writable_fd, int instance_dirfd, struct error **err);
int root_resize_writable(int instance_dirfd, uint64_t bytes, struct error **err);

/* channel.c: messages with the init */
int channel_send(int socket, const void *message, size_t size, const int *fds, size_t fd_count);
/* -ETIMEDOUT, -ECONNRESET at the end of the connection, -EPROTO. fds beyond fd_max are closed. */
int channel_receive(int socket, int timeout_ms, struct init_reply *ret_reply, int *ret_fds, size_t fd_max);
/* The strings of a process behind a struct init_process; returns their size, or -E2BIG. */
struct buffer;
void channel_add_process(struct buffer *buffer, size_t process_offset, const struct plan_process *process);
int channel_connect(int instance_dirfd, struct error **err);

/* wait.c: 1 when readable, 0 when not within the time (-1: none), -errno. A long wait is told to the library's user. */
int wait_readable(int fd, int timeout_ms);
void wait_long(bool begins);

/* failure.c: what the init reported as an error for people */
int failure_error(const struct init_reply *reply, const struct plan_process *process, bool exec, struct error **err);

/* Field 22 of /proc/PID/stat; 0 when there is no such process. */
uint64_t process_start_time(const struct runtime *runtime, pid_t pid);

int pidfd_open_pid(pid_t pid);
int pidfd_signal(int pidfd, int signal);
/* True when the process ended within the time. */
bool pidfd_wait(int pidfd, int timeout_ms);
/* Kills everything in the pid namespace of pidfd, waits, reaps, removes the cgroups. pidfd may be -1. */
int remains_destroy(struct runtime *runtime, const char *tag, int pidfd, struct error **err);

#endif
