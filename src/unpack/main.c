/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coracle-unpack: turns an image archive (fd 3) into one directory for each layer below fd 4, and says on fd 5, in one
 * JSON object, what it found or what was wrong.
 *
 * It parses bytes from strangers, so it is a process of its own that can do nothing else: the launcher starts it in a
 * user namespace, confine() takes away the rest. One thread. Exit status 0 when every layer is in place and on disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "image/image.h"
#include "unpack/confine.h"
#include "unpack/tree.h"

enum { ARCHIVE_FD = 3, DIRECTORY_FD = 4, RESULT_FD = 5, USAGE_STATUS = 64 };

static int parse_number(const char *text, uint64_t max, uint64_t *ret)
{
    char *end;
    unsigned long long n;

    errno = 0;
    n = strtoull(text, &end, 10);
    if (errno || end == text || *end || *text == '-' || n == 0 || n > max)
        return -EINVAL;
    *ret = n;
    return 0;
}

static int parse_options(int argc, char **argv, struct image_limits *ret)
{
    static const struct option options[] = {{"bytes-max", required_argument, NULL, 'b'},
                                            {"files-max", required_argument, NULL, 'f'},
                                            {"seconds-max", required_argument, NULL, 's'},
                                            {0}};
    struct image_limits l = {.bytes_max = 8ull << 30, .files_max = 1000000, .seconds_max = 900};
    uint64_t seconds;
    int c, r = 0;

    while (r == 0 && (c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'b')
            r = parse_number(optarg, (uint64_t)1 << 50, &l.bytes_max);
        else if (c == 'f')
            r = parse_number(optarg, (uint64_t)1 << 32, &l.files_max);
        else if (c == 's' && (r = parse_number(optarg, 86400, &seconds)) == 0)
            l.seconds_max = (uint32_t)seconds;
        else if (c == '?')
            r = -EINVAL;
    }
    if (r < 0 || optind != argc) {
        fprintf(stderr, "usage: coracle-unpack [--bytes-max N] [--files-max N] [--seconds-max N]\n"
                        "       3< archive, 4 a directory to fill, 5> the result (started by coracle-launcher)\n");
        return -EINVAL;
    }
    *ret = l;
    return 0;
}

static void set_optional(json_t *object, const char *key, json_t *borrowed)
{
    if (borrowed)
        json_object_set(object, key, borrowed);
}

static json_t *render_run(const struct image_run *run)
{
    json_t *j = json_object();

    set_optional(j, "entrypoint", run->entrypoint);
    set_optional(j, "command", run->command);
    set_optional(j, "env", run->env);
    set_optional(j, "labels", run->labels);
    set_optional(j, "exposed_ports", run->exposed_ports);
    if (run->user)
        json_object_set_new(j, "user", json_string(run->user));
    if (run->workdir)
        json_object_set_new(j, "workdir", json_string(run->workdir));
    if (run->stop_signal)
        json_object_set_new(j, "stop_signal", json_integer(run->stop_signal));
    return j;
}

/* What boots, in the config of the answer; a container's image says nothing. */
static void render_guest(const struct image_guest *guest, const struct image_boot *boot, json_t *j)
{
    if (guest->variant == VARIANT_PROCESS)
        return;
    json_object_set_new(j, "guest", json_string(variant_name(guest->variant)));
    json_object_set_new(j, "boot", json_string(guest->boot));
    if (guest->parameters)
        json_object_set_new(j, "parameters", json_string(guest->parameters));
    if (guest->memory_min)
        json_object_set_new(j, "memory", json_integer((json_int_t)guest->memory_min));
    if (boot->initrd)
        json_object_set_new(j, "initrd", json_true());
    if (boot->raw || boot->qcow2)
        json_object_set_new(j, "disk", json_string(boot->raw ? "disk.raw" : "disk.qcow2"));
}

