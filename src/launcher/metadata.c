/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who a machine is, as a disk (src/guest/cidata.h), for guests whose boot loader is told nothing: cloud-init and
 * Coracle's own Debian image read it. One for each start, in memory; it goes with the machine. Called by the launcher's
 * workers.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "guest/cidata.h"
#include "launcher/metadata.h"

/* The devices' addresses first: an interface is found by them, whatever the guest calls it. */
static void add_words(const struct launch_plan *plan, const char *parameters, struct buffer *words)
{
    for (size_t i = 0; i < plan->nic_count; i++) {
        const uint8_t *m = plan->nics[i].mac;
        if (i > 0)
            buffer_printf(words, "eth%zu.", i);
        buffer_printf(words, "mac=%02x:%02x:%02x:%02x:%02x:%02x ", m[0], m[1], m[2], m[3], m[4], m[5]);
    }
    buffer_text(words, parameters);
}

/* Whoever opens a descriptor by name asks for the access it has: one for reading alone is made anew. */
static int in_memory(const struct buffer *image, int *ret_fd)
{
    auto_fd int fd = memfd_create("coracle-metadata", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    char path[32];
    int readable;

    if (fd < 0)
        return -errno;
    for (size_t done = 0; done < image->length;) {
        ssize_t n = write(fd, image->data + done, image->length - done);
        if (n < 0)
            return -errno;
        done += (size_t)n;
    }
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
        return -errno;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    readable = open(path, O_RDONLY | O_CLOEXEC);
    if (readable < 0)
        return -errno;
    *ret_fd = readable;
    return 0;
}

int metadata_disk(const struct launch_plan *plan, const char *parameters, int *ret_fd, struct error **err)
{
    auto_buffer struct buffer words = {0}, image = {0};
    int r;

    add_words(plan, parameters, &words);
    if (words.failed)
        return error_set(err, ENOMEM, "NO_MEMORY", "metadata disk");
    r = cidata_image(words.data, plan->id, &image, err);
    if (r < 0) {
        error_hint(err, "docs/formats/guest-metadata.md has the words that a disk's parameters can be");
        return r;
    }
    r = in_memory(&image, ret_fd);
    return r < 0 ? error_set_errno(err, -r, "INTERNAL", "metadata disk") : 0;
}
