/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 (FIPS 180-4) of a stream, as lower-case hex: what OCI descriptors and diff ids are checked against.
 *
 * Used by the image reader in coracle-unpack. digest_prepare() loads OpenSSL's provider, which opens files: it is
 * called before the sandbox closes.
 */
#ifndef CORACLE_IMAGE_DIGEST_H
#define CORACLE_IMAGE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum { IMAGE_DIGEST_SIZE = 65 }; /* 64 hex digits and the terminator */

struct digest;

/* Loads the algorithm; calling it again is no error. */
int digest_prepare(struct error **err);

int digest_new(struct digest **ret, struct error **err);

/* Both accept NULL (nothing to hash, nothing to free). */
void digest_update(struct digest *d, const void *bytes, size_t size);
void digest_free(struct digest *d);

/* Ends the hash; d may only be freed afterwards. */
void digest_hex(struct digest *d, char ret_hex[IMAGE_DIGEST_SIZE]);

/* In one call. */
int digest_of(const void *bytes, size_t size, char ret_hex[IMAGE_DIGEST_SIZE], struct error **err);

/* 64 lower-case hex digits and nothing else. */
bool digest_is_hex(const char *text);

/* "sha256:HEX" to HEX. -EINVAL for anything else, another algorithm included. */
int digest_parse(const char *text, char ret_hex[IMAGE_DIGEST_SIZE]);

#endif
