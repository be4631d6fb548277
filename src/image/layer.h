/* SPDX-License-Identifier: Apache-2.0 */
/* One layer: a tar's entries, each checked, to the sink. Called by image.c for every layer of an image. */
#ifndef CORACLE_IMAGE_LAYER_H
#define CORACLE_IMAGE_LAYER_H

#include "image/image.h"
#include "image/stream.h"

/*
 * Reads tar (decompressed, its tap set) to the end, so that the tap has seen every byte, and gives each entry to the
 * sink; ops NULL only checks. Counts files and bytes against budget, notes in boot what a machine would boot from.
 */
int layer_read(struct stream *tar, struct image_budget *budget, struct image_boot *boot,
               const struct image_sink_ops *ops, void *sink, struct error **err);

#endif
