/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The warm pool: parked shells with their root, network pair and cgroups ready, but no address, no limits and no
 * application; and parked machines with their memory, processors and taps. Where the guest can be told later who it is,
 * it has booted, or was restored, and stands still. Filled by one thread of low priority while no request is under way,
 * for the kinds of plan used last.
 */
#ifndef CORACLE_LAUNCHER_POOL_H
#define CORACLE_LAUNCHER_POOL_H

#include "launcher/launcher.h"

enum { SPARE_NAME_SIZE = 48 };
#define SPARE_PREFIX "spare-"

enum parked_guest {
    GUEST_NONE,     /* nothing is loaded yet */
    GUEST_BOOTED,   /* the plan's image, booted, to be told who it is */
    GUEST_RESTORED, /* the same from a snapshot */
};

/* A shell with what belongs to it; ownership moves as a whole. */
struct warm_shell {
    struct shell *shell;                /* a container's, NULL: a machine */
    struct machine *machine;            /* prepared */
    enum parked_guest guest;            /* what stands still in the machine */
    struct limits limits;               /* under these, with a guest */
    int taps[NETWORK_PER_INSTANCE_MAX]; /* a machine's, ports.count of them; -1 */
    uint32_t uid_slot;
    struct fabric_ports ports; /* wired, without addresses; number is a slot of l->numbers */
    int netns_socket;
    int log_fds[2];              /* empty log files made beforehand in logs/<spare>: the disk is slower than the rest */
    int dir, exit_fd, listen_fd; /* instances/<spare>, the instance's folder to be, and what lies there; -1: taken */
    char spare[SPARE_NAME_SIZE];
};

#define WARM_SHELL_NONE                                                                                                \
    (struct warm_shell)                                                                                                \
    {                                                                                                                  \
        .netns_socket = -1, .dir = -1, .exit_fd = -1, .listen_fd = -1, .log_fds = {-1, -1},                            \
        .taps = {-1, -1, -1, -1, -1, -1, -1, -1},                                                                      \
    }
_Static_assert(NETWORK_PER_INSTANCE_MAX == 8, "WARM_SHELL_NONE names each tap");

int pool_open(struct launcher *l, struct error **err);
/* Ends the thread. What others ask of the pool is answered until pool_close(), which destroys the shells. */
void pool_stop(struct launcher *l);
void pool_close(struct launcher *l);

/* Takes a shell fit for the plan. Returns whether there was one; counts hits and misses. */
bool pool_take(struct launcher *l, const struct launch_plan *plan, struct warm_shell *ret_shell);

/* After a start: this kind of plan is worth a place in the pool. */
void pool_learn(struct launcher *l, const struct launch_plan *plan);

/* Drops shells that use a layer (hex) or a link (name); either may be NULL. Returns when they are gone. */
void pool_drop(struct launcher *l, const char *layer, const char *link);

/* Something that a shell may have waited for is there. */
void pool_look_again(struct launcher *l);

void pool_figures(struct launcher *l, struct message_pool_reply *ret_reply);

/* For threads that make ready what may be wanted: waits, not for ever, until no request is under way. */
void pool_let_others_first(struct launcher *l, const atomic_bool *stopping);

/* Closes and removes the spare folder, unless it was taken. Before warm_shell_drop_logs(). */
void warm_shell_drop_folder(struct launcher *l, struct warm_shell *w);

/* Closes and removes the spare log files, if any. */
void warm_shell_drop_logs(struct launcher *l, struct warm_shell *w);

/* Closes its taps. */
void warm_shell_drop_taps(struct warm_shell *w);

/* Destroys one shell and gives back what it holds. */
void warm_shell_destroy(struct launcher *l, struct warm_shell *w);

#endif
