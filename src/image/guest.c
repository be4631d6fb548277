/* SPDX-License-Identifier: Apache-2.0 */
/* Labels and files of an image of a machine. See guest.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/image.h"

static int malformed(struct error **err, const char *what, const char *why)
{
    error_set(err, EINVAL, "IMAGE_MALFORMED", "%s: %s", what, why);
    error_hint(err, "the labels of a machine's image are in docs/formats/guest-images.md; coracle build sets them");
    return -EINVAL;
}

/* A label as the specification has it: one with a NUL inside is somebody's attempt at something. */
static int get_label(const json_t *labels, const char *key, const char **ret)
{
    const json_t *v = json_object_get(labels, key);

    *ret = v ? json_string_value(v) : NULL;
    return v && (!*ret || strlen(*ret) != json_string_length(v)) ? -EINVAL : 0;
}

static int parse_memory(const char *text, uint64_t *ret)
{
    uint64_t n = 0;

    if (!*text || strlen(text) > 15)
        return -EINVAL;
    for (const char *p = text; *p; p++) {
        if (*p < '0' || *p > '9')
            return -EINVAL;
        n = n * 10 + (uint64_t)(*p - '0');
    }
    if (n > GUEST_MEMORY_MAX)
        return -ERANGE;
    *ret = n;
    return 0;
}

int image_guest_parse(const char *what, const json_t *labels, struct image_guest *ret, struct error **err)
{
    const char *guest, *boot, *parameters, *memory;
    struct image_guest g = {.variant = VARIANT_PROCESS};

    if (get_label(labels, "org.coracle.guest", &guest) < 0 || get_label(labels, "org.coracle.boot", &boot) < 0 ||
        get_label(labels, "org.coracle.parameters", &parameters) < 0 ||
        get_label(labels, "org.coracle.memory", &memory) < 0)
        return malformed(err, what, "a label org.coracle.* holds a NUL byte");
    if (guest && variant_parse(guest, &g.variant) < 0)
        return malformed(err, what, "the label org.coracle.guest is none of unikernel, linux, disk");
    if (g.variant == VARIANT_PROCESS) {
        if (boot || parameters || memory)
            return malformed(err, what, "org.coracle.boot, .parameters and .memory need org.coracle.guest to say what boots");
        *ret = g;
        return 0;
    }
    g.boot = boot_find(g.variant, boot);
    if (!g.boot)
        return malformed(err, what, "the label org.coracle.boot is no way to boot this guest");
    if (memory && parse_memory(memory, &g.memory_min) < 0)
        return malformed(err, what, "the label org.coracle.memory is no number of bytes up to 1 TiB");
    if (parameters && !guest_parameters_valid(parameters))
        return malformed(err, what, "the label org.coracle.parameters is longer than 2,048 bytes or not plain ASCII");
    if (parameters && *parameters && !(g.parameters = strdup(parameters)))
        return error_set(err, ENOMEM, "NO_MEMORY", "%s: no memory", what);
    *ret = g;
    return 0;
}

void image_guest_clear(struct image_guest *g)
{
    free(g->parameters);
    *g = (struct image_guest){0};
}

void image_boot_note(struct image_boot *b, const struct image_entry *e)
{
    const struct {
        const char *path;
        bool *seen;
    } files[] = {{"boot/kernel", &b->kernel}, {"boot/initrd", &b->initrd}, {"boot/disk.raw", &b->raw},
                 {"boot/disk.qcow2", &b->qcow2}};

    /* Whatever replaces the directory takes the files with it. */
    if (strcmp(e->path, "boot") == 0 && e->kind != ENTRY_DIRECTORY)
        *b = (struct image_boot){0};
    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
        if (strcmp(e->path, files[i].path) == 0)
            *files[i].seen = e->kind == ENTRY_FILE;
}

int image_boot_check(const struct image_boot *b, const struct image_guest *g, size_t layer_count, struct error **err)
{
    static const char what[] = "the image of a machine";

    if (g->variant == VARIANT_PROCESS)
        return 0;
    if (layer_count != 1)
        return malformed(err, what, "it must have exactly one layer");
    if (b->raw && b->qcow2)
        return malformed(err, what, "it holds both /boot/disk.raw and /boot/disk.qcow2");
    if (strcmp(g->boot, "disk") == 0)
        return b->raw || b->qcow2 ? 0 : malformed(err, what, "it boots from a disk and has no /boot/disk.raw or disk.qcow2");
    return b->kernel ? 0 : malformed(err, what, "it has no plain file /boot/kernel");
}
