/* SPDX-License-Identifier: Apache-2.0 */
/* Cleaning and classifying the names of archive entries: pure text, no file is looked at. See path.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "image/path.h"

const char *image_printable(const char *text, char buf[IMAGE_PRINTABLE_SIZE])
{
    size_t used = 0;

    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (used + 8 > IMAGE_PRINTABLE_SIZE) {
            memcpy(buf + used, "...", 3);
            used += 3;
            break;
        }
        if (*p >= 0x20 && *p < 0x7f)
            buf[used++] = (char)*p;
        else
            used += (size_t)snprintf(buf + used, 5, "\\x%02x", *p);
    }
    buf[used] = '\0';
    return buf;
}

static int refuse(struct error **err, const char *code, const char *raw, const char *why)
{
    char shown[IMAGE_PRINTABLE_SIZE];

    error_set(err, EINVAL, code, "entry \"%s\" %s", image_printable(raw, shown), why);
    error_hint(err,
               "the archive was not made by a well-behaved tool; build the image again or take it from another source");
    return -EINVAL;
}

int image_path_clean(const char *raw, char *ret, struct error **err)
{
    char clean[IMAGE_PATH_SIZE];
    size_t used = 0, depth = 0;

    for (const char *p = raw; *p;) {
        size_t length = strcspn(p, "/");

        if (length == 2 && p[0] == '.' && p[1] == '.')
            return refuse(err, "IMAGE_PATH_ESCAPE", raw, "climbs with \"..\"");
        if (length > IMAGE_NAME_MAX)
            return refuse(err, "IMAGE_MALFORMED", raw, "has a component of more than 255 bytes");
        if (length > 0 && !(length == 1 && *p == '.')) {
            if (used + length + 2 > sizeof(clean) || ++depth > IMAGE_DEPTH_MAX)
                return refuse(err, "IMAGE_MALFORMED", raw, "is too long or nested too deep");
            if (used)
                clean[used++] = '/';
            memcpy(clean + used, p, length);
            used += length;
        }
        p += length + (p[length] == '/');
    }
    clean[used] = '\0';
    memcpy(ret, clean, used + 1);
    return 0;
}

/* A directory inside the path that is named like a whiteout would be hidden or misread by other tools. */
static bool whiteout_inside(const char *path, const char *leaf)
{
    for (const char *p = path; p < leaf; p = strchr(p, '/') + 1)
        if (strncmp(p, ".wh.", 4) == 0)
            return true;
    return false;
}

int image_path_kind(char *path, enum path_kind *ret, struct error **err)
{
    char *slash = strrchr(path, '/'), *leaf = slash ? slash + 1 : path;
    const char *hidden = leaf + 4;

    if (whiteout_inside(path, leaf))
        return refuse(err, "IMAGE_MALFORMED", path, "lies in a directory named like a whiteout");
    if (strncmp(leaf, ".wh.", 4) != 0) {
        *ret = PATH_PLAIN;
        return 0;
    }
    if (strcmp(leaf, ".wh..wh..opq") == 0) {
        if (!slash)
            return refuse(err, "IMAGE_MALFORMED", path, "makes the whole root opaque, which hides every lower layer");
        *slash = '\0';
        *ret = PATH_OPAQUE;
        return 0;
    }
    if (strcmp(hidden, ".") == 0 || strcmp(hidden, "..") == 0)
        return refuse(err, "IMAGE_PATH_ESCAPE", path, "is a whiteout of a directory's own or parent entry");
    if (!*hidden || strncmp(hidden, ".wh.", 4) == 0)
        return refuse(err, "IMAGE_MALFORMED", path, "is not a whiteout of any name");
    memmove(leaf, hidden, strlen(hidden) + 1);
    *ret = PATH_WHITEOUT;
    return 0;
}
