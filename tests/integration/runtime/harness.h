/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the runtime's integration tests share: a layer store with the guest program, a runtime of its own, and one call
 * that runs the guest in a real container and gives back its output and its end.
 */
#ifndef TEST_RUNTIME_HARNESS_H
#define TEST_RUNTIME_HARNESS_H

#include <stdbool.h>

#include "runtime/runtime.h"

enum { IMAGE_UID = 1 << 29, TEST_UID_BASE = 1 << 30, SKIP_STATUS = 77 };

struct harness {
    char base[64]; /* temporary directory: layers/, instances/ */
    int layers_fd;
    struct runtime *runtime;
    struct beside *beside; /* as the launcher has it */
    struct runtime_facts facts;
};
extern struct harness harness;

/* Makes everything; exits 77 with the reason where the host cannot (not root). */
void harness_open(void);
void harness_close(void); /* fails the process when something was left behind */

/* A layer named by hex digits of number, with proc sys dev etc tmp and the guest at /guest. Path in ret. */
void harness_layer(unsigned number, char ret_digest[DIGEST_HEX_SIZE], char *ret_path, size_t size);
void harness_layer_path(unsigned number, char *ret_path, size_t size);
/* A layer with nothing in it. */
void harness_empty_layer(unsigned number, char ret_digest[DIGEST_HEX_SIZE], char *ret_path, size_t size);

struct run {
    struct launch_plan plan; /* filled by run_init(), changed at will */
    char *argv[16], *env[8];
    struct shell *shell;
    struct root_work *root; /* begun, not taken yet */
    struct container *container;
    struct steps steps;
    int instance_fd;
    char directory[160], tag[RUNTIME_TAG_SIZE];
    uint32_t uid_base;
    char output[65536]; /* log records without their prefix, after run_wait() */
    struct container_exit exit;
    struct error *err;
    unsigned log_bytes;
    bool rooted; /* run_root() was called */
};

/* A plan of the guest with these arguments (NULL-terminated), read-only, layer 1. */
void run_init(struct run *run, ...) __attribute__((sentinel));
int run_create(struct run *run); /* root_begin, shell_create */
int run_root(struct run *run);
int run_start(struct run *run);  /* all three that are missing */
void run_wait(struct run *run);  /* until it ended: output, exit */
void run_logs(struct run *run);  /* output so far */
int run_end(struct run *run);    /* destroys container or shell, not the writable layer */
void run_clear(struct run *run); /* and the rest */

/* run_init + start + wait + clear; the output stays. */
int run_all(struct run *run);

/* Resources that containers use, as far as they are this process's. */
struct counts {
    unsigned mounts, cgroups, fds, cached, children;
};
void count_resources(struct counts *ret);
bool counts_same(const struct counts *before); /* prints both */
unsigned count_netns(void);

#endif
