/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: the JSON documents of an image. The first byte chooses which one. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "image/documents.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_hex(const char *hex)
{
    if (!digest_is_hex(hex))
        abort();
}

static void fuzz_index(const uint8_t *data, size_t size)
{
    struct image_index index = {0};

    if (index_parse("index", data, size, &index, NULL) == 0) {
        for (size_t i = 0; i < index.count; i++)
            check_hex(index.entries[i].digest);
        index_clear(&index);
    }
}

static void fuzz_manifest(const uint8_t *data, size_t size)
{
    struct manifest *m = calloc(1, sizeof(*m));

    if (m && manifest_parse("manifest", data, size, m, NULL) == 0) {
        if (m->layer_count == 0 || m->layer_count > IMAGE_LAYER_MAX * 2)
            abort();
        check_hex(m->config.digest);
    }
    free(m);
}

static void fuzz_docker(const uint8_t *data, size_t size)
{
    struct docker_manifest *m = calloc(1, sizeof(*m));

    if (m && docker_manifest_parse("manifest.json", data, size, m, NULL) == 0)
        docker_manifest_clear(m);
    free(m);
}

/* Whatever the labels hold, only what the tables know comes out. */
static void check_guest(const struct image_guest *g)
{
    if (g->variant == VARIANT_PROCESS ? g->boot || g->parameters || g->memory_min
                                      : g->variant >= VARIANT_COUNT || boot_find(g->variant, g->boot) != g->boot)
        abort();
    if (g->memory_min > GUEST_MEMORY_MAX || (g->parameters && !guest_parameters_valid(g->parameters)))
        abort();
}

static void fuzz_configuration(const uint8_t *data, size_t size)
{
    struct configuration *c = calloc(1, sizeof(*c));

    if (c && configuration_parse("config", data, size, c, NULL) == 0) {
        if (c->diff_id_count == 0 || c->run.stop_signal < 0 || c->run.stop_signal > 64 ||
            (c->run.workdir && c->run.workdir[0] != '/'))
            abort();
        check_guest(&c->run.guest);
        image_run_clear(&c->run);
    }
    free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const targets[])(const uint8_t *, size_t) = {fuzz_index, fuzz_manifest, fuzz_docker,
                                                               fuzz_configuration};

    if (size > 0)
        targets[data[0] % 4](data + 1, size - 1);
    return 0;
}
