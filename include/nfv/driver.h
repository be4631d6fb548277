/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a driver gives the platform: one folder of src/drivers, one const struct driver_ops, one row in src/daemon/drivers.c.
 *
 * A driver plans; it holds no privilege and never blocks. Carrying out is an executor's task: the launcher's for every
 * technology that runs on the host, a driver's own for one that does not (fake). Called on the daemon's one thread.
 */
#ifndef CORACLE_NFV_DRIVER_H
#define CORACLE_NFV_DRIVER_H

#include "base/error.h"
#include "model/guest.h"
#include "model/plan.h"
#include "proto/messages.h"

/* What an instance can be asked to do. A verb outside a driver's set is refused with UNSUPPORTED_BY_TECHNOLOGY. */
enum verb {
    VERB_STOP = 1, VERB_PAUSE = 2, VERB_UPDATE = 4, VERB_EXEC = 8, VERB_LOGS = 16,
    VERB_CONSOLE = 32, VERB_STATS = 64, VERB_SNAPSHOT = 128, VERB_RESTORE = 256,
};

/* One row of the technology table. */
struct technology {
    const char *name;            /* "container" */
    enum guest_kind guest_kind;
    const struct driver_ops *driver;
    /* Bits 1 << enum image_variant: which of the kind's variants it takes first when a name has several; 0: any. */
    uint32_t prefers;
    /* Reference of the image of the guest that its containers run in (image_config.carrier); NULL: they need none. */
    const char *carrier;
    /* Its guests cannot be told that they are somebody else when one is restored: none starts from a snapshot. */
    bool keeps_identity;
};

/* Whether a technology can run on this host. Strings are static or live as long as the facts they were made from. */
struct technology_state {
    bool available;
    const char *accelerator;     /* "none", "kvm", "kvm-pvm", "tcg", "xen" */
    const char *why_not;         /* NULL when available: what is missing, in words a user can act on */
    const char *what_would_help; /* NULL when available */
    bool keeps_identity;         /* on this host, as a technology's */
    uint32_t verbs, start_modes; /* the driver's without what that leaves out; technology_probe() fills them in */
};

/* What an image brings, as the store recorded it at import. Borrowed by plan(). */
struct image_config {
    char layers[LAYER_MAX][DIGEST_HEX_SIZE]; /* uppermost first */
    size_t layer_count;
    char **entrypoint, **command, **env;     /* NULL-terminated or NULL */
    const char *user, *workdir;              /* NULL: none */
    int stop_signal;                         /* 0: none given */
    enum guest_kind guest;                   /* GUEST_PROCESS, or what boots from the one layer's /boot */
    enum image_variant variant;
    const char *boot;                        /* static, see boot_find(); NULL: a process */
    const char *parameters;                  /* default kernel command line; NULL: none */
    uint64_t memory_min;                     /* bytes; 0: not said */
    bool initrd;                             /* /boot/initrd is there */
    const struct image_config *carrier;      /* what technology.carrier names, never NULL where that is not; borrowed */
    const char *disk;                        /* static: "disk.raw" or "disk.qcow2" in /boot; NULL: none */
};

/* How an executor reports. Each call of an executor's function ends in exactly one call of done, unless it returned
 * an error itself. message is NULL on failure and err borrowed; fds beside it are the callee's to close or keep (it
 * sets the entries it keeps to -1). */
typedef void (*executor_done)(void *context, enum message_type type, const void *message, int *fds, size_t fd_count,
                              const struct error *err);

struct executor;

/* Events nobody asked for: MESSAGE_EXITED, MESSAGE_EXEC_EXITED, MESSAGE_INSTANCE (found at re-adoption). */
typedef void (*executor_event)(void *context, enum message_type type, const void *message);

struct executor_ops {
    /* Sends one request (MESSAGE_START with struct launch_plan, MESSAGE_SIGNAL with struct message_signal, ...).
     * fds are borrowed. Returns 0 and later calls done, or -errno with *err and never calls it. ret_request may be
     * NULL; it names the request for MESSAGE_CANCEL. */
    int (*request)(struct executor *, enum message_type type, const void *message, const int *fds, size_t fd_count,
                   executor_done done, void *context, uint32_t *ret_request, struct error **err);
    /* Where events go from now on. */
    void (*listen)(struct executor *, executor_event event, void *context);
    void (*destroy)(struct executor *);
};

/* First member of every executor. */
struct executor {
    const struct executor_ops *ops;
};

struct sd_event;

struct driver_ops {
    const char *name;
    uint32_t guest_kinds;        /* bit set of enum guest_kind */
    uint32_t verbs;              /* bit set of enum verb */
    uint32_t start_modes;        /* bit set of 1 << enum start_mode: where a start may take its shell from */
    /* Can it run here; if not, why. Pure: facts were gathered by the launcher. */
    void (*probe)(const struct host_facts *, struct technology_state *ret);
    /* Descriptor and image to plan. Pure: network addresses are already in nics. image is NULL for a driver that
     * needs none. Checks what this technology cannot enforce and refuses it (LIMIT_NOT_ENFORCEABLE). */
    int (*plan)(const struct vnf_spec *, const struct image_config *image, const struct host_facts *,
                const struct plan_nic *nics, size_t nic_count, const char *id, struct launch_plan *ret,
                struct error **err);
    /* NULL: the launcher executes. Otherwise makes the driver's own executor on the daemon's event loop. */
    int (*make_executor)(struct sd_event *, struct executor **ret, struct error **err);
};

#endif
