/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a fuzz target over every file of the directories given: the corpus as an ordinary test, without libFuzzer. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void replay(const char *path)
{
    auto_file FILE *f = fopen(path, "re");
    uint8_t *data = malloc(1 << 20);
    size_t n = f ? fread(data, 1, 1 << 20, f) : 0;

    data = realloc(data, n ? n : 1); /* exact, so that a sanitizer sees one byte too far */
    LLVMFuzzerTestOneInput(data, n);
    free(data);
}

int main(int argc, char **argv)
{
    unsigned count = 0;
    char path[4096];

    for (int i = 1; i < argc; i++) {
        auto_dir DIR *d = opendir(argv[i]);
        const struct dirent *e;
        while (d && (e = readdir(d))) {
            if (e->d_name[0] == '.')
                continue;
            snprintf(path, sizeof(path), "%s/%s", argv[i], e->d_name);
            replay(path);
            count++;
        }
    }
    printf("%u inputs\n", count);
    return count ? 0 : 1;
}
