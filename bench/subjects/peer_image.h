/* SPDX-License-Identifier: Apache-2.0 */
/* The very function that Coracle runs, unpacked for a peer, so that every subject is measured with the same program. */
#ifndef CORACLE_BENCH_SUBJECTS_PEER_IMAGE_H
#define CORACLE_BENCH_SUBJECTS_PEER_IMAGE_H

#include <jansson.h>

#include "base/error.h"
#include "bench/options.h"

struct peer_image {
    char folder[128]; /* temporary, holds all below; "" when not open */
    char rootfs[160];
    char tar[160];      /* rootfs as one uncompressed tar */
    json_t *entrypoint; /* array of strings: entry point and command together */
};

/* Unpacks an OCI archive, a docker archive or a root file system tar. The bench trusts the archive: it is the one
 * the user ships. */
int peer_image_open(struct peer_image *image, const struct bench_options *options, struct error **err);
void peer_image_close(struct peer_image *image);

#endif
