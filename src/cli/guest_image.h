/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bare kernel or disk as an image of a machine (docs/formats/guest-images.md): an OCI archive made while it is sent,
 * so that there is one way into the image store. Used by image import --guest.
 */
#ifndef CORACLE_CLI_GUEST_IMAGE_H
#define CORACLE_CLI_GUEST_IMAGE_H

#include <jansson.h>

#include "cli/tar_stream.h"

/* What the user said; NULL: nothing. Strings are borrowed until tar_stream_close(). */
struct guest_source {
    const char *file, *name;
    const char *guest, *boot, *parameters, *memory, *entrypoint; /* entrypoint: a path, or a JSON array of words */
    const char *initrd, *disk;
};

struct guest_image;

/* Opens and recognises the files; INVALID_VALUE says what is missing. */
int guest_image_open(const struct guest_source *, struct guest_image **ret, struct error **err);
void guest_image_free(struct guest_image *); /* accepts NULL */

/* Starts sending; the stream owns the image from now on, also when this fails. */
int guest_image_stream(struct guest_image *, struct tar_stream **ret, int *ret_fd, struct error **err);

/* The image's configuration as it will be sent, for --explain. The caller's. */
json_t *guest_image_configuration(const struct guest_image *);

#endif
