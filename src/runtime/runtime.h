/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The container runtime as a library: makes an isolated, parked container, fills it, starts it, looks after it.
 *
 * Used by coracle-launcher on its worker threads (every function here may be called from any thread; one shell or
 * container by one thread at a time). Life of a container:
 *
 *   shell_create()     cgroups, namespaces, uid range, coracle-init exec'd and parked. From here shell_netns_fd()
 * works, so the caller builds the network ... shell_set_root()   ... while the init mounts the root (asynchronous:
 * errors come out of the next call) shell_wait()       only for a pool: waits until the shell is parked with its root
 *   shell_start()      limits, capabilities, hostname, the application; the shell becomes a struct container
 *   container_*()      signals, freezer, limits, figures, exec
 *   container_destroy()  kills, reaps, removes the cgroups. The writable layer stays at instances/ID/writable, so
 *                      that a later start finds it, until runtime_writable_release().
 *
 * A shell whose creator dies ends by itself (its control socket closes); a container does not notice.
 */
#ifndef CORACLE_RUNTIME_RUNTIME_H
#define CORACLE_RUNTIME_RUNTIME_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "model/plan.h"
#include "model/steps.h"

enum {
    RUNTIME_TAG_SIZE = 64,    /* name of a shell's cgroup directories: [A-Za-z0-9._-], at most 63 */
    RUNTIME_ID_COUNT = 65536, /* uids and gids of one container, and of the image range */
    RUNTIME_EXEC_MAX = 16,    /* commands executed at one time inside one container, besides its application */
};

/* Controllers; the bit numbers are those of enum controller in proto/messages.h. */
enum runtime_controller {
    RUNTIME_CPU = 1u << 0,
    RUNTIME_CPUSET = 1u << 1,
    RUNTIME_MEMORY = 1u << 2,
    RUNTIME_PIDS = 1u << 3,
    RUNTIME_IO = 1u << 4,
    RUNTIME_FREEZER = 1u << 5,
};

struct runtime_config {
    int layers_dirfd;             /* images/layers: one directory a layer, named by its digest; borrowed */
    const char *cgroup_parent;    /* directory made in every hierarchy in use, e.g. "coracle" */
    const char *init_path;        /* the coracle-init program; read once, sealed in a memfd */
    const char *monitor_dir;      /* where coracle-vmm and coracle-qemu are; those absent cannot be used */
    uint32_t image_uid_base;      /* owner range of the layers' files */
    const char *apparmor_profile; /* NULL: none */
    const char *selinux_label;    /* NULL: none */
    const char *resolv_conf;      /* text put over the image's /etc/resolv.conf; NULL: the image's own */
};

/* What this host can do for containers; plain fields, for struct host_facts. */
struct runtime_facts {
    bool cgroup_v2;
    uint32_t controllers; /* bits of enum runtime_controller that can be enforced */
    bool landlock, seccomp, apparmor, selinux, user_namespaces, idmapped_mounts, overlay, cap_sys_resource;
    int landlock_abi; /* 0: none */
    uint32_t cpus;    /* online */
    uint64_t memory_bytes;
    char kernel[64];
};

struct runtime;

/* Probes the host and prepares what all containers share. Makes cgroup_parent in each hierarchy. */
int runtime_open(const struct runtime_config *config, struct runtime **ret_runtime, struct error **err);
void runtime_close(struct runtime *runtime); /* accepts NULL; containers live on, shells must be gone */
void runtime_facts(const struct runtime *runtime, struct runtime_facts *ret_facts);

/* LIMIT_NOT_ENFORCEABLE when a limit asked for needs a controller or device this host lacks, INSUFFICIENT_RESOURCES
 * when it is beyond what the host has. Also done by shell_start() and container_update(); here so that a plan is
 * refused before anything is made. */
int runtime_check_limits(const struct runtime *runtime, const struct limits *limits, struct error **err);

/* Threads that may take a part of the work (root_begin()); borrowed. Set once, before other threads use the library. */
struct beside;
void runtime_use_beside(struct runtime *runtime, struct beside *beside);

/* Called on the thread that waits, when a wait for something an image may make hang becomes a long one, and when it is
 * over. Set once, before other threads use the library; NULL: nobody is told. */
typedef void (*runtime_waiting)(bool begins);
void runtime_on_waiting(runtime_waiting waiting);
/* The library's own way to wait, for waits its user adds: 1 readable, 0 the time is over, -errno. */
int runtime_wait_readable(int fd, int timeout_ms);

