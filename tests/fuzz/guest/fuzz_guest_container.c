/* SPDX-License-Identifier: Apache-2.0 */
/* The words of a container, from any disk. What was taken lies within the text and is written back to the same words.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "guest/container.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_same(const struct container_words *a, const struct container_words *b)
{
    if (a->argument_count != b->argument_count || a->env_count != b->env_count || a->pids != b->pids ||
        a->memory_bytes != b->memory_bytes || a->capabilities != b->capabilities || strcmp(a->directory, b->directory))
        abort();
    for (size_t i = 0; i < a->argument_count; i++)
        if (strcmp(a->arguments[i], b->arguments[i]))
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct container_words words, again;
    const char *why = NULL;
    char *text;

    if (size > CONTAINER_TEXT_MAX || !(text = malloc(size + 1)))
        return 0;
    memcpy(text, data, size);
    int r = container_words_parse(text, size, &words, &why);
    if (r == 0) {
        auto_buffer struct buffer out = {0};
        if (words.argument_count > CONTAINER_STRINGS_MAX || words.env_count > CONTAINER_STRINGS_MAX)
            abort();
        container_words_write(&words, &out);
        if (container_words_parse(out.data, out.length, &again, &why) < 0)
            abort();
        check_same(&words, &again);
    } else if (!why && r != -2) {
        abort();
    }
    free(text);
    return 0;
}
