/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metadata disk of a Linux guest: one image of a few sectors for both kinds of reader. In front, where ISO 9660
 * leaves 32 KiB free, the words of docs/formats/guest-metadata.md, for Tinyx and Coracle's own Debian image; behind, a
 * file system "cidata" with what cloud-init calls NoCloud, for an operator's cloud image. Pure: words in, bytes out.
 * Called by the launcher, which hands the bytes to a monitor as a read-only disk, and by the tool coracle-cidata.
 */
#ifndef CORACLE_GUEST_CIDATA_H
#define CORACLE_GUEST_CIDATA_H

#include "base/buffer.h"
#include "base/error.h"

/*
 * words as a kernel command line has them ("ip4=... hostname=... -- PROGRAM ARGUMENT ..."). instance_id: cloud-init
 * does its first-boot work again when it changes. Adds whole sectors of 2048 bytes to *ret. -EINVAL: a word is wrong
 * (which and why is said), the words are longer than CONFIG_TEXT_MAX - 1 bytes, or instance_id is empty.
 */
int cidata_image(const char *words, const char *instance_id, struct buffer *ret, struct error **err);

/* The three files, each alone; for cidata_image() and tests. config has the words, parsed. */
struct config;
void cidata_meta_data(const struct config *config, const char *instance_id, struct buffer *ret);
void cidata_network_config(const struct config *config, struct buffer *ret);
void cidata_user_data(const struct config *config, struct buffer *ret);

#endif
