/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a fuzz target over the files of its corpus, without a fuzzer: so that every build tests the corpus. */
#include <dirent.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *folder, const char *name)
{
    auto_free char *path = NULL;
    auto_free uint8_t *data = malloc(16 << 20);
    auto_file FILE *f = NULL;

    if (asprintf(&path, "%s/%s", folder, name) < 0 || !data || !(f = fopen(path, "rb")))
        return -1;
    LLVMFuzzerTestOneInput(data, fread(data, 1, 16 << 20, f));
    return 0;
}

int main(int argc, char **argv)
{
    auto_dir DIR *dir = argc == 2 ? opendir(argv[1]) : NULL;
    struct dirent *e;
    size_t n = 0;

    while (dir && (e = readdir(dir)))
        if (e->d_name[0] != '.' && replay(argv[1], e->d_name) == 0)
            n++;
    printf("%zu inputs\n", n);
    return n > 0 ? 0 : 1;
}
