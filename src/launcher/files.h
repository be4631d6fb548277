/* SPDX-License-Identifier: Apache-2.0 */
/* Small files in folders only root writes: read whole, replaced whole. Launcher, any thread. */
#ifndef CORACLE_LAUNCHER_FILES_H
#define CORACLE_LAUNCHER_FILES_H

#include <stddef.h>

#include "base/error.h"

/* Writes NAME.tmp and renames it over name: readers see the old text or the new one. NO_SPACE leaves the old one. */
int file_replace(int dirfd, const char *name, const void *text, size_t size, struct error **err);

/* *ret_text: a terminated heap block, NULL when there is no such file. Longer than max is an error. */
int file_read(int dirfd, const char *name, size_t max, char **ret_text, struct error **err);

/* Opens a directory below dirfd, made with mode when it is absent; never follows a symbolic link and
 * refuses one that is not the caller's own: what lies in it is trusted. */
int directory_open(int dirfd, const char *name, unsigned mode, int *ret_fd, struct error **err);

#endif
