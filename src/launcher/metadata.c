/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who a machine is, as a disk (src/guest/cidata.h), for guests whose boot loader is told nothing: cloud-init and
 * Coracle's own Debian image read it. One for each start, in memory; it goes with the machine. Called by the launcher's
 * workers.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/strv.h"
#include "guest/cidata.h"
#include "guest/container.h"
#include "launcher/metadata.h"

enum { SECTOR = 512 };

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

/* plan_validate() saw that the strings are no more than fit; that they fit a disk is seen here. */
static void take_process(const struct launch_plan *plan, struct container_words *words)
{
    const struct plan_process *p = &plan->process;

    words->argument_count = strv_count(p->argv);
    memcpy(words->arguments, p->argv, words->argument_count * sizeof(char *));
    words->env_count = strv_count(p->env);
    if (words->env_count)
        memcpy(words->env, p->env, words->env_count * sizeof(char *));
    words->directory = p->cwd;
    words->user = p->user;
    words->terminal = p->tty;
    words->open_stdin = p->open_stdin;
}

int container_disk(const struct launch_plan *plan, int *ret_fd, struct error **err)
{
    struct container_words words = {.read_only = plan->root.read_only,
                                    .writable_bytes = plan->root.writable_bytes,
                                    .memory_bytes = plan->machine.inner_memory_bytes,
                                    .pids = plan->machine.inner_pids,
                                    .capabilities = plan->capabilities,
                                    .stop_signal = plan->machine.stop_signal};
    static const char zeros[SECTOR];
    auto_buffer struct buffer text = {0};
    int r;

    take_process(plan, &words);
    container_words_write(&words, &text);
    if (text.length % SECTOR)
        buffer_add(&text, zeros, SECTOR - text.length % SECTOR);
    if (text.failed)
        return error_set(err, ENOMEM, "NO_MEMORY", "words for a container");
    if (text.length > CONTAINER_TEXT_MAX)
        return error_set(err, E2BIG, "INVALID_VALUE", "arguments and environment are too large");
    r = in_memory(&text, ret_fd);
    return r < 0 ? error_set_errno(err, -r, "INTERNAL", "words for a container") : 0;
}
