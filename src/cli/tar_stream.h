/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tar stream made while it is being sent: of a directory, or of whatever a writer function puts into it. Used by image
 * import; one writer thread.
 */
#ifndef CORACLE_CLI_TAR_STREAM_H
#define CORACLE_CLI_TAR_STREAM_H

#include "base/error.h"

struct archive;
struct tar_stream;

/* Writes the archive's entries; runs on the writer thread. 0, -EPIPE when the reader went away, or -errno with *err. */
typedef int (*tar_writer)(void *context, struct archive *out, struct error **err);

/* release(context) is called when all is over, also when this fails. *ret_fd: the stream's read end, the caller's. */
int tar_stream_start(tar_writer write, void (*release)(void *context), void *context, struct tar_stream **ret,
                     int *ret_fd, struct error **err);

/* Starts writing the tree below path (names relative to it, nothing followed) into a pipe; *ret_fd: its read end, the
 * caller's. */
int tar_stream_open(const char *path, struct tar_stream **ret, int *ret_fd, struct error **err);

/* Waits for the writer (close the fd first when reading ended early). 0, or the writer's error. Frees. */
int tar_stream_close(struct tar_stream *stream, struct error **err);

#endif
