/* SPDX-License-Identifier: Apache-2.0 */
/* How an instance ended: one line, "WAIT_STATUS REALTIME_NS", in a file that the launcher opened. */
#ifndef CORACLE_MONITOR_EXIT_FILE_H
#define CORACLE_MONITOR_EXIT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Writes the line; wait_status as wait(2) gives it. -errno: the launcher will see an unknown status. */
int exit_file_write(int fd, int wait_status);

/* Parses what such a file holds. False: it was not written to its end. */
bool exit_file_parse(const char *text, size_t size, int *ret_wait_status, uint64_t *ret_realtime_ns);

#endif
