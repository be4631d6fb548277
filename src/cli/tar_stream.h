/* SPDX-License-Identifier: Apache-2.0 */
/* A directory as a tar stream, made while it is being sent. Used by image import; one writer thread. */
#ifndef CORACLE_CLI_TAR_STREAM_H
#define CORACLE_CLI_TAR_STREAM_H

#include "base/error.h"

struct tar_stream;

/* Starts writing the tree below path (names relative to it, nothing followed) into a pipe; *ret_fd: its read end, the
 * caller's. */
int tar_stream_open(const char *path, struct tar_stream **ret, int *ret_fd, struct error **err);

/* Waits for the writer (close the fd first when reading ended early). 0, or the writer's error. Frees. */
int tar_stream_close(struct tar_stream *stream, struct error **err);

#endif
