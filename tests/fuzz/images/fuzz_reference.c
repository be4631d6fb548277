/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: image references and entry names. What is accepted must be stable and within its bounds. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/images_reference.h"
#include "image/path.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_reference(const char *text)
{
    struct image_reference r, again;

    if (image_reference_parse(text, &r, NULL) < 0)
        return;
    if (image_reference_parse(r.name, &again, NULL) < 0 || strcmp(r.name, again.name) != 0)
        abort();
    if (r.digest[0] && !image_digest_valid(r.digest))
        abort();
}

static void check_path(const char *text)
{
    char clean[IMAGE_PATH_SIZE], again[IMAGE_PATH_SIZE], shown[IMAGE_PRINTABLE_SIZE];
    enum path_kind kind;

    image_printable(text, shown);
    if (image_path_clean(text, clean, NULL) < 0)
        return;
    if (clean[0] == '/' || strcmp(clean, "..") == 0 || strncmp(clean, "../", 3) == 0 || strstr(clean, "/../"))
        abort();
    if (image_path_clean(clean, again, NULL) < 0 || strcmp(clean, again) != 0)
        abort();
    if (image_path_kind(clean, &kind, NULL) == 0 && kind != PATH_PLAIN && image_path_clean(clean, again, NULL) < 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);

    if (!text)
        return 0;
    if (size)
        memcpy(text, data, size);
    text[size] = '\0';
    check_reference(text);
    check_path(text);
    free(text);
    return 0;
}