static json_t *render_image(const struct image *image, struct tree_dropped dropped)
{
    json_t *layers = json_array(), *j = json_object(), *config = render_run(&image->run);

    render_guest(&image->run.guest, &image->boot, config);
    for (size_t i = 0; i < image->layer_count; i++)
        json_array_append_new(layers, json_string(image->layers[i]));
    json_object_set_new(j, "format", json_string(image_format_name(image->format)));
    json_object_set_new(j, "digest", json_string(image->digest));
    if (image->name[0])
        json_object_set_new(j, "name", json_string(image->name));
    json_object_set_new(j, "size_bytes", json_integer((json_int_t)image->shipped_bytes));
    json_object_set_new(j, "unpacked_bytes", json_integer((json_int_t)image->unpacked_bytes));
    json_object_set_new(j, "files", json_integer((json_int_t)image->files));
    json_object_set_new(j, "layers", layers);
    json_object_set_new(j, "config", config);
    json_object_set_new(j, "dropped_devices", json_integer((json_int_t)dropped.devices));
    json_object_set_new(j, "dropped_xattrs", json_integer((json_int_t)dropped.xattrs));
    return j;
}

static json_t *render_error(const struct error *err)
{
    char text[1024], shown[IMAGE_PRINTABLE_SIZE];
    json_t *e = json_object(), *j = json_object();

    error_text(err, text, sizeof(text));
    json_object_set_new(e, "code", json_string(err->code));
    /* Every part of it was made printable where it came in; a file system's own words may still not be UTF-8. */
    if (json_object_set_new(e, "message", json_string(text)) < 0)
        json_object_set_new(e, "message", json_string(image_printable(text, shown)));
    json_object_set_new(e, "hint", err->hint ? json_string(err->hint) : json_null());
    json_object_set_new(j, "error", e);
    return j;
}

static int answer(json_t *j)
{
    char *line = j ? json_dumps(j, JSON_COMPACT) : NULL;
    size_t size, at = 0;
    ssize_t n;
    int r = -ENOMEM;

    json_decref(j);
    if (line) {
        size = strlen(line);
        line[size++] = '\n'; /* in place of the terminator */
        do
            n = write(RESULT_FD, line + at, size - at);
        while ((n > 0 && (at += (size_t)n) < size) || (n < 0 && errno == EINTR));
        r = at == size ? 0 : -EPIPE;
    }
    free(line);
    return r;
}

static int unpack(const struct image_limits *limits, struct error **err)
{
    struct image image = {0};
    struct tree *tree = NULL;
    json_t *j;
    int r = digest_prepare(err);

    if (r == 0)
        r = confine(DIRECTORY_FD, RESULT_FD, err);
    if (r == 0)
        r = tree_open(DIRECTORY_FD, limits->files_max, &tree, err);
    if (r == 0)
        r = image_read(ARCHIVE_FD, limits, &tree_ops, tree, &image, err);
    if (r == 0 && syncfs(DIRECTORY_FD) < 0)
        r = error_set_errno(err, errno, errno == ENOSPC ? "NO_SPACE" : "STORE_FAILED",
                            "cannot write the layers to disk");
    j = r == 0 ? render_image(&image, tree_get_dropped(tree)) : NULL;
    image_clear(&image);
    tree_close(tree);
    if (r == 0 && answer(j) < 0)
        r = error_set(err, EPIPE, "INTERNAL", "nobody reads the result");
    return r;
}

int main(int argc, char **argv)
{
    auto_error struct error *err = NULL;
    struct image_limits limits;

    if (parse_options(argc, argv, &limits) < 0)
        return USAGE_STATUS;
    if (fcntl(ARCHIVE_FD, F_GETFD) < 0 || fcntl(DIRECTORY_FD, F_GETFD) < 0 || fcntl(RESULT_FD, F_GETFD) < 0) {
        fprintf(stderr, "coracle-unpack: descriptors 3, 4 and 5 are not open; coracle-launcher starts this program\n");
        return USAGE_STATUS;
    }
    setlocale(LC_CTYPE, "C.UTF-8"); /* names in pax headers are UTF-8 */
    if (unpack(&limits, &err) < 0 && err)
        answer(render_error(err));
    _exit(err ? 1 : 0); /* nothing of stdio to flush; no exit handler should meet the filter */
}
