/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest that carries a container is told about it (docs/formats/guest-container.md): strings "name=value", each
 * with its terminating 0, behind a magic line at the beginning of a disk. Unlike the words of config.h a string that is
 * not understood is an error: no container runs with a bound that was meant and is not there.
 *
 * Written by the launcher, read by guest-container. Pure; struct and text, nothing is allocated by the reader.
 */
#ifndef CORACLE_GUEST_CONTAINER_H
#define CORACLE_GUEST_CONTAINER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

#define CONTAINER_DISK_MAGIC "coracle-container 1\n"

enum {
    CONTAINER_STRINGS_MAX = 512,    /* arguments, and as many of the environment: a plan's bound */
    CONTAINER_TEXT_MAX = 96 * 1024, /* all of the text: a plan's 64 KiB of those, and the rest */
};

/* Pointers go into the text that was parsed; in the writer they are the caller's. */
struct container_words {
    char *arguments[CONTAINER_STRINGS_MAX + 1]; /* NULL-terminated; at least one */
    char *env[CONTAINER_STRINGS_MAX + 1];
    size_t argument_count, env_count;
    const char *directory; /* absolute */
    const char *user;      /* NULL: root */
    bool terminal, open_stdin, read_only;
    uint64_t writable_bytes; /* of the layer in memory; 0 when read_only */
    uint64_t memory_bytes;   /* bounds; 0: none */
    uint32_t pids;
    uint32_t capabilities; /* bits of CAP_x it has */
    uint32_t stop_signal;  /* what asks the application to end: 1 to 64 */
};

/* The text with its magic and its end, appended to out. */
void container_words_write(const struct container_words *words, struct buffer *out);

/* text: of a disk, from its beginning. -ENOENT: another disk. -EINVAL: *ret_why is what is wrong, static. */
int container_words_parse(char *text, size_t size, struct container_words *ret, const char **ret_why);

#endif
