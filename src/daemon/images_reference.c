/* SPDX-License-Identifier: Apache-2.0 */
/* Parsing and normalising image references. See images_reference.h. */
#include <errno.h>
#include <string.h>

#include "daemon/images_reference.h"

enum { TAG_MAX = 128 };

static const char lower[] = "abcdefghijklmnopqrstuvwxyz0123456789";
static const char word[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
static const char hex[] = "0123456789abcdef";

bool image_digest_valid(const char *text)
{
    return strncmp(text, "sha256:", 7) == 0 && strspn(text + 7, hex) == 64 && text[7 + 64] == '\0';
}

const char *image_digest_prefix(const char *text)
{
    const char *digits = strncmp(text, "sha256:", 7) == 0 ? text + 7 : text;
    size_t n = strlen(digits);

    return n >= 4 && n <= 64 && strspn(digits, hex) == n ? digits : NULL;
}

static int refuse(const char *text, const char *why, const char *hint, struct error **err)
{
    char shown[IMAGE_REF_SIZE];
    size_t i;

    for (i = 0; text[i] && i < sizeof(shown) - 1; i++)
        shown[i] = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?';
    shown[i] = '\0';
    error_set(err, EINVAL, "INVALID_VALUE", "image reference \"%s\": %s", shown, why);
    error_hint(err, "%s", hint);
    return -EINVAL;
}

/* Labels of letters, digits and dashes inside, joined by dots (RFC 1123 section 2.1). */
static bool is_host_name(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        bool edge = i == 0 || i + 1 == length || text[i - 1] == '.' || text[i + 1] == '.';

        if (text[i] == '.' ? edge && (i == 0 || i + 1 == length || text[i - 1] == '.')
                           : text[i] == '_' || (!strchr(word, text[i]) && (text[i] != '-' || edge)))
            return false;
    }
    return length > 0;
}

/* A host has a dot or a port, or is localhost: otherwise the first part belongs to the path. */
static bool is_host(const char *text, size_t length)
{
    const char *colon = memchr(text, ':', length);
    size_t name = colon ? (size_t)(colon - text) : length, digits = colon ? length - name - 1 : 0;

    if (!colon && !memchr(text, '.', length) && !(length == 9 && strncmp(text, "localhost", 9) == 0))
        return false;
    if (colon && (digits == 0 || digits > 5 || strspn(colon + 1, "0123456789") < digits))
        return false;
    return is_host_name(text, name);
}

/* One path component: runs of lower-case letters and digits, joined by ".", "_", "__" or dashes. */
static bool is_component(const char *text, size_t length)
{
    size_t i = 0;

    while (i < length) {
        size_t start = i, joint;

        while (i < length && strchr(lower, text[i]))
            i++;
        if (i == start)
            return false;
        if (i == length)
            return true;
        joint = i;
        while (i < length && text[i] == text[joint] && strchr("._-", text[i]))
            i++;
        if (i == joint || (text[joint] == '.' && i - joint > 1) || (text[joint] == '_' && i - joint > 2))
            return false;
    }
    return false;
}

static bool is_path(const char *text, size_t length)
{
    size_t first = 0;
    const char *slash = memchr(text, '/', length);

    if (slash && is_host(text, (size_t)(slash - text)))
        first = (size_t)(slash - text) + 1;
    while (first <= length) {
        const char *end = memchr(text + first, '/', length - first);
        size_t part = end ? (size_t)(end - text) - first : length - first;

        if (!is_component(text + first, part))
            return false;
        first += part + 1;
    }
    return true;
}

static bool is_tag(const char *text, size_t length)
{
    if (length == 0 || length > TAG_MAX || !strchr(word, text[0]))
        return false;
    for (size_t i = 0; i < length; i++)
        if (!strchr(word, text[i]) && text[i] != '.' && text[i] != '-')
            return false;
    return true;
}

int image_reference_parse(const char *text, struct image_reference *ret, struct error **err)
{
    static const char shape[] = "write it as [host[:port]/]name[:tag][@sha256:digest], the name in lower case";
    struct image_reference r = {0};
    const char *at = strchr(text, '@'), *colon = NULL;
    size_t length = at ? (size_t)(at - text) : strlen(text), name;

    if (length == 0)
        return refuse(text, "it is empty", shape, err);
    if (length >= sizeof(r.name))
        return refuse(text, "it is longer than 255 characters", shape, err);
    if (at && !image_digest_valid(at + 1))
        return refuse(text, "what follows \"@\" is no sha256 digest", shape, err);
    for (size_t i = length; i-- > 0 && text[i] != '/';)
        if (text[i] == ':')
            colon = text + i;
    name = colon ? (size_t)(colon - text) : length;
    if (!colon && length + sizeof(":latest") > sizeof(r.name))
        return refuse(text, "it is longer than 248 characters and has no tag", shape, err);
    if (!is_path(text, name))
        return refuse(text, "its name has a character, or a place for one, that names do not have", shape, err);
    if (colon && !is_tag(colon + 1, length - name - 1))
        return refuse(text, "its tag is no valid tag", shape, err);
    memcpy(r.name, text, length);
    if (!colon)
        memcpy(r.name + length, ":latest", sizeof(":latest"));
    if (at)
        memcpy(r.digest, at + 1, strlen(at + 1) + 1);
    *ret = r;
    return 0;
}