/* A directory with an image's layers merged, read-only, with the owners of the store: for programs that read an image
 * whole. *ret_fd may be a detached mount: "." of it can be opened, itself it cannot be read. */
int runtime_merge(struct runtime *runtime, const struct plan_root *root, int *ret_fd, struct error **err);

/* The capabilities a plan may add to the default set; others are refused by shell_start(). */
uint32_t runtime_capabilities_allowed(void);

/* ---- shells ---- */

struct shell;

/* Makes an empty, parked container. tag: unique among living ones, e.g. the instance's id or "pool-17".
 * uid_base: first host id of its own range of RUNTIME_ID_COUNT. */
int shell_create(struct runtime *runtime, const char *tag, uint32_t uid_base, struct shell **ret_shell,
                 struct steps *steps, struct error **err);

int shell_netns_fd(const struct shell *shell); /* borrowed; valid right after shell_create() */
pid_t shell_pid(const struct shell *shell);
int shell_pidfd(const struct shell *shell); /* borrowed; readable when the init ended */
const char *shell_tag(const struct shell *shell);
uint32_t shell_uid_base(const struct shell *shell);

/* Before shell_set_root(): what the shell will probably run, an absolute path, so that its init looks it up beforehand
 * (40 us over a fresh overlay). Borrowed until then. NULL: not known. */
void shell_expect(struct shell *shell, const char *program);

/*
 * Gives the shell its root. instance_dirfd: instances/ID, borrowed; a writable layer kept there by an earlier run
 * (instances/ID/writable) is used again. -1 (pool): a new writable layer is made and moved to instances/ID/writable
 * by shell_start(). Returns before the init has mounted everything.
 */
int shell_set_root(struct shell *shell, const struct plan_root *root, int instance_dirfd, struct steps *steps,
                   struct error **err);

/*
 * The same in two halves: the root is built beside what the caller does meanwhile, the shell's own making for instance.
 * root_begin(): root and instance_dirfd are borrowed until one of the others is called; NULL: no memory.
 * root_ready(): shell_take_root() would not wait.
 * shell_take_root(): the work is gone afterwards, whatever the result. root_drop(): for a shell that could not be made;
 * accepts NULL.
 */
struct root_work;
struct root_work *root_begin(struct runtime *runtime, uint32_t uid_base, const struct plan_root *root,
                             int instance_dirfd);
bool root_ready(const struct root_work *work);
int shell_take_root(struct shell *shell, struct root_work *work, struct steps *steps, struct error **err);
void root_drop(struct root_work *work);

/* Memory and pids in force beforehand (a pool's shell has the host's defaults): shell_start() sets only what differs.
 */
int shell_preset(struct shell *shell, const struct limits *limits, struct error **err);

/* Waits until everything sent so far is done; the error of shell_set_root()'s second half comes out here. */
int shell_wait(struct shell *shell, int timeout_ms, struct error **err);

struct shell_start { /* all borrowed */
    const struct launch_plan *plan;
    int instance_dirfd; /* instances/ID */
    int log_fds[2];     /* log.0, log.1: open for writing, O_APPEND; -1: output is discarded */
    int exit_fd;        /* instances/ID/exit, open for writing; see container_exit_read() */
    int listen_fd;      /* bound, listening SOCK_SEQPACKET: instances/ID/init.sock; -1: no exec, no console */
    int timeout_ms;     /* for the whole start; 0: 10,000 */
};

struct container;

/*
 * Applies limits, capabilities, hostname, files of /etc; returns when the application's exec succeeded, or failed
 * (START_FAILED, with which part and what to do). On success *ret_container replaces the shell, which is gone; on
 * failure the shell is still the caller's, fit for shell_destroy() only.
 */
int shell_start(struct shell *shell, const struct shell_start *start, struct container **ret_container,
                struct steps *steps, struct error **err);

/* Kills and removes everything; accepts NULL. 0, or -errno when something was left behind (named in *err). */
int shell_destroy(struct shell *shell, struct error **err);

/* ---- running containers ---- */

struct container_record { /* what the launcher persists to find a container again */
    char tag[RUNTIME_TAG_SIZE];
    int32_t pid;         /* of its init */
    uint64_t start_time; /* of that pid, field 22 of /proc/PID/stat: guards against reuse */
    uint32_t uid_base;
    bool machine; /* pid is a virtual machine's monitor: no exec, no console, signals go to it (machine.h) */
};

