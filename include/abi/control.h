/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a platform and its guest say to each other over vsock: a stream to CONTROL_PORT of the guest, messages of eight
 * bytes each way, little-endian. The host connects; the guest serves one such stream at a time, answers each message in
 * order, and resets a stream that says anything else. Shared by host and guest: fixed-width, strict C11.
 */
#ifndef CORACLE_ABI_CONTROL_H
#define CORACLE_ABI_CONTROL_H

#include <stdint.h>

#define CONTROL_PORT UINT32_C(1023)

enum control_type {
    CONTROL_READY = 1, /* does the application listen? -> CONTROL_READY, value 1: yes, 0: not yet */
    CONTROL_STOP = 2,  /* please end -> CONTROL_STOP, value 0; then the application tells its results and the VM ends */
};

struct control_message {
    uint32_t type; /* enum control_type */
    uint32_t value;
};

_Static_assert(sizeof(struct control_message) == 8, "ABI");

#endif
