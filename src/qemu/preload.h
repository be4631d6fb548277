/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the supervisor and the library in QEMU's process say to each other, before QEMU's main() runs: one byte "I
 * wait", one packet with the command line and the descriptors that it names.
 */
#ifndef CORACLE_QEMU_PRELOAD_H
#define CORACLE_QEMU_PRELOAD_H

#include <stdint.h>

enum {
    PRELOAD_SOCKET = 3,            /* of QEMU's process while it waits */
    PRELOAD_FD_BASE = 256,         /* the descriptors of the packet are this and the following numbers */
    PRELOAD_FD_MAX = 160,          /* SCM_RIGHTS takes 253 */
    PRELOAD_BYTES_MAX = 48 * 1024, /* all words */
    PRELOAD_WORD_MAX = 250,
};

#define PRELOAD_ROOM "CORACLE_ROOM" /* a variable that only makes room for the words ps(1) shows */
enum { PRELOAD_ROOM_BYTES = 600 };

/* Behind it: words NUL-terminated strings, bytes in all. */
struct preload_packet {
    uint32_t words, bytes;
    uint32_t kvm; /* the descriptor that /dev/kvm is, 0: none */
};

#endif
