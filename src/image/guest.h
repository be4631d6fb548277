/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image of a machine: what its labels say (org.coracle.*), and whether the files they promise are there.
 *
 * The labels come from strangers; docs/formats/guest-images.md says what they mean. Called by documents.c when a
 * configuration is parsed and by image.c while the layer goes by. Pure.
 */
#ifndef CORACLE_IMAGE_GUEST_H
#define CORACLE_IMAGE_GUEST_H

#include <jansson.h>

#include "base/error.h"
#include "model/guest.h"

struct image_guest {
    enum image_variant variant; /* VARIANT_PROCESS: a container's image, and nothing below is set */
    const char *boot;           /* static */
    char *parameters;           /* owned, NULL: none */
    uint64_t memory_min;        /* bytes, 0: not said */
};

/* What was seen of /boot in a layer. Each is true while the path is a plain file. */
struct image_boot {
    bool kernel, initrd, raw, qcow2;
};

struct image_entry;

/* labels: object of strings or NULL. IMAGE_MALFORMED. */
int image_guest_parse(const char *what, const json_t *labels, struct image_guest *ret, struct error **err);
void image_guest_clear(struct image_guest *);

/* Every entry of every layer, in order. */
void image_boot_note(struct image_boot *, const struct image_entry *);
/* A machine has one layer with the files its way of booting needs. IMAGE_MALFORMED. */
int image_boot_check(const struct image_boot *, const struct image_guest *, size_t layer_count, struct error **err);

#endif
