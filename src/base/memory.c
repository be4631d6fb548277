/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that was needed only to start: the daemon and the launcher give it back once they serve. */
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/memory.h"

void memory_give_back(void)
{
    auto_file FILE *maps = fopen("/proc/self/maps", "re");
    char line[512], mode[5];
    unsigned long start, end;

    malloc_trim(0);
    /* Only "r-xp" of a file: such pages are clean for certain. Read-only data may hold relocated pointers. */
    while (maps && fgets(line, sizeof(line), maps))
        if (sscanf(line, "%lx-%lx %4s", &start, &end, mode) == 3 && strcmp(mode, "r-xp") == 0 && strchr(line, '/'))
            madvise((void *)start, end - start, MADV_DONTNEED);
}