void container_record(const struct container *container, struct container_record *ret_record);

/* Opens one again from its record, running or ended. instance_dirfd (borrowed) leads to init.sock. -ESRCH is not
 * returned for an ended one: container_alive() tells. */
int container_open(struct runtime *runtime, const struct container_record *record, int instance_dirfd,
                   struct container **ret_container, struct error **err);

/* Frees the handle only; the container runs on. Accepts NULL. */
void container_close(struct container *container);

bool container_alive(const struct container *container);
pid_t container_pid(const struct container *container); /* of the init */
int container_pidfd(const struct container *container); /* borrowed; readable when it ended; -1: it had ended before */

/* To the application (not to its children); SIGKILL goes to everything in the container. -ESRCH when it ended. */
int container_signal(struct container *container, int signal, struct error **err);
int container_kill_all(struct container *container, struct error **err); /* also when frozen; does not wait */
int container_pause(struct container *container, struct error **err);    /* returns when frozen */
int container_resume(struct container *container, struct error **err);
bool container_paused(const struct container *container);

/* The whole set wanted. Checked as a whole before the first is written; a failed write puts the old ones back.
 * instance_dirfd: for storage_bytes; may be -1 when that is unchanged or there is no writable layer. */
int container_update(struct container *container, const struct limits *limits, int instance_dirfd, struct error **err);

struct container_stats {
    uint32_t known; /* bits (1u << STAT_x) in the order of enum stat of proto/messages.h, without NET */
    uint64_t cpu_ns, memory_bytes, memory_peak_bytes, pids, oom_kills, throttled_ns;
    uint64_t io_read_bytes, io_write_bytes;
};
int container_stats(const struct container *container, struct container_stats *ret_stats, struct error **err);

/* ---- exec ---- */

struct runtime_exec {
    uint32_t number; /* within its container, from 1 */
    int connection;  /* readable when it ended: then call runtime_exec_wait() */
    int pidfd;       /* of the process */
    int terminal;    /* pty master when tty, else -1; the caller's */
};

/* stdio: three descriptors, borrowed, ignored when process->tty (-1: /dev/null). EXEC_FAILED with the reason. */
int container_exec(struct container *container, const struct plan_process *process, const int stdio[3],
                   struct runtime_exec *ret_exec, struct error **err);
int runtime_exec_signal(const struct runtime_exec *exec, int signal, struct error **err);
/* -EAGAIN while it runs; 0 and the wait status; -ECONNRESET when the container ended before it could tell. */
int runtime_exec_wait(const struct runtime_exec *exec, int *ret_wait_status);
void runtime_exec_close(struct runtime_exec *exec); /* closes all three; the process runs on */

/* The pty master (write and resize it only: the init reads it for the log), or without a terminal the write end of
 * stdin, given once: closing it is the application's end of file. CONFLICTING_STATE when there is none. */
int container_console(struct container *container, int *ret_fd, struct error **err);

/* ---- the end ---- */

struct container_exit {
    bool status_known;   /* false: killed from outside, nobody could write the status */
    int32_t wait_status; /* as of waitpid(2); SIGKILL when not known */
    bool oom;
    uint64_t exited_at_ns; /* CLOCK_REALTIME */
};

/* Reads instances/ID/exit and the memory cgroup's count of kills. Call before container_destroy(). */
int container_exit_read(const struct container *container, int instance_dirfd, struct container_exit *ret_exit,
                        struct error **err);

/* Kills what still runs, reaps the init, removes the cgroups, frees the handle. 0, or -errno when something was left
 * behind (named in *err); the handle is gone either way. Accepts NULL. */
int container_destroy(struct container *container, struct error **err);

/* Unmounts instances/ID/writable and removes that directory; no error when there is none. */
int runtime_writable_release(int instance_dirfd, struct error **err);

/* ---- after a crash ---- */

/* Whether something with that tag belongs to a known container. */
typedef bool (*runtime_keep)(void *context, const char *tag);

/* Finds cgroups below the parent whose tag keep() denies, kills what runs in them and removes them. */
int runtime_sweep(struct runtime *runtime, runtime_keep keep, void *context, unsigned *ret_removed, struct error **err);

/* Unmounts everything below path/TAG (path: RUN/instances) whose TAG keep() denies. */
int runtime_sweep_mounts(const char *path, runtime_keep keep, void *context, unsigned *ret_removed, struct error **err);

#endif
