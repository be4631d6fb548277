/* SPDX-License-Identifier: Apache-2.0 */
/* The system calls a container's processes may make, as a BPF program. Made once by the runtime library. */
#ifndef CORACLE_SANDBOX_CONTAINER_FILTER_H
#define CORACLE_SANDBOX_CONTAINER_FILTER_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct sock_filter;

/* *ret_filter: to be freed with free(). */
int seccomp_container_filter(struct sock_filter **ret_filter, uint32_t *ret_count, struct error **err);

/* What the filter does with a system call that no rule restricts by argument; for tests and documentation. */
enum seccomp_verdict {
    SECCOMP_VERDICT_ALLOW,
    SECCOMP_VERDICT_CONDITIONAL,
    SECCOMP_VERDICT_EPERM,
    SECCOMP_VERDICT_ENOSYS
};

/* By x86_64 number. */
enum seccomp_verdict seccomp_container_verdict(int number);

#endif
