/* SPDX-License-Identifier: Apache-2.0 */
/*
 * References of images: "host:5000/path/name:tag@sha256:HEX", checked and brought to one form. Pure.
 *
 * The grammar is the registries' (OCI distribution-spec); a missing tag means "latest"; the host part is kept as it was
 * given. Used by images.c and by the fuzz target of the same name.
 */
#ifndef CORACLE_DAEMON_IMAGES_REFERENCE_H
#define CORACLE_DAEMON_IMAGES_REFERENCE_H

#include "base/error.h"
#include "model/spec.h"

struct image_reference {
    char name[IMAGE_REF_SIZE]; /* "host/path/name:tag", without the digest */
    char digest[72];           /* "sha256:HEX", or "" */
};

/* INVALID_VALUE with a hint. */
int image_reference_parse(const char *text, struct image_reference *ret, struct error **err);

/* "sha256:" and 64 lower-case hexadecimal digits. */
bool image_digest_valid(const char *text);

/* 4 to 64 hexadecimal digits, "sha256:" before them or not: yields the digits, NULL otherwise. */
const char *image_digest_prefix(const char *text);

#endif
