/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an image is for: the kinds of guest, the variants of an image, the ways to boot one. Pure tables.
 *
 * An image says it with labels (docs/formats/guest-images.md). Used by coracle-unpack, which reads the labels, by the
 * daemon, which checks them again and resolves names by them, by drivers and by the command line.
 */
#ifndef CORACLE_MODEL_GUEST_H
#define CORACLE_MODEL_GUEST_H

#include <stdbool.h>
#include <stdint.h>

/* What a technology runs. */
enum guest_kind { GUEST_PROCESS = 1, GUEST_UNIKERNEL = 2, GUEST_LINUX = 4, GUEST_FAKE = 8 };

/* What an image is. One name may stand for one image of each variant. */
enum image_variant { VARIANT_PROCESS, VARIANT_UNIKERNEL, VARIANT_LINUX, VARIANT_DISK, VARIANT_COUNT };

enum {
    GUEST_PARAMETERS_MAX = 2048, /* bytes of a default kernel command line */
    VARIANT_ALL = (1 << VARIANT_COUNT) - 1,
};

/* The largest memory an image may ask for. */
#define GUEST_MEMORY_MAX ((uint64_t)1 << 40)

/* "process", "unikernel", "linux", "disk"; -EINVAL for anything else. */
const char *variant_name(enum image_variant);
int variant_parse(const char *text, enum image_variant *ret);

/* A disk is a Linux guest that brings its own boot loader. */
enum guest_kind variant_guest(enum image_variant);
/* The variants a technology of this kind can run, as bits 1 << variant. */
uint32_t variants_of(enum guest_kind);

/* The way to boot as a static string: text "" or NULL gives the variant's default. NULL when this variant cannot be
 * booted so. A process has none at all. */
const char *boot_find(enum image_variant, const char *text);

/* Whether a default kernel command line is short, printable and ASCII. */
bool guest_parameters_valid(const char *text);

#endif
