/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside coracle-init: what its files share. One thread, no heap, no stdio: each page it touches counts per container.
 */
#ifndef CORACLE_RUNTIME_INIT_INIT_H
#define CORACLE_RUNTIME_INIT_INIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <unistd.h>

#include "protocol.h"

enum { EXEC_SLOTS = 16, SUPPLEMENTARY_MAX = 32 };

/* What went wrong last: sent to the launcher. */
struct failure {
    uint32_t stage;
    int error;
    char detail[INIT_DETAIL_SIZE];
};
extern struct failure failure;

/* Records stage, errno and detail (may be NULL); returns -1. */
int fail(enum init_stage stage, int error, const char *detail);

uint64_t now_ns(void);
void close_to(int *fd); /* closes and sets -1 */
int raise_fd(int fd);   /* the same description at a number above 2, CLOEXEC; closes fd */
int write_file_at(int dirfd, const char *path, const char *text, size_t size);

/* mounts.c */
struct root_state {
    int proc_fd;                          /* root of the container's own procfs: for attr/exec */
    int hosts_fd, hostname_fd, resolv_fd; /* files bound over /etc's; -1: not bound */
    int dev_fd;                           /* root of its /dev; until it is confined */
};
extern struct root_state root_state;
void mounts_ahead(void); /* while there is no root yet: what does not need it */
int set_root(int root_fd, const struct init_root *root, uint64_t *ret_mounted_ns);

/* helper.c: changes the root, unmounts the old one and raises lo, in parallel */
int helper_start(void);
int helper_join(void);

/* confine.c */
int apply_settings(void);
int confine(const struct init_root *root, const void *filter);
int drop_admin(uint64_t bounding);
int set_capabilities(uint64_t bounding, uint64_t ambient, bool root);

/* user.c */
struct identity {
    uid_t uid;
    gid_t gid;
    gid_t groups[SUPPLEMENTARY_MAX];
    size_t group_count;
    char home[128];
};
int resolve_user(const char *user, struct identity *ret_identity);

/* process.c */
struct child {
    char **argv, **env;
    const char *user, *cwd;
    const char *label; /* NULL or the LSM label */
    int stdio[3];
    bool terminal; /* stdio[0] becomes the controlling terminal */
    uint64_t capabilities, ambient;
    uint64_t held; /* what the init's bounding set has */
};
/* Parses the strings behind process; vector has room for INIT_STRING_MAX + 4 pointers. */
int parse_process(const struct init_process *process, char *strings, size_t available, char **vector,
                  struct child *ret_child);
/* Returns when exec succeeded; a pidfd and the pid, or -1 with failure. */
int spawn(const struct child *child, pid_t *ret_pid, int *ret_pidfd);
int open_terminal(int *ret_master, int *ret_slave);

#endif
