/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: any bytes as an instance's record. Also built as a plain program that replays the corpus (replay.c). */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launcher/instance.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char name[] = "/dev/shm/coracle-fuzz-XXXXXX";
static int directory_fd = -1;

static void tidy(void)
{
    unlinkat(directory_fd, "record", 0);
    rmdir(name);
}

static int directory(void)
{
    if (directory_fd < 0 && mkdtemp(name)) {
        directory_fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        atexit(tidy);
    }
    return directory_fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct instance i = {0};
    int dir = directory(), fd = openat(dir, "record", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    close(fd);
    if (record_read(dir, &i) == 0 && (i.ports.count > NETWORK_PER_INSTANCE_MAX || !instance_id_valid(i.id)))
        abort();
    return 0;
}
