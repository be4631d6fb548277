/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: the whole archive reader. Entries go to a sink that checks the promises of image.h; with
 * CORACLE_FUZZ_DIRECTORY set to a directory on a tmpfs they are unpacked there as well.
 *
 * Header checksums are put right first: otherwise nearly every mutation ends at the same place.
 */
#include <fcntl.h>
#include <locale.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "image/image.h"
#include "unpack/tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { BYTES_MAX = 8 << 20, FILES_MAX = 200 };

struct checker {
    uint64_t files, bytes, size;
    bool in_layer, in_file;
};

static int check_begin(void *sink, bool lowest, struct error **err)
{
    struct checker *c = sink;

    (void)lowest;
    (void)err;
    if (c->in_layer)
        abort();
    c->in_layer = true;
    return 0;
}

static int check_entry(void *sink, const struct image_entry *e, struct error **err)
{
    struct checker *c = sink;
    char again[IMAGE_PATH_SIZE];

    (void)err;
    if (!c->in_layer || c->in_file || ++c->files > FILES_MAX)
        abort();
    if (image_path_clean(e->path, again, NULL) < 0 || strcmp(again, e->path) != 0)
        abort();
    if (e->kind == ENTRY_HARDLINK && (image_path_clean(e->target, again, NULL) < 0 || strcmp(again, e->target) != 0))
        abort();
    if (e->kind == ENTRY_SYMLINK && !e->target[0])
        abort();
    if (e->uid >= IMAGE_ID_MAX || e->gid >= IMAGE_ID_MAX || e->mode > 07777 || e->mtime_ns > 999999999)
        abort();
    for (size_t i = 0; i < e->xattr_count; i++)
        if (strncmp(e->xattrs[i].name, "user.overlay.", 13) == 0 || strncmp(e->xattrs[i].name, "trusted.", 8) == 0)
            abort();
    c->in_file = e->kind == ENTRY_FILE;
    c->size = e->size;
    c->bytes += c->in_file ? e->size : 0;
    if (c->bytes > BYTES_MAX)
        abort();
    return 0;
}

static int check_data(void *sink, const void *bytes, size_t size, uint64_t offset, struct error **err)
{
    struct checker *c = sink;

    (void)bytes;
    (void)err;
    if (!c->in_file || offset > c->size || size > c->size - offset)
        abort();
    return 0;
}

static int check_file_end(void *sink, struct error **err)
{
    struct checker *c = sink;

    (void)err;
    c->in_file = false;
    return 0;
}

static int check_layer_end(void *sink, const char *diff_id, struct error **err)
{
    struct checker *c = sink;

    (void)err;
    if (!digest_is_hex(diff_id))
        abort();
    c->in_layer = false;
    return 0;
}

static int make_scratch(void *sink, struct error **err)
{
    (void)sink;
    (void)err;
    return memfd_create("scratch", MFD_CLOEXEC);
}

static const struct image_sink_ops checker_ops = {check_begin,    check_entry,     check_data,
                                                  check_file_end, check_layer_end, make_scratch};

static void fix_checksums(uint8_t *data, size_t size)
{
    for (size_t at = 0; at + 512 <= size; at += 512) {
        unsigned int sum = 8 * ' ';
        char text[8];

        if (memcmp(data + at + 257, "ustar", 5) != 0)
            continue;
        for (size_t i = 0; i < 512; i++)
            sum += i >= 148 && i < 156 ? 0 : data[at + i];
        snprintf(text, sizeof(text), "%06o", sum & 0777777);
        memcpy(data + at + 148, text, 7);
        data[at + 155] = ' ';
    }
}

static void unpack(int fd, const struct image_limits *limits, const char *top)
{
    char path[4096], command[4200];
    struct image image = {0};
    struct tree *tree = NULL;
    int directory;

    snprintf(path, sizeof(path), "%s/XXXXXX", top);
    if (!mkdtemp(path))
        abort();
    directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (tree_open(directory, FILES_MAX, &tree, NULL) == 0 && image_read(fd, limits, &tree_ops, tree, &image, NULL) == 0)
        image_clear(&image);
    tree_close(tree);
    close(directory);
    snprintf(command, sizeof(command), "rm -rf '%s'", path);
    if (system(command) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct image_limits limits = {BYTES_MAX, FILES_MAX, 20};
    const char *top = getenv("CORACLE_FUZZ_DIRECTORY");
    auto_error struct error *err = NULL;
    auto_free uint8_t *copy = malloc(size + 1);
    struct checker checker = {0};
    struct image image = {0};
    auto_fd int fd = memfd_create("archive", MFD_CLOEXEC);

    if (!copy || fd < 0)
        return 0;
    setlocale(LC_CTYPE, "C.UTF-8");
    if (size)
        memcpy(copy, data, size);
    fix_checksums(copy, size);
    if (write(fd, copy, size) != (ssize_t)size)
        return 0;
    if (image_read(fd, &limits, &checker_ops, &checker, &image, &err) == 0)
        image_clear(&image);
    else if (!err || !err->code || !err->message || strchr(err->message, '\n'))
        abort();
    if (top)
        unpack(fd, &limits, top);
    return 0;
}
