/* SPDX-License-Identifier: Apache-2.0 */
/* Where the guest's output goes: a descriptor (plain tool), the instance's log (supervised), or nowhere. */
#ifndef CORACLE_VMM_OUTPUT_H
#define CORACLE_VMM_OUTPUT_H

#include <stddef.h>
#include <stdint.h>

void output_to_descriptor(int fd);

/* The monitor's own lines go there too, as stderr. fds taken over; NULL: everything is discarded. */
void output_to_log(const int fds[2], uint64_t bytes_max);

/* From now on to these, as far as they are written already: what output_to_log() would have to ask the kernel for. */
void output_to_other_log(const int fds[2], unsigned current, uint64_t written);

/* The guest's; vCPU thread. */
void output_byte(void *context, uint8_t byte);
void output_text(void *context, const void *bytes, size_t size);
void output_device(void *context, const void *bytes, size_t size); /* device thread: a virtio console's */
void output_flush(void *context); /* an unfinished line of single bytes */

#endif
