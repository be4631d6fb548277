/* SPDX-License-Identifier: Apache-2.0 */
/* Takes from coracle-unpack everything but its three descriptors and one directory. Called once by main(). */
#ifndef CORACLE_UNPACK_CONFINE_H
#define CORACLE_UNPACK_CONFINE_H

#include "base/error.h"

/*
 * In this order, each stage for its own reason:
 *   descriptors    everything above keep_max is closed: a forgotten one would be a way out
 *   limits         no core dump, bounded memory and descriptors, no processes
 *   directory      chroot to dir_fd where permitted: an absolute path means nothing else
 *   Landlock       files beneath dir_fd only, nothing executed, no TCP, no signals or abstract sockets outside
 *   capabilities   only what setting owners and modes of other ids needs
 *   seccomp        the system calls of unpacking; any other ends the process
 */
int confine(int dir_fd, int keep_max, struct error **err);

#endif
