/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing cgroup files, shared by cgroup.c and cgroup_limits.c. */
#ifndef CORACLE_RUNTIME_CGROUP_FILES_H
#define CORACLE_RUNTIME_CGROUP_FILES_H

#include <stdbool.h>
#include <stddef.h>

int cgroup_write(int dirfd, const char *path, const char *text);

/* At most size - 1 bytes, without the last newlines. */
int cgroup_read(int dirfd, const char *path, char *buf, size_t size);

/* Whether the /proc/PID/cgroup file at path names a directory called tag for that v1 controller. */
bool cgroup_is_member(const char *path, const char *controller, const char *tag);

#endif
