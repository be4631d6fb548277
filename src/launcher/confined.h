/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A child that handles an image's files: in a user namespace that maps 0..65535 to the image range, with mount,
 * network, pid and ipc namespaces of its own, under memory, task and time limits. Called by layers.c on a thread of its
 * own.
 */
#ifndef CORACLE_LAUNCHER_CONFINED_H
#define CORACLE_LAUNCHER_CONFINED_H

#include "launcher/launcher.h"

struct confined {
    const char *what; /* for messages and the cgroup's name: "unpack", "remove" */
    int program_fd;   /* program to execute: its path may be closed to the image range; -1: run() is called instead */
    char *const *argv;
    int (*run)(int dirfd); /* async-signal-safe; its return value is the exit status */
    int fds[3];            /* become 3, 4 and 5; -1: not given. run() gets fds[1] */
    unsigned timeout_s;
};

/* Waits for the end. 0 when it exited with 0; TIMEOUT, NO_MEMORY (killed for memory) or IMAGE_MALFORMED otherwise. */
int confined_run(struct launcher *l, const struct confined *c, struct error **err);

/* run() for removal: empties the directory, never following a symbolic link. Exit status 0 or 1. */
int confined_empty_directory(int dirfd);

#endif
