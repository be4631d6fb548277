/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of archive entries: cleaned, whiteouts told apart, and made printable for messages.
 *
 * Every name an image brings passes image_path_clean() before anything else looks at it (the layer reader calls it).
 */
#ifndef CORACLE_IMAGE_PATH_H
#define CORACLE_IMAGE_PATH_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum {
    IMAGE_PATH_SIZE = 4096,
    IMAGE_NAME_MAX = 255,  /* bytes of one component */
    IMAGE_DEPTH_MAX = 256, /* components */
    IMAGE_PRINTABLE_SIZE = 256,
};

enum path_kind {
    PATH_PLAIN,
    PATH_WHITEOUT, /* ".wh.x": x of a lower layer is gone */
    PATH_OPAQUE,   /* ".wh..wh..opq": the directory's lower content is gone */
};

/*
 * Strips leading "/" and "./", doubled slashes and a trailing slash; the root itself becomes "". A ".." anywhere is
 * IMAGE_PATH_ESCAPE; an over-long name or one nested too deep is IMAGE_MALFORMED. ret must hold IMAGE_PATH_SIZE bytes.
 */
int image_path_clean(const char *raw, char *ret, struct error **err);

/*
 * Tells a whiteout (OCI image-spec layer.md) from a plain name. For a whiteout, path is cut to what it hides ("a/.wh.b"
 * becomes "a/b"), for an opaque mark to its directory. A name that hides "", "." or "..", another reserved ".wh..wh."
 * name, or a directory named like a whiteout is refused.
 */
int image_path_kind(char *path, enum path_kind *ret, struct error **err);

/* Copies text with every byte outside printable ASCII as \xNN, cut to the buffer. Returns buf. */
const char *image_printable(const char *text, char buf[IMAGE_PRINTABLE_SIZE]);

#endif
