/* SPDX-License-Identifier: Apache-2.0 */
/* The tables behind guest.h: names, and which boot goes with which variant. Pure. */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "model/guest.h"

static const struct {
    const char *name;
    enum guest_kind kind;
    const char *boots[6]; /* the default first */
} variants[] = {
    [VARIANT_PROCESS] = {"process", GUEST_PROCESS, {NULL}},
    [VARIANT_UNIKERNEL] = {"unikernel", GUEST_UNIKERNEL, {"unikernel", "pvh", "linux", "multiboot", "disk"}},
    [VARIANT_LINUX] = {"linux", GUEST_LINUX, {"linux", "pvh"}},
    [VARIANT_DISK] = {"disk", GUEST_LINUX, {"disk"}},
};
_Static_assert(sizeof(variants) / sizeof(*variants) == VARIANT_COUNT, "every variant has its row");

const char *variant_name(enum image_variant v)
{
    return variants[v].name;
}

int variant_parse(const char *text, enum image_variant *ret)
{
    for (int v = 0; v < VARIANT_COUNT; v++)
        if (strcmp(variants[v].name, text) == 0) {
            *ret = (enum image_variant)v;
            return 0;
        }
    return -EINVAL;
}

enum guest_kind variant_guest(enum image_variant v)
{
    return variants[v].kind;
}

uint32_t variants_of(enum guest_kind kind)
{
    uint32_t bits = 0;

    for (int v = 0; v < VARIANT_COUNT; v++)
        if (variants[v].kind == kind)
            bits |= 1u << v;
    return bits;
}

const char *boot_find(enum image_variant v, const char *text)
{
    if (!text || !*text)
        return variants[v].boots[0];
    for (const char *const *b = variants[v].boots; *b; b++)
        if (strcmp(*b, text) == 0)
            return *b;
    return NULL;
}

bool guest_parameters_valid(const char *text)
{
    size_t n = strlen(text);

    for (size_t i = 0; i < n; i++)
        if (text[i] < 0x20 || text[i] > 0x7e)
            return false;
    return n <= GUEST_PARAMETERS_MAX;
}
